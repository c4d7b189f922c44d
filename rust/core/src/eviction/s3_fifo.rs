//! `s3-fifo`: three queues: a small one that most blocks never leave, a main one, and ghosts.

use super::segments::{self, Rule, Store};
use super::{BlockIndex, Eviction, Index, Kind, Slot};

const PAGE: &str = "\
# s3-fifo

A new block enters a small queue. What leaves it goes on into the main queue if it was asked for
at least twice meanwhile, else it leaves the cache and its number is remembered; a block that comes
while it is remembered enters the main queue directly. In the main queue a block that was asked
for gets another turn, up to three. Hits move nothing: they count up to three.

## Parameters
Fixed, as in libCacheSim: the small queue is a tenth of the cache (rounded down), nine tenths of
the cache's number of blocks are remembered, and two requests in the small queue are enough. Until
the first eviction, new blocks go straight to the main queue once the small one is full.

## Suitable for
Skewed popularity with many blocks asked for once, as in web and key-value caches: quick demotion
of these, with little work on a hit.

## Unsuitable for
Blocks asked for twice, some way apart, and then never again: the second request comes when the
small queue has let them go. Block traces with loops. Caches of a few dozen blocks, whose small
queue is but a handful.

## Counts
Those of libCacheSim's S3FIFO (with its rule for the warm-up), to the single miss.

## Source
J. Yang, Y. Zhang, Z. Qiu, Y. Yue, K. V. Rashmi, 'FIFO queues are all you need for cache
eviction', SOSP '23. <https://dl.acm.org/doi/10.1145/3600006.3613147>
";

pub const KIND: Kind = Kind { name: "s3-fifo", page: PAGE, build };

fn build(capacity: usize, index: Index, _seed: u64) -> Box<dyn Eviction> {
    let (small, remembered) = (capacity / 10, capacity * 9 / 10);
    let rule = S3Fifo { small, main: capacity - small, remembered, has_evicted: false };
    segments::boxed(capacity, index, rule)
}

const SMALL: usize = 0;
const MAIN: usize = 1;
/// Requests in the small queue that are enough for the main one.
const ENOUGH: u32 = 2;
/// Turns that a block in the main queue can have at most.
const TURNS: u32 = 3;

struct S3Fifo {
    small: usize,
    main: usize,
    remembered: usize,
    has_evicted: bool,
}

impl Rule<2, 1> for S3Fifo {
    fn ghosts(&self) -> usize {
        self.remembered
    }

    #[inline]
    fn hit<I: BlockIndex>(&mut self, store: &mut Store<I, 2, 1>, slot: Slot) {
        let asked_for = store.mark(slot);
        if asked_for < TURNS {
            store.set_mark(slot, asked_for + 1);
        }
    }

    #[inline]
    fn list_for<I: BlockIndex>(&self, store: &Store<I, 2, 1>, was_ghost: bool) -> usize {
        let warming_up = !self.has_evicted && store.blocks.len(SMALL) >= self.small;
        if was_ghost || warming_up { MAIN } else { SMALL }
    }

    #[inline]
    fn evict<I: BlockIndex>(&mut self, store: &mut Store<I, 2, 1>) -> Slot {
        self.has_evicted = true;
        loop {
            let from_main = store.blocks.len(MAIN) > self.main || store.blocks.len(SMALL) == 0;
            let found = if from_main { evict_main(store) } else { evict_small(store) };
            if let Some(slot) = found {
                return slot;
            }
        }
    }

    fn clear(&mut self) {
        self.has_evicted = false;
    }
}

/// Empties the small queue from its old end until a block leaves; none does when all go on.
#[inline]
fn evict_small<I: BlockIndex>(store: &mut Store<I, 2, 1>) -> Option<Slot> {
    while let Some(slot) = store.blocks.oldest(SMALL) {
        if store.mark(slot) < ENOUGH {
            return store.evict_to_ghosts(SMALL, 0);
        }
        store.shift(slot, MAIN);
    }
    None
}

/// Some block of the main queue leaves, for a turn is taken from those that stay.
#[inline]
fn evict_main<I: BlockIndex>(store: &mut Store<I, 2, 1>) -> Option<Slot> {
    while let Some(slot) = store.blocks.oldest(MAIN) {
        let turns = store.mark(slot);
        if turns == 0 {
            return store.evict(MAIN);
        }
        store.set_mark(slot, turns - 1);
        store.blocks.renew(MAIN, slot);
    }
    None
}
