//! What comes of an I/O: checked, its range released, its row written, its slot freed.

use serde_json::Value;

use super::chain::place_in_policy;
use super::hung::is_foreign;
use super::options::Conflicts;
use super::plan::Due;
use super::run::Output;
use super::worker::{Phase, REMEMBERED, Remembered, Worker};
use crate::clock::Ns;
use crate::error::{Error, ErrorKind, Result};
use crate::io::{OK, Op, row_flags};
use crate::pipeline::Event;
use crate::record::RowTimes;
use crate::slab::IoId;
use crate::version_map::Outcome;

impl Worker {
    /// Takes in the I/Os that are done: check, release, record.
    #[inline]
    pub(super) fn collect(&mut self) -> Result<()> {
        self.go_on_after_flushes();
        self.pipeline.take_done(&mut self.done);
        while !self.done.is_empty() {
            for i in 0..self.done.len() {
                self.complete(self.done[i])?;
            }
            // Starting what waited may have completed more: a filter that answers at once.
            self.done.clear();
            self.go_on_after_flushes();
            self.pipeline.take_done(&mut self.done);
        }
        Ok(())
    }

    #[inline]
    fn complete(&mut self, id: IoId) -> Result<()> {
        let io = self.pipeline.core.slab.io(id);
        let (complete_ns, disk) = (io.complete_ns, io.disk);
        if io.status != OK {
            self.note_error(id)?;
        } else if io.op == Op::Read && self.oracles[io.disk as usize].verifies() {
            self.verify(id);
        }
        self.ready.clear();
        let released = self.lock.release(id);
        if !released.is_empty() {
            self.ready.extend_from_slice(released);
        }
        if self.in_flight >= self.depth {
            self.room_since_ns = complete_ns;
        }
        self.in_flight -= 1;
        self.remember(id, complete_ns);
        match self.phase {
            Phase::Trace => self.record(id),
            Phase::Prefill => {
                self.totals.prefill_bytes += self.pipeline.core.slab.io(id).length_bytes;
            }
            Phase::Sweep => {}
        }
        self.pipeline.core.slab.give_back(id);
        if self.options.conflicts == Conflicts::Order {
            self.start_ready(disk);
        }
        Ok(())
    }

    /// Starts what waited for an I/O of the disk, and what waited behind that.
    #[inline]
    fn start_ready(&mut self, disk: u16) {
        if !self.lanes.is_used() {
            for i in 0..self.ready.len() {
                self.start(self.ready[i]);
            }
        } else if !self.ready.is_empty() {
            for id in self.ready.drain(..) {
                self.lanes.unblock(id, disk);
            }
            self.start_lane(disk);
        }
    }

    fn start_lane(&mut self, disk: u16) {
        while let Some(id) = self.lanes.next(disk) {
            self.start(id);
        }
    }

    /// Starts what waited behind writes whose preflush is done by now.
    #[inline]
    fn go_on_after_flushes(&mut self) {
        if !self.pipeline.has_flushed() {
            return;
        }
        if !self.lanes.is_used() {
            self.pipeline.take_flushed();
            return;
        }
        let flushed: Vec<IoId> = self.pipeline.take_flushed().collect();
        for id in flushed {
            let disk = self.pipeline.core.slab.io(id).disk;
            self.lanes.flushed(id, disk);
            self.start_lane(disk);
        }
    }

    #[inline]
    pub(super) fn remember(&mut self, id: IoId, at: Ns) {
        if self.phase == Phase::Trace && !self.completed.is_empty() {
            let seq = self.pipeline.core.slab.io(id).seq;
            let known = &mut self.completed[seq as usize % REMEMBERED];
            if known.seq != seq {
                *known = Remembered { seq, at_ns: 0, pieces_left: self.slots[id as usize].pieces };
            }
            known.at_ns = known.at_ns.max(at);
            known.pieces_left -= 1;
        }
    }

    fn note_error(&mut self, id: IoId) -> Result<()> {
        let io = self.pipeline.core.slab.io(id);
        if io.op.modifies() {
            self.oracles[io.disk as usize].forget(io.offset_bytes, io.length_bytes);
        }
        let source = std::io::Error::from_raw_os_error(io.status);
        let disk = self.shared.disk_names[self.disks[io.disk as usize] as usize].as_str();
        let place = format!("{} at offset {} of disk {disk}", io.op.name(), io.offset_bytes);
        if self.phase == Phase::Prefill {
            return Err(self.prefill_failed(&place, source));
        }
        self.totals.note_error(self.phase, || format!("{place}: {source}"));
        Ok(())
    }

    /// A prefill that failed ends the round, and no other round where a filter of another make, or
    /// one in a process of its own that died, may be why: as what it does later.
    fn prefill_failed(&self, place: &str, source: std::io::Error) -> Error {
        if let Some(why) = self.pipeline.failure() {
            return Error::input(why);
        }
        let events = &self.pipeline.core.events;
        let why = events.iter().rev().find_map(|event| self.why_in(event));
        let why = why.map_or(String::new(), |why| format!(" ({why})"));
        let mut layers = 0..self.options.filters.len();
        let costs_its_round = layers.any(|layer| is_foreign(&self.options, layer))
            || events.iter().any(|event| event.kind.starts_with("filter_"));
        let kind = if costs_its_round { ErrorKind::Hung } else { ErrorKind::Failed };
        Error::new(kind, format!("prefill: {place} failed{why}")).caused_by(source)
    }

    /// What an event tells of a filter that died, raised, or did what it may not.
    fn why_in(&self, event: &Event) -> Option<String> {
        let detail: Value = serde_json::from_str(&event.detail).ok()?;
        if event.kind.starts_with("filter_") {
            let layer = usize::from(event.layer);
            let name = self.options.filters[layer].word();
            let place = place_in_policy(&self.options, layer);
            return Some(format!("filter[{place}] {name:?} {}", detail["reason"].as_str()?));
        }
        let text = match event.kind {
            "error" => detail["error"].as_str()?,
            "misuse" => detail["what"].as_str()?,
            _ => return None,
        };
        let callback = detail["callback"].as_str();
        Some(callback.map_or_else(|| text.to_owned(), |callback| format!("{callback}: {text}")))
    }

    fn verify(&mut self, id: IoId) {
        let core = &mut self.pipeline.core;
        let before = core.clock.now();
        let io = core.slab.io(id);
        let disk = io.disk as usize;
        let unordered = self.slots[id as usize].unordered;
        let outcome = if unordered {
            Outcome { unverified_bytes: io.length_bytes, ..Default::default() }
        } else {
            self.oracles[disk].check(io.offset_bytes, io.length_bytes, core.slab.data(id))
        };
        let name = &self.shared.disk_names[self.disks[disk] as usize];
        self.totals.note_verified(self.phase, &outcome, name);
        core.slab.io_mut(id).harness_ns += core.clock.now() - before;
    }

    /// A row for an I/O that is not issued.
    pub(super) fn drop_io(&mut self, id: IoId) {
        let now = self.pipeline.core.clock.now();
        let io = self.pipeline.core.slab.io_mut(id);
        io.row_flags |= row_flags::DROPPED;
        (io.submit_ns, io.complete_ns) = (now, now);
        self.oracles[io.disk as usize].over(io.length_bytes, self.slots[id as usize].version);
        self.totals.dropped += 1;
        self.remember(id, now);
        self.record(id);
        self.pipeline.core.slab.give_back(id);
    }

    #[inline]
    pub(super) fn record(&mut self, id: IoId) {
        let slab = &self.pipeline.core.slab;
        let io = slab.io(id);
        let slot = self.slots[id as usize];
        let since = |at: Ns| at as i64 - self.start_ns as i64;
        let due = if matches!(slot.due, Due::Now) { io.submit_ns } else { slot.due_ns };
        let times = RowTimes {
            due_ns: since(due),
            submit_ns: since(io.submit_ns),
            complete_ns: since(io.complete_ns),
        };
        self.totals.note_row(io.op, io.length_bytes, io.complete_ns - self.start_ns);
        self.recorder.push(io, self.disks[io.disk as usize], times, slab.times(id));
        if self.recorder.is_full() {
            let now = self.pipeline.core.clock.now();
            let chunk = self.recorder.take(now);
            self.send(Output::Rows(chunk));
        }
    }
}
