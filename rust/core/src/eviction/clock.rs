//! `clock`: first in, first out, but a block that was asked for gets another turn.

use super::queue::{self, ALL, Blocks, Rule};
use super::{Eviction, Index, Kind, Slot};

const PAGE: &str = "\
# clock

Blocks stand in the order in which they came. Each has one bit, set by a hit. Who is to leave and
has the bit set loses it and goes to the end of the line instead (second chance).

## Parameters
None: one bit, clear when a block comes.

## Suitable for
Whatever lru suits, at the price of fifo: a hit sets a bit and moves nothing.

## Unsuitable for
Scans and loops larger than the cache, as lru. An eviction may have to look at many blocks.

## Counts
Those of libCacheSim's Clock with one bit, to the single miss.

## Source
F. J. Corbató, 'A paging experiment with the Multics system', MIT Project MAC, 1968.
";

pub const KIND: Kind = Kind { name: "clock", page: PAGE, build };

fn build(capacity: usize, index: Index, _seed: u64) -> Box<dyn Eviction> {
    queue::boxed(capacity, index, Clock)
}

/// A block's tag is its bit.
struct Clock;

const ASKED_FOR: u32 = 1;

impl Rule for Clock {
    #[inline]
    fn hit<N: Copy + Default>(&mut self, blocks: &mut Blocks<N>, slot: Slot) {
        blocks.set_tag(slot, ASKED_FOR);
    }

    #[inline]
    fn victim<N: Copy + Default>(&mut self, blocks: &mut Blocks<N>) -> Slot {
        loop {
            let slot = blocks.oldest(ALL).expect("a full cache has an oldest block");
            if blocks.tag(slot) != ASKED_FOR {
                return slot;
            }
            blocks.set_tag(slot, 0);
            blocks.renew(ALL, slot);
        }
    }
}
