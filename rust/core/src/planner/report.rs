//! The planner's answer, in the units and keys of `rpo --json`.

use serde::Serialize;

use crate::planner::PlanOptions;
use crate::planner::capacity::{CatchUp, InitialSync, Journal};
use crate::planner::distribution::{Histogram, Quantiles};
use crate::planner::folding::Fold;
use crate::planner::frontier::FrontierPoint;
use crate::planner::groups::LoadReport;
use crate::planner::outages::Outage;
use crate::planner::ramps::{Frame, Mode, Ramp, Sink};
use crate::planner::series::Series;
use crate::planner::snapshot::Syncs;
use crate::planner::violations::{LISTED_MAX, Violations};
use crate::planner::workload::Workload;

/// Shares of the time for which the needed bandwidth is told, by name in per cent.
pub const SHARES: [(&str, f64); 5] =
    [("100", 1.0), ("99.9", 0.999), ("99", 0.99), ("95", 0.95), ("90", 0.9)];

/// Of the time, in the order of [`Distribution`] without its maximum.
const QUANTILES: [f64; 5] = [0.5, 0.95, 0.99, 0.999, 0.9];

#[derive(Debug, Clone, Copy)]
pub enum Kind {
    Continuous,
    Points(u64),
    Folded(u64),
    Snapshot { every_ns: u64, granularity_bytes: u64 },
}

/// What a mode puts on the link, in bytes of the trace's payload.
pub struct Traffic {
    pub sent_bytes: u64,
    pub backlog_bytes_max: f64,
    pub syncs: Option<Syncs>,
}

/// Quantiles over time, seconds.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Distribution {
    pub p50: f64,
    pub p95: f64,
    pub p99: f64,
    pub max: f64,
    #[serde(skip)]
    pub p99_9: f64,
    #[serde(skip)]
    pub p90: f64,
}

/// Share of the time within each RPO, both rising.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Shares {
    pub rpo_s: Vec<f64>,
    pub share: Vec<f64>,
}

/// The RPO that the link holds for so many % of the time, seconds.
#[derive(Debug, Clone, Serialize)]
pub struct Achievable {
    #[serde(rename = "100")]
    pub p100: f64,
    #[serde(rename = "99.9")]
    pub p99_9: f64,
    #[serde(rename = "99")]
    pub p99: f64,
    #[serde(rename = "95")]
    pub p95: f64,
    #[serde(rename = "90")]
    pub p90: f64,
}

impl From<&Distribution> for Achievable {
    fn from(of: &Distribution) -> Self {
        Self { p100: of.max, p99_9: of.p99_9, p99: of.p99, p95: of.p95, p90: of.p90 }
    }
}

#[derive(Debug, Clone, Serialize)]
pub struct Violation {
    pub start_s: f64,
    pub end_s: f64,
}

#[derive(Debug, Clone, Default, Serialize)]
pub struct NeededBps {
    #[serde(rename = "100")]
    pub p100: Option<u64>,
    #[serde(rename = "99.9")]
    pub p99_9: Option<u64>,
    #[serde(rename = "99")]
    pub p99: Option<u64>,
    #[serde(rename = "95")]
    pub p95: Option<u64>,
    #[serde(rename = "90")]
    pub p90: Option<u64>,
}

impl NeededBps {
    /// In the order of [`SHARES`].
    #[must_use]
    pub const fn each(&self) -> [Option<u64>; SHARES.len()] {
        [self.p100, self.p99_9, self.p99, self.p95, self.p90]
    }
}

impl From<[Option<u64>; SHARES.len()]> for NeededBps {
    fn from(each: [Option<u64>; SHARES.len()]) -> Self {
        let [p100, p99_9, p99, p95, p90] = each;
        Self { p100, p99_9, p99, p95, p90 }
    }
}

#[derive(Debug, Clone, Default, Serialize)]
pub struct LagSeries {
    /// Start of each interval; the other columns have the largest value in it.
    pub time_s: Vec<f64>,
    pub rpo_s: Vec<f64>,
    pub exposure_s: Vec<f64>,
}

#[derive(Debug, Clone, Serialize)]
pub struct ModeReport {
    pub mode: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub point_interval_s: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub every_s: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub granularity_bytes: Option<u64>,
    /// Continuous points: a replication shows lags up to so much larger, and says no less.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resolution_s: Option<f64>,
    pub rpo_s: Distribution,
    pub achievable_rpo_s: Achievable,
    pub distribution: Shares,
    pub exposure_s: Distribution,
    pub met_time: f64,
    pub met_sessions: Option<f64>,
    pub sessions: Option<u64>,
    pub no_restore_point_time: f64,
    pub violations: Vec<Violation>,
    /// All of them; `violations` holds the longest 100,000 at most.
    pub violations_count: u64,
    pub bandwidth_for_target_bps: NeededBps,
    pub backlog_bytes_max: u64,
    pub sent_bytes: u64,
    pub written_bytes: u64,
    /// Snapshots with something to send, and the longest sync.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub syncs: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sync_s_max: Option<f64>,
    /// Each block once a point.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fold: Option<bool>,
    /// By rising bandwidth.
    pub frontier: Vec<FrontierPoint>,
    pub series: LagSeries,
}

#[derive(Debug, Clone, Serialize)]
pub struct PlanReport {
    pub duration_s: f64,
    pub ios: u64,
    pub writes: u64,
    pub modes: Vec<ModeReport>,
    pub folding: Vec<Fold>,
    pub loads: Vec<LoadReport>,
    pub initial_sync: InitialSync,
    pub catch_up: CatchUp,
    pub journal: Journal,
    /// Those declared.
    pub outages: Vec<Outage>,
    pub warnings: Vec<String>,
}

/// What is beside the modes.
pub struct Beside {
    pub folding: Vec<Fold>,
    pub loads: Vec<LoadReport>,
    pub initial_sync: InitialSync,
    pub catch_up: CatchUp,
    pub journal: Journal,
}

/// The figures of one walk.
pub struct Measured {
    pub rpo: Distribution,
    pub shares: Shares,
    pub exposure: Distribution,
    pub met_time: f64,
    pub sessions: u64,
    pub sessions_met: u64,
    pub violations: Vec<(f64, f64)>,
    pub violations_count: u64,
    pub series: LagSeries,
}

/// Walks a mode twice: histograms, violations and series, then the exact quantiles.
pub fn measure(mode: &impl Mode, byte_ns: f64, series_points: usize) -> Measured {
    let frame = *mode.frame();
    let mut first = FirstWalk::new(frame, series_points);
    mode.walk(byte_ns, &mut first);
    let mut second = SecondWalk {
        rpo: first.rpo.quantiles(frame.horizon, &QUANTILES),
        exposure: first.exposure.quantiles(frame.horizon, &QUANTILES),
    };
    mode.walk(byte_ns, &mut second);
    let rpo = distribution(second.rpo, first.rpo.max);
    let exposure = distribution(second.exposure, first.exposure.max);
    let (time_s, rpo_s) = first.rpo_series.finish();
    let (_, exposure_s) = first.exposure_series.finish();
    let missed = first.violations.total_ns;
    let same = mode.exposure_is_rpo();
    Measured {
        exposure: if same { rpo.clone() } else { exposure },
        shares: shares(&first.rpo, frame.horizon),
        rpo,
        met_time: if frame.horizon > 0.0 { 1.0 - missed / frame.horizon } else { 1.0 },
        sessions: first.sessions,
        sessions_met: first.sessions_met,
        violations_count: first.violations.count,
        violations: first.violations.finish(),
        series: LagSeries {
            time_s,
            exposure_s: if same { rpo_s.clone() } else { exposure_s },
            rpo_s,
        },
    }
}

fn distribution(quantiles: Quantiles, max_ns: f64) -> Distribution {
    let values = quantiles.solve();
    let second = |i: usize| values[i].min(max_ns) / 1e9;
    Distribution {
        p50: second(0),
        p95: second(1),
        p99: second(2),
        max: max_ns / 1e9,
        p99_9: second(3),
        p90: second(4),
    }
}

fn shares(of: &Histogram, total: f64) -> Shares {
    if total <= 0.0 {
        return Shares::default();
    }
    let (values, share) = of.shares(total);
    Shares { rpo_s: values.into_iter().map(|ns| ns / 1e9).collect(), share }
}

struct FirstWalk {
    frame: Frame,
    rpo: Histogram,
    exposure: Histogram,
    rpo_series: Series,
    exposure_series: Series,
    violations: Violations,
    sessions: u64,
    sessions_met: u64,
}

impl FirstWalk {
    fn new(frame: Frame, series_points: usize) -> Self {
        Self {
            frame,
            rpo: Histogram::default(),
            exposure: Histogram::default(),
            rpo_series: Series::new(frame.horizon, series_points),
            exposure_series: Series::new(frame.horizon, series_points),
            violations: Violations::new(frame),
            sessions: 0,
            sessions_met: 0,
        }
    }
}

impl Sink for FirstWalk {
    #[inline(always)]
    fn rpo(&mut self, ramp: Ramp) {
        self.rpo.add(&ramp);
        self.rpo_series.add(&ramp);
        self.violations.add(&ramp);
    }

    #[inline]
    fn exposure(&mut self, ramp: Ramp) {
        self.exposure.add(&ramp);
        self.exposure_series.add(&ramp);
    }

    fn sessions(&mut self, first: f64, step: f64, count: u64) {
        self.sessions += count;
        self.sessions_met += self.frame.sessions_met(first, step, count);
    }
}

struct SecondWalk {
    rpo: Quantiles,
    exposure: Quantiles,
}

impl Sink for SecondWalk {
    #[inline(always)]
    fn rpo(&mut self, ramp: Ramp) {
        self.rpo.add(&ramp);
    }

    #[inline]
    fn exposure(&mut self, ramp: Ramp) {
        self.exposure.add(&ramp);
    }

    fn sessions(&mut self, _: f64, _: f64, _: u64) {}
}

impl ModeReport {
    #[must_use]
    pub fn new(
        kind: Kind,
        measured: Measured,
        traffic: Traffic,
        needed: NeededBps,
        workload: &Workload,
        options: &PlanOptions,
    ) -> Self {
        let seconds = |ns: u64| ns as f64 / 1e9;
        let (mode, point_interval_s, every_s, granularity_bytes) = match kind {
            Kind::Continuous => ("cdp", Some(0.0), None, None),
            Kind::Points(ns) | Kind::Folded(ns) => ("cdp", Some(seconds(ns)), None, None),
            Kind::Snapshot { every_ns, granularity_bytes } => {
                ("snapshot", None, Some(seconds(every_ns)), Some(granularity_bytes))
            }
        };
        let sessions = (!matches!(kind, Kind::Continuous)).then_some(measured.sessions);
        let share = |met: u64, of: u64| met as f64 / of as f64;
        let violation = |v: &(f64, f64)| Violation { start_s: v.0 / 1e9, end_s: v.1 / 1e9 };
        Self {
            mode,
            point_interval_s,
            every_s,
            granularity_bytes,
            resolution_s: matches!(kind, Kind::Continuous).then(|| options.resolution_s()),
            achievable_rpo_s: Achievable::from(&measured.rpo),
            distribution: measured.shares,
            rpo_s: measured.rpo,
            exposure_s: measured.exposure,
            met_time: measured.met_time,
            met_sessions: sessions.filter(|n| *n > 0).map(|n| share(measured.sessions_met, n)),
            sessions,
            // The queue of the fluid model has no limit, so points never stop being made.
            no_restore_point_time: 0.0,
            violations: measured.violations.iter().map(violation).collect(),
            violations_count: measured.violations_count,
            bandwidth_for_target_bps: needed,
            backlog_bytes_max: options.grown(traffic.backlog_bytes_max),
            sent_bytes: options.grown(traffic.sent_bytes as f64),
            written_bytes: options.grown(workload.written_bytes() as f64),
            syncs: traffic.syncs.map(|s| s.count),
            sync_s_max: traffic.syncs.map(|s| s.duration_ns_max / 1e9),
            fold: matches!(kind, Kind::Folded(_)).then_some(true),
            frontier: Vec::new(),
            series: measured.series,
        }
    }
}

impl PlanReport {
    #[must_use]
    pub fn new(
        workload: &Workload,
        options: &PlanOptions,
        modes: Vec<ModeReport>,
        beside: Beside,
    ) -> Self {
        let duration_s = workload.end_ns as f64 / 1e9;
        let warnings = warnings(workload, options, &modes);
        let Beside { folding, loads, initial_sync, catch_up, journal } = beside;
        Self {
            duration_s,
            ios: workload.ios,
            writes: workload.writes() as u64,
            modes,
            folding,
            loads,
            initial_sync,
            catch_up,
            journal,
            outages: Vec::new(),
            warnings,
        }
    }
}

impl PlanReport {
    /// Adds what the line's outages leave behind.
    pub fn tell_outages(&mut self, outages: Vec<Outage>, options: &PlanOptions) {
        let longest_s = outages.iter().map(|out| out.to_s - out.from_s).fold(0.0, f64::max);
        let target_s = options.target_ns as f64 / 1e9;
        if longest_s > target_s && self.modes[0].bandwidth_for_target_bps.p100.is_none() {
            self.warnings.push(format!(
                "an outage of {longest_s} s is longer than the target of {target_s} s: no \
                 bandwidth holds it throughout"
            ));
        }
        self.outages = outages;
    }
}

fn warnings(workload: &Workload, options: &PlanOptions, modes: &[ModeReport]) -> Vec<String> {
    let mut warnings = Vec::new();
    let (target_s, rtt_s) = (options.target_ns as f64 / 1e9, options.rtt_ns as f64 / 1e9);
    if options.target_ns < options.rtt_ns {
        warnings.push(format!(
            "the target of {target_s} s is below the link's round trip of {rtt_s} s: \
                 acknowledgements come later than that at any bandwidth"
        ));
    }
    if options.point_interval_ns == 0 && target_s < options.resolution_s() {
        warnings.push(format!(
            "the target of {target_s} s is below the {} s to within which a replication of \
             continuous points can be told",
            options.resolution_s()
        ));
    }
    if options.point_interval_ns > options.target_ns {
        let interval_s = options.point_interval_ns as f64 / 1e9;
        warnings.push(format!(
            "points are cut every {interval_s} s, less often than the target of {target_s} s: \
                 no bandwidth holds it throughout"
        ));
    }
    let duration_s = workload.end_ns as f64 / 1e9;
    let every = options.snapshot_every_ns.iter().filter(|ns| **ns > workload.end_ns as u64);
    for every_s in every.map(|ns| *ns as f64 / 1e9).filter(|_| workload.end_ns > 0) {
        warnings.push(format!(
            "the trace of {duration_s} s ends before the first snapshot, due after {every_s} \
                 s: what such snapshots lose is cut short by the trace"
        ));
    }
    if workload.end_ns == 0 {
        warnings.push(
            "the trace spans no time: there is nothing to plan, and shares of time are 1"
                .to_owned(),
        );
    }
    if modes.iter().any(|mode| mode.violations_count > LISTED_MAX as u64) {
        warnings.push(format!(
            "more than {LISTED_MAX} violations: the longest are listed, violations_count \
                 counts all"
        ));
    }
    warnings
}
