//! `lru-k`: the block whose last request but one lies furthest back leaves.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::ghosts::node_of;
use super::segments::{self, Rule, Store};
use super::{BlockIndex, Eviction, Index, Kind, Slot};

const PAGE: &str = "\
# lru-k

LRU-2: evicts the block whose last request but one lies furthest back. Blocks of which only one
request is known leave before all others, the least recent first. The last request of a block that
left is remembered for a while, so that one that comes back at once has two.

## Parameters
Fixed: K is 2; as many blocks are remembered as the cache holds, the longest gone are forgotten;
there is no correlated reference period, so two requests in a row count as two.

## Suitable for
Databases: index pages, asked for again and again, stay; pages of a scan, asked for once, go.

## Unsuitable for
Recency: a block asked for twice long ago and once just now counts as old. Each request costs time
logarithmic in the size of the cache.

## Counts
No counterpart with the same memory of what left: libCacheSim's LRU-K keeps none. On 10 M Zipf
requests (skew 1, a tenth of the blocks cached) it misses 21.2 %; lru misses 24.6 %, lfu 20.8 %.

## Source
E. J. O'Neil, P. E. O'Neil, G. Weikum, 'The LRU-K page replacement algorithm for database disk
buffering', SIGMOD '93. <https://dl.acm.org/doi/10.1145/170035.170081>
";

pub const KIND: Kind = Kind { name: "lru-k", page: PAGE, build };

fn build(capacity: usize, index: Index, _seed: u64) -> Box<dyn Eviction> {
    segments::boxed(capacity, index, LruK { capacity, ..LruK::default() })
}

/// Blocks of which one request is known, the least recent oldest.
const ONE: usize = 0;
/// Blocks of which two are, in any order.
const TWO: usize = 1;

#[derive(Clone, Copy, Default)]
struct Known {
    last: u64,
    /// 0 when there was none.
    last_but_one: u64,
}

#[derive(Default)]
struct LruK {
    capacity: usize,
    /// Requests so far.
    now: u64,
    /// By slot.
    known: Vec<Known>,
    /// By ghost: its last request.
    remembered: Vec<u64>,
    /// Last request but one, and slot; out of date where the block has another by now.
    order: BinaryHeap<Reverse<(u64, Slot)>>,
    /// Of the block that comes: its last request.
    before: u64,
}

impl LruK {
    fn enter_order(&mut self, slot: Slot) {
        if self.order.len() > 4 * self.capacity + 64 {
            let mut kept = std::mem::take(&mut self.order).into_vec();
            kept.retain(|Reverse((time, slot))| self.is_current(*time, *slot));
            self.order = kept.into();
        }
        self.order.push(Reverse((self.known[slot as usize].last_but_one, slot)));
    }

    /// No two requests have the same time, so a slot's next block cannot be taken for the last.
    fn is_current(&self, time: u64, slot: Slot) -> bool {
        self.known[slot as usize].last_but_one == time
    }
}

impl Rule<2, 1> for LruK {
    fn ghosts(&self) -> usize {
        self.capacity
    }

    fn requested<I: BlockIndex>(&mut self, _index: &I, _block: u64) {
        self.now += 1;
    }

    fn hit<I: BlockIndex>(&mut self, store: &mut Store<I, 2, 1>, slot: Slot) {
        let known = &mut self.known[slot as usize];
        *known = Known { last: self.now, last_but_one: known.last };
        if store.list_of(slot) == ONE {
            store.shift(slot, TWO);
        }
        self.enter_order(slot);
    }

    fn comes<I: BlockIndex>(&mut self, _store: &mut Store<I, 2, 1>, ghost: Option<u32>) {
        self.before = ghost.map_or(0, |entry| self.remembered[node_of(entry) as usize]);
    }

    fn evict<I: BlockIndex>(&mut self, store: &mut Store<I, 2, 1>) -> Slot {
        let slot = store.blocks.oldest(ONE).unwrap_or_else(|| {
            loop {
                let Reverse((time, slot)) = self.order.pop().expect("every block of TWO is in it");
                if self.is_current(time, slot) {
                    return slot;
                }
            }
        });
        store.evict_slot(slot);
        let node = store.ghosts.add(&mut store.index, 0, store.blocks.block(slot));
        let node = node.expect("there is room for as many as the cache holds") as usize;
        if node >= self.remembered.len() {
            self.remembered.resize(node + 1, 0);
        }
        self.remembered[node] = self.known[slot as usize].last;
        slot
    }

    fn list_for<I: BlockIndex>(&self, _store: &Store<I, 2, 1>, was_ghost: bool) -> usize {
        if was_ghost { TWO } else { ONE }
    }

    fn placed<I: BlockIndex>(&mut self, _store: &mut Store<I, 2, 1>, slot: Slot) {
        if slot as usize >= self.known.len() {
            self.known.resize(slot as usize + 1, Known::default());
        }
        self.known[slot as usize] = Known { last: self.now, last_but_one: self.before };
        if self.before > 0 {
            self.enter_order(slot);
        }
    }

    fn clear(&mut self) {
        *self = Self { capacity: self.capacity, ..Self::default() };
    }
}
