//! `lirs`: blocks with a short time between two requests stay, by the stack of the paper.

use super::nodes::Nodes;
use super::{Access, BlockIndex, Eviction, Index, Kind, Slot};

const PAGE: &str = "\
# lirs

Low inter-reference recency set. Blocks whose last two requests lay close together (LIR) have 99 %
of the cache; the rest (HIR) pass through a short queue. A stack holds the recent requests, of
blocks that left as well: a HIR block that is asked for again while it is in the stack becomes LIR,
and the LIR block at the stack's bottom gives up its place.

## Parameters
Fixed, as the authors advise: 1 % of the cache, at least a block, is for HIR blocks. The stack has
at most twice as many blocks as the cache holds: beyond, those that left are forgotten, the longest
gone first.

## Suitable for
Block caches with loops and scans larger than the cache.

## Unsuitable for
Working sets that change at once: new blocks have 1 % of the space until they prove themselves.
Tiny caches.

## Counts
Those of libCacheSim's LIRS, but for one step: where a HIR block is asked for that left the stack
and is still cached, libCacheSim also takes the block at the stack's bottom out of the LIR set,
whose place the next new block gets; the paper moves the block asked for, and nothing else. On 1 M
Zipf requests (skew 1, a tenth of the blocks cached) 241,702 are missed, 241,774 by libCacheSim.

## Source
S. Jiang, X. Zhang, 'LIRS: an efficient low inter-reference recency set replacement policy to
improve buffer cache performance', SIGMETRICS '02. <https://doi.org/10.1145/511334.511340>
";

pub const KIND: Kind = Kind { name: "lirs", page: PAGE, build };

fn build(capacity: usize, index: Index, _seed: u64) -> Box<dyn Eviction> {
    match index {
        Index::Dense(index) => Box::new(Lirs::new(capacity, index)),
        Index::Hashed(index) => Box::new(Lirs::new(capacity, index)),
    }
}

/// The only list of `stack`.
const STACK: usize = 0;
/// The lists of `queues`: cached HIR blocks; blocks that left and are still in the stack.
const HIR: usize = 0;
const GONE: usize = 1;

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Lir,
    Hir,
    Gone,
}

/// What is known of a block beside its place in the stack.
#[derive(Clone, Copy)]
struct Entry {
    state: State,
    in_stack: bool,
    slot: Slot,
    /// Node of `queues`, for a block that is not LIR.
    queued: u32,
}

struct Lirs<I: BlockIndex> {
    capacity: usize,
    lir_limit: usize,
    /// From a block to its node of `stack`.
    index: I,
    /// A node for each known block, in the list or not.
    stack: Nodes<I::Number, 1>,
    /// By node of `stack`.
    entries: Vec<Entry>,
    /// Nodes of `stack`.
    queues: Nodes<u32, 2>,
    lirs: usize,
    slots: Vec<Slot>,
    next_slot: Slot,
}

impl<I: BlockIndex> Lirs<I> {
    fn new(capacity: usize, index: I) -> Self {
        Self {
            capacity,
            lir_limit: capacity - (capacity / 100).max(1),
            index,
            stack: Nodes::new(),
            entries: Vec::new(),
            queues: Nodes::new(),
            lirs: 0,
            slots: Vec::new(),
            next_slot: 0,
        }
    }

    fn entry(&mut self, at: u32) -> &mut Entry {
        &mut self.entries[at as usize]
    }

    fn renew(&mut self, at: u32) {
        if self.entries[at as usize].in_stack {
            self.stack.renew(STACK, at);
        } else {
            self.stack.push(STACK, at);
            self.entry(at).in_stack = true;
        }
    }

    fn out_of_stack(&mut self, at: u32) {
        if std::mem::replace(&mut self.entry(at).in_stack, false) {
            self.stack.unlink(STACK, at);
        }
    }

    fn enqueue(&mut self, list: usize, at: u32) {
        let node = self.queues.take(at);
        self.queues.push(list, node);
        self.entry(at).queued = node;
    }

    fn dequeue(&mut self, list: usize, at: u32) {
        let node = self.entries[at as usize].queued;
        self.queues.unlink(list, node);
        self.queues.give_back(node);
    }

    fn forget(&mut self, at: u32) {
        self.out_of_stack(at);
        self.index.remove(I::block(self.stack.block(at)));
        self.stack.give_back(at);
    }

    /// The stack's bottom must be LIR: what lies below the last of these says nothing any more.
    fn prune(&mut self) {
        while let Some(at) = self.stack.oldest(STACK) {
            match self.entries[at as usize].state {
                State::Lir => return,
                State::Hir => self.out_of_stack(at),
                State::Gone => {
                    self.dequeue(GONE, at);
                    self.forget(at);
                }
            }
        }
    }

    /// A block that came back soon becomes LIR; the one at the bottom makes room for it.
    fn promote(&mut self, at: u32) {
        self.entry(at).state = State::Lir;
        self.lirs += 1;
        self.renew(at);
        if self.lirs > self.lir_limit {
            // The bottom is LIR: the block itself where there is no other.
            let bottom = self.stack.oldest(STACK).expect("the block just put there");
            self.out_of_stack(bottom);
            self.entry(bottom).state = State::Hir;
            self.lirs -= 1;
            self.enqueue(HIR, bottom);
        }
        self.prune();
    }

    fn hit(&mut self, at: u32) {
        let Entry { state, in_stack, .. } = self.entries[at as usize];
        if state == State::Lir {
            self.renew(at);
            self.prune();
            return;
        }
        self.dequeue(HIR, at);
        if in_stack {
            self.promote(at);
        } else {
            self.renew(at);
            self.enqueue(HIR, at);
            self.prune();
        }
    }

    /// The front of the queue leaves; it is remembered while it is in the stack.
    fn evict(&mut self) -> (Slot, u64) {
        let node = self.queues.pop(HIR).expect("a full cache has more blocks than can be LIR");
        let at = self.queues.block(node);
        self.queues.give_back(node);
        let Entry { slot, in_stack, .. } = self.entries[at as usize];
        let block = I::block(self.stack.block(at));
        if !in_stack {
            self.forget(at);
            return (slot, block);
        }
        self.entry(at).state = State::Gone;
        self.enqueue(GONE, at);
        (slot, block)
    }

    /// Forgets those gone the longest while the stack is too long.
    fn limit_stack(&mut self) {
        while self.stack.len(STACK) > 2 * self.capacity {
            let Some(node) = self.queues.pop(GONE) else { return };
            let longest_gone = self.queues.block(node);
            self.queues.give_back(node);
            self.forget(longest_gone);
        }
    }

    fn slot_for(&mut self) -> (Slot, Option<u64>) {
        if let Some(slot) = self.slots.pop() {
            return (slot, None);
        }
        if (self.next_slot as usize) < self.capacity {
            self.next_slot += 1;
            return (self.next_slot - 1, None);
        }
        let (slot, evicted) = self.evict();
        (slot, Some(evicted))
    }

    /// A node for a block that comes, and whether it was in the stack.
    fn node_for(&mut self, block: u64, slot: Slot) -> (u32, bool) {
        if let Some(at) = self.index.get(block) {
            self.dequeue(GONE, at);
            self.entry(at).slot = slot;
            return (at, true);
        }
        let at = self.stack.take(I::number(block));
        let entry = Entry { state: State::Hir, in_stack: false, slot, queued: 0 };
        if at as usize == self.entries.len() {
            self.entries.push(entry);
        } else {
            *self.entry(at) = entry;
        }
        self.index.set(block, at);
        (at, false)
    }
}

impl<I: BlockIndex> Eviction for Lirs<I> {
    fn access(&mut self, block: u64) -> Access {
        let known = self.index.get(block);
        if let Some(at) = known.filter(|at| self.entries[*at as usize].state != State::Gone) {
            let slot = self.entries[at as usize].slot;
            self.hit(at);
            self.limit_stack();
            return Access::Hit(slot);
        }
        let (slot, evicted) = self.slot_for();
        let (at, was_in_stack) = self.node_for(block, slot);
        if was_in_stack || self.lirs < self.lir_limit {
            self.promote(at);
        } else {
            self.entry(at).state = State::Hir;
            self.renew(at);
            self.enqueue(HIR, at);
            self.prune();
        }
        self.limit_stack();
        Access::Miss { slot, evicted }
    }

    fn remove(&mut self, block: u64) -> Option<Slot> {
        let at = self.index.get(block)?;
        let Entry { state, slot, .. } = self.entries[at as usize];
        match state {
            State::Lir => self.lirs -= 1,
            State::Hir => self.dequeue(HIR, at),
            State::Gone => self.dequeue(GONE, at),
        }
        self.forget(at);
        self.prune();
        if state == State::Gone {
            return None;
        }
        self.slots.push(slot);
        Some(slot)
    }

    fn resident(&self, block: u64) -> Option<Slot> {
        let entry = self.entries[self.index.get(block)? as usize];
        (entry.state != State::Gone).then_some(entry.slot)
    }

    fn known(&self, blocks: std::ops::Range<u64>) -> Vec<u64> {
        self.index.known(blocks)
    }

    fn len(&self) -> usize {
        self.next_slot as usize - self.slots.len()
    }

    fn clear(&mut self) {
        self.index.clear();
        self.stack.clear();
        self.entries.clear();
        self.queues.clear();
        self.slots.clear();
        (self.lirs, self.next_slot) = (0, 0);
    }

    fn prefetch(&self, far: u64, near: u64) {
        self.index.prefetch(far);
        if let Some(at) = self.index.get(near) {
            self.stack.prefetch(at);
        }
    }
}
