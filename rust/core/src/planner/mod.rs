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
//! link that a target needs without walking every write for every guess. [`line`] is the link over
//! time, where something happens to it, and [`outages`] what that leaves behind. Beside the modes,
//! [`folding`] tells what longer windows save, [`frontier`] what other bandwidths give,
//! [`loads`], [`groups`] and [`limits`] what each disk asks for, and [`capacity`] what
//! synchronisation, outages and the journal take.

pub mod bandwidth;
pub mod capacity;
pub mod changed;
pub mod continuous;
pub mod distribution;
pub mod envelope;
pub mod folding;
pub mod frontier;
pub mod groups;
pub mod limits;
pub mod loads;
pub mod outages;
pub mod pages;
pub mod points;
pub mod ramps;
pub mod report;
pub mod series;
pub mod snapshot;
pub mod violations;
pub mod workload;

use serde::Deserialize;

use crate::cdp::faults::{self, Fault, FaultParams};
use crate::cdp::line::{Disturbed, Steady, Way};
use crate::cdp::source::{CONTINUOUS_STEP_NS, TIMEOUT_NS, batch_least_bytes};
use crate::error::{Error, Result};
use crate::filters::{ParamError, params};
use crate::planner::bandwidth::Search;
use crate::planner::continuous::Continuous;
use crate::planner::groups::Group;
use crate::planner::outages::outages;
use crate::planner::points::Points;
use crate::planner::ramps::{Frame, Mode};
use crate::planner::report::{
    Beside, Kind, ModeReport, NeededBps, PlanReport, SHARES, Traffic, measure,
};
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
    /// Sends each block once a point, in its last version.
    pub fold: bool,
    /// Share of the windows that a rate's percentile covers.
    pub percentile: f64,
    /// Room that is added to a bandwidth; only echoed here.
    pub headroom: f64,
    /// Length of the windows in which rates are taken.
    pub rate_window_ns: u64,
    pub groups: Vec<Group>,
    /// How long the site keeps points, and the share that it may keep beyond that.
    pub retention_ns: u64,
    pub over_retention: f64,
    /// Points that are kept for longer, where there are any.
    #[serde(default)]
    pub long_term: Option<LongTermOptions>,
    /// What is sent at first; None: up to the last byte that the trace touches on each disk.
    pub initial_bytes: Option<u64>,
    pub initial_sync_within_ns: u64,
    pub outage_ns: u64,
    /// What happens to the link.
    #[serde(default)]
    pub faults: Vec<FaultParams>,
    /// A connection is given up after so long without a sign of life.
    #[serde(default = "timeout_ns")]
    pub timeout_ns: u64,
    /// Intervals of the lag series.
    pub series_points: usize,
}

/// One point of every `every_ns` is kept for `keep_ns`.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LongTermOptions {
    pub every_ns: u64,
    pub keep_ns: u64,
}

fn wrong_keys(wrong: &[ParamError]) -> Error {
    let each: Vec<String> = wrong.iter().map(|at| format!("{}: {}", at.path, at.message)).collect();
    Error::input(each.join("; "))
}

const fn timeout_ns() -> u64 {
    TIMEOUT_NS
}

impl PlanOptions {
    /// From a JSON document with these keys.
    ///
    /// # Errors
    /// `Input` naming the keys that are wrong.
    pub fn read(document: &str) -> Result<Self> {
        let table = serde_json::from_str(document).map_err(|e| Error::input(e.to_string()))?;
        params::parse(&table).map_err(|wrong| wrong_keys(&wrong))
    }

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
        if self.fold && self.point_interval_ns == 0 {
            return wrong("fold", "a point interval above zero with it", &0);
        }
        if !(self.percentile > 0.0 && self.percentile <= 1.0) {
            return wrong("percentile", "a share above 0, up to 100 %", &self.percentile);
        }
        let shares = [("headroom", self.headroom), ("over-retention", self.over_retention)];
        if let Some((name, share)) = shares.iter().find(|(_, s)| !(*s >= 0.0 && s.is_finite())) {
            return wrong(name, "a share of 0 or more", share);
        }
        let times = [
            ("rate-window", self.rate_window_ns),
            ("retention", self.retention_ns),
            ("initial-sync-within", self.initial_sync_within_ns),
        ];
        if let Some((name, _)) = times.iter().find(|(_, ns)| *ns == 0) {
            return wrong(name, "a time above zero", &0);
        }
        let is_wrong = |kept: &LongTermOptions| kept.every_ns == 0 || kept.keep_ns < kept.every_ns;
        if let Some(kept) = self.long_term.filter(is_wrong) {
            let got =
                format!("{} s for {} s", kept.every_ns as f64 / 1e9, kept.keep_ns as f64 / 1e9);
            return wrong("long-term", "an interval above zero and at least as long a time", &got);
        }
        if !(self.growth > -1.0 && self.growth.is_finite()) {
            return wrong("growth", "a share above -1", &self.growth);
        }
        self.link_faults().map(drop)
    }

    fn link_faults(&self) -> Result<Vec<Fault>> {
        // The link's efficiency is there before and after.
        faults::read(&self.faults, 1.0).map_err(|wrong| wrong_keys(&wrong))
    }

    /// The undisturbed line.
    const fn steady(&self) -> Steady {
        Steady { half_rtt: self.rtt_ns as f64 / 2.0 }
    }

    fn disturbed(&self) -> Result<Disturbed> {
        let bytes_per_s = self.bandwidth_bps as f64 / 8.0;
        Ok(Disturbed::new(bytes_per_s, self.rtt_ns, self.timeout_ns, &self.link_faults()?))
    }

    /// By how much the `cdp` filter shows continuous points later than they are, at most: it sends
    /// what waits as whole entries, and tells of points in steps.
    fn resolution_s(&self) -> f64 {
        let bytes_per_s = self.bandwidth_bps as f64 / 8.0 * self.link_efficiency;
        batch_least_bytes(bytes_per_s) as f64 / bytes_per_s + CONTINUOUS_STEP_NS as f64 / 1e9
    }

    /// Bits on the wire for a byte of the trace's payload.
    fn wire_bits_per_byte(&self) -> f64 {
        8.0 * ((1.0 + self.growth) * (1.0 - self.compression) / self.link_efficiency)
    }

    /// Bytes with growth.
    fn grown(&self, bytes: f64) -> u64 {
        (bytes * (1.0 + self.growth)).round() as u64
    }

    /// The time that a link of `bps` bits per second takes for a byte of the trace's payload.
    fn byte_ns(&self, bps: u64) -> f64 {
        // One rounding where all are neutral: 8e9 / bps.
        1e9 * self.wire_bits_per_byte() / bps as f64
    }
}

/// Plans every mode: continuous replication first, then snapshots in the order given.
///
/// `disks` are the names of the trace's disks, by number.
///
/// # Errors
/// `Input` when an option is out of range, or a group names no disk of the trace.
pub fn plan(workload: &Workload, options: &PlanOptions, disks: &[String]) -> Result<PlanReport> {
    options.check()?;
    if options.faults.is_empty() {
        return plan_over(workload, options, disks, &options.steady());
    }
    let line = options.disturbed()?;
    let mut report = plan_over(workload, options, disks, &line)?;
    report.tell_outages(outages(workload, options, &line), options);
    Ok(report)
}

fn plan_over<W: Way>(
    workload: &Workload,
    options: &PlanOptions,
    disks: &[String],
    way: &W,
) -> Result<PlanReport> {
    let frame = frame_of(workload, options);
    let byte_ns = options.byte_ns(options.bandwidth_bps);
    let planner = Planner { workload, options, way, byte_ns };
    let (mut modes, mut curves) = (Vec::new(), Vec::new());
    let interval_ns = options.point_interval_ns;
    if interval_ns == 0 {
        let continuous = Continuous::new(workload, frame, way);
        modes.push(planner.report(Kind::Continuous, &continuous, planner.streamed()));
        curves.push(Curve::Continuous(continuous));
    } else {
        let mut points = Points::new(workload, frame, way, interval_ns);
        let (mut kind, mut traffic) = (Kind::Points(interval_ns), planner.streamed());
        if options.fold {
            points = points.folding();
            kind = Kind::Folded(interval_ns);
            (traffic.sent_bytes, traffic.backlog_bytes_max) = points.folded_traffic(byte_ns);
        }
        modes.push(planner.report(kind, &points, traffic));
        curves.push(Curve::Points(points));
    }
    for &every_ns in &options.snapshot_every_ns {
        let snapshots = Snapshots::new(workload, frame, way, every_ns);
        let syncs = snapshots.syncs(byte_ns);
        let traffic = Traffic {
            sent_bytes: syncs.sent_bytes,
            backlog_bytes_max: syncs.bytes_max as f64,
            syncs: Some(syncs),
        };
        let granularity_bytes = workload.changed.granularity_bytes();
        let kind = Kind::Snapshot { every_ns, granularity_bytes };
        modes.push(planner.report(kind, &snapshots, traffic));
        curves.push(Curve::Snapshots(snapshots));
    }
    planner.add_frontiers(&mut modes, &curves);
    let beside = planner.beside(frame, disks, &modes[0].bandwidth_for_target_bps)?;
    Ok(PlanReport::new(workload, options, modes, beside))
}

fn frame_of(workload: &Workload, options: &PlanOptions) -> Frame {
    Frame { horizon: workload.end_ns as f64, target: options.target_ns as f64 }
}

enum Curve<'a, W> {
    Continuous(Continuous<'a, W>),
    Points(Points<'a, W>),
    Snapshots(Snapshots<'a, W>),
}

struct Planner<'a, W> {
    workload: &'a Workload,
    options: &'a PlanOptions,
    way: &'a W,
    byte_ns: f64,
}

impl<W: Way> Planner<'_, W> {
    /// Every write is sent as it comes.
    fn streamed(&self) -> Traffic {
        Traffic {
            sent_bytes: self.workload.written_bytes(),
            backlog_bytes_max: self.workload.backlog_bytes_max(self.way, self.byte_ns),
            syncs: None,
        }
    }

    fn report(&self, kind: Kind, mode: &impl Mode, traffic: Traffic) -> ModeReport {
        let measured = measure(mode, self.byte_ns, self.options.series_points);
        let needed = needed(self.workload, self.options, mode);
        ModeReport::new(kind, measured, traffic, needed, self.workload, self.options)
    }

    /// All modes at the same bandwidths, so that they fit on one chart.
    fn add_frontiers(&self, modes: &mut [ModeReport], curves: &[Curve<'_, W>]) {
        let (workload, options) = (self.workload, self.options);
        if workload.end_ns == 0 {
            return;
        }
        let wire_bits = workload.written_bytes() as f64 * options.wire_bits_per_byte();
        let mean_bps = wire_bits / workload.end_ns as f64 * 1e9;
        // What snapshots need may be far beyond; the chart ends with what replication needs.
        let needed = &modes[0].bandwidth_for_target_bps;
        let asked = frontier::bandwidths(options, workload.writes(), mean_bps, needed);
        for (mode, curve) in modes.iter_mut().zip(curves) {
            let needed = &mode.bandwidth_for_target_bps;
            mode.frontier = match curve {
                Curve::Continuous(mode) => frontier::frontier(mode, options, &asked, needed),
                Curve::Points(mode) => frontier::frontier(mode, options, &asked, needed),
                Curve::Snapshots(mode) => frontier::frontier(mode, options, &asked, needed),
            };
        }
    }

    fn beside(&self, frame: Frame, disks: &[String], needed: &NeededBps) -> Result<Beside> {
        let (workload, options) = (self.workload, self.options);
        let folding = folding::curve(workload, options);
        let interval_s = options.point_interval_ns as f64 / 1e9;
        let of_points = folding.iter().find(|fold| fold.window_s == interval_s);
        let whole = || workload.loads.reach_bytes.iter().sum();
        let initial_bytes = options.initial_bytes.unwrap_or_else(whole);
        Ok(Beside {
            loads: groups::reports(workload, (options, frame, self.way), disks, needed)?,
            initial_sync: capacity::initial_sync(workload, options, initial_bytes),
            catch_up: capacity::catch_up(workload, options),
            journal: capacity::journal(workload, options, of_points.map(|f| f.unique_bytes)),
            folding,
        })
    }
}

/// For each of [`SHARES`], bits per second or None.
fn needed(workload: &Workload, options: &PlanOptions, mode: &impl Mode) -> NeededBps {
    let horizon = mode.frame().horizon;
    let mut search = Search::new(|bps| mode.beyond_ns(options.byte_ns(bps)));
    let mut needed = [None; SHARES.len()];
    for ((_, share), place) in SHARES.iter().zip(&mut needed) {
        // Room for the rounding of the share itself, as for the quantiles.
        let found = search.smallest((1.0 - share) * horizon + horizon * 1e-12);
        let idle = workload.written_bytes() == 0;
        *place = if idle { found.map(|_| 0) } else { found };
    }
    needed.into()
}

/// What some of the disks need by themselves, replicated as the plan does it but for folding.
fn needed_continuous<W: Way>(
    workload: &Workload,
    options: &PlanOptions,
    frame: Frame,
    way: &W,
) -> NeededBps {
    if options.point_interval_ns == 0 {
        needed(workload, options, &Continuous::new(workload, frame, way))
    } else {
        needed(workload, options, &Points::new(workload, frame, way, options.point_interval_ns))
    }
}
