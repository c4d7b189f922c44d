//! `fifo`: the block that came first leaves.

use super::queue::{self, ALL, Blocks, Rule};
use super::{Eviction, Index, Kind, Slot};

const PAGE: &str = "\
# fifo

Evicts the block that came into the cache first, however often it was asked for since. A hit
changes nothing.

## Parameters
None.

## Suitable for
A baseline, and caches where a hit must cost nothing: no order is kept up, nothing is written.

## Unsuitable for
Workloads with a hot set: what is used all the time leaves as soon as what was used once. A larger
cache may even hit less (Belady's anomaly), so its curve must be simulated size by size.

## Counts
Those of libCacheSim's FIFO, to the single miss.

## Source
L. A. Belady, 'A study of replacement algorithms for a virtual-storage computer', IBM Systems
Journal 5 (2), 1966.
";

pub const KIND: Kind = Kind { name: "fifo", page: PAGE, build };

fn build(capacity: usize, index: Index, _seed: u64) -> Box<dyn Eviction> {
    queue::boxed(capacity, index, Fifo)
}

struct Fifo;

impl Rule for Fifo {
    #[inline]
    fn hit<N: Copy + Default>(&mut self, _blocks: &mut Blocks<N>, _slot: Slot) {}

    #[inline]
    fn victim<N: Copy + Default>(&mut self, blocks: &mut Blocks<N>) -> Slot {
        blocks.oldest(ALL).expect("a full cache has an oldest block")
    }
}
