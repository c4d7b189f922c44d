//! Writes: they pass down, and what they wrote is in the cache when they are back.

use super::super::{Answer, Child, ChildData, Cx};
use super::{Cache, Found, Need};
use crate::io::{OK, Op, Status};
use crate::pipeline::ENOMEM;
use crate::slab::IoId;

/// Tag of the write itself; other tags are indices of pieces.
const WRITE: u64 = u64::MAX;

impl Cache {
    pub(super) fn start_write(&mut self, cx: &mut Cx<'_>, io: IoId) -> Answer {
        let blocks = self.blocks(cx, io);
        let total = blocks.end - blocks.start;
        let (mut hits, mut fetches) = (0, false);
        self.works[io as usize].begin();
        for block in blocks {
            let (mut piece, found) = self.look_up(block);
            hits += u64::from(!matches!(found, Found::Missing));
            if matches!(found, Found::Coming) {
                // Only without ordering of conflicts: what is on its way may be older than this.
                self.store.begin(piece.slot, block);
                piece.generation = self.store.generation(piece.slot);
            }
            if !matches!(found, Found::Here) && !self.portion(cx, io, block).whole {
                piece.need = Need::Fetch;
                fetches = true;
            }
            self.works[io as usize].pieces.push(piece);
        }
        self.count(cx, io, total, hits);
        if !fetches {
            return Answer::Pass;
        }
        self.fork_write(cx, io)
    }

    /// The write and the blocks at its edges at the same time: which of both the device does
    /// first does not matter, for the write's own data are laid over what was fetched.
    fn fork_write(&mut self, cx: &mut Cx<'_>, io: IoId) -> Answer {
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
        for i in 0..self.works[io as usize].pieces.len() {
            let piece = self.works[io as usize].pieces[i];
            if piece.need != Need::Fetch {
                continue;
            }
            let fetch = Child {
                op: Op::Read,
                offset_bytes: piece.block * self.block,
                length_bytes: self.block,
                flags: 0,
                data: ChildData::Own,
                tag: i as u64,
            };
            if cx.child(io, fetch).is_some() {
                self.works[io as usize].children += 1;
            }
        }
        Answer::Defer
    }

    pub(super) fn write_child_done(&mut self, cx: &mut Cx<'_>, io: IoId, child: IoId) {
        let (tag, status) = (cx.io(child).tag, cx.io(child).status);
        if tag == WRITE {
            self.works[io as usize].status = status;
        } else if status == OK {
            let piece = self.works[io as usize].pieces[tag as usize];
            if self.is_current(&piece) {
                self.store.data_mut(piece.slot).copy_from_slice(cx.data(child));
                self.works[io as usize].pieces[tag as usize].need = Need::Fetched;
            }
        }
        self.works[io as usize].children -= 1;
        if self.works[io as usize].children == 0 {
            let status = self.works[io as usize].status;
            self.written(cx, io, status);
            cx.finish(io, status);
        }
    }

    /// The write is done: its data go into the cache, or the blocks that it touched leave.
    pub(super) fn written(&mut self, cx: &mut Cx<'_>, io: IoId, status: Status) {
        for i in 0..self.works[io as usize].pieces.len() {
            let piece = self.works[io as usize].pieces[i];
            let portion = self.portion(cx, io, piece.block);
            let complete = portion.whole
                || piece.need == Need::Fetched
                || piece.need == Need::Nothing && self.store.is_valid(piece.slot);
            if status != OK || !complete {
                self.drop_block(&piece);
            } else if self.is_current(&piece) {
                let to = &mut self.store.data_mut(piece.slot)[portion.of_block];
                if cx.io(io).op == Op::WriteZeroes {
                    to.fill(0);
                } else {
                    to.copy_from_slice(&cx.data(io)[portion.of_io]);
                }
                self.store.set_valid(piece.slot);
            }
            self.wake(cx, &piece);
        }
    }
}
