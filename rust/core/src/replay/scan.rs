//! One look through the trace before the run: sizes, alignment, and what must be prefilled.

use std::collections::HashMap;
use std::sync::Arc;

use super::feed::Feed;
use super::fit::{FitMap, Piece};
use crate::contents::{CONTENT_BYTES, Contents};
use crate::error::Result;
use crate::int_map::IntMap;
use crate::io::Op;
use crate::payload::Version;

/// What the scan found out about one disk.
#[derive(Debug, Default)]
pub struct DiskScan {
    pub ios: u64,
    /// First byte behind everything that is touched, on the target.
    pub reach_bytes: u64,
    pub length_max_bytes: u64,
    /// All offsets and lengths of reads and writes (of zeroes too), or-ed: its trailing zeros are
    /// their alignment.
    pub address_bits: u64,
    /// Read before it was written, on the target.
    pub prefill: SectorSet,
    /// By block of 4 KiB on the target: its content when it is first read, where the trace has it.
    pub prefill_contents: IntMap<u32>,
    written: SectorSet,
    pub fit: Option<FitMap>,
}

/// What the scan found out.
#[derive(Debug)]
pub struct Scan {
    pub disks: Vec<DiskScan>,
    pub ios: u64,
    pub writes: u64,
    pub duration_ns: i64,
    /// I/Os whose latency at capture is known.
    pub with_latency: u64,
    pub contents: Arc<Contents>,
}

impl DiskScan {
    /// The alignment of the disk's reads and writes (of zeroes too), 4096 at most.
    #[must_use]
    pub fn align_bytes(&self) -> u64 {
        1 << self.address_bits.trailing_zeros().min(12)
    }
}

impl Scan {
    /// Reads the whole feed.
    ///
    /// # Errors
    /// As [`Feed::next_io`].
    pub fn run(mut feed: Feed, disks: usize, fit_to_bytes: Option<u64>) -> Result<Self> {
        let mut scan = Self {
            disks: (0..disks)
                .map(|_| DiskScan { fit: fit_to_bytes.map(FitMap::new), ..DiskScan::default() })
                .collect(),
            ios: 0,
            writes: 0,
            duration_ns: 0,
            with_latency: 0,
            contents: Arc::clone(feed.contents()),
        };
        let mut pieces = Vec::new();
        while let Some(numbered) = feed.next_io()? {
            let io = numbered.io;
            scan.ios += 1;
            scan.duration_ns = io.time_ns;
            scan.with_latency += u64::from(io.latency_ns >= 0);
            scan.writes += u64::from(io.op.modifies());
            let (offset, length) = (io.offset_bytes as u64, io.length_bytes as u64);
            let found = &mut scan.disks[io.disk as usize];
            if scan.contents.is_used()
                && let Some(numbers) = scan.contents.take(Version::of_write(numbered.seq))
            {
                // Before the I/O itself is noted: it may be a read of what was never written.
                found.note_content(io.op, offset, length, &numbers, &mut pieces);
            }
            found.note(io.op, offset, length, &mut pieces);
        }
        Ok(scan)
    }

    /// Bytes that the prefill writes.
    #[must_use]
    pub fn prefill_bytes(&self) -> u64 {
        self.disks.iter().map(|disk| disk.prefill.bytes()).sum()
    }
}

impl DiskScan {
    /// Where the I/O lies on the target.
    fn place(&mut self, op: Op, offset: u64, length: u64, pieces: &mut Vec<Piece>) {
        pieces.clear();
        match &mut self.fit {
            Some(fit) => {
                if op != Op::Discard {
                    fit.touch(offset, length);
                }
                fit.map(offset, length, pieces);
            }
            None => pieces.push(Piece {
                trace_offset_bytes: offset,
                offset_bytes: offset,
                length_bytes: length,
            }),
        }
    }

    /// What a read finds in blocks that nothing was written to is their content at the start.
    fn note_content(
        &mut self,
        op: Op,
        offset: u64,
        length: u64,
        numbers: &[u32],
        pieces: &mut Vec<Piece>,
    ) {
        if op != Op::Read {
            return;
        }
        self.place(op, offset, length, pieces);
        for piece in pieces.iter() {
            let first = (piece.trace_offset_bytes - offset) / CONTENT_BYTES;
            for i in 0..piece.length_bytes / CONTENT_BYTES {
                let from = piece.offset_bytes + i * CONTENT_BYTES;
                if !self.written.touches(from, from + CONTENT_BYTES)
                    && let Some(number) = numbers.get((first + i) as usize)
                {
                    self.prefill_contents.entry(from / CONTENT_BYTES).or_insert(*number);
                }
            }
        }
    }

    fn note(&mut self, op: Op, offset: u64, length: u64, pieces: &mut Vec<Piece>) {
        self.ios += 1;
        if op == Op::Flush || length == 0 {
            return;
        }
        if op.has_data() || op == Op::WriteZeroes {
            self.address_bits |= offset | length;
        }
        if op.has_data() {
            self.length_max_bytes = self.length_max_bytes.max(length);
        }
        self.place(op, offset, length, pieces);
        for piece in pieces.iter() {
            let (from, to) = (piece.offset_bytes, piece.offset_bytes + piece.length_bytes);
            self.reach_bytes = self.reach_bytes.max(to);
            match op {
                // A sector that is only written in part keeps bytes that a read may want.
                Op::Write | Op::WriteZeroes => self.written.add_whole(from, to),
                Op::Read => self.prefill.add_without(from, to, &self.written),
                Op::Discard | Op::Flush => {}
            }
        }
    }
}

const SECTOR: u64 = 512;
/// Sectors of a chunk of the set: 1 MiB of disk in 256 bytes.
const CHUNK: u64 = 2048;
const WORDS: usize = (CHUNK / 64) as usize;

/// A set of sectors, sparse: its memory follows the footprint, not the disk.
#[derive(Debug, Default)]
pub struct SectorSet {
    chunks: HashMap<u64, Box<[u64; WORDS]>>,
}

impl SectorSet {
    /// Sectors that lie wholly in the range.
    fn add_whole(&mut self, from: u64, to: u64) {
        for_masks(from.div_ceil(SECTOR), to / SECTOR, |chunk, word, mask| {
            self.chunks.entry(chunk).or_insert_with(|| Box::new([0; WORDS]))[word] |= mask;
        });
    }

    /// Sectors that the range touches and `other` lacks.
    fn add_without(&mut self, from: u64, to: u64, other: &Self) {
        for_masks(from / SECTOR, to.div_ceil(SECTOR), |chunk, word, mask| {
            let mask = mask & !other.chunks.get(&chunk).map_or(0, |bits| bits[word]);
            if mask != 0 {
                self.chunks.entry(chunk).or_insert_with(|| Box::new([0; WORDS]))[word] |= mask;
            }
        });
    }

    /// Has it a sector of the range?
    fn touches(&self, from: u64, to: u64) -> bool {
        let mut found = false;
        for_masks(from / SECTOR, to.div_ceil(SECTOR), |chunk, word, mask| {
            found |= self.chunks.get(&chunk).is_some_and(|bits| bits[word] & mask != 0);
        });
        found
    }

    #[must_use]
    pub fn bytes(&self) -> u64 {
        let sectors: u32 =
            self.chunks.values().flat_map(|bits| bits.iter()).map(|w| w.count_ones()).sum();
        u64::from(sectors) * SECTOR
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    /// `(offset, length)` of the runs, in order, rounded out to `align` and at most `max` long.
    #[must_use]
    pub fn runs(&self, align: u64, max: u64) -> Vec<(u64, u64)> {
        let mut chunks: Vec<_> = self.chunks.iter().collect();
        chunks.sort_unstable_by_key(|(chunk, _)| **chunk);
        let mut runs: Vec<(u64, u64)> = Vec::new();
        for (chunk, bits) in chunks {
            for sector in (0..CHUNK).filter(|s| bits[(s / 64) as usize] >> (s % 64) & 1 == 1) {
                let from = ((chunk * CHUNK + sector) * SECTOR) & !(align - 1);
                let to = ((chunk * CHUNK + sector + 1) * SECTOR).next_multiple_of(align);
                match runs.last_mut() {
                    Some(last) if last.0 + last.1 >= to => {}
                    Some(last) if last.0 + last.1 >= from && to - last.0 <= max => {
                        last.1 = to - last.0;
                    }
                    _ => runs.push((from, to - from)),
                }
            }
        }
        runs
    }
}

/// Calls `f(chunk, word, mask)` for sectors `from..to`.
fn for_masks(from: u64, to: u64, mut f: impl FnMut(u64, usize, u64)) {
    let mut sector = from;
    while sector < to {
        let end = to.min((sector / 64 + 1) * 64);
        let mask = (u64::MAX >> (64 - (end - sector))) << (sector % 64);
        f(sector / CHUNK, (sector % CHUNK / 64) as usize, mask);
        sector = end;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn runs_are_what_was_read_before_it_was_written(
            ios in proptest::collection::vec((0u64..9000, 1u64..300, any::<bool>()), 1..50)
        ) {
            let mut disk = DiskScan::default();
            let mut written = vec![false; 10_000];
            let mut wanted = vec![false; 10_000];
            for (at, length, is_write) in ios {
                let op = if is_write { Op::Write } else { Op::Read };
                disk.note(op, at * SECTOR, length * SECTOR, &mut Vec::new());
                for sector in at..at + length {
                    let sector = sector as usize;
                    if is_write { written[sector] = true }
                    else if !written[sector] { wanted[sector] = true }
                }
            }
            let mut got = vec![false; 10_000];
            let mut end = 0;
            for (from, length) in disk.prefill.runs(SECTOR, 64 * SECTOR) {
                prop_assert!(from >= end && length <= 64 * SECTOR);
                end = from + length;
                got[(from / SECTOR) as usize..(end / SECTOR) as usize].fill(true);
            }
            prop_assert_eq!(got, wanted);
        }
    }
}
