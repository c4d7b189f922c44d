//! Blocks in doubly linked lists, in one array: what most policies are made of.

use super::index::prefetch;

#[derive(Clone, Copy)]
struct Node<N> {
    block: N,
    /// Towards the newest of its list. Of a list's end: its oldest.
    newer: u32,
    /// Towards the oldest. Of a list's end: its newest.
    older: u32,
    tag: u32,
}

/// Nodes, numbered from 0 without gaps, each in one of `LISTS` lists at most. A node's `tag` is
/// the policy's: a list, a bit, a count. The array grows as nodes are taken, so that a cache
/// larger than the trace stays small.
pub(crate) struct Nodes<N, const LISTS: usize> {
    /// The lists' ends come first: with them a list is a ring, and linking needs no cases.
    nodes: Vec<Node<N>>,
    lens: [usize; LISTS],
    free: Vec<u32>,
}

impl<N: Copy + Default, const LISTS: usize> Nodes<N, LISTS> {
    pub fn new() -> Self {
        let mut made = Self { nodes: Vec::new(), lens: [0; LISTS], free: Vec::new() };
        made.clear();
        made
    }

    pub fn clear(&mut self) {
        self.nodes.clear();
        for end in 0..LISTS as u32 {
            self.nodes.push(Node { block: N::default(), newer: end, older: end, tag: 0 });
        }
        self.lens = [0; LISTS];
        self.free.clear();
    }

    /// Nodes taken and not given back.
    pub fn taken(&self) -> usize {
        self.nodes.len() - LISTS - self.free.len()
    }

    /// A node that is in no list, its tag 0.
    #[inline]
    pub fn take(&mut self, block: N) -> u32 {
        if let Some(at) = self.free.pop() {
            self.set(at, block, 0);
            return at;
        }
        self.nodes.push(Node { block, newer: 0, older: 0, tag: 0 });
        (self.nodes.len() - LISTS) as u32 - 1
    }

    /// Gives back a node that is in no list.
    #[inline]
    pub fn give_back(&mut self, at: u32) {
        self.free.push(at);
    }

    #[inline]
    pub fn block(&self, at: u32) -> N {
        self.nodes[at as usize + LISTS].block
    }

    #[inline]
    pub fn tag(&self, at: u32) -> u32 {
        self.nodes[at as usize + LISTS].tag
    }

    #[inline]
    pub fn set_tag(&mut self, at: u32, tag: u32) {
        self.nodes[at as usize + LISTS].tag = tag;
    }

    #[inline]
    pub fn set(&mut self, at: u32, block: N, tag: u32) {
        let node = &mut self.nodes[at as usize + LISTS];
        (node.block, node.tag) = (block, tag);
    }

    /// Makes a node that is in no list the newest of one.
    #[inline]
    pub fn push(&mut self, list: usize, at: u32) {
        self.link(list, at);
        self.lens[list] += 1;
    }

    #[inline]
    fn link(&mut self, list: usize, at: u32) {
        let raw = at + LISTS as u32;
        let second = self.nodes[list].older;
        let node = &mut self.nodes[raw as usize];
        (node.newer, node.older) = (list as u32, second);
        self.nodes[second as usize].newer = raw;
        self.nodes[list].older = raw;
    }

    /// Takes a node out of the list that it is in.
    #[inline]
    pub fn unlink(&mut self, list: usize, at: u32) {
        self.cut(at);
        self.lens[list] -= 1;
    }

    #[inline]
    fn cut(&mut self, at: u32) {
        let Node { newer, older, .. } = self.nodes[at as usize + LISTS];
        self.nodes[newer as usize].older = older;
        self.nodes[older as usize].newer = newer;
    }

    /// Makes a node of a list its newest.
    #[inline]
    pub fn renew(&mut self, list: usize, at: u32) {
        if self.nodes[list].older != at + LISTS as u32 {
            self.cut(at);
            self.link(list, at);
        }
    }

    #[inline]
    pub fn len(&self, list: usize) -> usize {
        self.lens[list]
    }

    #[inline]
    pub fn oldest(&self, list: usize) -> Option<u32> {
        self.nodes[list].newer.checked_sub(LISTS as u32)
    }

    /// The next newer node of the same list.
    #[inline]
    pub fn newer(&self, at: u32) -> Option<u32> {
        self.nodes[at as usize + LISTS].newer.checked_sub(LISTS as u32)
    }

    /// Takes the oldest node out of a list.
    #[inline]
    pub fn pop(&mut self, list: usize) -> Option<u32> {
        let at = self.oldest(list)?;
        self.unlink(list, at);
        Some(at)
    }

    #[inline]
    pub fn prefetch(&self, at: u32) {
        prefetch(&self.nodes, at as usize + LISTS);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Against two vectors, oldest first.
        #[test]
        fn lists_keep_their_order(
            actions in proptest::collection::vec((0u8..4, 0usize..2, 0usize..30), 1..300),
        ) {
            let mut nodes: Nodes<u64, 2> = Nodes::new();
            let mut model: [Vec<(u32, u64)>; 2] = [Vec::new(), Vec::new()];
            for (count, (action, list, pick)) in actions.into_iter().enumerate() {
                let pick = pick % model[list].len().max(1);
                match (action, model[list].is_empty()) {
                    (0, _) | (_, true) => {
                        let at = nodes.take(count as u64);
                        nodes.push(list, at);
                        model[list].push((at, count as u64));
                    }
                    (1, _) => {
                        let (at, _) = model[list].remove(pick);
                        nodes.unlink(list, at);
                        nodes.give_back(at);
                    }
                    (2, _) => {
                        let moved = model[list].remove(pick);
                        nodes.renew(list, moved.0);
                        model[list].push(moved);
                    }
                    _ => {
                        prop_assert_eq!(nodes.pop(list), Some(model[list][0].0));
                        nodes.give_back(model[list].remove(0).0);
                    }
                }
                for (list, expected) in model.iter().enumerate() {
                    let next = |at: &Option<u32>| at.and_then(|at| nodes.newer(at));
                    let mut at = nodes.oldest(list);
                    let mut found = Vec::new();
                    while let Some(node) = at {
                        found.push((node, nodes.block(node)));
                        at = next(&at);
                    }
                    prop_assert_eq!(&found, expected);
                    prop_assert_eq!(nodes.len(list), found.len());
                }
                prop_assert_eq!(nodes.taken(), model[0].len() + model[1].len());
            }
        }
    }
}
