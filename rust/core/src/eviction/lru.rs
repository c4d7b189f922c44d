//! `lru`: the block that was not asked for the longest leaves.

use super::queue::{self, ALL, Blocks, Rule};
use super::{Eviction, Index, Kind, Slot};

const PAGE: &str = "\
# lru

Evicts the block whose last request lies furthest back (least recently used). A hit moves a block
to the front of a list; the tail of the list leaves.

## Parameters
None.

## Suitable for
Workloads whose reuse is recent. Its hit ratio never falls as the cache grows (it is a stack
algorithm), so one pass over a trace gives the whole miss-ratio curve.

## Unsuitable for
Scans and loops larger than the cache: each block is evicted just before it is asked for again,
and a single scan empties the cache of what is used often.

## Counts
Those of libCacheSim's LRU, to the single miss.

## Source
R. L. Mattson, J. Gecsei, D. R. Slutz, I. L. Traiger, 'Evaluation techniques for storage
hierarchies', IBM Systems Journal 9 (2), 1970.
";

pub const KIND: Kind = Kind { name: "lru", page: PAGE, build };

fn build(capacity: usize, index: Index, _seed: u64) -> Box<dyn Eviction> {
    queue::boxed(capacity, index, Lru)
}

struct Lru;

impl Rule for Lru {
    #[inline]
    fn hit<N: Copy + Default>(&mut self, blocks: &mut Blocks<N>, slot: Slot) {
        blocks.renew(ALL, slot);
    }

    #[inline]
    fn victim<N: Copy + Default>(&mut self, blocks: &mut Blocks<N>) -> Slot {
        blocks.oldest(ALL).expect("a full cache has an oldest block")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::Access;
    use super::*;

    proptest! {
        /// Against a list that is searched.
        #[test]
        fn evicts_the_least_recent(
            requests in proptest::collection::vec((0u64..50, 0u8..12), 1..800),
            capacity in 1usize..40,
        ) {
            let mut lru = build(capacity, Index::hashed(), 0);
            let mut model: Vec<u64> = Vec::new();
            for (block, action) in requests {
                let known = model.iter().position(|b| *b == block);
                if let Some(at) = known {
                    model.remove(at);
                }
                if action == 0 {
                    prop_assert_eq!(lru.remove(block).is_some(), known.is_some());
                    continue;
                }
                let full = model.len() == capacity;
                let expected = full.then(|| model.remove(0));
                model.push(block);
                match lru.access(block) {
                    Access::Hit(_) => prop_assert!(known.is_some()),
                    Access::Miss { evicted, .. } => {
                        prop_assert!(known.is_none());
                        prop_assert_eq!(evicted, expected);
                    }
                }
            }
        }
    }
}
