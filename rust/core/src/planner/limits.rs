//! Disks that are too hot for a product, by the limits that it publishes, each with its reason.
//!
//! Sources: Azure Site Recovery, "Deployment planner, analyze the report" (churn and IOPS limits,
//! at the percentile of its profile; they assume that 30 % of the I/Os overlap); zPlanner of
//! Zerto's technical alliances (samples above 10,000 IOPS).

use serde::Serialize;

use crate::planner::loads::Rates;

/// A limit that is exceeded.
#[derive(Debug, Clone, Serialize)]
pub struct Exceeded {
    /// `hot`: beyond the standard tier; `incompatible`: beyond what is supported at all.
    pub verdict: &'static str,
    pub product: &'static str,
    pub reason: String,
    pub value: f64,
    pub limit: f64,
}

const MB: f64 = 1e6;

/// Churn in MB/s that a disk may have with writes of a mean size up to so many bytes: on standard
/// and P10 or P15 disks, and on P20 and larger ones.
const ASR_CHURN: [(f64, f64, f64); 3] =
    [(12.0 * 1024.0, 2.0, 5.0), (24.0 * 1024.0, 4.0, 20.0), (f64::INFINITY, 8.0, 20.0)];

/// What is beyond the limits of one disk.
#[must_use]
pub fn of_disk(rates: &Rates) -> Vec<Exceeded> {
    let mut found = Vec::new();
    let writes = rates.total.writes.max(1) as f64;
    let size = rates.total.written_bytes as f64 / writes;
    let churn = rates.written_bytes_per_s.percentile / MB;
    if let Some((_, standard, premium)) = ASR_CHURN.iter().find(|row| size <= row.0) {
        let verdict = if churn > *premium { "incompatible" } else { "hot" };
        let limit = if churn > *premium { *premium } else { *standard };
        let what = format!("MB/s written with writes of {:.0} KiB on average", size / 1024.0);
        exceed(&mut found, verdict, ASR, what, churn, limit);
    }
    let write_iops = rates.write_iops.percentile;
    exceed(&mut found, "hot", ASR, "writes a second on a disk".into(), write_iops, 840.0);
    let iops = rates.iops.percentile;
    exceed(&mut found, "incompatible", ASR, "I/Os a second on a disk".into(), iops, 7500.0);
    let what = "I/Os a second in a window".to_owned();
    exceed(&mut found, "hot", "zPlanner", what, rates.iops.peak, 10_000.0);
    found
}

/// What is beyond the limits of one virtual machine.
#[must_use]
pub fn of_machine(rates: &Rates) -> Vec<Exceeded> {
    let mut found = Vec::new();
    let peak = rates.written_bytes_per_s.peak / MB;
    let what = "MB/s written at peak by a machine".to_owned();
    exceed(&mut found, "incompatible", ASR, what, peak, 54.0);
    let iops = rates.iops.percentile;
    exceed(&mut found, "incompatible", ASR, "I/Os a second of a machine".into(), iops, 80_000.0);
    found
}

const ASR: &str = "Azure Site Recovery";

fn exceed(
    found: &mut Vec<Exceeded>,
    verdict: &'static str,
    product: &'static str,
    what: String,
    value: f64,
    limit: f64,
) {
    if value > limit {
        let reason = format!("{value:.1} {what}, limit {limit}");
        found.push(Exceeded { verdict, product, reason, value, limit });
    }
}
