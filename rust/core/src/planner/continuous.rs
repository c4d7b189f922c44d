//! Continuous replication: every instant whose acknowledged writes have arrived is a point.
//!
//! RPO(t) is the age of the oldest write that has not arrived, zero when all have: the same as
//! the exposure.

use crate::planner::envelope::Runs;
use crate::planner::ramps::{Frame, Mode, Ramp, Sink};
use crate::planner::workload::{Queue, Workload};

/// Long runs make a search fast, short ones leave little to walk around a violation's edges.
const RUN_WRITES: usize = 64;

pub struct Continuous<'a> {
    workload: &'a Workload,
    frame: Frame,
    runs: Runs,
}

impl<'a> Continuous<'a> {
    #[must_use]
    pub fn new(workload: &'a Workload, frame: Frame) -> Self {
        let times = &workload.times_ns;
        // A run longer than the target could not be passed over even when nothing waits.
        let longest = (frame.target / 2.0) as i64;
        let runs = Runs::new(workload, |first| {
            let end = times.len().min(first + RUN_WRITES);
            let later = times[first..end].iter().position(|time| time - times[first] > longest);
            later.map_or(end, |writes| first + writes)
        });
        Self { workload, frame, runs }
    }

    fn time(&self, write: usize) -> f64 {
        self.workload.times_ns[write] as f64
    }

    /// Time beyond the target while the writes `from..to` were the oldest under way; the queue
    /// was to be empty at `empty`, and all before had arrived at `arrived`.
    fn beyond_of(&self, writes: std::ops::Range<usize>, state: (f64, f64), byte_ns: f64) -> f64 {
        let (mut empty, mut arrived) = state;
        let (mut total, frame) = (0.0, &self.frame);
        for i in writes {
            let (time, sums) = (self.time(i), &self.workload.sums_bytes);
            empty = empty.max(time) + (sums[i + 1] - sums[i]) as f64 * byte_ns;
            let next = empty + frame.half_rtt;
            if let Some(ramp) = Ramp::within(arrived.max(time), next, time, frame.horizon) {
                total += frame.beyond(&ramp);
            }
            arrived = next;
        }
        total
    }
}

impl Mode for Continuous<'_> {
    fn walk(&self, byte_ns: f64, sink: &mut impl Sink) {
        let (mut queue, mut arrived) = (Queue::default(), 0.0);
        let sums = &self.workload.sums_bytes;
        for i in 0..self.workload.writes() {
            let time = self.time(i);
            let next = queue.send(time, sums[i], sums[i + 1], byte_ns) + self.frame.half_rtt;
            let start = time.max(arrived);
            if let Some(ramp) = Ramp::within(start, next, time, self.frame.horizon) {
                sink.rpo(ramp);
            } else if start >= self.frame.horizon {
                return;
            }
            arrived = next;
        }
    }

    fn walk_above(&self, byte_ns: f64, floor: f64, sink: &mut impl Sink) {
        let (mut empty, mut arrived) = (0.0_f64, 0.0_f64);
        let half_rtt = self.frame.half_rtt;
        let sums = self.workload.sums_bytes.windows(2);
        for (time, sums) in self.workload.times_ns.iter().zip(sums) {
            // One rounding a write since the queue was empty, and no branch to mispredict.
            let time = *time as f64;
            empty = empty.max(time) + (sums[1] - sums[0]) as f64 * byte_ns;
            let next = empty + half_rtt;
            if next - time > floor
                && let Some(ramp) = Ramp::within(time.max(arrived), next, time, self.frame.horizon)
            {
                sink.rpo(ramp);
            }
            arrived = next;
        }
    }

    fn frame(&self) -> &Frame {
        &self.frame
    }

    fn exposure_is_rpo(&self) -> bool {
        true
    }

    /// As the walk, but whole runs at once where all or nothing of them is beyond the target.
    fn beyond_ns(&self, byte_ns: f64) -> f64 {
        let (mut total, mut empty, mut arrived) = (0.0, 0.0, 0.0);
        let Frame { horizon, target, half_rtt } = self.frame;
        for (i, run) in self.runs.runs.iter().enumerate() {
            if arrived >= horizon {
                break;
            }
            let empty_after = self.runs.empty_after(i, empty, byte_ns);
            let arrived_after = empty_after + half_rtt;
            if arrived_after - self.time(run.from) > target {
                total += if arrived - self.time(run.to - 1) > target + self.frame.tolerance() {
                    arrived_after.min(horizon) - arrived
                } else {
                    self.beyond_of(run.from..run.to, (empty, arrived), byte_ns)
                };
            }
            (empty, arrived) = (empty_after, arrived_after);
        }
        total
    }
}
