//! The harness's own cost on this machine, now: `null` below, with and without a `pass` filter.

use std::sync::Arc;
use std::time::Duration;

use arrow_array::types::Int8Type;
use arrow_array::{
    ArrayRef, DictionaryArray, Int8Array, Int64Array, RecordBatch, RecordBatchIterator,
    StringArray, UInt32Array,
};
use arrow_schema::{ArrowError, Schema};

use super::feed::{Feed, Window};
use super::options::{BackendKind, ClockKind, Conflicts, FilterSpec, Options, Pace};
use super::run::Run;
use super::scan::Scan;
use crate::backends::target::Direct;
use crate::clock::{Clock, WallClock, monotonic_ns};
use crate::error::Result;

const BATCH: usize = 1 << 16;
const DISK: &str = "floor";

/// Worker time for each I/O, in nanoseconds.
#[derive(Debug, Clone, Copy, serde::Serialize)]
pub struct Floor {
    pub ios: u64,
    /// Schedule, range lock, pipeline, `null` backend and the row, for one 4 KiB read.
    pub null_ns_per_io: f64,
    /// The same with a `pass` filter, less the former.
    pub pass_ns_per_io: f64,
    /// One reading of the clock.
    pub clock_ns: f64,
}

/// Measures the floor with `ios` reads at depth 32: the better of `rounds` rounds each, taken in
/// turn, since another tenant of the machine can only add.
///
/// # Errors
/// When threads or memory cannot be had.
pub fn measure(ios: u64, rounds: u32) -> Result<Floor> {
    let (mut null, mut pass) = (f64::MAX, f64::MAX);
    for _ in 0..rounds.max(1) {
        null = null.min(one_round(ios, &[])?);
        pass = pass.min(one_round(ios, &["pass"])?);
    }
    Ok(Floor {
        ios,
        null_ns_per_io: null,
        pass_ns_per_io: pass - null,
        clock_ns: clock_reading_ns(),
    })
}

/// Worker nanoseconds for each of `ios` reads through these filters onto `null`.
///
/// # Errors
/// As [`measure`].
pub fn one_round(ios: u64, filters: &[&str]) -> Result<f64> {
    let scan = Scan::run(feed(ios), 1, None)?;
    let (run, _) = Run::start(options(filters), scan, feed(ios))?;
    while let Some(output) = run.next_output(Duration::from_secs(60)) {
        if output.is_none() {
            break;
        }
    }
    let totals = run.finish()?;
    Ok((totals.cpu_user_ns + totals.cpu_system_ns) as f64 / ios as f64)
}

fn options(filters: &[&str]) -> Options {
    Options {
        policy: "floor".to_owned(),
        round: 0,
        filters: filters
            .iter()
            .map(|name| FilterSpec {
                name: (*name).to_owned(),
                word: None,
                params: serde_json::Value::Object(serde_json::Map::new()),
            })
            .collect(),
        window: window(),
        targets: Vec::new(),
        read_only: false,
        backend: BackendKind::Null,
        direct: Direct::Auto,
        clock: ClockKind::Wall,
        pace: Pace::Asap,
        speed: 1.0,
        depth: 32,
        inflight: 32,
        hang_ns: crate::clock::Ns::MAX,
        spin_ns: 0,
        conflicts: Conflicts::Order,
        verify: false,
        prefill: false,
        compressible: 0.0,
        dedupe: 0.0,
        seed: 0,
        fit_to_bytes: None,
        content: None,
        workers: 1,
        run: String::new(),
        sim: None,
        server: None,
    }
}

fn window() -> Window {
    Window { disks: vec![DISK.to_owned()], skip: 0, limit: None }
}

/// 4 KiB reads scattered over 4 GiB.
fn feed(ios: u64) -> Feed {
    let schema = batch(0, 1).map_or_else(|_| Arc::new(Schema::empty()), |b| b.schema());
    let batches =
        (0..ios).step_by(BATCH).map(move |from| batch(from, (ios - from).min(BATCH as u64)));
    Feed::new(Box::new(RecordBatchIterator::new(batches, schema)), DISK, window())
}

fn batch(from: u64, rows: u64) -> std::result::Result<RecordBatch, ArrowError> {
    let rows = rows as usize;
    let word = |value: &str| -> std::result::Result<ArrayRef, ArrowError> {
        let values = Arc::new(StringArray::from(vec![value]));
        Ok(Arc::new(DictionaryArray::<Int8Type>::try_new(Int8Array::from(vec![0; rows]), values)?))
    };
    let offsets = (from..from + rows as u64)
        .map(|i| ((i.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 44) * 4096) as i64);
    RecordBatch::try_from_iter([
        ("time_ns", Arc::new(Int64Array::from(vec![0; rows])) as ArrayRef),
        ("disk", word(DISK)?),
        ("op", word("read")?),
        ("offset_bytes", Arc::new(offsets.collect::<Int64Array>())),
        ("length_bytes", Arc::new(Int64Array::from(vec![4096; rows]))),
        ("flags", Arc::new(UInt32Array::from(vec![0; rows]))),
    ])
}

fn clock_reading_ns() -> f64 {
    const READINGS: u32 = 100_000;
    let clock = Clock::Wall(WallClock::since(monotonic_ns()));
    let before = monotonic_ns();
    for _ in 0..READINGS {
        std::hint::black_box(clock.now());
    }
    (monotonic_ns() - before) as f64 / f64::from(READINGS)
}
