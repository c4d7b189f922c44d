//! Which blocks have changed, as sets and as runs, and where the redo log is written next.

use crate::int_map::IntMap;

/// A set of blocks of one size.
pub struct Blocks {
    block_bytes: u64,
    set: IntMap<()>,
}

impl Blocks {
    pub fn new(block_bytes: u64) -> Self {
        Self { block_bytes, set: IntMap::default() }
    }

    pub fn is_empty(&self) -> bool {
        self.set.is_empty()
    }

    pub fn bytes(&self) -> u64 {
        self.set.len() as u64 * self.block_bytes
    }

    /// Adds the blocks of a range (of one byte or more); from the first to the end of the last one
    /// that was not there before, in bytes.
    pub fn add(&mut self, offset_bytes: u64, length_bytes: u64) -> Option<(u64, u64)> {
        let first = offset_bytes / self.block_bytes;
        let last = (offset_bytes + length_bytes - 1) / self.block_bytes;
        let mut new: Option<(u64, u64)> = None;
        for block in first..=last {
            if self.set.insert(block, ()).is_none() {
                new = Some((new.map_or(block, |(from, _)| from), block + 1));
            }
        }
        new.map(|(from, to)| (from * self.block_bytes, to * self.block_bytes))
    }

    /// Adds all blocks of runs, taken or not.
    pub fn put_back(&mut self, runs: &Runs) {
        self.set.extend(runs.blocks.iter().map(|block| (*block, ())));
    }

    /// Empties the set into runs by rising offset.
    pub fn take_runs(&mut self) -> Runs {
        let mut blocks: Vec<u64> = self.set.drain().map(|(block, ())| block).collect();
        blocks.sort_unstable();
        Runs { block_bytes: self.block_bytes, blocks, next: 0 }
    }
}

/// Blocks by rising offset, taken run by run.
#[derive(Default)]
pub struct Runs {
    block_bytes: u64,
    blocks: Vec<u64>,
    next: usize,
}

impl Runs {
    /// Of what has not been taken.
    pub fn bytes(&self) -> u64 {
        (self.blocks.len() - self.next) as u64 * self.block_bytes
    }

    /// Offset and length of the next run: at most so many bytes, but one block at least.
    pub fn next(&mut self, most_bytes: u64) -> Option<(u64, u64)> {
        let first = *self.blocks.get(self.next)?;
        let most = (most_bytes / self.block_bytes).max(1);
        let follows = |(i, block): &(u64, &u64)| **block == first + i && *i < most;
        let count = (0..).zip(&self.blocks[self.next..]).take_while(follows).count();
        self.next += count;
        Some((first * self.block_bytes, count as u64 * self.block_bytes))
    }
}

/// Writes of the log need no finer place.
const ALIGN_BYTES: u64 = 4096;

/// Where the redo log is written: round and round, since nobody reads it back.
pub struct RedoLog {
    size_bytes: u64,
    next_bytes: u64,
    used_bytes: u64,
}

impl RedoLog {
    pub fn new(size_bytes: u64) -> Self {
        Self { size_bytes, next_bytes: 0, used_bytes: 0 }
    }

    /// A snapshot begins.
    pub fn begin(&mut self) {
        self.used_bytes = 0;
    }

    pub fn used_bytes(&self) -> u64 {
        self.used_bytes
    }

    /// So much of a piece fits the log.
    pub fn fits(&self, length_bytes: u64) -> u64 {
        length_bytes.min(self.size_bytes)
    }

    /// The place of the next piece.
    pub fn place(&mut self, length_bytes: u64) -> u64 {
        if self.next_bytes + length_bytes > self.size_bytes {
            self.next_bytes = 0;
        }
        let place = self.next_bytes;
        self.next_bytes = (place + length_bytes).next_multiple_of(ALIGN_BYTES);
        self.used_bytes += length_bytes;
        place
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_new_in_a_range_is_told_once() {
        let mut blocks = Blocks::new(4096);
        assert_eq!(blocks.add(5000, 4096), Some((4096, 12_288)));
        assert_eq!(blocks.add(8192, 4096), None);
        assert_eq!(blocks.add(0, 16_384), Some((0, 16_384)));
        assert_eq!(blocks.bytes(), 16_384);
    }

    #[test]
    fn runs_are_cut_at_gaps_and_at_their_longest() {
        let mut blocks = Blocks::new(512);
        for block in [9, 1, 2, 3, 7, 4, 5] {
            blocks.add(block * 512, 512);
        }
        let mut runs = blocks.take_runs();
        assert!(blocks.is_empty());
        assert_eq!(runs.bytes(), 7 * 512);
        let mut found = Vec::new();
        while let Some(run) = runs.next(1536) {
            found.push((run.0 / 512, run.1 / 512));
        }
        assert_eq!(found, [(1, 3), (4, 2), (7, 1), (9, 1)]);
        assert_eq!(runs.bytes(), 0);
    }

    #[test]
    fn the_log_goes_round() {
        let mut log = RedoLog::new(16_384);
        assert_eq!([log.place(5000), log.place(4096), log.place(4096)], [0, 8192, 12_288]);
        assert_eq!(log.place(1), 0);
        assert_eq!((log.fits(1 << 30), log.used_bytes()), (16_384, 5000 + 8193));
    }
}
