//! `random`: any block leaves.

use super::queue::{self, Blocks, Rule};
use super::{Eviction, Index, Kind, Slot};

const PAGE: &str = "\
# random

Evicts a block drawn from all with equal chances.

## Parameters
The seed, which is the run's (`--seed`): the same seed evicts the same blocks.

## Suitable for
A baseline, and loops somewhat larger than the cache, where lru and fifo hit nothing.

## Unsuitable for
Everything with a hot set: what is used most is as likely to leave as anything else.

## Counts
Near those of libCacheSim's Random, which draws other numbers: on 10 M Zipf requests (skew 1, a
tenth of the blocks cached) both miss 27.9 % of them, and differ by less than 0.1 points.

## Source
L. A. Belady, 'A study of replacement algorithms for a virtual-storage computer', IBM Systems
Journal 5 (2), 1966. Numbers drawn by splitmix64 (G. L. Steele, D. Lea, C. H. Flood, OOPSLA '14).
";

pub const KIND: Kind = Kind { name: "random", page: PAGE, build };

fn build(capacity: usize, index: Index, seed: u64) -> Box<dyn Eviction> {
    queue::boxed(capacity, index, Random { capacity: capacity as u64, seed, state: seed })
}

struct Random {
    capacity: u64,
    seed: u64,
    state: u64,
}

impl Random {
    fn draw(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

impl Rule for Random {
    #[inline]
    fn hit<N: Copy + Default>(&mut self, _blocks: &mut Blocks<N>, _slot: Slot) {}

    #[inline]
    fn victim<N: Copy + Default>(&mut self, _blocks: &mut Blocks<N>) -> Slot {
        // A full cache has a block in every slot. The bias of so small a range is below 2^-32.
        ((u128::from(self.draw()) * u128::from(self.capacity)) >> 64) as Slot
    }

    fn clear(&mut self) {
        self.state = self.seed;
    }
}
