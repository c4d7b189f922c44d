//! What is planned for: when which bytes are written, and until when.

use crate::cdp::line::Way;
use crate::error::{Error, Result};
use crate::io::Op;
use crate::planner::changed::ChangedBlocks;
use crate::planner::loads::Loads;
use crate::trace::TraceBatch;

/// Room is made for so many writes at most before they have come; untouched, it takes no memory.
const EXPECTED_MAX: u64 = 1 << 24;
/// Rows between asking for a block's record and using it: about the time of a cache miss.
const FETCH_AHEAD: usize = 16;

/// The writes of a trace in order, as prefix sums, with the blocks they change.
///
/// Holds 20 bytes a write, and about 12 more where blocks are tracked.
pub struct Workload {
    /// Acknowledgement of each write that carries bytes, since the start of the trace.
    pub times_ns: Vec<i64>,
    /// `sums_bytes[i]` is the payload of the writes before `i`; one more entry than writes.
    pub sums_bytes: Vec<u64>,
    /// Time of the last I/O of any kind: planning ends there.
    pub end_ns: i64,
    pub ios: u64,
    pub changed: ChangedBlocks,
    /// The disk of each write; empty in a part of a workload.
    pub disks: Vec<u32>,
    pub loads: Loads,
}

/// Windows in which rates are taken, unless asked otherwise: those of Azure's planner.
const RATE_WINDOW_NS: u64 = 60_000_000_000;

impl Workload {
    /// `track_blocks`: changed blocks are wanted, for snapshots.
    ///
    /// # Errors
    /// `Input` when the granularity is no power of two from 512 bytes to 1 GiB.
    pub fn new(granularity_bytes: u64, track_blocks: bool) -> Result<Self> {
        Ok(Self {
            times_ns: Vec::new(),
            sums_bytes: vec![0],
            end_ns: 0,
            ios: 0,
            changed: ChangedBlocks::new(granularity_bytes, track_blocks)?,
            disks: Vec::new(),
            loads: Loads::new(RATE_WINDOW_NS),
        })
    }

    /// Makes room for the rows of a trace, as far as its file is believed.
    pub fn expect(&mut self, rows: u64) {
        let writes = rows.min(EXPECTED_MAX) as usize;
        self.times_ns.reserve(writes);
        self.sums_bytes.reserve(writes);
        self.disks.reserve(writes);
        self.changed.expect_writes(writes);
    }

    /// Adds the next batch of the trace.
    ///
    /// # Errors
    /// `Input` with the row (from 0) when times go back or an extent is impossible.
    pub fn add(&mut self, batch: &TraceBatch) -> Result<()> {
        for i in 0..batch.len() {
            let time_ns = batch.time_ns[i];
            if time_ns < self.end_ns {
                return Err(self.wrong_row("time_ns", "at least the row before", time_ns));
            }
            self.end_ns = time_ns;
            self.ios += 1;
            let op = Op::from_code(batch.op[i]);
            let ahead = i + FETCH_AHEAD;
            if ahead < batch.len() && batch.op[ahead] == Op::Write as u8 {
                self.changed.fetch_ahead(batch.disk[ahead], batch.offset_bytes[ahead]);
            }
            let (disk, offset, length) =
                (batch.disk[i], batch.offset_bytes[i], batch.length_bytes[i]);
            if matches!(op, Op::Write | Op::WriteZeroes) {
                self.add_write(disk, offset, length)?;
            }
            let (end, bytes) = (offset.saturating_add(length).max(0), length.max(0));
            self.loads.add(time_ns, disk, op, end as u64, bytes as u64)?;
        }
        Ok(())
    }

    fn add_write(&mut self, disk: u32, offset_bytes: i64, length_bytes: i64) -> Result<()> {
        if offset_bytes < 0 {
            return Err(self.wrong_last("offset_bytes", "0 or more", offset_bytes));
        }
        if length_bytes < 0 || offset_bytes.checked_add(length_bytes).is_none() {
            return Err(self.wrong_last("length_bytes", "0 or more, within 2^63", length_bytes));
        }
        if length_bytes == 0 {
            return Ok(());
        }
        self.push(self.end_ns, length_bytes as u64);
        self.disks.push(disk);
        self.changed.touch(disk, offset_bytes as u64, length_bytes as u64)
    }

    fn wrong_row(&self, column: &str, expected: &str, got: i64) -> Error {
        Error::input(format!("{column}: expected {expected}, got {got}")).with("row", self.ios)
    }

    fn wrong_last(&self, column: &str, expected: &str, got: i64) -> Error {
        Error::input(format!("{column}: expected {expected}, got {got}")).with("row", self.ios - 1)
    }

    /// Call after the last batch.
    pub fn finish(&mut self) {
        self.changed.finish();
        self.loads.finish();
    }

    /// The writes of the disks that `wanted` says, without their blocks and loads.
    #[must_use]
    pub fn part(&self, wanted: impl Fn(u32) -> bool) -> Self {
        let mut part = Self::empty(self.end_ns);
        for (i, _) in self.disks.iter().enumerate().filter(|(_, disk)| wanted(**disk)) {
            part.push(self.times_ns[i], self.sums_bytes[i + 1] - self.sums_bytes[i]);
        }
        part
    }

    /// [`Workload::part`] of every disk.
    #[must_use]
    pub fn by_disk(&self) -> Vec<Self> {
        let mut parts: Vec<Self> =
            (0..self.loads.disks()).map(|_| Self::empty(self.end_ns)).collect();
        for (i, disk) in self.disks.iter().enumerate() {
            let bytes = self.sums_bytes[i + 1] - self.sums_bytes[i];
            parts[*disk as usize].push(self.times_ns[i], bytes);
        }
        parts
    }

    fn empty(end_ns: i64) -> Self {
        Self {
            times_ns: Vec::new(),
            sums_bytes: vec![0],
            end_ns,
            ios: 0,
            changed: ChangedBlocks::untracked(),
            disks: Vec::new(),
            loads: Loads::new(RATE_WINDOW_NS),
        }
    }

    fn push(&mut self, time_ns: i64, bytes: u64) {
        self.times_ns.push(time_ns);
        self.sums_bytes.push(self.written_bytes() + bytes);
    }

    /// Payload of the writes before a time.
    #[must_use]
    pub fn written_before(&self, time_ns: f64) -> u64 {
        self.sums_bytes[self.times_ns.partition_point(|time| (*time as f64) < time_ns)]
    }

    #[must_use]
    pub fn writes(&self) -> usize {
        self.times_ns.len()
    }

    #[must_use]
    pub fn written_bytes(&self) -> u64 {
        self.sums_bytes.last().copied().unwrap_or(0)
    }

    /// Largest amount waiting for the link, the write that has just come included.
    ///
    /// `byte_ns` is the link's time for one byte of payload.
    #[must_use]
    pub fn backlog_bytes_max(&self, way: &impl Way, byte_ns: f64) -> f64 {
        let (mut queue, mut longest_ns) = (Queue::default(), 0.0_f64);
        for (i, &time_ns) in self.times_ns.iter().enumerate() {
            let came = way.served(time_ns as f64);
            let sent = queue.send(came, self.sums_bytes[i], self.sums_bytes[i + 1], byte_ns);
            longest_ns = longest_ns.max(sent - came);
        }
        longest_ns / byte_ns
    }
}

#[cfg(test)]
impl Workload {
    /// Of writes, each so long after the one before, and so many bytes.
    pub fn of(writes: &[(i64, u64)]) -> Self {
        let mut workload = Self::empty(0);
        for (gap_ns, bytes) in writes {
            workload.end_ns += gap_ns;
            workload.push(workload.end_ns, *bytes);
        }
        workload
    }
}

/// The link's queue, first in, first out: when is a write's last byte on the wire? In link time.
///
/// Sums from the start of the busy period keep one rounding a write, whatever the length.
#[derive(Default)]
pub struct Queue {
    busy_since_ns: f64,
    sums_then: u64,
    empty_at_ns: f64,
}

impl Queue {
    /// The end of transmission of a write with payload sums `before` and `after` it.
    #[inline]
    pub fn send(&mut self, time_ns: f64, before: u64, after: u64, byte_ns: f64) -> f64 {
        if self.empty_at_ns <= time_ns {
            self.busy_since_ns = time_ns;
            self.sums_then = before;
        }
        self.empty_at_ns = self.busy_since_ns + (after - self.sums_then) as f64 * byte_ns;
        self.empty_at_ns
    }
}
