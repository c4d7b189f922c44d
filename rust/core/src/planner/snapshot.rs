//! Replication by snapshots: every so often, the blocks changed since the last one.
//!
//! A sync starts at its scheduled time, or when the one before ends, if that is later; times
//! missed by then are not made up for. It sends the state at its start, each changed block once,
//! and ends when that is recoverable. The synchronous start counts as a first snapshot at 0. In an
//! outage nothing ends: neither a sync, nor a snapshot that has nothing to send.

use crate::cdp::line::Way;
use crate::planner::ramps::{Frame, Mode, Ramp, Sink};
use crate::planner::workload::Workload;

pub struct Snapshots<'a, W> {
    workload: &'a Workload,
    frame: Frame,
    way: &'a W,
    every_ns: u64,
    /// (first write, first write after, distinct blocks) of each scheduled slot that has writes:
    /// what a sync sends as long as none is late.
    slots: Vec<(usize, usize, u64)>,
}

/// What the syncs of a plan add up to.
#[derive(Debug, Default, Clone, Copy)]
pub struct Syncs {
    /// Syncs that had something to send.
    pub count: u64,
    pub sent_bytes: u64,
    pub bytes_max: u64,
    pub duration_ns_max: f64,
}

/// A snapshot: its time, when it was recoverable, and the first write it lacks.
struct Snapshot {
    cut: f64,
    since: f64,
    write: usize,
}

impl<'a, W: Way> Snapshots<'a, W> {
    #[must_use]
    pub fn new(workload: &'a Workload, frame: Frame, way: &'a W, every_ns: u64) -> Self {
        let times = &workload.times_ns;
        let (mut slots, mut from) = (Vec::new(), 0);
        while from < times.len() {
            let end = (times[from] as u64 / every_ns + 1).saturating_mul(every_ns);
            let to = from + times[from..].partition_point(|time| (*time as u64) < end);
            slots.push((from, to, workload.changed.distinct(from, to)));
            from = to;
        }
        Self { workload, frame, way, every_ns, slots }
    }

    /// What is sent at a link speed.
    #[must_use]
    pub fn syncs(&self, byte_ns: f64) -> Syncs {
        let mut syncs = Syncs::default();
        self.walk_syncs(byte_ns, &mut Silent, |bytes, duration_ns| {
            syncs.count += u64::from(bytes > 0);
            syncs.sent_bytes += bytes;
            syncs.bytes_max = syncs.bytes_max.max(bytes);
            syncs.duration_ns_max = syncs.duration_ns_max.max(duration_ns);
        });
        syncs
    }

    /// `sent` is told the bytes and the duration of every sync that has something to send.
    fn walk_syncs(&self, byte_ns: f64, sink: &mut impl Sink, mut sent: impl FnMut(u64, f64)) {
        let (horizon, way) = (self.frame.horizon, self.way);
        let mut newest = Snapshot { cut: 0.0, since: 0.0, write: 0 };
        let mut slot = 0;
        loop {
            let start = self.next_start(&newest);
            let lacks = self.workload.times_ns.get(newest.write).map_or(f64::MAX, |t| *t as f64);
            if start > horizon || start <= lacks {
                if start > horizon {
                    told(&newest, lacks, horizon, horizon, sink);
                    return;
                }
                // Nothing to send: a point as good as the state itself, as soon as it is heard of.
                let heard = way.heard(start);
                told(&newest, lacks, heard, horizon, sink);
                sink.sessions(heard - newest.cut, 0.0, 1);
                if heard >= horizon {
                    return;
                }
                newest = if heard > start {
                    Snapshot { cut: start, since: heard, write: newest.write }
                } else {
                    self.pass_idle(start, lacks, newest.write, sink)
                };
                continue;
            }
            let (to, blocks) = self.changed(newest.write, start, &mut slot);
            let bytes = blocks * self.workload.changed.granularity_bytes();
            let empty = way.served(start) + bytes as f64 * byte_ns;
            let end = self.snapped(way.arrives(empty));
            sent(bytes, end - start);
            told(&newest, lacks, end, horizon, sink);
            sink.sessions(end - newest.cut, 0.0, 1);
            if end >= horizon {
                return;
            }
            newest = Snapshot { cut: start, since: end, write: to };
        }
    }

    fn next_start(&self, newest: &Snapshot) -> f64 {
        let every = self.every_ns as f64;
        (((newest.cut / every).floor() + 1.0) * every).max(newest.since)
    }

    /// The empty snapshots from `start` on, up to the next write and the end of planning.
    fn pass_idle(&self, start: f64, lacks: f64, write: usize, sink: &mut impl Sink) -> Snapshot {
        let every = self.every_ns as f64;
        let until = lacks.min(self.frame.horizon).min(self.way.closes_after(start));
        let slots = ((until - start) / every) as u64;
        let on_schedule = (start / every).fract() == 0.0;
        let cut = if on_schedule && slots > 0 {
            sink.rpo(Ramp::saw(start, every, slots));
            sink.sessions(every, 0.0, slots);
            start + slots as f64 * every
        } else {
            start
        };
        Snapshot { cut, since: cut, write }
    }

    /// The first write from `start` on, and the distinct blocks changed from `from` to there.
    fn changed(&self, from: usize, start: f64, slot: &mut usize) -> (usize, u64) {
        while self.slots.get(*slot).is_some_and(|s| s.0 < from) {
            *slot += 1;
        }
        let times = &self.workload.times_ns;
        if let Some((_, to, blocks)) = self.slots.get(*slot).filter(|s| s.0 == from) {
            let next_is_later = times.get(*to).is_none_or(|time| *time as f64 >= start);
            if next_is_later && (times[*to - 1] as f64) < start {
                return (*to, *blocks);
            }
        }
        let to = from + times[from..].partition_point(|time| (*time as f64) < start);
        (to, self.workload.changed.distinct(from, to))
    }

    /// A sync that ends on the schedule but for rounding ends on the schedule: otherwise the next
    /// would start just before its time and another one just after.
    fn snapped(&self, end: f64) -> f64 {
        let every = self.every_ns as f64;
        let scheduled = (end / every).round() * every;
        // A few times the rounding of a double this large.
        if (end - scheduled).abs() <= end * 1e-15 { scheduled } else { end }
    }
}

/// Tells of the time until `newest` is replaced, at `until`; `lacks` is its first missing write.
fn told(newest: &Snapshot, lacks: f64, until: f64, horizon: f64, sink: &mut impl Sink) {
    if let Some(ramp) = Ramp::within(newest.since, until, newest.cut, horizon) {
        sink.rpo(ramp);
    }
    if let Some(ramp) = Ramp::within(newest.since.max(lacks), until, lacks, horizon) {
        sink.exposure(ramp);
    }
}

impl<W: Way> Mode for Snapshots<'_, W> {
    fn walk(&self, byte_ns: f64, sink: &mut impl Sink) {
        self.walk_syncs(byte_ns, sink, |_, _| ());
    }

    fn frame(&self) -> &Frame {
        &self.frame
    }

    /// A late sync takes a later state along.
    fn falls_with_bandwidth(&self) -> bool {
        false
    }
}

/// Hears nothing.
struct Silent;

impl Sink for Silent {
    fn rpo(&mut self, _: Ramp) {}

    fn exposure(&mut self, _: Ramp) {}

    fn sessions(&mut self, _: f64, _: f64, _: u64) {}
}
