//! Where a filter is tested: a chain over a device, every read checked, and what a crash may leave.

use std::collections::VecDeque;

use super::tokens::{ANY, fill, found, holds, sectors, token_of, told};
use crate::backends::Backend;
use crate::clock::{Clock, Ns};
use crate::error::{Error, Result};
use crate::filters::{DataMode, Filter, Properties, SECTOR_BYTES};
use crate::int_map::IntMap;
use crate::io::{OK, Op, Status, flags};
use crate::pipeline::{Chains, Event, Most, Pipeline};
use crate::rangelock::RangeLock;
use crate::slab::{IoId, Slab};

/// The disk that laws are tested on: small, so that I/Os meet.
pub const DISK_BYTES: u64 = 256 << 10;
const IO_BYTES_MAX: u64 = 1 << 20;
const SLOTS: usize = 1024;
/// Of these, how many a filter that runs elsewhere is lent for its own I/Os.
pub const LENT: usize = 512;
/// Steps of a run at most: a filter that never comes to rest is found.
const STEPS_MAX: u64 = 2_000_000;
/// On the wall clock, an I/O that takes longer is lost.
const WALL_NS: u64 = 60_000_000_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plan {
    pub at_ns: Ns,
    pub op: Op,
    pub offset_bytes: u64,
    pub length_bytes: u64,
    pub flags: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    pub seq: u64,
    pub op: Op,
    pub status: Status,
    /// When it left for the chain.
    pub submit_ns: Ns,
    pub complete_ns: Ns,
}

struct Flying {
    row: Row,
    plan: Plan,
    /// Completions when it was submitted: what a flush covers.
    covers: u64,
}

/// What a sector may hold after a crash, oldest first.
#[derive(Debug, Clone, Copy)]
struct Version {
    /// Of the I/O that made it: zeros are the same whoever wrote them.
    seq: u64,
    token: u64,
    /// The count of completions at its acknowledgement.
    acknowledged: Option<u64>,
}

pub struct Bed {
    pipeline: Pipeline,
    lock: RangeLock,
    flight: IntMap<Flying>,
    seq: u64,
    completions: u64,
    pub rows: Vec<Row>,
    /// What reads must return; absent where nothing is known.
    known: IntMap<u64>,
    versions: IntMap<Vec<Version>>,
    is_after_crash: bool,
    /// What a sector holds that was never written.
    blank: u64,
    /// False where a law is not about data.
    pub verifies: bool,
    /// True where what is below may fail: elsewhere an I/O that fails is the filter's doing.
    pub may_fail: bool,
    /// Of the filters' events, how many were looked at.
    heeded: usize,
    /// The first thing that was wrong.
    pub wrong: Option<String>,
}

/// What is carried over a crash.
#[derive(Default)]
pub struct Memory {
    versions: IntMap<Vec<Version>>,
    seq: u64,
}

impl Bed {
    /// A chain over a device. The disk reads as zeros when `is_blank`, else nothing is known of it.
    ///
    /// # Errors
    /// When no memory can be reserved.
    pub fn new(
        built: Vec<(Box<dyn Filter>, Properties)>,
        backend: Box<dyn Backend>,
        clock: Clock,
        is_blank: bool,
    ) -> Result<Self> {
        let unit = built.iter().map(|(_, p)| p.unit_bytes).max().unwrap_or(1).max(4096);
        let child = built.iter().map(|(_, p)| p.child_bytes).max().unwrap_or(0);
        let slot_bytes = child.max(IO_BYTES_MAX + 2 * unit) as usize;
        let slab = Slab::with_memory(SLOTS, slot_bytes, built.len() + 1, true)?;
        let filters = built.into_iter().map(|(filter, _)| filter).collect();
        let chains = Chains::single(filters);
        let mut pipeline = Pipeline::new(clock, slab, DataMode::Bytes, 1, chains, backend);
        pipeline.place()?;
        pipeline.open();
        let mut known = IntMap::default();
        if is_blank {
            known.extend((0..DISK_BYTES / SECTOR_BYTES).map(|sector| (sector, 0)));
        }
        Ok(Self {
            pipeline,
            lock: RangeLock::new(SLOTS, unit),
            flight: IntMap::default(),
            seq: 0,
            completions: 0,
            rows: Vec::new(),
            known,
            versions: IntMap::default(),
            is_after_crash: false,
            blank: if is_blank { 0 } else { ANY },
            verifies: true,
            may_fail: false,
            heeded: 0,
            wrong: None,
        })
    }

    /// Runs a plan to its end, or until so many I/Os have completed.
    ///
    /// # Errors
    /// When the backend breaks.
    pub fn run(&mut self, plan: &[Plan], completions_max: u64) -> Result<()> {
        let mut plan: VecDeque<Plan> = plan.iter().copied().collect();
        let base = self.pipeline.core.clock.now();
        let until = self.completions + completions_max;
        for _ in 0..STEPS_MAX {
            self.pipeline.poll()?;
            self.take_done();
            let now = self.pipeline.core.clock.now();
            while plan.front().is_some_and(|next| base + next.at_ns <= now) && self.has_room() {
                if let Some(next) = plan.pop_front() {
                    self.submit(next);
                }
            }
            self.take_done();
            self.heed_events();
            if self.completions >= until || (plan.is_empty() && self.flight.is_empty()) {
                return Ok(());
            }
            let due = plan.front().filter(|_| self.has_room()).map(|next| base + next.at_ns);
            self.pass_time(due)?;
            if let Some(error) = self.pipeline.broken() {
                return Err(error);
            }
            if self.wrong.is_some() {
                return Ok(());
            }
        }
        self.complain(|| "it never came to rest".to_owned());
        Ok(())
    }

    fn has_room(&self) -> bool {
        self.flight.len() < 64
    }

    fn pass_time(&mut self, due: Option<Ns>) -> Result<()> {
        // A filter that is shown its I/Os in batches has some to look at.
        if !self.pipeline.may_sleep() {
            return Ok(());
        }
        let now = self.pipeline.core.clock.now();
        let next = [due, self.pipeline.next_event_ns()].into_iter().flatten().min();
        if self.pipeline.core.clock.is_virtual() {
            let Some(next) = next else {
                let left = self.flight.len();
                self.complain(|| format!("{left} I/Os never came back"));
                return Ok(());
            };
            self.pipeline.core.clock.advance_to(next.max(now));
            return Ok(());
        }
        let oldest = self.flight.values().map(|flying| flying.row.complete_ns).min();
        if oldest.is_some_and(|since| now > since + WALL_NS) {
            self.complain(|| "an I/O took more than a minute".to_owned());
        }
        let gap = next.unwrap_or(now + 50_000_000).saturating_sub(now);
        self.pipeline.wait(gap.min(50_000_000))
    }

    /// Lets the filters write back what they hold.
    ///
    /// # Errors
    /// When the backend breaks.
    pub fn close(&mut self) -> Result<()> {
        self.pipeline.close();
        self.heed_events();
        for _ in 0..STEPS_MAX {
            if self.pipeline.is_idle() {
                return Ok(());
            }
            self.pipeline.poll()?;
            self.heed_events();
            if self.pipeline.is_idle() {
                return Ok(());
            }
            self.pass_time(None)?;
            if self.wrong.is_some() {
                return Ok(());
            }
        }
        self.complain(|| "closing never came to an end".to_owned());
        Ok(())
    }

    /// Reads the whole disk.
    ///
    /// # Errors
    /// When the backend breaks.
    pub fn read_all(&mut self) -> Result<()> {
        let step = 8 * SECTOR_BYTES;
        let plan: Vec<Plan> = (0..DISK_BYTES / step)
            .map(|i| Plan {
                at_ns: 0,
                op: Op::Read,
                offset_bytes: i * step,
                length_bytes: step,
                flags: 0,
            })
            .collect();
        self.run(&plan, u64::MAX >> 1)
    }

    /// One I/O by itself; its status.
    ///
    /// # Errors
    /// When the backend breaks, or the I/O never comes back.
    pub fn one(&mut self, op: Op, offset_bytes: u64, length_bytes: u64) -> Result<Status> {
        let plan = Plan { at_ns: 0, op, offset_bytes, length_bytes, flags: 0 };
        self.run(&[plan], u64::MAX >> 1)?;
        let last = self.rows.last().filter(|row| row.seq + 1 == self.seq);
        last.map(|row| row.status).ok_or_else(|| Error::failed("an I/O never came back"))
    }

    /// The most I/Os of the filters' own that were open at one time.
    #[must_use]
    pub fn most(&self) -> Most {
        self.pipeline.core.most
    }

    /// What the filters told since the last call.
    #[cfg(test)]
    pub fn take_events(&mut self) -> Vec<Event> {
        self.heeded = 0;
        self.pipeline.take_events()
    }

    /// Why a filter cannot do its work, if one cannot.
    #[cfg(test)]
    pub fn failure(&self) -> Option<String> {
        self.pipeline.failure()
    }

    /// Ends it as a crash would: nothing more is asked of the filters.
    #[must_use]
    pub fn into_memory(self) -> Memory {
        Memory { versions: self.versions, seq: self.seq }
    }

    /// From now on a read may return whatever a crash may have left.
    pub fn after_crash(&mut self, memory: Memory) {
        self.known.clear();
        self.is_after_crash = true;
        self.versions = memory.versions;
        // Completions are counted anew: no flush to come covers what was acknowledged before.
        for version in self.versions.values_mut().flatten() {
            version.acknowledged = None;
        }
        self.seq = memory.seq;
    }

    /// What reads must return at its end.
    #[must_use]
    pub fn into_known(self) -> IntMap<u64> {
        self.known
    }

    /// From now on reads must return this.
    pub fn expect(&mut self, known: IntMap<u64>) {
        self.known = known;
    }

    fn submit(&mut self, plan: Plan) {
        let (seq, op) = (self.seq, plan.op);
        self.seq += 1;
        let bytes = if op.has_data() { plan.length_bytes as usize } else { 0 };
        let Some(id) = self.pipeline.core.slab.take(op, bytes) else {
            return self.complain(|| "it keeps more I/Os of its own than it declared".to_owned());
        };
        let now = self.pipeline.core.clock.now();
        let io = self.pipeline.core.slab.io_mut(id);
        (io.offset_bytes, io.length_bytes, io.seq) = (plan.offset_bytes, plan.length_bytes, seq);
        (io.disk, io.flags) = (0, plan.flags);
        if op == Op::Write {
            fill(self.pipeline.core.slab.data_mut(id), seq + 1);
        }
        if let Some(token) = token_of(op, seq) {
            for sector in sectors(&plan) {
                let first = Version { seq: u64::MAX, token: self.blank, acknowledged: Some(0) };
                let blank = || vec![first];
                let versions = self.versions.entry(sector).or_insert_with(blank);
                versions.push(Version { seq, token, acknowledged: None });
            }
        }
        let row = Row { seq, op, status: OK, submit_ns: now, complete_ns: now };
        let flying = Flying { row, plan, covers: self.completions };
        self.flight.insert(u64::from(id), flying);
        if self.lock.acquire(id, 0, op, plan.offset_bytes, plan.length_bytes) == 0 {
            self.start(id);
        }
    }

    /// What a flush covers is what was acknowledged when it left for the chain.
    fn start(&mut self, id: IoId) {
        if let Some(flying) = self.flight.get_mut(&u64::from(id)) {
            flying.covers = self.completions;
        }
        self.pipeline.submit(id);
    }

    fn take_done(&mut self) {
        let mut done = Vec::new();
        self.pipeline.take_done(&mut done);
        while !done.is_empty() {
            for id in done.drain(..) {
                self.finish(id);
                for next in self.lock.release(id).to_vec() {
                    self.start(next);
                }
            }
            self.pipeline.take_done(&mut done);
        }
    }

    fn finish(&mut self, id: IoId) {
        let Some(Flying { mut row, plan, covers }) = self.flight.remove(&u64::from(id)) else {
            return self.complain(|| "an I/O came back twice".to_owned());
        };
        self.completions += 1;
        let io = self.pipeline.core.slab.io(id);
        row.status = io.status;
        (row.submit_ns, row.complete_ns) = (io.submit_ns, io.complete_ns);
        if row.op == Op::Write {
            let mut expected = vec![0; plan.length_bytes as usize];
            fill(&mut expected, row.seq + 1);
            if self.pipeline.core.slab.data(id) != expected {
                self.complain(|| format!("the bytes of write {} were changed", row.seq));
            }
        }
        if row.status != OK && !self.may_fail {
            let (io, status) = (named(&row, &plan), row.status);
            self.complain(|| format!("{io} failed with {status} while nothing below it failed"));
        }
        if row.op == Op::Read && row.status == OK && self.verifies {
            self.check_read(id, row.seq, &plan);
        }
        if let Some(token) = token_of(row.op, row.seq) {
            for sector in sectors(&plan) {
                if row.status == OK && token != ANY {
                    self.known.insert(sector, token);
                } else {
                    self.known.remove(&sector);
                }
            }
        }
        if row.status == OK {
            self.acknowledge(&row, &plan, covers);
        }
        self.rows.push(row);
        self.pipeline.core.slab.give_back(id);
    }

    /// What an acknowledgement promises of a crash from now on.
    fn acknowledge(&mut self, row: &Row, plan: &Plan, covers: u64) {
        let now = self.completions;
        if row.op.modifies() {
            for sector in sectors(plan) {
                let Some(versions) = self.versions.get_mut(&sector) else { continue };
                let Some(at) = versions.iter().rposition(|v| v.seq == row.seq) else { continue };
                versions[at].acknowledged = Some(now);
                if plan.flags & flags::FUA != 0 {
                    versions.drain(..at);
                }
            }
        }
        if row.op == Op::Flush || plan.flags & flags::PREFLUSH != 0 {
            for versions in self.versions.values_mut() {
                let covered = |v: &Version| v.acknowledged.is_some_and(|at| at <= covers);
                if let Some(at) = versions.iter().rposition(covered) {
                    versions.drain(..at);
                }
            }
        }
    }

    fn check_read(&mut self, id: IoId, seq: u64, plan: &Plan) {
        let data = self.pipeline.core.slab.data(id).chunks(SECTOR_BYTES as usize);
        let (mut wrong, mut settled) = (None, Vec::new());
        for (sector, data) in sectors(plan).zip(data) {
            let allowed: Vec<u64> = match (self.known.get(&sector), self.versions.get(&sector)) {
                (Some(token), _) => vec![*token],
                (None, Some(versions)) if self.is_after_crash => {
                    versions.iter().map(|v| v.token).collect()
                }
                (None, _) => continue,
            };
            if !allowed.iter().any(|token| holds(data, *token)) {
                let named: Vec<String> = allowed.iter().map(|token| told(*token)).collect();
                wrong = Some(format!(
                    "read {seq} of sector {sector} expected {} and found {}",
                    named.join(" or "),
                    found(data)
                ));
                break;
            }
            if self.is_after_crash && allowed.len() > 1 && !allowed.contains(&ANY) {
                settled.extend(allowed.iter().find(|t| holds(data, **t)).map(|t| (sector, *t)));
            }
        }
        // A crash leaves one version: what was read once is read again, whatever goes wrong next.
        // Writes that came later may wait already.
        for (sector, token) in settled {
            if let Some(versions) = self.versions.get_mut(&sector) {
                let is_later = |v: &Version| v.seq != u64::MAX && v.seq > seq;
                versions.retain(|version| version.token == token || is_later(version));
            }
        }
        if let Some(words) = wrong {
            self.complain(|| words);
        }
    }

    /// What reads must return of this image of the disk, and do not.
    pub fn missing_in(&self, image: &[u8]) -> Option<String> {
        let on_disk = |sector: u64| {
            let at = (sector * SECTOR_BYTES) as usize;
            &image[at..at + SECTOR_BYTES as usize]
        };
        let mut sectors: Vec<_> = self.known.iter().map(|(at, token)| (*at, *token)).collect();
        sectors.sort_unstable();
        let (sector, token) =
            sectors.into_iter().find(|(sector, token)| !holds(on_disk(*sector), *token))?;
        let found = found(on_disk(sector));
        Some(format!("sector {sector} is to hold {}, below it holds {found}", told(token)))
    }

    /// A filter that asks for what it may not have, or whose code raises, is told by an event.
    fn heed_events(&mut self) {
        let events = &self.pipeline.core.events;
        let is_wrong = |event: &&Event| match event.kind {
            "misuse" => true,
            // One of another make may tell of a device's failure by the word that Python's
            // exceptions have.
            "error" => !self.may_fail || event.detail.contains("\"traceback\""),
            _ => false,
        };
        let wrong = events[self.heeded..].iter().find(is_wrong);
        let mut wrong = wrong.map(|event| format!("{}: {}", event.kind, event.detail));
        self.heeded = events.len();
        if !self.may_fail && wrong.is_none() {
            wrong = self.pipeline.failure();
        }
        if let Some(words) = wrong {
            self.complain(|| words);
        }
    }

    fn complain(&mut self, words: impl FnOnce() -> String) {
        self.wrong.get_or_insert_with(words);
    }
}

/// An I/O in words: which one, and where.
fn named(row: &Row, plan: &Plan) -> String {
    let (op, range) = (row.op.name(), sectors(plan));
    match row.op {
        Op::Flush => format!("{op} {}", row.seq),
        _ => format!("{op} {} of sectors {} to {}", row.seq, range.start, range.end - 1),
    }
}
