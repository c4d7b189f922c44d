//! `lru`: the block that was not asked for the longest leaves.

use super::{Access, Eviction, Index, Kind, NONE, Slot};

const PAGE: &str = "\
# lru

Evicts the block whose last request lies furthest back (least recently used). A hit moves a block
to the front of a list; the tail of the list leaves.

## Suitable for
Workloads whose reuse is recent. Its hit ratio never falls as the cache grows (it is a stack
algorithm), so one pass over a trace gives the whole miss-ratio curve.

## Unsuitable for
Scans and loops larger than the cache: each block is evicted just before it is asked for again,
and a single scan empties the cache of what is used often.

## Source
R. L. Mattson, J. Gecsei, D. R. Slutz, I. L. Traiger, 'Evaluation techniques for storage
hierarchies', IBM Systems Journal 9 (2), 1970.
";

pub const KIND: Kind = Kind { name: "lru", page: PAGE, build };

fn build(capacity: usize, index: Index) -> Box<dyn Eviction> {
    Box::new(Lru::new(capacity, index))
}

struct Node {
    block: u64,
    /// Towards the front: the next more recent.
    newer: Slot,
    older: Slot,
}

pub struct Lru {
    capacity: usize,
    index: Index,
    /// Grows to the capacity as blocks come: a cache larger than the trace stays small.
    nodes: Vec<Node>,
    free: Vec<Slot>,
    newest: Slot,
    oldest: Slot,
    len: usize,
}

impl Lru {
    #[must_use]
    pub fn new(capacity: usize, index: Index) -> Self {
        Self {
            capacity,
            index,
            nodes: Vec::new(),
            free: Vec::new(),
            newest: NONE,
            oldest: NONE,
            len: 0,
        }
    }

    fn unlink(&mut self, slot: Slot) {
        let Node { newer, older, .. } = self.nodes[slot as usize];
        match self.nodes.get_mut(newer as usize) {
            Some(node) => node.older = older,
            None => self.newest = older,
        }
        match self.nodes.get_mut(older as usize) {
            Some(node) => node.newer = newer,
            None => self.oldest = newer,
        }
    }

    fn push_front(&mut self, slot: Slot) {
        let second = self.newest;
        let node = &mut self.nodes[slot as usize];
        (node.newer, node.older) = (NONE, second);
        match self.nodes.get_mut(second as usize) {
            Some(node) => node.newer = slot,
            None => self.oldest = slot,
        }
        self.newest = slot;
    }

    /// A slot for a new block, and who had it.
    fn make_room(&mut self) -> (Slot, Option<u64>) {
        if let Some(slot) = self.free.pop() {
            return (slot, None);
        }
        if self.nodes.len() < self.capacity {
            self.nodes.push(Node { block: 0, newer: NONE, older: NONE });
            return (self.nodes.len() as Slot - 1, None);
        }
        let slot = self.oldest;
        let evicted = self.nodes[slot as usize].block;
        self.unlink(slot);
        self.index.remove(evicted);
        self.len -= 1;
        (slot, Some(evicted))
    }
}

impl Eviction for Lru {
    fn access(&mut self, block: u64) -> Access {
        if let Some(slot) = self.index.get(block) {
            if slot != self.newest {
                self.unlink(slot);
                self.push_front(slot);
            }
            return Access::Hit(slot);
        }
        let (slot, evicted) = self.make_room();
        self.nodes[slot as usize].block = block;
        self.push_front(slot);
        self.index.insert(block, slot);
        self.len += 1;
        Access::Miss { slot, evicted }
    }

    fn remove(&mut self, block: u64) -> Option<Slot> {
        let slot = self.index.remove(block)?;
        self.unlink(slot);
        self.free.push(slot);
        self.len -= 1;
        Some(slot)
    }

    fn len(&self) -> usize {
        self.len
    }

    fn clear(&mut self) {
        self.index.clear();
        self.nodes.clear();
        self.free.clear();
        (self.newest, self.oldest, self.len) = (NONE, NONE, 0);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Against a list that is searched.
        #[test]
        fn evicts_the_least_recent(
            requests in proptest::collection::vec((0u64..50, 0u8..12), 1..800),
            capacity in 1usize..40,
        ) {
            let mut lru = Lru::new(capacity, Index::hashed());
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
