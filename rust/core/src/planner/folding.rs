//! How much of what is written is overwritten before a window ends: the trade-off between the
//! age of a point and the bytes it takes.
//!
//! `U(w)` is the unique bytes written in a window of length `w`. With windows that follow each
//! other, `B(w) = sum U / (n w)` is the bandwidth that sending each block once a window takes;
//! for `w` towards 0 it is what is written.

use serde::Serialize;

use crate::planner::PlanOptions;
use crate::planner::workload::Workload;

/// Windows of the curve, seconds; those of the plan's own modes are added.
const WINDOWS_S: [f64; 11] =
    [1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 14_400.0, 43_200.0, 86_400.0, 604_800.0];

/// One point of the curve. Bytes are of payload, with growth; bandwidths are on the wire.
#[derive(Debug, Clone, Serialize)]
pub struct Fold {
    pub window_s: f64,
    pub windows: u64,
    pub unique_bytes: u64,
    /// Largest `U` of one window.
    pub unique_bytes_max: u64,
    /// `1 - sum U / sum W`; below 0 where blocks are larger than writes.
    pub gain: f64,
    /// `B(w)`, and its largest over the windows.
    pub bandwidth_bps: u64,
    pub bandwidth_peak_bps: u64,
}

/// The curve, by rising windows, as far as the trace reaches.
#[must_use]
pub fn curve(workload: &Workload, options: &PlanOptions) -> Vec<Fold> {
    let mut windows_ns: Vec<u64> = WINDOWS_S.iter().map(|s| (s * 1e9) as u64).collect();
    windows_ns.push(options.point_interval_ns);
    windows_ns.extend(&options.snapshot_every_ns);
    windows_ns.sort_unstable();
    windows_ns.dedup();
    let reach = workload.end_ns as u64;
    windows_ns.retain(|ns| *ns > 0 && *ns <= reach && reach / ns <= 1 << 24);
    windows_ns.iter().map(|ns| fold(workload, options, *ns)).collect()
}

/// Distinct blocks changed in windows that follow each other: their sum, and the most in one.
pub fn blocks(workload: &Workload, window_ns: u64) -> (u64, u64) {
    let times = &workload.times_ns;
    let (mut from, mut sum, mut most) = (0, 0, 0);
    while from < times.len() {
        let end = (times[from] as u64 / window_ns + 1) * window_ns;
        let to = from + times[from..].partition_point(|time| (*time as u64) < end);
        let unique = workload.changed.distinct(from, to);
        sum += unique;
        most = most.max(unique);
        from = to;
    }
    (sum, most)
}

fn fold(workload: &Workload, options: &PlanOptions, window_ns: u64) -> Fold {
    let (sum, most) = blocks(workload, window_ns);
    let block = workload.changed.granularity_bytes();
    let written = workload.written_bytes();
    let wire = options.wire_bits_per_byte();
    let windows = (workload.end_ns as u64).div_ceil(window_ns);
    let bps = |blocks: u64, ns: f64| ((blocks * block) as f64 * wire / ns * 1e9).round() as u64;
    Fold {
        window_s: window_ns as f64 / 1e9,
        windows,
        unique_bytes: options.grown((sum * block) as f64),
        unique_bytes_max: options.grown((most * block) as f64),
        gain: if written == 0 { 0.0 } else { 1.0 - (sum * block) as f64 / written as f64 },
        bandwidth_bps: bps(sum, workload.end_ns as f64),
        bandwidth_peak_bps: bps(most, window_ns as f64),
    }
}
