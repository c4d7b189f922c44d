//! Builds the chains of a worker from the policy, and opens what its filters need beside the disk.

use super::options::{ClockKind, Options};
use crate::backends::target::Target;
use crate::error::{Error, Result};
use crate::filters::foreign;
use crate::filters::{DataMode, Filter, Properties, Scope, Setting};
use crate::hop::{self, Placement, Where};
use crate::pipeline::{Chains, Place};

/// What is known of the run before its filters are built.
#[derive(Debug, Clone, Default)]
pub(super) struct Known {
    /// The longest I/O.
    pub longest_bytes: u64,
    /// By the worker's disks: how large each is.
    pub disk_bytes: Vec<u64>,
    /// By the worker's disks: ranges that hold anything; none where that is not known.
    pub extents: Vec<Vec<(u64, u64)>>,
    /// Which, and which run wrote to each last.
    pub disk_ids: Vec<u64>,
    pub disk_writers: Vec<u64>,
}

/// What each layer declares of itself: the stand-in of a placed filter what the filter does, and
/// the filter's own layer behind it nothing.
///
/// # Errors
/// `Input` with the first wrong parameter, or a filter that cannot be placed.
pub(super) fn declared(options: &Options, known: &Known) -> Result<Vec<Properties>> {
    let mut all = Vec::new();
    for layer in 0..options.filters.len() {
        if options.filters[layer].name == hop::LAYER {
            if options.clock == ClockKind::Virtual {
                return Err(Error::input("a filter that is placed needs the wall clock"));
            }
            let declared = build(options, layer + 1, (0, 0), DataMode::Bytes, known)?.1;
            hop::check(&declared).map_err(|error| {
                let (policy, place) = (&options.policy, place_in_policy(options, layer + 1));
                Error::input(format!("policy {policy}: filter[{place}].{error}"))
            })?;
            all.push(declared);
        } else if is_placed(options, layer) {
            all.push(Properties::TRANSPARENT);
        } else {
            all.push(build(options, layer, (0, 0), DataMode::Bytes, known)?.1);
        }
    }
    Ok(all)
}

/// Behind a stand-in: the filter runs elsewhere.
fn is_placed(options: &Options, layer: usize) -> bool {
    layer > 0 && options.filters[layer - 1].name == hop::LAYER
}

/// Stand-ins are layers, but no filters of the policy.
pub(super) fn place_in_policy(options: &Options, layer: usize) -> usize {
    layer - options.filters[..layer].iter().filter(|spec| spec.name == hop::LAYER).count()
}

fn placement(options: &Options, layer: usize) -> Result<Option<Placement>> {
    let spec = &options.filters[layer];
    if spec.name != hop::LAYER {
        return Ok(None);
    }
    let parsed = serde_json::from_value(spec.params.clone());
    parsed.map(Some).map_err(|e| Error::input(format!("engine options: {e}")))
}

/// Whether I/Os' bytes are to be shared with another process.
///
/// # Errors
/// `Input` for options that cannot be understood.
pub(super) fn has_processes(options: &Options) -> Result<bool> {
    for layer in 0..options.filters.len() {
        if placement(options, layer)?.is_some_and(|of| of.placement == Where::Process) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Slots for all that can be open at one time: roots, their flushes, and what filters declared.
/// Also, by layer, how many are for the I/Os of the filter there.
pub(super) fn slots(
    options: &Options,
    properties: &[Properties],
    disks: usize,
    staged: usize,
) -> (usize, Vec<usize>) {
    let mut open = options.in_flight_max() * 2;
    let mut slots = open + staged;
    let mut by_layer = Vec::new();
    for (layer, filter) in properties.iter().enumerate() {
        let own = open * filter.children_per_io as usize + filter.background_ios as usize;
        // What is lent to one disk's filter is not there for another's.
        slots += if options.filters[layer].name == hop::LAYER { own * disks } else { own };
        open += own;
        by_layer.push(own);
    }
    (slots, by_layer)
}

/// The chains of these disks (numbers of the run), an instance a disk or one for all; `own` slots
/// by layer are lent to filters that run elsewhere.
///
/// # Errors
/// As [`declared`].
pub(super) fn chains(
    options: &Options,
    disks: &[u16],
    data: DataMode,
    declared: &[Properties],
    known: &Known,
    own: &[usize],
) -> Result<Chains> {
    let mut chains = Chains::new(options.filters.len());
    // What a file holds is what a filter reads only where all below leave it as it is, and hold
    // nothing of an earlier run that it lacks.
    let last = declared.iter().rposition(|filter| !filter.transparent || filter.persists);
    let blind = Known { extents: Vec::new(), ..known.clone() };
    let seen = |layer| if last.is_some_and(|last| layer < last) { &blind } else { known };
    for (local, disk) in disks.iter().enumerate() {
        let mut places = Vec::new();
        for (layer, properties) in declared.iter().enumerate() {
            if let Some(placement) = placement(options, layer)? {
                let setting = setting(options, layer + 1, (*disk, local as u16), data, seen(layer));
                let (filter, _) = build_with(options, layer + 1, &setting)?;
                let spec = options.clone();
                let make: hop::Make =
                    Box::new(move || Ok(build_with(&spec, layer + 1, &setting)?.0));
                let (stand_in, mark) = hop::layers(placement, filter, Some(make), own[layer]);
                places.push(Place::Own(Box::new(stand_in)));
                places.push(Place::Own(Box::new(mark)));
            } else if !is_placed(options, layer) {
                places.push(if local > 0 && properties.scope == Scope::Group {
                    Place::Shared
                } else {
                    Place::Own(build(options, layer, (*disk, local as u16), data, seen(layer))?.0)
                });
            }
        }
        chains.add_disk(places);
    }
    Ok(chains)
}

/// The files of the filters' auxiliary devices, in the order of their numbers.
///
/// # Errors
/// `Input` when one cannot be made or opened, or is somebody else's.
pub(super) fn auxiliary_targets(
    options: &Options,
    chains: &Chains,
    disks: &[Target],
) -> Result<Vec<Target>> {
    if !options.backend.has_files() {
        return Ok(Vec::new());
    }
    let mut targets: Vec<Target> = Vec::new();
    for auxiliary in chains.auxiliaries() {
        let Some(path) = &auxiliary.path else {
            return Err(Error::input(format!("the {} needs a file", auxiliary.name)));
        };
        let target = Target::open_auxiliary(path, &auxiliary, options.direct)?;
        let is_same = |other: &Target| other.id == target.id;
        if targets.iter().any(is_same) || disks.iter().any(is_same) {
            return Err(Error::input(format!(
                "the {} is in use already, as a target or by another filter: expected a file of \
                 its own",
                auxiliary.name
            ))
            .with("file", path.display()));
        }
        targets.push(target);
    }
    Ok(targets)
}

/// A number for this run, policy and round.
pub(super) fn writer(options: &Options) -> u64 {
    xxhash_rust::xxh3::xxh3_64(options.run.as_bytes())
}

fn build(
    options: &Options,
    layer: usize,
    (disk, local_index): (u16, u16),
    data: DataMode,
    known: &Known,
) -> Result<(Box<dyn Filter>, Properties)> {
    build_with(options, layer, &setting(options, layer, (disk, local_index), data, known))
}

fn setting(
    options: &Options,
    layer: usize,
    (disk, local_index): (u16, u16),
    data: DataMode,
    known: &Known,
) -> Setting {
    Setting {
        disk: options.window.disks[disk as usize].clone(),
        disks: options.window.disks.clone(),
        disk_index: disk,
        local_index,
        layer: layer as u8,
        seed: options.seed,
        data,
        longest_bytes: known.longest_bytes,
        disk_bytes: known.disk_bytes.clone(),
        extents: known.extents.clone(),
        disk_ids: known.disk_ids.clone(),
        disk_writers: known.disk_writers.clone(),
        writer: writer(options),
        run: options.run.clone(),
        is_virtual: options.clock == ClockKind::Virtual,
    }
}

fn build_with(
    options: &Options,
    layer: usize,
    setting: &Setting,
) -> Result<(Box<dyn Filter>, Properties)> {
    let spec = &options.filters[layer];
    foreign::build(&spec.name, &spec.params, setting).map_err(|errors| {
        let first = errors.first().map_or(String::new(), |e| format!("{}: {}", e.path, e.message));
        let place = place_in_policy(options, layer);
        Error::input(format!("policy {}: filter[{place}].{first}", options.policy))
    })
}
