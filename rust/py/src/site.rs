//! `site` and `recover`: a replica site under way, and what a store holds.

use std::path::{Path, PathBuf};
use std::sync::Mutex;

use arrow_array::{Array, Int64Array, RecordBatch};
use pyo3::prelude::*;
use vaio_bench_core::cdp::key;
use vaio_bench_core::cdp::recovery::{self, Wanted};
use vaio_bench_core::cdp::site::Site as CoreSite;
use vaio_bench_core::cdp::store;
use vaio_bench_core::cdp::verify::Expected;
use vaio_bench_core::error::Error;
use vaio_bench_core::io::Op;
use vaio_bench_core::payload::Knobs;

use crate::arrow::stream_from_py;
use crate::errors::to_py;

/// A replica site that listens until `stop`.
#[pyclass(frozen)]
pub struct Site {
    site: Mutex<CoreSite>,
    address: String,
}

#[pymethods]
impl Site {
    /// `key` is `file:PATH` or `env:NAME`; a capacity of 0 is what the disk has.
    #[new]
    #[pyo3(signature = (address, store, key, capacity_bytes=0, segment_bytes=67_108_864))]
    fn new(
        py: Python<'_>,
        address: &str,
        store: &str,
        key: &str,
        capacity_bytes: u64,
        segment_bytes: u64,
    ) -> PyResult<Self> {
        let key = load_key(key)?;
        let start =
            || CoreSite::start(address, Path::new(store), &key, capacity_bytes, segment_bytes);
        let site = py.detach(start).map_err(|e| to_py(&e))?;
        let address = site.address.to_string();
        Ok(Self { site: Mutex::new(site), address })
    }

    /// Where it listens: `127.0.0.1:7100`.
    #[getter]
    fn address(&self) -> &str {
        &self.address
    }

    /// The next line of the log within `timeout_s`, or None.
    fn next_line(&self, py: Python<'_>, timeout_s: f64) -> Option<String> {
        py.detach(|| {
            let site = self.site.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            site.next_line((timeout_s * 1e9) as u64)
        })
    }

    /// Takes no more; JSON: cpu_s, received_bytes, points, journal_bytes.
    fn stop(&self, py: Python<'_>) -> String {
        py.detach(|| {
            let mut site = self.site.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            site.stop().to_string()
        })
    }
}

/// JSON: whose replica a store is, its points, and where its journal is damaged.
#[pyfunction]
fn store_offer(py: Python<'_>, store: &str) -> PyResult<String> {
    let offer = py.detach(|| recovery::offer(Path::new(store))).map_err(|e| to_py(&e))?;
    Ok(serde_json::json!({
        "run": offer.owner.run,
        "disks": offer.owner.disks,
        "stream": offer.owner.stream,
        "epochs": offer.owner.epochs,
        "continuous": offer.owner.continuous,
        "journal_bytes": offer.journal_bytes,
        "damage": offer.damage.as_ref().map(|damage| serde_json::json!({
            "file": damage.segment, "byte": damage.byte, "what": damage.what
        })),
        "points": offer.points().collect::<Vec<_>>(),
        "instants": offer.instants().map(|(from_ns, to_ns)| serde_json::json!({
            "from_ns": from_ns, "to_ns": to_ns
        })),
    })
    .to_string())
}

/// Writes the image of a state: of `point`, of the newest at `at_ns`, or of the newest; JSON.
#[pyfunction]
#[pyo3(signature = (store, out, point=None, at_ns=None))]
fn recover(
    py: Python<'_>,
    store: &str,
    out: &str,
    point: Option<u64>,
    at_ns: Option<u64>,
) -> PyResult<String> {
    let wanted = match (point, at_ns) {
        (Some(id), _) => Wanted::Point(id),
        (None, Some(at_ns)) => Wanted::At(at_ns),
        (None, None) => Wanted::Latest,
    };
    let done = py.detach(|| recovery::recover(Path::new(store), wanted, Path::new(out)));
    let done = done.map_err(|e| to_py(&e))?;
    serde_json::to_string(&done).map_err(|e| to_py(&Error::failed(e.to_string())))
}

fn load_key(source: &str) -> PyResult<Vec<u8>> {
    key::load(source).map_err(|e| to_py(&Error::input(format!("--key: {e}"))))
}

/// Makes a store whose replica is what these images hold, one a disk. The key is looked at first:
/// a site that cannot start leaves nothing behind.
#[pyfunction]
fn adopt_images(py: Python<'_>, store: &str, key: &str, images: Vec<PathBuf>) -> PyResult<()> {
    load_key(key)?;
    py.detach(|| store::adopt(Path::new(store), &images)).map_err(|e| to_py(&e))
}

/// Compares an image with the state that rows tell: `rows` is an Arrow stream of `op` (code),
/// `offset_bytes`, `length_bytes` and `seq`, all int64, in the order of completion; `base` one of
/// the digests (`sector`, `sum`) of what the disk held before. JSON: verified_bytes,
/// unverified_bytes, mismatch. `content` is the file of what the trace's writes wrote, if they
/// were replayed with that.
#[pyfunction]
#[pyo3(signature = (image, rows, disk, seed, compressible, dedupe, base=None,
    content=None))]
#[expect(clippy::too_many_arguments, reason = "what a state depends on")]
fn compare_image(
    py: Python<'_>,
    image: &str,
    rows: &Bound<'_, PyAny>,
    disk: &str,
    seed: u64,
    compressible: f64,
    dedupe: f64,
    base: Option<&Bound<'_, PyAny>>,
    content: Option<&str>,
) -> PyResult<String> {
    let stream = stream_from_py(rows)?;
    let base = base.map(stream_from_py).transpose()?;
    py.detach(|| {
        let knobs = Knobs { compressible, dedupe };
        let mut expected = Expected::new(disk, seed, knobs, content.map(Path::new))?;
        for batch in base.into_iter().flatten() {
            let batch = batch.map_err(|e| Error::failed(e.to_string()))?;
            let (sectors, sums) = (column(&batch, "sector")?, column(&batch, "sum")?);
            for i in 0..batch.num_rows() {
                expected.add_base(sectors.value(i) as u64, sums.value(i).cast_unsigned());
            }
        }
        for batch in stream {
            let batch = batch.map_err(|e| Error::failed(e.to_string()))?;
            let (ops, offsets) = (column(&batch, "op")?, column(&batch, "offset_bytes")?);
            let (lengths, seqs) = (column(&batch, "length_bytes")?, column(&batch, "seq")?);
            for i in 0..batch.num_rows() {
                let op = Op::from_code(ops.value(i) as u8);
                let (offset, length) = (offsets.value(i) as u64, lengths.value(i) as u64);
                expected.add(op, offset, length, seqs.value(i) as u64);
            }
        }
        let compared = expected.compare(Path::new(image))?;
        serde_json::to_string(&compared).map_err(|e| Error::failed(e.to_string()))
    })
    .map_err(|e| to_py(&e))
}

fn column<'a>(batch: &'a RecordBatch, name: &str) -> Result<&'a Int64Array, Error> {
    batch
        .column_by_name(name)
        .and_then(|column| column.as_any().downcast_ref::<Int64Array>())
        .ok_or_else(|| Error::failed(format!("expected int64 values of {name}")))
}

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<Site>()?;
    module.add_function(wrap_pyfunction!(store_offer, module)?)?;
    module.add_function(wrap_pyfunction!(compare_image, module)?)?;
    module.add_function(wrap_pyfunction!(adopt_images, module)?)?;
    module.add_function(wrap_pyfunction!(recover, module)?)
}
