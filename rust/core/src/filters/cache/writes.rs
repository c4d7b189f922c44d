//! Writes: past the cache to the disk and into the cache when they are back, or into the cache
//! alone, to reach the disk later.

use super::super::{Answer, Child, ChildData, Cx};
use super::frames::{FrameId, NO_FRAME};
use super::work::{Need, PORTION, Piece};
use super::{Cache, Found};
use crate::io::{OK, Op, Status, flags};
use crate::pipeline::ENOMEM;
use crate::slab::IoId;

/// Tag of the write itself; other tags are indices of pieces, with [`PORTION`] set where the
/// child writes the piece's part of the write.
const WRITE: u64 = u64::MAX;
/// Blocks of a write that are kept whatever became of them.
const PIECES: usize = 1 << 16;

impl Cache {
    pub(super) fn start_write(&mut self, cx: &mut Cx<'_>, io: IoId) -> Answer {
        let blocks = self.grid.blocks(cx, io);
        let total = blocks.end - blocks.start;
        let is_fua = cx.io(io).flags & flags::FUA != 0;
        let is_back = self.debts.as_ref().is_some_and(|debts| !is_fua && debts.have_room(total));
        self.works[io as usize].begin();
        self.works[io as usize].is_back = is_back;
        let (mut hits, mut fetches) = (0, false);
        for block in blocks {
            if self.passes(cx, block) {
                continue;
            }
            let (mut piece, is_hit, found) = self.look_up(cx, block);
            hits += u64::from(is_hit);
            if matches!(found, Found::Coming) {
                // Without ordering of conflicts, or read ahead: it may be older than this.
                self.frames.begin(piece.slot, piece.key);
                piece.generation = self.frames.generation(piece.slot);
            }
            let is_whole = self.grid.portion(cx, io, block).whole;
            if is_back && (is_whole || matches!(found, Found::Here(_))) {
                self.put_dirty(cx, io, &piece);
                continue;
            }
            if !is_whole && !matches!(found, Found::Here(_)) && self.contents.is_none() {
                piece.need = Need::Fetch;
                fetches = true;
            }
            self.keep(io, piece);
        }
        self.count(cx, io, total, hits);
        if is_back {
            self.destage(cx);
            return if fetches { self.fork(cx, io, false) } else { Answer::Complete };
        }
        if self.must_wait_for_destage(cx, io) {
            return Answer::Defer;
        }
        self.hold(io);
        if fetches { self.fork(cx, io, true) } else { Answer::Pass }
    }

    /// Notes a block of a write. Of one that is longer than the cache (write_zeroes may be), what
    /// it has evicted itself is not kept.
    fn keep(&mut self, io: IoId, piece: Piece) {
        let mut pieces = std::mem::take(&mut self.works[io as usize].pieces);
        let is_full = pieces.len() == pieces.capacity() && pieces.len() >= PIECES;
        if is_full && self.contents.is_none() {
            pieces.retain(|piece| piece.need != Need::Nothing || self.is_current(piece));
        }
        pieces.push(piece);
        self.works[io as usize].pieces = pieces;
    }

    /// With write-around, what is not here is not brought.
    fn passes(&self, cx: &Cx<'_>, block: u64) -> bool {
        self.is_around && self.policy.resident(self.grid.key(cx.disk(), block)).is_none()
    }

    /// A write that waited for the destaging of what it covers goes on.
    pub(super) fn write_past(&mut self, cx: &mut Cx<'_>, io: IoId) {
        self.hold(io);
        let work = &self.works[io as usize];
        if !work.pieces.iter().any(|piece| piece.need == Need::Fetch) {
            cx.resume(io);
        } else if let Answer::Fail(status) = self.fork(cx, io, true) {
            cx.finish(io, status);
        }
    }

    /// Dirty blocks under a write to the disk stay until it is there: they must not pass it.
    fn hold(&mut self, io: IoId) {
        if self.debts.is_none() {
            return;
        }
        for piece in &mut self.works[io as usize].pieces {
            let resident = self.policy.resident(piece.key);
            let frame = resident
                .and_then(|slot| self.frames.of_slot(slot))
                .or_else(|| self.frames.of_evicted(piece.key));
            if let Some(frame) = frame.filter(|frame| self.frames.get(*frame).is_dirty) {
                self.frames.get_mut(frame).holders += 1;
                piece.held = frame;
            }
        }
    }

    /// The write (`itself`) and the blocks at its edges at the same time: which of both the device
    /// does first does not matter, for the write's own data are laid over what was fetched.
    fn fork(&mut self, cx: &mut Cx<'_>, io: IoId, itself: bool) -> Answer {
        if itself {
            let above = cx.io(io);
            let write = Child {
                op: above.op,
                offset_bytes: above.offset_bytes,
                length_bytes: above.length_bytes,
                flags: above.flags,
                data: ChildData::Share { from_bytes: 0 },
                tag: WRITE,
            };
            if cx.child(io, write).is_none() {
                self.written(cx, io, ENOMEM);
                return Answer::Fail(ENOMEM);
            }
            self.works[io as usize].children = 1;
        }
        for i in 0..self.works[io as usize].pieces.len() {
            let piece = self.works[io as usize].pieces[i];
            if piece.need != Need::Fetch {
                continue;
            }
            let fetch = Child {
                op: Op::Read,
                offset_bytes: piece.block * self.grid.block,
                length_bytes: self.on_disk(cx.io(io).disk, piece.block, 1),
                flags: 0,
                data: ChildData::Own,
                tag: i as u64,
            };
            if cx.child(io, fetch).is_some() {
                self.works[io as usize].children += 1;
            } else if !itself {
                self.write_portion(cx, io, i);
            }
        }
        if self.works[io as usize].children == 0 {
            return Answer::Fail(ENOMEM);
        }
        Answer::Defer
    }

    /// Of a block that cannot be fetched, the write's part goes to the disk.
    fn write_portion(&mut self, cx: &mut Cx<'_>, io: IoId, index: usize) {
        let piece = self.works[io as usize].pieces[index];
        self.drop_block(&piece);
        self.wake(cx, &piece);
        let portion = self.grid.portion(cx, io, piece.block);
        let write = Child {
            op: cx.io(io).op,
            offset_bytes: portion.from_bytes,
            length_bytes: portion.length_bytes,
            flags: cx.io(io).flags,
            data: ChildData::Share { from_bytes: portion.from_bytes - cx.io(io).offset_bytes },
            tag: index as u64 | PORTION,
        };
        if cx.child(io, write).is_some() {
            self.works[io as usize].children += 1;
        } else {
            self.works[io as usize].status = ENOMEM;
        }
    }

    pub(super) fn write_child_done(&mut self, cx: &mut Cx<'_>, io: IoId, child: IoId) {
        let (tag, status) = (cx.io(child).tag, cx.io(child).status);
        self.works[io as usize].children -= 1;
        let is_back = self.works[io as usize].is_back;
        if tag == WRITE || tag & PORTION != 0 {
            if status != OK {
                self.works[io as usize].status = status;
            }
        } else if status == OK {
            let piece = self.works[io as usize].pieces[tag as usize];
            if is_back {
                self.put_dirty_over(cx, io, child, &piece);
                self.wake(cx, &piece);
            } else if self.is_current(&piece) {
                self.arrived(cx, child, &piece);
                self.works[io as usize].pieces[tag as usize].need = Need::Fetched;
            }
        } else if is_back {
            self.write_portion(cx, io, tag as usize);
        }
        if self.works[io as usize].children > 0 {
            return;
        }
        let status = self.works[io as usize].status;
        if is_back {
            self.changed(io);
            self.destage(cx);
        } else {
            self.written(cx, io, status);
        }
        cx.finish(io, status);
    }

    /// The write is done: its data go into the cache, or the blocks that it touched leave.
    pub(super) fn written(&mut self, cx: &mut Cx<'_>, io: IoId, status: Status) {
        for i in 0..self.works[io as usize].pieces.len() {
            let piece = self.works[io as usize].pieces[i];
            if piece.held != NO_FRAME {
                self.written_over(cx, io, &piece, status);
                continue;
            }
            if self.contents.is_some() {
                self.content_written(cx, io, &piece, status);
                continue;
            }
            let is_whole = self.grid.portion(cx, io, piece.block).whole;
            let is_here = self.is_current(&piece) && self.frames.of_slot(piece.slot).is_some();
            if status != OK || !(is_whole || is_here) {
                self.drop_block(&piece);
            } else if self.is_current(&piece) {
                let frame = self.frames.fill(piece.slot);
                self.lay_over(cx, io, piece.block, frame);
            }
            self.wake(cx, &piece);
        }
        self.changed(io);
        self.destage(cx);
    }

    /// A write that went past a dirty block. If it failed, nobody knows what the disk has there;
    /// the block still holds what was written before, and will be written again.
    fn written_over(&mut self, cx: &mut Cx<'_>, io: IoId, piece: &Piece, status: Status) {
        let frame = piece.held;
        self.frames.get_mut(frame).holders -= 1;
        if status == OK {
            self.lay_over(cx, io, piece.block, frame);
            if self.grid.portion(cx, io, piece.block).whole {
                self.forgive(cx, frame);
            }
        }
        self.queue(frame);
    }

    /// The write's part of the block into the frame, dirty from now on.
    pub(super) fn put_dirty(&mut self, cx: &Cx<'_>, io: IoId, piece: &Piece) {
        let frame = self.frame_for(piece);
        self.lay_over(cx, io, piece.block, frame);
        self.owe(cx, frame);
    }

    /// Where dirty data of the block go: its slot's frame, or one out of any slot if the block
    /// was evicted while the rest of it was fetched.
    fn frame_for(&mut self, piece: &Piece) -> FrameId {
        if self.is_current(piece) {
            self.frames.fill(piece.slot)
        } else {
            self.frames.fill_evicted(piece.key)
        }
    }

    /// As `put_dirty`, over the rest of the block, which was fetched.
    fn put_dirty_over(&mut self, cx: &Cx<'_>, io: IoId, fetched: IoId, piece: &Piece) {
        let known = if self.is_current(piece) {
            self.frames.of_slot(piece.slot)
        } else {
            self.frames.of_evicted(piece.key)
        };
        if known.is_none() {
            let frame = self.frame_for(piece);
            let data = cx.data(fetched);
            self.frames.data_mut(frame)[..data.len()].copy_from_slice(data);
        }
        self.put_dirty(cx, io, piece);
    }

    /// What of the write falls into the block.
    #[inline]
    fn lay_over(&mut self, cx: &Cx<'_>, io: IoId, block: u64, frame: FrameId) {
        let portion = self.grid.portion(cx, io, block);
        let to = &mut self.frames.data_mut(frame)[portion.of_block];
        if cx.io(io).op == Op::WriteZeroes {
            to.fill(0);
        } else {
            to.copy_from_slice(&cx.data(io)[portion.of_io]);
        }
    }
}
