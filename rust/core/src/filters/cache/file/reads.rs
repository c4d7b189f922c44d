//! Reads: from the file what is there, from the disk what is missing, and then into the file.

use super::super::super::{Answer, Child, ChildData, Cx};
use super::frames::{FrameId, NO_FRAME};
use super::{CHILDREN, FILE, FILLING, FILLS, FileCache, Found, Need, Piece, Waiter};
use crate::io::{OK, Op, Status};
use crate::pipeline::ENOMEM;
use crate::slab::IoId;

/// What a child of a read is, in the upper half of its tag; below is its first piece.
const OF_FILE: u64 = 1 << 32;
const OF_DISK: u64 = 2 << 32;
const OF_PART: u64 = 3 << 32;
const FILL: u64 = 4 << 32;

impl FileCache {
    pub(super) fn start_read(&mut self, cx: &mut Cx<'_>, io: IoId) -> Answer {
        let blocks = self.grid.blocks(cx, io);
        let (total, mut hits) = (blocks.end - blocks.start, 0);
        for block in blocks {
            let (is_hit, found) = self.look_up(cx, block);
            hits += u64::from(is_hit);
            let (frame, need) = match found {
                Found::Here(frame) => (frame, Need::File),
                Found::Coming(frame) => (frame, Need::Wait),
                Found::Fresh(frame) => (frame, Need::Fetch),
                Found::Nowhere => (NO_FRAME, Need::Past),
            };
            self.add_piece(io, Piece { block, frame, need, to_disk: false, over_dirty: false });
        }
        self.count(cx, io, total, hits);
        self.advance(cx, io);
        Answer::Defer
    }

    pub(super) fn add_piece(&mut self, io: IoId, piece: Piece) {
        let work = &mut self.works[io as usize];
        work.pieces.push(piece);
        if piece.need == Need::Wait {
            work.waits += 1;
            let piece_no = work.pieces.len() as u32 - 1;
            self.waiters.push(Waiter { io, piece: piece_no, frame: piece.frame });
        }
    }

    pub(super) fn advance_read(&mut self, cx: &mut Cx<'_>, io: IoId) {
        while self.works[io as usize].children < CHILDREN {
            let work = &self.works[io as usize];
            let wanted = |piece: &Piece| !matches!(piece.need, Need::Nothing | Need::Wait);
            let Some(ahead) = work.pieces[work.next..].iter().position(wanted) else { break };
            let first = work.next + ahead;
            let need = work.pieces[first].need;
            let (end, kind, child) = match need {
                Need::File => self.file_run(cx, io, first, Op::Read),
                Need::Fill => self.file_run(cx, io, first, Op::Write),
                _ => self.disk_run(cx, io, first),
            };
            self.works[io as usize].next = end;
            let child = Child { tag: kind | first as u64, ..child };
            let born = match kind {
                OF_FILE | FILL => cx.child_on(FILE, io, child),
                _ => cx.child(io, child),
            };
            for piece in &mut self.works[io as usize].pieces[first..end] {
                piece.need = Need::Nothing;
            }
            if born.is_some() {
                self.works[io as usize].children += 1;
            } else {
                self.read_failed(cx, io, first..end, ENOMEM);
            }
        }
        self.conclude_read(cx, io);
    }

    /// Pieces in a row whose frames are in a row as well: one I/O on the file.
    pub(super) fn file_run(
        &self,
        cx: &Cx<'_>,
        io: IoId,
        first: usize,
        op: Op,
    ) -> (usize, u64, Child) {
        let pieces = &self.works[io as usize].pieces;
        let Piece { block, frame, need, .. } = pieces[first];
        let mut end = first + 1;
        let mut portion = self.grid.portion(cx, io, block);
        let within = portion.from_bytes - block * self.grid.block;
        while let Some(next) = pieces.get(end) {
            let ahead = (end - first) as u64;
            let is_next = next.need == need
                && next.block == block + ahead
                && next.frame == frame + ahead as u32
                && (op == Op::Read || (ahead + 1) * self.grid.block <= super::super::DESTAGE_BYTES);
            if !is_next {
                break;
            }
            portion.length_bytes += self.grid.portion(cx, io, next.block).length_bytes;
            end += 1;
        }
        let child = Child {
            op,
            offset_bytes: self.header.frame_at_bytes(frame) + within,
            length_bytes: portion.length_bytes,
            flags: 0,
            data: ChildData::Share { from_bytes: portion.from_bytes - cx.io(io).offset_bytes },
            tag: 0,
        };
        (end, if need == Need::Fill { FILL } else { OF_FILE }, child)
    }

    /// Whole blocks in a row, a block of which the read wants a part, or just that part.
    fn disk_run(&self, cx: &Cx<'_>, io: IoId, first: usize) -> (usize, u64, Child) {
        let pieces = &self.works[io as usize].pieces;
        let Piece { block, need, .. } = pieces[first];
        let portion = self.grid.portion(cx, io, block);
        let flags = cx.io(io).flags;
        let mut child = Child {
            op: Op::Read,
            offset_bytes: portion.from_bytes,
            length_bytes: portion.length_bytes,
            flags,
            data: ChildData::Share { from_bytes: portion.from_bytes - cx.io(io).offset_bytes },
            tag: 0,
        };
        if need == Need::Fetch && !portion.whole {
            child.offset_bytes = block * self.grid.block;
            child.length_bytes = self.grid.block;
            child.data = ChildData::Own;
            return (first + 1, OF_PART, child);
        }
        let mut end = first + 1;
        while pieces.get(end).is_some_and(|next| {
            next.need == need
                && next.block == block + (end - first) as u64
                && (need == Need::Past || self.grid.portion(cx, io, next.block).whole)
        }) {
            child.length_bytes += self.grid.portion(cx, io, pieces[end].block).length_bytes;
            end += 1;
        }
        (end, OF_DISK, child)
    }

    /// The pieces that a child of these bytes was for.
    fn pieces_of(&self, cx: &Cx<'_>, io: IoId, child: IoId) -> std::ops::Range<usize> {
        let first = cx.io(child).tag as u32 as usize;
        let mut left = cx.io(child).length_bytes;
        let pieces = &self.works[io as usize].pieces;
        let mut end = first;
        while left > 0 && end < pieces.len() {
            left = left.saturating_sub(self.grid.portion(cx, io, pieces[end].block).length_bytes);
            end += 1;
        }
        first..end
    }

    pub(super) fn read_child_done(&mut self, cx: &mut Cx<'_>, io: IoId, child: IoId) {
        let (kind, status) = (cx.io(child).tag & super::KIND, cx.io(child).status);
        let pieces = match kind {
            OF_PART | FILL => {
                let first = cx.io(child).tag as u32 as usize;
                first..first + (cx.io(child).length_bytes / self.grid.block).max(1) as usize
            }
            _ => self.pieces_of(cx, io, child),
        };
        self.works[io as usize].children -= 1;
        match (kind, status) {
            (OF_FILE, OK) => pieces.for_each(|i| self.end_piece(cx, io, i)),
            (OF_FILE, _) => self.file_read_failed(cx, io, pieces, status),
            (FILL, _) => {
                for i in pieces {
                    let frame = self.works[io as usize].pieces[i].frame;
                    self.filled(cx, frame, status);
                    self.end_piece(cx, io, i);
                }
            }
            (OF_PART, OK) => {
                let wanted =
                    self.grid.portion(cx, io, self.works[io as usize].pieces[pieces.start].block);
                if let Some((from, to)) = cx.data_pair(child, io) {
                    to[wanted.of_io].copy_from_slice(&from[wanted.of_block]);
                }
                self.fill(cx, io, child, pieces.start);
            }
            (OF_PART, _) => {
                // The rest of the block may be what fails, or the disk ends inside it.
                let frame = self.works[io as usize].pieces[pieces.start].frame;
                self.drop_frame(frame);
                self.lose_frame(cx, io, pieces.start);
                self.wake(cx, frame);
            }
            (_, OK) => {
                for i in pieces {
                    if self.works[io as usize].pieces[i].frame != NO_FRAME {
                        self.fill(cx, io, child, i);
                    }
                }
            }
            _ => self.read_failed(cx, io, pieces, status),
        }
        self.advance_read(cx, io);
    }

    /// The block is among the bytes of `from` and goes into its frame. The read waits for that only
    /// when too many are on their way.
    fn fill(&mut self, cx: &mut Cx<'_>, io: IoId, from: IoId, index: usize) {
        let Piece { block, frame, .. } = self.works[io as usize].pieces[index];
        if self.fills >= FILLS && self.grid.portion(cx, io, block).whole {
            // Its bytes stay with the read.
            let work = &mut self.works[io as usize];
            work.pieces[index].need = Need::Fill;
            work.next = work.next.min(index);
            return;
        }
        let within = self.grid.portion(cx, from, block).of_io;
        let child = Child {
            op: Op::Write,
            offset_bytes: self.header.frame_at_bytes(frame),
            length_bytes: self.grid.block,
            flags: 0,
            data: ChildData::Own,
            tag: FILLING | u64::from(frame),
        };
        let in_background = self.fills < FILLS;
        let born = if in_background {
            cx.background_on(FILE, child)
        } else {
            cx.child_on(FILE, io, Child { tag: FILL | index as u64, ..child })
        };
        let Some(fill) = born else {
            self.drop_frame(frame);
            self.wake(cx, frame);
            return self.end_piece(cx, io, index);
        };
        if in_background {
            self.fills += 1;
            // From now on it is the fill that uses the frame.
            self.works[io as usize].pieces[index].frame = NO_FRAME;
        } else {
            self.works[io as usize].children += 1;
        }
        if let Some((data, to)) = cx.data_pair(from, fill) {
            to.copy_from_slice(&data[within]);
        }
    }

    /// The file does not give what it was given. If the disk has it, it comes from there.
    fn file_read_failed(
        &mut self,
        cx: &mut Cx<'_>,
        io: IoId,
        pieces: std::ops::Range<usize>,
        status: Status,
    ) {
        self.file_failed(cx, Op::Read, status);
        for i in pieces {
            let frame = self.works[io as usize].pieces[i].frame;
            if self.frames.get(frame).is_owed() {
                self.works[io as usize].status = status;
                self.end_piece(cx, io, i);
            } else {
                self.drop_frame(frame);
                self.lose_frame(cx, io, i);
            }
        }
    }

    fn read_failed(
        &mut self,
        cx: &mut Cx<'_>,
        io: IoId,
        pieces: std::ops::Range<usize>,
        status: Status,
    ) {
        self.works[io as usize].status = status;
        for i in pieces {
            let frame: FrameId = self.works[io as usize].pieces[i].frame;
            if frame == NO_FRAME {
                continue;
            }
            if !self.frames.get(frame).is_valid {
                self.drop_frame(frame);
                self.wake(cx, frame);
            }
            self.end_piece(cx, io, i);
        }
    }

    fn conclude_read(&mut self, cx: &mut Cx<'_>, io: IoId) {
        let work = &mut self.works[io as usize];
        let is_left = work.pieces[work.next..].iter().any(|piece| piece.need != Need::Nothing);
        if work.children > 0 || work.waits > 0 || is_left || work.concluded {
            return;
        }
        work.concluded = true;
        cx.finish(io, work.status);
    }
}
