//! The RPO planner: which recovery point a link gives for a trace, and which link a target needs.
//!
//! A fluid model. Writes queue for one link, first in, first out; a byte is recoverable at the
//! end of its transmission plus half the round trip. RPO(t) is t less the cut of the newest point
//! recoverable at t, exposure(t) the age of the oldest acknowledged write in no such point. Both
//! are pieces of slope one ([`ramps`]), so their distributions over time are computed, not
//! sampled ([`distribution`]).
//!
//! [`workload`] holds the writes and [`changed`] the blocks they change; [`continuous`],
//! [`points`] and [`snapshot`] walk them through time; [`envelope`] and [`bandwidth`] find the
//! link that a target needs without walking every write for every guess.

pub mod bandwidth;
pub mod changed;
pub mod continuous;
pub mod distribution;
pub mod envelope;
pub mod points;
pub mod ramps;
pub mod report;
pub mod series;
pub mod snapshot;
pub mod violations;
pub mod workload;

use serde::Deserialize;

use crate::error::{Error, Result};
use crate::planner::bandwidth::Search;
use crate::planner::continuous::Continuous;
use crate::planner::points::Points;
use crate::planner::ramps::{Frame, Mode};
use crate::planner::report::{Kind, ModeReport, PlanReport, SHARES, Traffic, measure};
use crate::planner::snapshot::Snapshots;
use crate::planner::workload::Workload;

/// What to plan for. Shares are fractions: 0.4 is 40 %.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlanOptions {
    pub bandwidth_bps: u64,
    pub rtt_ns: u64,
    pub target_ns: u64,
    /// Between two restore points of continuous replication; 0: every instant.
    pub point_interval_ns: u64,
    /// Periods of the snapshot modes; may be empty.
    pub snapshot_every_ns: Vec<u64>,
    /// Share by which the payload shrinks before it is sent.
    pub compression: f64,
    /// Share of the link's bandwidth that carries payload.
    pub link_efficiency: f64,
    /// Share by which the workload's writes are expected to grow.
    pub growth: f64,
    /// Intervals of the lag series.
    pub series_points: usize,
}

impl PlanOptions {
    /// # Errors
    /// `Input` naming the option that is out of range.
    pub fn check(&self) -> Result<()> {
        let wrong = |name: &str, expected: &str, got: &dyn std::fmt::Display| {
            Err(Error::input(format!("{name}: expected {expected}, got {got}")))
        };
        if self.bandwidth_bps == 0 {
            return wrong("link", "a bandwidth above zero", &self.bandwidth_bps);
        }
        if self.target_ns == 0 {
            return wrong("target-rpo", "a time above zero", &self.target_ns);
        }
        if self.snapshot_every_ns.contains(&0) {
            return wrong("snapshot-every", "a time above zero", &0);
        }
        if !(0.0..1.0).contains(&self.compression) {
            return wrong("compression", "a share from 0 to below 1", &self.compression);
        }
        if !(self.link_efficiency > 0.0 && self.link_efficiency <= 1.0) {
            return wrong("link-efficiency", "a share above 0, up to 1", &self.link_efficiency);
        }
        if !(self.growth > -1.0 && self.growth.is_finite()) {
            return wrong("growth", "a share above -1", &self.growth);
        }
        Ok(())
    }

    /// The time that a link of `bps` bits per second takes for a byte of the trace's payload.
    fn byte_ns(&self, bps: u64) -> f64 {
        let wire = (1.0 + self.growth) * (1.0 - self.compression) / self.link_efficiency;
        // One rounding where all are neutral: 8e9 / bps.
        8e9 * wire / bps as f64
    }
}

/// Plans every mode: continuous replication first, then snapshots in the order given.
///
/// # Errors
/// `Input` when an option is out of range.
pub fn plan(workload: &Workload, options: &PlanOptions) -> Result<PlanReport> {
    options.check()?;
    let frame = Frame {
        horizon: workload.end_ns as f64,
        target: options.target_ns as f64,
        half_rtt: options.rtt_ns as f64 / 2.0,
    };
    let byte_ns = options.byte_ns(options.bandwidth_bps);
    let streamed = Traffic {
        sent_bytes: workload.written_bytes(),
        backlog_bytes_max: workload.backlog_bytes_max(byte_ns),
        syncs: None,
    };
    let planner = Planner { workload, options, byte_ns };
    let mut modes = Vec::with_capacity(1 + options.snapshot_every_ns.len());
    modes.push(if options.point_interval_ns == 0 {
        planner.report(Kind::Continuous, &Continuous::new(workload, frame), streamed)
    } else {
        let points = Points::new(workload, frame, options.point_interval_ns);
        planner.report(Kind::Points(options.point_interval_ns), &points, streamed)
    });
    for &every_ns in &options.snapshot_every_ns {
        let snapshots = Snapshots::new(workload, frame, every_ns);
        let syncs = snapshots.syncs(byte_ns);
        let traffic = Traffic {
            sent_bytes: syncs.sent_bytes,
            backlog_bytes_max: syncs.bytes_max as f64,
            syncs: Some(syncs),
        };
        let granularity = workload.changed.granularity_bytes();
        let kind = Kind::Snapshot { every_ns, granularity_bytes: granularity };
        modes.push(planner.report(kind, &snapshots, traffic));
    }
    Ok(PlanReport::new(workload, options, modes))
}

struct Planner<'a> {
    workload: &'a Workload,
    options: &'a PlanOptions,
    byte_ns: f64,
}

impl Planner<'_> {
    fn report(&self, kind: Kind, mode: &impl Mode, traffic: Traffic) -> ModeReport {
        let measured = measure(mode, self.byte_ns, self.options.series_points);
        let needed = self.bandwidth_needed(mode);
        ModeReport::new(kind, measured, traffic, needed, self.workload, self.options)
    }

    /// For each of [`SHARES`], bits per second or None.
    fn bandwidth_needed(&self, mode: &impl Mode) -> Vec<Option<u64>> {
        let horizon = mode.frame().horizon;
        let mut search = Search::new(|bps| mode.beyond_ns(self.options.byte_ns(bps)));
        let mut needed = Vec::with_capacity(SHARES.len());
        for (_, share) in SHARES {
            // Room for the rounding of the share itself, as for the quantiles.
            let found = search.smallest((1.0 - share) * horizon + horizon * 1e-12);
            let idle = self.workload.written_bytes() == 0;
            needed.push(if idle { found.map(|_| 0) } else { found });
        }
        needed
    }
}
