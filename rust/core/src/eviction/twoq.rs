//! `2q`: a queue for what came once, a list for what came back.

use super::segments::{self, Rule, Store};
use super::{BlockIndex, Eviction, Index, Kind, Slot};

const PAGE: &str = "\
# 2q

A new block enters a first-in-first-out queue, where hits change nothing. The numbers of the blocks
that leave it are remembered for a while; a block that is asked for during that time enters a list
ordered as in lru. So a block must be asked for twice, some time apart, before it can displace
what is in use.

## Parameters
Fixed, as the authors advise: the queue (Kin) is a quarter of the cache, and numbers are
remembered (Kout) for half as many blocks as the cache holds. Both are rounded down.

## Suitable for
Block caches: scans pass through the queue and leave the list alone.

## Unsuitable for
Workloads whose reuse is recent and short: the list has but three quarters of the space, and a
block must leave the queue before it can enter the list. Tiny caches, where Kin rounds to nothing.

## Counts
Those of libCacheSim's TwoQ (Kin 25 %, Kout 50 %), to the single miss.

## Source
T. Johnson, D. Shasha, '2Q: a low overhead high performance buffer management replacement
algorithm', VLDB '94 (the full version). <https://www.vldb.org/conf/1994/P439.PDF>
";

pub const KIND: Kind = Kind { name: "2q", page: PAGE, build };

fn build(capacity: usize, index: Index, _seed: u64) -> Box<dyn Eviction> {
    segments::boxed(capacity, index, TwoQ { queue: capacity / 4, remembered: capacity / 2 })
}

const CAME: usize = 0;
const CAME_BACK: usize = 1;

struct TwoQ {
    /// Kin.
    queue: usize,
    /// Kout.
    remembered: usize,
}

impl Rule<2, 1> for TwoQ {
    fn ghosts(&self) -> usize {
        self.remembered
    }

    #[inline]
    fn hit<I: BlockIndex>(&mut self, store: &mut Store<I, 2, 1>, slot: Slot) {
        if store.list_of(slot) == CAME_BACK {
            store.blocks.renew(CAME_BACK, slot);
        }
    }

    #[inline]
    fn list_for<I: BlockIndex>(&self, _store: &Store<I, 2, 1>, was_ghost: bool) -> usize {
        if was_ghost { CAME_BACK } else { CAME }
    }

    #[inline]
    fn evict<I: BlockIndex>(&mut self, store: &mut Store<I, 2, 1>) -> Slot {
        let from_queue = store.blocks.len(CAME) > self.queue || store.blocks.len(CAME_BACK) == 0;
        let slot = if from_queue { store.evict_to_ghosts(CAME, 0) } else { store.evict(CAME_BACK) };
        slot.expect("a full cache has a block in one of its lists")
    }
}
