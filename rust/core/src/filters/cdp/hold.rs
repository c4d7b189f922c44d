//! What the filter keeps of I/Os: writes under way, writes held back, writes that wait for the
//! replica, and the reads of marked blocks.

use std::collections::VecDeque;

use super::Cx;
use crate::clock::Ns;
use crate::slab::IoId;

type Block = (u16, u64, u64);

fn overlap(a: Block, b: Block) -> bool {
    a.0 == b.0 && a.1 < b.1 + b.2 && b.1 < a.1 + a.2
}

/// Writes between their start and their completion, and reads of marked blocks. What a read gave
/// is clean only if no write to its range was under way meanwhile: else it may be torn.
#[derive(Default)]
pub struct Active {
    /// By slot: the range, and where the slot stands in `list`.
    ranges: Vec<(Block, u32)>,
    list: Vec<IoId>,
    reads: Vec<(u64, Block, bool)>,
    tags: u64,
}

impl Active {
    pub fn reserve(&mut self, slots: usize) {
        self.ranges.resize(slots, ((0, 0, 0), u32::MAX));
        self.list.reserve(slots);
    }

    #[inline]
    pub fn start(&mut self, cx: &Cx<'_>, io: IoId) {
        let it = cx.io(io);
        let range = (it.disk, it.offset_bytes, it.length_bytes);
        self.ranges[io as usize] = (range, self.list.len() as u32);
        self.list.push(io);
        for (_, block, clean) in &mut self.reads {
            *clean &= !overlap(*block, range);
        }
    }

    #[inline]
    pub fn end(&mut self, io: IoId) {
        let at = std::mem::replace(&mut self.ranges[io as usize].1, u32::MAX);
        // Held back and then failed by a layer above, it was never started.
        if at == u32::MAX {
            return;
        }
        self.list.swap_remove(at as usize);
        if let Some(moved) = self.list.get(at as usize) {
            self.ranges[*moved as usize].1 = at;
        }
    }

    /// A read of a block starts; its tag.
    pub fn read(&mut self, disk: u16, offset_bytes: u64, length_bytes: u64) -> u64 {
        let block = (disk, offset_bytes, length_bytes);
        let clean = !self.list.iter().any(|io| overlap(self.ranges[*io as usize].0, block));
        self.tags += 1;
        self.reads.push((self.tags, block, clean));
        self.tags
    }

    /// The read is done: its block, and whether what it gave is the block's state.
    pub fn read_done(&mut self, tag: u64) -> Option<(Block, bool)> {
        let at = self.reads.iter().position(|(of, ..)| *of == tag)?;
        let (_, block, clean) = self.reads.swap_remove(at);
        Some((block, clean))
    }
}

/// Writes held back, oldest first.
#[derive(Default)]
pub struct Held(VecDeque<(IoId, Ns)>);

impl Held {
    pub fn push(&mut self, io: IoId, now: Ns) {
        self.0.push_back((io, now));
    }

    pub fn take(&mut self) -> Option<IoId> {
        self.0.pop_front().map(|(io, _)| io)
    }

    pub fn oldest_ns(&self) -> Option<Ns> {
        self.0.front().map(|(_, at)| *at)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }
}

/// Writes that wait for the replica, by the entry that they are in.
#[derive(Default)]
pub struct Waiters(VecDeque<(u64, IoId, Ns)>);

impl Waiters {
    pub fn push(&mut self, no: u64, io: IoId, now: Ns) {
        self.0.push_back((no, io, now));
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn take_to(&mut self, no: u64) -> Option<IoId> {
        self.0.front().filter(|(of, ..)| *of <= no)?;
        self.0.pop_front().map(|(_, io, _)| io)
    }

    pub fn oldest_ns(&self) -> Option<Ns> {
        self.0.front().map(|(.., at)| *at)
    }
}
