//! `replay`: the scan before a run, and a round under way.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use vaio_bench_core::backends::uring;
use vaio_bench_core::base_sums;
use vaio_bench_core::error::Error;
use vaio_bench_core::gauges::GaugeSchema;
use vaio_bench_core::record::RowSchema;
use vaio_bench_core::replay::feed::{Feed, Window};
use vaio_bench_core::replay::floor;
use vaio_bench_core::replay::options::Options;
use vaio_bench_core::replay::run::{Output, Run};
use vaio_bench_core::replay::scan::Scan as CoreScan;

use crate::arrow::{Batch, stream_from_py};
use crate::errors::to_py;

fn parse<T: serde::de::DeserializeOwned>(json: &str) -> PyResult<T> {
    serde_json::from_str(json).map_err(|e| to_py(&Error::input(format!("engine options: {e}"))))
}

/// What one look through the window of a trace found.
#[pyclass]
pub struct Scan(Option<CoreScan>);

#[pymethods]
impl Scan {
    /// Reads `reader`, an Arrow stream of the canonical trace `file`; `window` is JSON.
    #[new]
    #[pyo3(signature = (reader, file, window, fit_to_bytes=None))]
    fn new(
        py: Python<'_>,
        reader: &Bound<'_, PyAny>,
        file: &str,
        window: &str,
        fit_to_bytes: Option<u64>,
    ) -> PyResult<Self> {
        let window: Window = parse(window)?;
        let disks = window.disks.len();
        let feed = Feed::new(Box::new(stream_from_py(reader)?), file, window);
        let scan = py.detach(|| CoreScan::run(feed, disks, fit_to_bytes));
        scan.map(|scan| Self(Some(scan))).map_err(|e| to_py(&e))
    }

    /// JSON: the totals and, for each disk, its reach, alignment, prefill and fit map.
    fn to_json(&self) -> PyResult<String> {
        let scan = self.scan()?;
        let disks: Vec<_> = scan
            .disks
            .iter()
            .map(|disk| {
                serde_json::json!({
                    "ios": disk.ios,
                    "reach_bytes": disk.reach_bytes,
                    "length_max_bytes": disk.length_max_bytes,
                    "align_bytes": disk.align_bytes(),
                    "prefill_bytes": disk.prefill.bytes(),
                    "fit_wrapped": disk.fit.as_ref().is_some_and(|fit| fit.wrapped()),
                    "fit_extents": disk.fit.as_ref().map(|fit| fit.order()),
                })
            })
            .collect();
        Ok(serde_json::json!({
            "ios": scan.ios,
            "writes": scan.writes,
            "duration_ns": scan.duration_ns,
            "with_latency": scan.with_latency,
            "contents": scan.contents.len(),
            "disks": disks,
        })
        .to_string())
    }
}

impl Scan {
    fn scan(&self) -> PyResult<&CoreScan> {
        self.0.as_ref().ok_or_else(|| PyRuntimeError::new_err("this scan was given to a round"))
    }
}

/// One round of one policy. Take `next` until it is None, then `finish`.
#[pyclass(frozen)]
pub struct Round {
    run: Mutex<Option<Run>>,
    rows: RowSchema,
    gauges: GaugeSchema,
    settled: String,
}

#[pymethods]
impl Round {
    /// Starts the round; takes the scan over. `options` is JSON.
    #[new]
    fn new(
        py: Python<'_>,
        options: &str,
        scan: &mut Scan,
        reader: &Bound<'_, PyAny>,
        file: &str,
    ) -> PyResult<Self> {
        let options: Options = parse(options)?;
        let rows = RowSchema::new(&options.policy, options.round, &options.window.disks);
        let layers: Vec<_> = options.filters.iter().map(|each| each.word().to_owned()).collect();
        let gauges =
            GaugeSchema::new(&options.policy, options.round, &options.window.disks, &layers);
        let feed = Feed::new(Box::new(stream_from_py(reader)?), file, options.window.clone());
        scan.scan()?;
        let Some(scan) = scan.0.take() else {
            return Err(PyRuntimeError::new_err("this scan was given to a round"));
        };
        // It may wait for a server at the other end.
        let started = py.detach(|| Run::start(options, scan, feed));
        let (run, settled) = started.map_err(|e| to_py(&e))?;
        let settled =
            serde_json::to_string(&settled).map_err(|e| PyRuntimeError::new_err(e.to_string()))?;
        Ok(Self { run: Mutex::new(Some(run)), rows, gauges, settled })
    }

    /// JSON: what the engine settled on.
    #[getter]
    fn settled(&self) -> &str {
        &self.settled
    }

    /// The next output within `timeout_s`: `("rows", Batch)`, `("gauges", Batch)`,
    /// `("base", Batch)` (digests of what the disks held), `("events", json)`, `("none", None)`
    /// when nothing came, `("end", None)` at the end.
    fn next<'py>(
        &self,
        py: Python<'py>,
        timeout_s: f64,
    ) -> PyResult<(&'static str, Option<Bound<'py, PyAny>>)> {
        let timeout = Duration::from_secs_f64(timeout_s);
        let output = py.detach(|| {
            let guard = self.run.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            let Some(run) = guard.as_ref() else { return Ok(Some(Taken::End)) };
            match run.next_output(timeout) {
                None => Ok(None),
                Some(None) => Ok(Some(Taken::End)),
                Some(Some(Output::Rows(chunk))) => {
                    self.rows.batch(&chunk).map(|batch| Some(Taken::Rows(batch)))
                }
                Some(Some(Output::Gauges(readings))) => {
                    self.gauges.batch(&readings).map(|batch| Some(Taken::Gauges(batch)))
                }
                Some(Some(Output::Base(sums))) => {
                    base_sums::batch(&sums).map(|batch| Some(Taken::Base(batch)))
                }
                Some(Some(Output::Events(events))) => {
                    let events: Vec<_> = events
                        .iter()
                        .map(|event| {
                            serde_json::json!({
                                "time_ns": event.at_ns, "disk": event.disk, "layer": event.layer,
                                "kind": event.kind, "detail": event.detail,
                            })
                        })
                        .collect();
                    Ok(Some(Taken::Events(serde_json::Value::from(events).to_string())))
                }
            }
        });
        Ok(match output.map_err(|e: Error| to_py(&e))? {
            None => ("none", None),
            Some(Taken::End) => ("end", None),
            Some(Taken::Rows(batch)) => ("rows", Some(Bound::new(py, Batch(batch))?.into_any())),
            Some(Taken::Gauges(batch)) => {
                ("gauges", Some(Bound::new(py, Batch(batch))?.into_any()))
            }
            Some(Taken::Base(batch)) => ("base", Some(Bound::new(py, Batch(batch))?.into_any())),
            Some(Taken::Events(json)) => ("events", Some(json.into_pyobject(py)?.into_any())),
        })
    }

    /// `(rows, bytes, prefill bytes)` so far.
    fn progress(&self) -> (u64, u64, u64) {
        let guard = self.run.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        guard.as_ref().map_or((0, 0, 0), Run::progress)
    }

    /// Issues nothing more; what is in flight may complete.
    fn stop(&self) {
        let guard = self.run.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(run) = guard.as_ref() {
            run.stop();
        }
    }

    /// JSON: the counts. Call once, after `next` gave the end.
    fn finish(&self, py: Python<'_>) -> PyResult<String> {
        let run = self.run.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
        let Some(run) = run else {
            return Err(PyRuntimeError::new_err("this round is finished"));
        };
        let totals = py.detach(|| run.finish()).map_err(|e| to_py(&e))?;
        serde_json::to_string(&totals).map_err(|e| PyRuntimeError::new_err(e.to_string()))
    }
}

enum Taken {
    Rows(arrow_array::RecordBatch),
    Gauges(arrow_array::RecordBatch),
    Base(arrow_array::RecordBatch),
    Events(String),
    End,
}

/// None where io_uring can be used, the kernel's reason where it cannot.
#[pyfunction]
fn uring_refused() -> Option<String> {
    uring::probe().err().map(|e| e.to_string())
}

/// Worker nanoseconds that an I/O costs in this harness, measured now.
#[pyfunction]
#[pyo3(signature = (ios=500_000, rounds=3))]
fn harness_floor(py: Python<'_>, ios: u64, rounds: u32) -> PyResult<HashMap<&'static str, f64>> {
    let floor = py.detach(|| floor::measure(ios, rounds)).map_err(|e| to_py(&e))?;
    Ok(HashMap::from([
        ("null_ns_per_io", floor.null_ns_per_io),
        ("pass_ns_per_io", floor.pass_ns_per_io),
        ("clock_ns", floor.clock_ns),
    ]))
}

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<Scan>()?;
    module.add_class::<Round>()?;
    module.add_function(wrap_pyfunction!(uring_refused, module)?)?;
    module.add_function(wrap_pyfunction!(harness_floor, module)?)
}
