//! Replication as it happens, with a restore point cut every interval.
//!
//! Point `k` is the state after all writes acknowledged before `k` intervals. It is recoverable
//! when the last of them has arrived, at its cut at the earliest. Point 0 is the synchronous
//! start.

use crate::planner::envelope::Runs;
use crate::planner::ramps::{Frame, Mode, Ramp, Sink};
use crate::planner::workload::Workload;

pub struct Points<'a> {
    workload: &'a Workload,
    frame: Frame,
    interval_ns: u64,
    /// The writes between two cuts, where there are any.
    runs: Runs,
}

impl<'a> Points<'a> {
    #[must_use]
    pub fn new(workload: &'a Workload, frame: Frame, interval_ns: u64) -> Self {
        let times = &workload.times_ns;
        let runs = Runs::new(workload, |first| {
            let cut = (times[first] as u64 / interval_ns + 1).saturating_mul(interval_ns);
            let later = times[first..].iter().position(|time| *time as u64 >= cut);
            later.map_or(times.len(), |writes| first + writes)
        });
        Self { workload, frame, interval_ns, runs }
    }
}

impl Mode for Points<'_> {
    fn walk(&self, byte_ns: f64, sink: &mut impl Sink) {
        let Frame { horizon, half_rtt, .. } = self.frame;
        let slot = |write: usize| self.workload.times_ns[write] as u64 / self.interval_ns;
        let last_cut = horizon as u64 / self.interval_ns;
        let mut newest = Newest::new(self.interval_ns as f64, horizon);
        let (mut empty, mut arrived) = (0.0_f64, 0.0_f64);
        for (i, run) in self.runs.runs.iter().enumerate() {
            let cut = slot(run.from) + 1;
            newest.advance((cut - 1).min(last_cut), arrived, sink);
            let first = self.workload.times_ns[run.from] as f64;
            let start = first.max(arrived);
            empty = self.runs.empty_after(i, empty, byte_ns);
            arrived = empty + half_rtt;
            let covered = if cut > last_cut {
                horizon
            } else {
                arrived.max(cut as f64 * self.interval_ns as f64)
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
struct Newest {
    interval: f64,
    horizon: f64,
    number: u64,
    /// Since when it has been recoverable.
    since: f64,
}

impl Newest {
    fn new(interval: f64, horizon: f64) -> Self {
        Self { interval, horizon, number: 0, since: 0.0 }
    }

    fn cut(&self, number: u64) -> f64 {
        number as f64 * self.interval
    }

    /// Makes the points up to `to` recoverable, each at its cut or at `arrived`, if that is later.
    fn advance(&mut self, to: u64, arrived: f64, sink: &mut impl Sink) {
        let waiting = to.min((arrived / self.interval) as u64);
        if waiting > self.number {
            let oldest = arrived - self.cut(self.number);
            sink.sessions(oldest, self.interval, waiting - self.number);
            self.replace(waiting, arrived, sink);
        }
        if to > self.number {
            let since = self.cut(self.number + 1);
            sink.sessions(self.interval, 0.0, to - self.number);
            self.replace(self.number + 1, since, sink);
            let idle = to - self.number;
            if idle > 0 {
                sink.rpo(Ramp::saw(since, self.interval, idle));
                (self.number, self.since) = (to, self.cut(to));
            }
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
