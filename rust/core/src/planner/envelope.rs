//! Runs of writes summed up so that a queue passes a whole run in a few steps at any speed.
//!
//! After a run the queue is empty at `max(before + B x, max_i(t_i + S_i x))`, where `x` is the
//! time for a byte, `B` the run's bytes, `t_i` a write's time and `S_i` the bytes from it to the
//! run's end: the latest of all possible starts of the last busy period. The second part is a
//! maximum of lines in `x`, of which only the upper envelope is kept. Times are link times.

use crate::cdp::line::Way;
use crate::planner::workload::Workload;

/// A run of consecutive writes.
pub struct Run {
    /// First write, and the first of the next run.
    pub from: usize,
    pub to: usize,
    pub bytes: f64,
    /// Where its lines end; they start where those of the run before end.
    lines_end: usize,
}

/// Consecutive runs over all writes.
pub struct Runs {
    pub runs: Vec<Run>,
    /// (time ns, bytes to the end of the run), by rising bytes.
    lines: Vec<(f64, f64)>,
}

impl Runs {
    /// `end_of(first)` gives the write after the run that `first` begins, beyond `first`.
    pub fn new(workload: &Workload, way: &impl Way, end_of: impl Fn(usize) -> usize) -> Self {
        let (mut runs, mut lines) = (Vec::new(), Vec::new());
        let mut from = 0;
        while from < workload.writes() {
            let to = end_of(from);
            add_envelope(&mut lines, workload, way, from, to);
            let bytes = (workload.sums_bytes[to] - workload.sums_bytes[from]) as f64;
            runs.push(Run { from, to, bytes, lines_end: lines.len() });
            from = to;
        }
        Self { runs, lines }
    }

    /// When the queue that was to be empty at `before_ns` is empty after run `i`, link times both.
    #[inline]
    #[must_use]
    pub fn empty_after(&self, i: usize, before_ns: f64, byte_ns: f64) -> f64 {
        let start = if i == 0 { 0 } else { self.runs[i - 1].lines_end };
        let run = &self.runs[i];
        let mut latest = before_ns + run.bytes * byte_ns;
        for (time_ns, bytes) in &self.lines[start..run.lines_end] {
            latest = latest.max(time_ns + bytes * byte_ns);
        }
        latest
    }
}

/// Appends the upper envelope, for `x >= 0`, of the lines of writes `from..to`.
fn add_envelope(
    lines: &mut Vec<(f64, f64)>,
    workload: &Workload,
    way: &impl Way,
    from: usize,
    to: usize,
) {
    let (base, end) = (lines.len(), workload.sums_bytes[to]);
    for i in (from..to).rev() {
        let line = (way.served(workload.times_ns[i] as f64), (end - workload.sums_bytes[i]) as f64);
        // Steeper and no earlier: the one before is never above.
        while lines.len() > base && lines[lines.len() - 1].0 <= line.0 {
            lines.pop();
        }
        while lines.len() >= base + 2 {
            let (flat, middle) = (lines[lines.len() - 2], lines[lines.len() - 1]);
            // Where the new line passes `flat` against where `middle` does.
            let passes_new = (flat.0 - line.0) * (middle.1 - flat.1);
            let passes_middle = (flat.0 - middle.0) * (line.1 - flat.1);
            if passes_new > passes_middle {
                break;
            }
            lines.pop();
        }
        lines.push(line);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cdp::line::Steady;
    use crate::planner::workload::Queue;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_run_passes_as_its_writes_do(
            writes in prop::collection::vec((0i64..50, 1u64..100), 1..200),
            length in 1usize..40,
            byte_ns in 0.0f64..2.0,
        ) {
            let workload = Workload::of(&writes);
            let way = Steady { half_rtt: 0.0 };
            let end_of = |first: usize| (first + length).min(workload.writes());
            let runs = Runs::new(&workload, &way, end_of);
            let (mut queue, mut empty) = (Queue::default(), 0.0);
            for (i, run) in runs.runs.iter().enumerate() {
                let mut exact = 0.0;
                for w in run.from..run.to {
                    let sums = (workload.sums_bytes[w], workload.sums_bytes[w + 1]);
                    exact = queue.send(workload.times_ns[w] as f64, sums.0, sums.1, byte_ns);
                }
                empty = runs.empty_after(i, empty, byte_ns);
                prop_assert!((empty - exact).abs() < 1e-6, "{empty} {exact}");
            }
        }
    }
}
