//! Overlapping I/Os of one disk never pass each other: who waits for whom.
//!
//! Each I/O in flight or waiting holds its range. A new one that overlaps an earlier one, where
//! one of the two changes data, counts the earlier ones and starts when the last is gone. A table
//! of counters per 64 KiB answers "nothing near" for almost every I/O without a search.

use crate::io::Op;
use crate::slab::IoId;

const GRANULE_SHIFT: u32 = 16;
const TABLE: usize = 1 << 12;
/// I/Os that span more granules than this are kept in a list of their own.
const SPAN_MAX: u64 = 64;

#[derive(Debug, Clone, Copy)]
struct Held {
    id: IoId,
    disk: u16,
    modifies: bool,
    from: u64,
    to: u64,
}

impl Held {
    fn excludes(&self, new: &Self) -> bool {
        self.disk == new.disk
            && (self.modifies || new.modifies)
            && self.from < new.to
            && new.from < self.to
    }
}

#[derive(Debug, Default, Clone)]
struct Waiter {
    blockers: u32,
    dependents: Vec<IoId>,
}

/// The ranges of one worker's I/Os.
pub struct RangeLock {
    held: Vec<Held>,
    /// By slot: where it stands in `held`.
    place: Vec<u32>,
    waiters: Vec<Waiter>,
    counts: Vec<u16>,
    wide: usize,
    /// The last range entered may overlap another: only a search tells.
    near: bool,
    align: u64,
    released: Vec<IoId>,
}

impl RangeLock {
    /// For `slots` slots; ranges are rounded out to `align_bytes` (a power of two), the largest
    /// unit that a layer below may have to read, change and write back.
    #[must_use]
    pub fn new(slots: usize, align_bytes: u64) -> Self {
        Self {
            held: Vec::with_capacity(slots),
            place: vec![u32::MAX; slots],
            waiters: vec![Waiter::default(); slots],
            counts: vec![0; TABLE],
            wide: 0,
            near: false,
            align: align_bytes.max(1),
            released: Vec::new(),
        }
    }

    /// Takes the range for `id` and says how many earlier I/Os it must wait for (0: go on).
    /// An operation without a range (flush) holds nothing.
    #[inline]
    pub fn acquire(&mut self, id: IoId, disk: u16, op: Op, offset: u64, length: u64) -> u32 {
        let Some(held) = self.enter(id, disk, op, offset, length) else { return 0 };
        let blockers = if self.near { self.wait_for_overlapping(&held) } else { 0 };
        self.waiters[id as usize].blockers = blockers;
        self.hold(held);
        blockers
    }

    /// Takes the range without waiting for anybody and says whether it overlaps an earlier one.
    pub fn acquire_unordered(
        &mut self,
        id: IoId,
        disk: u16,
        op: Op,
        offset: u64,
        length: u64,
    ) -> bool {
        let Some(held) = self.enter(id, disk, op, offset, length) else { return false };
        let conflict = self.near && self.held.iter().any(|earlier| earlier.excludes(&held));
        self.hold(held);
        conflict
    }

    /// Gives the range back and returns the I/Os that may start now, oldest first.
    #[inline]
    pub fn release(&mut self, id: IoId) -> &[IoId] {
        self.released.clear();
        let place = self.place[id as usize];
        if place == u32::MAX {
            return &self.released;
        }
        self.place[id as usize] = u32::MAX;
        let held = self.held.swap_remove(place as usize);
        if let Some(moved) = self.held.get(place as usize) {
            self.place[moved.id as usize] = place;
        }
        self.uncount(&held);
        if !self.waiters[id as usize].dependents.is_empty() {
            let mut dependents = std::mem::take(&mut self.waiters[id as usize].dependents);
            for dependent in dependents.drain(..) {
                let waiter = &mut self.waiters[dependent as usize];
                waiter.blockers -= 1;
                if waiter.blockers == 0 {
                    self.released.push(dependent);
                }
            }
            self.waiters[id as usize].dependents = dependents;
        }
        &self.released
    }

    /// Enters the range into the table and notes whether something may be near.
    #[inline]
    fn enter(&mut self, id: IoId, disk: u16, op: Op, offset: u64, length: u64) -> Option<Held> {
        if length == 0 {
            return None;
        }
        let from = offset & !(self.align - 1);
        let to = (offset + length).next_multiple_of(self.align);
        let held = Held { id, disk, modifies: op.modifies(), from, to };
        let (first, last) = granules(&held);
        if last - first >= SPAN_MAX {
            self.wide += 1;
            self.near = !self.held.is_empty();
            return Some(held);
        }
        self.near = self.wide > 0;
        for granule in first..=last {
            let count = &mut self.counts[bucket(disk, granule)];
            self.near |= *count > 0;
            *count += 1;
        }
        Some(held)
    }

    #[inline]
    fn hold(&mut self, held: Held) {
        self.place[held.id as usize] = self.held.len() as u32;
        self.held.push(held);
    }

    #[inline]
    fn uncount(&mut self, held: &Held) {
        let (first, last) = granules(held);
        if last - first >= SPAN_MAX {
            self.wide -= 1;
            return;
        }
        for granule in first..=last {
            self.counts[bucket(held.disk, granule)] -= 1;
        }
    }

    fn wait_for_overlapping(&mut self, new: &Held) -> u32 {
        let mut blockers = 0;
        for earlier in &self.held {
            if earlier.excludes(new) {
                self.waiters[earlier.id as usize].dependents.push(new.id);
                blockers += 1;
            }
        }
        blockers
    }
}

#[inline]
fn granules(held: &Held) -> (u64, u64) {
    (held.from >> GRANULE_SHIFT, (held.to - 1) >> GRANULE_SHIFT)
}

#[inline]
fn bucket(disk: u16, granule: u64) -> usize {
    // Fibonacci hashing (Knuth, TAOCP vol. 3, 6.4): neighbours land apart.
    let key = granule ^ (u64::from(disk) << 48);
    (key.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> (64 - TABLE.trailing_zeros())) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn readers_share_and_a_writer_waits_for_each_of_them() {
        let mut lock = RangeLock::new(8, 512);
        assert_eq!(lock.acquire(0, 0, Op::Read, 0, 4096), 0);
        assert_eq!(lock.acquire(1, 0, Op::Read, 512, 512), 0);
        assert_eq!(lock.acquire(2, 0, Op::Write, 0, 1024), 2);
        assert_eq!(lock.acquire(3, 0, Op::Read, 0, 512), 1, "never past the waiting writer");
        assert_eq!(lock.acquire(4, 1, Op::Write, 0, 1024), 0, "another disk");
        assert!(lock.release(1).is_empty());
        assert_eq!(lock.release(0), [2]);
        assert_eq!(lock.release(2), [3]);
    }

    proptest! {
        /// Against the plain rule: an I/O starts when no earlier overlapping one is left.
        #[test]
        fn the_order_is_that_of_a_plain_search(
            plan in proptest::collection::vec((0u64..64, 1u64..400, 0u8..5, any::<bool>()), 1..60)
        ) {
            let mut lock = RangeLock::new(64, 512);
            let mut live: Vec<(IoId, Op, u64, u64, bool)> = Vec::new();
            for (i, (at, len, op, finish)) in plan.into_iter().enumerate() {
                let (op, from, len) = (Op::from_code(op), at * 32768, len * 512);
                let id = i as IoId;
                let expected = live.iter().filter(|e| {
                    op != Op::Flush && e.1 != Op::Flush
                        && (e.1.modifies() || op.modifies()) && e.2 < from + len && from < e.3
                }).count() as u32;
                let length = if op == Op::Flush { 0 } else { len };
                let blockers = lock.acquire(id, 0, op, from, length);
                prop_assert_eq!(blockers, expected);
                live.push((id, op, from, from + len, blockers == 0));
                if finish {
                    let at = live.iter().position(|e| e.4).expect("the oldest always runs");
                    let done = live.remove(at);
                    for freed in lock.release(done.0) {
                        let entry = live.iter_mut().find(|e| e.0 == *freed).expect("live");
                        prop_assert!(!entry.4);
                        entry.4 = true;
                    }
                }
            }
        }
    }
}
