//! Write-back: what the cache owes the disk, in which order it pays, and who waits for it.
//!
//! Every dirty block belongs to an epoch; each flush ends one. A flush goes on to the disk when no
//! block of its epoch or an earlier one is owed any more, whatever was written since.

use std::collections::VecDeque;

use super::super::{Answer, Child, ChildData, Cx};
use super::frames::FrameId;
use super::{Cache, DESTAGE_BYTES, DESTAGES};
use crate::clock::Ns;
use crate::io::{OK, Op, Status};
use crate::slab::IoId;

/// After a destage failed, the next is tried this much later.
const RETRY_NS: Ns = 100_000_000;
/// Tag of the flush that ends a clean stop; other tags are numbers of flights.
const LAST_FLUSH: u64 = u64::MAX;
const TIMER: u64 = 1;

/// Neighbouring blocks on their way to the disk as one I/O.
#[derive(Debug, Default)]
struct Flight {
    frames: Vec<FrameId>,
    disk: u16,
    from_bytes: u64,
    to_bytes: u64,
}

pub struct Debts {
    blocks_max: u64,
    after_ns: Ns,
    /// Dirty or on their way to the disk.
    pub blocks: u64,
    pub destaged_blocks: i64,
    /// Dirty frames, the first to become so first; may hold some that are not any more.
    queue: VecDeque<FrameId>,
    /// Evicted ones, which go first: their memory is beyond the capacity.
    evicted: VecDeque<FrameId>,
    flights: [Flight; DESTAGES],
    grounded: Vec<usize>,
    /// Blocks owed by epoch, from `first_epoch` on.
    owed: VecDeque<u64>,
    first_epoch: u64,
    flushes: VecDeque<(IoId, u64)>,
    /// Wait for a destage under way where they write or discard.
    waiting: Vec<IoId>,
    timer_at: Option<Ns>,
    /// After a failure: not before.
    retry_at: Option<Ns>,
    pub is_closing: bool,
    /// By disk: destaged since the last flush.
    unflushed: Vec<u16>,
    /// The last time that was looked at.
    seen_ns: Ns,
}

impl Debts {
    pub fn new(blocks_max: u64, after_ns: Ns) -> Self {
        Self {
            blocks_max,
            after_ns,
            blocks: 0,
            destaged_blocks: 0,
            queue: VecDeque::new(),
            evicted: VecDeque::new(),
            flights: std::array::from_fn(|_| Flight::default()),
            grounded: (0..DESTAGES).collect(),
            owed: VecDeque::from([0]),
            first_epoch: 0,
            flushes: VecDeque::new(),
            waiting: Vec::new(),
            timer_at: None,
            retry_at: None,
            is_closing: false,
            unflushed: Vec::new(),
            seen_ns: 0,
        }
    }

    pub fn clear(&mut self) {
        *self = Self::new(self.blocks_max, self.after_ns);
    }

    pub const fn have_room(&self, blocks: u64) -> bool {
        self.blocks + blocks <= self.blocks_max
    }

    fn epoch(&self) -> u64 {
        self.first_epoch + self.owed.len() as u64 - 1
    }

    fn count(&mut self, epoch: u64) -> &mut u64 {
        &mut self.owed[(epoch - self.first_epoch) as usize]
    }

    /// Does it not matter how long the oldest has been dirty?
    fn is_urgent(&self) -> bool {
        self.is_closing || !self.flushes.is_empty() || self.blocks * 2 > self.blocks_max
    }
}

impl Cache {
    /// The disk lacks what was just put into the frame.
    pub(super) fn owe(&mut self, cx: &Cx<'_>, frame: FrameId) {
        let Some(debts) = &mut self.debts else { return };
        let of = self.frames.get_mut(frame);
        if !of.is_dirty {
            debts.blocks += u64::from(!of.is_leaving);
            of.is_dirty = true;
            of.epoch = debts.epoch();
            of.dirty_ns = cx.now();
            debts.seen_ns = of.dirty_ns;
            *debts.count(of.epoch) += 1;
        }
        self.queue(frame);
    }

    /// The disk has it after all, or it is not wanted any more.
    pub(super) fn forgive(&mut self, cx: &mut Cx<'_>, frame: FrameId) {
        let Some(debts) = &mut self.debts else { return };
        let of = self.frames.get_mut(frame);
        if of.is_dirty {
            of.is_dirty = false;
            debts.blocks -= u64::from(!of.is_leaving);
            *debts.count(of.epoch) -= 1;
        }
        self.let_go(frame);
        self.let_flushes_go(cx);
    }

    /// Into the line of what is to be destaged, if it is dirty and not there.
    pub(super) fn queue(&mut self, frame: FrameId) {
        let Some(debts) = &mut self.debts else { return };
        let of = self.frames.get_mut(frame);
        if !of.is_dirty || of.is_leaving {
            return;
        }
        if of.is_evicted {
            debts.evicted.push_back(frame);
        } else if !of.is_queued {
            of.is_queued = true;
            debts.queue.push_back(frame);
        }
    }

    /// A frame out of any slot goes when the disk has what is in it.
    fn let_go(&mut self, frame: FrameId) {
        let of = self.frames.get(frame);
        if of.is_evicted && !of.is_owed() && of.holders == 0 {
            self.frames.let_go(frame);
        }
    }

    /// How long the oldest data that the disk lacks have been waiting.
    pub(super) fn oldest_ns(&self) -> Ns {
        let Some(debts) = &self.debts else { return 0 };
        let since = |frame: &FrameId| {
            let of = self.frames.get(*frame);
            of.is_owed().then_some(of.dirty_ns)
        };
        let queued = debts.queue.iter().find_map(since);
        let evicted = debts.evicted.iter().filter_map(since).min();
        let flying = debts.flights.iter().flat_map(|f| &f.frames).filter_map(since).min();
        let oldest = [queued, evicted, flying].into_iter().flatten().min();
        oldest.map_or(0, |since| debts.seen_ns.saturating_sub(since))
    }

    /// Starts what destages may start now.
    pub(super) fn destage(&mut self, cx: &mut Cx<'_>) {
        let Some(debts) = &mut self.debts else { return };
        if debts.blocks == 0 {
            return;
        }
        if let Some(at) = debts.retry_at {
            if cx.now() < at {
                return;
            }
            debts.retry_at = None;
        }
        while let Some(frame) = self.next_due(cx) {
            if !self.send(cx, frame) {
                break;
            }
        }
    }

    /// The next frame to leave, if one may leave now.
    fn next_due(&mut self, cx: &mut Cx<'_>) -> Option<FrameId> {
        let debts = self.debts.as_mut()?;
        if debts.grounded.is_empty() {
            return None;
        }
        while let Some(frame) = debts.evicted.pop_front() {
            let of = self.frames.get(frame);
            if of.is_dirty && !of.is_leaving && of.holders == 0 {
                return Some(frame);
            }
        }
        while let Some(frame) = debts.queue.front().copied() {
            let of = self.frames.get_mut(frame);
            if of.is_dirty && !of.is_leaving && of.holders == 0 {
                let due = of.dirty_ns + debts.after_ns;
                if debts.after_ns > 0 && !debts.is_urgent() && due > cx.now() {
                    if debts.timer_at.is_none() {
                        debts.timer_at = Some(due);
                        cx.timer(due, TIMER);
                    }
                    return None;
                }
            }
            debts.queue.pop_front();
            of.is_queued = false;
            if of.is_dirty && !of.is_leaving && of.holders == 0 {
                return Some(frame);
            }
        }
        None
    }

    /// Sends the frame, and dirty neighbours behind it, to the disk.
    fn send(&mut self, cx: &mut Cx<'_>, first: FrameId) -> bool {
        let Some(number) = self.debts.as_mut().and_then(|debts| debts.grounded.pop()) else {
            return false;
        };
        let key = self.frames.get(first).key;
        let (disk, block) = self.grid.place(cx, key);
        let mut frames = self.flight_of(number);
        frames.clear();
        frames.push(first);
        while (frames.len() as u64 + 1) * self.grid.block <= DESTAGE_BYTES {
            let Some(next) = self.dirty_frame(key + frames.len() as u64) else { break };
            frames.push(next);
        }
        let from_bytes = block * self.grid.block;
        let length_bytes = self.on_disk(disk, block, frames.len() as u64);
        let child = Child {
            op: Op::Write,
            offset_bytes: from_bytes,
            length_bytes,
            flags: 0,
            data: ChildData::Own,
            tag: number as u64,
        };
        let id = cx.background_of(disk, child);
        if let Some(id) = id {
            let size = self.grid.mode.size(self.grid.block);
            for (i, frame) in frames.iter().enumerate() {
                let to = &mut cx.data_mut(id)[i * size..];
                let to_bytes = size.min(to.len());
                to[..to_bytes].copy_from_slice(&self.frames.data(*frame)[..to_bytes]);
                let of = self.frames.get_mut(*frame);
                (of.is_dirty, of.is_leaving, of.leaving_epoch) = (false, true, of.epoch);
            }
        }
        if let Some(debts) = &mut self.debts {
            debts.flights[number] =
                Flight { frames, disk, from_bytes, to_bytes: from_bytes + length_bytes };
            if id.is_none() {
                debts.flights[number].frames.clear();
                debts.grounded.push(number);
                debts.evicted.push_front(first);
            }
        }
        id.is_some()
    }

    fn flight_of(&mut self, number: usize) -> Vec<FrameId> {
        self.debts
            .as_mut()
            .map_or_else(Vec::new, |debts| std::mem::take(&mut debts.flights[number].frames))
    }

    /// The frame of a block that may leave along with its neighbour.
    fn dirty_frame(&self, key: u64) -> Option<FrameId> {
        let resident = self.policy.resident(key).and_then(|slot| self.frames.of_slot(slot));
        let frame = resident.or_else(|| self.frames.of_evicted(key))?;
        let of = self.frames.get(frame);
        (of.is_dirty && !of.is_leaving && of.holders == 0).then_some(frame)
    }

    /// A background I/O of the write-back is done.
    pub(super) fn destaged(&mut self, cx: &mut Cx<'_>, child: IoId) {
        let (tag, status) = (cx.io(child).tag, cx.io(child).status);
        if tag == LAST_FLUSH {
            return;
        }
        let number = tag as usize;
        let frames = self.flight_of(number);
        for frame in &frames {
            self.landed(*frame, status);
        }
        let Some(debts) = &mut self.debts else { return };
        let disk = debts.flights[number].disk;
        debts.flights[number].frames = frames;
        debts.flights[number].frames.clear();
        debts.grounded.push(number);
        if status == OK {
            debts.destaged_blocks += cx.io(child).length_bytes.div_ceil(self.grid.block) as i64;
            if !debts.unflushed.contains(&disk) {
                debts.unflushed.push(disk);
            }
        } else {
            self.destage_failed(cx, status);
        }
        self.let_flushes_go(cx);
        self.let_waiting_go(cx);
        self.destage(cx);
        self.end_stop(cx);
    }

    fn landed(&mut self, frame: FrameId, status: Status) {
        let Some(debts) = &mut self.debts else { return };
        let of = self.frames.get_mut(frame);
        of.is_leaving = false;
        let epoch = of.leaving_epoch;
        if status == OK {
            *debts.count(epoch) -= 1;
            debts.blocks -= u64::from(!of.is_dirty);
        } else {
            // Still owed, since when it was; what has been put over it is owed with it.
            if of.is_dirty {
                *debts.count(of.epoch) -= 1;
            }
            (of.is_dirty, of.epoch) = (true, epoch);
        }
        self.queue(frame);
        self.let_go(frame);
    }

    /// Whoever waits is told; the data stay and are tried again, except at the end of the run.
    fn destage_failed(&mut self, cx: &mut Cx<'_>, status: Status) {
        let Some(debts) = &mut self.debts else { return };
        for (flush, _) in debts.flushes.drain(..) {
            cx.finish(flush, status);
        }
        if !debts.is_closing {
            let at = cx.now() + RETRY_NS;
            debts.retry_at = Some(at);
            cx.timer(at, TIMER);
            return;
        }
        debts.retry_at = Some(Ns::MAX);
        let bytes = debts.blocks * self.grid.block;
        cx.event("destage_failed", format!("{{\"errno\": {status}, \"dirty_bytes\": {bytes}}}"));
    }

    pub(super) fn destage_timer(&mut self, cx: &mut Cx<'_>) {
        if let Some(debts) = &mut self.debts {
            debts.timer_at = None;
            debts.seen_ns = cx.now();
        }
        self.destage(cx);
    }

    /// A flush covers what was acknowledged before it: all that is dirty now.
    pub(super) fn start_flush(&mut self, cx: &mut Cx<'_>, io: IoId) -> Answer {
        let Some(debts) = &mut self.debts else { return Answer::Pass };
        if debts.blocks == 0 {
            return Answer::Pass;
        }
        let epoch = debts.epoch();
        debts.owed.push_back(0);
        debts.flushes.push_back((io, epoch));
        self.destage(cx);
        Answer::Defer
    }

    fn let_flushes_go(&mut self, cx: &mut Cx<'_>) {
        let Some(debts) = &mut self.debts else { return };
        while debts.owed.len() > 1 && debts.owed[0] == 0 {
            debts.owed.pop_front();
            debts.first_epoch += 1;
        }
        while debts.flushes.front().is_some_and(|(_, epoch)| *epoch < debts.first_epoch) {
            if let Some((flush, _)) = debts.flushes.pop_front() {
                cx.resume(flush);
            }
        }
    }

    /// Whether the I/O, which goes to the disk, has to wait for what is under way to it.
    pub(super) fn must_wait_for_destage(&mut self, cx: &Cx<'_>, io: IoId) -> bool {
        let waits = self.meets_destage(cx, io);
        if let Some(debts) = self.debts.as_mut().filter(|_| waits) {
            debts.waiting.push(io);
        }
        waits
    }

    fn meets_destage(&self, cx: &Cx<'_>, io: IoId) -> bool {
        let Some(debts) = &self.debts else { return false };
        let of = cx.io(io);
        let end_bytes = of.offset_bytes + of.length_bytes;
        debts.flights.iter().any(|flight| {
            !flight.frames.is_empty()
                && flight.disk == of.disk
                && of.offset_bytes < flight.to_bytes
                && flight.from_bytes < end_bytes
        })
    }

    fn let_waiting_go(&mut self, cx: &mut Cx<'_>) {
        let mut at = 0;
        while let Some(io) = self.debts.as_ref().and_then(|debts| debts.waiting.get(at).copied()) {
            if self.meets_destage(cx, io) {
                at += 1;
                continue;
            }
            if let Some(debts) = &mut self.debts {
                debts.waiting.remove(at);
            }
            if cx.io(io).op == Op::Discard {
                cx.resume(io);
            } else {
                self.write_past(cx, io);
            }
        }
    }

    /// A clean stop: everything goes to the disk, and is safe there.
    pub(super) fn stop(&mut self, cx: &mut Cx<'_>) {
        let Some(debts) = &mut self.debts else { return };
        debts.is_closing = true;
        debts.retry_at = None;
        self.destage(cx);
        self.end_stop(cx);
    }

    fn end_stop(&mut self, cx: &mut Cx<'_>) {
        let Some(debts) = &mut self.debts else { return };
        if !debts.is_closing || debts.blocks > 0 {
            return;
        }
        while let Some(disk) = debts.unflushed.pop() {
            let flush = Child {
                op: Op::Flush,
                offset_bytes: 0,
                length_bytes: 0,
                flags: 0,
                data: ChildData::Own,
                tag: LAST_FLUSH,
            };
            // A slot is kept for it.
            let _ = cx.background_of(disk, flush);
        }
    }
}
