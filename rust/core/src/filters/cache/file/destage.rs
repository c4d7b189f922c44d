//! Write-back: what the disk lacks, when it gets it, and the clean stop.

use std::collections::VecDeque;

use super::super::super::{Child, ChildData, Cx};
use super::super::{DESTAGE_BYTES, DESTAGES};
use super::frames::FrameId;
use super::{DESTAGING, FILE, FileCache, READING};
use crate::clock::Ns;
use crate::io::{OK, Op, Status};
use crate::slab::IoId;

/// After a destage or a commit failed, the next is tried this much later.
const RETRY_NS: Ns = 100_000_000;
/// Records to clear, at most, before a commit does it.
const CLEAR_MAX: u32 = 256;

/// Frames in a row with blocks in a row, on their way to the disk.
#[derive(Debug, Clone, Copy, Default)]
struct Flight {
    first: FrameId,
    blocks: u32,
    disk: u16,
    from_bytes: u64,
    since_ns: Ns,
}

pub struct Dirty {
    blocks_max: u64,
    after_ns: Ns,
    /// Dirty or on their way to the disk.
    pub blocks: u64,
    pub destaged_blocks: u64,
    /// Dirty frames and since when, the first to become so first; some may not be any more.
    queue: VecDeque<(FrameId, Ns)>,
    /// Evicted ones, which go first: they take frames that others want.
    pub evicted: VecDeque<FrameId>,
    flights: [Flight; DESTAGES],
    grounded: Vec<usize>,
    /// Discards that wait for a destage under way where they are.
    waiting: Vec<IoId>,
    timer_at: Option<Ns>,
    retry_at: Option<Ns>,
    pub is_closing: bool,
    has_given_up: bool,
}

impl Dirty {
    pub fn new(blocks_max: u64, after_ns: Ns) -> Self {
        Self {
            blocks_max,
            after_ns,
            blocks: 0,
            destaged_blocks: 0,
            queue: VecDeque::new(),
            evicted: VecDeque::new(),
            flights: [Flight::default(); DESTAGES],
            grounded: (0..DESTAGES).collect(),
            waiting: Vec::new(),
            timer_at: None,
            retry_at: None,
            is_closing: false,
            has_given_up: false,
        }
    }

    pub fn clear(&mut self) {
        *self = Self::new(self.blocks_max, self.after_ns);
    }

    /// Does it not matter how long the oldest has been dirty?
    const fn is_urgent(&self) -> bool {
        self.is_closing || self.blocks * 2 > self.blocks_max
    }
}

impl FileCache {
    /// Whether what is written to the frame is to reach the disk from there. It is dirty then.
    pub(super) fn owe(&mut self, cx: &Cx<'_>, frame: FrameId) -> bool {
        let is_owed = self.frames.get(frame).is_owed();
        if self.dirty.is_none() || !is_owed && !self.room(cx) {
            return false;
        }
        let Some(dirty) = &mut self.dirty else { return false };
        if !is_owed {
            if dirty.blocks >= dirty.blocks_max {
                return false;
            }
            dirty.blocks += 1;
        }
        self.frames.get_mut(frame).is_dirty = true;
        self.queue(frame);
        self.list(frame);
        true
    }

    fn queue(&mut self, frame: FrameId) {
        let of = self.frames.get_mut(frame);
        let Some(dirty) = self.dirty.as_mut().filter(|_| of.is_dirty) else { return };
        if !of.is_attached {
            dirty.evicted.push_back(frame);
        }
        if !of.is_queued {
            of.is_queued = true;
            dirty.queue.push_back((frame, self.seen_ns));
        }
    }

    /// What is in the frame does not have to reach the disk.
    pub(super) fn forgive(&mut self, frame: FrameId) {
        let of = self.frames.get_mut(frame);
        let is_dirty = std::mem::take(&mut of.is_dirty);
        if let Some(dirty) = self.dirty.as_mut().filter(|_| is_dirty) {
            dirty.blocks -= u64::from(!of.is_leaving);
        }
    }

    /// How long the oldest data that the disk lacks have been waiting.
    pub(super) fn oldest_ns(&self) -> Ns {
        let Some(dirty) = &self.dirty else { return 0 };
        let is_dirty =
            |(frame, _): &&(FrameId, Ns)| self.frames.find(*frame).is_some_and(|of| of.is_dirty);
        let queued = dirty.queue.iter().find(is_dirty).map(|(_, since)| *since);
        let flying = dirty.flights.iter().filter(|flight| flight.blocks > 0);
        let oldest = flying.map(|flight| flight.since_ns).chain(queued).min();
        oldest.map_or(0, |since| self.seen_ns.saturating_sub(since))
    }

    fn may_leave(&self, frame: FrameId) -> bool {
        let of = self.frames.get(frame);
        of.is_dirty && of.is_valid && !of.is_leaving && of.writers == 0
    }

    /// Starts what destages may start now.
    pub(super) fn destage(&mut self, cx: &mut Cx<'_>) {
        let Some(dirty) = &mut self.dirty else { return };
        if let Some(at) = dirty.retry_at {
            if cx.now() < at {
                return;
            }
            dirty.retry_at = None;
        }
        while let Some((frame, since_ns)) = self.next_due(cx) {
            if !self.send(cx, frame, since_ns) {
                break;
            }
        }
    }

    /// The next frame to leave, if one may leave now, and since when it has been dirty.
    fn next_due(&mut self, cx: &mut Cx<'_>) -> Option<(FrameId, Ns)> {
        if self.dirty.as_ref()?.grounded.is_empty() {
            return None;
        }
        while let Some(frame) = self.dirty.as_mut()?.evicted.pop_front() {
            if self.may_leave(frame) {
                return Some((frame, self.seen_ns));
            }
        }
        while let Some((frame, since)) = self.dirty.as_ref()?.queue.front().copied() {
            let of = *self.frames.get(frame);
            if of.is_dirty && (of.writers > 0 || !of.is_valid) {
                // Its write is done soon, and looks here again.
                return None;
            }
            let dirty = self.dirty.as_mut()?;
            if of.is_dirty && dirty.after_ns > 0 && !dirty.is_urgent() {
                let due = since + dirty.after_ns;
                if due > cx.now() {
                    if dirty.timer_at.is_none() {
                        dirty.timer_at = Some(due);
                        cx.timer(due, 0);
                    }
                    return None;
                }
            }
            dirty.queue.pop_front();
            self.frames.get_mut(frame).is_queued = false;
            if self.may_leave(frame) {
                return Some((frame, since));
            }
        }
        None
    }

    /// Reads the frame, and those behind it that may leave along with it, for the disk.
    fn send(&mut self, cx: &mut Cx<'_>, first: FrameId, since_ns: Ns) -> bool {
        let key = self.frames.get(first).key;
        let mut blocks = 1;
        while u64::from(blocks + 1) * self.grid.block <= DESTAGE_BYTES {
            let next = first + blocks;
            let fits = self.frames.find(next).is_some_and(|of| of.key == key + u64::from(blocks));
            if !fits || !self.may_leave(next) {
                break;
            }
            blocks += 1;
        }
        let (disk, block) = self.grid.place(cx, key);
        let Some(number) = self.dirty.as_mut().and_then(|dirty| dirty.grounded.pop()) else {
            return false;
        };
        let child = Child {
            op: Op::Read,
            offset_bytes: self.header.frame_at_bytes(first),
            length_bytes: u64::from(blocks) * self.grid.block,
            flags: 0,
            data: ChildData::Own,
            tag: READING | number as u64,
        };
        let is_born = cx.background_on(FILE, child).is_some();
        let Some(dirty) = &mut self.dirty else { return false };
        if !is_born {
            dirty.grounded.push(number);
            self.queue(first);
            return false;
        }
        let from_bytes = block * self.grid.block;
        dirty.flights[number] = Flight { first, blocks, disk, from_bytes, since_ns };
        for frame in first..first + blocks {
            let of = self.frames.get_mut(frame);
            (of.is_dirty, of.is_leaving) = (false, true);
            of.users += 1;
        }
        true
    }

    /// The frames have been read: on to the disk.
    pub(super) fn destage_read(&mut self, cx: &mut Cx<'_>, child: IoId) {
        let (number, status) = (cx.io(child).tag as u32 as usize, cx.io(child).status);
        let Some(dirty) = &self.dirty else { return };
        let Flight { disk, from_bytes, .. } = dirty.flights[number];
        if status == OK {
            let write = Child {
                op: Op::Write,
                offset_bytes: from_bytes,
                length_bytes: cx.io(child).length_bytes,
                flags: 0,
                data: ChildData::Own,
                tag: DESTAGING | number as u64,
            };
            if let Some(write) = cx.background_of(disk, write) {
                if let Some((from, to)) = cx.data_pair(child, write) {
                    to.copy_from_slice(from);
                }
                return;
            }
        } else {
            self.file_failed(cx, Op::Read, status);
        }
        self.flight_ends(cx, number, if status == OK { libc::ENOMEM } else { status });
    }

    pub(super) fn destaged(&mut self, cx: &mut Cx<'_>, child: IoId) {
        let (number, status) = (cx.io(child).tag as u32 as usize, cx.io(child).status);
        if let Some(dirty) = self.dirty.as_mut() {
            self.commit.note_disk(dirty.flights[number].disk);
            if status == OK {
                dirty.destaged_blocks += u64::from(dirty.flights[number].blocks);
            }
        }
        self.flight_ends(cx, number, status);
    }

    fn flight_ends(&mut self, cx: &mut Cx<'_>, number: usize, status: Status) {
        let Some(dirty) = &mut self.dirty else { return };
        let flight = std::mem::take(&mut dirty.flights[number]);
        dirty.grounded.push(number);
        for frame in flight.first..flight.first + flight.blocks {
            self.landed(frame, status);
        }
        if status != OK {
            self.put_off(cx, status);
        }
        self.let_waiting_go(cx);
        self.destage(cx);
        self.commit_if_many(cx);
        self.end_stop(cx);
    }

    fn landed(&mut self, frame: FrameId, status: Status) {
        let of = self.frames.get_mut(frame);
        of.is_leaving = false;
        of.users -= 1;
        if status != OK {
            of.is_dirty = true;
        }
        let is_dirty = of.is_dirty;
        self.queue(frame);
        if !is_dirty {
            if let Some(dirty) = &mut self.dirty {
                dirty.blocks -= 1;
            }
            self.clear_record(frame);
        }
        self.frames.release(frame);
    }

    /// Something on the way to the disk or into the map failed: tried again later, except at the
    /// end of the run.
    pub(super) fn put_off(&mut self, cx: &mut Cx<'_>, status: Status) {
        let Some(dirty) = &mut self.dirty else { return };
        if !dirty.is_closing {
            let at = cx.now() + RETRY_NS;
            dirty.retry_at = Some(at);
            cx.timer(at, 0);
            return;
        }
        dirty.retry_at = Some(Ns::MAX);
        if !std::mem::replace(&mut dirty.has_given_up, true) {
            let bytes = dirty.blocks * self.grid.block;
            let detail = format!("{{\"errno\": {status}, \"dirty_bytes\": {bytes}}}");
            cx.event("destage_failed", detail);
        }
    }

    fn commit_if_many(&mut self, cx: &mut Cx<'_>) {
        if self.commit.to_clear() * 2 >= self.frames.left().min(2 * CLEAR_MAX) {
            self.begin_commit(cx);
        }
    }

    pub(super) fn destage_timer(&mut self, cx: &mut Cx<'_>) {
        self.seen_ns = self.seen_ns.max(cx.now());
        if let Some(dirty) = &mut self.dirty {
            dirty.timer_at = None;
        }
        self.destage(cx);
    }

    /// Whether the I/O, which goes to the disk, has to wait for what is under way to it.
    pub(super) fn must_wait_for_destage(&mut self, cx: &Cx<'_>, io: IoId) -> bool {
        let waits = self.meets_destage(cx, io);
        if let Some(dirty) = self.dirty.as_mut().filter(|_| waits) {
            dirty.waiting.push(io);
        }
        waits
    }

    fn meets_destage(&self, cx: &Cx<'_>, io: IoId) -> bool {
        let Some(dirty) = &self.dirty else { return false };
        let of = cx.io(io);
        let end_bytes = of.offset_bytes + of.length_bytes;
        dirty.flights.iter().any(|flight| {
            flight.blocks > 0
                && flight.disk == of.disk
                && of.offset_bytes < flight.from_bytes + u64::from(flight.blocks) * self.grid.block
                && flight.from_bytes < end_bytes
        })
    }

    fn let_waiting_go(&mut self, cx: &mut Cx<'_>) {
        let mut at = 0;
        while let Some(io) = self.dirty.as_ref().and_then(|dirty| dirty.waiting.get(at).copied()) {
            if self.meets_destage(cx, io) {
                at += 1;
                continue;
            }
            if let Some(dirty) = &mut self.dirty {
                dirty.waiting.remove(at);
            }
            self.discard(cx, io);
            self.commit.note_disk(cx.io(io).disk);
            cx.resume(io);
        }
    }

    /// A clean stop: everything goes to the disk, is safe there, and has no record any more.
    pub(super) fn stop(&mut self, cx: &mut Cx<'_>) {
        let Some(dirty) = &mut self.dirty else { return };
        (dirty.is_closing, dirty.has_given_up, dirty.retry_at) = (true, false, None);
        self.destage(cx);
        self.end_stop(cx);
    }

    pub(super) fn end_stop(&mut self, cx: &mut Cx<'_>) {
        if self
            .dirty
            .as_ref()
            .is_some_and(|dirty| dirty.is_closing && dirty.blocks == 0 && !dirty.has_given_up)
        {
            self.begin_commit(cx);
        }
    }

    /// Whether the disk lacks something.
    pub(super) fn is_owing(&self) -> bool {
        self.dirty.as_ref().is_some_and(|dirty| dirty.blocks > 0)
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.dirty.as_ref().is_some_and(|dirty| {
            dirty.is_closing && !dirty.has_given_up && (dirty.blocks > 0 || self.commit.is_needed())
        })
    }
}
