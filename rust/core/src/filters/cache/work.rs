//! What an I/O has to do with the cache's blocks, and what it waits for.

use super::super::DataMode;
use super::frames::{FrameId, NO_FRAME};
use crate::eviction::Slot;
use crate::io::{OK, Status};
use crate::slab::IoId;

/// In the tag of a child, above the index of its piece: it is for the piece's portion alone.
pub const PORTION: u64 = 1 << 32;

/// Of a block that is in no slot.
pub const NO_SLOT: Slot = Slot::MAX;

/// A block that an I/O has to do with, as the policy answered at submit.
#[derive(Debug, Clone, Copy)]
pub struct Piece {
    pub block: u64,
    /// The block's number among those of all disks.
    pub key: u64,
    pub slot: Slot,
    pub generation: u32,
    pub need: Need,
    /// Dirty data of the block that wait until this write has gone past them.
    pub held: FrameId,
}

impl Piece {
    pub const fn new(block: u64, key: u64, slot: Slot, generation: u32) -> Self {
        Self { block, key, slot, generation, need: Need::Nothing, held: NO_FRAME }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// Its data come with the I/O itself, or a read has begun to fetch it.
    Nothing,
    /// To be fetched, the whole block.
    Fetch,
    /// Fetched; a write's own data are still to be laid over it.
    Fetched,
    /// Another I/O fetches it.
    Wait,
    /// The block cannot be fetched: to be read just as far as it is asked for.
    Portion,
}

/// What an I/O waits for.
#[derive(Debug, Default)]
pub struct Work {
    pub pieces: Vec<Piece>,
    /// The first piece not yet looked at by `fetch`.
    pub next: usize,
    pub children: u32,
    pub waits: u32,
    /// Finished.
    pub concluded: bool,
    /// A write whose data are dirty in the cache when it is done.
    pub is_back: bool,
    /// Of a write's own child, or the first failure of a read's.
    pub status: Status,
}

impl Work {
    pub fn begin(&mut self) {
        self.pieces.clear();
        (self.next, self.children, self.waits) = (0, 0, 0);
        (self.concluded, self.is_back, self.status) = (false, false, OK);
    }
}

/// A read that waits for a block that another I/O brings.
#[derive(Debug, Clone, Copy)]
pub struct Waiter {
    pub io: IoId,
    /// Index of its piece.
    pub piece: u32,
    pub slot: Slot,
    pub generation: u32,
}

/// What an I/O and a block have in common: of the disk, and as indices into the bytes of either.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Portion {
    pub from_bytes: u64,
    pub length_bytes: u64,
    pub of_io: std::ops::Range<usize>,
    pub of_block: std::ops::Range<usize>,
    /// The I/O covers the whole block.
    pub whole: bool,
}

impl Portion {
    #[inline]
    pub fn new(mode: DataMode, block_bytes: u64, block: u64, offset: u64, length: u64) -> Self {
        let (begin, end) = (block * block_bytes, (block + 1) * block_bytes);
        let (from, to) = (begin.max(offset), end.min(offset + length));
        Self {
            from_bytes: from,
            length_bytes: to - from,
            of_io: mode.size(from - offset)..mode.size(to - offset),
            of_block: mode.size(from - begin)..mode.size(to - begin),
            whole: (from, to) == (begin, end),
        }
    }
}
