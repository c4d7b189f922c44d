//! Which blocks change, and how many distinct ones between two writes of the trace.
//!
//! Each write is kept as runs of blocks with the write that touched them before. A block counts
//! in a window at its first touch there, that is where the touch before lies ahead of the window.

use crate::error::{Error, Result};
use crate::planner::pages::in_large_pages;

/// Counts distinct changed blocks over any window of consecutive writes.
pub struct ChangedBlocks {
    granularity_bytes: u64,
    tracked: bool,
    /// One table a disk, by disk number.
    tables: Vec<LastTouch>,
    /// Run where write `i` starts; one more entry than writes.
    starts: Vec<u32>,
    /// 1 + the last write before this one to touch the run's blocks; 0 when there is none.
    before: Vec<u32>,
    /// Blocks in the run.
    blocks: Vec<u32>,
}

impl ChangedBlocks {
    /// With `tracked` false nothing is kept, for plans without snapshots.
    ///
    /// # Errors
    /// `Input` when the granularity is no power of two from 512 bytes to 1 GiB.
    pub fn new(granularity_bytes: u64, tracked: bool) -> Result<Self> {
        if !granularity_bytes.is_power_of_two() || !(512..=1 << 30).contains(&granularity_bytes) {
            let expected = "expected a power of two from 512 bytes to 1 GiB";
            return Err(Error::input(format!("granularity: {expected}, got {granularity_bytes}")));
        }
        let (tables, before, blocks) = (Vec::new(), Vec::new(), Vec::new());
        Ok(Self { granularity_bytes, tracked, tables, starts: vec![0], before, blocks })
    }

    /// Keeps nothing, for the parts of a workload.
    #[must_use]
    pub fn untracked() -> Self {
        let (tables, before, blocks) = (Vec::new(), Vec::new(), Vec::new());
        let (granularity_bytes, tracked) = (512, false);
        Self { granularity_bytes, tracked, tables, starts: vec![0], before, blocks }
    }

    #[must_use]
    pub fn granularity_bytes(&self) -> u64 {
        self.granularity_bytes
    }

    /// Makes room at once.
    pub fn expect_writes(&mut self, writes: usize) {
        if !self.tracked {
            return;
        }
        for of in [&mut self.starts, &mut self.before, &mut self.blocks] {
            of.reserve(writes);
        }
    }

    /// Tells the processor that a write to come will look here.
    #[inline]
    pub fn fetch_ahead(&self, disk: u32, offset_bytes: i64) {
        if let Some(table) = self.tables.get(disk as usize) {
            table.fetch_ahead(offset_bytes as u64 >> self.granularity_bytes.trailing_zeros());
        }
    }

    /// Adds the next write; `length_bytes` is above zero.
    ///
    /// # Errors
    /// `Input` beyond 2^32 runs of blocks.
    pub fn touch(&mut self, disk: u32, offset_bytes: u64, length_bytes: u64) -> Result<()> {
        if !self.tracked {
            return Ok(());
        }
        let shift = self.granularity_bytes.trailing_zeros();
        let (first, last) = (offset_bytes >> shift, (offset_bytes + length_bytes - 1) >> shift);
        let disk = disk as usize;
        if disk >= self.tables.len() {
            // The first write's size is the best guess at the others'.
            let group = (last - first + 1).min(16).next_power_of_two();
            self.tables.resize_with(disk + 1, || LastTouch::new(group.trailing_zeros()));
        }
        let write = self.starts.len() as u32;
        let run = *self.starts.last().unwrap_or(&0) as usize;
        let (before, blocks) = (&mut self.before, &mut self.blocks);
        self.tables[disk].replace(first, last, write, |previous, count| {
            let same = before.len() > run && before.last() == Some(&previous);
            let room = |n: &&mut u32| same && n.checked_add(count).is_some();
            if let Some(n) = blocks.last_mut().filter(room) {
                *n += count;
                return;
            }
            before.push(previous);
            blocks.push(count);
        });
        let end = u32::try_from(self.before.len()).map_err(|_| {
            Error::input(
                "expected fewer than 2^32 changed runs of blocks: use a larger granularity",
            )
        })?;
        self.starts.push(end);
        Ok(())
    }

    /// The tables serve only while writes are added: gives their memory back.
    pub fn finish(&mut self) {
        self.tables = Vec::new();
    }

    /// Distinct blocks changed by the writes `from..to`.
    #[must_use]
    pub fn distinct(&self, from: usize, to: usize) -> u64 {
        let runs = self.starts[from] as usize..self.starts[to] as usize;
        let first = from as u32;
        let pairs = self.before[runs.clone()].iter().zip(&self.blocks[runs]);
        pairs.map(|(before, blocks)| if *before <= first { u64::from(*blocks) } else { 0 }).sum()
    }
}

/// The last write to touch each block of a disk: open addressing over groups of `1 << group`
/// blocks, in one array so that a look-up is one cache miss.
struct LastTouch {
    group: u32,
    /// Slots of `2 + (1 << group)` words: the group's number plus one (low, high), its blocks.
    words: Vec<u32>,
    bits: u32,
    used: usize,
}

impl LastTouch {
    const FIRST_BITS: u32 = 10;
    /// From here on memory counts more than moving once more.
    const LARGE_BITS: u32 = 22;

    fn new(group: u32) -> Self {
        Self { group, words: Vec::new(), bits: 0, used: 0 }
    }

    fn stride(&self) -> usize {
        2 + (1 << self.group)
    }

    /// Sets blocks `first..=last` to `write`, telling what each run of them was before.
    fn replace(&mut self, first: u64, last: u64, write: u32, mut told: impl FnMut(u32, u32)) {
        let mut block = first;
        while block <= last {
            let number = block >> self.group;
            let end = last.min(((number + 1) << self.group) - 1);
            let slot = self.slot(number) + 2;
            let within = (1_u64 << self.group) - 1;
            let (from, to) = ((block & within) as usize, (end & within) as usize);
            for word in &mut self.words[slot + from..=slot + to] {
                told(*word, 1);
                *word = write;
            }
            block = end + 1;
        }
    }

    /// Index of the group's slot in `words`, made if it is new.
    fn slot(&mut self, number: u64) -> usize {
        if self.used * 4 >= self.slots() * 3 {
            self.grow();
        }
        let at = self.find(number);
        if self.words[at] == 0 && self.words[at + 1] == 0 {
            let key = number + 1;
            (self.words[at], self.words[at + 1]) = (key as u32, (key >> 32) as u32);
            self.used += 1;
        }
        at
    }

    fn slots(&self) -> usize {
        if self.words.is_empty() { 0 } else { 1 << self.bits }
    }

    /// Where the search for a group begins.
    #[inline]
    fn home(&self, number: u64) -> usize {
        // Groups that follow each other share a line of eight slots: sequential writes stay in
        // the processor's cache.
        let line = (number >> 3).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - (self.bits - 3));
        ((line << 3) | (number & 7)) as usize
    }

    #[inline]
    fn fetch_ahead(&self, block: u64) {
        if self.words.is_empty() {
            return;
        }
        let at = self.home(block >> self.group) * self.stride();
        #[cfg(target_arch = "x86_64")]
        // SAFETY: a prefetch reads nothing; the index is that of a slot all the same.
        unsafe {
            use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            _mm_prefetch::<_MM_HINT_T0>(self.words.as_ptr().add(at).cast());
        }
        #[cfg(not(target_arch = "x86_64"))]
        std::hint::black_box(self.words[at]);
    }

    fn find(&self, number: u64) -> usize {
        let key = number + 1;
        let (low, high) = (key as u32, (key >> 32) as u32);
        let (mask, stride) = ((1_usize << self.bits) - 1, self.stride());
        let mut slot = self.home(number);
        loop {
            let at = slot * stride;
            let (l, h) = (self.words[at], self.words[at + 1]);
            if (l == low && h == high) || (l == 0 && h == 0) {
                return at;
            }
            slot = (slot + 1) & mask;
        }
    }

    #[cold]
    fn grow(&mut self) {
        let old = std::mem::take(&mut self.words);
        self.bits = match self.bits {
            _ if old.is_empty() => Self::FIRST_BITS,
            bits if bits < Self::LARGE_BITS => bits + 2,
            bits => bits + 1,
        };
        let stride = self.stride();
        self.words = vec![0; stride << self.bits];
        in_large_pages(&self.words);
        for slot in old.chunks_exact(stride).filter(|slot| slot[0] != 0 || slot[1] != 0) {
            let number = (u64::from(slot[1]) << 32 | u64::from(slot[0])) - 1;
            let at = self.find(number);
            self.words[at..at + stride].copy_from_slice(slot);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashSet;

    proptest! {
        #[test]
        fn distinct_blocks_of_any_window_agree_with_a_set(
            writes in prop::collection::vec((0u32..3, 0u64..400_000, 1u64..200_000), 1..60),
            from in 0usize..60,
            length in 0usize..60,
        ) {
            let mut changed = ChangedBlocks::new(4096, true).unwrap();
            for (disk, offset, length) in &writes {
                changed.touch(*disk, *offset, *length).unwrap();
            }
            changed.finish();
            let from = from.min(writes.len());
            let to = (from + length).min(writes.len());
            let mut set = HashSet::new();
            for (disk, offset, length) in &writes[from..to] {
                set.extend((offset / 4096..=(offset + length - 1) / 4096).map(|b| (*disk, b)));
            }
            prop_assert_eq!(changed.distinct(from, to), set.len() as u64);
        }
    }

    #[test]
    fn a_table_that_grows_forgets_nothing() {
        let mut changed = ChangedBlocks::new(512, true).unwrap();
        for pass in 0..2 {
            for block in 0..50_000u64 {
                // Spread over the whole address range, far beyond 32 bits of group number.
                changed.touch(0, block.wrapping_mul(0x5_dead_beef) << 12, 512).unwrap();
            }
            assert_eq!(changed.distinct(0, 50_000 * (pass + 1)), 50_000);
        }
        assert_eq!(changed.distinct(50_000, 100_000), 50_000);
        assert_eq!(changed.distinct(49_000, 51_000), 2_000);
    }

    #[test]
    fn granularities_that_are_no_power_of_two_are_refused() {
        for wrong in [0, 511, 256, 3000, 1 << 31] {
            let error = ChangedBlocks::new(wrong, true).err().unwrap().to_string();
            assert!(error.contains("power of two from 512"), "{error}");
        }
    }
}
