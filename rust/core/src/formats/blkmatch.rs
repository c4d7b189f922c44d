//! From events of the block layer to I/Os: which issue and completion belong to which queued bio.
//!
//! A bio (Q) waits until a request that covers its range is issued (D); the request may have
//! merged several bios, a split bio takes several requests, a requeue (R) puts them back. At the
//! completion (C) each bio gets the service time of its request: completion less the first issue
//! since the last requeue. So merges (M, F) and splits (X) need no bookkeeping of their own: the
//! ranges tell. Rows leave in order of their time, from a buffer of bounded length.

use std::collections::VecDeque;

use crate::formats::EventKind;
use crate::formats::blkevent::SECTOR_BYTES;
use crate::formats::blkevent::{COMPLETE, Event, ISSUE, QUEUE, REQUEUE, category, device_name};
use crate::formats::blktable::{Key, Request, Segment, Table};
use crate::io::Op;
use crate::trace::{DecodeReport, NO_LATENCY, TraceBatch, TraceIo};

/// Rows that may wait for an older one's completion; beyond it, the oldest has no latency.
/// Twice the deepest queue in the field (64 queues of 1,024) would still fit.
const MAX_WAITING: usize = 1 << 17;
const NOT_ISSUED: i64 = i64::MIN;

struct Row {
    io: TraceIo,
    issue_ns: i64,
    /// Bytes whose completion is still to come (1 for a flush).
    left_bytes: u32,
}

/// The flush machinery of one disk: pure flushes have no address to match by.
#[derive(Default)]
struct Flushes {
    /// Queued bios, oldest first.
    queued: VecDeque<u64>,
    /// Issued flush requests: time, and row where issues are what is counted.
    issued: VecDeque<(i64, u64)>,
    /// Issue time of the flush request that completed last.
    served_ns: Option<i64>,
}

struct Disk {
    device: u32,
    /// A device that issues requests; one that never does (device mapper) completes bios.
    has_issues: bool,
    flushes: Flushes,
}

pub struct Matcher {
    kind: EventKind,
    rows: VecDeque<Row>,
    /// Identity of `rows[0]`: identities never repeat, so a stale one is recognised.
    base: u64,
    pending: Table<Segment>,
    issued: Table<Request>,
    disks: Vec<Disk>,
    names: Vec<String>,
    last_disk: usize,
    /// Devices that remaps (A) came from.
    remapped_from: Vec<u32>,
    never_completed: u64,
    unmatched_completions: u64,
    failed: u64,
    pub report: DecodeReport,
}

impl Matcher {
    #[must_use]
    pub fn new(kind: EventKind) -> Self {
        Self {
            kind,
            rows: VecDeque::with_capacity(4096),
            base: 0,
            pending: Table::default(),
            issued: Table::default(),
            disks: Vec::new(),
            names: Vec::new(),
            last_disk: 0,
            remapped_from: Vec::new(),
            never_completed: 0,
            unmatched_completions: 0,
            failed: 0,
            report: DecodeReport::default(),
        }
    }

    #[must_use]
    pub fn disks(&self) -> &[String] {
        &self.names
    }

    /// Takes the next event in order of time. Remaps go to [`Matcher::remap`].
    #[inline]
    pub fn event(&mut self, event: &Event) {
        if event.category & (category::PASSTHROUGH | category::DRIVER_DATA) != 0 {
            self.report_if_counted(event, "passthrough command");
            return;
        }
        if event.category & category::ZONE_MANAGEMENT != 0 {
            self.report_if_counted(event, "zone management command");
            return;
        }
        let disk = self.disk_of(event.device);
        match event.action {
            QUEUE => self.queue(event, disk),
            ISSUE => self.issue(event, disk),
            COMPLETE => self.complete(event, disk),
            REQUEUE => self.requeue(event, disk),
            _ => {}
        }
    }

    /// Notes that I/Os of `from` were remapped to another device.
    #[inline]
    pub fn remap(&mut self, from: u32) {
        if !self.remapped_from.contains(&from) && self.remapped_from.len() < 64 {
            self.remapped_from.push(from);
        }
    }

    /// Moves finished rows to `batch`, oldest first, up to `max_rows` in it.
    #[inline]
    pub fn drain(&mut self, batch: &mut TraceBatch, max_rows: usize) {
        while batch.len() < max_rows {
            match self.rows.front() {
                Some(row) if row.left_bytes == 0 => {}
                Some(_) if self.rows.len() > MAX_WAITING => self.never_completed += 1,
                _ => return,
            }
            self.pop_into(batch);
        }
    }

    /// As `drain`, when no event will come: what is open stays without a latency.
    pub fn drain_rest(&mut self, batch: &mut TraceBatch, max_rows: usize) {
        while batch.len() < max_rows {
            match self.rows.front() {
                Some(row) if row.left_bytes != 0 => self.never_completed += 1,
                Some(_) => {}
                None => return,
            }
            self.pop_into(batch);
        }
    }

    /// The report with what only the end can tell.
    #[must_use]
    pub fn final_report(&self) -> DecodeReport {
        let mut report = self.report.clone();
        let mut warn = |n: u64, text: &str| {
            if n > 0 {
                report.warnings.push(format!("{n} {text}"));
            }
        };
        warn(self.never_completed, "I/Os have no completion in the capture: no latency");
        warn(self.unmatched_completions, "completions belong to I/Os from before the capture");
        warn(self.failed, "I/Os completed with an error");
        for (disk, name) in self.disks.iter().zip(&self.names) {
            if self.remapped_from.contains(&disk.device) {
                report.warnings.push(format!(
                    "disk {name} lies on another disk of this capture (remaps): the same I/O is \
                     on both; choose one at replay"
                ));
            }
        }
        report
    }

    fn report_if_counted(&mut self, event: &Event, what: &str) {
        let counted = match self.kind {
            EventKind::Queue => QUEUE,
            EventKind::Issue => ISSUE,
        };
        if event.action == counted {
            self.report.drop_row(what, 1);
        }
    }

    #[inline]
    fn disk_of(&mut self, device: u32) -> usize {
        if let Some(disk) = self.disks.get(self.last_disk)
            && disk.device == device
        {
            return self.last_disk;
        }
        self.last_disk = match self.disks.iter().position(|d| d.device == device) {
            Some(found) => found,
            None => {
                self.names.push(device_name(device));
                let flushes = Flushes::default();
                self.disks.push(Disk { device, has_issues: false, flushes });
                self.disks.len() - 1
            }
        };
        self.last_disk
    }

    /// A new row; its identity.
    #[inline]
    fn push_row(&mut self, event: &Event, disk: usize, issue_ns: i64) -> u64 {
        let flush = event.is_pure_flush();
        let offset = i64::try_from(event.sector.saturating_mul(SECTOR_BYTES)).unwrap_or(i64::MAX);
        self.rows.push_back(Row {
            io: TraceIo {
                time_ns: event.time_ns as i64,
                disk: disk as u32,
                op: if flush { Op::Flush } else { event.op() },
                offset_bytes: if flush { 0 } else { offset },
                length_bytes: i64::from(event.bytes),
                latency_ns: NO_LATENCY,
                flags: event.flags(),
                stream: event.pid,
            },
            issue_ns,
            left_bytes: if flush { 1 } else { event.bytes },
        });
        self.base + self.rows.len() as u64 - 1
    }

    /// Drops an I/O that the canonical trace has no place for.
    #[inline]
    fn is_out_of_range(&mut self, event: &Event) -> bool {
        let end = event.sector.saturating_mul(SECTOR_BYTES).saturating_add(event.bytes.into());
        let out = !event.is_pure_flush() && (event.bytes == 0 || end > i64::MAX as u64);
        if out {
            let why = if event.bytes == 0 { "no data and no flush" } else { "beyond 2^63 bytes" };
            self.report.drop_row(why, 1);
        }
        out
    }

    #[inline]
    fn queue(&mut self, event: &Event, disk: usize) {
        if self.kind != EventKind::Queue || self.is_out_of_range(event) {
            return;
        }
        let row = self.push_row(event, disk, NOT_ISSUED);
        if event.is_pure_flush() {
            let base = self.base;
            let queued = &mut self.disks[disk].flushes.queued;
            while queued.front().is_some_and(|&id| id < base) {
                queued.pop_front();
            }
            queued.push_back(row);
        } else {
            let key = Key::new(disk, event.op(), event.sector);
            self.pending.insert(key, Segment { row, bytes: event.bytes }, self.base);
        }
    }

    #[inline]
    fn issue(&mut self, event: &Event, disk: usize) {
        self.disks[disk].has_issues = true;
        let now = event.time_ns as i64;
        if event.is_pure_flush() {
            let row = match self.kind {
                EventKind::Queue => u64::MAX,
                EventKind::Issue => self.push_row(event, disk, now),
            };
            let issued = &mut self.disks[disk].flushes.issued;
            issued.push_back((now, row));
            if issued.len() > MAX_WAITING {
                issued.pop_front();
            }
            return;
        }
        if event.bytes == 0 {
            return;
        }
        let op = event.op();
        let mut request =
            Request { issue_ns: now, bytes: event.bytes, segments: Vec::new(), first: None };
        self.gather(&mut request, disk, op, event.sector);
        let key = Key::new(disk, op, event.sector);
        if request.first.is_none() {
            if self.kind == EventKind::Queue {
                return self.reissue(&key, event.bytes, now);
            }
            if self.is_out_of_range(event) {
                return;
            }
            let row = self.push_row(event, disk, now);
            request.add(Segment { row, bytes: event.bytes });
        }
        self.issued.insert(key, request, self.base);
    }

    /// Collects the waiting bios that make up the request's range, from its start on.
    #[inline]
    fn gather(&mut self, request: &mut Request, disk: usize, op: Op, start: u64) {
        let mut left = request.bytes;
        let mut sector = start;
        while left > 0 {
            let key = Key::new(disk, op, sector);
            let Some(mut segment) = self.pending.take(&key, left, self.base) else { return };
            if segment.bytes > left {
                let rest = Segment { row: segment.row, bytes: segment.bytes - left };
                let after = Key::new(disk, op, sector.wrapping_add(u64::from(left) / SECTOR_BYTES));
                self.pending.insert(after, rest, self.base);
                segment.bytes = left;
            }
            if let Some(row) = self.row(segment.row)
                && row.issue_ns == NOT_ISSUED
            {
                row.issue_ns = request.issue_ns;
            }
            request.add(segment);
            left -= segment.bytes;
            sector = sector.wrapping_add(u64::from(segment.bytes) / SECTOR_BYTES);
        }
    }

    /// An issue of a request that is issued already (a driver that does not trace its requeue).
    fn reissue(&mut self, key: &Key, bytes: u32, now: i64) {
        let Some(mut request) = self.issued.take(key, bytes, self.base) else { return };
        if request.bytes == bytes {
            request.issue_ns = now;
            for segment in request.parts() {
                if let Some(row) = self.row(segment.row) {
                    row.issue_ns = now;
                }
            }
        }
        self.issued.insert(*key, request, self.base);
    }

    fn requeue(&mut self, event: &Event, disk: usize) {
        let op = event.op();
        let key = Key::new(disk, op, event.sector);
        let Some(request) = self.issued.take(&key, event.bytes, self.base) else { return };
        let mut sector = event.sector;
        for segment in request.parts() {
            if let Some(row) = self.row(segment.row) {
                row.issue_ns = NOT_ISSUED;
            }
            self.pending.insert(Key::new(disk, op, sector), segment, self.base);
            sector = sector.wrapping_add(u64::from(segment.bytes) / SECTOR_BYTES);
        }
    }

    #[inline]
    fn complete(&mut self, event: &Event, disk: usize) {
        self.failed += u64::from(event.failed);
        if event.bytes == 0 {
            self.complete_flush(event, disk);
            return;
        }
        let op = event.op();
        let key = Key::new(disk, op, event.sector);
        if let Some(mut request) = self.issued.take(&key, event.bytes, self.base) {
            let rest = self.finish_segments(&mut request, event);
            if rest > 0 {
                let done = u64::from(event.bytes) / SECTOR_BYTES;
                let after = Key::new(disk, op, event.sector.wrapping_add(done));
                self.issued.insert(after, request, self.base);
            }
        } else if self.disks[disk].has_issues {
            self.unmatched_completions += 1;
        } else if let Some(segment) = self.pending.take(&key, event.bytes, self.base) {
            // A device that issues nothing (device mapper, md) completes bios: served since Q.
            if let Some(row) = self.row(segment.row) {
                row.io.latency_ns = (event.time_ns as i64).saturating_sub(row.io.time_ns).max(0);
                row.left_bytes = 0;
            }
        }
    }

    /// Completes the first `event.bytes` of a request; the bytes still to come.
    #[inline]
    fn finish_segments(&mut self, request: &mut Request, event: &Event) -> u32 {
        let now = event.time_ns as i64;
        let mut done = event.bytes.min(request.bytes);
        request.bytes -= done;
        let mut kept = Vec::new();
        for mut segment in request.parts() {
            let part = segment.bytes.min(done);
            done -= part;
            segment.bytes -= part;
            if let Some(row) = self.row(segment.row) {
                row.left_bytes = row.left_bytes.saturating_sub(part);
                if row.left_bytes == 0 && row.issue_ns != NOT_ISSUED {
                    row.io.latency_ns = now.saturating_sub(row.issue_ns).max(0);
                }
            }
            if segment.bytes > 0 {
                kept.push(segment);
            }
        }
        request.replace(kept);
        request.bytes
    }

    /// A completion without bytes: of the flush request, or of a bio that a flush served.
    fn complete_flush(&mut self, event: &Event, disk: usize) {
        let now = event.time_ns as i64;
        let kind = self.kind;
        let flushes = &mut self.disks[disk].flushes;
        if event.category & category::FLUSH != 0
            && let Some((issue_ns, id)) = flushes.issued.pop_front()
        {
            flushes.served_ns = Some(issue_ns);
            if kind == EventKind::Issue {
                self.finish_flush(id, now, issue_ns);
            }
        }
        if kind == EventKind::Issue || event.category & category::WRITE == 0 || event.sector != 0 {
            return;
        }
        let base = self.base;
        let disk = &mut self.disks[disk];
        while disk.flushes.queued.front().is_some_and(|&id| id < base) {
            disk.flushes.queued.pop_front();
        }
        let Some(&id) = disk.flushes.queued.front() else { return };
        let queued_ns = self.rows[(id - base) as usize].io.time_ns;
        let issue_ns = if disk.has_issues { disk.flushes.served_ns } else { Some(queued_ns) };
        // A flush that was issued before the bio came cannot have served it.
        if let Some(issue_ns) = issue_ns.filter(|&issue_ns| issue_ns >= queued_ns) {
            disk.flushes.queued.pop_front();
            self.finish_flush(id, now, issue_ns);
        }
    }

    fn finish_flush(&mut self, id: u64, now: i64, issue_ns: i64) {
        if let Some(row) = self.row(id) {
            row.io.latency_ns = now.saturating_sub(issue_ns).max(0);
            row.left_bytes = 0;
        }
    }

    #[inline]
    fn row(&mut self, id: u64) -> Option<&mut Row> {
        self.rows.get_mut(usize::try_from(id.checked_sub(self.base)?).ok()?)
    }

    #[inline]
    fn pop_into(&mut self, batch: &mut TraceBatch) {
        if let Some(row) = self.rows.pop_front() {
            batch.push(&row.io);
            self.base += 1;
        }
    }
}
