//! The buffers of the cache, one for each slot of the policy.

use super::super::DataMode;
use crate::eviction::Slot;

/// Buffers come in pieces of about this size, as slots are first used: a cache larger than the
/// trace takes the memory of the trace.
const SEGMENT_BYTES: usize = 4 << 20;

#[derive(Debug, Clone, Copy)]
struct Entry {
    block: u64,
    generation: u32,
    valid: bool,
}

pub struct Store {
    /// Bytes in memory of a block.
    size: usize,
    per_segment: usize,
    segments: Vec<Box<[u8]>>,
    entries: Vec<Entry>,
}

impl Store {
    pub fn new(mode: DataMode, block_bytes: u64) -> Self {
        let size = mode.size(block_bytes);
        let per_segment = SEGMENT_BYTES.checked_div(size).unwrap_or(usize::MAX).max(1);
        Self { size, per_segment, segments: Vec::new(), entries: Vec::new() }
    }

    pub fn clear(&mut self) {
        self.entries.clear();
    }

    pub fn slots(&self) -> Slot {
        self.entries.len() as Slot
    }

    /// The block that was last in the slot.
    pub fn block(&self, slot: Slot) -> u64 {
        self.entries[slot as usize].block
    }

    pub fn generation(&self, slot: Slot) -> u32 {
        self.entries[slot as usize].generation
    }

    pub fn is_valid(&self, slot: Slot) -> bool {
        self.entries[slot as usize].valid
    }

    pub fn set_valid(&mut self, slot: Slot) {
        self.entries[slot as usize].valid = true;
    }

    /// The slot gets a block whose data are not there yet.
    pub fn begin(&mut self, slot: Slot, block: u64) {
        let fresh = Entry { block, generation: 0, valid: false };
        while self.entries.len() <= slot as usize {
            self.entries.push(fresh);
        }
        self.end(slot);
        self.entries[slot as usize].block = block;
        if self.size > 0 {
            while self.segments.len() <= slot as usize / self.per_segment {
                let bytes = self.per_segment * self.size;
                self.segments.push(vec![0; bytes].into_boxed_slice());
            }
        }
    }

    /// What is in the slot, or on its way there, counts no more.
    pub fn end(&mut self, slot: Slot) {
        let entry = &mut self.entries[slot as usize];
        entry.generation = entry.generation.wrapping_add(1);
        entry.valid = false;
    }

    pub fn data(&self, slot: Slot) -> &[u8] {
        if self.size == 0 {
            return &[];
        }
        let from = slot as usize % self.per_segment * self.size;
        &self.segments[slot as usize / self.per_segment][from..from + self.size]
    }

    pub fn data_mut(&mut self, slot: Slot) -> &mut [u8] {
        if self.size == 0 {
            return &mut [];
        }
        let from = slot as usize % self.per_segment * self.size;
        &mut self.segments[slot as usize / self.per_segment][from..from + self.size]
    }
}

/// What an I/O and a block have in common, as indices into the bytes of either.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Portion {
    pub of_io: std::ops::Range<usize>,
    pub of_block: std::ops::Range<usize>,
    /// The I/O covers the whole block.
    pub whole: bool,
}

impl Portion {
    pub fn new(mode: DataMode, block_bytes: u64, block: u64, offset: u64, length: u64) -> Self {
        let (begin, end) = (block * block_bytes, (block + 1) * block_bytes);
        let (from, to) = (begin.max(offset), end.min(offset + length));
        Self {
            of_io: mode.size(from - offset)..mode.size(to - offset),
            of_block: mode.size(from - begin)..mode.size(to - begin),
            whole: (from, to) == (begin, end),
        }
    }
}
