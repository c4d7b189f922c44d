//! The parameters of the cache, and the filter and properties that they come to.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;
use xxhash_rust::xxh3::xxh3_64;

use super::super::{Auxiliary, Built, Filter, ParamError, Properties, Scope, Setting, params};
use super::ahead::Ahead;
use super::dedup::Contents;
use super::destage::Debts;
use super::file::layout::{Header, PAGE_BYTES};
use super::file::{self, Dirty, FileCache};
use super::frames::Frames;
use super::grid::Grid;
use super::{AHEADS, Cache, DESTAGE_BYTES, DESTAGES, FETCHES};
use crate::eviction::{self, CAPACITY_MAX, Eviction, Index};
use crate::units::{Size, Time};

const BLOCK_BYTES: u64 = 4096;
const BLOCK_MAX: u64 = 1 << 20;
const DESTAGE_AFTER_NS: u64 = 1_000_000_000;
/// Room in a cache file beyond the capacity: so many bytes, and so many blocks at least.
const SPARE_BYTES: u64 = 4 << 20;
const SPARE_FRAMES: u64 = 64;

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Params {
    /// Size of the cache.
    capacity: Option<Size>,
    /// Bytes of a block.
    block: Option<Size>,
    /// Name of an eviction policy.
    eviction: Option<String>,
    write_policy: Option<WritePolicy>,
    /// Bytes that may be dirty.
    dirty_max: Option<Size>,
    /// How long a block may be dirty.
    destage_after: Option<Time>,
    /// Bytes to fetch ahead of reads in sequence.
    read_ahead: Option<Size>,
    scope: Option<Share>,
    /// Content-based.
    dedup: Option<bool>,
    /// A file on a fast device that holds the data in place of memory.
    file: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum WritePolicy {
    Through,
    Back,
    Around,
}

#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Share {
    Disk,
    Group,
}

pub fn schema() -> Value {
    params::schema_of::<Params>()
}

/// What the parameters come to.
struct Sizes {
    block: u64,
    blocks: u64,
    dirty_max: u64,
    read_ahead: u64,
}

/// Checks the sizes among the parameters.
fn sizes(params: &Params, errors: &mut Vec<ParamError>) -> Sizes {
    let mut fault = |key: &str, message: String| errors.push(ParamError::new(key, message));
    let Size(mut block) = params.block.unwrap_or(Size(BLOCK_BYTES));
    // In a file, blocks that share a page would have to be changed one after the other.
    let (least, word) =
        if params.file.is_some() { (PAGE_BYTES, "4KiB with a file") } else { (512, "512") };
    if !block.is_power_of_two() || !(least..=BLOCK_MAX).contains(&block) {
        let message = format!("expected a power of two from {word} to 1MiB, got {block} bytes");
        fault("block", message);
        block = BLOCK_BYTES;
    }
    let blocks = match params.capacity {
        None => {
            fault("capacity", "missing: expected a size such as \"512MiB\"".into());
            1
        }
        Some(Size(bytes)) if bytes / block == 0 || bytes / block > CAPACITY_MAX as u64 => {
            let message =
                format!("expected 1 to {CAPACITY_MAX} blocks of {block} bytes, got {bytes} bytes");
            fault("capacity", message);
            1
        }
        Some(Size(bytes)) => bytes / block,
    };
    let dirty_max = params.dirty_max.map_or(blocks.div_ceil(2), |Size(bytes)| bytes / block);
    if params.dirty_max.is_some() && !(1..=blocks).contains(&dirty_max) {
        let message = format!("expected at least one block ({block} bytes), at most the capacity");
        fault("dirty_max", message);
    }
    let Size(read_ahead) = params.read_ahead.unwrap_or(Size(0));
    Sizes { block, blocks, dirty_max, read_ahead: read_ahead.div_ceil(block) }
}

/// Parameters that are wrong together.
fn contradictions(params: &Params, errors: &mut Vec<ParamError>) {
    let write_policy = params.write_policy.unwrap_or(WritePolicy::Through);
    let mut fault = |key: &str, message: &str| errors.push(ParamError::new(key, message));
    if write_policy != WritePolicy::Back {
        if params.dirty_max.is_some() {
            fault("dirty_max", "only with write_policy = \"back\": nothing else is ever dirty");
        }
        if params.destage_after.is_some() {
            fault("destage_after", "only with write_policy = \"back\"");
        }
    }
    if let Some(file) = &params.file {
        if file.is_empty() {
            fault("file", "expected a path");
        }
        if params.read_ahead.is_some_and(|Size(bytes)| bytes > 0) {
            fault("read_ahead", "expected none with a file");
        }
        if params.dedup == Some(true) {
            fault("dedup", "expected false with a file");
        }
    }
    if params.dedup == Some(true) {
        if write_policy != WritePolicy::Through {
            fault("write_policy", "expected \"through\" with dedup");
        }
        if params.read_ahead.is_some_and(|Size(bytes)| bytes > 0) {
            fault("read_ahead", "expected none with dedup");
        }
    }
}

pub fn build(table: &Value, setting: &Setting) -> Built {
    let params: Params = params::parse(table)?;
    let mut errors = Vec::new();
    let sizes = sizes(&params, &mut errors);
    contradictions(&params, &mut errors);
    let name = params.eviction.as_deref().unwrap_or("lru");
    let policy = eviction::find(name);
    if policy.is_none() {
        let nearest = eviction::nearest(name)
            .map_or(String::new(), |near| format!("; did you mean \"{near}\"?"));
        let message = format!("expected one of {}, got \"{name}\"{nearest}", eviction::names());
        errors.push(ParamError::new("eviction", message));
    }
    let (Some(policy), true) = (policy, errors.is_empty()) else {
        return Err(errors);
    };
    let write_policy = params.write_policy.unwrap_or(WritePolicy::Through);
    let is_group = matches!(params.scope, Some(Share::Group));
    let dedup = params.dedup == Some(true);
    let Time(after_ns) = params.destage_after.unwrap_or(Time(DESTAGE_AFTER_NS));
    let is_back = write_policy == WritePolicy::Back;
    let grid = Grid { block: sizes.block, mode: setting.data, is_group };
    let policy = (policy.build)(sizes.blocks as usize, Index::hashed(), setting.seed);
    let is_around = write_policy == WritePolicy::Around;
    if let Some(file) = &params.file {
        let dirty = is_back.then(|| Dirty::new(sizes.dirty_max, after_ns));
        return Ok(on_file(file, &sizes, setting, FileParts { policy, grid, dirty, is_around }));
    }
    let debts = is_back.then(|| Debts::new(sizes.dirty_max, after_ns));
    let ahead = (sizes.read_ahead > 0).then(|| Ahead::new(sizes.read_ahead));
    let disks = if is_group { setting.disks.len() } else { 1 };
    let background = if debts.is_some() { DESTAGES + disks } else { 0 }
        + if ahead.is_some() { AHEADS } else { 0 };
    let properties = Properties {
        may_answer: true,
        may_defer: true,
        reorders: debts.is_some(),
        transparent: debts.is_none(),
        needs_data: dedup,
        unit_bytes: sizes.block,
        // A write whose fetches fail sends its parts beside them.
        children_per_io: FETCHES + 1,
        background_ios: background as u32,
        child_bytes: if background > 0 { sizes.block.max(DESTAGE_BYTES) } else { sizes.block },
        scope: if is_group { Scope::Group } else { Scope::Disk },
        ..Properties::TRANSPARENT
    };
    let cache = Cache {
        policy,
        frames: Frames::new(setting.data, sizes.block),
        debts,
        ahead,
        contents: dedup.then(Contents::default),
        is_around,
        is_stopped: false,
        grid,
        disk_bytes: setting.disk_bytes.clone(),
        works: Vec::new(),
        waiters: Vec::new(),
        requests: 0,
        hits: 0,
    };
    Ok((Box::new(cache), properties))
}

/// What both kinds of cache are made of, for one on a file.
struct FileParts {
    policy: Box<dyn Eviction>,
    grid: Grid,
    dirty: Option<Dirty>,
    is_around: bool,
}

fn on_file(
    file: &str,
    sizes: &Sizes,
    setting: &Setting,
    parts: FileParts,
) -> (Box<dyn Filter>, Properties) {
    let FileParts { policy, grid, dirty, is_around } = parts;
    let is_back = dirty.is_some();
    let disks = if grid.is_group { setting.disks.len() } else { 1 };
    let child_bytes = sizes.block.max(DESTAGE_BYTES);
    let properties = Properties {
        may_answer: true,
        may_defer: true,
        reorders: is_back,
        transparent: !is_back,
        // Whatever this run writes: an earlier one may have left what the disk lacks.
        persists: true,
        needs_data: true,
        unit_bytes: sizes.block,
        children_per_io: file::CHILDREN + 1,
        // A destage is a read of the file and a write that its data are copied to.
        background_ios: file::FILLS + (2 * DESTAGES + file::commit_ios(disks)) as u32,
        child_bytes,
        scope: if grid.is_group { Scope::Group } else { Scope::Disk },
        ..Properties::TRANSPARENT
    };
    // Blocks that were evicted, and wait for the disk or for who still reads them, take frames.
    let waiting = if is_back { sizes.dirty_max.min(sizes.blocks / 8) } else { 0 };
    let spare = (SPARE_BYTES / sizes.block).max(SPARE_FRAMES);
    let own = |all: &[u64]| match (grid.is_group, all.get(setting.local_index as usize)) {
        (false, Some(one)) => vec![*one],
        _ => all.to_vec(),
    };
    let digest = |words: Vec<u64>| {
        xxh3_64(&words.into_iter().flat_map(u64::to_le_bytes).collect::<Vec<u8>>())
    };
    let disks_of = own(&setting.disk_ids).len();
    let header = Header {
        run: 0,
        block: sizes.block,
        frames: sizes.blocks + waiting + spare,
        target: digest(own(&setting.disk_ids)),
        target_bytes: own(&setting.disk_bytes).iter().sum(),
        writer: digest(vec![setting.writer; disks_of]),
        writer_before: digest(own(&setting.disk_writers)),
        has_map: is_back,
    };
    // Each disk has a file of its own: from the second disk on, its number is in the name.
    let path = match (grid.is_group, setting.disk_index) {
        (true, _) | (_, 0) => PathBuf::from(file),
        (false, number) => PathBuf::from(format!("{file}.{number}")),
    };
    let size_bytes = header.size_bytes();
    let auxiliary = Auxiliary { name: "cache file", path: Some(path), size_bytes };
    let life = xxh3_64(format!("{} {}", setting.run, setting.disk).as_bytes());
    let parts = file::Parts {
        policy,
        grid,
        auxiliary,
        header,
        dirty,
        is_around,
        capacity: sizes.blocks,
        child_bytes,
        life,
    };
    (Box::new(FileCache::new(parts)), properties)
}
