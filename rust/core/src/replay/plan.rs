//! The phases of a round as sources of planned I/Os: prefill, the trace, the final sweep.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::sync::mpsc::{Receiver, TryRecvError};

use super::feed::Numbered;
use super::fit::{FitMap, Piece};
use super::options::Pace;
use crate::clock::Ns;
use crate::error::Result;
use crate::io::{Op, row_flags};
use crate::payload::Version;

/// When a planned I/O is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// As soon as there is room.
    Now,
    /// This long after the start.
    At(Ns),
    /// This long after the I/O of this sequence number completed; where its completion is no
    /// longer remembered, `gap_ns` after the I/O before it in the trace was due.
    After { seq: u64, think_ns: Ns, gap_ns: Ns },
}

/// An I/O as the worker will issue it.
#[derive(Debug, Clone, Copy)]
pub struct Planned {
    pub seq: u64,
    /// Index into the worker's disks.
    pub disk: u16,
    pub op: Op,
    pub flags: u32,
    pub trace_offset_bytes: u64,
    pub offset_bytes: u64,
    pub length_bytes: u64,
    pub version: Version,
    pub due: Due,
    /// Pieces that the fit map makes of the I/O, this one included.
    pub pieces: u32,
    /// Bits of the row that are known beforehand: split by the fit map, dropped by it.
    pub row_flags: u32,
}

/// What a source has now.
#[derive(Debug, Clone, Copy)]
pub enum Step {
    Io(Planned),
    /// The trace is still being read; ask again.
    NotYet,
    End,
}

/// A phase's I/Os, in order.
pub trait Source: Send {
    /// `may_wait`: nothing is in flight, so that waiting for the reader spoils no time stamp.
    ///
    /// # Errors
    /// What reading the trace can meet.
    fn next(&mut self, may_wait: bool) -> Result<Step>;
}

/// Batches of one worker's share of the trace, or the error that ended the reading.
pub type Batches = Receiver<Result<Vec<Numbered>>>;

/// The trace.
pub struct TraceSource {
    batches: Batches,
    rows: std::vec::IntoIter<Numbered>,
    /// By run disk: the worker's own number of it.
    local: Vec<u16>,
    fits: Vec<Option<FitMap>>,
    pieces: Vec<Piece>,
    waiting: VecDeque<Planned>,
    pace: Pace,
    speed: f64,
    last_time_ns: i64,
    parents: Parents,
}

impl TraceSource {
    /// `local[disk]` is the worker's own number of a run disk; `fits` go by that number.
    #[must_use]
    pub fn new(
        batches: Batches,
        local: Vec<u16>,
        fits: Vec<Option<FitMap>>,
        pace: Pace,
        speed: f64,
    ) -> Self {
        Self {
            batches,
            rows: Vec::new().into_iter(),
            parents: Parents::new(fits.len()),
            local,
            fits,
            pieces: Vec::new(),
            waiting: VecDeque::new(),
            pace,
            speed,
            last_time_ns: 0,
        }
    }

    fn due(&mut self, row: &Numbered, disk: u16) -> Due {
        let at = (row.io.time_ns as f64 / self.speed) as Ns;
        let gap = row.io.time_ns - self.last_time_ns;
        self.last_time_ns = row.io.time_ns;
        match self.pace {
            Pace::Asap => Due::Now,
            Pace::Recorded => Due::At(at),
            Pace::Closed => match self.parents.of(row, disk) {
                Some((seq, think_ns)) => Due::After {
                    seq,
                    think_ns: (think_ns as f64 / self.speed) as Ns,
                    gap_ns: (gap as f64 / self.speed) as Ns,
                },
                None => Due::At(at),
            },
        }
    }

    fn plan(&mut self, row: &Numbered) -> Planned {
        let disk = self.local[row.io.disk as usize];
        let (offset, length) = (row.io.offset_bytes as u64, row.io.length_bytes as u64);
        let planned = Planned {
            seq: row.seq,
            disk,
            op: row.io.op,
            flags: row.io.flags,
            trace_offset_bytes: offset,
            offset_bytes: offset,
            length_bytes: if row.io.op == Op::Flush { 0 } else { length },
            version: Version::of_write(row.seq),
            due: self.due(row, disk),
            pieces: 1,
            row_flags: 0,
        };
        let Some(fit) = &self.fits[disk as usize] else { return planned };
        if planned.length_bytes == 0 {
            return planned;
        }
        self.pieces.clear();
        fit.map(offset, length, &mut self.pieces);
        let split = if self.pieces.len() > 1 { row_flags::SPLIT } else { 0 };
        self.waiting.extend(self.pieces.iter().map(|piece| Planned {
            trace_offset_bytes: piece.trace_offset_bytes,
            offset_bytes: piece.offset_bytes,
            length_bytes: piece.length_bytes,
            pieces: self.pieces.len() as u32,
            row_flags: split,
            ..planned
        }));
        // A discard of what was never touched: nothing is there, and its row says so.
        self.waiting.pop_front().unwrap_or(Planned { row_flags: row_flags::DROPPED, ..planned })
    }
}

impl Source for TraceSource {
    fn next(&mut self, may_wait: bool) -> Result<Step> {
        if let Some(piece) = self.waiting.pop_front() {
            return Ok(Step::Io(piece));
        }
        loop {
            if let Some(row) = self.rows.next() {
                return Ok(Step::Io(self.plan(&row)));
            }
            let batch = if may_wait {
                self.batches.recv().map_err(|_| TryRecvError::Disconnected)
            } else {
                self.batches.try_recv()
            };
            match batch {
                Ok(batch) => self.rows = batch?.into_iter(),
                Err(TryRecvError::Empty) => return Ok(Step::NotYet),
                Err(TryRecvError::Disconnected) => return Ok(Step::End),
            }
        }
    }
}

/// Infers for `closed` which I/O another waited for: the one whose completion, by the latency seen
/// at capture, was the last before its arrival (as hfplayer does: Haghdoost et al., FAST'17).
///
/// Where the trace has no latencies, an I/O is taken to have waited for the one before it, and the
/// time between the two arrivals stands for the think time.
struct Parents {
    disks: Vec<ParentsOfDisk>,
}

#[derive(Default)]
struct ParentsOfDisk {
    /// Arrived, by completion time at capture.
    running: BinaryHeap<Reverse<(i64, u64)>>,
    last_done: Option<(i64, u64)>,
    previous: Option<(i64, u64)>,
}

/// A trace whose I/Os never complete must not fill the memory.
const RUNNING_MAX: usize = 1 << 16;

impl Parents {
    fn new(disks: usize) -> Self {
        Self { disks: (0..disks).map(|_| ParentsOfDisk::default()).collect() }
    }

    /// `(sequence number, think time)` of what the I/O waited for.
    fn of(&mut self, row: &Numbered, disk: u16) -> Option<(u64, Ns)> {
        let known = &mut self.disks[disk as usize];
        let arrival = row.io.time_ns;
        while let Some(Reverse((done, seq))) = known.running.peek().copied() {
            if done > arrival {
                break;
            }
            known.last_done = Some((done, seq));
            known.running.pop();
        }
        let parent = if row.io.latency_ns >= 0 {
            if known.running.len() < RUNNING_MAX {
                known.running.push(Reverse((arrival + row.io.latency_ns, row.seq)));
            }
            known.last_done
        } else {
            known.previous
        };
        known.previous = Some((arrival, row.seq));
        parent.map(|(time, seq)| (seq, (arrival - time).max(0) as Ns))
    }
}

/// Writes what the trace reads before it writes it.
pub struct PrefillSource {
    /// `(disk, offset, length)`.
    pub runs: std::vec::IntoIter<(u16, u64, u64)>,
}

impl Source for PrefillSource {
    fn next(&mut self, _may_wait: bool) -> Result<Step> {
        Ok(self.runs.next().map_or(Step::End, |(disk, offset, length)| {
            Step::Io(Planned {
                op: Op::Write,
                version: Version::PREFILL,
                ..outside_the_trace(disk, offset, length)
            })
        }))
    }
}

/// Reads back everything whose version is known, at the end.
pub struct SweepSource {
    /// `(disk, offset, length)`.
    pub runs: std::vec::IntoIter<(u16, u64, u64)>,
}

impl Source for SweepSource {
    fn next(&mut self, _may_wait: bool) -> Result<Step> {
        Ok(self.runs.next().map_or(Step::End, |(disk, offset, length)| {
            Step::Io(outside_the_trace(disk, offset, length))
        }))
    }
}

const fn outside_the_trace(disk: u16, offset: u64, length: u64) -> Planned {
    Planned {
        seq: u64::MAX,
        disk,
        op: Op::Read,
        flags: 0,
        trace_offset_bytes: offset,
        offset_bytes: offset,
        length_bytes: length,
        version: Version::UNKNOWN,
        due: Due::Now,
        pieces: 1,
        row_flags: 0,
    }
}
