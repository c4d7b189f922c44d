//! Blocks under I/Os: their numbers, those of several disks in one, and what each has of an I/O.

use super::super::{Cx, DataMode};
use super::work::Portion;
use crate::slab::IoId;

/// Of a block's number, beside the number of its disk, in a cache for several.
const BLOCK_BITS: u32 = 48;

#[derive(Debug, Clone, Copy)]
pub struct Grid {
    /// Bytes of a block.
    pub block: u64,
    pub mode: DataMode,
    pub is_group: bool,
}

impl Grid {
    pub fn key(&self, disk: u16, block: u64) -> u64 {
        if self.is_group { u64::from(disk) << BLOCK_BITS | block } else { block }
    }

    /// Disk and block of a key.
    pub fn place(&self, cx: &Cx<'_>, key: u64) -> (u16, u64) {
        if self.is_group {
            ((key >> BLOCK_BITS) as u16, key & ((1 << BLOCK_BITS) - 1))
        } else {
            (cx.disk(), key)
        }
    }

    /// The blocks under an I/O.
    pub fn blocks(&self, cx: &Cx<'_>, io: IoId) -> std::ops::Range<u64> {
        let io = cx.io(io);
        let end = io.offset_bytes + io.length_bytes;
        io.offset_bytes / self.block..end.div_ceil(self.block)
    }

    /// The keys of the blocks that an I/O covers whole.
    pub fn whole_keys(&self, cx: &Cx<'_>, io: IoId) -> std::ops::Range<u64> {
        let io = cx.io(io);
        let end = io.offset_bytes + io.length_bytes;
        let first = self.key(io.disk, io.offset_bytes.div_ceil(self.block));
        let last = self.key(io.disk, end / self.block);
        first..last.max(first)
    }

    /// What an I/O and a block have in common.
    #[inline]
    pub fn portion(&self, cx: &Cx<'_>, io: IoId, block: u64) -> Portion {
        let io = cx.io(io);
        Portion::new(self.mode, self.block, block, io.offset_bytes, io.length_bytes)
    }

    /// A block's number and its disk's must fit into one key.
    pub fn is_beyond(&self, cx: &Cx<'_>, io: IoId) -> bool {
        let io = cx.io(io);
        self.is_group && (io.offset_bytes + io.length_bytes) / self.block >= 1 << BLOCK_BITS
    }
}
