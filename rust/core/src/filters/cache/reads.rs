//! Reads: what is here is copied at submit, what is missing is fetched, the rest is waited for.

use super::super::{Answer, Child, ChildData, Cx};
use super::work::{Need, PORTION, Piece, Portion, Waiter};
use super::{Cache, FETCHES, Found};
use crate::io::{OK, Op, Status};
use crate::pipeline::ENOMEM;
use crate::slab::IoId;

impl Cache {
    pub(super) fn start_read(&mut self, cx: &mut Cx<'_>, io: IoId) -> Answer {
        let blocks = self.grid.blocks(cx, io);
        let total = blocks.end - blocks.start;
        let (mut hits, mut all_whole) = (0, true);
        self.works[io as usize].begin();
        for block in blocks.clone() {
            let (mut piece, is_hit, found) = self.look_up(cx, block);
            hits += u64::from(is_hit);
            match found {
                Found::Here(frame) => {
                    self.copy_out(cx, io, block, frame);
                    continue;
                }
                Found::Coming => {
                    piece.need = Need::Wait;
                    let Piece { slot, generation, .. } = piece;
                    let piece = self.works[io as usize].pieces.len() as u32;
                    self.waiters.push(Waiter { io, piece, slot, generation });
                    self.works[io as usize].waits += 1;
                }
                Found::Missing => {
                    piece.need = Need::Fetch;
                    all_whole &= self.grid.portion(cx, io, block).whole;
                }
            }
            self.works[io as usize].pieces.push(piece);
        }
        self.count(cx, io, total, hits);
        self.read_ahead(cx, io, &blocks);
        let work = &self.works[io as usize];
        if work.pieces.is_empty() {
            return Answer::Complete;
        }
        if work.pieces.len() as u64 == total && work.waits == 0 && all_whole {
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
        while self.works[io as usize].children < FETCHES && self.works[io as usize].status == OK {
            let Some((first, child)) = self.next_fetch(cx, io) else { return };
            if cx.child(io, child).is_some() {
                let work = &mut self.works[io as usize];
                work.children += 1;
                // They are looked at again when a piece before them turns into a portion: a second
                // fetch into the same bytes would have a layer below decrypt them twice.
                for piece in &mut work.pieces[first..work.next] {
                    piece.need = Need::Nothing;
                }
            } else {
                self.works[io as usize].status = ENOMEM;
                self.works[io as usize].next = first;
                self.give_up_fetching(cx, io);
            }
        }
    }

    /// The next pieces to fetch as one: index of the first, and the child that does it.
    fn next_fetch(&mut self, cx: &Cx<'_>, io: IoId) -> Option<(usize, Child)> {
        let work = &self.works[io as usize];
        let from = work.next;
        let wanted = |piece: &Piece| matches!(piece.need, Need::Fetch | Need::Portion);
        let first = from + work.pieces[from..].iter().position(wanted)?;
        let Piece { block, need, .. } = work.pieces[first];
        let portion = self.grid.portion(cx, io, block);
        let mut end = first + 1;
        let (offset, mut length, data) = if need == Need::Portion || portion.whole {
            let from_bytes = portion.from_bytes - cx.io(io).offset_bytes;
            (portion.from_bytes, portion.length_bytes, ChildData::Share { from_bytes })
        } else {
            (block * self.grid.block, self.on_disk(cx.io(io).disk, block, 1), ChildData::Own)
        };
        if need == Need::Fetch && portion.whole {
            while work.pieces.get(end).is_some_and(|piece| {
                piece.need == Need::Fetch
                    && piece.block == block + (end - first) as u64
                    && self.grid.portion(cx, io, piece.block).whole
            }) {
                end += 1;
            }
            length = (end - first) as u64 * self.grid.block;
        }
        self.works[io as usize].next = end;
        let flags = cx.io(io).flags;
        let tag = first as u64 | if need == Need::Portion { PORTION } else { 0 };
        let child =
            Child { op: Op::Read, offset_bytes: offset, length_bytes: length, flags, data, tag };
        Some((first, child))
    }

    /// A fetch is back.
    pub(super) fn fetch_done(&mut self, cx: &mut Cx<'_>, io: IoId, child: IoId) {
        let (tag, status) = (cx.io(child).tag, cx.io(child).status);
        let first = tag as u32 as usize;
        self.works[io as usize].children -= 1;
        let piece = self.works[io as usize].pieces[first];
        if tag & PORTION != 0 {
            self.note_failure(cx, io, status);
        } else {
            let blocks = cx.io(child).length_bytes.div_ceil(self.grid.block) as usize;
            for i in first..first + blocks {
                let piece = self.works[io as usize].pieces[i];
                if status == OK {
                    self.fetched(cx, io, child, &piece);
                } else {
                    self.drop_block(&piece);
                    self.wake(cx, &piece);
                }
            }
            if status != OK && self.grid.portion(cx, io, piece.block).whole {
                self.note_failure(cx, io, status);
            } else if status != OK {
                // The rest of the block may be what fails.
                self.read_portion(io, first);
            }
        }
        self.fetch(cx, io);
        self.conclude_read(cx, io);
    }

    fn read_portion(&mut self, io: IoId, piece: usize) {
        let work = &mut self.works[io as usize];
        work.pieces[piece].need = Need::Portion;
        work.next = work.next.min(piece);
    }

    fn note_failure(&mut self, cx: &mut Cx<'_>, io: IoId, status: Status) {
        if status != OK && self.works[io as usize].status == OK {
            self.works[io as usize].status = status;
            self.give_up_fetching(cx, io);
        }
    }

    /// A block is here: into the cache unless evicted meanwhile, and to whom it belongs.
    fn fetched(&mut self, cx: &mut Cx<'_>, io: IoId, child: IoId, piece: &Piece) {
        self.arrived(cx, child, piece);
        let wanted = self.grid.portion(cx, io, piece.block);
        if !wanted.whole
            && let Some((from, to)) = cx.data_pair(child, io)
        {
            to[wanted.of_io].copy_from_slice(&from[wanted.of_block]);
        }
        self.wake(cx, piece);
    }

    /// The block's data are among the bytes of `from`.
    pub(super) fn arrived(&mut self, cx: &Cx<'_>, from: IoId, piece: &Piece) {
        let Portion { of_io, of_block, whole, .. } = self.grid.portion(cx, from, piece.block);
        if self.contents.is_some() {
            if whole {
                self.learn(piece.key, &cx.data(from)[of_io]);
            }
        } else if self.is_current(piece) && self.frames.of_slot(piece.slot).is_none() {
            let frame = self.frames.fill(piece.slot);
            self.frames.data_mut(frame)[of_block].copy_from_slice(&cx.data(from)[of_io]);
        }
    }

    /// Ends a deferred read when nothing is under way for it any more.
    pub(super) fn conclude_read(&mut self, cx: &mut Cx<'_>, io: IoId) {
        let work = &mut self.works[io as usize];
        if work.children > 0 || work.waits > 0 || work.concluded {
            return;
        }
        work.concluded = true;
        cx.finish(io, work.status);
    }

    /// The read fails. What it has not begun to fetch, it will not, and whoever waits for that is
    /// told now: nobody else would.
    fn give_up_fetching(&mut self, cx: &mut Cx<'_>, io: IoId) {
        let work = &mut self.works[io as usize];
        let from = std::mem::replace(&mut work.next, work.pieces.len());
        for i in from..self.works[io as usize].pieces.len() {
            let piece = self.works[io as usize].pieces[i];
            if piece.need == Need::Fetch {
                self.drop_block(&piece);
                self.wake(cx, &piece);
            }
        }
    }

    /// A block has come, or will not: the reads that wait for it go on.
    pub(super) fn wake(&mut self, cx: &mut Cx<'_>, piece: &Piece) {
        let mut at = 0;
        while let Some(waiter) = self.waiters.get(at).copied() {
            if (waiter.slot, waiter.generation) != (piece.slot, piece.generation) {
                at += 1;
                continue;
            }
            self.waiters.remove(at);
            let frame = self.is_current(piece).then(|| self.frames.of_slot(piece.slot)).flatten();
            match frame {
                Some(frame) => self.copy_out(cx, waiter.io, piece.block, frame),
                None => self.read_portion(waiter.io, waiter.piece as usize),
            }
            self.works[waiter.io as usize].waits -= 1;
            self.fetch(cx, waiter.io);
            self.conclude_read(cx, waiter.io);
            // What followed from that may have taken others out of the list.
            at = 0;
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
}
