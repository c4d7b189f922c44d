//! Blocks that left the cache and are remembered: their numbers, without slots.

use super::index::BlockIndex;
use super::nodes::Nodes;

/// Marks an index entry as a ghost's; the rest is its node.
const GHOST: u32 = 1 << 31;

/// `LISTS` lists of ghosts, each in the order in which they left.
pub(crate) struct Ghosts<N, const LISTS: usize> {
    /// The tag is the list.
    nodes: Nodes<N, LISTS>,
    /// Most ghosts of one list.
    limit: usize,
}

#[inline]
pub(crate) const fn is_ghost(entry: u32) -> bool {
    entry & GHOST != 0
}

/// The number of a ghost, from its index entry; free again once it is taken out.
#[inline]
pub(crate) const fn node_of(entry: u32) -> u32 {
    entry & !GHOST
}

impl<N: Copy + Default, const LISTS: usize> Ghosts<N, LISTS> {
    pub fn new(limit: usize) -> Self {
        Self { nodes: Nodes::new(), limit }
    }

    pub fn len(&self, list: usize) -> usize {
        self.nodes.len(list)
    }

    #[inline]
    pub fn list_of(&self, entry: u32) -> usize {
        self.nodes.tag(node_of(entry)) as usize
    }

    /// Remembers a block, whose index entry becomes the ghost's; the oldest is forgotten when
    /// there are too many. Its number.
    #[inline]
    pub fn add<I: BlockIndex<Number = N>>(
        &mut self,
        index: &mut I,
        list: usize,
        number: N,
    ) -> Option<u32> {
        while self.nodes.len(list) > 0 && self.nodes.len(list) >= self.limit {
            self.forget_oldest(index, list);
        }
        if self.limit == 0 {
            index.remove(I::block(number));
            return None;
        }
        let at = self.nodes.take(number);
        self.nodes.set_tag(at, list as u32);
        self.nodes.push(list, at);
        index.set(I::block(number), at | GHOST);
        Some(at)
    }

    #[inline]
    pub fn forget_oldest<I: BlockIndex<Number = N>>(&mut self, index: &mut I, list: usize) {
        if let Some(at) = self.nodes.pop(list) {
            index.remove(I::block(self.nodes.block(at)));
            self.nodes.give_back(at);
        }
    }

    /// Takes a ghost out of its list; its index entry is the caller's to change.
    #[inline]
    pub fn take_out(&mut self, entry: u32) {
        let at = node_of(entry);
        self.nodes.unlink(self.nodes.tag(at) as usize, at);
        self.nodes.give_back(at);
    }

    pub fn clear(&mut self) {
        self.nodes.clear();
    }

    #[inline]
    pub fn prefetch(&self, entry: u32) {
        self.nodes.prefetch(node_of(entry));
    }
}
