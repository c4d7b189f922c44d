//! `lfu`: the block with the fewest requests leaves.

use super::{Access, BlockIndex, Eviction, Index, Kind, Slot};
use crate::eviction::index::{NONE, prefetch};

const PAGE: &str = "\
# lfu

Counts the requests of each cached block and evicts the one with the fewest; among equals, the one
that has had this number for the longest (first in, first out). A block that leaves loses its
count.

## Parameters
None.

## Suitable for
Popularity that is skewed and does not change.

## Unsuitable for
Anything that changes: what was popular once stays for good, and new blocks, having one request,
push each other out.

## Counts
Those of libCacheSim's LFU (first in, first out among equals), to the single miss.

## Source
The counting of A. V. Aho, P. J. Denning, J. D. Ullman, 'Principles of optimal page replacement',
Journal of the ACM 18 (1), 1971; in constant time after K. Shah, A. Mitra, D. Matani, 'An O(1)
algorithm for implementing the LFU cache eviction scheme', 2010 (arXiv 2110.11602).
";

pub const KIND: Kind = Kind { name: "lfu", page: PAGE, build };

fn build(capacity: usize, index: Index, _seed: u64) -> Box<dyn Eviction> {
    match index {
        Index::Dense(index) => Box::new(Lfu::new(capacity, index)),
        Index::Hashed(index) => Box::new(Lfu::new(capacity, index)),
    }
}

#[derive(Clone, Copy)]
struct Node<N> {
    block: N,
    newer: u32,
    older: u32,
    group: u32,
}

/// The blocks with the same number of requests.
#[derive(Clone, Copy)]
struct Group {
    requests: u64,
    newest: u32,
    oldest: u32,
    /// Neighbours by number of requests.
    higher: u32,
    lower: u32,
}

struct Lfu<I: BlockIndex> {
    capacity: usize,
    index: I,
    nodes: Vec<Node<I::Number>>,
    free: Vec<Slot>,
    groups: Vec<Group>,
    free_groups: Vec<u32>,
    lowest: u32,
}

impl<I: BlockIndex> Lfu<I> {
    fn new(capacity: usize, index: I) -> Self {
        let (nodes, free) = (Vec::new(), Vec::new());
        let (groups, free_groups) = (Vec::new(), Vec::new());
        Self { capacity, index, nodes, free, groups, free_groups, lowest: NONE }
    }

    /// A new, empty group above `lower` (none: the lowest of all).
    fn add_group(&mut self, requests: u64, lower: u32) -> u32 {
        let higher = match self.groups.get(lower as usize) {
            Some(below) => below.higher,
            None => self.lowest,
        };
        let group = Group { requests, newest: NONE, oldest: NONE, higher, lower };
        let at = if let Some(at) = self.free_groups.pop() {
            self.groups[at as usize] = group;
            at
        } else {
            self.groups.push(group);
            self.groups.len() as u32 - 1
        };
        match self.groups.get_mut(lower as usize) {
            Some(below) => below.higher = at,
            None => self.lowest = at,
        }
        if let Some(above) = self.groups.get_mut(higher as usize) {
            above.lower = at;
        }
        at
    }

    fn drop_group(&mut self, at: u32) {
        let Group { higher, lower, .. } = self.groups[at as usize];
        match self.groups.get_mut(lower as usize) {
            Some(below) => below.higher = higher,
            None => self.lowest = higher,
        }
        if let Some(above) = self.groups.get_mut(higher as usize) {
            above.lower = lower;
        }
        self.free_groups.push(at);
    }

    fn push(&mut self, group: u32, slot: Slot) {
        let to = &mut self.groups[group as usize];
        let second = std::mem::replace(&mut to.newest, slot);
        if second == NONE {
            to.oldest = slot;
        } else {
            self.nodes[second as usize].newer = slot;
        }
        let node = &mut self.nodes[slot as usize];
        (node.newer, node.older, node.group) = (NONE, second, group);
    }

    /// Takes a block out of its group; an empty one goes.
    fn unlink(&mut self, slot: Slot) {
        let Node { newer, older, group, .. } = self.nodes[slot as usize];
        match self.nodes.get_mut(newer as usize) {
            Some(node) => node.older = older,
            None => self.groups[group as usize].newest = older,
        }
        match self.nodes.get_mut(older as usize) {
            Some(node) => node.newer = newer,
            None => self.groups[group as usize].oldest = newer,
        }
        if self.groups[group as usize].newest == NONE {
            self.drop_group(group);
        }
    }

    fn hit(&mut self, slot: Slot) {
        let at = self.nodes[slot as usize].group;
        let Group { requests, newest, oldest, higher, .. } = self.groups[at as usize];
        let above = self.groups.get(higher as usize).map(|group| group.requests);
        if above == Some(requests + 1) {
            self.unlink(slot);
            self.push(higher, slot);
        } else if newest == oldest {
            // Alone in its group: the group rises with it.
            self.groups[at as usize].requests += 1;
        } else {
            let group = self.add_group(requests + 1, at);
            self.unlink(slot);
            self.push(group, slot);
        }
    }

    /// A slot for a new block, and who had it.
    fn make_room(&mut self) -> (Slot, Option<u64>) {
        if let Some(slot) = self.free.pop() {
            return (slot, None);
        }
        if self.nodes.len() < self.capacity {
            let block = I::Number::default();
            self.nodes.push(Node { block, newer: NONE, older: NONE, group: NONE });
            return (self.nodes.len() as Slot - 1, None);
        }
        let slot = self.groups[self.lowest as usize].oldest;
        self.unlink(slot);
        let evicted = I::block(self.nodes[slot as usize].block);
        self.index.remove(evicted);
        (slot, Some(evicted))
    }
}

impl<I: BlockIndex> Eviction for Lfu<I> {
    fn access(&mut self, block: u64) -> Access {
        if let Some(slot) = self.index.get(block) {
            self.hit(slot);
            return Access::Hit(slot);
        }
        let (slot, evicted) = self.make_room();
        self.nodes[slot as usize].block = I::number(block);
        let lowest = self.groups.get(self.lowest as usize).map(|group| group.requests);
        let group = if lowest == Some(1) { self.lowest } else { self.add_group(1, NONE) };
        self.push(group, slot);
        self.index.set(block, slot);
        Access::Miss { slot, evicted }
    }

    fn remove(&mut self, block: u64) -> Option<Slot> {
        let slot = self.index.remove(block)?;
        self.unlink(slot);
        self.free.push(slot);
        Some(slot)
    }

    fn resident(&self, block: u64) -> Option<Slot> {
        self.index.get(block)
    }

    fn known(&self, blocks: std::ops::Range<u64>) -> Vec<u64> {
        self.index.known(blocks)
    }

    fn len(&self) -> usize {
        self.nodes.len() - self.free.len()
    }

    fn clear(&mut self) {
        self.index.clear();
        self.nodes.clear();
        self.free.clear();
        self.groups.clear();
        self.free_groups.clear();
        self.lowest = NONE;
    }

    fn prefetch(&self, far: u64, near: u64) {
        self.index.prefetch(far);
        if let Some(slot) = self.index.get(near) {
            prefetch(&self.nodes, slot as usize);
        }
    }
}
