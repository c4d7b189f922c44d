//! LRU's hits at every size, exactly, from one pass: the stack of Mattson et al. (1970).
//!
//! A cache of `C` blocks hits a request just when the block lies among the first `C` of the stack.
//! A discarded block leaves a hole, which takes up room as the free slot does that the discard
//! left in the caches that had the block. A request for a block below the topmost hole fills it:
//! the caches between had a slot free and evict nobody; the hole moves to where the block was, for
//! larger caches still have theirs.

use std::collections::BTreeSet;

use super::requests::{After, Chunk};
use super::work::Consumer;
use crate::recency::Order;

const NOWHERE: u32 = u32::MAX;

/// The stack over blocks numbered without gaps.
#[derive(Default)]
pub struct Stack {
    order: Order,
    /// By block: its place in `order`.
    places: Vec<u32>,
    holes: BTreeSet<u32>,
}

impl Stack {
    /// A request; how many entries lie above the block, or `None` where it is not in the stack.
    #[inline]
    pub fn request(&mut self, block: u32) -> Option<u32> {
        if self.order.is_full() {
            self.renumber();
        }
        if block as usize >= self.places.len() {
            self.places.resize((block as usize + 1).max(2 * self.places.len()), NOWHERE);
        }
        let place = self.places[block as usize];
        let depth = (place != NOWHERE).then(|| self.order.remove(place));
        if !self.holes.is_empty() {
            self.fill_hole(place);
        }
        self.places[block as usize] = self.order.push();
        depth
    }

    #[cold]
    fn fill_hole(&mut self, place: u32) {
        let Some(&topmost) = self.holes.last() else { return };
        if place != NOWHERE && topmost < place {
            return;
        }
        self.order.remove(topmost);
        self.holes.remove(&topmost);
        if place != NOWHERE {
            self.order.put_back(place);
            self.holes.insert(place);
        }
    }

    /// The block is invalid.
    pub fn discard(&mut self, block: u32) {
        let place = self.take_place(block);
        if place != NOWHERE {
            self.holes.insert(place);
        }
    }

    /// The block is tracked no more.
    pub fn forget(&mut self, block: u32) {
        let place = self.take_place(block);
        if place != NOWHERE {
            self.order.remove(place);
        }
    }

    fn take_place(&mut self, block: u32) -> u32 {
        self.places.get_mut(block as usize).map_or(NOWHERE, |at| std::mem::replace(at, NOWHERE))
    }

    #[inline]
    pub fn prefetch(&self, block: u32) {
        crate::eviction::prefetch(&self.places, block as usize);
    }

    #[cold]
    fn renumber(&mut self) {
        let ranks = self.order.ranks();
        for place in self.places.iter_mut().filter(|place| **place != NOWHERE) {
            *place = ranks.of(*place);
        }
        self.holes = self.holes.iter().map(|place| ranks.of(*place)).collect();
        self.order.restart();
    }
}

/// The counted requests of a stream by their depth in the stack.
#[derive(Default)]
pub struct Curve {
    stream: usize,
    stack: Stack,
    /// By depth: all requests, and reads.
    depths: Vec<[u32; 2]>,
}

/// How many requests ahead a block's place is asked for.
const AHEAD: usize = 16;

impl Curve {
    #[must_use]
    pub fn new(stream: usize) -> Self {
        Self { stream, ..Self::default() }
    }

    /// Hits of all requests and of reads, for caches of these numbers of blocks, in order.
    #[must_use]
    pub fn hits(&self, capacities: &[u64]) -> Vec<[u64; 2]> {
        let mut found = Vec::with_capacity(capacities.len());
        let (mut depth, mut hits) = (0, [0, 0]);
        for &capacity in capacities {
            let end = self.depths.len().min(capacity as usize);
            for [all, reads] in &self.depths[depth..end.max(depth)] {
                hits[0] += u64::from(*all);
                hits[1] += u64::from(*reads);
            }
            depth = end.max(depth);
            found.push(hits);
        }
        found
    }
}

impl Consumer for Curve {
    fn take(&mut self, chunk: &Chunk) {
        if chunk.stream != self.stream {
            return;
        }
        for segment in &chunk.segments {
            let requests = &chunk.requests[segment.requests.clone()];
            for (i, request) in requests.iter().enumerate() {
                if let Some(ahead) = requests.get(i + AHEAD) {
                    self.stack.prefetch(ahead.block() as u32);
                }
                let Some(depth) = self.stack.request(request.block() as u32) else { continue };
                if segment.is_counted {
                    if depth as usize >= self.depths.len() {
                        self.depths.resize((depth as usize + 1).next_power_of_two(), [0; 2]);
                    }
                    let counts = &mut self.depths[depth as usize];
                    counts[0] += 1;
                    counts[1] += u32::from(!request.is_write());
                }
            }
            if let After::Discard(range) = &segment.after {
                chunk.discards[range.clone()].iter().for_each(|id| self.stack.discard(*id));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::eviction::{self, Access, Index};

    proptest! {
        /// Against a cache of every size, discards included.
        #[test]
        fn the_stack_knows_every_size(
            actions in proptest::collection::vec((0_u32..40, 0_u8..8), 1..700),
        ) {
            let lru = eviction::find("lru").expect("it is listed");
            let build = |capacity| (lru.build)(capacity, Index::dense(40), 0);
            let mut caches: Vec<_> = (1..45).map(build).collect();
            let mut stack = Stack::default();
            for (block, action) in actions {
                if action == 0 {
                    for cache in &mut caches {
                        cache.remove(u64::from(block));
                    }
                    stack.discard(block);
                    continue;
                }
                let depth = stack.request(block);
                for (capacity, cache) in (1..).zip(&mut caches) {
                    let hit = matches!(cache.access(u64::from(block)), Access::Hit(_));
                    prop_assert_eq!(hit, depth.is_some_and(|depth| depth < capacity));
                }
            }
        }
    }
}
