//! What the cache holds: the policy's slots, and the frames in which their data lie.
//!
//! A slot has a frame once its block's data are there. A block that the policy evicted while the
//! disk lacked its newest data keeps its frame, out of any slot, until the disk has them: the
//! policy's answers never wait for the disk. A generation begins when a slot gets another block,
//! so what arrives late for a block evicted meanwhile is seen to be stale.

use super::super::DataMode;
use crate::clock::Ns;
use crate::eviction::Slot;
use crate::int_map::IntMap;

pub type FrameId = u32;
pub const NO_FRAME: FrameId = u32::MAX;

/// Buffers come in pieces of about this size, as frames are first used: a cache larger than the
/// trace takes the memory of the trace.
const SEGMENT_BYTES: usize = 4 << 20;

#[derive(Debug, Clone, Copy)]
struct Entry {
    key: u64,
    generation: u32,
    frame: FrameId,
}

/// The data of a block, and what the disk lacks of them.
#[derive(Debug, Clone, Copy, Default)]
pub struct Frame {
    pub key: u64,
    /// The policy evicted the block; the disk lacks it.
    pub is_evicted: bool,
    /// Holds what was not sent to the disk.
    pub is_dirty: bool,
    /// On its way to the disk.
    pub is_leaving: bool,
    /// In the queue of what is to leave.
    pub is_queued: bool,
    /// Writes on their way to the disk past the cache, over what is dirty here.
    pub holders: u16,
    /// Between which flushes the dirty data came, and the data on its way.
    pub epoch: u64,
    pub leaving_epoch: u64,
    pub dirty_ns: Ns,
}

impl Frame {
    /// The disk lacks something of it.
    pub const fn is_owed(&self) -> bool {
        self.is_dirty || self.is_leaving
    }
}

pub struct Frames {
    /// Bytes in memory of a block.
    size: usize,
    per_segment: usize,
    segments: Vec<Box<[u8]>>,
    entries: Vec<Entry>,
    frames: Vec<Frame>,
    free: Vec<FrameId>,
    /// Evicted frames, by key.
    evicted: IntMap<FrameId>,
}

impl Frames {
    pub fn new(mode: DataMode, block_bytes: u64) -> Self {
        let size = mode.size(block_bytes);
        let per_segment = SEGMENT_BYTES.checked_div(size).unwrap_or(usize::MAX).max(1);
        Self {
            size,
            per_segment,
            segments: Vec::new(),
            entries: Vec::new(),
            frames: Vec::new(),
            free: Vec::new(),
            evicted: IntMap::default(),
        }
    }

    pub fn clear(&mut self) {
        self.entries.clear();
        self.frames.clear();
        self.free.clear();
        self.evicted.clear();
    }

    pub fn generation(&self, slot: Slot) -> u32 {
        self.entries.get(slot as usize).map_or(0, |entry| entry.generation)
    }

    /// The frame with the slot's data, if they are there.
    #[inline]
    pub fn of_slot(&self, slot: Slot) -> Option<FrameId> {
        Some(self.entries[slot as usize].frame).filter(|frame| *frame != NO_FRAME)
    }

    /// The frame of a block that was evicted before the disk had it.
    pub fn of_evicted(&self, key: u64) -> Option<FrameId> {
        if self.evicted.is_empty() {
            return None;
        }
        self.evicted.get(&key).copied()
    }

    pub fn evicted_keys(&self) -> impl Iterator<Item = u64> + '_ {
        self.evicted.keys().copied()
    }

    pub fn get(&self, frame: FrameId) -> &Frame {
        &self.frames[frame as usize]
    }

    pub fn get_mut(&mut self, frame: FrameId) -> &mut Frame {
        &mut self.frames[frame as usize]
    }

    /// The slot gets another block, whose data are here only where it was evicted not long ago.
    /// Gives the frame that had to stay because the disk lacks what is in it.
    pub fn begin(&mut self, slot: Slot, key: u64) -> Option<FrameId> {
        while self.entries.len() <= slot as usize {
            self.entries.push(Entry { key, generation: 0, frame: NO_FRAME });
        }
        let stays = self.of_slot(slot).filter(|frame| self.get(*frame).is_owed());
        match stays {
            Some(_) => self.set_aside(slot),
            None => self.end(slot),
        }
        let again = if self.evicted.is_empty() { None } else { self.evicted.remove(&key) };
        if let Some(frame) = again {
            self.get_mut(frame).is_evicted = false;
        }
        let entry = &mut self.entries[slot as usize];
        entry.key = key;
        entry.frame = again.unwrap_or(NO_FRAME);
        stays
    }

    /// What is on its way into the slot counts no more, and what is in it is nobody's.
    fn take(&mut self, slot: Slot) -> FrameId {
        let entry = &mut self.entries[slot as usize];
        entry.generation = entry.generation.wrapping_add(1);
        std::mem::replace(&mut entry.frame, NO_FRAME)
    }

    /// The slot's frame stays out of any slot: the disk lacks what is in it.
    pub fn set_aside(&mut self, slot: Slot) {
        let had = self.take(slot);
        let of = self.get_mut(had);
        of.is_evicted = true;
        let key = of.key;
        self.evicted.insert(key, had);
    }

    /// The slot's block is forgotten; the disk owes it nothing any more.
    pub fn end(&mut self, slot: Slot) {
        let had = self.take(slot);
        if had != NO_FRAME {
            self.free.push(had);
        }
    }

    /// The frame for the data of the slot's block, which are there from now on.
    pub fn fill(&mut self, slot: Slot) -> FrameId {
        let Entry { key, frame, .. } = self.entries[slot as usize];
        if frame != NO_FRAME {
            return frame;
        }
        let frame = self.allocate(key);
        self.entries[slot as usize].frame = frame;
        frame
    }

    /// A frame for a block that is in no slot any more.
    pub fn fill_evicted(&mut self, key: u64) -> FrameId {
        if let Some(frame) = self.of_evicted(key) {
            return frame;
        }
        let frame = self.allocate(key);
        self.get_mut(frame).is_evicted = true;
        self.evicted.insert(key, frame);
        frame
    }

    fn allocate(&mut self, key: u64) -> FrameId {
        let frame = self.free.pop().unwrap_or_else(|| {
            self.frames.push(Frame::default());
            self.frames.len() as FrameId - 1
        });
        // A stale entry of the queue may still name the frame.
        let is_queued = self.get(frame).is_queued;
        *self.get_mut(frame) = Frame { key, is_queued, ..Frame::default() };
        if self.size > 0 {
            while self.segments.len() <= frame as usize / self.per_segment {
                let bytes = self.per_segment * self.size;
                self.segments.push(vec![0; bytes].into_boxed_slice());
            }
        }
        frame
    }

    /// An evicted frame whose data the disk has, or that nobody wants any more.
    pub fn let_go(&mut self, frame: FrameId) {
        let of = self.get_mut(frame);
        debug_assert!(of.is_evicted);
        of.is_evicted = false;
        let key = of.key;
        self.evicted.remove(&key);
        self.free.push(frame);
    }

    #[inline]
    pub fn data(&self, frame: FrameId) -> &[u8] {
        if self.size == 0 {
            return &[];
        }
        let from = frame as usize % self.per_segment * self.size;
        &self.segments[frame as usize / self.per_segment][from..from + self.size]
    }

    #[inline]
    pub fn data_mut(&mut self, frame: FrameId) -> &mut [u8] {
        if self.size == 0 {
            return &mut [];
        }
        let from = frame as usize % self.per_segment * self.size;
        &mut self.segments[frame as usize / self.per_segment][from..from + self.size]
    }
}
