//! What a worker is made of: targets, chains, buffers and backend, then its way through the phases.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::Sender;
use std::time::Duration;

use super::chain;
use super::devices;
use super::hung;
use super::lanes::Lanes;
use super::options::{BackendKind, ClockKind, Options, Pace};
use super::oracle::Oracle;
use super::plan::{Batches, PrefillSource, SweepSource, TraceSource};
use super::run::{Gate, Output, Settled, Shared};
use super::scan::DiskScan;
use super::totals::Totals;
use super::worker::{Phase, STAGED_MAX, Worker};
use crate::backends::nbd::{Nbd, Server};
use crate::backends::target::Target;
use crate::backends::{Backend, mem::Mem, null::Null, psync::Psync, sim::Sim, uring::Uring};
use crate::clock::{Clock, Ns, WallClock, usage};
use crate::contents::Contents;
use crate::error::{Error, ErrorKind, Result};
use crate::filters::{DataMode, Properties, SECTOR_BYTES};
use crate::formats::content::Content;
use crate::payload::Knobs;
use crate::pipeline::{Chains, Pipeline};
use crate::slab::Slab;
use crate::usage::Used;

/// The longest prefill write and sweep read.
const PREFILL_BYTES: u64 = 256 << 10;
/// A disk without a file is as long as the file that would be made for it.
const SIZE_ALIGN: u64 = 4096;

/// What one worker is made of, checked before its thread starts.
pub(super) struct Kit {
    disks: Vec<(u16, DiskScan)>,
    chains: Chains,
    targets: Arc<Vec<Target>>,
    servers: Vec<Server>,
    data: DataMode,
    lock_align: u64,
    lanes: Lanes,
    /// Where the trace has them.
    contents: Option<Arc<Contents>>,
    slots: usize,
    slot_bytes: usize,
}

impl Kit {
    pub fn prepare(
        options: &Options,
        disks: Vec<(u16, DiskScan)>,
        contents: Option<Arc<Contents>>,
    ) -> Result<Self> {
        let longest = disks.iter().map(|(_, found)| found.length_max_bytes).max().unwrap_or(0);
        let mut targets = Vec::new();
        if options.backend.has_targets() {
            for (disk, found) in &disks {
                targets.push(open_target(options, *disk as usize, found)?);
            }
        }
        let servers = devices::servers(options, &disks)?;
        let sized = |(_, found): &(u16, DiskScan)| found.reach_bytes.next_multiple_of(SIZE_ALIGN);
        let disk_bytes = match targets.as_slice() {
            [] => disks.iter().map(sized).collect(),
            targets => targets.iter().map(|target: &Target| target.size_bytes).collect(),
        };
        let extents = targets.iter().map(Target::extents).collect();
        let disk_ids = targets.iter().map(|target| target.id).collect();
        let disk_writers = targets.iter().map(Target::writer).collect();
        let longest_bytes = longest;
        let known = chain::Known { longest_bytes, disk_bytes, extents, disk_ids, disk_writers };
        let properties = chain::declared(options, &known)?;
        let whole_sectors = disks.iter().all(|(_, found)| found.align_bytes() >= SECTOR_BYTES);
        let data = data_mode(options, &properties, whole_sectors)?;
        let numbers: Vec<u16> = disks.iter().map(|(disk, _)| *disk).collect();
        let (slots, own) = chain::slots(options, &properties, disks.len(), STAGED_MAX);
        let chains = chain::chains(options, &numbers, data, &properties, &known, &own)?;
        let auxiliaries = chain::auxiliary_targets(options, &chains, &targets)?;
        targets.extend(auxiliaries);
        let of_files = targets.iter().map(|target| target.offset_align);
        let of_servers = servers.iter().map(|server| u64::from(server.export.block_min_bytes));
        let align = of_files.chain(of_servers).max().unwrap_or(1);
        let unit = properties.iter().map(|p| p.unit_bytes).max().unwrap_or(1).max(1);
        let child = properties.iter().map(|p| p.child_bytes).max().unwrap_or(0);
        let bytes = longest.max(PREFILL_BYTES).max(child) + 2 * unit.max(align);
        let lanes = Lanes::new(&properties, disks.len(), options.clock == ClockKind::Virtual);
        Ok(Self {
            disks,
            chains,
            targets: Arc::new(targets),
            servers,
            data,
            lock_align: unit.max(align),
            lanes,
            contents,
            slots,
            slot_bytes: data.size(bytes),
        })
    }

    pub fn settled(kits: &[Self], workers: usize) -> Settled {
        Settled {
            data: match kits[0].data {
                DataMode::Bytes => "bytes",
                DataMode::Tokens => "tokens",
                DataMode::Nothing => "none",
            },
            slots: kits.iter().map(|kit| kit.slots).sum(),
            slot_bytes: kits.iter().map(|kit| kit.slot_bytes).max().unwrap_or(0),
            lock_align_bytes: kits.iter().map(|kit| kit.lock_align).max().unwrap_or(1),
            direct: kits
                .iter()
                .flat_map(|k| k.targets.iter().take(k.disks.len()).map(|t| t.direct))
                .collect(),
            workers,
            servers: kits
                .iter()
                .flat_map(|kit| kit.servers.iter().map(|server| server.export.clone()))
                .collect(),
        }
    }

    /// The worker's thread.
    pub fn work(
        self,
        options: Arc<Options>,
        shared: Arc<Shared>,
        out: Sender<Output>,
        batches: Batches,
    ) -> Result<Totals> {
        let _own = shared.apart.enter();
        crate::clock::end_sleeps_in_time();
        let mut late = Latecomer::at(&shared.gate, shared.origin_ns);
        let mut late_to_sweep = Latecomer::at(&shared.sweep_gate, shared.origin_ns);
        let prefills: Vec<(u16, u64, u64)> = self.prefill_runs(&options);
        let locals = self.locals(options.window.disks.len());
        let fits = self.disks.iter().map(|(_, found)| found.fit.clone()).collect();
        let is_virtual = options.clock == ClockKind::Virtual;
        let targets = Arc::clone(&self.targets);
        let disks = self.disks.len().min(targets.len());
        let mut worker = self.into_worker(Arc::clone(&options), Arc::clone(&shared), out)?;
        sign(&options, &targets, disks, false);
        worker.open_filters()?;
        let clock_now = |worker: &Worker| worker.pipeline.core.clock.now();
        let began = clock_now(&worker);
        let prefill = &mut PrefillSource { runs: prefills.into_iter() };
        if let Err(error) = worker.run_phase(Phase::Prefill, prefill, began) {
            // What filters told until then may be why.
            worker.send_events();
            return Err(error);
        }
        worker.close_filters()?;
        worker.send_base(true);
        sign(&options, &targets, disks, true);
        worker.totals.prefill_ns = clock_now(&worker) - began;
        // The figures are of the trace alone: filters forget what the prefill taught them.
        worker.open_filters()?;
        let Some(mut start_ns) = late.arrive(|| shared.used_before()) else {
            return Err(Error::new(ErrorKind::Interrupted, "another disk's worker failed"));
        };
        if is_virtual {
            start_ns = clock_now(&worker);
        } else {
            worker.totals.start_monotonic_ns = shared.origin_ns + start_ns;
            if options.pace == Pace::Asap {
                // Nothing has a due time to wait for, and no time may be before the start.
                let ahead_ns = start_ns.saturating_sub(clock_now(&worker));
                std::thread::sleep(Duration::from_nanos(ahead_ns));
            }
        }
        let before = used(&worker.pipeline);
        let mut trace = TraceSource::new(batches, locals, fits, options.pace, options.speed);
        if let Err(error) = worker.run_phase(Phase::Trace, &mut trace, start_ns) {
            // What was recorded until then is kept.
            worker.finish();
            return Err(error);
        }
        drop(trace);
        worker.read_gauges(clock_now(&worker));
        worker.close_filters()?;
        worker.pipeline.end();
        worker.read_gauges(clock_now(&worker));
        worker.totals.add_usage(before, used(&worker.pipeline));
        shared.used_after();
        if options.verify && !shared.stop.load(Relaxed) {
            // Another's failure is told by the other; what is here is looked at all the same.
            let _ = late_to_sweep.arrive(|| ());
            let mut sweep = SweepSource { runs: sweep_runs(&worker.oracles).into_iter() };
            worker.run_phase(Phase::Sweep, &mut sweep, clock_now(&worker))?;
        }
        worker.finish();
        Ok(worker.totals)
    }

    fn prefill_runs(&self, options: &Options) -> Vec<(u16, u64, u64)> {
        if !options.prefill || options.backend == BackendKind::Null {
            return Vec::new();
        }
        let mut runs = Vec::new();
        for (local, (_, found)) in self.disks.iter().enumerate() {
            let align = self.lock_align.max(4096);
            // Rounded out, a run may reach past the end of a target of an odd size; a model ends
            // where the trace does.
            let end = match self.servers.get(local) {
                Some(server) => server.export.size_bytes,
                None => {
                    self.targets.get(local).map_or(found.reach_bytes, |target| target.size_bytes)
                }
            };
            let pieces = found.prefill.runs(align, PREFILL_BYTES).into_iter();
            runs.extend(pieces.map(|(from, length)| (local as u16, from, length.min(end - from))));
        }
        runs
    }

    fn locals(&self, disks: usize) -> Vec<u16> {
        let mut locals = vec![u16::MAX; disks];
        for (local, (disk, _)) in self.disks.iter().enumerate() {
            locals[*disk as usize] = local as u16;
        }
        locals
    }

    fn into_worker(
        mut self,
        options: Arc<Options>,
        shared: Arc<Shared>,
        out: Sender<Output>,
    ) -> Result<Worker> {
        let clock = match options.clock {
            ClockKind::Wall => Clock::Wall(WallClock::since(shared.origin_ns)),
            ClockKind::Virtual => Clock::Virtual(0),
        };
        let knobs = Knobs { compressible: options.compressible, dedupe: options.dedupe };
        let content = options.content.as_deref().map(Content::open).transpose()?.map(Arc::new);
        let mut oracles = Vec::new();
        for (disk, found) in &mut self.disks {
            let granule = options.verify.then(|| found.align_bytes());
            let name = &shared.disk_names[*disk as usize];
            let mut oracle = Oracle::new(name, options.seed, knobs, self.data, granule)?
                .with_content(content.as_ref());
            if let Some(contents) = &self.contents {
                let at_start = std::mem::take(&mut found.prefill_contents);
                oracle = oracle.with_contents(Arc::clone(contents), at_start);
            }
            oracles.push(oracle);
        }
        let shared_bytes = chain::has_processes(&options)?;
        let layers = options.filters.len() + 1;
        let slab = Slab::with_memory(self.slots, self.slot_bytes, layers, shared_bytes)?;
        let backend = if options.backend == BackendKind::Nbd {
            Box::new(Nbd::new(self.servers, Arc::clone(&self.targets), self.slots)?)
        } else {
            make_backend(&options, Arc::clone(&self.targets), self.slots, self.data)?
        };
        let mut pipeline =
            Pipeline::new(clock, slab, self.data, self.disks.len(), self.chains, backend);
        pipeline.place()?;
        pipeline.watch(|layer| hung::is_foreign(&options, layer), options.hang_ns);
        let disks = self.disks.iter().map(|(disk, _)| *disk).collect();
        let worker = Worker::new(options, shared, disks, oracles, pipeline, out, self.lock_align);
        Ok(worker.with_lanes(self.lanes))
    }
}

/// Of the machine: by this thread, and by filters in processes of their own. What other threads of
/// this process use is told once for all workers.
fn used(pipeline: &Pipeline) -> Used {
    let (here, elsewhere) = (usage(false), pipeline.used_elsewhere());
    std::array::from_fn(|i| here[i] + elsewhere[i])
}

/// Arrives at a gate as failed when the worker leaves before it could.
struct Latecomer<'a> {
    gate: &'a Gate,
    origin_ns: u64,
    arrived: bool,
}

impl<'a> Latecomer<'a> {
    const fn at(gate: &'a Gate, origin_ns: u64) -> Self {
        Self { gate, origin_ns, arrived: false }
    }

    fn arrive(&mut self, last: impl FnOnce()) -> Option<Ns> {
        self.arrived = true;
        self.gate.arrive(true, self.origin_ns, last)
    }
}

impl Drop for Latecomer<'_> {
    fn drop(&mut self) {
        if !self.arrived {
            self.gate.arrive(false, self.origin_ns, || ());
        }
    }
}

/// Signs the targets as written to by this run. Where filters keep data of their own, which may be
/// newer than a target, they look at its old signature in the prefill: only `after_prefill` may it
/// be another, or a run that is cut short would make their target a stranger.
fn sign(options: &Options, targets: &[Target], disks: usize, after_prefill: bool) {
    if options.read_only || (targets.len() > disks) != after_prefill {
        return;
    }
    for target in &targets[..disks] {
        target.sign(chain::writer(options));
    }
}

fn sweep_runs(oracles: &[Oracle]) -> Vec<(u16, u64, u64)> {
    let mut runs: Vec<(u16, u64, u64)> = Vec::new();
    for (disk, oracle) in oracles.iter().enumerate() {
        for range in oracle.known_ranges() {
            let (mut offset, end) = (range.offset_bytes, range.offset_bytes + range.length_bytes);
            while offset < end {
                let step = PREFILL_BYTES.min(end - offset);
                match runs.last_mut() {
                    Some((d, from, length))
                        if *d == disk as u16
                            && *from + *length == offset
                            && *length + step <= PREFILL_BYTES =>
                    {
                        *length += step;
                    }
                    _ => runs.push((disk as u16, offset, step)),
                }
                offset += step;
            }
        }
    }
    runs
}

/// Tokens stand for whole sectors: a trace that touches parts of them needs the bytes.
fn data_mode(
    options: &Options,
    properties: &[Properties],
    whole_sectors: bool,
) -> Result<DataMode> {
    let needed = properties.iter().any(|p| p.needs_data);
    Ok(match (options.backend, options.clock) {
        (BackendKind::Null, _) if options.verify => {
            return Err(Error::input(
                "the null backend keeps no data to verify; use mem, sim or a file",
            ));
        }
        (BackendKind::Null, _) if !needed => DataMode::Nothing,
        (_, ClockKind::Virtual) if !needed && whole_sectors => DataMode::Tokens,
        _ => DataMode::Bytes,
    })
}

fn open_target(options: &Options, disk: usize, found: &DiskScan) -> Result<Target> {
    let path = options.targets.get(disk).ok_or_else(|| {
        Error::input(format!("no target for disk {}", options.window.disks[disk]))
    })?;
    let target = Target::open(Path::new(path), !options.read_only, options.direct)?;
    if found.reach_bytes > target.size_bytes {
        return Err(Error::input(format!(
            "the trace reaches to byte {} of disk {}, the target has {}; use a larger one or \
             --fit-to",
            found.reach_bytes, options.window.disks[disk], target.size_bytes
        ))
        .with("file", path));
    }
    Ok(target)
}

fn make_backend(
    options: &Options,
    targets: Arc<Vec<Target>>,
    slots: usize,
    data: DataMode,
) -> Result<Box<dyn Backend>> {
    // Beside a hop the worker looks for answers without a call to the kernel too.
    let has_hops = options.filters.iter().any(|spec| spec.name == crate::hop::LAYER);
    let polled = options.pace != Pace::Asap || has_hops;
    Ok(match options.backend {
        BackendKind::Null | BackendKind::Nbd => Box::new(Null::default()),
        BackendKind::Mem => Box::new(Mem::new(data)),
        BackendKind::Sim => {
            let mut model = options.sim.unwrap_or_default();
            model.seed ^= options.seed;
            Box::new(Sim::new(model, data))
        }
        BackendKind::Psync => {
            let depth = options.in_flight_max();
            Box::new(Psync::new(targets, depth, !polled && depth == 1)?)
        }
        BackendKind::Uring => Box::new(Uring::new(targets, slots, polled)?),
    })
}
