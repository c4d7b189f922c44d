//! `cache`: a block cache before the disk, in memory or on a file. The page is in `cache/page.rs`;
//! a cache on a file is in [`file`], what follows is one in memory.
//!
//! The policy decides at submit, block by block, and knows nothing of data: that is how the
//! filter counts the same hits as the simulator. What it says is in a slot may still be on its
//! way, or have been evicted with the disk lacking it: see [`frames`] for where data lie,
//! [`reads`] and [`writes`] for the ways of an I/O, [`destage`] for write-back, [`ahead`] for
//! read-ahead and [`dedup`] for content.

use super::{Answer, Class, Cx, Filter, Kind, Up};
use crate::eviction::{Access, Eviction, Slot};
use crate::io::Op;
use crate::slab::{self, IoId};

mod ahead;
mod dedup;
mod destage;
mod file;
mod frames;
mod grid;
mod page;
mod reads;
mod settings;
mod work;
mod writes;

use ahead::{AHEAD, Ahead};
use dedup::Contents;
use destage::Debts;
use frames::{FrameId, Frames};
use grid::Grid;
use work::{NO_SLOT, Piece, Waiter, Work};

pub const KIND: Kind = Kind {
    name: "cache",
    class: Some(Class::Cache),
    page: page::PAGE,
    schema: settings::schema,
    build: settings::build,
};

/// Fetches under way at one time for one I/O; more wait, so that slots stay bounded.
const FETCHES: u32 = 4;
/// Writes of dirty blocks under way at one time, and the longest of them.
const DESTAGES: usize = 8;
const DESTAGE_BYTES: u64 = 256 << 10;
/// Fetches ahead under way at one time.
const AHEADS: usize = 4;

struct Cache {
    policy: Box<dyn Eviction>,
    frames: Frames,
    /// With write-back.
    debts: Option<Debts>,
    ahead: Option<Ahead>,
    contents: Option<Contents>,
    is_around: bool,
    /// After a clean stop reads go to the disk: it has everything.
    is_stopped: bool,
    grid: Grid,
    /// By disk: its size, none where that is not known.
    disk_bytes: Vec<u64>,
    /// By [`IoId`].
    works: Vec<Work>,
    /// A few at most: I/Os in flight on blocks in flight.
    waiters: Vec<Waiter>,
    requests: i64,
    hits: i64,
}

/// Where a request found its block.
#[derive(Debug, Clone, Copy)]
enum Found {
    Here(FrameId),
    /// On its way.
    Coming,
    Missing,
}

impl Cache {
    /// The policy's answer, whether it counts as a hit, and where the data are.
    #[inline]
    fn look_up(&mut self, cx: &Cx<'_>, block: u64) -> (Piece, bool, Found) {
        let key = self.grid.key(cx.disk(), block);
        if self.contents.is_some() {
            return self.look_up_content(block, key);
        }
        let (slot, is_hit) = match self.policy.access(key) {
            Access::Hit(slot) => (slot, true),
            Access::Miss { slot, .. } => {
                self.begin(slot, key);
                (slot, false)
            }
        };
        let found = match self.frames.of_slot(slot) {
            Some(frame) => Found::Here(frame),
            None if is_hit => Found::Coming,
            None => Found::Missing,
        };
        (Piece::new(block, key, slot, self.frames.generation(slot)), is_hit, found)
    }

    /// The slot gets another block; what it held stays until the disk has it.
    fn begin(&mut self, slot: Slot, key: u64) {
        if let Some(stays) = self.frames.begin(slot, key) {
            self.queue(stays);
        }
    }

    fn count(&mut self, cx: &mut Cx<'_>, io: IoId, blocks: u64, hits: u64) {
        self.requests += blocks as i64;
        self.hits += hits as i64;
        cx.count_blocks(io, blocks as u32, hits as u32);
    }

    /// Bytes of some blocks that are on the disk: it may end inside the last.
    fn on_disk(&self, disk: u16, block: u64, blocks: u64) -> u64 {
        let end = self.disk_bytes.get(usize::from(disk)).copied().unwrap_or(u64::MAX);
        let from = block * self.grid.block;
        // None at all: the disk will say so.
        if from < end {
            (blocks * self.grid.block).min(end - from)
        } else {
            blocks * self.grid.block
        }
    }

    /// A layer above that works in whole units may go beyond the end of a disk that has none: the
    /// disk says whether it can, and a block has as many bytes as are asked of it.
    #[inline]
    fn reach(&mut self, cx: &Cx<'_>, io: IoId) {
        let io = cx.io(io);
        let to = io.offset_bytes + io.length_bytes;
        if let Some(end) = self.disk_bytes.get_mut(usize::from(io.disk)).filter(|end| **end < to) {
            *end = to;
        }
    }

    #[inline]
    fn copy_out(&mut self, cx: &mut Cx<'_>, io: IoId, block: u64, frame: FrameId) {
        let portion = self.grid.portion(cx, io, block);
        let data = &self.frames.data(frame)[portion.of_block];
        cx.data_mut(io)[portion.of_io].copy_from_slice(data);
    }

    /// Is the block still the one that the piece was answered for?
    fn is_current(&self, piece: &Piece) -> bool {
        piece.slot != NO_SLOT && self.frames.generation(piece.slot) == piece.generation
    }

    /// Forgets a block that did not come.
    fn drop_block(&mut self, piece: &Piece) {
        let frame = self.is_current(piece).then(|| self.frames.of_slot(piece.slot));
        if frame.is_some_and(|frame| frame.is_none_or(|f| !self.frames.get(f).is_owed())) {
            self.policy.remove(piece.key);
            self.frames.end(piece.slot);
        }
    }

    fn discard(&mut self, cx: &mut Cx<'_>, io: IoId) {
        let whole = self.grid.whole_keys(cx, io);
        if self.contents.is_some() {
            return self.forget_contents(whole);
        }
        let late: Vec<u64> = self.frames.evicted_keys().filter(|key| whole.contains(key)).collect();
        for frame in
            late.into_iter().filter_map(|key| self.frames.of_evicted(key)).collect::<Vec<_>>()
        {
            self.forgive(cx, frame);
        }
        if whole.end - whole.start > self.policy.len() as u64 {
            // Also what the policy remembers of blocks that left.
            for key in self.policy.known(whole) {
                self.discard_block(cx, key);
            }
            return;
        }
        for key in whole {
            self.discard_block(cx, key);
        }
    }

    fn discard_block(&mut self, cx: &mut Cx<'_>, key: u64) {
        if let Some(slot) = self.policy.remove(key) {
            let frame = self.frames.of_slot(slot);
            if let Some(frame) = frame {
                self.forgive(cx, frame);
            }
            if frame.is_some_and(|frame| self.frames.get(frame).is_owed()) {
                self.frames.set_aside(slot);
            } else {
                self.frames.end(slot);
            }
        }
    }

    fn start_change(&mut self, cx: &mut Cx<'_>, io: IoId) -> Answer {
        self.is_stopped = false;
        if let Some(debts) = &mut self.debts {
            debts.is_closing = false;
        }
        if let Some(ahead) = &mut self.ahead {
            ahead.changes(io);
        }
        let answer = match cx.io(io).op {
            Op::Discard => {
                self.works[io as usize].begin();
                self.discard(cx, io);
                if self.must_wait_for_destage(cx, io) { Answer::Defer } else { Answer::Pass }
            }
            _ => self.start_write(cx, io),
        };
        if matches!(answer, Answer::Complete | Answer::Fail(_)) {
            self.changed(io);
        }
        answer
    }

    /// An I/O that changes data is done.
    fn changed(&mut self, io: IoId) {
        if let Some(ahead) = &mut self.ahead {
            ahead.changed(io);
        }
    }
}

impl Filter for Cache {
    fn open(&mut self, slots: usize) {
        self.policy.clear();
        self.frames.clear();
        if let Some(debts) = &mut self.debts {
            debts.clear();
        }
        if let Some(ahead) = &mut self.ahead {
            ahead.clear();
        }
        if let Some(contents) = &mut self.contents {
            contents.clear();
        }
        self.works.clear();
        self.works.resize_with(slots, Work::default);
        self.waiters.clear();
        (self.requests, self.hits, self.is_stopped) = (0, 0, false);
    }

    fn io_start(&mut self, cx: &mut Cx<'_>, io: IoId) -> Answer {
        self.reach(cx, io);
        if self.grid.is_beyond(cx, io) {
            self.works[io as usize].begin();
            return Answer::Pass;
        }
        match cx.io(io).op {
            Op::Read if self.is_stopped => {
                self.works[io as usize].begin();
                Answer::Pass
            }
            Op::Read => self.start_read(cx, io),
            Op::Flush => self.start_flush(cx, io),
            Op::Write | Op::WriteZeroes | Op::Discard => self.start_change(cx, io),
        }
    }

    fn io_complete(&mut self, cx: &mut Cx<'_>, io: IoId) -> Up {
        let status = cx.io(io).status;
        match cx.io(io).op {
            Op::Read => self.read_passed(cx, io, status),
            Op::Write | Op::WriteZeroes => self.written(cx, io, status),
            Op::Flush => {}
            Op::Discard => self.changed(io),
        }
        Up::Pass
    }

    fn child_complete(&mut self, cx: &mut Cx<'_>, parent: IoId, child: IoId) {
        if parent == slab::NONE {
            if cx.io(child).tag & AHEAD != 0 && cx.io(child).op == Op::Read {
                self.ahead_done(cx, child);
            } else {
                self.destaged(cx, child);
            }
            return;
        }
        match cx.io(parent).op {
            Op::Read => self.fetch_done(cx, parent, child),
            _ => self.write_child_done(cx, parent, child),
        }
    }

    fn timer(&mut self, cx: &mut Cx<'_>, _token: u64) {
        self.destage_timer(cx);
    }

    fn close(&mut self, cx: &mut Cx<'_>) {
        self.is_stopped = true;
        self.stop(cx);
    }

    fn gauges(&self, out: &mut Vec<(&'static str, i64)>) {
        let bytes = |blocks: u64| (blocks * self.grid.block) as i64;
        out.push(("cached_bytes", bytes(self.policy.len() as u64)));
        out.push(("cache_requests", self.requests));
        out.push(("cache_hits", self.hits));
        if let Some(debts) = &self.debts {
            out.push(("dirty_bytes", bytes(debts.blocks)));
            out.push(("dirty_oldest_ns", self.oldest_ns() as i64));
            out.push(("destaged_bytes", debts.destaged_blocks * self.grid.block as i64));
        }
        if let Some(contents) = &self.contents {
            out.push(("logical_bytes", bytes(contents.logical_blocks)));
            out.push(("shared_blocks", contents.shared_blocks));
        }
        if let Some(ahead) = &self.ahead {
            out.push(("read_ahead_bytes", ahead.fetched_blocks * self.grid.block as i64));
        }
    }
}

#[cfg(test)]
mod tests;
