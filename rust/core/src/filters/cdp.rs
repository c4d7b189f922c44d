//! `cdp`: continuous replication to a replica site. The page is below.
//!
//! The filter joins the walk of I/Os to the source's state machine ([`crate::cdp::source`]) and
//! that to its link. See [`hold`] for what it keeps of I/Os, and [`settings`].

use serde_json::Value;

use super::{
    Answer, Auxiliary, Built, Child, ChildData, Class, Cx, Filter, Kind, ParamError, Properties,
    Scope, Setting, Up, params,
};
use crate::backends::waker::Waker;
use crate::cdp::entry::{Change, Record};
use crate::cdp::link::{Link, LinkEvent};
use crate::cdp::model::Model;
use crate::cdp::source::{Degrade, MOVES_MAX, Mode, Output, READS_MAX, Source, Waits};
use crate::cdp::spill::Region;
use crate::cdp::tcp::TcpLink;
use crate::cdp::tls::Secret;
use crate::cdp::vault::Counts;
use crate::clock::Ns;
use crate::io::{OK, Op};
use crate::slab::{IoId, NONE};

#[cfg(test)]
mod crash_tests;
mod hold;
mod overflow;
mod page;
mod settings;
mod telling;
#[cfg(test)]
mod tests;

use hold::{Active, Held, Waiters};
use settings::Settings;

pub const KIND: Kind =
    Kind { name: "cdp", class: Some(Class::Replication), page: page::PAGE, schema, build };

fn schema() -> Value {
    params::schema_of::<settings::Params>()
}

fn build(table: &Value, setting: &Setting) -> Built {
    let settings = settings::read(table, setting)?;
    let link = link(&settings).map_err(|e| vec![ParamError::new("link", e.to_string())])?;
    let moves = if settings.config.spill_bytes > 0 { 2 * MOVES_MAX as u32 } else { 0 };
    let properties = Properties {
        may_defer: true,
        background_ios: READS_MAX as u32 + moves,
        child_bytes: settings.config.block_bytes.max(settings.config.record_max_bytes),
        scope: Scope::Group,
        ..Properties::TRANSPARENT
    };
    Ok((Box::new(Cdp::new(settings, link)), properties))
}

fn link(settings: &Settings) -> crate::error::Result<Box<dyn Link>> {
    let line = settings.line.clone();
    Ok(match &settings.site {
        Some((site, key)) => {
            let config = Secret::new(key)?.client()?;
            Box::new(TcpLink::new(site, config, line, settings.codec)?)
        }
        None => Box::new(Model::new(line, Counts::default())),
    })
}

/// A site that was not reached within this long before the run is not there.
const REACH_NS: Ns = 10_000_000_000;

/// The phases of a run, as far as a filter can tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Opened; no time has been seen yet.
    Fresh,
    Running,
    /// What is captured goes out, until then at most.
    Closing(Ns),
}

pub struct Cdp {
    settings: Settings,
    source: Source,
    link: Box<dyn Link>,
    active: Active,
    held: Held,
    waiters: Waiters,
    phase: Phase,
    /// Opened so often: the first time is for the prefill.
    opened: u32,
    next_point_ns: Ns,
    armed_ns: Ns,
    seen_ns: Ns,
    events: Vec<LinkEvent>,
    fatal: Option<String>,
    /// When the far end was last there, before the run.
    reached_ns: Ns,
    /// When the initial synchronisation could begin.
    began_ns: Ns,
    /// What is to be told of the initial synchronisation once the trace has started.
    synced: Option<Value>,
    /// I/Os of the spill file under way, and how many there were.
    moving: Vec<(u64, Region)>,
    moves: u64,
    /// Writes were captured since the link was last given any.
    is_unsent: bool,
}

impl Cdp {
    fn new(settings: Settings, link: Box<dyn Link>) -> Self {
        Self {
            source: Source::new(settings.config.clone()),
            settings,
            link,
            active: Active::default(),
            held: Held::default(),
            waiters: Waiters::default(),
            phase: Phase::Fresh,
            opened: 0,
            next_point_ns: Ns::MAX,
            armed_ns: Ns::MAX,
            seen_ns: 0,
            events: Vec::new(),
            fatal: None,
            reached_ns: 0,
            began_ns: 0,
            synced: None,
            moving: Vec::new(),
            moves: 0,
            is_unsent: false,
        }
    }

    /// The first moment of a phase: points count from its start.
    fn begin(&mut self, cx: &mut Cx<'_>, now: Ns) {
        self.phase = Phase::Running;
        if self.opened <= 2 && self.source.reads_base() {
            self.began_ns = now;
        }
        let interval = self.settings.config.point_interval_ns;
        if self.opened > 1 {
            self.link.shape(true, now);
            self.source.start(cx.started_ns());
            if let Some(detail) = self.synced.take() {
                cx.event_for_all("initial_sync", &detail.to_string());
            }
            let since = cx.since_start(now).max(0) as u64;
            let next = |beats: u64| now - since + (beats + 1) * interval;
            self.next_point_ns = since.checked_div(interval).map_or(Ns::MAX, next);
        } else {
            self.link.shape(false, now);
        }
    }

    /// Nothing waits for confirmations: they need no timers, and are taken when the journal is
    /// looked at next, each with the time at which it came.
    #[inline]
    fn is_unhurried(&self) -> bool {
        self.phase == Phase::Running
            && self.held.is_empty()
            && self.waiters.is_empty()
            && self.source.is_unhurried()
    }

    /// Takes the confirmations that came before `before_ns` and that nobody waited for.
    #[inline]
    fn take_acks(&mut self, before_ns: Ns) {
        if self.is_unhurried() {
            while let Some(ack) = self.link.take_ack(before_ns) {
                self.source.acked(&ack, &[]);
            }
        }
    }

    /// Takes in what the link has to say, cuts the point that is due, and sends.
    fn tick(&mut self, cx: &mut Cx<'_>) {
        let now = cx.now();
        self.take_acks(now);
        self.seen_ns = now;
        if self.phase == Phase::Fresh {
            self.begin(cx, now);
        }
        // Before what the link confirms: writes that it releases are acknowledged after the cut.
        if now >= self.next_point_ns {
            self.source.cut(now);
            let interval = self.settings.config.point_interval_ns;
            let missed = (now - self.next_point_ns) / interval;
            self.next_point_ns += (missed + 1) * interval;
        }
        if self.source.is_reached() {
            self.reached_ns = now;
        }
        self.link.poll(now, &mut self.events);
        for event in self.events.drain(..) {
            self.source.link_event(now, event, &mut *self.link);
        }
        if self
            .waiters
            .oldest_ns()
            .is_some_and(|at| now >= at + self.settings.config.sync_timeout_ns)
        {
            self.source.detach();
        }
        if self.held.oldest_ns().is_some_and(|at| now >= at + self.settings.hold_ns) {
            self.source.enter_bitmap(now, "held back too long");
        }
        self.source.pump(now, &mut *self.link);
        self.read_marked(cx, now);
        self.move_overflow(cx);
        self.source.end_resync(now);
        self.source.pump(now, &mut *self.link);
        self.act(cx);
        while !self.held.is_empty() && !self.source.holds_back() {
            let Some(io) = self.held.take() else { break };
            self.active.start(cx, io);
            cx.resume(io);
        }
        self.arm(cx, now);
    }

    fn read_marked(&mut self, cx: &mut Cx<'_>, now: Ns) {
        while let Some((disk, offset_bytes, length_bytes)) = self.source.next_read(now) {
            let child = Child {
                op: Op::Read,
                offset_bytes,
                length_bytes,
                flags: 0,
                data: ChildData::Own,
                tag: self.active.read(disk, offset_bytes, length_bytes),
            };
            if cx.background_of(disk, child).is_none() {
                self.active.read_done(child.tag);
                self.source.read_done(now, (disk, offset_bytes, length_bytes), None, true);
            }
        }
    }

    /// What was captured goes out, if the link wants it.
    #[inline]
    fn send_on(&mut self, cx: &mut Cx<'_>, now: Ns) {
        if self.link.wants(now) || !self.source.outputs.is_empty() {
            self.source.pump(now, &mut *self.link);
            self.act(cx);
        }
        self.arm(cx, now);
    }

    /// Asks to be called when the next thing is due.
    fn arm(&mut self, cx: &mut Cx<'_>, now: Ns) {
        let earlier = |a: Ns, b: Option<Ns>| a.min(b.unwrap_or(Ns::MAX));
        let mut next = earlier(self.next_point_ns, self.source.next_due_ns());
        // An idle line is no event while there is nothing to send.
        if self.source.has_more() {
            next = earlier(next, self.link.wants_at_ns());
        }
        if self.is_unhurried() {
            next = earlier(next, self.link.next_news_ns());
        } else {
            next = earlier(next, self.link.next_event_ns());
            next = earlier(next, self.held.oldest_ns().map(|at| at + self.settings.hold_ns));
            let patience_ns = self.settings.config.sync_timeout_ns;
            next = earlier(next, self.waiters.oldest_ns().map(|at| at + patience_ns));
            if let Phase::Closing(until) = self.phase
                && until > now
            {
                next = next.min(until);
            }
        }
        if next < self.armed_ns {
            self.armed_ns = next.max(now);
            cx.timer(self.armed_ns, self.armed_ns);
        }
    }

    /// A write that comes now is held back.
    fn has_to_wait(&mut self, now: Ns) -> bool {
        self.take_acks(now + 1);
        !self.held.is_empty() || self.source.holds_back()
    }

    fn record(&mut self, cx: &mut Cx<'_>, io: IoId, now: Ns) -> u64 {
        let it = cx.io(io);
        let change = match it.op {
            Op::Write => Change::Write,
            Op::WriteZeroes => Change::Zero,
            Op::Discard => Change::Discard,
            Op::Read | Op::Flush => return 0,
        };
        self.source.record(&Record {
            change,
            disk: it.disk,
            offset_bytes: it.offset_bytes,
            length_bytes: it.length_bytes,
            time_ns: now,
            data: if change == Change::Write { cx.data(io) } else { &[] },
        })
    }
}

impl Filter for Cdp {
    fn open(&mut self, slots: usize) {
        self.opened += 1;
        self.phase = Phase::Fresh;
        self.active.reserve(slots);
    }

    #[inline]
    fn io_start(&mut self, cx: &mut Cx<'_>, io: IoId) -> Answer {
        if self.phase == Phase::Fresh {
            self.tick(cx);
        }
        if !cx.io(io).op.modifies() {
            return Answer::Pass;
        }
        let now = cx.now();
        if self.settings.config.degrade == Degrade::Backpressure && self.has_to_wait(now) {
            self.held.push(io, now);
            self.act(cx);
            self.arm(cx, now);
            return Answer::Defer;
        }
        self.active.start(cx, io);
        Answer::Pass
    }

    #[inline]
    fn io_complete(&mut self, cx: &mut Cx<'_>, io: IoId) -> Up {
        if !cx.io(io).op.modifies() {
            return Up::Pass;
        }
        self.active.end(io);
        // What failed is not in the log: a replica holds only what the guest was told is written.
        if cx.io(io).status != OK {
            return Up::Pass;
        }
        let now = cx.now();
        self.take_acks(now);
        self.seen_ns = now;
        let no = self.record(cx, io, now);
        self.move_overflow(cx);
        if self.settings.site.is_some() {
            // The guest does not wait for the link's thread to be woken: `poll` follows.
            self.is_unsent = true;
        } else {
            self.send_on(cx, now);
        }
        if no == 0 || self.source.waits() == Waits::Async {
            return Up::Pass;
        }
        self.waiters.push(no, io, now);
        self.arm(cx, now);
        Up::Defer
    }

    fn child_complete(&mut self, cx: &mut Cx<'_>, parent: IoId, child: IoId) {
        debug_assert_eq!(parent, NONE);
        let now = cx.now();
        let io = cx.io(child);
        let (tag, status) = (io.tag, io.status);
        if self.has_moved(cx, child) {
            return self.tick(cx);
        }
        let Some((block, clean)) = self.active.read_done(tag) else { return };
        let is_good = status == OK && clean;
        if is_good && self.source.reads_base() && self.settings.site.is_some() {
            cx.note_base(block.0, block.1, child);
        }
        let data = is_good.then(|| cx.data(child));
        self.source.read_done(now, block, data, status != OK);
        self.tick(cx);
    }

    fn timer(&mut self, cx: &mut Cx<'_>, token: u64) {
        if token == self.armed_ns {
            self.armed_ns = Ns::MAX;
            self.tick(cx);
        }
    }

    fn close(&mut self, cx: &mut Cx<'_>) {
        let now = cx.now();
        self.take_acks(now);
        if self.phase == Phase::Fresh {
            self.begin(cx, now);
        }
        // The last state is worth a point of its own; while seeding, all of it has to arrive.
        self.next_point_ns = Ns::MAX;
        self.source.cut(now);
        let seeding = self.opened < 2;
        if seeding {
            self.began_ns = now;
            self.source.store_full = false;
            self.source.seed();
        }
        let lasts = if seeding { REACH_NS } else { self.settings.drain_ns };
        self.phase = Phase::Closing(now + lasts);
        self.tick(cx);
    }

    fn is_busy(&self) -> bool {
        match self.phase {
            // Seeding takes what it takes, once the site is there.
            Phase::Closing(until) if self.opened < 2 => {
                let is_done = self.source.is_up() && self.source.is_seeded();
                let is_there = self.seen_ns < until.max(self.reached_ns + REACH_NS);
                // No point lets retention give anything up before all that the disks hold is there.
                let has_room = !self.source.store_full;
                let goes_on = self.fatal.is_none() && has_room && !is_done;
                goes_on && (self.source.is_reached() || is_there)
            }
            Phase::Closing(until) => {
                self.fatal.is_none() && !self.source.is_settled() && self.seen_ns < until
            }
            Phase::Fresh | Phase::Running => false,
        }
    }

    fn failure(&self) -> Option<String> {
        if let Some(why) = &self.fatal {
            return Some(format!("cdp: the replica site refuses this run: {why}"));
        }
        let seeding = matches!(self.phase, Phase::Closing(_)) && self.opened < 2;
        if seeding && self.source.store_full {
            let left = self.source.unsynced_bytes();
            return Some(format!(
                "cdp: the replica site's store is full: expected room for the initial \
                 synchronisation, of which {left} bytes are left"
            ));
        }
        let why = &self.source.last_trouble;
        // It may be asked at any time: a site that is waited for is not missed yet.
        (seeding && !self.is_busy() && !self.source.is_up())
            .then(|| format!("cdp: the replica site cannot be reached: {why}"))
    }

    fn end(&mut self, cx: &mut Cx<'_>) {
        let now = cx.now();
        self.source.tell_untold();
        self.source.tell_open_hole(now);
        self.act(cx);
        let totals = self.totals(now);
        cx.event("replication_totals", totals.to_string());
    }

    fn auxiliaries(&self) -> Vec<Auxiliary> {
        let size_bytes = self.settings.config.spill_bytes;
        let path = self.settings.spill_file.clone();
        let spill = Auxiliary { name: "journal's spill file", path, size_bytes };
        if size_bytes > 0 { vec![spill] } else { Vec::new() }
    }

    fn is_polled(&self) -> bool {
        self.settings.site.is_some()
    }

    fn wake_by(&mut self, waker: Waker) {
        self.link.wake_by(waker);
    }

    fn poll(&mut self, cx: &mut Cx<'_>) {
        if self.phase == Phase::Fresh {
            return;
        }
        let is_unsent = std::mem::take(&mut self.is_unsent);
        if self.link.is_ready() {
            self.tick(cx);
        } else if is_unsent {
            self.send_on(cx, cx.now());
        }
    }

    fn may_sleep(&mut self, _now: Ns) -> bool {
        !self.is_unsent || self.phase == Phase::Fresh
    }

    fn settle(&mut self, now: Ns) {
        self.take_acks(now + 1);
        self.seen_ns = now;
    }

    fn gauges(&self, out: &mut Vec<(&'static str, i64)>) {
        out.push(("backlog_bytes", self.source.backlog_bytes() as i64));
        out.push(("lag_ns", self.source.lag_ns(self.seen_ns) as i64));
        out.push(("mode", self.source.mode().code()));
        if self.source.reads_base() {
            out.push(("unsynced_bytes", self.source.unsynced_bytes() as i64));
        }
        if self.source.mode() == Mode::Backpressure {
            out.push(("held_ios", self.held.len() as i64));
        }
    }
}
