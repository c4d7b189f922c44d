//! What is behind when each declared outage ends, and how long until nothing of it waits.

use serde::Serialize;

use crate::cdp::line::{Disturbed, Way};
use crate::planner::PlanOptions;
use crate::planner::workload::Workload;

/// One outage; those that touch one another are one.
#[derive(Debug, Clone, Serialize)]
pub struct Outage {
    pub from_s: f64,
    pub to_s: f64,
    /// Every write that waits at its end, kept in a log; with growth.
    pub backlog_bytes: u64,
    /// From its end until nothing waits; None where the trace ends before.
    pub caught_up_s: Option<f64>,
}

/// The outages that begin within the trace.
#[must_use]
pub fn outages(workload: &Workload, options: &PlanOptions, line: &Disturbed) -> Vec<Outage> {
    let byte_ns = options.byte_ns(options.bandwidth_bps);
    let end = workload.end_ns as f64;
    let within = line.outages.iter().filter(|(from, _)| *from < end);
    let mut queue = Waiting { workload, line, byte_ns, next: 0, empty: 0.0 };
    within
        .map(|(from, to)| {
            queue.pass(*to);
            let backlog_ns = (queue.empty - line.served(*to)).max(0.0);
            let caught_up = queue.clone().drained().max(*to);
            Outage {
                from_s: from / 1e9,
                to_s: to / 1e9,
                backlog_bytes: options.grown(backlog_ns / byte_ns),
                caught_up_s: (caught_up <= end).then(|| (caught_up - to) / 1e9),
            }
        })
        .collect()
}

/// The queue after the writes before `next`: empty at a link time.
#[derive(Clone)]
struct Waiting<'a> {
    workload: &'a Workload,
    line: &'a Disturbed,
    byte_ns: f64,
    next: usize,
    empty: f64,
}

impl Waiting<'_> {
    /// Takes in the writes before a moment.
    fn pass(&mut self, until: f64) {
        while self.time().is_some_and(|time| time < until) {
            self.take();
        }
    }

    /// When nothing waits any more.
    fn drained(mut self) -> f64 {
        while self.time().is_some_and(|time| self.line.served(time) < self.empty) {
            self.take();
        }
        self.line.sent(self.empty)
    }

    fn time(&self) -> Option<f64> {
        self.workload.times_ns.get(self.next).map(|time| *time as f64)
    }

    fn take(&mut self) {
        let Some(time) = self.time() else { return };
        let sums = &self.workload.sums_bytes;
        let bytes = (sums[self.next + 1] - sums[self.next]) as f64;
        self.empty = self.empty.max(self.line.served(time)) + bytes * self.byte_ns;
        self.next += 1;
    }
}
