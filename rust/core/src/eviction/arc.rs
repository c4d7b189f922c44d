//! `arc`: two lists, and ghosts of both that shift the border between them.

use super::segments::{self, Rule, Store};
use super::{BlockIndex, Eviction, Index, Kind, Slot};

const PAGE: &str = "\
# arc

Keeps blocks that came once (T1) and blocks that came back (T2) in a list each, ordered as in lru,
and remembers what left them (B1, B2). A request for a block of B1 says that T1 should have been
larger, one of B2 that T2 should: the target `p` for T1 moves, by the ratio of the ghosts' numbers.
At most as many are remembered as the cache holds, T1 and B1 together likewise.

## Parameters
None; `p` begins at 0 and is a real number, as the paper has it.

## Suitable for
Block caches whose mix of recency and frequency changes: it adapts by itself, and a scan passes
through T1.

## Unsuitable for
Loops somewhat larger than the cache. Each hit moves a block in a list, so it costs what lru costs.

## Counts
Those of libCacheSim's ARC, to the single miss.

## Source
N. Megiddo, D. S. Modha, 'ARC: a self-tuning, low overhead replacement cache', FAST '03.
<https://www.usenix.org/conference/fast-03/arc-self-tuning-low-overhead-replacement-cache>
";

pub const KIND: Kind = Kind { name: "arc", page: PAGE, build };

fn build(capacity: usize, index: Index, _seed: u64) -> Box<dyn Eviction> {
    segments::boxed(capacity, index, Arc { capacity, target: 0.0, came_from_b2: false })
}

/// The lists T1 and T2; their ghosts B1 and B2 have the same numbers.
const ONCE: usize = 0;
const AGAIN: usize = 1;

struct Arc {
    capacity: usize,
    /// The paper's p: how many blocks T1 should have.
    target: f64,
    /// Of the block that comes.
    came_from_b2: bool,
}

impl Arc {
    /// For a block that is not remembered either: keeps the directory within its bounds. A block
    /// that leaves T1 when T1 is all the cache is not remembered: B1 is full with none.
    fn trim<I: BlockIndex>(&self, store: &mut Store<I, 2, 2>) {
        let once = store.blocks.len(ONCE) + store.ghosts.len(ONCE);
        let again = store.blocks.len(AGAIN) + store.ghosts.len(AGAIN);
        if once >= self.capacity {
            store.ghosts.forget_oldest(&mut store.index, ONCE);
        } else if once + again >= 2 * self.capacity {
            store.ghosts.forget_oldest(&mut store.index, AGAIN);
        }
    }
}

impl Rule<2, 2> for Arc {
    fn ghosts(&self) -> usize {
        self.capacity
    }

    #[inline]
    fn hit<I: BlockIndex>(&mut self, store: &mut Store<I, 2, 2>, slot: Slot) {
        if store.list_of(slot) == AGAIN {
            store.blocks.renew(AGAIN, slot);
        } else {
            store.shift(slot, AGAIN);
        }
    }

    #[inline]
    fn comes<I: BlockIndex>(&mut self, store: &mut Store<I, 2, 2>, ghost: Option<u32>) {
        let (once, again) = (store.ghosts.len(ONCE) as f64, store.ghosts.len(AGAIN) as f64);
        let list = ghost.map(|entry| store.ghosts.list_of(entry));
        self.came_from_b2 = list == Some(AGAIN);
        match list {
            Some(ONCE) => {
                self.target = (self.target + (again / once).max(1.0)).min(self.capacity as f64);
            }
            Some(_) => self.target = (self.target - (once / again).max(1.0)).max(0.0),
            None => self.trim(store),
        }
    }

    #[inline]
    fn list_for<I: BlockIndex>(&self, _store: &Store<I, 2, 2>, was_ghost: bool) -> usize {
        if was_ghost { AGAIN } else { ONCE }
    }

    #[inline]
    fn evict<I: BlockIndex>(&mut self, store: &mut Store<I, 2, 2>) -> Slot {
        let once = store.blocks.len(ONCE);
        if once == self.capacity {
            // Remembered only if the block that comes leaves room for it in B1: it came from B2.
            let slot = if self.came_from_b2 {
                store.evict_to_ghosts(ONCE, ONCE)
            } else {
                store.evict(ONCE)
            };
            return slot.expect("T1 has all of the cache");
        }
        let over = once as f64 > self.target || (self.came_from_b2 && once as f64 == self.target);
        let list = if once > 0 && (over || store.blocks.len(AGAIN) == 0) { ONCE } else { AGAIN };
        store.evict_to_ghosts(list, list).expect("a full cache has a block in one of its lists")
    }

    fn clear(&mut self) {
        (self.target, self.came_from_b2) = (0.0, false);
    }
}
