//! A round: starts the reader and the workers, brings them to one starting line, collects.

use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{
    Receiver, RecvTimeoutError, SyncSender, TrySendError, channel, sync_channel,
};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use super::chain;
use super::feed::{Feed, Numbered};
use super::kit::Kit;
use super::options::{ClockKind, Options};
use super::scan::{DiskScan, Scan};
use super::totals::{Progress, Totals};
use crate::backends::nbd::Export;
use crate::base_sums::BaseSum;
use crate::clock::{Ns, monotonic_ns};
use crate::error::{Error, ErrorKind, Result};
use crate::filters::Scope;
use crate::gauges::Reading;
use crate::pipeline::Event;
use crate::record::Chunk;
use crate::usage::{Apart, READER, Used};

/// Rows of a batch from the reader to a worker, and batches on their way at most.
const BATCH_ROWS: usize = 8192;
const BATCHES: usize = 16;
/// From the last worker's readiness to the first due time.
const COUNTDOWN_NS: u64 = 2_000_000;

/// What workers send while they run.
pub enum Output {
    Rows(Chunk),
    Gauges(Vec<Reading>),
    Events(Vec<Event>),
    Base(Vec<BaseSum>),
}

/// What all workers of a round share.
pub struct Shared {
    pub stop: AtomicBool,
    pub progress: Progress,
    pub disk_names: Vec<String>,
    pub(super) origin_ns: u64,
    pub(super) gate: Gate,
    /// Nothing is swept before all have written: a disk may hold what another one's worker wrote.
    pub(super) sweep_gate: Gate,
    /// The workers and the reader: their use of the machine is booked to each, or to nobody.
    pub(super) apart: Arc<Apart>,
    /// What all other threads had used at the start, and at the end of the last worker.
    used: Mutex<[Used; 2]>,
}

impl Shared {
    /// When all workers are ready.
    pub(super) fn used_before(&self) {
        let used = self.apart.used_by_others();
        *self.lock_used() = [used; 2];
    }

    /// When a worker has done its part of the trace: the last one's stands.
    pub(super) fn used_after(&self) {
        let used = self.apart.used_by_others();
        self.lock_used()[1] = used;
    }

    fn lock_used(&self) -> std::sync::MutexGuard<'_, [Used; 2]> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A line that nobody crosses before everybody is there.
pub(super) struct Gate {
    state: Mutex<GateState>,
    moved: Condvar,
}

struct GateState {
    missing: usize,
    failed: bool,
    start_ns: Ns,
}

impl Gate {
    fn new(workers: usize) -> Self {
        let state = GateState { missing: workers, failed: false, start_ns: 0 };
        Self { state: Mutex::new(state), moved: Condvar::new() }
    }

    /// Waits for the others; the start time, or `None` when one of them failed. The last to arrive
    /// does `last` while all wait.
    pub fn arrive(&self, ready: bool, origin_ns: u64, last: impl FnOnce()) -> Option<Ns> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.missing -= 1;
        state.failed |= !ready;
        if state.missing == 0 && !state.failed {
            last();
        }
        state.start_ns = monotonic_ns() - origin_ns + COUNTDOWN_NS;
        self.moved.notify_all();
        while state.missing > 0 && !state.failed {
            state = self.moved.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        (!state.failed).then_some(state.start_ns)
    }
}

/// A round under way.
pub struct Run {
    shared: Arc<Shared>,
    outputs: Receiver<Output>,
    workers: Vec<JoinHandle<Result<Totals>>>,
    reader: Option<JoinHandle<()>>,
}

/// What the engine settled on, for the manifest.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Settled {
    pub data: &'static str,
    pub slots: usize,
    pub slot_bytes: usize,
    pub lock_align_bytes: u64,
    pub direct: Vec<bool>,
    pub workers: usize,
    /// What NBD servers said of themselves, one a disk.
    pub servers: Vec<Export>,
}

impl Run {
    /// Starts the round. `scan` is of the same window of the same trace as `feed`.
    ///
    /// # Errors
    /// `Input` when a filter's parameters or the targets are wrong.
    pub fn start(options: Options, scan: Scan, feed: Feed) -> Result<(Self, Settled)> {
        // Threads that a foreign filter starts while it is built belong to the path: they must not
        // have the name of the thread that takes the rows.
        let apart = Arc::new(Apart::default());
        let starter = Arc::clone(&apart);
        let work = move || {
            let _own = starter.enter();
            Self::start_here(options, scan, feed, apart)
        };
        spawn("starter", work)?.join().unwrap_or_else(|panic| Err(told(&*panic)))
    }

    fn start_here(
        options: Options,
        scan: Scan,
        feed: Feed,
        apart: Arc<Apart>,
    ) -> Result<(Self, Settled)> {
        let options = Arc::new(options);
        let disks = options.window.disks.len();
        // What sees several disks is one worker's.
        let grouped = chain::declared(&options, &chain::Known::default())?
            .iter()
            .any(|p| p.scope == Scope::Group);
        let workers = if options.clock == ClockKind::Virtual || grouped {
            1
        } else {
            options.workers.clamp(1, disks)
        };
        let shared = Arc::new(Shared {
            stop: AtomicBool::new(false),
            progress: Progress::new(disks),
            disk_names: options.window.disks.clone(),
            origin_ns: monotonic_ns(),
            gate: Gate::new(workers),
            sweep_gate: Gate::new(workers),
            apart,
            used: Mutex::default(),
        });
        let contents = Some(scan.contents).filter(|contents| contents.is_used());
        let feed = match &contents {
            Some(contents) => feed.with_contents(Arc::clone(contents)),
            None => feed,
        };
        let mut shares: Vec<Vec<(u16, DiskScan)>> = (0..workers).map(|_| Vec::new()).collect();
        for (disk, found) in scan.disks.into_iter().enumerate() {
            shares[disk % workers].push((disk as u16, found));
        }
        // Everything that can be wrong is found before the first thread starts.
        let mut kits = Vec::new();
        for share in shares {
            kits.push(Kit::prepare(&options, share, contents.clone())?);
        }
        let settled = Kit::settled(&kits, workers);
        let (out, outputs) = channel();
        let mut routes = Vec::new();
        let mut joins = Vec::new();
        for kit in kits {
            let (route, batches) = sync_channel(BATCHES);
            routes.push((route, Vec::with_capacity(BATCH_ROWS)));
            let (options, shared, out) = (Arc::clone(&options), Arc::clone(&shared), out.clone());
            joins.push(spawn("worker", move || kit.work(options, shared, out, batches))?);
        }
        let own = Arc::clone(&shared.apart);
        let read = move || {
            let _own = own.enter();
            read_trace(feed, routes);
        };
        let reader = spawn(READER, read)?;
        Ok((Self { shared, outputs, workers: joins, reader: Some(reader) }, settled))
    }

    /// The next output; `None` after `timeout`, `Some(None)` when all workers are done.
    pub fn next_output(&self, timeout: Duration) -> Option<Option<Output>> {
        match self.outputs.recv_timeout(timeout) {
            Ok(output) => Some(Some(output)),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => Some(None),
        }
    }

    /// Asks the workers to issue nothing more and to wait for what is in flight.
    pub fn stop(&self) {
        self.shared.stop.store(true, Relaxed);
    }

    #[must_use]
    pub fn progress(&self) -> (u64, u64, u64) {
        self.shared.progress.read()
    }

    /// The counts of all workers, when their outputs are all taken.
    ///
    /// # Errors
    /// The first worker's error.
    pub fn finish(mut self) -> Result<Totals> {
        let mut totals = Totals::default();
        let mut failure = None;
        for worker in self.workers.drain(..) {
            match worker.join() {
                Ok(Ok(counts)) => totals.add(&counts),
                // A worker that never started because another failed has nothing to say.
                Ok(Err(error)) if error.kind == ErrorKind::Interrupted => {
                    failure.get_or_insert(error);
                }
                Ok(Err(error)) => failure = Some(error),
                Err(panic) => failure = Some(told(&*panic)),
            }
        }
        drop(std::mem::replace(&mut self.outputs, channel().1));
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
        let [before, after] = *self.shared.lock_used();
        totals.add_usage(before, after);
        match failure {
            Some(error) => Err(error),
            None => Ok(totals),
        }
    }
}

fn told(panic: &(dyn std::any::Any + Send)) -> Error {
    let words = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("no message");
    Error::failed(format!("a worker broke: {words}"))
}

fn spawn<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<JoinHandle<T>> {
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(work)
        .map_err(|e| Error::failed("cannot start a thread").caused_by(e))
}

/// The way to a worker, and what is gathered for its next batch.
type Route = (SyncSender<Result<Vec<Numbered>>>, Vec<Numbered>);

/// Deals the trace out to the workers. A worker that is behind holds the others up only when it is
/// `BATCHES` batches behind: that bounds the memory.
fn read_trace(mut feed: Feed, mut routes: Vec<Route>) {
    let workers = routes.len();
    loop {
        match feed.next_io() {
            Ok(Some(row)) => {
                let worker = row.io.disk as usize % workers;
                routes[worker].1.push(row);
                if routes[worker].1.len() == BATCH_ROWS && !hand_over(&mut routes, worker) {
                    return;
                }
            }
            Ok(None) => {
                for (route, rows) in &mut routes {
                    let _ = route.send(Ok(std::mem::take(rows)));
                }
                return;
            }
            Err(error) => {
                let _ = routes[0].0.send(Err(error));
                return;
            }
        }
    }
}

/// Sends a full batch; before waiting for room, everybody else gets what there is for them.
fn hand_over(routes: &mut [Route], worker: usize) -> bool {
    let full = std::mem::replace(&mut routes[worker].1, Vec::with_capacity(BATCH_ROWS));
    match routes[worker].0.try_send(Ok(full)) {
        Ok(()) => true,
        Err(TrySendError::Disconnected(_)) => false,
        Err(TrySendError::Full(full)) => {
            for (other, (route, rows)) in routes.iter_mut().enumerate() {
                if other != worker && !rows.is_empty() {
                    let batch = std::mem::replace(rows, Vec::with_capacity(BATCH_ROWS));
                    if let Err(TrySendError::Full(Ok(batch))) = route.try_send(Ok(batch)) {
                        *rows = batch;
                    }
                }
            }
            routes[worker].0.send(full).is_ok()
        }
    }
}
