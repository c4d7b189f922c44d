//! Builds the chains of a worker from the policy, and opens what its filters need beside the disk.

use super::options::{ClockKind, Options};
use crate::backends::target::Target;
use crate::error::{Error, Result};
use crate::filters::foreign;
use crate::filters::{DataMode, Filter, Properties, Scope, Setting};
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
}

/// What each filter of the policy declares of itself.
///
/// # Errors
/// `Input` with the first wrong parameter.
pub(super) fn declared(options: &Options, known: &Known) -> Result<Vec<Properties>> {
    (0..options.filters.len())
        .map(|layer| build(options, layer, 0, DataMode::Bytes, known).map(|(_, declared)| declared))
        .collect()
}

/// The chains of these disks (numbers of the run), an instance a disk or one for all.
///
/// # Errors
/// As [`declared`].
pub(super) fn chains(
    options: &Options,
    disks: &[u16],
    data: DataMode,
    declared: &[Properties],
    known: &Known,
) -> Result<Chains> {
    let mut chains = Chains::new(options.filters.len());
    // What a file holds is what a filter reads only where all below leave it as it is.
    let last = declared.iter().rposition(|properties| !properties.transparent);
    let blind = Known { extents: Vec::new(), ..known.clone() };
    for (local, disk) in disks.iter().enumerate() {
        let mut places = Vec::new();
        for (layer, properties) in declared.iter().enumerate() {
            places.push(if local > 0 && properties.scope == Scope::Group {
                Place::Shared
            } else {
                let known = if last.is_some_and(|last| layer < last) { &blind } else { known };
                Place::Own(build(options, layer, *disk, data, known)?.0)
            });
        }
        chains.add_disk(places);
    }
    Ok(chains)
}

/// The files of the filters' auxiliary devices, in the order of their numbers.
///
/// # Errors
/// `Input` when one cannot be made or opened, or is somebody else's.
pub(super) fn auxiliary_targets(options: &Options, chains: &Chains) -> Result<Vec<Target>> {
    if !options.backend.has_files() {
        return Ok(Vec::new());
    }
    let mut targets: Vec<Target> = Vec::new();
    for auxiliary in chains.auxiliaries() {
        let Some(path) = &auxiliary.path else {
            return Err(Error::input(format!("the {} needs a file", auxiliary.name)));
        };
        let target = Target::open_auxiliary(path, &auxiliary, options.direct)?;
        let is_same = |other: &Target| other.path == target.path;
        if targets.iter().any(is_same) || options.targets.iter().any(|t| *path == **t) {
            return Err(Error::input(format!("the {} is used twice", auxiliary.name))
                .with("file", path.display()));
        }
        targets.push(target);
    }
    Ok(targets)
}

fn build(
    options: &Options,
    layer: usize,
    disk: u16,
    data: DataMode,
    known: &Known,
) -> Result<(Box<dyn Filter>, Properties)> {
    let setting = Setting {
        disk: options.window.disks[disk as usize].clone(),
        disks: options.window.disks.clone(),
        disk_index: disk,
        layer: layer as u8,
        seed: options.seed,
        data,
        longest_bytes: known.longest_bytes,
        disk_bytes: known.disk_bytes.clone(),
        extents: known.extents.clone(),
        run: options.run.clone(),
        is_virtual: options.clock == ClockKind::Virtual,
    };
    let spec = &options.filters[layer];
    foreign::build(&spec.name, &spec.params, &setting).map_err(|errors| {
        let first = errors.first().map_or(String::new(), |e| format!("{}: {}", e.path, e.message));
        Error::input(format!("filter[{layer}].{first}"))
    })
}
