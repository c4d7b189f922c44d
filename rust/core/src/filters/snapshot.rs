//! `snapshot`: replication by periodic snapshots, the baseline that CDP replaces. The page is in
//! `page.rs`; what changed and where the redo log stands is in `changes.rs`.

use std::collections::VecDeque;

use serde_json::{Value, json};

use super::{
    Answer, Auxiliary, Built, Child, ChildData, Class, Cx, Filter, Kind, Properties, Setting, Up,
    params,
};
use crate::cdp::line::Way;
use crate::clock::Ns;
use crate::io::{OK, Op};
use crate::slab::{IoId, NONE};

mod changes;
mod idle;
mod page;
mod settings;
mod state;
#[cfg(test)]
mod tests;

use changes::{Blocks, RedoLog};
use settings::Settings;
use state::{Merge, Phase, Sync, Then};

pub const KIND: Kind =
    Kind { name: "snapshot", class: Some(Class::Replication), page: page::PAGE, schema, build };

fn schema() -> Value {
    params::schema_of::<settings::Params>()
}

fn build(table: &Value, setting: &Setting) -> Built {
    let settings = settings::read(table, setting)?;
    // A block is copied as a whole before any write to it goes on; without copies none waits.
    let unit_bytes = settings.redo.as_ref().map_or(1, |_| settings.granularity_bytes);
    let properties = Properties {
        may_defer: true,
        unit_bytes,
        children_per_io: 2,
        background_ios: settings.depth as u32 + 3,
        child_bytes: settings.read_bytes,
        ..Properties::TRANSPARENT
    };
    Ok((Box::new(Snapshot::new(settings)), properties))
}

/// Timers, in the low bits of a token; the number of the opening is in the others.
const SCHEDULE: u64 = 0;
const UNSTUN: u64 = 1;
const SENT: u64 = 2;
const RECOVERABLE: u64 = 3;
const MERGE: u64 = 4;
const HEARD: u64 = 5;
const KINDS: u64 = 8;

/// Tags of children.
const COPY_READ: u64 = 0;
const COPY_WRITE: u64 = 1;
const SYNC_READ: u64 = 2;
const MERGE_READ: u64 = 3;
const MERGE_WRITE: u64 = 4;

struct Snapshot {
    settings: Settings,
    opening: u64,
    phase: Phase,
    closed: bool,
    /// Guest I/Os below, and those held back, oldest first.
    under_way: u64,
    held: VecDeque<IoId>,
    held_since_ns: Ns,
    /// Blocks changed since the newest cut.
    changed: Blocks,
    /// Blocks changed since the snapshot (or the helper snapshot) exists.
    redone: Option<Blocks>,
    redo_log: RedoLog,
    /// End of the farthest I/O: no block is read beyond it.
    reach_bytes: u64,
    sync: Sync,
    merge: Merge,
    points: u64,
    /// Cut of the newest recoverable point and of the newest sync that failed, and since when
    /// there has been nothing to do.
    newest_cut_ns: Ns,
    failed_cut_ns: Ns,
    idle_since_ns: Ns,
    /// Cut of a snapshot that has nothing to send, while the far end does not hear of it.
    unheard_ns: Option<Ns>,
    seen_ns: Ns,
}

impl Snapshot {
    fn new(settings: Settings) -> Self {
        let redo_log = RedoLog::new(settings.redo.as_ref().map_or(0, |redo| redo.size_bytes));
        Self {
            opening: 0,
            phase: Phase::Idle,
            closed: false,
            under_way: 0,
            held: VecDeque::new(),
            held_since_ns: 0,
            changed: Blocks::new(settings.granularity_bytes),
            redone: None,
            redo_log,
            reach_bytes: 0,
            sync: Sync::default(),
            merge: Merge::default(),
            points: 0,
            newest_cut_ns: 0,
            failed_cut_ns: 0,
            idle_since_ns: 0,
            unheard_ns: None,
            seen_ns: 0,
            settings,
        }
    }

    fn timer_at(&self, cx: &mut Cx<'_>, at_ns: Ns, kind: u64) {
        cx.timer(at_ns, self.opening * KINDS + kind);
    }

    /// The first scheduled time after the newest cut.
    fn next_slot(&self, cx: &Cx<'_>) -> Ns {
        let start = start_ns(cx);
        let every = self.settings.every_ns;
        let cut_ns = self.newest_cut_ns.max(self.failed_cut_ns);
        start + (cut_ns.saturating_sub(start) / every + 1) * every
    }

    fn point(&mut self, cx: &mut Cx<'_>, cut_ns: Ns, recoverable_ns: Ns, bytes: u64) {
        self.points += 1;
        self.newest_cut_ns = cut_ns;
        let detail = json!({
            "id": self.points,
            "cut_ns": cx.since_start(cut_ns),
            "recoverable_ns": cx.since_start(recoverable_ns),
            "bytes": bytes,
        });
        cx.event("restore_point", detail.to_string());
    }

    fn mode(cx: &mut Cx<'_>, mode: &str) {
        cx.event("mode", json!({ "mode": mode }).to_string());
    }

    /// Holds the guest until its I/Os under way are done and the stun is over.
    fn quiesce(&mut self, cx: &mut Cx<'_>, then: Then) {
        self.phase = Phase::Quiesce(then);
        self.held_since_ns = cx.now();
        self.if_quiet(cx);
    }

    fn if_quiet(&mut self, cx: &mut Cx<'_>) {
        let Phase::Quiesce(then) = self.phase else { return };
        if self.under_way > 0 {
            return;
        }
        let now = cx.now();
        self.phase = Phase::Stunned(then);
        let merging_ns = match then {
            Then::Cut => {
                self.begin_sync(cx, now);
                0.0
            }
            Then::Removed(bytes) => {
                self.settings.merge.as_ref().map_or(0.0, |m| bytes as f64 * m.byte_ns)
            }
        };
        let stun_ns = self.settings.stun_ns + merging_ns.ceil() as Ns;
        if stun_ns == 0 {
            self.unstun(cx);
        } else {
            self.timer_at(cx, now + stun_ns, UNSTUN);
        }
    }

    fn unstun(&mut self, cx: &mut Cx<'_>) {
        let Phase::Stunned(then) = self.phase else { return };
        let now = cx.now();
        let why = if then == Then::Cut { "create" } else { "consolidate" };
        let (duration_ns, held_ios) = (now - self.held_since_ns, self.held.len());
        if duration_ns > 0 {
            let detail = json!({"duration_ns": duration_ns, "why": why, "held_ios": held_ios});
            cx.event("stun", detail.to_string());
        }
        self.phase = if then == Then::Cut { Phase::Sync } else { Phase::Idle };
        if then != Then::Cut {
            self.redone = None;
        }
        while let Some(io) = self.held.pop_front() {
            if self.begin(cx, io) {
                cx.resume(io);
            }
        }
        match then {
            Then::Cut => self.pump(cx),
            Then::Removed(_) => self.end_session(cx),
        }
    }

    fn begin_sync(&mut self, cx: &mut Cx<'_>, now: Ns) {
        let left = self.changed.take_runs();
        let backlog_bytes = left.bytes();
        self.sync = Sync { cut_ns: now, left, backlog_bytes, ..Sync::default() };
        self.redone = Some(Blocks::new(self.settings.granularity_bytes));
        self.redo_log.begin();
        Self::mode(cx, "sync");
    }

    /// Reads what the link will have room for.
    fn pump(&mut self, cx: &mut Cx<'_>) {
        while !self.closed
            && self.phase == Phase::Sync
            && self.sync.reading + self.sync.sending.len() < self.settings.depth
        {
            let Some((offset, bytes)) = self.sync.left.next(self.settings.read_bytes) else {
                break;
            };
            let length = self.reach_bytes.saturating_sub(offset).min(bytes);
            self.sync.reading += 1;
            let tag = SYNC_READ | bytes << 3;
            if length == 0 || read(cx, offset, length, tag).is_none() {
                // Where nothing of it can be there, what is sent is that.
                self.has_read(cx, bytes, length == 0);
            }
        }
        let sync = &self.sync;
        if self.phase == Phase::Sync && sync.reading == 0 && sync.sending.is_empty() {
            let (now, start) = (cx.now(), start_ns(cx));
            let line = &self.settings.line;
            let ended = sync.link_free.max(line.served((now - start) as f64));
            let at = start + line.arrives(ended).ceil() as Ns;
            self.timer_at(cx, at.max(now), RECOVERABLE);
        }
    }

    /// A chunk has been read and goes to the link.
    fn has_read(&mut self, cx: &mut Cx<'_>, bytes: u64, is_ok: bool) {
        let sync = &mut self.sync;
        sync.reading -= 1;
        sync.failed |= !is_ok;
        sync.bytes += bytes;
        let (start, line) = (start_ns(cx), &self.settings.line);
        let free = sync.link_free.max(line.served((cx.now() - start) as f64));
        sync.link_free = free + bytes as f64 * self.settings.byte_ns;
        sync.sending.push_back(bytes);
        let at = start + line.sent(sync.link_free).ceil() as Ns;
        self.timer_at(cx, at, SENT);
    }

    fn is_recoverable(&mut self, cx: &mut Cx<'_>) {
        let now = cx.now();
        let sync = std::mem::take(&mut self.sync);
        if sync.failed {
            // The next point needs what this one would have brought.
            self.changed.put_back(&sync.left);
            self.failed_cut_ns = sync.cut_ns;
            let detail = json!({"what": "a changed block could not be read: the sync failed"});
            cx.event("fault", detail.to_string());
        } else {
            self.point(cx, sync.cut_ns, now, sync.bytes);
        }
        if self.settings.merge.is_none() {
            self.redone = None;
            self.end_session(cx);
        } else {
            Self::mode(cx, "consolidate");
            self.phase = Phase::Merge;
            self.merge = Merge::default();
            self.merge_step(cx);
        }
    }

    /// Merges what the guest wrote since the last step: with the guest running, or held when it is
    /// little or when it was too often not.
    fn merge_step(&mut self, cx: &mut Cx<'_>) {
        let Some(merge) = &self.settings.merge else { return };
        let left = self.redone.as_mut().map(Blocks::take_runs).unwrap_or_default();
        let bytes = left.bytes();
        let takes_ns = bytes as f64 * merge.byte_ns;
        let forced = self.merge.iteration >= merge.iterations;
        let detail = json!({
            "iteration": self.merge.iteration, "bytes": bytes, "takes_ns": takes_ns as u64,
            "forced": forced && takes_ns > merge.pause_ns,
        });
        cx.event("consolidate", detail.to_string());
        if forced || takes_ns <= merge.pause_ns {
            self.quiesce(cx, Then::Removed(bytes));
            return;
        }
        self.merge.iteration += 1;
        self.merge.left = left;
        self.merge_chunk(cx);
    }

    /// One chunk of the merge: its load is a read of the disk and a write of the redo log, since
    /// the guest's data is in its place already.
    fn merge_chunk(&mut self, cx: &mut Cx<'_>) {
        let Some(merge) = &self.settings.merge else { return };
        let byte_ns = merge.byte_ns;
        let Some((offset, bytes)) = self.merge.left.next(self.settings.read_bytes) else {
            self.merge_step(cx);
            return;
        };
        let length = self.reach_bytes.saturating_sub(offset).min(bytes);
        if length > 0 {
            read(cx, offset, length, MERGE_READ);
        }
        self.timer_at(cx, cx.now() + (bytes as f64 * byte_ns).ceil() as Ns, MERGE);
    }

    fn end_session(&mut self, cx: &mut Cx<'_>) {
        let now = cx.now();
        self.phase = Phase::Idle;
        self.idle_since_ns = now;
        Self::mode(cx, "idle");
        if !self.changed.is_empty() {
            let at = self.next_slot(cx).max(now);
            self.timer_at(cx, at, SCHEDULE);
        }
    }

    /// An I/O goes on its way: true at once, false after a copy for the redo log.
    fn begin(&mut self, cx: &mut Cx<'_>, id: IoId) -> bool {
        self.under_way += 1;
        let io = cx.io(id);
        let (op, offset, length) = (io.op, io.offset_bytes, io.length_bytes);
        let known_bytes = self.reach_bytes;
        self.reach_bytes = known_bytes.max(offset + length);
        if !matches!(op, Op::Write | Op::WriteZeroes | Op::Discard) || length == 0 {
            return true;
        }
        if self.changed.is_empty() && self.phase == Phase::Idle && !self.closed {
            let now = cx.now();
            self.pass_idle(cx, now);
            if self.unheard_ns.is_none() {
                let at = self.next_slot(cx);
                self.timer_at(cx, at, SCHEDULE);
            }
        }
        self.changed.add(offset, length);
        let Some((first, end)) = self.redone.as_mut().and_then(|b| b.add(offset, length)) else {
            return true;
        };
        // What lies beyond everything seen so far has nothing worth keeping.
        let end = end.min(known_bytes);
        if self.settings.redo.is_none() || end <= first {
            return true;
        }
        let tag = COPY_READ;
        let (op, data) = (Op::Read, ChildData::Own);
        let child =
            Child { op, offset_bytes: first, length_bytes: end - first, flags: 0, data, tag };
        cx.child(id, child).is_none()
    }

    /// What was read goes to the redo log, in a child of the same I/O or by itself.
    fn keep_old(&mut self, cx: &mut Cx<'_>, parent: IoId, read: IoId, tag: u64) -> bool {
        if self.settings.redo.is_none() {
            return false;
        }
        let length_bytes = self.redo_log.fits(cx.io(read).length_bytes);
        let offset_bytes = self.redo_log.place(length_bytes);
        let (op, data) = (Op::Write, ChildData::Own);
        let child = Child { op, offset_bytes, length_bytes, flags: 0, data, tag };
        let born =
            if parent == NONE { cx.background_on(0, child) } else { cx.child_on(0, parent, child) };
        let Some(write) = born else { return false };
        if let Some((from, to)) = cx.data_pair(read, write) {
            to.copy_from_slice(&from[..to.len()]);
        }
        true
    }
}

/// When the phase that runs began, on the filter's clock.
fn start_ns(cx: &Cx<'_>) -> Ns {
    let now = cx.now();
    now.saturating_add_signed(-cx.since_start(now))
}

/// A read of the filter's own.
fn read(cx: &mut Cx<'_>, offset_bytes: u64, length_bytes: u64, tag: u64) -> Option<IoId> {
    let (op, data) = (Op::Read, ChildData::Own);
    cx.background(Child { op, offset_bytes, length_bytes, flags: 0, data, tag })
}

impl Filter for Snapshot {
    fn open(&mut self, slots: usize) {
        let (opening, settings) = (self.opening + 1, self.settings.clone());
        *self = Self { opening, ..Self::new(settings) };
        self.held.reserve(slots);
    }

    fn auxiliaries(&self) -> Vec<Auxiliary> {
        let log = |redo: &settings::Redo| Auxiliary {
            name: "redo log",
            path: redo.file.clone(),
            size_bytes: redo.size_bytes,
        };
        self.settings.redo.iter().map(log).collect()
    }

    fn io_start(&mut self, cx: &mut Cx<'_>, io: IoId) -> Answer {
        self.seen_ns = self.seen_ns.max(cx.io(io).submit_ns);
        if matches!(self.phase, Phase::Quiesce(_) | Phase::Stunned(_)) {
            self.held.push_back(io);
            return Answer::Defer;
        }
        if self.begin(cx, io) { Answer::Pass } else { Answer::Defer }
    }

    fn io_complete(&mut self, cx: &mut Cx<'_>, _io: IoId) -> Up {
        self.under_way -= 1;
        self.if_quiet(cx);
        Up::Pass
    }

    fn child_complete(&mut self, cx: &mut Cx<'_>, parent: IoId, child: IoId) {
        let (tag, is_ok) = (cx.io(child).tag, cx.io(child).status == OK);
        match tag & (KINDS - 1) {
            COPY_READ if is_ok && self.keep_old(cx, parent, child, COPY_WRITE) => {}
            COPY_READ | COPY_WRITE => cx.resume(parent),
            SYNC_READ => {
                self.has_read(cx, tag >> 3, is_ok);
                self.pump(cx);
            }
            MERGE_READ => {
                self.keep_old(cx, NONE, child, MERGE_WRITE);
            }
            _ => {}
        }
    }

    fn timer(&mut self, cx: &mut Cx<'_>, token: u64) {
        if token / KINDS != self.opening || self.closed {
            // The guest is never left held, whatever has been closed.
            if token / KINDS == self.opening {
                self.unstun(cx);
            }
            return;
        }
        self.seen_ns = cx.now();
        match token % KINDS {
            SCHEDULE if self.phase == Phase::Idle => self.quiesce(cx, Then::Cut),
            UNSTUN => self.unstun(cx),
            SENT => {
                let sent = self.sync.sending.pop_front().unwrap_or(0);
                self.sync.backlog_bytes -= sent;
                self.pump(cx);
            }
            RECOVERABLE => self.is_recoverable(cx),
            MERGE if self.phase == Phase::Merge => self.merge_chunk(cx),
            HEARD => self.is_heard(cx),
            _ => {}
        }
    }

    fn close(&mut self, cx: &mut Cx<'_>) {
        if !self.closed && self.phase == Phase::Idle && self.changed.is_empty() {
            let now = cx.now();
            self.pass_idle(cx, now);
        }
        self.closed = true;
    }

    fn gauges(&self, out: &mut Vec<(&'static str, i64)>) {
        let lag_ns = self.seen_ns.saturating_sub(self.newest_cut_ns);
        out.push(("backlog_bytes", self.sync.backlog_bytes as i64));
        out.push(("changed_bytes", self.changed.bytes() as i64));
        out.push(("redo_bytes", self.redo_log.used_bytes() as i64));
        out.push(("held_ios", self.held.len() as i64));
        out.push(("lag_ns", lag_ns as i64));
    }
}
