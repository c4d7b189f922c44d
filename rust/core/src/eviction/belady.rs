//! `belady`: the block that is asked for again the latest leaves. It knows the future.

use std::collections::BinaryHeap;

/// The page; the policy is no [`super::Kind`], because no cache can run it.
pub const PAGE: &str = "\
# belady

Evicts the block whose next request lies furthest ahead, or that is never asked for again (MIN).
No policy that must take in every block it misses can hit more, so it shows what is left to gain.

## Parameters
None. It reads the whole trace before it begins: it can be simulated, not run.

## Suitable for
A bound to judge the other policies by.

## Unsuitable for
A real cache. With write-around it is no bound: it counts writes that insert nothing as uses. The
same holds for its curve near sizes of a few blocks when blocks are discarded.

## Counts
Those of libCacheSim's Belady, to the single miss.

## Source
L. A. Belady, 'A study of replacement algorithms for a virtual-storage computer', IBM Systems
Journal 5 (2), 1966; R. L. Mattson et al., ibid. 9 (2), 1970 (OPT).
";

/// The block is not asked for again (or only after a discard).
pub const NEVER: u32 = u32::MAX;

/// Over block numbers without gaps; each request says when its block comes next.
pub struct Belady {
    capacity: usize,
    /// By block: position of its next request if it is resident, 0 if not. A next request is
    /// never the first of all, so 0 is free.
    next_of: Vec<u32>,
    /// (next request, block); those in the past are of blocks asked for since.
    order: BinaryHeap<(u32, u32)>,
    len: usize,
}

impl Belady {
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        Self { capacity, next_of: Vec::new(), order: BinaryHeap::new(), len: 0 }
    }

    /// A request at position `now`; the block's next one is at `next`. Whether it is a hit, and
    /// who left for it.
    pub fn access(&mut self, block: u32, now: u32, next: u32) -> (bool, Option<u32>) {
        if block as usize >= self.next_of.len() {
            self.next_of.resize((block as usize + 1).next_power_of_two(), 0);
        }
        let is_hit = self.next_of[block as usize] != 0;
        let evicted = if !is_hit && self.len == self.capacity { self.evict() } else { None };
        self.len += usize::from(!is_hit);
        self.len -= usize::from(evicted.is_some());
        self.next_of[block as usize] = next;
        if self.order.len() > 2 * self.capacity + 64 {
            let mut kept = std::mem::take(&mut self.order).into_vec();
            kept.retain(|(next, block)| *next > now && self.next_of[*block as usize] == *next);
            self.order = kept.into();
        }
        self.order.push((next, block));
        (is_hit, evicted)
    }

    fn evict(&mut self) -> Option<u32> {
        while let Some((next, block)) = self.order.pop() {
            // Else it was discarded, and perhaps came back.
            if self.next_of[block as usize] == next {
                self.next_of[block as usize] = 0;
                return Some(block);
            }
        }
        None
    }

    /// Forgets a block (a discard).
    pub fn remove(&mut self, block: u32) -> bool {
        let was_here = self.is_resident(block);
        if was_here {
            self.next_of[block as usize] = 0;
        }
        self.len -= usize::from(was_here);
        was_here
    }

    /// Blocks resident now.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    #[must_use]
    pub fn is_resident(&self, block: u32) -> bool {
        self.next_of.get(block as usize).is_some_and(|next| *next != 0)
    }
}
