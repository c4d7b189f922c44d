//! The parameters of `snapshot`, checked.

use std::path::PathBuf;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use super::super::{ParamError, Setting, params};
use crate::cdp::faults::{self, FaultParams};
use crate::cdp::line::Disturbed;
use crate::clock::Ns;
use crate::units::{ByteRate, Size, Time};

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Params {
    /// The period of the snapshots.
    every: Option<Time>,
    /// Unit of change tracking.
    granularity: Option<Size>,
    link: Option<LinkParams>,
    /// The target that verdicts of a run are about.
    rpo: Option<Time>,
    /// How long the guest is held to create or remove a snapshot.
    stun: Option<Time>,
    /// What a snapshot costs the guest's writes while it exists.
    redo: Option<RedoKind>,
    /// The redo log's file; not needed where devices are models.
    redo_file: Option<String>,
    redo_size: Option<Size>,
    /// How a snapshot is removed; without it at once.
    merge: Option<MergeParams>,
    /// Chunks read or on the link at one time.
    depth: Option<u16>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct LinkParams {
    bandwidth: Option<ByteRate>,
    rtt: Option<Time>,
    /// Share of the bandwidth that carries payload.
    efficiency: Option<f64>,
    /// Share by which the payload shrinks.
    compression: Option<f64>,
    /// Without an answer for so long the connection is given up.
    timeout: Option<Time>,
    faults: Option<Vec<FaultParams>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
enum RedoKind {
    None,
    CopyOnWrite,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct MergeParams {
    rate: Option<ByteRate>,
    /// What takes no longer than this is merged while the guest is held.
    pause: Option<Time>,
    /// Passes with the guest running before it is held for the rest.
    iterations: Option<u32>,
}

/// Everything a filter is built from.
#[derive(Debug, Clone)]
pub struct Settings {
    pub every_ns: Ns,
    pub granularity_bytes: u64,
    /// The link's time for one byte of payload.
    pub byte_ns: f64,
    /// The link, and what happens to it after the start.
    pub line: Arc<Disturbed>,
    pub stun_ns: Ns,
    pub redo: Option<Redo>,
    pub merge: Option<Merge>,
    pub depth: usize,
    /// The longest read of the filter's own.
    pub read_bytes: u64,
}

#[derive(Debug, Clone)]
pub struct Redo {
    pub file: Option<PathBuf>,
    pub size_bytes: u64,
}

#[derive(Debug, Clone)]
pub struct Merge {
    pub byte_ns: f64,
    pub pause_ns: f64,
    pub iterations: u32,
}

const READ_BYTES: u64 = 256 << 10;
const LARGEST_BYTES: u64 = 16 << 20;

pub fn read(table: &Value, setting: &Setting) -> Result<Settings, Vec<ParamError>> {
    let params: Params = params::parse(table)?;
    let mut refused = Vec::new();
    let mut wrong = |path: &str, message: &str| refused.push(ParamError::new(path, message));
    let every_ns = params.every.map_or(0, |Time(ns)| ns);
    if every_ns == 0 {
        wrong("every", "expected a time above zero such as \"15min\": the period");
    }
    let Size(granularity_bytes) = params.granularity.unwrap_or(Size(4096));
    if !granularity_bytes.is_power_of_two() || !(512..=LARGEST_BYTES).contains(&granularity_bytes) {
        wrong("granularity", "expected a power of two from 512 bytes to 16 MiB");
    }
    let bandwidth = params.link.as_ref().and_then(|link| link.bandwidth);
    let (mut efficiency, mut compression) = (1.0, 0.0);
    if let Some(link) = &params.link {
        efficiency = link.efficiency.unwrap_or(1.0);
        compression = link.compression.unwrap_or(0.0);
    }
    if !(efficiency > 0.0 && efficiency <= 1.0) {
        wrong("link.efficiency", "expected a share above 0, up to 1");
    }
    if !(0.0..1.0).contains(&compression) {
        wrong("link.compression", "expected a share from 0 to below 1");
    }
    if bandwidth.is_none() {
        let message = "expected a link such as { bandwidth = \"100Mbit/s\", rtt = \"20ms\" }";
        wrong(if params.link.is_some() { "link.bandwidth" } else { "link" }, message);
    }
    let merge = params.merge.as_ref().map(|merge| Merge {
        byte_ns: merge.rate.map_or(0.0, |ByteRate(rate)| 1e9 / rate),
        pause_ns: merge.pause.map_or(5e9, |Time(ns)| ns as f64),
        iterations: merge.iterations.unwrap_or(10),
    });
    if merge.as_ref().is_some_and(|merge| merge.byte_ns == 0.0) {
        wrong("merge.rate", "expected a rate such as \"100MiB/s\"");
    }
    if params.rpo.is_some_and(|Time(ns)| ns == 0) {
        wrong("rpo", "expected a time above zero such as \"15min\"");
    }
    let depth = usize::from(params.depth.unwrap_or(16));
    if !(1..=256).contains(&depth) {
        wrong("depth", "expected a number from 1 to 256");
    }
    let redo = redo_of(&params, setting);
    let read_bytes = granularity_bytes.max(READ_BYTES);
    if redo.as_ref().is_some_and(|redo| redo.size_bytes < read_bytes) {
        wrong("redo_size", "expected a size that holds a block, such as \"1GiB\"");
    }
    let bytes_per_s = bandwidth.map_or(1.0, |ByteRate(rate)| rate) * efficiency;
    let none = || Err(Vec::new());
    let line = params.link.as_ref().map_or_else(none, |link| link.line(bytes_per_s, efficiency));
    let line = line.map_err(|more| refused.extend(more)).ok().filter(|_| refused.is_empty());
    let Some(line) = line.map(Arc::new) else { return Err(refused) };
    Ok(Settings {
        every_ns,
        granularity_bytes,
        byte_ns: 1e9 * (1.0 - compression) / bytes_per_s,
        line,
        stun_ns: params.stun.map_or(0, |Time(ns)| ns),
        redo,
        merge,
        depth,
        read_bytes,
    })
}

/// As that of `cdp`.
const TIMEOUT_NS: Ns = 10_000_000_000;

impl LinkParams {
    fn line(&self, bytes_per_s: f64, efficiency: f64) -> Result<Disturbed, Vec<ParamError>> {
        let at_link = |e: ParamError| ParamError { path: format!("link.{}", e.path), ..e };
        let faults = faults::read(self.faults.as_deref().unwrap_or_default(), efficiency)
            .map_err(|wrong| wrong.into_iter().map(at_link).collect::<Vec<_>>())?;
        let ns = |time: Option<Time>, default: Ns| time.map_or(default, |Time(ns)| ns);
        let (rtt_ns, timeout_ns) = (ns(self.rtt, 0), ns(self.timeout, TIMEOUT_NS));
        Ok(Disturbed::new(bytes_per_s, rtt_ns, timeout_ns, &faults))
    }
}

/// Each disk has a log of its own: from the second disk on, its number is in the name.
fn redo_of(params: &Params, setting: &Setting) -> Option<Redo> {
    let Size(size_bytes) = params.redo_size.unwrap_or(Size(1 << 30));
    let file = params.redo_file.as_ref().map(|name| match setting.disk_index {
        0 => PathBuf::from(name),
        number => PathBuf::from(format!("{name}.{number}")),
    });
    let kind = params.redo.unwrap_or(RedoKind::None);
    (kind == RedoKind::CopyOnWrite).then_some(Redo { file, size_bytes })
}
