//! `slru`: lists in ranks; each hit raises a block by one.

use super::segments::{self, Rule, Store};
use super::{BlockIndex, Eviction, Index, Kind, Slot};

const PAGE: &str = "\
# slru

Segmented LRU: four lists of equal size, each ordered as in lru. A block comes into the lowest; a
hit moves it to the front of the next higher one, whose last block goes down by one when it has
too many. The last block of the lowest list leaves. So a block needs hits to rise, and falls in
steps.

## Parameters
Fixed, as in libCacheSim: four segments of a quarter of the cache each, rounded down. Until the
cache is full, blocks come into the lowest segment that has room.

## Suitable for
Skewed popularity with scans in between: what was asked for once only passes through a quarter.

## Unsuitable for
Hot sets that change: what has risen takes long to fall, and holds three quarters of the space.
Caches of fewer than some dozen blocks.

## Counts
Those of libCacheSim's SLRU (four segments), to the single miss, where the size is a multiple of
four blocks; else the rounded-down segments may differ by a block.

## Source
R. Karedla, J. S. Love, B. G. Wherry, 'Caching strategies to improve disk system performance', IEEE
Computer 27 (3), 1994, with two segments; four are S4LRU: Q. Huang et al., 'An analysis of Facebook
photo caching', SOSP '13.
";

pub const KIND: Kind = Kind { name: "slru", page: PAGE, build };

const RANKS: usize = 4;

fn build(capacity: usize, index: Index, _seed: u64) -> Box<dyn Eviction> {
    segments::boxed(capacity, index, Slru { each: capacity / RANKS })
}

struct Slru {
    /// Blocks in a rank.
    each: usize,
}

impl Rule<RANKS, 1> for Slru {
    #[inline]
    fn hit<I: BlockIndex>(&mut self, store: &mut Store<I, RANKS, 1>, slot: Slot) {
        let rank = store.list_of(slot);
        if rank == RANKS - 1 {
            store.blocks.renew(rank, slot);
            return;
        }
        store.shift(slot, rank + 1);
        for rank in (1..=rank + 1).rev() {
            if store.blocks.len(rank) <= self.each {
                break;
            }
            let last = store.blocks.oldest(rank).expect("a rank with too many blocks has one");
            store.shift(last, rank - 1);
        }
    }

    #[inline]
    fn evict<I: BlockIndex>(&mut self, store: &mut Store<I, RANKS, 1>) -> Slot {
        (0..RANKS).find_map(|rank| store.evict(rank)).expect("a full cache has a block")
    }

    #[inline]
    fn list_for<I: BlockIndex>(&self, store: &Store<I, RANKS, 1>, _was_ghost: bool) -> usize {
        (0..RANKS).find(|rank| store.blocks.len(*rank) < self.each).unwrap_or(0)
    }
}
