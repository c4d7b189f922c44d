//! A cache whose data lie in a file on a fast device; in memory there is only the map.
//!
//! The policy is asked just as in a cache in memory, so the same hits are counted. What differs is
//! that data come and go by I/O: [`reads`] and [`writes`] are lists of pieces, each of which is
//! done by children. [`frames`] tells which place of the file holds what; [`layout`] is the file;
//! [`start`] finds out what an earlier run left there and brings it to the disk; [`commit`] makes
//! what was acknowledged durable, which is all that a flush does; [`destage`] pays the disk.

use super::super::{Answer, Auxiliary, Cx, Filter, Up};
use super::grid::Grid;
use crate::clock::Ns;
use crate::eviction::{Access, Eviction, Slot};
use crate::io::{OK, Op, Status};
use crate::slab::{self, IoId};

mod commit;
mod destage;
mod frames;
pub mod layout;
mod reads;
mod start;
mod writes;

use commit::Commit;
pub use destage::Dirty;
use frames::{FrameId, Frames, NO_FRAME};
use layout::Header;
use start::Start;

/// The only auxiliary device: the cache file.
const FILE: u8 = 0;
/// Children under way at one time for one I/O; more wait, so that slots stay bounded.
pub const CHILDREN: u32 = 4;
/// Blocks on their way into the cache that no I/O waits for.
pub const FILLS: u32 = 32;
/// After the file was full or failed, nothing new goes into it for so long.
const REST_NS: Ns = 1_000_000_000;

/// What a background I/O is, in the upper half of its tag; below is a number.
const FILLING: u64 = 1 << 32;
const STARTING: u64 = 2 << 32;
const COMMITTING: u64 = 3 << 32;
const READING: u64 = 4 << 32;
const DESTAGING: u64 = 5 << 32;
const KIND: u64 = 0xff << 32;

/// What is left to do for a block of an I/O.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Need {
    Nothing,
    /// To be read from its frame, or written there.
    File,
    /// To be brought from the disk, the whole block.
    Fetch,
    /// The read has brought it: to be written to its frame.
    Fill,
    /// Somebody else brings it.
    Wait,
    /// The I/O's part of it goes to or comes from the disk alone.
    Past,
}

#[derive(Debug, Clone, Copy)]
struct Piece {
    block: u64,
    frame: FrameId,
    need: Need,
    /// A write that the disk gets as well.
    to_disk: bool,
    /// A write over what the disk lacked before: the file has the only copy.
    over_dirty: bool,
}

#[derive(Debug, Default)]
struct Work {
    pieces: Vec<Piece>,
    /// The first piece not yet looked at, and the first that may have to go to the disk.
    next: usize,
    next_to_disk: usize,
    children: u32,
    waits: u32,
    concluded: bool,
    status: Status,
}

impl Work {
    fn begin(&mut self) {
        self.pieces.clear();
        (self.next, self.next_to_disk, self.children, self.waits) = (0, 0, 0, 0);
        (self.concluded, self.status) = (false, OK);
    }
}

/// A piece that waits for a frame's data.
#[derive(Debug, Clone, Copy)]
struct Waiter {
    io: IoId,
    piece: u32,
    frame: FrameId,
}

/// Where a request found its block.
enum Found {
    Here(FrameId),
    Coming(FrameId),
    /// It has a frame now, without data.
    Fresh(FrameId),
    /// There is no room: the block is not cached.
    Nowhere,
}

pub struct FileCache {
    pub(super) policy: Box<dyn Eviction>,
    pub(super) frames: Frames,
    pub(super) grid: Grid,
    pub(super) auxiliary: Auxiliary,
    /// What the file is to be, once `start` has given it its life.
    pub(super) header: Header,
    pub(super) start: Start,
    /// With write-back.
    pub(super) dirty: Option<Dirty>,
    pub(super) commit: Commit,
    pub(super) is_around: bool,
    /// Blocks that it holds.
    capacity: u64,
    pub(super) counters: Counters,
    works: Vec<Work>,
    waiters: Vec<Waiter>,
    fills: u32,
    /// After a clean stop reads go to the disk: it has everything.
    is_stopped: bool,
    /// Until when nothing new goes into the file.
    rests_to: Option<Ns>,
    seen_ns: Ns,
}

#[derive(Debug, Default)]
pub struct Counters {
    requests: i64,
    hits: i64,
    file_errors: i64,
    uncached_blocks: i64,
}

/// I/Os of a commit under way at one time.
pub fn commit_ios(disks: usize) -> usize {
    Commit::ios_max(disks)
}

/// What `build` gives.
pub struct Parts {
    pub policy: Box<dyn Eviction>,
    pub grid: Grid,
    pub auxiliary: Auxiliary,
    pub header: Header,
    pub dirty: Option<Dirty>,
    pub is_around: bool,
    pub capacity: u64,
    pub child_bytes: u64,
    pub life: u64,
}

impl FileCache {
    pub fn new(parts: Parts) -> Self {
        Self {
            policy: parts.policy,
            frames: Frames::new(parts.header.frames as u32),
            grid: parts.grid,
            auxiliary: parts.auxiliary,
            header: parts.header,
            start: Start::new(parts.life, parts.child_bytes),
            dirty: parts.dirty,
            commit: Commit::new(),
            is_around: parts.is_around,
            capacity: parts.capacity,
            counters: Counters::default(),
            works: Vec::new(),
            waiters: Vec::new(),
            fills: 0,
            is_stopped: false,
            rests_to: None,
            seen_ns: 0,
        }
    }

    /// The policy's answer, whether it counts as a hit, and where the data are. A frame that is
    /// given is in use until [`FileCache::unuse`].
    fn look_up(&mut self, cx: &Cx<'_>, block: u64) -> (bool, Found) {
        let key = self.grid.key(cx.disk(), block);
        let (slot, is_hit) = match self.policy.access(key) {
            Access::Hit(slot) => (slot, true),
            Access::Miss { slot, .. } => {
                self.begin(slot, key);
                (slot, false)
            }
        };
        let found = match self.frames.of_slot(slot) {
            Some(frame) if self.frames.get(frame).is_valid => Found::Here(frame),
            Some(frame) => Found::Coming(frame),
            None => match self.room(cx).then(|| self.frames.fill(slot, key)).flatten() {
                Some(frame) => Found::Fresh(frame),
                None => {
                    self.policy.remove(key);
                    self.counters.uncached_blocks += 1;
                    Found::Nowhere
                }
            },
        };
        if let Found::Here(frame) | Found::Coming(frame) | Found::Fresh(frame) = found {
            self.frames.get_mut(frame).users += 1;
        }
        (is_hit, found)
    }

    /// Whether something new may go into the file.
    fn room(&mut self, cx: &Cx<'_>) -> bool {
        match self.rests_to {
            None => true,
            Some(until) if cx.now() < until => false,
            Some(_) => {
                self.rests_to = None;
                true
            }
        }
    }

    /// The slot gets another block; what it held stays until the disk has it.
    fn begin(&mut self, slot: Slot, key: u64) {
        let (had, _) = self.frames.begin(slot, key);
        if let Some(frame) = had {
            if let Some(dirty) = &mut self.dirty
                && self.frames.get(frame).is_dirty
            {
                dirty.evicted.push_back(frame);
            }
            self.frames.release(frame);
        }
    }

    fn unuse(&mut self, frame: FrameId) {
        self.frames.get_mut(frame).users -= 1;
        self.frames.release(frame);
    }

    /// A frame's data cannot be had or trusted, and the disk lacks nothing of them.
    fn drop_frame(&mut self, frame: FrameId) {
        let of = self.frames.get(frame);
        let key = of.key;
        if of.is_attached && self.policy.remove(key).and_then(|s| self.frames.detach(s)).is_none() {
            return;
        }
        self.forgive(frame);
        self.frames.forget(frame);
        self.clear_record(frame);
        self.frames.release(frame);
    }

    /// The file failed an I/O. Told once for each time that it begins.
    fn file_failed(&mut self, cx: &mut Cx<'_>, op: Op, status: Status) {
        self.counters.file_errors += 1;
        if op == Op::Write {
            if self.rests_to.is_none() {
                let detail = format!("{{\"errno\": {status}, \"op\": \"write\"}}");
                cx.event("cache_file_failed", detail);
            }
            self.rests_to = Some(cx.now() + REST_NS);
        }
    }

    /// A frame has its data, or will not have them: who waits for them goes on.
    fn wake(&mut self, cx: &mut Cx<'_>, frame: FrameId) {
        let is_valid = self.frames.get(frame).is_valid;
        while let Some(at) = self.waiters.iter().position(|waiter| waiter.frame == frame) {
            let Waiter { io, piece, .. } = self.waiters.remove(at);
            let work = &mut self.works[io as usize];
            work.waits -= 1;
            work.next = work.next.min(piece as usize);
            work.pieces[piece as usize].need = Need::File;
            if !is_valid {
                self.lose_frame(cx, io, piece as usize);
            }
            self.advance(cx, io);
        }
    }

    /// A piece has to do without its frame.
    fn lose_frame(&mut self, cx: &Cx<'_>, io: IoId, index: usize) {
        let work = &mut self.works[io as usize];
        let piece = &mut work.pieces[index];
        piece.need = if piece.to_disk { Need::Nothing } else { Need::Past };
        work.next = work.next.min(index);
        self.end_piece(cx, io, index);
    }

    /// A piece needs its frame no longer.
    fn end_piece(&mut self, cx: &Cx<'_>, io: IoId, index: usize) {
        let piece = &mut self.works[io as usize].pieces[index];
        let frame = std::mem::replace(&mut piece.frame, NO_FRAME);
        if frame != NO_FRAME {
            let of = self.frames.get_mut(frame);
            of.users -= 1;
            of.writers -= u16::from(cx.io(io).op != Op::Read);
            self.frames.release(frame);
        }
    }

    /// Does what can be done now for a deferred I/O, and ends it when nothing is left.
    fn advance(&mut self, cx: &mut Cx<'_>, io: IoId) {
        if cx.io(io).op == Op::Read {
            self.advance_read(cx, io);
        } else {
            self.advance_write(cx, io);
        }
    }

    /// Data of a frame are in the file, or not.
    fn filled(&mut self, cx: &mut Cx<'_>, frame: FrameId, status: Status) {
        if status == OK {
            self.frames.get_mut(frame).is_valid = true;
        } else {
            self.file_failed(cx, Op::Write, status);
            self.drop_frame(frame);
        }
        self.wake(cx, frame);
    }

    fn discard(&mut self, cx: &Cx<'_>, io: IoId) {
        let whole = self.grid.whole_keys(cx, io);
        let late: Vec<FrameId> = self
            .frames
            .detached_keys()
            .filter(|key| whole.contains(key))
            .filter_map(|key| self.frames.of_detached(key))
            .collect();
        for frame in late {
            self.drop_frame(frame);
        }
        let mut keys: Vec<u64> = Vec::new();
        if whole.end - whole.start > self.policy.len() as u64 {
            // Also what the policy remembers of blocks that left.
            keys.extend(self.policy.known(whole));
        } else {
            keys.extend(whole);
        }
        for key in keys {
            if let Some(frame) = self.policy.remove(key).and_then(|s| self.frames.detach(s)) {
                self.drop_frame(frame);
            }
        }
    }

    fn dispatch(&mut self, cx: &mut Cx<'_>, io: IoId) -> Answer {
        self.seen_ns = self.seen_ns.max(cx.io(io).submit_ns);
        self.works[io as usize].begin();
        if self.grid.is_beyond(cx, io) {
            return Answer::Pass;
        }
        let op = cx.io(io).op;
        if op.modifies() {
            self.is_stopped = false;
            if let Some(dirty) = &mut self.dirty {
                dirty.is_closing = false;
            }
        }
        match op {
            Op::Read if self.is_stopped => Answer::Pass,
            Op::Read => self.start_read(cx, io),
            Op::Flush => self.start_flush(cx, io),
            Op::Write | Op::WriteZeroes => self.start_write(cx, io),
            Op::Discard if self.must_wait_for_destage(cx, io) => Answer::Defer,
            Op::Discard => {
                self.discard(cx, io);
                self.commit.note_disk(cx.io(io).disk);
                Answer::Pass
            }
        }
    }

    fn count(&mut self, cx: &mut Cx<'_>, io: IoId, blocks: u64, hits: u64) {
        self.counters.requests += blocks as i64;
        self.counters.hits += hits as i64;
        cx.count_blocks(io, blocks as u32, hits as u32);
    }
}

impl Filter for FileCache {
    fn open(&mut self, slots: usize) {
        if self.dirty.is_some() && (self.is_owing() || self.commit.is_needed()) {
            // The last stop was not a clean one: what the file holds is looked at again.
            self.start.again();
        }
        self.policy.clear();
        self.frames.clear();
        if let Some(dirty) = &mut self.dirty {
            dirty.clear();
        }
        self.commit.clear();
        self.works.clear();
        self.works.resize_with(slots, Work::default);
        self.waiters.clear();
        self.counters = Counters::default();
        (self.fills, self.is_stopped, self.rests_to) = (0, false, None);
    }

    fn auxiliaries(&self) -> Vec<Auxiliary> {
        vec![self.auxiliary.clone()]
    }

    fn io_start(&mut self, cx: &mut Cx<'_>, io: IoId) -> Answer {
        if self.start.is_ready() {
            return self.dispatch(cx, io);
        }
        self.hold_until_started(cx, io)
    }

    fn io_complete(&mut self, _cx: &mut Cx<'_>, _io: IoId) -> Up {
        Up::Pass
    }

    fn child_complete(&mut self, cx: &mut Cx<'_>, parent: IoId, child: IoId) {
        if parent != slab::NONE {
            return match cx.io(parent).op {
                Op::Read => self.read_child_done(cx, parent, child),
                _ => self.write_child_done(cx, parent, child),
            };
        }
        let (tag, status) = (cx.io(child).tag, cx.io(child).status);
        match tag & KIND {
            FILLING => {
                let frame = tag as FrameId;
                self.fills -= 1;
                self.filled(cx, frame, status);
                self.unuse(frame);
            }
            STARTING => self.start_step(cx, child),
            COMMITTING => self.commit_step(cx, status),
            READING => self.destage_read(cx, child),
            _ => self.destaged(cx, child),
        }
    }

    fn timer(&mut self, cx: &mut Cx<'_>, _token: u64) {
        self.destage_timer(cx);
    }

    fn close(&mut self, cx: &mut Cx<'_>) {
        if !self.start.is_ready() {
            return self.begin_start(cx);
        }
        self.is_stopped = true;
        self.stop(cx);
    }

    fn is_busy(&self) -> bool {
        self.start.is_under_way() || self.is_stopping()
    }

    fn failure(&self) -> Option<String> {
        let file = self
            .auxiliary
            .path
            .as_ref()
            .map_or_else(String::new, |path| format!("{}: ", path.display()));
        self.start.failure().map(|why| format!("{file}the cache file: {why}"))
    }

    fn gauges(&self, out: &mut Vec<(&'static str, i64)>) {
        let bytes = |blocks: u64| (blocks * self.grid.block) as i64;
        out.push(("cached_bytes", bytes(self.policy.len() as u64)));
        out.push(("cache_requests", self.counters.requests));
        out.push(("cache_hits", self.counters.hits));
        out.push(("cache_file_errors", self.counters.file_errors));
        out.push(("uncached_blocks", self.counters.uncached_blocks));
        if let Some(dirty) = &self.dirty {
            out.push(("dirty_bytes", bytes(dirty.blocks)));
            out.push(("dirty_oldest_ns", self.oldest_ns() as i64));
            out.push(("destaged_bytes", bytes(dirty.destaged_blocks)));
        }
    }
}

#[cfg(test)]
mod tests;
