//! Policies that keep all their blocks in one list, and differ in what a hit does and who leaves.

use super::nodes::Nodes;
use super::{Access, BlockIndex, Eviction, Index, Slot};

/// The one list; a new block is its newest.
pub(crate) const ALL: usize = 0;

/// The blocks of a [`Queue`]; a block that came just now has the tag 0.
pub(crate) type Blocks<N> = Nodes<N, 1>;

/// What makes one policy of a [`Queue`].
pub(crate) trait Rule: Send + 'static {
    /// A hit on the block in `slot`.
    fn hit<N: Copy + Default>(&mut self, blocks: &mut Blocks<N>, slot: Slot);

    /// Who is to leave a full cache. It is still linked.
    fn victim<N: Copy + Default>(&mut self, blocks: &mut Blocks<N>) -> Slot;

    /// The block in `slot` will leave, as the victim or by a discard. It is still linked.
    fn leaves<N: Copy + Default>(&mut self, _blocks: &Blocks<N>, _slot: Slot) {}

    /// Back to the state it was built in.
    fn clear(&mut self) {}
}

pub(crate) struct Queue<I: BlockIndex, R> {
    capacity: usize,
    index: I,
    blocks: Blocks<I::Number>,
    rule: R,
}

/// A policy of a rule over either kind of index.
pub(crate) fn boxed<R: Rule>(capacity: usize, index: Index, rule: R) -> Box<dyn Eviction> {
    let blocks = || Blocks::new();
    match index {
        Index::Dense(index) => Box::new(Queue { capacity, index, blocks: Blocks::new(), rule }),
        Index::Hashed(index) => Box::new(Queue { capacity, index, blocks: blocks(), rule }),
    }
}

impl<I: BlockIndex, R: Rule> Queue<I, R> {
    /// A slot for a new block, and who had it.
    #[inline]
    fn make_room(&mut self, block: I::Number) -> (Slot, Option<u64>) {
        if self.blocks.len(ALL) < self.capacity {
            return (self.blocks.take(block), None);
        }
        let slot = self.rule.victim(&mut self.blocks);
        self.rule.leaves(&self.blocks, slot);
        self.blocks.unlink(ALL, slot);
        let evicted = I::block(self.blocks.block(slot));
        self.index.remove(evicted);
        self.blocks.set(slot, block, 0);
        (slot, Some(evicted))
    }
}

impl<I: BlockIndex, R: Rule> Eviction for Queue<I, R> {
    #[inline]
    fn access(&mut self, block: u64) -> Access {
        if let Some(slot) = self.index.get(block) {
            self.rule.hit(&mut self.blocks, slot);
            return Access::Hit(slot);
        }
        let (slot, evicted) = self.make_room(I::number(block));
        self.blocks.push(ALL, slot);
        self.index.set(block, slot);
        Access::Miss { slot, evicted }
    }

    fn remove(&mut self, block: u64) -> Option<Slot> {
        let slot = self.index.remove(block)?;
        self.rule.leaves(&self.blocks, slot);
        self.blocks.unlink(ALL, slot);
        self.blocks.give_back(slot);
        Some(slot)
    }

    #[inline]
    fn resident(&self, block: u64) -> Option<Slot> {
        self.index.get(block)
    }

    fn known(&self, blocks: std::ops::Range<u64>) -> Vec<u64> {
        self.index.known(blocks)
    }

    fn len(&self) -> usize {
        self.blocks.len(ALL)
    }

    fn clear(&mut self) {
        self.index.clear();
        self.blocks.clear();
        self.rule.clear();
    }

    #[inline]
    fn prefetch(&self, far: u64, near: u64) {
        self.index.prefetch(far);
        if let Some(slot) = self.index.get(near) {
            self.blocks.prefetch(slot);
        }
    }
}
