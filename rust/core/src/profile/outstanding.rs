//! How many I/Os were outstanding, from the latencies seen at capture.
//!
//! An I/O is in flight from its time to its time plus latency. The depth an arriving I/O finds
//! is the number in flight just before it. Memory is bounded by [`MAX_IN_FLIGHT`].

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use serde::Serialize;

use super::quantiles::{Distribution, Quantiles};

/// I/Os tracked at a time; beyond it (no real device queues as many) they are left out.
const MAX_IN_FLIGHT: usize = 1 << 20;

#[derive(Debug, Clone, Default)]
pub struct Outstanding {
    completions: BinaryHeap<Reverse<i64>>,
    found: Quantiles,
    busy_ns: f64,
}

#[derive(Debug, Clone, Serialize, PartialEq)]
pub struct OutstandingSummary {
    /// Depth found by an arriving I/O, itself not counted.
    pub at_arrival: Distribution,
    /// Mean over time, by Little's law: the sum of latencies over the duration.
    pub time_mean: Option<f64>,
    /// Share of the I/Os that have a latency, and so count here.
    pub latency_known: f64,
}

impl Outstanding {
    #[inline]
    pub fn record(&mut self, time_ns: i64, latency_ns: i64) {
        while self.completions.peek().is_some_and(|done| done.0 <= time_ns) {
            self.completions.pop();
        }
        self.found.record(self.completions.len() as u64);
        self.busy_ns += latency_ns as f64;
        if self.completions.len() < MAX_IN_FLIGHT {
            self.completions.push(Reverse(time_ns.saturating_add(latency_ns)));
        }
    }

    #[must_use]
    pub fn summary(&self, ios: u64, duration_ns: i64) -> Option<OutstandingSummary> {
        let at_arrival = self.found.distribution()?;
        Some(OutstandingSummary {
            latency_known: at_arrival.count as f64 / ios as f64,
            time_mean: (duration_ns > 0).then(|| self.busy_ns / duration_ns as f64),
            at_arrival,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_those_that_overlap() {
        let mut outstanding = Outstanding::default();
        // In flight: [0, 10), [2, 4), [3, 20), then 10 finds only the third.
        for (time, latency) in [(0, 10), (2, 2), (3, 17), (10, 5)] {
            outstanding.record(time, latency);
        }
        let found = outstanding.summary(8, 17).unwrap();
        assert_eq!((found.at_arrival.min, found.at_arrival.max), (0, 2));
        assert!((found.at_arrival.mean - (0.0 + 1.0 + 2.0 + 1.0) / 4.0).abs() < 1e-12);
        assert_eq!((found.time_mean, found.latency_known), (Some(2.0), 0.5));
    }
}
