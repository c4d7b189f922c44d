//! One worker drives the I/Os of its disks: when each is due, what it carries, what came of it.
//!
//! The loop is the same on both clocks: take in completions, issue what is due, then let time pass
//! until the next thing happens. On the wall it sleeps and spins the last part; in virtual time it
//! moves the clock.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::Sender;

use super::lanes::Lanes;
use super::options::{Conflicts, Options, Pace};
use super::oracle::{Oracle, Place};
use super::plan::{Due, Planned, Source, Step};
use super::run::{Output, Shared};
use super::totals::Totals;
use crate::clock::{Ns, monotonic_ns};
use crate::error::{Error, ErrorKind, Result};
use crate::filters::DataMode;
use crate::gauges::Gauges;
use crate::io::{Op, flags, row_flags};
use crate::payload::Version;
use crate::pipeline::Pipeline;
use crate::rangelock::RangeLock;
use crate::record::Recorder;
use crate::slab::IoId;

/// I/Os whose data is made ahead of their due time.
pub const STAGED_MAX: usize = 8;
/// The device works on the first I/Os while the next are made ready: handed over all at once, a
/// queue that is filled after it ran empty stays idle meanwhile, a fifth of the time.
const BURST: usize = 2;
/// After a stop, I/Os in flight get this long to come home.
const DRAIN_NS: u64 = 30_000_000_000;
/// Completion times that `closed` remembers: more than can be in flight.
pub(super) const REMEMBERED: usize = 1 << 16;

/// An I/O of the trace of which something has completed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Remembered {
    pub seq: u64,
    /// When the last piece of it did.
    pub at_ns: Ns,
    /// Pieces (of a fit map) that are still on their way: nobody who waited for it goes on.
    pub pieces_left: u32,
}

/// What of a slot the pipeline does not need to know.
#[derive(Debug, Clone, Copy)]
pub(super) struct Slot {
    pub due: Due,
    pub due_ns: Ns,
    pub version: Version,
    /// Pieces of the I/O of the trace that this is one of.
    pub pieces: u32,
    /// Overlapped another in flight, unordered: its data proves nothing.
    pub unordered: bool,
}

/// What a phase is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    Prefill,
    Trace,
    Sweep,
}

pub struct Worker {
    pub options: Arc<Options>,
    pub shared: Arc<Shared>,
    /// By the worker's own number: the run's number of the disk.
    pub disks: Vec<u16>,
    pub oracles: Vec<Oracle>,
    pub pipeline: Pipeline,
    pub totals: Totals,
    pub(super) lock: RangeLock,
    pub(super) lanes: Lanes,
    pub(super) recorder: Recorder,
    gauges: Gauges,
    /// What the filters of one disk tell, while it is taken in.
    told: Vec<(u8, &'static str, i64)>,
    pub(super) out: Sender<Output>,
    pub(super) slots: Vec<Slot>,
    pub(super) staged: VecDeque<IoId>,
    pub(super) in_flight: usize,
    /// When there last was room again for another I/O in flight.
    pub(super) room_since_ns: Ns,
    /// When the last I/O that was issued was due.
    pub(super) last_due_ns: Ns,
    pub(super) done: Vec<IoId>,
    pub(super) ready: Vec<IoId>,
    pub(super) completed: Vec<Remembered>,
    pub(super) start_ns: Ns,
    pub(super) next_sample_ns: Ns,
    pub(super) pace: Pace,
    pub(super) phase: Phase,
    pub(super) exhausted: bool,
    /// The source has nothing yet: the trace is still being read.
    pub(super) starved: bool,
    pub(super) depth: usize,
    /// I/Os handed to the device at a time with `asap`.
    burst: usize,
}

impl Worker {
    /// `layers` counts the backend; `lock_align` is the largest unit below the driver.
    #[must_use]
    pub fn new(
        options: Arc<Options>,
        shared: Arc<Shared>,
        disks: Vec<u16>,
        oracles: Vec<Oracle>,
        pipeline: Pipeline,
        out: Sender<Output>,
        lock_align: u64,
    ) -> Self {
        let slots = pipeline.core.slab.capacity();
        let layers = options.filters.len() + 1;
        let blank = Slot {
            due: Due::Now,
            due_ns: 0,
            version: Version::UNKNOWN,
            pieces: 1,
            unordered: false,
        };
        Self {
            totals: Totals::default(),
            lock: RangeLock::new(slots, lock_align),
            lanes: Lanes::new(&[], 0, false),
            recorder: Recorder::new(layers),
            gauges: Gauges::default(),
            told: Vec::new(),
            slots: vec![blank; slots],
            staged: VecDeque::with_capacity(STAGED_MAX),
            in_flight: 0,
            room_since_ns: 0,
            last_due_ns: 0,
            done: Vec::with_capacity(slots),
            ready: Vec::with_capacity(slots),
            completed: if options.pace == Pace::Closed {
                vec![Remembered { seq: u64::MAX, at_ns: 0, pieces_left: 0 }; REMEMBERED]
            } else {
                Vec::new()
            },
            start_ns: 0,
            next_sample_ns: 0,
            pace: options.pace,
            phase: Phase::Trace,
            exhausted: false,
            starved: false,
            depth: options.in_flight_max(),
            burst: if options.backend.has_targets() { BURST } else { usize::MAX },
            options,
            shared,
            disks,
            oracles,
            pipeline,
            out,
        }
    }

    #[must_use]
    pub(super) fn with_lanes(mut self, lanes: Lanes) -> Self {
        self.lanes = lanes;
        self
    }

    /// Drives one phase to its end, or until told to stop. Times count from `start_ns`.
    ///
    /// # Errors
    /// When the backend breaks, the trace is damaged, or a prefill write fails.
    pub fn run_phase(&mut self, phase: Phase, source: &mut dyn Source, start_ns: Ns) -> Result<()> {
        self.phase = phase;
        self.start_ns = start_ns;
        if phase != Phase::Sweep {
            // What filters tell while the data is checked still counts from the trace's start.
            self.pipeline.core.start_ns = start_ns;
        }
        self.next_sample_ns = start_ns;
        self.room_since_ns = 0;
        self.last_due_ns = start_ns;
        self.exhausted = false;
        (self.pace, self.depth) = match phase {
            Phase::Trace => (self.options.pace, self.options.in_flight_max()),
            Phase::Prefill | Phase::Sweep => (Pace::Asap, self.options.in_flight_max().min(32)),
        };
        let mut stop_at = None;
        let mut failure = None;
        loop {
            self.pipeline.poll()?;
            if let Some(error) = self.pipeline.broken() {
                if phase == Phase::Prefill {
                    return Err(error);
                }
                // Rows of what was in flight first; the other workers have nothing to wait for.
                failure = Some(error);
                self.shared.stop.store(true, Relaxed);
            }
            self.collect()?;
            if self.shared.stop.load(Relaxed) && stop_at.is_none() {
                self.abandon_staged();
                stop_at = Some(monotonic_ns() + DRAIN_NS);
            }
            if !self.exhausted {
                self.stage(source)?;
            }
            self.issue_due()?;
            if self.exhausted && self.staged.is_empty() && self.in_flight == 0 {
                return failure.map_or(Ok(()), Err);
            }
            if stop_at.is_some_and(|at| monotonic_ns() > at) {
                return Err(self.overdue());
            }
            // What a filter answered at once is done already: no time passes before it is seen.
            if !self.pipeline.has_done() {
                self.pass_time()?;
            }
        }
    }

    /// Opens the filters, as before a run.
    ///
    /// # Errors
    /// When one cannot do its work.
    pub fn open_filters(&mut self) -> Result<()> {
        self.pipeline.open();
        self.check_filters()
    }

    fn check_filters(&self) -> Result<()> {
        self.pipeline.failure().map_or(Ok(()), |why| Err(Error::input(why)))
    }

    /// Lets the filters write back what they hold.
    ///
    /// # Errors
    /// When the backend breaks.
    pub fn close_filters(&mut self) -> Result<()> {
        self.pipeline.close();
        while !self.pipeline.is_idle() {
            self.pass_time()?;
            self.pipeline.poll()?;
            self.send_base(false);
            if self.shared.stop.load(Relaxed) && self.phase == Phase::Prefill {
                return Err(Error::new(ErrorKind::Interrupted, "stopped before the trace began"));
            }
        }
        self.pipeline.broken().map_or(Ok(()), Err)?;
        self.check_filters()
    }

    /// Sends the rows that are left.
    pub fn finish(&mut self) {
        let now = self.pipeline.core.clock.now();
        if let Some(chunk) = self.recorder.take_if_due(now, 0) {
            self.send(Output::Rows(chunk));
        }
        self.totals.recorder_stalled_ns = self.recorder.stalled_ns;
        self.totals.note_backend(self.pipeline.counts());
        self.send_gauges(now, 0);
        self.send_events();
        self.send_base(true);
    }

    /// Notes what the filters tell of this moment.
    pub fn read_gauges(&mut self, now: Ns) {
        let mut told = std::mem::take(&mut self.told);
        for local in 0..self.disks.len() {
            told.clear();
            self.pipeline.gauges(local, now, &mut told);
            self.gauges.read(now - self.start_ns, local, self.disks[local], &told);
        }
        self.told = told;
    }

    pub(super) fn send_gauges(&mut self, now: Ns, age_ns: u64) {
        if let Some(readings) = self.gauges.take_if_due(now - self.start_ns, age_ns) {
            self.send(Output::Gauges(readings));
        }
    }

    /// Sends what filters told of the disks' content before the trace.
    pub(super) fn send_base(&mut self, all: bool) {
        if let Some(mut sums) = self.pipeline.core.base.take_if_due(all) {
            sums.iter_mut().for_each(|sum| sum.disk = self.disks[sum.disk as usize]);
            self.send(Output::Base(sums));
        }
    }

    pub(super) fn send(&self, output: Output) {
        // Nobody listens any more: the run is being torn down, and its rows with it.
        let _ = self.out.send(output);
    }

    pub(super) fn send_events(&mut self) {
        let events = self.pipeline.take_events();
        let start_ns = self.pipeline.core.start_ns;
        if !events.is_empty() {
            let events = events
                .into_iter()
                .map(|mut event| {
                    event.disk = self.disks[event.disk as usize];
                    event.at_ns = event.at_ns.saturating_sub(start_ns);
                    event
                })
                .collect();
            self.send(Output::Events(events));
        }
    }

    fn abandon_staged(&mut self) {
        self.exhausted = true;
        for id in self.staged.drain(..) {
            self.pipeline.core.slab.give_back(id);
        }
    }

    /// Takes slots for the next I/Os and makes their data, ahead of their due time.
    #[inline]
    fn stage(&mut self, source: &mut dyn Source) -> Result<()> {
        // With no schedule to keep, nothing is gained by being early.
        let ahead = match self.pace {
            Pace::Asap => self.depth - self.in_flight,
            Pace::Recorded | Pace::Closed => STAGED_MAX,
        };
        let is_virtual = self.pipeline.core.clock.is_virtual();
        self.starved = false;
        while self.staged.len() < ahead {
            let may_wait = is_virtual || (self.in_flight == 0 && self.staged.is_empty());
            match source.next(may_wait)? {
                Step::Io(planned) => self.stage_one(&planned)?,
                Step::NotYet => {
                    self.starved = true;
                    break;
                }
                Step::End => {
                    self.exhausted = true;
                    break;
                }
            }
        }
        Ok(())
    }

    #[inline]
    fn stage_one(&mut self, planned: &Planned) -> Result<()> {
        self.pipeline.prefetch(planned.disk, planned.offset_bytes);
        let core = &mut self.pipeline.core;
        let bytes = if planned.op.has_data() { core.data.size(planned.length_bytes) } else { 0 };
        let Some(id) = core.slab.take(planned.op, bytes) else {
            return Err(Error::failed("a filter keeps more I/Os of its own than it declared"));
        };
        let io = core.slab.io_mut(id);
        io.disk = planned.disk;
        io.flags = planned.flags;
        io.seq = planned.seq;
        io.row_flags = planned.row_flags;
        io.trace_offset_bytes = planned.trace_offset_bytes;
        io.offset_bytes = planned.offset_bytes;
        io.length_bytes = planned.length_bytes;
        self.slots[id as usize] = Slot {
            due: planned.due,
            due_ns: 0,
            version: planned.version,
            pieces: planned.pieces,
            unordered: false,
        };
        if planned.op == Op::Write && core.data != DataMode::Nothing {
            let before = core.clock.now();
            let oracle = &self.oracles[planned.disk as usize];
            oracle.fill(core.slab.data_mut(id), place_of(planned), planned.version);
            if oracle.is_lost() {
                return Err(Error::failed("the content of the trace cannot be read any more"));
            }
            core.slab.io_mut(id).harness_ns = core.clock.now() - before;
        }
        self.staged.push_back(id);
        Ok(())
    }

    /// When the first staged I/O is due: `None` until what it waits for has completed.
    #[inline]
    pub(super) fn head_due_ns(&self) -> Option<Ns> {
        match self.slots[*self.staged.front()? as usize].due {
            Due::Now => Some(0),
            Due::At(at) => Some(self.start_ns + at),
            Due::After { seq, think_ns, gap_ns } => {
                let parent = self.completed[seq as usize % REMEMBERED];
                if parent.seq == seq && parent.pieces_left == 0 {
                    Some(parent.at_ns + think_ns)
                } else if parent.seq != u64::MAX && parent.seq > seq || self.in_flight == 0 {
                    // Forgotten: its own completion would be guessed, the distance is known.
                    Some(self.last_due_ns + gap_ns)
                } else {
                    None
                }
            }
        }
    }

    #[inline]
    pub(super) fn issue_due(&mut self) -> Result<()> {
        let mut issued = 0;
        while let Some(due) = self.head_due_ns() {
            if due > 0 && due > self.pipeline.core.clock.now() {
                break;
            }
            let Some(id) = self.staged.front().copied() else { break };
            if self.in_flight >= self.depth {
                break;
            }
            // Due while all was taken: it waited for the I/O that made room.
            if self.pace != Pace::Asap && due > 0 && due < self.room_since_ns {
                self.pipeline.core.slab.io_mut(id).row_flags |= row_flags::SLOT_WAITED;
            }
            self.staged.pop_front();
            self.slots[id as usize].due_ns = due;
            self.last_due_ns = due;
            self.issue(id);
            issued += 1;
            if self.pace == Pace::Asap && issued >= self.burst {
                break;
            }
        }
        Ok(())
    }

    #[inline]
    fn issue(&mut self, id: IoId) {
        let io = self.pipeline.core.slab.io(id);
        if io.row_flags & row_flags::DROPPED != 0 {
            return self.drop_io(id);
        }
        let (disk, op, offset, length) = (io.disk, io.op, io.offset_bytes, io.length_bytes);
        let waits = match self.options.conflicts {
            Conflicts::Order => {
                let is_blocked = self.lock.acquire(id, disk, op, offset, length) > 0;
                // A flush asks a cache for nothing.
                op != Op::Flush && self.lanes.waits(id, disk, is_blocked)
            }
            Conflicts::Allow => {
                let conflict = self.lock.acquire_unordered(id, disk, op, offset, length);
                self.slots[id as usize].unordered = conflict;
                self.totals.conflicts += u64::from(conflict);
                false
            }
            Conflicts::Drop => {
                if self.lock.acquire_unordered(id, disk, op, offset, length) {
                    self.totals.conflicts += 1;
                    self.lock.release(id);
                    return self.drop_io(id);
                }
                false
            }
        };
        self.in_flight += 1;
        if waits {
            self.totals.conflicts += 1;
            self.pipeline.core.slab.io_mut(id).row_flags |= row_flags::CONFLICT_WAITED;
        } else {
            self.start(id);
        }
    }

    #[inline]
    pub(super) fn start(&mut self, id: IoId) {
        let io = self.pipeline.core.slab.io(id);
        let (disk, io_flags) = (io.disk, if io.op == Op::Flush { 0 } else { io.flags });
        if io.op.modifies() {
            let slot = self.slots[id as usize];
            let oracle = &mut self.oracles[io.disk as usize];
            if slot.unordered {
                oracle.forget(io.offset_bytes, io.length_bytes);
            } else {
                let at = Place {
                    trace_offset_bytes: io.trace_offset_bytes,
                    offset_bytes: io.offset_bytes,
                    length_bytes: io.length_bytes,
                };
                oracle.starts(io.op, at, slot.version);
            }
            oracle.over(io.length_bytes, slot.version);
        }
        if io_flags & flags::PREFLUSH != 0 && self.lanes.is_used() {
            self.lanes.flushes(id, disk);
        }
        self.pipeline.submit(id);
    }
}

const fn place_of(planned: &Planned) -> Place {
    Place {
        trace_offset_bytes: planned.trace_offset_bytes,
        offset_bytes: planned.offset_bytes,
        length_bytes: planned.length_bytes,
    }
}
