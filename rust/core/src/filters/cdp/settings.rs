//! The parameters of `cdp`, checked, as the source and the link want them.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use super::super::{DataMode, ParamError, Setting, params};
use crate::cdp::entry::{Codec, RECORD_HEADER_MAX};
use crate::cdp::faults::{self, Fault, FaultKind, FaultParams};
use crate::cdp::model::Line;
use crate::cdp::source::{Config, Degrade, Initial, TIMEOUT_NS, Waits, batch_least_bytes};
use crate::cdp::spill::record_bytes;
use crate::cdp::store::LongTerm;
use crate::clock::Ns;
use crate::units::{ByteRate, Positive, Size, Time};

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Params {
    /// The target.
    rpo: Option<Time>,
    /// Between restore points; 0 for continuous.
    point_interval: Option<Time>,
    link: Option<LinkParams>,
    journal: Option<JournalParams>,
    degrade: Option<DegradeParam>,
    /// How long a write is held back at most.
    backpressure: Option<Time>,
    /// Block of the bitmap.
    bitmap_block: Option<Size>,
    /// Only the last version of a block is sent for a point.
    folding: Option<bool>,
    compression: Option<CompressionParam>,
    batch: Option<Size>,
    mode: Option<ModeParam>,
    /// How long a write waits for the replica at most.
    sync_timeout: Option<Time>,
    /// How long earlier states are kept.
    retention: Option<Time>,
    /// How many bytes of earlier states are kept.
    retention_size: Option<Size>,
    long_term: Option<LongTermParams>,
    /// How long the end of a run waits for the link.
    drain: Option<Time>,
    /// When what the disks hold already is sent.
    initial_sync: Option<InitialParam>,
    /// What the replica holds is compared before it is sent.
    checksums: Option<bool>,
    /// A name that outlives runs: the next source of that name goes on with the same store.
    stream: Option<String>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct LinkParams {
    bandwidth: Option<ByteRate>,
    /// Share of the bandwidth that is left for data.
    efficiency: Option<Positive>,
    rtt: Option<Time>,
    /// Address of the replica site.
    site: Option<String>,
    /// The key shared with the site.
    key: Option<String>,
    timeout: Option<Time>,
    /// Bytes under way at most.
    window: Option<Size>,
    /// In virtual time: what compression leaves of a byte.
    compression_ratio: Option<Positive>,
    /// In virtual time: how long the site takes to make an entry durable.
    site_sync: Option<Time>,
    faults: Option<Vec<FaultParams>>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct JournalParams {
    memory: Option<Size>,
    spill: Option<Size>,
    /// Where the spill file is, or is made.
    file: Option<PathBuf>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct LongTermParams {
    /// One point of every such interval is kept.
    every: Option<Time>,
    /// How long.
    retention: Option<Time>,
    /// So many at most.
    points: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
enum DegradeParam {
    Bitmap,
    SpillBackpressureBitmap,
    Lag,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum InitialParam {
    Before,
    During,
    Never,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum CompressionParam {
    None,
    Lz4,
    Zstd,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
enum ModeParam {
    Async,
    SemiSync,
    Sync,
}

/// Everything a filter is built from.
#[derive(Debug, Clone)]
pub struct Settings {
    pub config: Config,
    pub line: Line,
    pub hold_ns: Ns,
    pub drain_ns: Ns,
    /// The site's address and the shared key, on the wall clock.
    pub site: Option<(String, Vec<u8>)>,
    pub codec: Codec,
    pub spill_file: Option<PathBuf>,
}

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
/// What a site may have taken and not confirmed yet, without the line running dry.
const SITE_BYTES: u64 = 16 * MIB;
const SECOND: Ns = 1_000_000_000;

pub fn read(table: &Value, setting: &Setting) -> Result<Settings, Vec<ParamError>> {
    let params: Params = params::parse(table)?;
    let mut faults = Vec::new();
    let Some(Time(rpo_ns)) = params.rpo else {
        return Err(vec![ParamError::new("rpo", "expected a time such as \"5s\": the target")]);
    };
    let Some(link) = &params.link else {
        let message = "expected a link such as { bandwidth = \"100Mbit/s\", rtt = \"20ms\" }";
        return Err(vec![ParamError::new("link", message)]);
    };
    let line = line(link, params.compression, &mut faults);
    let degrade = degrade(params.degrade);
    let (memory_bytes, spill_bytes) = journal(&params, degrade);
    let journal_bytes = memory_bytes + spill_bytes;
    let size = |size: Option<Size>, default: u64| size.map_or(default, |Size(bytes)| bytes);
    let time = |time: Option<Time>, default: Ns| time.map_or(default, |Time(ns)| ns);
    let (block_bytes, batch_bytes) = units(&params, setting, memory_bytes, &mut faults);
    let batch_bytes = batch_bytes.min(memory_bytes / 4).max(512);
    let record_max_bytes =
        record_bytes(batch_bytes + setting.longest_bytes.max(block_bytes) + RECORD_HEADER_MAX);
    if spill_bytes > 0 && spill_bytes < record_max_bytes {
        let message = format!("expected {record_max_bytes} bytes or more, got {spill_bytes}");
        faults.push(ParamError::new("journal.spill", message));
    }
    contradictions(&params, &mut faults);
    let long_term = long_term(&params, &mut faults);
    let site = site(link, setting, &mut faults);
    if !faults.is_empty() {
        return Err(faults);
    }
    let config = Config {
        run: setting.run.clone(),
        disks: setting.disks.clone(),
        disk_bytes: setting.disk_bytes.clone(),
        data: setting.data,
        waits: match params.mode.unwrap_or(ModeParam::Async) {
            ModeParam::Async => Waits::Async,
            ModeParam::SemiSync => Waits::SemiSync,
            ModeParam::Sync => Waits::Sync,
        },
        degrade,
        point_interval_ns: time(params.point_interval, (rpo_ns / 2).max(1)),
        batch_bytes,
        batch_least_bytes: batch_least_bytes(line.bytes_per_s).min(batch_bytes),
        folding: params.folding.unwrap_or(false),
        memory_bytes,
        journal_bytes,
        spill_bytes,
        record_max_bytes: if spill_bytes > 0 { record_max_bytes } else { 0 },
        high_water_bytes: journal_bytes / 10 * 9,
        block_bytes,
        window_bytes: size(link.window, window(&line, batch_bytes, site.is_some()))
            .min(memory_bytes / 2),
        timeout_ns: time(link.timeout, TIMEOUT_NS),
        sync_timeout_ns: time(params.sync_timeout, SECOND),
        retention_ns: time(params.retention, 0),
        retention_bytes: size(params.retention_size, 0),
        long_term,
        stream: params.stream.clone().unwrap_or_default(),
        initial: initial(params.initial_sync, setting),
        extents: setting.extents.clone(),
        skips_zeroes: !setting.is_virtual,
        checksums: !setting.is_virtual && params.checksums.unwrap_or(true),
    };
    let hold_ns = time(params.backpressure, SECOND);
    let (drain_ns, codec) = (time(params.drain, 10 * SECOND), codec(params.compression));
    let spill_file = params.journal.and_then(|journal| journal.file);
    Ok(Settings { config, line, hold_ns, drain_ns, site, codec, spill_file })
}

const fn degrade(asked: Option<DegradeParam>) -> Degrade {
    match asked {
        None | Some(DegradeParam::Bitmap) => Degrade::Bitmap,
        Some(DegradeParam::SpillBackpressureBitmap) => Degrade::Backpressure,
        Some(DegradeParam::Lag) => Degrade::Lag,
    }
}

/// The sizes of a block and of a batch, checked against the journal's.
fn units(
    params: &Params,
    setting: &Setting,
    memory_bytes: u64,
    faults: &mut Vec<ParamError>,
) -> (u64, u64) {
    let size = |size: Option<Size>, default: u64| size.map_or(default, |Size(bytes)| bytes);
    let block_bytes = size(params.bitmap_block, 64 << 10);
    if !block_bytes.is_power_of_two() || !(512..=MIB).contains(&block_bytes) {
        faults.push(ParamError::new(
            "bitmap_block",
            format!("expected a power of two from 512 to 1MiB, got {block_bytes}"),
        ));
    }
    let batch_bytes = size(params.batch, 256 << 10);
    if !(4096..=16 * MIB).contains(&batch_bytes) {
        faults.push(ParamError::new("batch", format!("expected 4KiB to 16MiB, got {batch_bytes}")));
    }
    if memory_bytes < setting.longest_bytes + block_bytes {
        faults.push(ParamError::new(
            "journal.memory",
            format!(
                "expected more than the largest write and a block of the bitmap ({} + {} bytes), \
                 got {memory_bytes}",
                setting.longest_bytes, block_bytes
            ),
        ));
    }
    (block_bytes, batch_bytes)
}

/// A modelled device is empty at its start: there is nothing to send unless that is asked for.
fn initial(asked: Option<InitialParam>, setting: &Setting) -> Initial {
    match asked {
        _ if setting.data == DataMode::Nothing => Initial::Never,
        Some(InitialParam::Before) => Initial::Before,
        Some(InitialParam::During) => Initial::During,
        Some(InitialParam::Never) => Initial::Never,
        None if setting.is_virtual => Initial::Never,
        None => Initial::Before,
    }
}

const fn codec(asked: Option<CompressionParam>) -> Codec {
    match asked {
        None | Some(CompressionParam::None) => Codec::None,
        Some(CompressionParam::Lz4) => Codec::Lz4,
        Some(CompressionParam::Zstd) => Codec::Zstd,
    }
}

/// Where the replica is; on the wall clock it has to be somewhere.
fn site(
    link: &LinkParams,
    setting: &Setting,
    faults: &mut Vec<ParamError>,
) -> Option<(String, Vec<u8>)> {
    if let Some(site) = &link.site
        && site.rsplit_once(':').is_none_or(|(_, port)| port.parse::<u16>().is_err())
    {
        let message = format!("expected an address such as \"10.0.0.2:7100\", got \"{site}\"");
        faults.push(ParamError::new("link.site", message));
    }
    if link.site.is_some() && link.key.is_none() {
        let message = "expected \"file:PATH\" or \"env:NAME\": the key shared with the site";
        faults.push(ParamError::new("link.key", message));
    }
    if setting.is_virtual {
        return None;
    }
    let Some(site) = &link.site else {
        faults.push(ParamError::new("link.site", "expected the address of a replica site"));
        return None;
    };
    if link.faults.iter().flatten().any(|fault| fault.kind == FaultKind::Restart) {
        let message = "expected no restart on the wall clock: restart the site itself";
        faults.push(ParamError::new("link.faults", message));
    }
    match crate::cdp::key::load(link.key.as_deref().unwrap_or("")) {
        Ok(key) => Some((site.clone(), key)),
        Err(message) => {
            faults.push(ParamError::new("link.key", message));
            None
        }
    }
}

/// Parameters that are right by themselves and make no sense together.
fn contradictions(params: &Params, faults: &mut Vec<ParamError>) {
    let asks_sync = !matches!(params.mode, None | Some(ModeParam::Async));
    if asks_sync && params.folding == Some(true) {
        let message = "expected false with a synchronous mode, whose writes wait for no point";
        faults.push(ParamError::new("folding", message));
    }
    if params.folding == Some(true) && matches!(params.point_interval, Some(Time(0))) {
        let message =
            "expected false with a `point_interval` of 0: there is no point to fold up to";
        faults.push(ParamError::new("folding", message));
    }
    if params.initial_sync == Some(InitialParam::Never) && params.stream.is_some() {
        let message = "expected \"before\" or \"during\" with a stream that goes on: what a store \
                       lacks of it is found by comparing";
        faults.push(ParamError::new("initial_sync", message));
    }
}

/// Points that are kept for longer than the others.
fn long_term(params: &Params, faults: &mut Vec<ParamError>) -> Option<LongTerm> {
    let given = params.long_term.as_ref()?;
    let (Some(Time(every_ns)), Some(Time(retention_ns))) = (given.every, given.retention) else {
        let message = "expected { every = \"8h\", retention = \"7d\" }: one point of every \
                       interval is kept for so long";
        faults.push(ParamError::new("long_term", message));
        return None;
    };
    let Some(Time(short_ns)) = params.retention else {
        let message = "expected how long all points are kept, before long-term ones alone are";
        faults.push(ParamError::new("retention", message));
        return None;
    };
    if every_ns == 0 {
        faults.push(ParamError::new("long_term.every", "expected a time such as \"8h\""));
    }
    if retention_ns < short_ns {
        let message = "expected no less than the retention of all points";
        faults.push(ParamError::new("long_term.retention", message));
    }
    let points = given.points.unwrap_or(u64::MAX);
    if points == 0 {
        faults.push(ParamError::new("long_term.points", "expected 1 or more"));
    }
    Some(LongTerm { every_ns, retention_ns, points })
}

/// Twice what is on its way at full speed, and some batches: as fast and as long as the line ever
/// becomes, since senders follow their line.
fn window(line: &Line, batch_bytes: u64, is_real: bool) -> u64 {
    let (mut bytes_per_s, mut rtt_ns) = (line.bytes_per_s, line.rtt_ns);
    for fault in &line.faults {
        match *fault {
            Fault::Bandwidth { bytes_per_s: to, .. } => bytes_per_s = bytes_per_s.max(to),
            Fault::Rtt { rtt_ns: to, .. } => rtt_ns = rtt_ns.max(to),
            Fault::Outage { .. } | Fault::Restart { .. } | Fault::Reset { .. } => {}
        }
    }
    // A real site takes in the next bytes while its disk makes the last ones durable.
    let at_site = if is_real { SITE_BYTES } else { 0 };
    (bytes_per_s * rtt_ns as f64 / 1e9 * 2.0) as u64 + batch_bytes * 8 + at_site
}

/// Bytes in memory and in the spill file.
fn journal(params: &Params, degrade: Degrade) -> (u64, u64) {
    let spill = match degrade {
        Degrade::Bitmap => 0,
        Degrade::Backpressure => 16 * GIB,
        Degrade::Lag => 256 * GIB,
    };
    let given = params.journal.as_ref();
    let memory = given.and_then(|journal| journal.memory).map_or(256 * MIB, |Size(bytes)| bytes);
    (memory, given.and_then(|journal| journal.spill).map_or(spill, |Size(bytes)| bytes))
}

fn line(
    link: &LinkParams,
    compression: Option<CompressionParam>,
    errors: &mut Vec<ParamError>,
) -> Line {
    let Some(ByteRate(bytes_per_s)) = link.bandwidth else {
        let message = "expected a rate such as \"100Mbit/s\"";
        errors.push(ParamError::new("link.bandwidth", message));
        return Line {
            bytes_per_s: 1.0,
            rtt_ns: 0,
            compression_ratio: 1.0,
            sync_ns: 0,
            faults: Vec::new(),
        };
    };
    let efficiency = link.efficiency.map_or(1.0, |Positive(share)| share);
    if efficiency > 1.0 {
        let message = format!("expected a share above 0, up to 1, got {efficiency}");
        errors.push(ParamError::new("link.efficiency", message));
    }
    let faults = faults::read(link.faults.as_deref().unwrap_or_default(), efficiency)
        .unwrap_or_else(|wrong| {
            let at_link = |e: ParamError| ParamError { path: format!("link.{}", e.path), ..e };
            errors.extend(wrong.into_iter().map(at_link));
            Vec::new()
        });
    let packed = !matches!(compression, None | Some(CompressionParam::None));
    let ratio = link.compression_ratio.map_or(1.0, |Positive(ratio)| ratio);
    Line {
        bytes_per_s: bytes_per_s * efficiency,
        rtt_ns: link.rtt.map_or(0, |Time(ns)| ns),
        compression_ratio: if packed { ratio } else { 1.0 },
        sync_ns: link.site_sync.map_or(0, |Time(ns)| ns),
        faults,
    }
}
