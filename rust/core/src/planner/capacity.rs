//! What is needed beside the link's daily work: initial synchronisation, catching up after an
//! outage, and room for the journal at the site.

use serde::Serialize;

use crate::planner::folding;
use crate::planner::workload::Workload;
use crate::planner::{LongTermOptions, PlanOptions};

/// All blocks are sent once, and what is written meanwhile as changes.
#[derive(Debug, Clone, Serialize)]
pub struct InitialSync {
    pub bytes: u64,
    /// Until the site has everything; None when the link never catches up.
    pub seconds: Option<f64>,
    /// What would do it within the time given.
    pub within_s: f64,
    pub bandwidth_bps: u64,
    /// Over the link, and over slower and faster ones.
    pub at: Vec<SyncAt>,
    /// The trace is shorter than the sync: its mean rate stands for what follows.
    pub extrapolated: bool,
}

/// How long the initial synchronisation takes at one bandwidth.
#[derive(Debug, Clone, Serialize)]
pub struct SyncAt {
    pub bandwidth_bps: u64,
    /// None when the link never catches up.
    pub seconds: Option<f64>,
}

/// Of the link's bandwidth, for the initial synchronisation.
const SYNC_SHARES: [f64; 8] = [0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0];

/// The link is down for the stretch of the trace in which most is written.
#[derive(Debug, Clone, Serialize)]
pub struct CatchUp {
    pub outage_s: f64,
    pub from_s: f64,
    /// Every write of it, kept in a log; and the time to have caught up.
    pub backlog_bytes: u64,
    pub seconds: Option<f64>,
    /// Its changed blocks, tracked in a bitmap; points pause until they are sent.
    pub changed_bytes: u64,
    pub changed_seconds: Option<f64>,
    pub extrapolated: bool,
}

/// Room for points at the site, by several rules. Bytes after compression, with growth.
#[derive(Debug, Clone, Serialize)]
pub struct Journal {
    pub retention_s: f64,
    /// Every write of the retention, at its busiest: the rule of Zerto's planner.
    pub bytes: u64,
    /// With what is kept beyond the retention asked for (Veeam: up to 25 %).
    pub over_retention: f64,
    pub with_over_retention_bytes: u64,
    /// `rate * time / (1 - 0.2) * 1.05` (RecoverPoint), at the mean rate.
    pub recoverpoint_bytes: u64,
    /// The last version of each block in each point, as cut by the plan.
    pub folded_bytes: Option<u64>,
    pub points: Option<u64>,
    pub long_term: Option<LongTerm>,
    pub extrapolated: bool,
}

/// Points kept beyond the retention: each has the last version of what changed since the one
/// before.
#[derive(Debug, Clone, Serialize)]
pub struct LongTerm {
    pub every_s: f64,
    pub retention_s: f64,
    pub points: u64,
    pub bytes: u64,
    /// The trace is shorter than the interval: its changed blocks stand for those of as long.
    pub extrapolated: bool,
}

/// `bytes`: what there is to send at first.
#[must_use]
pub fn initial_sync(workload: &Workload, options: &PlanOptions, bytes: u64) -> InitialSync {
    // What is there already does not grow.
    let whole_bits = bytes as f64 * options.wire_bits_per_byte() / (1.0 + options.growth);
    let drained_at =
        |bps: u64| drain(workload, 0, 0.0, whole_bits / bps as f64 * 1e9, options.byte_ns(bps));
    let drained = drained_at(options.bandwidth_bps);
    let seconds = |drained: Option<f64>| drained.map(|ns| (ns + options.rtt_ns as f64 / 2.0) / 1e9);
    let rates = SYNC_SHARES.map(|share| (options.bandwidth_bps as f64 * share).ceil() as u64);
    let at = |bps: u64| SyncAt { bandwidth_bps: bps, seconds: seconds(drained_at(bps)) };
    let within_ns = options.initial_sync_within_ns as f64;
    InitialSync {
        bytes,
        seconds: seconds(drained),
        at: rates.map(at).to_vec(),
        within_s: within_ns / 1e9,
        bandwidth_bps: bandwidth_within(workload, options, whole_bits, within_ns),
        extrapolated: drained.is_some_and(|ns| ns > workload.end_ns as f64),
    }
}

/// Smallest bandwidth at which the queue is first empty by `within_ns`.
fn bandwidth_within(
    workload: &Workload,
    options: &PlanOptions,
    whole_bits: f64,
    within_ns: f64,
) -> u64 {
    let wire = options.wire_bits_per_byte();
    let end = workload.end_ns as f64;
    let at_end = if end > 0.0 {
        let beyond = (within_ns - end).max(0.0) / end;
        workload.written_before(within_ns) as f64 + workload.written_bytes() as f64 * beyond
    } else {
        workload.written_bytes() as f64
    };
    let rate = |bytes: f64, ns: f64| (whole_bits + bytes * wire) / ns * 1e9;
    let mut least = rate(at_end, within_ns);
    for (time, sum) in workload.times_ns.iter().zip(&workload.sums_bytes) {
        let time = *time as f64;
        if time > within_ns {
            break;
        }
        if time > 0.0 {
            least = least.min(rate(*sum as f64, time));
        }
    }
    least.ceil() as u64
}

/// When the link, with work for `first_ns` at `start_ns`, has sent that and all that came since
/// write `from`; None when more comes than it carries. Beyond the trace its mean rate goes on.
fn drain(
    workload: &Workload,
    from: usize,
    start_ns: f64,
    first_ns: f64,
    byte_ns: f64,
) -> Option<f64> {
    let mut empty = start_ns + first_ns;
    for i in from..workload.writes() {
        if workload.times_ns[i] as f64 >= empty {
            return Some(empty);
        }
        empty += (workload.sums_bytes[i + 1] - workload.sums_bytes[i]) as f64 * byte_ns;
    }
    let end = workload.end_ns as f64;
    if empty <= end || end == 0.0 {
        return Some(empty);
    }
    let busy = workload.written_bytes() as f64 * byte_ns / end;
    (busy < 1.0).then(|| end + (empty - end) / (1.0 - busy))
}

#[must_use]
pub fn catch_up(workload: &Workload, options: &PlanOptions) -> CatchUp {
    let byte_ns = options.byte_ns(options.bandwidth_bps);
    let (outage, end) = (options.outage_ns as f64, workload.end_ns as f64);
    let block = workload.changed.granularity_bytes();
    let half_rtt = options.rtt_ns as f64 / 2.0;
    let longer = outage > end;
    let (from, to) = if longer { (0, workload.writes()) } else { busiest(workload, outage) };
    let scale = if longer && end > 0.0 { outage / end } else { 1.0 };
    let from_ns = if longer { 0.0 } else { workload.times_ns.get(from).map_or(0.0, |t| *t as f64) };
    let backlog = (workload.sums_bytes[to] - workload.sums_bytes[from]) as f64 * scale;
    let changed = (workload.changed.distinct(from, to) * block) as f64;
    let after = |bytes: f64| {
        let ended = if longer { end } else { from_ns + outage };
        let found = drain(workload, to, ended, bytes * byte_ns, byte_ns);
        (found.map(|ns| (ns - ended + half_rtt) / 1e9), found.is_none_or(|ns| ns > end))
    };
    let ((seconds, beyond), (changed_seconds, _)) = (after(backlog), after(changed));
    CatchUp {
        outage_s: outage / 1e9,
        from_s: from_ns / 1e9,
        backlog_bytes: options.grown(backlog),
        seconds,
        changed_bytes: options.grown(changed),
        changed_seconds,
        extrapolated: longer || beyond,
    }
}

/// The writes of the stretch of so many ns in which most is written: first, and first after.
fn busiest(workload: &Workload, length_ns: f64) -> (usize, usize) {
    let (times, sums) = (&workload.times_ns, &workload.sums_bytes);
    let (mut best, mut found, mut to) = (0, (0, 0), 0);
    for from in 0..times.len() {
        let until = times[from] as f64 + length_ns;
        while to < times.len() && (times[to] as f64) < until {
            to += 1;
        }
        if sums[to] - sums[from] > best {
            (best, found) = (sums[to] - sums[from], (from, to));
        }
    }
    found
}

/// `folded_bytes`: the changed blocks of the plan's points over the whole trace, with growth.
#[must_use]
pub fn journal(workload: &Workload, options: &PlanOptions, folded_bytes: Option<u64>) -> Journal {
    let (retention, end) = (options.retention_ns as f64, workload.end_ns as f64);
    let extrapolated = retention > end;
    let of_trace = if end > 0.0 { retention / end } else { 1.0 };
    let written = if extrapolated {
        workload.written_bytes() as f64 * of_trace
    } else {
        let (from, to) = busiest(workload, retention);
        (workload.sums_bytes[to] - workload.sums_bytes[from]) as f64
    };
    let stored = |bytes: f64| options.grown(bytes * (1.0 - options.compression));
    let mean = workload.written_bytes() as f64 * of_trace;
    Journal {
        retention_s: retention / 1e9,
        bytes: stored(written),
        over_retention: options.over_retention,
        with_over_retention_bytes: stored(written * (1.0 + options.over_retention)),
        recoverpoint_bytes: stored(mean / (1.0 - 0.2) * 1.05),
        folded_bytes: folded_bytes
            .map(|bytes| (bytes as f64 * of_trace * (1.0 - options.compression)).round() as u64),
        points: options.retention_ns.checked_div(options.point_interval_ns),
        long_term: options.long_term.map(|kept| long_term(workload, options, kept)),
        extrapolated,
    }
}

fn long_term(workload: &Workload, options: &PlanOptions, kept: LongTermOptions) -> LongTerm {
    let (every, end) = (kept.every_ns as f64, workload.end_ns as f64);
    let extrapolated = every > end;
    let blocks = if extrapolated {
        let whole = workload.changed.distinct(0, workload.writes()) as f64;
        if end > 0.0 { whole * every / end } else { whole }
    } else {
        folding::blocks(workload, kept.every_ns).0 as f64 / (end / every)
    };
    let points = kept.keep_ns / kept.every_ns;
    let bytes = blocks * workload.changed.granularity_bytes() as f64 * points as f64;
    LongTerm {
        every_s: every / 1e9,
        retention_s: kept.keep_ns as f64 / 1e9,
        points,
        bytes: options.grown(bytes * (1.0 - options.compression)),
        extrapolated,
    }
}
