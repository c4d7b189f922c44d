//! The workload profile: what a trace asks of a disk, in one pass and bounded memory.
//!
//! Each row goes to the [`shape`] of its disk (what adds up over disks) and to the [`Flow`] of
//! its disk and of all disks together (what does not: footprint, reuse, arrivals, depth). With
//! one disk the two flows are the same and only one is kept.

mod arrivals;
mod blocks;
mod outstanding;
mod quantiles;
mod reuse;
mod shape;

use serde::Serialize;

use crate::error::{Error, Result};
use crate::io::Op;
use crate::trace::{NO_LATENCY, TraceBatch, TraceIo};
use arrivals::{ArrivalSummary, Arrivals};
use blocks::{Blocks, WorkingSet};
use outstanding::{Outstanding, OutstandingSummary};
use reuse::{Reuse, ReuseSummary};
use shape::{Shape, ShapeSummary, share};

pub use quantiles::{Distribution, Quantiles};

/// An I/O must end within 1 PiB: beyond it lies no disk, only a misread row.
pub const MAX_DISK_BYTES: i64 = 1 << 50;
/// Disks told apart in the keys of the block tables.
const MAX_DISKS: usize = 1 << 20;
/// Bits of a block number: 1 PiB in blocks of 512 bytes.
const BLOCK_BITS: u32 = 41;

/// What does not add up over disks.
#[derive(Debug, Clone, Default)]
struct Flow {
    blocks: Blocks,
    reuse: Reuse,
    arrivals: Arrivals,
    outstanding: Outstanding,
}

#[derive(Debug, Default)]
struct Disk {
    shape: Shape,
    flow: Flow,
}

/// Collects the profile of a trace.
#[derive(Debug)]
pub struct Profile {
    block_bytes: u64,
    block_shift: u32,
    disks: Vec<Disk>,
    /// Kept from the second disk on.
    total: Option<Flow>,
    rows: u64,
    origin_ns: i64,
    last_ns: i64,
}

/// A profile as `info --json` shows it: of one disk, or of all.
#[derive(Debug, Serialize)]
pub struct Summary {
    pub ios: u64,
    pub reads: u64,
    pub writes: u64,
    pub flushes: u64,
    pub discards: u64,
    pub write_zeroes: u64,
    pub read_bytes: u64,
    pub write_bytes: u64,
    pub discard_bytes: u64,
    pub write_zeroes_bytes: u64,
    pub duration_s: f64,
    pub iops: Option<f64>,
    pub bytes_per_s: Option<f64>,
    pub read_share: Option<f64>,
    pub block_bytes: u64,
    /// Distinct blocks read, written or zeroed, and the same in bytes.
    pub unique_blocks: u64,
    pub footprint_bytes: u64,
    pub read_footprint_bytes: u64,
    pub write_footprint_bytes: u64,
    /// Where the last I/O by address ends; of all disks: the largest.
    pub end_bytes: i64,
    pub read_blocks: u64,
    pub written_blocks: u64,
    /// Of the block writes, those to blocks this trace had written before.
    pub overwrite_share: Option<f64>,
    /// Of the block reads, those of blocks this trace had written before.
    pub read_after_write_share: Option<f64>,
    /// Of the writes.
    pub fua_share: Option<f64>,
    pub preflush_share: Option<f64>,
    pub working_set: Vec<WorkingSet>,
    pub reuse: ReuseSummary,
    #[serde(flatten)]
    pub arrivals: ArrivalSummary,
    pub outstanding: Option<OutstandingSummary>,
    #[serde(flatten)]
    pub shape: ShapeSummary,
}

/// One disk of a [`Report`].
#[derive(Debug, Serialize)]
pub struct DiskSummary {
    pub disk: String,
    #[serde(flatten)]
    pub summary: Summary,
}

/// The whole document: all disks together, then each.
#[derive(Debug, Serialize)]
pub struct Report {
    #[serde(flatten)]
    pub total: Summary,
    pub disks: Vec<DiskSummary>,
}

impl Profile {
    /// `block_bytes` is the unit of footprint and reuse: a power of two from 512 to 1 GiB.
    ///
    /// # Errors
    /// `Input` for any other block size.
    pub fn new(block_bytes: u64) -> Result<Self> {
        if !block_bytes.is_power_of_two() || !(512..=1 << 30).contains(&block_bytes) {
            return Err(Error::input(format!(
                "block: expected a power of two from 512 bytes to 1 GiB, got {block_bytes} bytes"
            )));
        }
        Ok(Self {
            block_bytes,
            block_shift: block_bytes.trailing_zeros(),
            disks: Vec::new(),
            total: None,
            rows: 0,
            origin_ns: 0,
            last_ns: i64::MIN,
        })
    }

    /// Adds a batch; rows are in order of time.
    ///
    /// # Errors
    /// `Input` naming the row (from 0) that is out of order, negative or too long.
    pub fn add(&mut self, batch: &TraceBatch) -> Result<()> {
        for i in 0..batch.len() {
            let io = batch.get(i);
            self.check(&io).map_err(|e| e.with("row", self.rows))?;
            self.record(&io);
            self.rows += 1;
        }
        Ok(())
    }

    fn check(&self, io: &TraceIo) -> Result<()> {
        if io.time_ns < self.last_ns {
            return Err(Error::input(format!(
                "time_ns: expected at least {} as in the row above, got {}",
                self.last_ns, io.time_ns
            )));
        }
        let end = io.offset_bytes.checked_add(io.length_bytes);
        if io.offset_bytes < 0 || io.length_bytes < 0 || end.is_none_or(|e| e > MAX_DISK_BYTES) {
            return Err(Error::input(format!(
                "expected a range within 1 PiB, got offset_bytes {} and length_bytes {}",
                io.offset_bytes, io.length_bytes
            )));
        }
        if io.latency_ns < NO_LATENCY {
            return Err(Error::input(format!(
                "latency_ns: expected 0 or more, got {}",
                io.latency_ns
            )));
        }
        if io.disk as usize >= MAX_DISKS {
            return Err(Error::input(format!("disk: expected at most {MAX_DISKS} disks")));
        }
        Ok(())
    }

    fn record(&mut self, io: &TraceIo) {
        if self.rows == 0 {
            self.origin_ns = io.time_ns;
        }
        self.last_ns = io.time_ns;
        let io = TraceIo { time_ns: io.time_ns - self.origin_ns, ..*io };
        let disk = io.disk as usize;
        if disk >= self.disks.len() {
            self.disks.resize_with(disk + 1, Disk::default);
        }
        self.keep_total(disk);
        let own = &mut self.disks[disk];
        own.shape.record(&io);
        own.flow.record(&io, self.block_shift);
        if let Some(total) = &mut self.total {
            total.record(&io, self.block_shift);
        }
    }

    /// Until a second disk appears, the first one's flow is the total: it is copied then.
    fn keep_total(&mut self, disk: usize) {
        if self.total.is_none() && self.rows > 0 && self.disks[disk].shape.ios() == 0 {
            let only = self.disks.iter().find(|d| d.shape.ios() > 0);
            self.total = only.map(|d| d.flow.clone());
        }
    }

    /// The document; `names[i]` is the name of disk `i`. Disks without I/O are left out.
    #[must_use]
    pub fn report(&self, names: &[String]) -> Report {
        let duration_ns = if self.rows == 0 { 0 } else { self.last_ns - self.origin_ns };
        let used: Vec<(usize, &Disk)> =
            self.disks.iter().enumerate().filter(|(_, d)| d.shape.ios() > 0).collect();
        let mut shape = Shape::default();
        for (_, disk) in &used {
            shape.merge(&disk.shape);
        }
        let idle = Flow::default();
        let only = used.first().map_or(&idle, |(_, d)| &d.flow);
        let flow = self.total.as_ref().unwrap_or(only);
        let of_disk = |(i, disk): &(usize, &Disk)| DiskSummary {
            disk: names.get(*i).cloned().unwrap_or_default(),
            summary: self.summary(&disk.shape, &disk.flow, duration_ns),
        };
        Report {
            total: self.summary(&shape, flow, duration_ns),
            disks: used.iter().map(of_disk).collect(),
        }
    }

    fn summary(&self, shape: &Shape, flow: &Flow, duration_ns: i64) -> Summary {
        let [reads, writes, flushes, discards, write_zeroes] = shape.ops;
        let [read_bytes, write_bytes, _, discard_bytes, write_zeroes_bytes] = shape.op_bytes;
        let unique = flow.blocks.unique();
        let requests = flow.blocks.requests();
        let duration_s = duration_ns as f64 / 1e9;
        let per_s = |n: u64| (duration_ns > 0).then(|| n as f64 / duration_s);
        let shape_summary = shape.summary();
        Summary {
            ios: shape.ios(),
            reads,
            writes,
            flushes,
            discards,
            write_zeroes,
            read_bytes,
            write_bytes,
            discard_bytes,
            write_zeroes_bytes,
            duration_s,
            iops: per_s(shape.ios()),
            bytes_per_s: per_s(read_bytes + write_bytes),
            read_share: share(reads, reads + writes),
            block_bytes: self.block_bytes,
            unique_blocks: unique.blocks,
            footprint_bytes: unique.blocks * self.block_bytes,
            read_footprint_bytes: unique.read * self.block_bytes,
            write_footprint_bytes: unique.written * self.block_bytes,
            end_bytes: shape.end_bytes,
            read_blocks: requests.read,
            written_blocks: requests.written,
            overwrite_share: share(requests.overwritten, requests.written),
            read_after_write_share: share(requests.read_after_write, requests.read),
            fua_share: share(shape_summary.flags.fua_writes, writes),
            preflush_share: share(shape_summary.flags.preflush_writes, writes),
            working_set: flow.blocks.working_sets(duration_ns, self.block_bytes),
            reuse: flow.reuse.summary(unique.blocks, self.block_bytes),
            arrivals: flow.arrivals.summary(duration_ns),
            outstanding: flow.outstanding.summary(shape.ios(), duration_ns),
            shape: shape_summary,
        }
    }
}

impl Flow {
    fn record(&mut self, io: &TraceIo, block_shift: u32) {
        let bytes = if io.op.has_data() { io.length_bytes as u64 } else { 0 };
        self.arrivals.record(io.time_ns, bytes);
        if io.latency_ns != NO_LATENCY {
            self.outstanding.record(io.time_ns, io.latency_ns);
        }
        // A SCSI read or write of length 0 is legal, and touches nothing.
        if matches!(io.op, Op::Flush | Op::Discard) || io.length_bytes == 0 {
            return;
        }
        let first = io.offset_bytes as u64 >> block_shift;
        let last = (io.offset_bytes + io.length_bytes - 1) as u64 >> block_shift;
        let disk = u64::from(io.disk);
        let is_write = io.op != Op::Read;
        self.blocks.touch(disk << (BLOCK_BITS - 6), first, last, is_write, io.time_ns);
        self.reuse.touch(disk << (BLOCK_BITS - 3), first, last, io.time_ns);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::NO_STREAM;

    fn row(time_ns: i64, disk: u32, op: Op, offset_bytes: i64, length_bytes: i64) -> TraceIo {
        let (latency_ns, flags, stream) = (NO_LATENCY, 0, NO_STREAM);
        TraceIo { time_ns, disk, op, offset_bytes, length_bytes, latency_ns, flags, stream }
    }

    fn profile(rows: &[TraceIo]) -> Result<Profile> {
        let mut batch = TraceBatch::default();
        rows.iter().for_each(|io| batch.push(io));
        let mut profile = Profile::new(4096)?;
        profile.add(&batch)?;
        Ok(profile)
    }

    #[test]
    fn the_same_offset_on_two_disks_is_two_blocks() {
        let rows = [
            row(0, 1, Op::Write, 0, 4096),
            row(10, 1, Op::Write, 0, 8192),
            row(20, 0, Op::Write, 4096, 512),
            row(1_000_000_020, 1, Op::Flush, 0, 0),
        ];
        let report = profile(&rows).unwrap().report(&["a".into(), "b".into()]);
        assert_eq!((report.total.ios, report.total.unique_blocks), (4, 3));
        assert_eq!(report.total.duration_s, 1.000_000_02);
        assert_eq!(report.total.overwrite_share, Some(1.0 / 4.0));
        assert_eq!(report.total.reuse.requests, 4);
        let [a, b] = &report.disks[..] else { panic!("two disks") };
        assert_eq!((a.disk.as_str(), a.summary.unique_blocks, a.summary.writes), ("a", 1, 1));
        assert_eq!((b.disk.as_str(), b.summary.unique_blocks, b.summary.flushes), ("b", 2, 1));
        assert_eq!(b.summary.overwrite_share, Some(1.0 / 3.0));
    }

    #[test]
    fn an_empty_trace_has_a_profile() {
        let report = profile(&[]).unwrap().report(&["a".into()]);
        assert_eq!((report.total.ios, report.disks.len()), (0, 0));
        assert_eq!(report.total.iops, None);
    }

    #[test]
    fn wrong_rows_are_named() {
        let good = row(5, 0, Op::Read, 0, 512);
        for (bad, expected) in [
            (row(4, 0, Op::Read, 0, 512), "row 1: time_ns: expected at least 5"),
            (row(5, 0, Op::Read, -512, 512), "row 1: expected a range within 1 PiB"),
            (row(5, 0, Op::Read, i64::MAX, 512), "row 1: expected a range within 1 PiB"),
            (row(5, 0, Op::Write, 0, -1), "row 1: expected a range within 1 PiB"),
        ] {
            let message = profile(&[good, bad]).unwrap_err().to_string();
            assert!(message.starts_with(expected), "{message}");
        }
        assert!(Profile::new(5000).is_err());
    }
}
