//! When the target was missed.

use crate::planner::ramps::{Frame, Ramp};

/// A report lists no more violations than this: the longest, in order of time.
pub const LISTED_MAX: usize = 100_000;

/// Collects maximal intervals with RPO beyond the target.
pub struct Violations {
    frame: Frame,
    /// (start, end) in ns.
    listed: Vec<(f64, f64)>,
    /// All of them, listed or not.
    pub count: u64,
    pub total_ns: f64,
}

impl Violations {
    #[must_use]
    pub fn new(frame: Frame) -> Self {
        Self { frame, listed: Vec::new(), count: 0, total_ns: 0.0 }
    }

    /// Adds the next piece of RPO(t), in order of time.
    #[inline]
    pub fn add(&mut self, ramp: &Ramp) {
        let beyond = self.frame.beyond(ramp);
        if beyond > 0.0 {
            self.total_ns += beyond;
            self.list(ramp);
        }
    }

    fn list(&mut self, ramp: &Ramp) {
        let start = ramp.start.max(ramp.origin + self.frame.target);
        // Less than the step of the trace, so that only rounding closes a gap.
        let tolerance = self.frame.tolerance() / 2.0;
        if let Some(last) = self.listed.last_mut().filter(|last| start - last.1 <= tolerance) {
            last.1 = ramp.end;
        } else {
            self.push(start, ramp.end);
        }
        // A saw has each tooth's violation apart from the last: a tooth begins at zero.
        let again = ramp.repeats - 1;
        for i in 1..=again.min(LISTED_MAX as u64) {
            let shift = i as f64 * ramp.period;
            self.push(start + shift, ramp.end + shift);
        }
        self.count += again.saturating_sub(LISTED_MAX as u64);
    }

    fn push(&mut self, start: f64, end: f64) {
        self.count += 1;
        self.listed.push((start, end));
        if self.listed.len() >= 4 * LISTED_MAX {
            // The last one may still grow: it stays out of the choice.
            let last = self.listed.pop();
            self.keep_longest();
            self.listed.extend(last);
        }
    }

    fn keep_longest(&mut self) {
        if self.listed.len() <= LISTED_MAX {
            return;
        }
        let by_length = |a: &(f64, f64), b: &(f64, f64)| (b.1 - b.0).total_cmp(&(a.1 - a.0));
        self.listed.select_nth_unstable_by(LISTED_MAX, by_length);
        self.listed.truncate(LISTED_MAX);
        self.listed.sort_unstable_by(|a, b| a.0.total_cmp(&b.0));
    }

    /// (start, end) in ns, in order of time.
    #[must_use]
    pub fn finish(mut self) -> Vec<(f64, f64)> {
        self.keep_longest();
        self.listed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame() -> Frame {
        Frame { horizon: 1e15, target: 5.0 }
    }

    #[test]
    fn pieces_that_touch_are_one_violation() {
        let mut violations = Violations::new(frame());
        for (start, end, origin) in [(0.0, 20.0, 0.0), (20.0, 30.0, 10.0), (30.0, 40.0, 29.0)] {
            violations.add(&Ramp::within(start, end, origin, 1e15).unwrap());
        }
        assert_eq!((violations.count, violations.total_ns), (2, 15.0 + 10.0 + 6.0));
        assert_eq!(violations.finish(), [(5.0, 30.0), (34.0, 40.0)]);
    }

    #[test]
    fn of_too_many_the_longest_are_listed() {
        let mut violations = Violations::new(frame());
        violations.add(&Ramp::saw(0.0, 10.0, 3_000_000));
        violations.add(&Ramp::saw(4e7, 20.0, 7));
        assert_eq!(violations.count, 3_000_007);
        assert_eq!(violations.total_ns, 5.0 * 3e6 + 15.0 * 7.0);
        let listed = violations.finish();
        assert_eq!(listed.len(), LISTED_MAX);
        assert_eq!(listed.iter().filter(|v| v.1 - v.0 > 14.0).count(), 7);
        assert!(listed.is_sorted_by(|a, b| a.1 < b.0));
    }
}
