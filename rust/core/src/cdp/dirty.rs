//! Which blocks of a group's disks have changed: a bitmap a disk, grown as far as it is needed.

/// Blocks that have to be sent again.
#[derive(Debug)]
pub struct Dirty {
    block_bytes: u64,
    disks: Vec<Bits>,
    count: u64,
}

#[derive(Debug, Default)]
struct Bits {
    words: Vec<u64>,
    /// Where the disk's data ends, as far as it is known: blocks end there.
    reach_bytes: u64,
    /// No word before this one has a bit.
    first: usize,
}

impl Dirty {
    #[must_use]
    pub fn new(disks: usize, block_bytes: u64) -> Self {
        let disks = (0..disks).map(|_| Bits::default()).collect();
        Self { block_bytes, disks, count: 0 }
    }

    #[must_use]
    pub const fn count(&self) -> u64 {
        self.count
    }

    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.count * self.block_bytes
    }

    /// The disk reaches at least this far.
    #[inline]
    pub fn reaches(&mut self, disk: u16, end_bytes: u64) {
        let bits = &mut self.disks[disk as usize];
        bits.reach_bytes = bits.reach_bytes.max(end_bytes);
    }

    /// Every block that the range touches.
    pub fn mark(&mut self, disk: u16, offset_bytes: u64, length_bytes: u64) {
        if length_bytes == 0 {
            return;
        }
        self.reaches(disk, offset_bytes + length_bytes);
        let bits = &mut self.disks[disk as usize];
        let first = offset_bytes / self.block_bytes;
        let last = (offset_bytes + length_bytes - 1) / self.block_bytes;
        let words = last as usize / 64 + 1;
        if bits.words.len() < words {
            bits.words.resize(words, 0);
        }
        bits.first = bits.first.min(first as usize / 64);
        for block in first..=last {
            let (word, bit) = (&mut bits.words[block as usize / 64], 1 << (block % 64));
            self.count += u64::from(*word & bit == 0);
            *word |= bit;
        }
    }

    /// Takes the first dirty block of any disk as `(disk, offset, length)`.
    pub fn take(&mut self) -> Option<(u16, u64, u64)> {
        self.take_run(1)
    }

    /// Takes the first dirty block and those that follow it without a gap, so many at most.
    pub fn take_run(&mut self, blocks_max: u64) -> Option<(u16, u64, u64)> {
        if self.count == 0 {
            return None;
        }
        for (disk, bits) in self.disks.iter_mut().enumerate() {
            while bits.words.get(bits.first).is_some_and(|word| *word == 0) {
                bits.first += 1;
            }
            let Some(word) = bits.words.get(bits.first) else { continue };
            let first = bits.first as u64 * 64 + u64::from(word.trailing_zeros());
            let mut end = first;
            while end < first + blocks_max {
                let Some(word) = bits.words.get_mut(end as usize / 64) else { break };
                let bit = 1 << (end % 64);
                if *word & bit == 0 {
                    break;
                }
                *word &= !bit;
                end += 1;
            }
            self.count -= end - first;
            let offset = first * self.block_bytes;
            let length = ((end - first) * self.block_bytes).min(bits.reach_bytes - offset);
            return Some((disk as u16, offset, length));
        }
        None
    }

    /// Every block that the range touches need not be sent from here.
    pub fn clear_touched(&mut self, disk: u16, offset_bytes: u64, length_bytes: u64) {
        if self.count == 0 || length_bytes == 0 {
            return;
        }
        let last = (offset_bytes + length_bytes - 1) / self.block_bytes;
        self.clear(disk, offset_bytes / self.block_bytes..last + 1);
    }

    fn clear(&mut self, disk: u16, blocks: std::ops::Range<u64>) {
        for block in blocks {
            if let Some(word) = self.disks[disk as usize].words.get_mut(block as usize / 64) {
                let bit = 1 << (block % 64);
                self.count -= u64::from(*word & bit != 0);
                *word &= !bit;
            }
        }
    }

    /// Every block of another map of the same disks.
    pub fn mark_all_of(&mut self, other: &Self) {
        for (disk, of) in other.disks.iter().enumerate() {
            for (at, word) in of.words.iter().enumerate() {
                let mut rest = *word;
                while rest != 0 {
                    let block = at as u64 * 64 + u64::from(rest.trailing_zeros());
                    rest &= rest - 1;
                    let offset = block * self.block_bytes;
                    let length = self.block_bytes.min(of.reach_bytes - offset);
                    self.mark(disk as u16, offset, length);
                }
            }
        }
    }

    /// Forgets every mark.
    pub fn clear_all(&mut self) {
        for bits in &mut self.disks {
            bits.words.clear();
            bits.first = 0;
        }
        self.count = 0;
    }

    /// A write that is journaled covers these blocks whole: they need not be sent again.
    pub fn clear_covered(&mut self, disk: u16, offset_bytes: u64, length_bytes: u64) {
        if self.count == 0 {
            return;
        }
        let bits = &self.disks[disk as usize];
        let end = offset_bytes + length_bytes;
        let first = offset_bytes.div_ceil(self.block_bytes);
        let last = if end >= bits.reach_bytes {
            end.div_ceil(self.block_bytes)
        } else {
            end / self.block_bytes
        };
        self.clear(disk, first..last);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_is_a_set_of_blocks(
            steps in proptest::collection::vec(
                (0u8..3, 0u16..2, 0u64..2000, 1u64..300), 1..60),
            run in 1u64..9,
        ) {
            let mut dirty = Dirty::new(2, 16);
            let mut model = BTreeSet::new();
            dirty.reaches(0, 4000);
            dirty.reaches(1, 4000);
            for (what, disk, offset, length) in steps {
                let touched = move |b: u64| b * 16 < offset + length && offset < b * 16 + 16;
                if what == 0 {
                    dirty.mark(disk, offset, length);
                    model.extend((0..300u64).filter(|b| touched(*b)).map(|b| (disk, b)));
                } else if what == 1 {
                    dirty.clear_touched(disk, offset, length);
                    model.retain(|(d, b)| *d != disk || !touched(*b));
                } else {
                    dirty.clear_covered(disk, offset, length);
                    model.retain(|(d, b)| {
                        *d != disk || b * 16 < offset || b * 16 + 16 > offset + length
                    });
                }
                prop_assert_eq!(dirty.count(), model.len() as u64);
            }
            let mut copy = Dirty::new(2, 16);
            copy.mark_all_of(&dirty);
            prop_assert_eq!(copy.count(), dirty.count());
            let mut got = BTreeSet::new();
            while let Some((disk, offset, length)) = dirty.take_run(run) {
                prop_assert!(length % 16 == 0 && length / 16 <= run);
                let blocks = offset / 16..(offset + length) / 16;
                prop_assert!(!got.contains(&(disk, blocks.end)) || length / 16 == run);
                got.extend(blocks.map(|block| (disk, block)));
            }
            prop_assert_eq!(got, model);
            prop_assert!(dirty.is_empty());
        }
    }

    #[test]
    fn the_last_block_ends_with_the_disk() {
        let mut dirty = Dirty::new(1, 4096);
        dirty.mark(0, 4096, 100);
        dirty.clear_covered(0, 4096, 100);
        assert!(dirty.is_empty());
        dirty.mark(0, 4096, 100);
        assert_eq!(dirty.take(), Some((0, 4096, 100)));
    }
}
