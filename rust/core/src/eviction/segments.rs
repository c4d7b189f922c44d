//! Policies that keep their blocks in several lists, some with ghosts: a rule says into which list
//! a new block goes, what a hit does and who leaves.

use super::ghosts::{Ghosts, is_ghost};
use super::nodes::Nodes;
use super::{Access, BlockIndex, Eviction, Index, Slot};

/// The blocks of a [`Segments`] in `LISTS` lists, and what is remembered in `GHOSTS` more.
pub(crate) struct Store<I: BlockIndex, const LISTS: usize, const GHOSTS: usize> {
    pub index: I,
    /// The tag's low bits are the list ([`LIST_BITS`]), the rest is the rule's.
    pub blocks: Nodes<I::Number, LISTS>,
    pub ghosts: Ghosts<I::Number, GHOSTS>,
}

/// Of a block's tag: its list.
pub(crate) const LIST_BITS: u32 = 3;

impl<I: BlockIndex, const LISTS: usize, const GHOSTS: usize> Store<I, LISTS, GHOSTS> {
    #[inline]
    pub fn list_of(&self, slot: Slot) -> usize {
        (self.blocks.tag(slot) & ((1 << LIST_BITS) - 1)) as usize
    }

    /// The rule's part of a block's tag.
    #[inline]
    pub fn mark(&self, slot: Slot) -> u32 {
        self.blocks.tag(slot) >> LIST_BITS
    }

    #[inline]
    pub fn set_mark(&mut self, slot: Slot, mark: u32) {
        let list = self.list_of(slot) as u32;
        self.blocks.set_tag(slot, mark << LIST_BITS | list);
    }

    /// Makes a block the newest of another list; its mark becomes 0.
    #[inline]
    pub fn shift(&mut self, slot: Slot, list: usize) {
        self.blocks.unlink(self.list_of(slot), slot);
        self.blocks.set_tag(slot, list as u32);
        self.blocks.push(list, slot);
    }

    /// Takes the oldest block of a list out of the cache and remembers it; its slot is free.
    #[inline]
    pub fn evict_to_ghosts(&mut self, list: usize, ghosts: usize) -> Option<Slot> {
        let slot = self.blocks.pop(list)?;
        self.ghosts.add(&mut self.index, ghosts, self.blocks.block(slot));
        Some(slot)
    }

    /// Takes a block out of the cache, wherever it is in its list; its slot is free.
    #[inline]
    pub fn evict_slot(&mut self, slot: Slot) {
        self.blocks.unlink(self.list_of(slot), slot);
        self.index.remove(I::block(self.blocks.block(slot)));
    }

    /// Takes the oldest block of a list out of the cache; its slot is free.
    #[inline]
    pub fn evict(&mut self, list: usize) -> Option<Slot> {
        let slot = self.blocks.pop(list)?;
        self.index.remove(I::block(self.blocks.block(slot)));
        Some(slot)
    }
}

/// What makes one policy of a [`Segments`].
pub(crate) trait Rule<const LISTS: usize, const GHOSTS: usize>: Send + 'static {
    /// Most ghosts in one list.
    fn ghosts(&self) -> usize {
        0
    }

    /// It asks for the marks of blocks.
    const MARKS: bool = false;

    /// Any request, hit or miss, before it is looked at.
    fn requested<I: BlockIndex>(&mut self, _index: &I, _block: u64) {}

    /// A hit on the block in `slot`.
    fn hit<I: BlockIndex>(&mut self, store: &mut Store<I, LISTS, GHOSTS>, slot: Slot);

    /// A block comes, which was remembered as the ghost of that index entry.
    fn comes<I: BlockIndex>(&mut self, _store: &mut Store<I, LISTS, GHOSTS>, _ghost: Option<u32>) {}

    /// Evicts from a full cache for the block that comes, which is no ghost any more.
    fn evict<I: BlockIndex>(&mut self, store: &mut Store<I, LISTS, GHOSTS>) -> Slot;

    /// There is room: into which list the block that came goes. `was_ghost`: it was remembered.
    fn list_for<I: BlockIndex>(&self, store: &Store<I, LISTS, GHOSTS>, was_ghost: bool) -> usize;

    /// The block that came has a slot and is in its list.
    fn placed<I: BlockIndex>(&mut self, _store: &mut Store<I, LISTS, GHOSTS>, _slot: Slot) {}

    /// Back to the state it was built in.
    fn clear(&mut self) {}
}

pub(crate) struct Segments<I: BlockIndex, R, const LISTS: usize, const GHOSTS: usize> {
    capacity: usize,
    store: Store<I, LISTS, GHOSTS>,
    rule: R,
}

/// A policy of a rule over either kind of index.
pub(crate) fn boxed<R: Rule<LISTS, GHOSTS>, const LISTS: usize, const GHOSTS: usize>(
    capacity: usize,
    index: Index,
    rule: R,
) -> Box<dyn Eviction> {
    match index {
        Index::Dense(index) => Box::new(Segments::new(capacity, index, rule)),
        Index::Hashed(index) => Box::new(Segments::new(capacity, index, rule)),
    }
}

impl<I, R, const LISTS: usize, const GHOSTS: usize> Segments<I, R, LISTS, GHOSTS>
where
    I: BlockIndex,
    R: Rule<LISTS, GHOSTS>,
{
    fn new(capacity: usize, index: I, rule: R) -> Self {
        let ghosts = Ghosts::new(rule.ghosts());
        Self { capacity, store: Store { index, blocks: Nodes::new(), ghosts }, rule }
    }

    #[inline]
    fn miss(&mut self, block: u64, ghost: Option<u32>) -> Access {
        let store = &mut self.store;
        self.rule.comes(store, ghost);
        if let Some(entry) = ghost {
            store.ghosts.take_out(entry);
        }
        let number = I::number(block);
        let (slot, evicted) = if store.blocks.taken() < self.capacity {
            (store.blocks.take(number), None)
        } else {
            let slot = self.rule.evict(store);
            (slot, Some(I::block(store.blocks.block(slot))))
        };
        let list = self.rule.list_for(store, ghost.is_some());
        store.blocks.set(slot, number, list as u32);
        store.blocks.push(list, slot);
        store.index.set(block, slot);
        self.rule.placed(store, slot);
        Access::Miss { slot, evicted }
    }
}

impl<I, R, const LISTS: usize, const GHOSTS: usize> Eviction for Segments<I, R, LISTS, GHOSTS>
where
    I: BlockIndex,
    R: Rule<LISTS, GHOSTS>,
{
    #[inline]
    fn access(&mut self, block: u64) -> Access {
        self.rule.requested(&self.store.index, block);
        let entry = self.store.index.get(block);
        if let Some(slot) = entry.filter(|entry| !is_ghost(*entry)) {
            self.rule.hit(&mut self.store, slot);
            return Access::Hit(slot);
        }
        self.miss(block, entry)
    }

    fn remove(&mut self, block: u64) -> Option<Slot> {
        let entry = self.store.index.remove(block)?;
        if is_ghost(entry) {
            self.store.ghosts.take_out(entry);
            return None;
        }
        self.store.blocks.unlink(self.store.list_of(entry), entry);
        self.store.blocks.give_back(entry);
        Some(entry)
    }

    #[inline]
    fn resident(&self, block: u64) -> Option<Slot> {
        self.store.index.get(block).filter(|entry| !is_ghost(*entry))
    }

    fn known(&self, blocks: std::ops::Range<u64>) -> Vec<u64> {
        self.store.index.known(blocks)
    }

    fn len(&self) -> usize {
        self.store.blocks.taken()
    }

    fn clear(&mut self) {
        self.store.index.clear();
        self.store.blocks.clear();
        self.store.ghosts.clear();
        self.rule.clear();
    }

    #[inline]
    fn prefetch(&self, far: u64, near: u64) {
        self.store.index.prefetch(far);
        if R::MARKS {
            self.store.index.prefetch_mark(far);
        }
        match self.store.index.get(near) {
            Some(entry) if is_ghost(entry) => self.store.ghosts.prefetch(entry),
            Some(slot) => self.store.blocks.prefetch(slot),
            None => {}
        }
    }
}
