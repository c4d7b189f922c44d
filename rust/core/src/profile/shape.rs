//! What the I/Os of a disk look like one by one: mix, sizes, alignment, order, latency.
//!
//! Everything here adds up over disks. Order is judged within a disk: an I/O is *sequential* when
//! it starts where the disk's last read or write ended, and *near-sequential* when it starts
//! where one of the last 32 did, so that interleaved streams count (vscsiStats looks back 16 in
//! the same way). A run is a maximal series of sequential I/Os.

use std::collections::BTreeMap;

use serde::Serialize;

use super::quantiles::{Distribution, Quantiles};
use crate::io::{Op, flags};
use crate::trace::{NO_LATENCY, TraceIo};

/// Ends of the last I/Os that a near-sequential one may continue.
const LOOK_BACK: usize = 32;
/// Sizes counted one by one; later ones go to `other`. Real traces have a few hundred.
const MAX_SIZES: usize = 4096;
/// Sizes listed in the summary, the most frequent first.
const LISTED_SIZES: usize = 16;
const ALIGNMENTS: [i64; 5] = [512, 4096, 8192, 65_536, 1_048_576];

#[derive(Debug, Clone, Default)]
pub struct Shape {
    pub ops: [u64; 5],
    pub op_bytes: [u64; 5],
    flagged: Flags,
    reads: Series,
    writes: Series,
    aligned_offset: [u64; 5],
    aligned_both: [u64; 5],
    order: Order,
    latency: [Quantiles; 3],
    pub end_bytes: i64,
}

/// I/Os with a flag, and writes among them where the flag acts on writes.
#[derive(Debug, Clone, Copy, Default, Serialize, PartialEq, Eq)]
pub struct Flags {
    pub fua_writes: u64,
    pub preflush_writes: u64,
    pub sync: u64,
    pub meta: u64,
    pub readahead: u64,
}

/// Reads or writes: sizes, and how many continue an earlier I/O.
#[derive(Debug, Clone, Default)]
struct Series {
    sizes: BTreeMap<u64, u64>,
    other_sizes: u64,
    all_sizes: Quantiles,
    sequential: u64,
    near: u64,
}

#[derive(Debug, Clone, Default)]
struct Order {
    ends: [i64; LOOK_BACK],
    seen: usize,
    run_ios: u64,
    runs: Quantiles,
    seek_bytes: Quantiles,
}

#[derive(Debug, Clone, Serialize, PartialEq)]
pub struct ShapeSummary {
    pub flags: Flags,
    pub sizes: Sizes,
    pub alignment: Vec<Aligned>,
    pub sequentiality: Sequentiality,
    pub latency_ns: Latency,
}

#[derive(Debug, Clone, Serialize, PartialEq)]
pub struct Sizes {
    pub read_bytes: Option<Distribution>,
    pub write_bytes: Option<Distribution>,
    pub read_histogram: Vec<SizeCount>,
    pub write_histogram: Vec<SizeCount>,
}

/// One size and its I/Os; size `None` stands for all sizes that are not listed.
#[derive(Debug, Clone, Serialize, PartialEq)]
pub struct SizeCount {
    pub size_bytes: Option<u64>,
    pub ios: u64,
}

/// Shares of reads and writes that start (and also end) on a multiple of `bytes`.
#[derive(Debug, Clone, Serialize, PartialEq)]
pub struct Aligned {
    pub bytes: i64,
    pub offset_share: f64,
    pub offset_and_length_share: f64,
}

#[derive(Debug, Clone, Serialize, PartialEq)]
pub struct Sequentiality {
    pub sequential_share: Option<f64>,
    pub near_sequential_share: Option<f64>,
    pub read_sequential_share: Option<f64>,
    pub write_sequential_share: Option<f64>,
    pub look_back: usize,
    pub run_ios: Option<Distribution>,
    /// Distance between the end of the last I/O and the start of the next, where it is not 0.
    pub seek_bytes: Option<Distribution>,
}

/// Service times seen at capture, where the trace has them.
#[derive(Debug, Clone, Serialize, PartialEq)]
pub struct Latency {
    pub read: Option<Distribution>,
    pub write: Option<Distribution>,
    pub flush: Option<Distribution>,
}

impl Shape {
    pub fn record(&mut self, io: &TraceIo) {
        self.ops[io.op as usize] += 1;
        self.op_bytes[io.op as usize] += io.length_bytes as u64;
        self.flagged.record(io);
        if io.latency_ns != NO_LATENCY {
            let kind = match io.op {
                Op::Read => Some(0),
                Op::Write => Some(1),
                Op::Flush => Some(2),
                Op::Discard | Op::WriteZeroes => None,
            };
            if let Some(kind) = kind {
                self.latency[kind].record(io.latency_ns as u64);
            }
        }
        if io.op != Op::Flush {
            self.end_bytes = self.end_bytes.max(io.offset_bytes + io.length_bytes);
        }
        if io.op.has_data() {
            self.record_data(io);
        }
    }

    fn record_data(&mut self, io: &TraceIo) {
        for (i, bytes) in ALIGNMENTS.iter().enumerate() {
            // Powers of two: no division.
            if io.offset_bytes & (bytes - 1) != 0 {
                break;
            }
            self.aligned_offset[i] += 1;
            self.aligned_both[i] += u64::from(io.length_bytes & (bytes - 1) == 0);
        }
        let (sequential, near) = self.order.record(io.offset_bytes, io.length_bytes);
        let series = if io.op == Op::Read { &mut self.reads } else { &mut self.writes };
        series.sequential += u64::from(sequential);
        series.near += u64::from(near);
        series.record_size(io.length_bytes as u64);
    }

    /// Adds what another disk has counted.
    pub fn merge(&mut self, other: &Self) {
        for i in 0..5 {
            self.ops[i] += other.ops[i];
            self.op_bytes[i] += other.op_bytes[i];
            self.aligned_offset[i] += other.aligned_offset[i];
            self.aligned_both[i] += other.aligned_both[i];
        }
        self.end_bytes = self.end_bytes.max(other.end_bytes);
        self.flagged.merge(other.flagged);
        self.reads.merge(&other.reads);
        self.writes.merge(&other.writes);
        self.order.runs.merge(&other.order.runs_with_open());
        self.order.seek_bytes.merge(&other.order.seek_bytes);
        for (own, others) in self.latency.iter_mut().zip(&other.latency) {
            own.merge(others);
        }
    }

    #[must_use]
    pub fn ios(&self) -> u64 {
        self.ops.iter().sum()
    }

    #[must_use]
    pub fn summary(&self) -> ShapeSummary {
        let data = self.ops[Op::Read as usize] + self.ops[Op::Write as usize];
        let aligned = |i: usize| Aligned {
            bytes: ALIGNMENTS[i],
            offset_share: self.aligned_offset[i] as f64 / data as f64,
            offset_and_length_share: self.aligned_both[i] as f64 / data as f64,
        };
        let (reads, writes) = (&self.reads, &self.writes);
        let (read_ios, write_ios) = (self.ops[0], self.ops[1]);
        ShapeSummary {
            flags: self.flagged,
            sizes: Sizes {
                read_bytes: reads.distribution(),
                write_bytes: writes.distribution(),
                read_histogram: reads.histogram(),
                write_histogram: writes.histogram(),
            },
            alignment: if data == 0 { Vec::new() } else { (0..5).map(aligned).collect() },
            sequentiality: Sequentiality {
                sequential_share: share(reads.sequential + writes.sequential, data),
                near_sequential_share: share(reads.near + writes.near, data),
                read_sequential_share: share(reads.sequential, read_ios),
                write_sequential_share: share(writes.sequential, write_ios),
                look_back: LOOK_BACK,
                run_ios: self.order.runs_with_open().distribution(),
                seek_bytes: self.order.seek_bytes.distribution(),
            },
            latency_ns: Latency {
                read: self.latency[0].distribution(),
                write: self.latency[1].distribution(),
                flush: self.latency[2].distribution(),
            },
        }
    }
}

/// `part / whole`, or `None` of nothing.
#[must_use]
pub fn share(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

impl Flags {
    fn record(&mut self, io: &TraceIo) {
        if io.flags == 0 {
            return;
        }
        let has = |bit: u32| u64::from(io.flags & bit != 0);
        let write = u64::from(io.op == Op::Write);
        self.fua_writes += has(flags::FUA) & write;
        self.preflush_writes += has(flags::PREFLUSH) & write;
        self.sync += has(flags::SYNC);
        self.meta += has(flags::META);
        self.readahead += has(flags::READAHEAD);
    }

    fn merge(&mut self, other: Self) {
        self.fua_writes += other.fua_writes;
        self.preflush_writes += other.preflush_writes;
        self.sync += other.sync;
        self.meta += other.meta;
        self.readahead += other.readahead;
    }
}

impl Series {
    fn record_size(&mut self, bytes: u64) {
        self.all_sizes.record(bytes);
        self.add_size(bytes, 1);
    }

    fn add_size(&mut self, bytes: u64, ios: u64) {
        if let Some(count) = self.sizes.get_mut(&bytes) {
            *count += ios;
        } else if self.sizes.len() < MAX_SIZES {
            self.sizes.insert(bytes, ios);
        } else {
            self.other_sizes += ios;
        }
    }

    fn merge(&mut self, other: &Self) {
        self.all_sizes.merge(&other.all_sizes);
        other.sizes.iter().for_each(|(bytes, ios)| self.add_size(*bytes, *ios));
        self.other_sizes += other.other_sizes;
        self.sequential += other.sequential;
        self.near += other.near;
    }

    /// Exact unless there are more sizes than are counted one by one.
    fn distribution(&self) -> Option<Distribution> {
        match self.other_sizes {
            0 => Distribution::of_counts(&self.sizes),
            _ => self.all_sizes.distribution(),
        }
    }

    /// The most frequent sizes in order of size, then one row for the others.
    fn histogram(&self) -> Vec<SizeCount> {
        let mut by_count: Vec<(u64, u64)> = self.sizes.iter().map(|(b, n)| (*b, *n)).collect();
        by_count.sort_by_key(|(bytes, ios)| (std::cmp::Reverse(*ios), *bytes));
        let listed = by_count.len().min(LISTED_SIZES);
        let others = by_count[listed..].iter().map(|(_, n)| n).sum::<u64>() + self.other_sizes;
        by_count.truncate(listed);
        by_count.sort_unstable();
        let mut rows: Vec<SizeCount> =
            by_count.into_iter().map(|(b, ios)| SizeCount { size_bytes: Some(b), ios }).collect();
        if others > 0 {
            rows.push(SizeCount { size_bytes: None, ios: others });
        }
        rows
    }
}

impl Order {
    /// Whether the I/O is sequential, and near-sequential.
    #[inline]
    fn record(&mut self, offset: i64, length: i64) -> (bool, bool) {
        let kept = self.seen.min(LOOK_BACK);
        let near = self.ends[..kept].contains(&offset);
        let mut sequential = false;
        if self.seen > 0 {
            let last = self.ends[(self.seen - 1) % LOOK_BACK];
            sequential = last == offset;
            if sequential {
                self.run_ios += 1;
            } else {
                self.seek_bytes.record(offset.abs_diff(last));
                self.runs.record(self.run_ios);
                self.run_ios = 1;
            }
        } else {
            self.run_ios = 1;
        }
        self.ends[self.seen % LOOK_BACK] = offset + length;
        self.seen += 1;
        (sequential, near)
    }

    fn runs_with_open(&self) -> Quantiles {
        let mut runs = self.runs.clone();
        if self.run_ios > 0 {
            runs.record(self.run_ios);
        }
        runs
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::NO_STREAM;

    fn io(op: Op, offset_bytes: i64, length_bytes: i64, flags: u32) -> TraceIo {
        let (time_ns, disk, stream) = (0, 0, NO_STREAM);
        TraceIo { time_ns, disk, op, offset_bytes, length_bytes, latency_ns: 5, flags, stream }
    }

    #[test]
    fn runs_and_interleaved_streams() {
        let mut shape = Shape::default();
        // Two streams, one I/O each in turn: never sequential, but near-sequential after the first.
        for i in 0..10 {
            shape.record(&io(Op::Read, i * 4096, 4096, 0));
            shape.record(&io(Op::Write, (1 << 30) + i * 8192, 8192, 0));
        }
        let found = shape.summary().sequentiality;
        assert_eq!(found.sequential_share, Some(0.0));
        assert_eq!(found.near_sequential_share, Some(18.0 / 20.0));
        assert_eq!(found.run_ios.unwrap().max, 1);

        let mut shape = Shape::default();
        for offset in [0, 4096, 8192, 100 << 20, (100 << 20) + 4096] {
            shape.record(&io(Op::Write, offset, 4096, 0));
        }
        let found = shape.summary().sequentiality;
        assert_eq!(found.sequential_share, Some(3.0 / 5.0));
        let runs = found.run_ios.unwrap();
        assert_eq!((runs.count, runs.min, runs.max), (2, 2, 3));
        assert_eq!(found.seek_bytes.unwrap().max, (100 << 20) - 12_288);
    }

    #[test]
    fn alignment_and_flags() {
        let mut shape = Shape::default();
        shape.record(&io(Op::Write, 4096, 4096, flags::FUA | flags::PREFLUSH));
        shape.record(&io(Op::Write, 8192, 512, flags::SYNC));
        shape.record(&io(Op::Read, 512, 4096, flags::FUA));
        shape.record(&io(Op::Flush, 0, 0, 0));
        let found = shape.summary();
        let at = |bytes| found.alignment.iter().find(|a| a.bytes == bytes).unwrap();
        assert_eq!(at(512).offset_share, 1.0);
        assert_eq!(at(4096).offset_share, 2.0 / 3.0);
        assert_eq!(at(4096).offset_and_length_share, 1.0 / 3.0);
        assert_eq!(at(8192).offset_share, 1.0 / 3.0);
        assert_eq!(found.flags.fua_writes, 1, "FUA says nothing on a read");
        assert_eq!((found.flags.preflush_writes, found.flags.sync), (1, 1));
        assert_eq!(found.latency_ns.flush.unwrap().count, 1);
    }

    #[test]
    fn rare_sizes_are_summed() {
        let mut shape = Shape::default();
        for i in 1..=40 {
            (0..i).for_each(|_| shape.record(&io(Op::Read, 0, i * 512, 0)));
        }
        let sizes = shape.summary().sizes;
        let found = sizes.read_bytes.unwrap();
        assert_eq!((found.count, found.min, found.p50, found.max), (820, 512, 29 * 512, 20_480));
        let rows = sizes.read_histogram;
        assert_eq!(rows.len(), LISTED_SIZES + 1);
        assert_eq!(rows[0], SizeCount { size_bytes: Some(25 * 512), ios: 25 });
        assert_eq!(rows[16], SizeCount { size_bytes: None, ios: (1..=24).sum() });
    }
}
