//! Continuous replication: every instant whose acknowledged writes have arrived is a point.
//!
//! RPO(t) is the age of the oldest write that has not arrived, zero when all have: the same as
//! the exposure.

use crate::cdp::line::Way;
use crate::planner::envelope::Runs;
use crate::planner::ramps::{Frame, Mode, Ramp, Sink, Stretch};
use crate::planner::workload::{Queue, Workload};

/// Long runs make a search fast, short ones leave little to walk around a violation's edges.
const RUN_WRITES: usize = 64;

pub struct Continuous<'a, W> {
    workload: &'a Workload,
    frame: Frame,
    way: &'a W,
    runs: Runs,
}

impl<'a, W: Way> Continuous<'a, W> {
    #[must_use]
    pub fn new(workload: &'a Workload, frame: Frame, way: &'a W) -> Self {
        let times = &workload.times_ns;
        // A run longer than the target could not be passed over even when nothing waits.
        let longest = (frame.target / 2.0) as i64;
        let runs = Runs::new(workload, way, |first| {
            let end = times.len().min(first + RUN_WRITES);
            let later = times[first..end].iter().position(|time| time - times[first] > longest);
            later.map_or(end, |writes| first + writes)
        });
        Self { workload, frame, way, runs }
    }

    fn time(&self, write: usize) -> f64 {
        self.workload.times_ns[write] as f64
    }

    /// Time beyond the target while the writes `from..to` were the oldest under way; the queue
    /// was to be empty at `empty` (link time), and all before had arrived at `arrived`.
    fn beyond_of(&self, writes: std::ops::Range<usize>, state: (f64, f64), byte_ns: f64) -> f64 {
        let (mut empty, mut arrived) = state;
        let (mut total, frame, way) = (0.0, &self.frame, self.way);
        for i in writes {
            let (time, sums) = (self.time(i), &self.workload.sums_bytes);
            empty = empty.max(way.served(time)) + (sums[i + 1] - sums[i]) as f64 * byte_ns;
            let next = way.arrives(empty);
            if let Some(ramp) = Ramp::within(arrived.max(time), next, time, frame.horizon) {
                total += frame.beyond(&ramp);
            }
            arrived = next;
        }
        total
    }

    /// Tells of the pieces above the floor while the writes were the oldest under way; the queue
    /// was to be empty at `empty` (link time), and all before had arrived at `arrived`.
    fn pieces_above(
        &self,
        writes: std::ops::Range<usize>,
        (mut empty, mut arrived): (f64, f64),
        byte_ns: f64,
        floor: f64,
        sink: &mut impl Sink,
    ) {
        let (horizon, way) = (self.frame.horizon, self.way);
        let sums = self.workload.sums_bytes[writes.start..=writes.end].windows(2);
        for (time, sums) in self.workload.times_ns[writes].iter().zip(sums) {
            // One rounding a write since the queue was empty, and no branch to mispredict.
            let time = *time as f64;
            empty = empty.max(way.served(time)) + (sums[1] - sums[0]) as f64 * byte_ns;
            let next = way.arrives(empty);
            if next - time > floor
                && let Some(ramp) = Ramp::within(time.max(arrived), next, time, horizon)
            {
                sink.rpo(ramp);
            }
            arrived = next;
        }
    }
}

/// The largest RPO of all pieces.
struct Largest(f64);

impl Sink for Largest {
    fn rpo(&mut self, ramp: Ramp) {
        self.0 = self.0.max(ramp.high());
    }

    fn exposure(&mut self, _: Ramp) {}

    fn sessions(&mut self, _: f64, _: f64, _: u64) {}
}

impl<W: Way> Mode for Continuous<'_, W> {
    fn walk(&self, byte_ns: f64, sink: &mut impl Sink) {
        let (mut queue, mut arrived) = (Queue::default(), 0.0);
        let sums = &self.workload.sums_bytes;
        for i in 0..self.workload.writes() {
            let time = self.time(i);
            let sent = queue.send(self.way.served(time), sums[i], sums[i + 1], byte_ns);
            let next = self.way.arrives(sent);
            let start = time.max(arrived);
            if let Some(ramp) = Ramp::within(start, next, time, self.frame.horizon) {
                sink.rpo(ramp);
            } else if start >= self.frame.horizon {
                return;
            }
            arrived = next;
        }
    }

    /// Runs that stay below the floor, and those that the sink takes as a whole, are not walked.
    fn walk_above(&self, byte_ns: f64, floor: f64, sink: &mut impl Sink) {
        let (mut empty, mut arrived) = (0.0_f64, 0.0_f64);
        let horizon = self.frame.horizon;
        for (i, run) in self.runs.runs.iter().enumerate() {
            if arrived >= horizon {
                break;
            }
            let empty_after = self.runs.empty_after(i, empty, byte_ns);
            let arrived_after = self.way.arrives(empty_after);
            let stretch = Stretch {
                start: arrived,
                end: arrived_after,
                low: arrived - self.time(run.to - 1),
                high: arrived_after - self.time(run.from),
            };
            // With all its writes there before it began, some of them is always the oldest.
            let is_whole = stretch.low > 0.0 && stretch.end <= horizon;
            if stretch.high > floor && !(is_whole && sink.stretch(&stretch)) {
                self.pieces_above(run.from..run.to, (empty, arrived), byte_ns, floor, sink);
            }
            (empty, arrived) = (empty_after, stretch.end);
        }
    }

    /// At the end of a run its last write's age is a value that RPO has; no other run than one
    /// that may go beyond the largest of these is walked.
    fn max_ns(&self, byte_ns: f64) -> Option<f64> {
        let (mut empty, mut arrived, mut most) = (0.0_f64, 0.0_f64, 0.0_f64);
        let horizon = self.frame.horizon;
        let mut open = Vec::new();
        for (i, run) in self.runs.runs.iter().enumerate() {
            if arrived >= horizon {
                break;
            }
            let empty_after = self.runs.empty_after(i, empty, byte_ns);
            let after = self.way.arrives(empty_after);
            if after <= horizon {
                most = most.max(after - self.time(run.to - 1));
            }
            let bound = after.min(horizon) - self.time(run.from);
            if bound > most {
                open.push((bound, run.from..run.to, (empty, arrived)));
            }
            (empty, arrived) = (empty_after, after);
        }
        let mut largest = Largest(most);
        for (bound, writes, state) in open {
            if bound > largest.0 {
                self.pieces_above(writes, state, byte_ns, largest.0, &mut largest);
            }
        }
        Some(largest.0)
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
        let Frame { horizon, target } = self.frame;
        for (i, run) in self.runs.runs.iter().enumerate() {
            if arrived >= horizon {
                break;
            }
            let empty_after = self.runs.empty_after(i, empty, byte_ns);
            let arrived_after = self.way.arrives(empty_after);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cdp::line::Steady;
    use crate::planner::distribution::Histogram;
    use proptest::prelude::*;

    /// What the frontier asks for, with stretches taken whole or not at all.
    struct Seen {
        histogram: Histogram,
        takes: bool,
        taken: u64,
    }

    impl Sink for Seen {
        fn rpo(&mut self, ramp: Ramp) {
            self.histogram.add(&ramp);
        }

        fn stretch(&mut self, stretch: &Stretch) -> bool {
            let Stretch { start, end, low, high } = *stretch;
            let took = self.takes && self.histogram.add_within(low, high, end - start);
            self.taken += u64::from(took);
            took
        }

        fn exposure(&mut self, _: Ramp) {}

        fn sessions(&mut self, _: f64, _: f64, _: u64) {}
    }

    proptest! {
        #[test]
        fn stretches_and_pieces_tell_the_same(
            writes in prop::collection::vec((0i64..40_000_000, 1u64..100_000), 200..900),
            byte_ns in 0.1f64..2000.0,
            half_rtt in 0.0f64..5e7,
        ) {
            let workload = Workload::of(&writes);
            let frame = Frame { horizon: workload.end_ns as f64, target: 5e9 };
            let way = Steady { half_rtt };
            let mode = Continuous::new(&workload, frame, &way);
            let seen = |takes| {
                let mut seen = Seen { histogram: Histogram::default(), takes, taken: 0 };
                mode.walk_above(byte_ns, 0.0, &mut seen);
                seen
            };
            let (whole, pieces) = (seen(true), seen(false));
            prop_assert_eq!(pieces.taken, 0);
            for share in [0.5, 0.9, 0.95, 0.99, 1.0] {
                let of = |seen: &Seen| seen.histogram.upper(frame.horizon, share);
                prop_assert_eq!(of(&whole), of(&pieces), "{} {}", share, whole.taken);
            }
            let max = mode.max_ns(byte_ns).unwrap();
            prop_assert!((max - pieces.histogram.max).abs() < 1e-3, "{max}");
        }
    }
}
