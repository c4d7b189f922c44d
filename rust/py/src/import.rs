//! Bindings of the trace decoders.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use pyo3::prelude::*;
use serde_json::json;
use vaio_bench_core::error::Error;
use vaio_bench_core::formats::background::Background;
use vaio_bench_core::formats::canonical::to_record_batch;
use vaio_bench_core::formats::content;
use vaio_bench_core::formats::order::Ordered;
use vaio_bench_core::formats::{self, EventKind, Options};

use crate::arrow::Batch;
use crate::errors::to_py;

/// Canonical batches out of the files of a trace; they are decoded on a thread of their own.
#[pyclass(frozen)]
pub struct TraceReader {
    format: &'static str,
    bytes_read: Arc<AtomicU64>,
    state: Mutex<State>,
}

struct State {
    background: Background,
    origin_ns: Option<i64>,
}

#[pymethods]
impl TraceReader {
    #[new]
    #[pyo3(signature = (paths, aside, *, format=None, event="queue", columns=None,
        skip_bad=false, sort=false, batch_rows=1 << 20))]
    fn new(
        py: Python<'_>,
        paths: Vec<PathBuf>,
        aside: PathBuf,
        format: Option<&str>,
        event: &str,
        columns: Option<String>,
        skip_bad: bool,
        sort: bool,
        batch_rows: usize,
    ) -> PyResult<Self> {
        let event = match event {
            "queue" => EventKind::Queue,
            "issue" => EventKind::Issue,
            _ => {
                let message = format!("--event: expected queue or issue, got {event:?}");
                return Err(to_py(&Error::input(message)));
            }
        };
        let options = Options { event, columns, skip_bad };
        py.detach(|| {
            let opened = formats::open(&paths, format, &options)?;
            let ordered = Ordered::new(opened.source, &aside, sort);
            let background = Background::start(ordered, batch_rows)?;
            let state = Mutex::new(State { background, origin_ns: None });
            Ok(Self { format: opened.format, bytes_read: opened.bytes_read, state })
        })
        .map_err(|e| to_py(&e))
    }

    /// Name of the format that was recognised or asked for.
    #[getter]
    fn format(&self) -> &'static str {
        self.format
    }

    /// Bytes read from the files so far, as they are stored.
    #[getter]
    fn bytes_read(&self) -> u64 {
        self.bytes_read.load(Ordering::Relaxed)
    }

    /// The next batch in the canonical schema, or `None` at the end.
    fn next_batch(&self, py: Python<'_>) -> PyResult<Option<Batch>> {
        py.detach(|| {
            let mut state = self.state.lock().map_err(|_| Error::failed("the reader is broken"))?;
            let Some(decoded) = state.background.next_batch()? else { return Ok(None) };
            let first_ns = decoded.batch.time_ns.first().copied().unwrap_or(0);
            let origin_ns = *state.origin_ns.get_or_insert(first_ns);
            to_record_batch(decoded.batch, &decoded.disks, origin_ns).map(|b| Some(Batch(b)))
        })
        .map_err(|e: Error| to_py(&e))
    }

    /// After the last batch: a JSON document with `records`, `dropped` (reason to count),
    /// `warnings` and `needs_sort` (the rows are worthless: read again with `sort=True`).
    fn report(&self) -> PyResult<String> {
        let early = || to_py(&Error::failed("the report is there after the last batch"));
        let state = self.state.lock().map_err(|_| early())?;
        let outcome = state.background.outcome().ok_or_else(early)?;
        let report = &outcome.report;
        let dropped: serde_json::Map<String, serde_json::Value> =
            report.dropped.iter().map(|(why, rows)| (why.clone(), json!(rows))).collect();
        let document = json!({
            "records": report.records,
            "dropped": dropped,
            "warnings": report.warnings,
            "needs_sort": outcome.needs_sort,
        });
        Ok(document.to_string())
    }
}

/// Copies what the writes of a `dm-log-writes` log wrote to a file of its own; (rows, bytes).
#[pyfunction]
#[pyo3(signature = (log, to, skip_bad=false))]
fn copy_content(py: Python<'_>, log: PathBuf, to: PathBuf, skip_bad: bool) -> PyResult<(u64, u64)> {
    py.detach(|| content::copy(&log, &to, skip_bad)).map_err(|e| to_py(&e))
}

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(copy_content, module)?)?;
    module.add_class::<TraceReader>()
}
