//! `sieve`: a hand walks from old to new and takes the first block not asked for.

use super::queue::{self, ALL, Blocks, Rule};
use super::{Eviction, Index, Kind, Slot};

const PAGE: &str = "\
# sieve

Blocks stand in the order in which they came and never move. A hit sets a block's bit. To evict, a
hand walks from the oldest towards the newest, clears the bits that it finds set and takes the
first block without; there it stays until the next eviction, and after the newest it begins anew at
the oldest. New blocks meet the hand late, so what is asked for only once leaves quickly.

## Parameters
None.

## Suitable for
Skewed popularity with many blocks that are asked for once: close to the best online policies
there, with one bit a block and nothing moved on a hit.

## Unsuitable for
Scans over what was used before, and working sets that drift: the hand takes a long time to come
back to blocks whose bit is set. Its authors do not recommend it for block caches without
resistance to scans.

## Counts
Those of libCacheSim's Sieve, to the single miss.

## Source
Y. Zhang, J. Yang, Y. Yue, Y. Vigfusson, K. V. Rashmi, 'SIEVE is simpler than LRU: an efficient
turn-key eviction algorithm for web caches', NSDI '24.
<https://www.usenix.org/conference/nsdi24/presentation/zhang-yazhuo>
";

pub const KIND: Kind = Kind { name: "sieve", page: PAGE, build };

fn build(capacity: usize, index: Index, _seed: u64) -> Box<dyn Eviction> {
    queue::boxed(capacity, index, Sieve { hand: None })
}

/// A block's tag is its bit.
struct Sieve {
    /// Where the next eviction begins to look; none: at the oldest.
    hand: Option<Slot>,
}

const ASKED_FOR: u32 = 1;

impl Rule for Sieve {
    #[inline]
    fn hit<N: Copy + Default>(&mut self, blocks: &mut Blocks<N>, slot: Slot) {
        blocks.set_tag(slot, ASKED_FOR);
    }

    #[inline]
    fn victim<N: Copy + Default>(&mut self, blocks: &mut Blocks<N>) -> Slot {
        loop {
            let oldest = || blocks.oldest(ALL).expect("a full cache has an oldest block");
            let slot = self.hand.unwrap_or_else(oldest);
            if blocks.tag(slot) != ASKED_FOR {
                self.hand = Some(slot);
                return slot;
            }
            blocks.set_tag(slot, 0);
            self.hand = blocks.newer(slot);
        }
    }

    #[inline]
    fn leaves<N: Copy + Default>(&mut self, blocks: &Blocks<N>, slot: Slot) {
        if self.hand == Some(slot) {
            self.hand = blocks.newer(slot);
        }
    }

    fn clear(&mut self) {
        self.hand = None;
    }
}
