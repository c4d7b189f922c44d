//! Writes: to the disk and into the file at the same time, or into the file alone (write-back).

use super::super::super::{Answer, Child, ChildData, Cx};
use super::frames::NO_FRAME;
use super::{CHILDREN, FILE, FileCache, Found, Need, Piece};
use crate::io::{OK, Op, Status, flags};
use crate::pipeline::ENOMEM;
use crate::slab::IoId;

/// What a child of a write is, in the upper half of its tag; below is its first piece.
const TO_FILE: u64 = 1 << 32;
const TO_DISK: u64 = 2 << 32;
const FETCH: u64 = 3 << 32;

impl FileCache {
    pub(super) fn start_write(&mut self, cx: &mut Cx<'_>, io: IoId) -> Answer {
        let blocks = self.grid.blocks(cx, io);
        let (total, mut hits, mut has_frames) = (blocks.end - blocks.start, 0, false);
        for block in blocks {
            if self.passes(cx, block) {
                let (frame, need) = (NO_FRAME, Need::Nothing);
                self.add_piece(io, Piece { block, frame, need, to_disk: true, over_dirty: false });
                continue;
            }
            let (is_hit, found) = self.look_up(cx, block);
            hits += u64::from(is_hit);
            let is_whole = self.grid.portion(cx, io, block).whole;
            let (frame, need) = match found {
                Found::Here(frame) => (frame, Need::File),
                Found::Coming(frame) => (frame, Need::Wait),
                Found::Fresh(frame) if is_whole => (frame, Need::File),
                Found::Fresh(frame) => (frame, Need::Fetch),
                Found::Nowhere => (NO_FRAME, Need::Nothing),
            };
            let (mut to_disk, mut over_dirty) = (true, false);
            if frame != NO_FRAME {
                has_frames = true;
                self.frames.get_mut(frame).writers += 1;
                over_dirty = self.frames.get(frame).is_owed();
                to_disk = !self.owe(cx, frame);
            }
            self.add_piece(io, Piece { block, frame, need, to_disk, over_dirty });
        }
        self.count(cx, io, total, hits);
        if !has_frames && self.dirty.is_none() {
            return Answer::Pass;
        }
        self.advance_write(cx, io);
        Answer::Defer
    }

    /// With write-around, what is not here is not brought.
    fn passes(&self, cx: &Cx<'_>, block: u64) -> bool {
        self.is_around && self.policy.resident(self.grid.key(cx.disk(), block)).is_none()
    }

    pub(super) fn advance_write(&mut self, cx: &mut Cx<'_>, io: IoId) {
        while self.works[io as usize].children < CHILDREN {
            let Some((pieces, kind, child)) = self.next_write(cx, io) else { break };
            let child = Child { tag: kind | pieces.start as u64, ..child };
            let born = match kind {
                TO_FILE => cx.child_on(FILE, io, child),
                _ => cx.child(io, child),
            };
            if let Some(born) = born {
                self.works[io as usize].children += 1;
                if kind == TO_FILE && cx.io(io).op == Op::WriteZeroes {
                    cx.data_mut(born).fill(0);
                }
            } else if kind == TO_DISK {
                self.works[io as usize].status = ENOMEM;
            } else {
                pieces.for_each(|i| self.write_lost(cx, io, i, ENOMEM));
            }
        }
        self.conclude_write(cx, io);
    }

    /// The next child: its pieces, what it is, and how it is done.
    fn next_write(
        &mut self,
        cx: &Cx<'_>,
        io: IoId,
    ) -> Option<(std::ops::Range<usize>, u64, Child)> {
        let work = &mut self.works[io as usize];
        let pieces = &mut work.pieces;
        // What goes to the disk first: it takes longest, and a write through is one I/O there.
        if let Some(ahead) = pieces[work.next_to_disk..].iter().position(|piece| piece.to_disk) {
            let first = work.next_to_disk + ahead;
            let run = pieces[first..].iter().take_while(|piece| piece.to_disk).count();
            work.next_to_disk = first + run;
            return Some((first..first + run, TO_DISK, self.to_disk(cx, io, first, first + run)));
        }
        work.next_to_disk = pieces.len();
        let wanted = |piece: &Piece| !matches!(piece.need, Need::Nothing | Need::Wait);
        let first = work.next + pieces[work.next..].iter().position(wanted)?;
        let need = pieces[first].need;
        let (end, kind, child) = match need {
            Need::File => {
                let (end, _, mut child) = self.file_run(cx, io, first, Op::Write);
                if cx.io(io).op == Op::WriteZeroes {
                    // A real write: zeros made by the file system would leave a hole.
                    child.data = ChildData::Own;
                }
                (end, TO_FILE, child)
            }
            Need::Fetch => {
                let child = Child {
                    op: Op::Read,
                    offset_bytes: self.works[io as usize].pieces[first].block * self.grid.block,
                    length_bytes: self.grid.block,
                    flags: 0,
                    data: ChildData::Own,
                    tag: 0,
                };
                (first + 1, FETCH, child)
            }
            _ => (first + 1, TO_DISK, self.to_disk(cx, io, first, first + 1)),
        };
        let work = &mut self.works[io as usize];
        work.next = end;
        for piece in &mut work.pieces[first..end] {
            piece.need = Need::Nothing;
        }
        Some((first..end, kind, child))
    }

    /// The part of a write from one piece to another, for the disk.
    fn to_disk(&self, cx: &Cx<'_>, io: IoId, first: usize, end: usize) -> Child {
        let pieces = &self.works[io as usize].pieces;
        let from = self.grid.portion(cx, io, pieces[first].block).from_bytes;
        let last = self.grid.portion(cx, io, pieces[end - 1].block);
        let op = cx.io(io).op;
        let from_bytes = from - cx.io(io).offset_bytes;
        // Zeros have no bytes to share.
        let is_write = op == Op::Write;
        Child {
            op,
            offset_bytes: from,
            length_bytes: last.from_bytes + last.length_bytes - from,
            flags: cx.io(io).flags,
            data: if is_write { ChildData::Share { from_bytes } } else { ChildData::Own },
            tag: 0,
        }
    }

    pub(super) fn write_child_done(&mut self, cx: &mut Cx<'_>, io: IoId, child: IoId) {
        let of = cx.io(child);
        let (kind, status, first) = (of.tag & super::KIND, of.status, of.tag as u32 as usize);
        self.works[io as usize].children -= 1;
        match kind {
            TO_DISK => {
                self.commit.note_disk(cx.io(io).disk);
                if status != OK {
                    self.works[io as usize].status = status;
                }
            }
            FETCH if status == OK => self.lay_over(cx, io, child, first),
            FETCH => {
                let frame = self.works[io as usize].pieces[first].frame;
                self.drop_frame(frame);
                self.lose_frame(cx, io, first);
                self.wake(cx, frame);
            }
            _ => {
                for i in self.pieces_written(cx, io, child) {
                    self.written(cx, io, i, status);
                }
            }
        }
        self.advance_write(cx, io);
    }

    /// The pieces of a write to the file: frames in a row.
    fn pieces_written(&self, cx: &Cx<'_>, io: IoId, child: IoId) -> std::ops::Range<usize> {
        let (first, length) = (cx.io(child).tag as u32 as usize, cx.io(child).length_bytes);
        let at = self.works[io as usize].pieces[first].block;
        let from = cx.io(child).offset_bytes % self.grid.block;
        let blocks = (from + length).div_ceil(self.grid.block);
        debug_assert!(self.works[io as usize].pieces[first + blocks as usize - 1].block >= at);
        first..first + blocks as usize
    }

    /// The write's part over the rest of its block, which was fetched, and both into the file.
    fn lay_over(&mut self, cx: &mut Cx<'_>, io: IoId, fetched: IoId, index: usize) {
        let Piece { block, frame, .. } = self.works[io as usize].pieces[index];
        let child = Child {
            op: Op::Write,
            offset_bytes: self.header.frame_at_bytes(frame),
            length_bytes: self.grid.block,
            flags: 0,
            data: ChildData::Own,
            tag: TO_FILE | index as u64,
        };
        let Some(write) = cx.child_on(FILE, io, child) else {
            return self.write_lost(cx, io, index, ENOMEM);
        };
        self.works[io as usize].children += 1;
        if let Some((from, to)) = cx.data_pair(fetched, write) {
            to.copy_from_slice(from);
        }
        let portion = self.grid.portion(cx, io, block);
        if cx.io(io).op == Op::WriteZeroes {
            cx.data_mut(write)[portion.of_block].fill(0);
        } else if let Some((from, to)) = cx.data_pair(io, write) {
            to[portion.of_block].copy_from_slice(&from[portion.of_io]);
        }
    }

    /// A piece is in the file, or not.
    fn written(&mut self, cx: &mut Cx<'_>, io: IoId, index: usize, status: Status) {
        if status != OK {
            self.file_failed(cx, Op::Write, status);
            return self.write_lost(cx, io, index, status);
        }
        let frame = self.works[io as usize].pieces[index].frame;
        self.frames.get_mut(frame).is_valid = true;
        self.commit.is_file_unflushed |= self.frames.get(frame).is_dirty;
        self.wake(cx, frame);
    }

    /// A piece could not be written to the file. What the disk lacked before is there alone, so
    /// the write fails; any other goes to the disk, and its block leaves.
    fn write_lost(&mut self, cx: &mut Cx<'_>, io: IoId, index: usize, status: Status) {
        let Piece { frame, over_dirty, .. } = self.works[io as usize].pieces[index];
        if over_dirty {
            self.works[io as usize].status = status;
            return;
        }
        self.drop_frame(frame);
        self.lose_frame(cx, io, index);
        self.wake(cx, frame);
    }

    fn conclude_write(&mut self, cx: &mut Cx<'_>, io: IoId) {
        let work = &mut self.works[io as usize];
        let is_left = work.next_to_disk < work.pieces.len()
            || work.pieces[work.next..].iter().any(|piece| piece.need != Need::Nothing);
        if work.children > 0 || work.waits > 0 || is_left || work.concluded {
            return;
        }
        work.concluded = true;
        let status = work.status;
        for i in 0..self.works[io as usize].pieces.len() {
            let frame = self.works[io as usize].pieces[i].frame;
            if frame == NO_FRAME {
                continue;
            }
            // Nobody knows what the disk has there now.
            if status != OK && !self.frames.get(frame).is_owed() {
                self.drop_frame(frame);
            }
            self.end_piece(cx, io, i);
        }
        let is_fua = cx.io(io).flags & flags::FUA != 0;
        if status == OK && is_fua && self.dirty.is_some() {
            self.commit.wait(io);
            self.begin_commit(cx);
        } else {
            cx.finish(io, status);
        }
        self.destage(cx);
    }
}
