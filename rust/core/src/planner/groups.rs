//! The rows of disks, groups and all: what each asks for, the bandwidth that its target needs by
//! itself, and whether it is too hot for a product.

use serde::{Deserialize, Serialize};

use crate::cdp::line::Way;
use crate::error::{Error, Result};
use crate::planner::limits::{self, Exceeded};
use crate::planner::loads::{Rates, Spread};
use crate::planner::ramps::Frame;
use crate::planner::report::NeededBps;
use crate::planner::workload::Workload;
use crate::planner::{PlanOptions, needed_continuous};

/// Disks that replicate together, such as those of one machine.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Group {
    pub name: String,
    /// Names of disks; one that ends in `*` stands for all that begin so.
    pub disks: Vec<String>,
}

#[derive(Debug, Clone, Serialize)]
pub struct LoadReport {
    /// `all`, `group` or `disk`.
    pub kind: &'static str,
    pub name: String,
    pub disks: Vec<String>,
    pub reads: u64,
    pub writes: u64,
    pub read_bytes: u64,
    pub written_bytes: u64,
    /// With growth, as all rates here.
    pub written_bytes_per_s: Spread,
    pub write_iops: Spread,
    pub iops: Spread,
    /// What adding up the disks' own peaks would give.
    pub sum_of_peaks_bytes_per_s: f64,
    /// For continuous replication of these disks alone.
    pub bandwidth_for_target_bps: NeededBps,
    pub exceeded: Vec<Exceeded>,
}

/// `all` first, then groups, then disks where there are several.
///
/// # Errors
/// `Input` when a group names no disk of the trace.
pub fn reports<W: Way>(
    workload: &Workload,
    (options, frame, way): (&PlanOptions, Frame, &W),
    names: &[String],
    needed_all: &NeededBps,
) -> Result<Vec<LoadReport>> {
    let every: Vec<u32> = (0..workload.loads.disks() as u32).collect();
    let of = |disks: &[u32]| {
        workload.loads.rates(disks, workload.end_ns, options.percentile, options.growth)
    };
    let own: Vec<Rates> = every.iter().map(|disk| of(&[*disk])).collect();
    let row = |kind, name: &str, disks: &[u32], rates: Rates, needed| {
        let peaks = disks.iter().map(|disk| own[*disk as usize].written_bytes_per_s.peak);
        LoadReport::new(kind, name, disks, names, rates, peaks.sum(), needed, options)
    };
    let mut rows = Vec::with_capacity(1 + options.groups.len() + every.len());
    let mut all = row("all", "all disks", &every, of(&every), needed_all.clone());
    if options.groups.is_empty() {
        all.exceeded = limits::of_machine(&of(&every));
    }
    rows.push(all);
    for group in &options.groups {
        let disks = members(group, names)?;
        let part = workload.part(|disk| disks.contains(&disk));
        let needed = needed_continuous(&part, options, frame, way);
        let mut made = row("group", &group.name, &disks, of(&disks), needed);
        made.exceeded = limits::of_machine(&of(&disks));
        rows.push(made);
    }
    let parts = if every.len() > 1 { workload.by_disk() } else { Vec::new() };
    for disk in &every {
        let needed = match parts.get(*disk as usize) {
            Some(part) => needed_continuous(part, options, frame, way),
            None => needed_all.clone(),
        };
        let rates = own[*disk as usize].clone();
        let exceeded = limits::of_disk(&rates);
        let mut made = row("disk", &names[*disk as usize], &[*disk], rates, needed);
        made.exceeded = exceeded;
        rows.push(made);
    }
    Ok(rows)
}

fn members(group: &Group, names: &[String]) -> Result<Vec<u32>> {
    let mut found = Vec::new();
    for wanted in &group.disks {
        let fits = |name: &&String| match wanted.strip_suffix('*') {
            Some(start) => name.starts_with(start),
            None => *name == wanted,
        };
        let before = found.len();
        found.extend((0u32..).zip(names).filter(|(_, name)| fits(name)).map(|(disk, _)| disk));
        if found.len() == before {
            let known = names.iter().take(8).map(String::as_str).collect::<Vec<_>>().join(", ");
            return Err(Error::input(format!(
                "group {}: expected disks of the trace ({known}), got {wanted}",
                group.name
            )));
        }
    }
    found.sort_unstable();
    found.dedup();
    Ok(found)
}

impl LoadReport {
    #[expect(clippy::too_many_arguments, reason = "a row is put together once")]
    fn new(
        kind: &'static str,
        name: &str,
        disks: &[u32],
        names: &[String],
        rates: Rates,
        sum_of_peaks_bytes_per_s: f64,
        bandwidth_for_target_bps: NeededBps,
        options: &PlanOptions,
    ) -> Self {
        Self {
            kind,
            name: name.to_owned(),
            disks: disks.iter().map(|disk| names[*disk as usize].clone()).collect(),
            reads: rates.total.reads,
            writes: rates.total.writes,
            read_bytes: options.grown(rates.total.read_bytes as f64),
            written_bytes: options.grown(rates.total.written_bytes as f64),
            written_bytes_per_s: rates.written_bytes_per_s,
            write_iops: rates.write_iops,
            iops: rates.iops,
            sum_of_peaks_bytes_per_s,
            bandwidth_for_target_bps,
            exceeded: Vec::new(),
        }
    }
}
