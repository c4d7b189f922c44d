//! Replication as it happens, with a restore point cut every interval.
//!
//! Point `k` is the state after all writes acknowledged before `k` intervals. It is recoverable
//! when the last of them has arrived, at its cut at the earliest. Point 0 is the synchronous
//! start.
//!
//! With folding, a point's changed blocks are sent when it is cut, each once in its last version.

use crate::cdp::line::Way;
use crate::planner::envelope::Runs;
use crate::planner::ramps::{Frame, Mode, Ramp, Sink};
use crate::planner::workload::Workload;

pub struct Points<'a, W> {
    workload: &'a Workload,
    frame: Frame,
    way: &'a W,
    interval_ns: u64,
    /// The writes between two cuts, where there are any.
    runs: Runs,
    /// With folding: the bytes of each run's changed blocks.
    folded: Option<Vec<f64>>,
}

impl<'a, W: Way> Points<'a, W> {
    #[must_use]
    pub fn new(workload: &'a Workload, frame: Frame, way: &'a W, interval_ns: u64) -> Self {
        let times = &workload.times_ns;
        let runs = Runs::new(workload, way, |first| {
            let cut = (times[first] as u64 / interval_ns + 1).saturating_mul(interval_ns);
            let later = times[first..].iter().position(|time| *time as u64 >= cut);
            later.map_or(times.len(), |writes| first + writes)
        });
        Self { workload, frame, way, interval_ns, runs, folded: None }
    }

    /// Sends each block once a point.
    #[must_use]
    pub fn folding(mut self) -> Self {
        self.folded = Some(self.unique_bytes());
        self
    }

    /// Bytes of the distinct blocks of each point that has some.
    fn unique_bytes(&self) -> Vec<f64> {
        let changed = &self.workload.changed;
        let block = changed.granularity_bytes();
        let runs = self.runs.runs.iter();
        runs.map(|run| (changed.distinct(run.from, run.to) * block) as f64).collect()
    }

    /// What folding sends by the end, and the most that waits at one time, in bytes.
    #[must_use]
    pub fn folded_traffic(&self, byte_ns: f64) -> (u64, f64) {
        let (mut sent, mut most, mut empty) = (0.0, 0.0_f64, 0.0_f64);
        for (run, bytes) in self.runs.runs.iter().zip(self.folded.iter().flatten()) {
            let cut = self.cut_of(run.from) as f64 * self.interval_ns as f64;
            if cut <= self.frame.horizon {
                let cut = self.way.served(cut);
                empty = empty.max(cut) + bytes * byte_ns;
                sent += bytes;
                most = most.max((empty - cut) / byte_ns);
            }
        }
        (sent as u64, most)
    }

    /// Number of the first point that holds a write.
    fn cut_of(&self, write: usize) -> u64 {
        self.workload.times_ns[write] as u64 / self.interval_ns + 1
    }

    /// When the link has sent what run `i` holds, link time as `before_ns`.
    #[inline]
    fn empty_after(&self, i: usize, before_ns: f64, byte_ns: f64) -> f64 {
        match &self.folded {
            None => self.runs.empty_after(i, before_ns, byte_ns),
            Some(bytes) => {
                let cut = self.cut_of(self.runs.runs[i].from) as f64 * self.interval_ns as f64;
                before_ns.max(self.way.served(cut)) + bytes[i] * byte_ns
            }
        }
    }
}

impl<W: Way> Mode for Points<'_, W> {
    fn walk(&self, byte_ns: f64, sink: &mut impl Sink) {
        let (horizon, way) = (self.frame.horizon, self.way);
        let last_cut = horizon as u64 / self.interval_ns;
        let mut newest = Newest::new(self.interval_ns as f64, horizon, way);
        let (mut empty, mut arrived, mut covered) = (0.0_f64, 0.0_f64, 0.0_f64);
        for (i, run) in self.runs.runs.iter().enumerate() {
            let cut = self.cut_of(run.from);
            newest.advance((cut - 1).min(last_cut), arrived, sink);
            let first = self.workload.times_ns[run.from] as f64;
            let start = first.max(covered);
            empty = self.empty_after(i, empty, byte_ns);
            arrived = way.arrives(empty);
            covered = if cut > last_cut {
                horizon
            } else {
                arrived.max(way.heard(cut as f64 * self.interval_ns as f64))
            };
            if let Some(ramp) = Ramp::within(start, covered, first, horizon) {
                sink.exposure(ramp);
            }
        }
        newest.advance(last_cut, arrived, sink);
        newest.end(sink);
    }

    fn frame(&self) -> &Frame {
        &self.frame
    }
}

/// The newest recoverable point as time goes on.
struct Newest<'a, W> {
    interval: f64,
    horizon: f64,
    way: &'a W,
    number: u64,
    /// Since when it has been recoverable.
    since: f64,
}

impl<'a, W: Way> Newest<'a, W> {
    fn new(interval: f64, horizon: f64, way: &'a W) -> Self {
        Self { interval, horizon, way, number: 0, since: 0.0 }
    }

    fn cut(&self, number: u64) -> f64 {
        number as f64 * self.interval
    }

    /// Makes the points up to `to` recoverable, each at its cut or at `arrived`, if that is later;
    /// what is cut in an outage is not heard of before its end.
    fn advance(&mut self, to: u64, arrived: f64, sink: &mut impl Sink) {
        // Of what was cut on the way into an outage nothing is heard before its end, either.
        let heard_by_then = arrived.min(self.way.closes_after(arrived));
        self.at_once(to.min((heard_by_then / self.interval) as u64), arrived, sink);
        while to > self.number {
            let closes = self.way.closes_after(self.cut(self.number + 1));
            self.at_their_cut(to.min((closes / self.interval) as u64), sink);
            if to > self.number {
                let heard = self.way.heard(self.cut(self.number + 1));
                let cut_by_then = (heard / self.interval) as u64;
                self.at_once(to.min(cut_by_then.max(self.number + 1)), heard, sink);
            }
        }
    }

    /// Those up to `to` become recoverable at one moment.
    fn at_once(&mut self, to: u64, at: f64, sink: &mut impl Sink) {
        if to > self.number {
            let oldest = at - self.cut(self.number);
            sink.sessions(oldest, self.interval, to - self.number);
            self.replace(to, at, sink);
        }
    }

    fn at_their_cut(&mut self, to: u64, sink: &mut impl Sink) {
        if to <= self.number {
            return;
        }
        let since = self.cut(self.number + 1);
        sink.sessions(self.interval, 0.0, to - self.number);
        self.replace(self.number + 1, since, sink);
        let idle = to - self.number;
        if idle > 0 {
            sink.rpo(Ramp::saw(since, self.interval, idle));
            (self.number, self.since) = (to, self.cut(to));
        }
    }

    fn replace(&mut self, number: u64, since: f64, sink: &mut impl Sink) {
        let origin = self.cut(self.number);
        if let Some(ramp) = Ramp::within(self.since, since, origin, self.horizon) {
            sink.rpo(ramp);
        }
        (self.number, self.since) = (number, since);
    }

    fn end(mut self, sink: &mut impl Sink) {
        self.replace(self.number, self.horizon, sink);
    }
}
