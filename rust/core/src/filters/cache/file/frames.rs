//! Which frame of the cache file holds which block, and what the disk lacks of it.
//!
//! A frame belongs to a slot of the policy (it is attached), or it waits out of any slot until the
//! disk has what is in it and no record names it, or until nobody reads or writes it any more. More
//! frames than slots are there for those that wait.

use crate::eviction::Slot;
use crate::int_map::IntMap;

pub type FrameId = u32;
pub const NO_FRAME: FrameId = u32::MAX;

#[derive(Debug, Clone, Copy, Default)]
pub struct Frame {
    pub key: u64,
    /// I/Os that read or write it: it keeps its block until they are done.
    pub users: u16,
    /// Those of them that write it for a guest.
    pub writers: u16,
    /// The commit of its record.
    pub commit: u32,
    pub is_attached: bool,
    /// All of the block's data are there.
    pub is_valid: bool,
    /// Holds, or is about to hold, what was not sent to the disk.
    pub is_dirty: bool,
    /// On its way to the disk.
    pub is_leaving: bool,
    /// The map on the file names it, or may.
    pub is_recorded: bool,
    /// Its record goes with the commit under way.
    pub is_clearing: bool,
    /// In the line of what is to be destaged.
    pub is_queued: bool,
    /// In the line of what a commit has to record or to clear.
    pub is_listed: bool,
    is_free: bool,
}

/// What the page says: with the slot's number of its frame, 36 bytes a block.
const _: () = assert!(size_of::<Frame>() == 32);

impl Frame {
    /// The disk lacks something of it.
    pub const fn is_owed(&self) -> bool {
        self.is_dirty || self.is_leaving
    }
}

pub struct Frames {
    count: u32,
    /// By slot.
    of: Vec<FrameId>,
    frames: Vec<Frame>,
    free: Vec<FrameId>,
    /// Out of any slot and with data that are still the block's newest, by key.
    detached: IntMap<FrameId>,
}

impl Frames {
    pub fn new(count: u32) -> Self {
        Self {
            count,
            of: Vec::new(),
            frames: Vec::new(),
            free: Vec::new(),
            detached: IntMap::default(),
        }
    }

    pub fn clear(&mut self) {
        *self = Self::new(self.count);
    }

    /// Frames that no block is in.
    pub fn left(&self) -> u32 {
        self.free.len() as u32 + self.count - self.frames.len() as u32
    }

    pub fn get(&self, frame: FrameId) -> &Frame {
        &self.frames[frame as usize]
    }

    pub fn get_mut(&mut self, frame: FrameId) -> &mut Frame {
        &mut self.frames[frame as usize]
    }

    /// As [`Frames::get`], for any number: frames are made as they are first used.
    pub fn find(&self, frame: FrameId) -> Option<&Frame> {
        self.frames.get(frame as usize)
    }

    pub fn of_slot(&self, slot: Slot) -> Option<FrameId> {
        self.of.get(slot as usize).copied().filter(|frame| *frame != NO_FRAME)
    }

    pub fn of_detached(&self, key: u64) -> Option<FrameId> {
        if self.detached.is_empty() { None } else { self.detached.get(&key).copied() }
    }

    pub fn detached_keys(&self) -> impl Iterator<Item = u64> + '_ {
        self.detached.keys().copied()
    }

    /// The slot gets another block. Gives the frame that had to leave it, and the one that the
    /// block still had from before it was evicted, which is the slot's now.
    pub fn begin(&mut self, slot: Slot, key: u64) -> (Option<FrameId>, Option<FrameId>) {
        if self.of.len() <= slot as usize {
            self.of.resize(slot as usize + 1, NO_FRAME);
        }
        let had = self.detach(slot);
        let again = if self.detached.is_empty() { None } else { self.detached.remove(&key) };
        if let Some(frame) = again {
            self.of[slot as usize] = frame;
            self.get_mut(frame).is_attached = true;
        }
        (had, again)
    }

    /// Takes the slot's frame out of it.
    pub fn detach(&mut self, slot: Slot) -> Option<FrameId> {
        let frame = std::mem::replace(self.of.get_mut(slot as usize)?, NO_FRAME);
        if frame == NO_FRAME {
            return None;
        }
        let of = self.get_mut(frame);
        of.is_attached = false;
        // Data on their way in may be dirty: they will be the newest.
        if of.is_valid && (of.is_recorded || of.is_owed()) || of.is_dirty {
            let key = of.key;
            self.detached.insert(key, frame);
        }
        Some(frame)
    }

    /// What is in a frame out of any slot is not its block's newest any more.
    pub fn forget(&mut self, frame: FrameId) {
        let key = self.get(frame).key;
        if self.of_detached(key) == Some(frame) {
            self.detached.remove(&key);
        }
        self.get_mut(frame).is_valid = false;
    }

    /// A frame for the slot's block, without its data yet; none when all are taken.
    pub fn fill(&mut self, slot: Slot, key: u64) -> Option<FrameId> {
        let frame = self.free.pop().or_else(|| {
            let next = self.frames.len() as FrameId;
            (next < self.count).then(|| {
                self.frames.push(Frame::default());
                next
            })
        })?;
        let Frame { is_queued, is_listed, .. } = *self.get(frame);
        let of = Frame { key, is_attached: true, is_queued, is_listed, ..Frame::default() };
        *self.get_mut(frame) = of;
        self.of[slot as usize] = frame;
        Some(frame)
    }

    /// Gives a frame to who comes next, once nothing holds it any more.
    pub fn release(&mut self, frame: FrameId) {
        let of = self.get(frame);
        if of.is_free || of.is_attached || of.users > 0 || of.is_owed() || of.is_recorded {
            return;
        }
        let key = of.key;
        if self.of_detached(key) == Some(frame) {
            self.detached.remove(&key);
        }
        self.get_mut(frame).is_free = true;
        self.free.push(frame);
    }
}
