//! What a flush does: makes everything acknowledged before it durable, in the file.
//!
//! One commit at a time, and flushes that come meanwhile share the next. Its steps, each begun when
//! the one before is done:
//!
//! 1. Flush the file (the data of new records) and the disks (what was destaged or written there).
//! 2. Write the pages of the map that change: new records, and none any more for blocks that the
//!    disk has now.
//! 3. Flush the file (the map).
//!
//! So a record is on the file only after its data, and gone only after the disk has them: whenever
//! the power fails, the frames with a record hold the newest of what a flush covered, or something
//! newer. A frame with a record is never given to another block.

use std::collections::BTreeSet;

use super::super::super::{Answer, Child, ChildData, Cx};
use super::frames::FrameId;
use super::layout::{self, PAGE_BYTES, PER_PAGE};
use super::{COMMITTING, FILE, FileCache};
use crate::io::{OK, Op, Status};
use crate::slab::IoId;

/// Pages of the map in one I/O, and such I/Os at one time.
const PAGES: u32 = 16;
const WRITES: u32 = 4;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Idle,
    Flushing,
    Writing,
    Sealing,
}

pub struct Commit {
    step: Step,
    /// The number of this commit, from 1.
    number: u32,
    /// I/Os of this step under way, and the first of their failures.
    left: u32,
    status: Status,
    /// Flushes, and writes with FUA, that wait for the next commit, and those of this one.
    waiting: Vec<IoId>,
    served: Vec<IoId>,
    /// Frames without a record whose data the disk lacks; with one that it does not need.
    to_record: Vec<FrameId>,
    to_clear: Vec<FrameId>,
    clearing: Vec<FrameId>,
    /// Pages of the map that are not as they should be; those that this commit wrote.
    pages: BTreeSet<u32>,
    written: Vec<u32>,
    /// Disks written to since their last flush; those that this commit flushes.
    unflushed: Vec<u16>,
    flushing: Vec<u16>,
    /// Those that were flushed once: nobody knows what was written to the others before.
    known: Vec<u16>,
    pub is_file_unflushed: bool,
}

impl Commit {
    pub fn new() -> Self {
        Self {
            step: Step::Idle,
            number: 0,
            left: 0,
            status: OK,
            waiting: Vec::new(),
            served: Vec::new(),
            to_record: Vec::new(),
            to_clear: Vec::new(),
            clearing: Vec::new(),
            pages: BTreeSet::new(),
            written: Vec::new(),
            unflushed: Vec::new(),
            flushing: Vec::new(),
            known: Vec::new(),
            is_file_unflushed: false,
        }
    }

    /// How many I/Os of its own it has under way at most.
    pub fn ios_max(disks: usize) -> usize {
        (disks + 1).max(WRITES as usize)
    }

    pub fn clear(&mut self) {
        let number = self.number;
        *self = Self { number, ..Self::new() };
    }

    pub fn wait(&mut self, io: IoId) {
        self.waiting.push(io);
    }

    /// A disk was written to past the file.
    pub fn note_disk(&mut self, disk: u16) {
        if !self.unflushed.contains(&disk) {
            self.unflushed.push(disk);
        }
    }

    pub fn to_clear(&self) -> u32 {
        self.to_clear.len() as u32
    }

    /// Whether one is under way or would change anything.
    pub fn is_needed(&self) -> bool {
        self.step != Step::Idle
            || !self.waiting.is_empty()
            || self.is_file_unflushed
            || !self.unflushed.is_empty()
            || !(self.to_record.is_empty() && self.to_clear.is_empty() && self.pages.is_empty())
    }
}

impl FileCache {
    /// A flush covers what was acknowledged before it.
    pub(super) fn start_flush(&mut self, cx: &mut Cx<'_>, io: IoId) -> Answer {
        if self.dirty.is_none() {
            return Answer::Pass;
        }
        let disk = cx.io(io).disk;
        if !self.commit.known.contains(&disk) {
            self.commit.known.push(disk);
            self.commit.note_disk(disk);
        }
        if !self.commit.is_needed() {
            return Answer::Complete;
        }
        self.commit.wait(io);
        self.begin_commit(cx);
        Answer::Defer
    }

    /// The next commit has to look at this frame, which is dirty.
    pub(super) fn list(&mut self, frame: FrameId) {
        let of = self.frames.get_mut(frame);
        if !of.is_recorded && !std::mem::replace(&mut of.is_listed, true) {
            self.commit.to_record.push(frame);
        }
    }

    /// The disk needs nothing of the frame any more.
    pub(super) fn clear_record(&mut self, frame: FrameId) {
        let of = self.frames.get_mut(frame);
        if of.is_recorded && !std::mem::replace(&mut of.is_listed, true) {
            self.commit.to_clear.push(frame);
        }
    }

    pub(super) fn begin_commit(&mut self, cx: &mut Cx<'_>) {
        if self.dirty.is_none() || self.commit.step != Step::Idle || !self.commit.is_needed() {
            return;
        }
        self.commit.step = Step::Flushing;
        self.commit.number += 1;
        self.commit.status = OK;
        self.commit.served = std::mem::take(&mut self.commit.waiting);
        self.take_records();
        self.commit.flushing = std::mem::take(&mut self.commit.unflushed);
        self.commit.left = 1;
        for at in 0..self.commit.flushing.len() {
            let disk = self.commit.flushing[at];
            let is_born = cx.background_of(disk, flush()).is_some();
            self.commit_child(is_born);
        }
        if std::mem::take(&mut self.commit.is_file_unflushed) || !self.commit.pages.is_empty() {
            let is_born = cx.background_on(FILE, flush()).is_some();
            self.commit_child(is_born);
        }
        // It counted itself, so that it goes on here where nothing is to be waited for.
        self.commit_step(cx, OK);
    }

    fn commit_child(&mut self, is_born: bool) {
        if is_born {
            self.commit.left += 1;
        } else {
            self.commit.status = libc::ENOMEM;
        }
    }

    /// Which frames get a record, and which lose theirs.
    fn take_records(&mut self) {
        let number = self.commit.number;
        let mut later = Vec::new();
        for frame in std::mem::take(&mut self.commit.to_record) {
            let of = self.frames.get_mut(frame);
            of.is_listed = false;
            if of.is_recorded || !of.is_owed() {
                continue;
            }
            if of.is_valid {
                (of.is_recorded, of.commit) = (true, number);
                self.commit.pages.insert(frame / PER_PAGE);
            } else {
                // Not acknowledged yet.
                of.is_listed = true;
                later.push(frame);
            }
        }
        self.commit.to_record = later;
        for frame in std::mem::take(&mut self.commit.to_clear) {
            let of = self.frames.get_mut(frame);
            of.is_listed = false;
            if of.is_recorded && !of.is_owed() {
                of.is_clearing = true;
                self.commit.clearing.push(frame);
                self.commit.pages.insert(frame / PER_PAGE);
            }
        }
    }

    /// An I/O of the commit is done.
    pub(super) fn commit_step(&mut self, cx: &mut Cx<'_>, status: Status) {
        let commit = &mut self.commit;
        commit.left -= 1;
        if status != OK {
            commit.status = status;
        }
        if commit.status == OK && commit.step == Step::Writing {
            self.write_pages(cx);
        }
        let commit = &mut self.commit;
        if commit.left > 0 {
            return;
        }
        if commit.status != OK {
            return self.commit_failed(cx);
        }
        match commit.step {
            Step::Flushing if !commit.pages.is_empty() => {
                commit.step = Step::Writing;
                commit.left = 1;
                self.commit_step(cx, OK);
            }
            Step::Writing => {
                commit.step = Step::Sealing;
                let is_born = cx.background_on(FILE, flush()).is_some();
                self.commit_child(is_born);
                if !is_born {
                    self.commit_failed(cx);
                }
            }
            _ => self.commit_done(cx),
        }
    }

    fn write_pages(&mut self, cx: &mut Cx<'_>) {
        while self.commit.left < WRITES {
            let Some(first) = self.commit.pages.pop_first() else { return };
            let mut pages = 1;
            while pages < PAGES && self.commit.pages.remove(&(first + pages)) {
                pages += 1;
            }
            let child = Child {
                op: Op::Write,
                offset_bytes: layout::page_at_bytes(first),
                length_bytes: u64::from(pages) * PAGE_BYTES,
                flags: 0,
                data: ChildData::Own,
                tag: COMMITTING,
            };
            self.commit.written.extend(first..first + pages);
            let born = cx.background_on(FILE, child);
            self.commit_child(born.is_some());
            let Some(born) = born else { return };
            let bytes = cx.data_mut(born).chunks_exact_mut(PAGE_BYTES as usize);
            for (page, out) in (first..).zip(bytes) {
                layout::encode_page(out, self.header.run, page, |frame| {
                    let of = self.frames.find(frame)?;
                    (of.is_recorded && !of.is_clearing).then(|| (of.key, u64::from(of.commit)))
                });
            }
        }
    }

    fn commit_done(&mut self, cx: &mut Cx<'_>) {
        self.commit.written.clear();
        self.commit.flushing.clear();
        for frame in std::mem::take(&mut self.commit.clearing) {
            let of = self.frames.get_mut(frame);
            (of.is_recorded, of.is_clearing, of.is_listed) = (false, false, false);
            if of.is_owed() {
                self.list(frame);
            }
            self.frames.release(frame);
        }
        self.end_commit(cx, OK);
    }

    /// What is on the file now, nobody knows: the same pages are written again.
    fn commit_failed(&mut self, cx: &mut Cx<'_>) {
        let status = self.commit.status;
        let written = std::mem::take(&mut self.commit.written);
        self.commit.pages.extend(written);
        self.commit.is_file_unflushed = true;
        for disk in std::mem::take(&mut self.commit.flushing) {
            self.commit.note_disk(disk);
        }
        for frame in std::mem::take(&mut self.commit.clearing) {
            self.frames.get_mut(frame).is_clearing = false;
            self.clear_record(frame);
        }
        self.put_off(cx, status);
        self.end_commit(cx, status);
    }

    fn end_commit(&mut self, cx: &mut Cx<'_>, status: Status) {
        self.commit.step = Step::Idle;
        for io in std::mem::take(&mut self.commit.served) {
            cx.finish(io, status);
        }
        if !self.commit.waiting.is_empty() {
            self.begin_commit(cx);
        } else if status == OK {
            self.end_stop(cx);
        }
    }
}

/// A flush of the commit's.
fn flush() -> Child {
    let (op, data) = (Op::Flush, ChildData::Own);
    Child { op, offset_bytes: 0, length_bytes: 0, flags: 0, data, tag: COMMITTING }
}
