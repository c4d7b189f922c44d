//! The start: what an earlier run left in the file, and the file's new life.
//!
//! Before the first I/O the header is read. If it says that there may be records, the map is read
//! and every block that has one goes to the disk, the latest of each, and the disk is flushed.
//! Then the file begins anew and empty: a header without a map, a blank map, the header. Blocks
//! that the disk had as well are never kept, so no start can serve what is stale.
//!
//! Whatever is not understood is left as it is, and the round ends with a message.

use std::collections::VecDeque;

use serde_json::json;

use super::super::super::{Answer, Child, ChildData, Cx};
use super::super::DESTAGE_BYTES;
use super::layout::{self, Found, Header, PAGE_BYTES, Record};
use super::{FILE, FileCache, STARTING};
use crate::io::{OK, Op, Status};
use crate::slab::IoId;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Unknown,
    ReadHeader,
    ReadMap,
    ReadFrames,
    WriteBlocks,
    FlushDisks,
    Reserve,
    FlushReserved,
    Blank,
    FlushBlank,
    WriteHeader,
    FlushHeader,
    Ready,
    Broken,
}

pub struct Start {
    step: Step,
    /// I/Os that wait for it.
    held: VecDeque<IoId>,
    /// A number for this run, and the longest I/O of its own.
    life: u64,
    child_bytes: u64,
    /// Of the file as it was found.
    old: Option<Header>,
    next_page: u32,
    records: Vec<Record>,
    damaged: u32,
    /// The run of records under way, and the blocks that were brought to the disk.
    run: std::ops::Range<usize>,
    recovered: u64,
    unflushed: Vec<u16>,
    failure: Option<String>,
    /// Without it the disk may lack what the file holds: nothing may be read or written.
    may_owe: bool,
}

impl Start {
    pub fn new(life: u64, child_bytes: u64) -> Self {
        Self {
            step: Step::Unknown,
            held: VecDeque::new(),
            life,
            child_bytes,
            old: None,
            next_page: 0,
            records: Vec::new(),
            damaged: 0,
            run: 0..0,
            recovered: 0,
            unflushed: Vec::new(),
            failure: None,
            may_owe: false,
        }
    }

    /// Begins anew at the next I/O.
    pub fn again(&mut self) {
        if self.failure.is_none() {
            *self = Self::new(self.life, self.child_bytes);
        }
    }

    pub fn is_ready(&self) -> bool {
        self.step == Step::Ready
    }

    pub fn is_under_way(&self) -> bool {
        !matches!(self.step, Step::Unknown | Step::Ready | Step::Broken)
    }

    pub fn failure(&self) -> Option<&str> {
        self.failure.as_deref()
    }
}

impl FileCache {
    pub(super) fn hold_until_started(&mut self, cx: &mut Cx<'_>, io: IoId) -> Answer {
        if self.start.step == Step::Broken {
            return if self.start.may_owe { Answer::Fail(libc::EIO) } else { Answer::Pass };
        }
        self.start.held.push_back(io);
        self.begin_start(cx);
        Answer::Defer
    }

    pub(super) fn begin_start(&mut self, cx: &mut Cx<'_>) {
        if self.start.step == Step::Unknown {
            self.file_io(cx, Step::ReadHeader, Op::Read, 0, PAGE_BYTES);
        }
    }

    /// The next I/O on the file: one at a time.
    fn file_io(&mut self, cx: &mut Cx<'_>, step: Step, op: Op, offset: u64, length: u64) {
        self.start.step = step;
        let born = cx.background_on(FILE, own(op, offset, length));
        match born {
            // What a device without data leaves there counts as blank.
            Some(child) if op != Op::Flush => cx.data_mut(child).fill(0),
            Some(_) => {}
            None => self.break_down(cx, "it was left without memory".to_owned()),
        }
    }

    fn write_header(&mut self, cx: &mut Cx<'_>, step: Step, header: &Header) {
        self.start.step = step;
        match cx.background_on(FILE, own(Op::Write, 0, PAGE_BYTES)) {
            Some(child) => {
                let page = cx.data_mut(child);
                page.fill(0);
                header.encode(&mut page[..layout::SECTOR]);
            }
            None => self.break_down(cx, "it was left without memory".to_owned()),
        }
    }

    /// An I/O of the start is done.
    pub(super) fn start_step(&mut self, cx: &mut Cx<'_>, child: IoId) {
        let (op, status) = (cx.io(child).op, cx.io(child).status);
        if self.start.step == Step::Broken {
            return;
        }
        if status != OK {
            return self.start_failed(cx, op, status);
        }
        match self.start.step {
            Step::ReadHeader => self.header_read(cx, child),
            Step::ReadMap => self.map_read(cx, child),
            Step::ReadFrames => self.bring_back(cx, child),
            Step::WriteBlocks => self.next_recovery(cx),
            Step::FlushDisks => self.flush_disks(cx),
            Step::Reserve => self.file_io(cx, Step::FlushReserved, Op::Flush, 0, 0),
            Step::FlushReserved | Step::Blank => self.blank_map(cx),
            Step::FlushBlank => {
                let header = self.header;
                self.write_header(cx, Step::WriteHeader, &header);
            }
            Step::WriteHeader => self.file_io(cx, Step::FlushHeader, Op::Flush, 0, 0),
            _ => self.started(cx),
        }
    }

    fn start_failed(&mut self, cx: &mut Cx<'_>, op: Op, status: Status) {
        // Not read, it may hold anything.
        self.start.may_owe |= self.start.step == Step::ReadHeader;
        let on_disk = matches!(self.start.step, Step::WriteBlocks | Step::FlushDisks);
        let what = match (on_disk, op) {
            (true, _) => "what it holds cannot be brought to the disk",
            (_, Op::Read) => "cannot read it",
            _ => "cannot write to it",
        };
        let why = std::io::Error::from_raw_os_error(status);
        self.break_down(cx, format!("{what}: {why}"));
    }

    fn break_down(&mut self, cx: &mut Cx<'_>, why: String) {
        self.start.step = Step::Broken;
        self.start.failure = Some(why);
        let may_owe = self.start.may_owe;
        while let Some(io) = self.start.held.pop_front() {
            if may_owe { cx.finish(io, libc::EIO) } else { cx.resume(io) }
        }
    }

    fn header_read(&mut self, cx: &mut Cx<'_>, child: IoId) {
        match Header::decode(&cx.data(child)[..layout::SECTOR]) {
            Found::Blank => self.begin_life(cx, 0),
            Found::Other(why) => {
                self.start.may_owe = true;
                self.break_down(cx, why);
            }
            Found::Ours(old) if !old.has_map => self.begin_life(cx, old.run),
            Found::Ours(old) => {
                self.start.may_owe = true;
                self.start.old = Some(old);
                if old.block > self.start.child_bytes {
                    let block = old.block;
                    let why = format!(
                        "its blocks have {block} bytes: start it with that `block` once, so that \
                         what it holds gets to the disk"
                    );
                    return self.break_down(cx, why);
                }
                self.read_map(cx, old);
            }
        }
    }

    fn read_map(&mut self, cx: &mut Cx<'_>, old: Header) {
        let at = self.start.next_page;
        if at == old.pages() {
            return self.map_is_read(cx, old);
        }
        let pages = (old.pages() - at).min((DESTAGE_BYTES / PAGE_BYTES) as u32);
        let bytes = u64::from(pages) * PAGE_BYTES;
        self.file_io(cx, Step::ReadMap, Op::Read, layout::page_at_bytes(at), bytes);
    }

    fn map_read(&mut self, cx: &mut Cx<'_>, child: IoId) {
        let Some(old) = self.start.old else { return };
        for page in cx.data(child).chunks_exact(PAGE_BYTES as usize) {
            let start = &mut self.start;
            start.damaged +=
                layout::decode_page(page, old.run, start.next_page, &mut start.records);
            start.next_page += 1;
        }
        self.read_map(cx, old);
    }

    fn map_is_read(&mut self, cx: &mut Cx<'_>, old: Header) {
        let start = &mut self.start;
        start.records.retain(|record| u64::from(record.frame) < old.frames);
        // The latest of each block.
        start.records.sort_unstable_by_key(|record| (record.key, u64::MAX - record.commit));
        start.records.dedup_by_key(|record| record.key);
        let (blocks, damaged) = (start.records.len(), start.damaged);
        if damaged > 0 {
            let why = format!(
                "{damaged} sectors of its map are damaged, which may have named {} blocks that the \
                 disk lacks, beside {blocks} that can be read; remove the file if they may go",
                damaged * 31
            );
            return self.break_down(cx, why);
        }
        let same_size = self.header.target_bytes >= old.target_bytes;
        if blocks > 0 && (old.target != self.header.target || !same_size) {
            let what = if same_size { "another target" } else { "a larger target" };
            let why = format!(
                "it holds {blocks} blocks that {what} lacks; start it with that one, or remove the \
                 file if they may go"
            );
            return self.break_down(cx, why);
        }
        let now = self.header.writer_before;
        if blocks > 0 && ![old.writer, old.writer_before].contains(&now) {
            let why = format!(
                "it holds {blocks} blocks that its target lacked before another run wrote there; \
                 remove the file if they may go"
            );
            return self.break_down(cx, why);
        }
        self.next_recovery(cx);
    }

    /// The next blocks in a row whose frames are in a row go to the disk.
    fn next_recovery(&mut self, cx: &mut Cx<'_>) {
        let Some(old) = self.start.old else { return };
        let start = &mut self.start;
        start.recovered += start.run.len() as u64;
        let first = start.run.end;
        let Some(Record { key, frame, .. }) = start.records.get(first).copied() else {
            return self.flush_disks(cx);
        };
        let longest = (DESTAGE_BYTES / old.block).max(1) as usize;
        let behind = start.records[first..].iter().take(longest).enumerate();
        let length = behind
            .take_while(|(i, of)| of.key == key + *i as u64 && of.frame == frame + *i as u32)
            .count();
        start.run = first..first + length;
        let bytes = length as u64 * old.block;
        self.file_io(cx, Step::ReadFrames, Op::Read, old.frame_at_bytes(frame), bytes);
    }

    fn bring_back(&mut self, cx: &mut Cx<'_>, child: IoId) {
        let Some(old) = self.start.old else { return };
        self.start.step = Step::WriteBlocks;
        let grid = super::Grid { block: old.block, ..self.grid };
        let (disk, block) = grid.place(cx, self.start.records[self.start.run.start].key);
        if !self.start.unflushed.contains(&disk) {
            self.start.unflushed.push(disk);
        }
        let write = own(Op::Write, block * old.block, cx.io(child).length_bytes);
        match cx.background_of(disk, write) {
            Some(write) => {
                if let Some((from, to)) = cx.data_pair(child, write) {
                    to.copy_from_slice(from);
                }
            }
            None => self.break_down(cx, "it was left without memory".to_owned()),
        }
    }

    fn flush_disks(&mut self, cx: &mut Cx<'_>) {
        self.start.step = Step::FlushDisks;
        if let Some(disk) = self.start.unflushed.pop() {
            if cx.background_of(disk, own(Op::Flush, 0, 0)).is_none() {
                self.break_down(cx, "it was left without memory".to_owned());
            }
            return;
        }
        let (blocks, old) = (self.start.recovered, self.start.old);
        if blocks > 0 {
            let block = old.map_or(0, |old| old.block);
            let detail = json!({"blocks": blocks, "bytes": blocks * block});
            cx.event("cache_recovered", detail.to_string());
        }
        self.begin_life(cx, old.map_or(0, |old| old.run));
    }

    /// The file is this cache's from now on. Until its map is blank, it has none: a crash in
    /// between must not find records of an earlier life over data of this one.
    fn begin_life(&mut self, cx: &mut Cx<'_>, old_run: u64) {
        self.start.may_owe = false;
        self.start.records = Vec::new();
        self.start.next_page = 0;
        let mixed = self.start.life ^ old_run.rotate_left(17).wrapping_add(1);
        self.header.run = xxhash_rust::xxh3::xxh3_64(&mixed.to_le_bytes());
        let reserved = Header { has_map: false, ..self.header };
        self.write_header(cx, Step::Reserve, &reserved);
    }

    fn blank_map(&mut self, cx: &mut Cx<'_>) {
        let (at, pages) = (self.start.next_page, self.header.pages());
        if !self.header.has_map {
            return self.started(cx);
        }
        if at == pages {
            return self.file_io(cx, Step::FlushBlank, Op::Flush, 0, 0);
        }
        let some = (pages - at).min((DESTAGE_BYTES / PAGE_BYTES) as u32);
        self.start.next_page += some;
        let bytes = u64::from(some) * PAGE_BYTES;
        self.file_io(cx, Step::Blank, Op::Write, layout::page_at_bytes(at), bytes);
    }

    fn started(&mut self, cx: &mut Cx<'_>) {
        self.start.step = Step::Ready;
        let (capacity, disk) = (self.capacity * self.grid.block, self.header.target_bytes);
        if capacity >= disk && disk > 0 {
            let detail = json!({"capacity_bytes": capacity, "disk_bytes": disk});
            cx.event("cache_above_disk", detail.to_string());
        }
        while let Some(io) = self.start.held.pop_front() {
            match self.dispatch(cx, io) {
                Answer::Pass => cx.resume(io),
                Answer::Complete => cx.finish(io, OK),
                Answer::Fail(status) => cx.finish(io, status),
                Answer::Defer => {}
            }
        }
    }
}

/// An I/O of the start's.
const fn own(op: Op, offset_bytes: u64, length_bytes: u64) -> Child {
    let data = ChildData::Own;
    Child { op, offset_bytes, length_bytes, flags: 0, data, tag: STARTING }
}
