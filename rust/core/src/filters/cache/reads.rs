//! Reads: what is here is copied at submit, what is missing is fetched, the rest is waited for.

use super::super::{Answer, Child, ChildData, Cx};
use super::{Cache, FETCHES, Found, Need, Piece, Waiter};
use crate::eviction::Slot;
use crate::io::{OK, Op, Status};
use crate::pipeline::ENOMEM;
use crate::slab::IoId;

/// Tag of the child that sends a read down as it is; other tags are indices of pieces.
const AS_IT_IS: u64 = u64::MAX;

impl Cache {
    pub(super) fn start_read(&mut self, cx: &mut Cx<'_>, io: IoId) -> Answer {
        let blocks = self.blocks(cx, io);
        let total = blocks.end - blocks.start;
        let (mut hits, mut all_whole) = (0, true);
        self.works[io as usize].begin();
        for block in blocks {
            let (mut piece, found) = self.look_up(block);
            hits += u64::from(!matches!(found, Found::Missing));
            match found {
                Found::Here => {
                    self.copy_out(cx, io, block, piece.slot);
                    continue;
                }
                Found::Coming => {
                    piece.need = Need::Wait;
                    let Piece { slot, generation, .. } = piece;
                    self.waiters.push(Waiter { io, block, slot, generation });
                    self.works[io as usize].waits += 1;
                }
                Found::Missing => {
                    piece.need = Need::Fetch;
                    all_whole &= self.portion(cx, io, block).whole;
                }
            }
            self.works[io as usize].pieces.push(piece);
        }
        self.count(cx, io, total, hits);
        let work = &self.works[io as usize];
        if work.pieces.is_empty() {
            return Answer::Complete;
        }
        if hits == 0 && all_whole {
            // The I/O itself brings all that is missing: no child is needed.
            return Answer::Pass;
        }
        self.fetch(cx, io);
        self.conclude_read(cx, io);
        Answer::Defer
    }

    /// Starts fetches, up to the limit. Neighbouring blocks that the read covers whole are one
    /// I/O straight into the read's bytes; a block covered in part needs a buffer of its own.
    fn fetch(&mut self, cx: &mut Cx<'_>, io: IoId) {
        while self.works[io as usize].children < FETCHES && !self.works[io as usize].failed {
            let Some((first, blocks, data)) = self.next_run(cx, io) else { return };
            let child = Child {
                op: Op::Read,
                offset_bytes: self.works[io as usize].pieces[first].block * self.block,
                length_bytes: blocks * self.block,
                flags: cx.io(io).flags,
                data,
                tag: first as u64,
            };
            let forked = cx.child(io, child);
            match forked {
                Some(_) => self.works[io as usize].children += 1,
                None => self.not_fetched(cx, io, first, blocks),
            }
        }
    }

    /// The next pieces to fetch as one: index of the first, how many blocks, and into where.
    fn next_run(&mut self, cx: &Cx<'_>, io: IoId) -> Option<(usize, u64, ChildData)> {
        let work = &self.works[io as usize];
        let from = work.next;
        let first = from + work.pieces[from..].iter().position(|p| p.need == Need::Fetch)?;
        let block = work.pieces[first].block;
        let mut end = first + 1;
        let data = if self.portion(cx, io, block).whole {
            while work.pieces.get(end).is_some_and(|piece| {
                piece.need == Need::Fetch
                    && piece.block == block + (end - first) as u64
                    && self.portion(cx, io, piece.block).whole
            }) {
                end += 1;
            }
            ChildData::Share { from_bytes: block * self.block - cx.io(io).offset_bytes }
        } else {
            ChildData::Own
        };
        self.works[io as usize].next = end;
        Some((first, (end - first) as u64, data))
    }

    /// A fetch, or a read sent down as it is, is back.
    pub(super) fn fetch_done(&mut self, cx: &mut Cx<'_>, io: IoId, child: IoId) {
        let (tag, status) = (cx.io(child).tag, cx.io(child).status);
        self.works[io as usize].children -= 1;
        if tag == AS_IT_IS {
            cx.finish(io, status);
            return;
        }
        let blocks = cx.io(child).length_bytes / self.block;
        let first = tag as usize;
        if status == OK {
            for i in first..first + blocks as usize {
                let piece = self.works[io as usize].pieces[i];
                self.fetched(cx, io, child, &piece);
            }
            self.fetch(cx, io);
        } else {
            self.not_fetched(cx, io, first, blocks);
        }
        self.conclude_read(cx, io);
    }

    /// A block is here: into the cache unless evicted meanwhile, and to whom it belongs.
    fn fetched(&mut self, cx: &mut Cx<'_>, io: IoId, child: IoId, piece: &Piece) {
        let of_child = self.portion(cx, child, piece.block);
        if self.is_current(piece) {
            let data = &cx.data(child)[of_child.of_io.clone()];
            self.store.data_mut(piece.slot).copy_from_slice(data);
            self.store.set_valid(piece.slot);
        }
        let wanted = self.portion(cx, io, piece.block);
        if !wanted.whole
            && let Some((from, to)) = cx.data_pair(child, io)
        {
            to[wanted.of_io].copy_from_slice(&from[wanted.of_block]);
        }
        self.wake(cx, piece);
    }

    fn not_fetched(&mut self, cx: &mut Cx<'_>, io: IoId, first: usize, blocks: u64) {
        for i in first..first + blocks as usize {
            let piece = self.works[io as usize].pieces[i];
            self.drop_block(&piece);
            self.wake(cx, &piece);
        }
        self.give_up_fetching(cx, io);
    }

    /// Ends a deferred read when nothing is under way for it any more.
    pub(super) fn conclude_read(&mut self, cx: &mut Cx<'_>, io: IoId) {
        let work = &self.works[io as usize];
        if work.children > 0 || work.waits > 0 || work.concluded {
            return;
        }
        self.works[io as usize].concluded = true;
        if !self.works[io as usize].failed {
            cx.finish(io, OK);
            return;
        }
        let child = Child {
            op: Op::Read,
            offset_bytes: cx.io(io).offset_bytes,
            length_bytes: cx.io(io).length_bytes,
            flags: cx.io(io).flags,
            data: ChildData::Share { from_bytes: 0 },
            tag: AS_IT_IS,
        };
        match cx.child(io, child) {
            Some(_) => self.works[io as usize].children += 1,
            None => cx.finish(io, ENOMEM),
        }
    }

    /// The read will go down as it is. What it has not begun to fetch, it will not, and whoever
    /// waits for that is told now: nobody else would.
    pub(super) fn give_up_fetching(&mut self, cx: &mut Cx<'_>, io: IoId) {
        let work = &mut self.works[io as usize];
        work.failed = true;
        let from = std::mem::replace(&mut work.next, work.pieces.len());
        for i in from..self.works[io as usize].pieces.len() {
            let piece = self.works[io as usize].pieces[i];
            if piece.need == Need::Fetch {
                self.drop_block(&piece);
                self.wake(cx, &piece);
            }
        }
    }

    /// A read that brought all its blocks by itself is on its way up.
    pub(super) fn read_passed(&mut self, cx: &mut Cx<'_>, io: IoId, status: Status) {
        for i in 0..self.works[io as usize].pieces.len() {
            let piece = self.works[io as usize].pieces[i];
            if status == OK {
                self.fetched(cx, io, io, &piece);
            } else {
                self.drop_block(&piece);
                self.wake(cx, &piece);
            }
        }
    }

    pub(super) fn copy_out(&mut self, cx: &mut Cx<'_>, io: IoId, block: u64, slot: Slot) {
        let portion = self.portion(cx, io, block);
        let data = &self.store.data(slot)[portion.of_block];
        cx.data_mut(io)[portion.of_io].copy_from_slice(data);
    }
}
