//! Numbers without gaps for the blocks of some disks, in the order in which they first appear.

use crate::eviction::{self, Request};
use crate::int_map::IntMap;

/// Entries of all flat tables of one numbering: 128 MB at most.
const FLAT_ENTRIES_MAX: usize = 1 << 25;
/// Bits of a block number: 1 PiB in blocks of 512 bytes.
const BLOCK_BITS: u32 = 41;
const NEW: u32 = u32::MAX;

/// Blocks near a disk's start are found in a flat table by address, one load each; those beyond
/// what fits by a hash.
#[derive(Default)]
pub struct Ids {
    flat: Vec<Vec<u32>>,
    flat_entries: usize,
    far: IntMap<u32>,
    /// By number: the block's mark, as the cache filter has it.
    marks: Vec<u32>,
    /// Blocks of several disks are told apart, as by the filter for a group.
    is_shared: bool,
}

/// The disk's place in a block's number where a cache filter is one for a group.
const GROUP_BITS: u32 = 48;

impl Ids {
    /// For the blocks of one disk, or of all.
    #[must_use]
    pub fn new(is_shared: bool) -> Self {
        Self { is_shared, ..Self::default() }
    }

    /// Distinct blocks so far.
    #[must_use]
    pub fn len(&self) -> usize {
        self.marks.len()
    }

    /// By number: the marks of the blocks.
    #[must_use]
    pub fn into_marks(self) -> Vec<u32> {
        self.marks
    }

    /// The next number, for a block that is new.
    fn add(&mut self, disk: u32, block: u64) {
        let disk = if self.is_shared { u64::from(disk) } else { 0 };
        self.marks.push(eviction::mark(disk << GROUP_BITS | block));
    }

    /// The number of a block; `None` when there are more than can be numbered.
    #[inline]
    pub fn number(&mut self, disk: u32, block: u64) -> Option<u32> {
        let table = self.flat.get_mut(disk as usize);
        if let Some(entry) = table.and_then(|table| table.get_mut(block as usize)) {
            let mut id = *entry;
            if id == NEW {
                id = self.marks.len() as u32;
                *entry = id;
                self.add(disk, block);
            }
            return Some(id).filter(|id| (*id as usize) < Request::BLOCKS_MAX);
        }
        self.number_far(disk, block)
    }

    #[cold]
    fn number_far(&mut self, disk: u32, block: u64) -> Option<u32> {
        if self.grow(disk, block) {
            return self.number(disk, block);
        }
        let next = self.marks.len() as u32;
        let id = *self.far.entry(key(disk, block)).or_insert(next);
        if id == next {
            self.add(disk, block);
        }
        Some(id).filter(|id| (*id as usize) < Request::BLOCKS_MAX)
    }

    /// Makes the disk's table reach the block, if there is room for that.
    fn grow(&mut self, disk: u32, block: u64) -> bool {
        if disk as usize >= self.flat.len() {
            self.flat.resize_with(disk as usize + 1, Vec::new);
        }
        let table = &mut self.flat[disk as usize];
        let room = FLAT_ENTRIES_MAX - self.flat_entries + table.len();
        if block >= room as u64 {
            return false;
        }
        let entries = (block as usize + 1).next_power_of_two().max(1024).min(room);
        self.flat_entries += entries - table.len();
        // Some of the blocks that the table now reaches may have been hashed.
        let mut larger = vec![NEW; entries];
        larger[..table.len()].copy_from_slice(table);
        if !self.far.is_empty() {
            for (at, entry) in larger.iter_mut().enumerate().skip(table.len()) {
                if let Some(id) = self.far.remove(&key(disk, at as u64)) {
                    *entry = id;
                }
            }
        }
        *table = larger;
        true
    }

    /// Numbers of the known blocks of a disk from `first` to `end` less one, in order of address.
    #[must_use]
    pub fn known_range(&self, disk: u32, first: u64, end: u64) -> Vec<u32> {
        let flat = self.flat.get(disk as usize).map_or(&[][..], Vec::as_slice);
        let near = |block: u64| (block.min(flat.len() as u64)) as usize;
        let mut found: Vec<u32> =
            flat[near(first)..near(end)].iter().copied().filter(|entry| *entry != NEW).collect();
        let rest = first.max(flat.len() as u64)..end;
        if rest.end.saturating_sub(rest.start) > self.far.len() as u64 {
            let keys = key(disk, rest.start)..key(disk, rest.end - 1) + 1;
            let inside = self.far.iter().filter(|(key, _)| keys.contains(*key));
            let mut far: Vec<(u64, u32)> = inside.map(|(key, id)| (*key, *id)).collect();
            far.sort_unstable();
            found.extend(far.into_iter().map(|(_, id)| id));
        } else {
            found.extend(rest.filter_map(|block| self.far.get(&key(disk, block)).copied()));
        }
        found
    }
}

/// The disk in the bits above the block's.
const fn key(disk: u32, block: u64) -> u64 {
    (disk as u64) << BLOCK_BITS | block
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    #[test]
    fn numbers_have_no_gaps_and_stay() {
        let mut ids = Ids::default();
        let mut model: HashMap<(u32, u64), u32> = HashMap::new();
        let far = 1 << 40;
        for i in 0..20_000_u64 {
            let mixed = i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
            let disk = (mixed % 3) as u32;
            let block = match mixed % 5 {
                0 => far + mixed % 1000,
                1 => mixed % 50_000_000,
                _ => mixed % 2000,
            };
            let next = model.len() as u32;
            let expected = *model.entry((disk, block)).or_insert(next);
            assert_eq!(ids.number(disk, block), Some(expected));
        }
        assert_eq!(ids.len(), model.len());
        for (disk, first, end) in [(0, 0, 1500), (1, 900, far + 500), (2, far, far + 10), (7, 0, 9)]
        {
            let found = ids.known_range(disk, first, end);
            let inside = model.iter().filter(|((d, b), _)| *d == disk && (first..end).contains(b));
            let mut expected: Vec<(u64, u32)> = inside.map(|((_, b), id)| (*b, *id)).collect();
            expected.sort_unstable();
            assert_eq!(found, expected.into_iter().map(|(_, id)| id).collect::<Vec<_>>());
        }
    }
}
