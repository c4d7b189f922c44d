//! The in-flight tables of the matcher: by disk, direction and first sector, oldest first.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::{BuildHasherDefault, Hash, Hasher};

use crate::io::Op;

/// Entries after which stale ones are looked for.
const PURGE_AT: usize = 1 << 18;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key {
    sector: u64,
    disk_op: u32,
}

impl Key {
    #[must_use]
    #[inline]
    pub fn new(disk: usize, op: Op, sector: u64) -> Self {
        Self { sector, disk_op: (disk as u32) << 3 | op as u32 }
    }
}

impl Hash for Key {
    #[inline]
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.sector ^ (u64::from(self.disk_op) << 48));
    }
}

/// One multiplication, folded: sector numbers are regular, and come from no adversary who could
/// do more than slow his own import down.
#[derive(Default)]
pub struct FoldHasher(u64);

impl Hasher for FoldHasher {
    #[inline]
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u64(u64::from(byte) ^ self.0.rotate_left(5));
        }
    }

    #[inline]
    fn write_u64(&mut self, value: u64) {
        let wide = u128::from(value ^ 0x9e37_79b9_7f4a_7c15) * 0xa076_1d64_78bd_642f;
        self.0 = (wide >> 64) as u64 ^ wide as u64;
    }
}

/// A run of bytes of one row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    pub row: u64,
    pub bytes: u32,
}

/// An issued request: the bios it carries, in order of address.
#[derive(Debug)]
pub struct Request {
    pub issue_ns: i64,
    /// Not yet completed.
    pub bytes: u32,
    /// The first bio apart: most requests carry one, and so need no allocation.
    pub first: Option<Segment>,
    pub segments: Vec<Segment>,
}

impl Request {
    #[inline]
    pub fn add(&mut self, segment: Segment) {
        if self.first.is_none() {
            self.first = Some(segment);
        } else {
            self.segments.push(segment);
        }
    }

    /// A copy of the parts, so that the table's owner can be changed while looking at them.
    #[inline]
    pub fn parts(&self) -> impl Iterator<Item = Segment> + use<> {
        self.first.into_iter().chain(self.segments.clone())
    }

    #[inline]
    pub fn replace(&mut self, parts: Vec<Segment>) {
        self.segments = parts;
        self.first = if self.segments.is_empty() { None } else { Some(self.segments.remove(0)) };
    }
}

/// What a table holds: something of a length, which refers to rows.
pub trait InFlight {
    fn bytes(&self) -> u32;
    /// Whether any row it refers to is still waiting.
    fn is_live(&self, base: u64) -> bool;
}

impl InFlight for Segment {
    #[inline]
    fn bytes(&self) -> u32 {
        self.bytes
    }

    #[inline]
    fn is_live(&self, base: u64) -> bool {
        self.row >= base
    }
}

impl InFlight for Request {
    #[inline]
    fn bytes(&self) -> u32 {
        self.bytes
    }

    #[inline]
    fn is_live(&self, base: u64) -> bool {
        self.first.is_some_and(|s| s.row >= base) || self.segments.iter().any(|s| s.row >= base)
    }
}

/// Entries under one key: nearly always one.
struct Chain<T> {
    first: T,
    more: Vec<T>,
}

pub struct Table<T> {
    map: HashMap<Key, Chain<T>, BuildHasherDefault<FoldHasher>>,
    entries: usize,
    purge_at: usize,
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self { map: HashMap::default(), entries: 0, purge_at: PURGE_AT }
    }
}

impl<T: InFlight> Table<T> {
    /// Adds an entry behind those of the same key. Rows below `base` have left.
    #[inline]
    pub fn insert(&mut self, key: Key, value: T, base: u64) {
        if self.entries >= self.purge_at {
            self.purge(base);
        }
        self.entries += 1;
        match self.map.entry(key) {
            Entry::Vacant(slot) => {
                slot.insert(Chain { first: value, more: Vec::new() });
            }
            Entry::Occupied(mut slot) => slot.get_mut().more.push(value),
        }
    }

    /// Removes the oldest live entry of exactly `bytes`, else the oldest live one.
    #[inline]
    pub fn take(&mut self, key: &Key, bytes: u32, base: u64) -> Option<T> {
        let Entry::Occupied(mut slot) = self.map.entry(*key) else { return None };
        if slot.get().more.is_empty() {
            self.entries -= 1;
            let only = slot.remove().first;
            return only.is_live(base).then_some(only);
        }
        let chain = slot.get_mut();
        let before = 1 + chain.more.len();
        chain.more.retain(|entry| entry.is_live(base));
        if !chain.first.is_live(base) && !chain.more.is_empty() {
            chain.first = chain.more.remove(0);
        }
        self.entries -= before - (1 + chain.more.len());
        let exact = chain.more.iter().position(|entry| entry.bytes() == bytes);
        self.entries -= 1;
        match exact {
            Some(at) if chain.first.bytes() != bytes => Some(chain.more.remove(at)),
            _ if chain.more.is_empty() => Some(slot.remove().first).filter(|e| e.is_live(base)),
            _ => Some(std::mem::replace(&mut chain.first, chain.more.remove(0))),
        }
    }

    /// Forgets entries whose rows have left: captures without completions would pile them up.
    #[cold]
    fn purge(&mut self, base: u64) {
        self.map.retain(|_, chain| {
            chain.more.retain(|entry| entry.is_live(base));
            if !chain.first.is_live(base) && !chain.more.is_empty() {
                chain.first = chain.more.remove(0);
            }
            chain.first.is_live(base)
        });
        self.entries = self.map.values().map(|chain| 1 + chain.more.len()).sum();
        self.purge_at = PURGE_AT.max(2 * self.entries);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_of_one_key_leave_by_length_then_age() {
        let mut table = Table::default();
        let key = Key::new(0, Op::Read, 8);
        for (row, bytes) in [(0, 4096), (1, 8192), (2, 4096)] {
            table.insert(key, Segment { row, bytes }, 0);
        }
        assert_eq!(table.take(&key, 8192, 0).map(|s| s.row), Some(1));
        assert_eq!(table.take(&key, 1024, 0).map(|s| s.row), Some(0));
        assert_eq!(table.take(&key, 4096, 3), None, "row 2 has left");
        assert_eq!(table.entries, 0);
        assert!(table.take(&Key::new(0, Op::Write, 8), 4096, 0).is_none());
    }

    #[test]
    fn stale_entries_are_purged() {
        let mut table = Table::default();
        for row in 0..3 * PURGE_AT as u64 {
            let segment = Segment { row, bytes: 512 };
            table.insert(Key::new(0, Op::Read, row), segment, row.saturating_sub(10));
        }
        assert!(table.map.len() <= PURGE_AT + 1, "{} entries", table.map.len());
    }
}
