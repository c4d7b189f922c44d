//! `rpo`: the planner.

use arrow_array::RecordBatchReader;
use pyo3::prelude::*;
use vaio_bench_core::error::{Error, Result};
use vaio_bench_core::planner::loads::Loads;
use vaio_bench_core::planner::workload::Workload;
use vaio_bench_core::planner::{PlanOptions, plan};
use vaio_bench_core::trace::TraceSource;
use vaio_bench_core::trace_arrow::ArrowTrace;

use crate::arrow::stream_from_py;
use crate::errors::to_py;

/// The plan for a trace as a JSON document.
///
/// `reader` has `__arrow_c_stream__` and gives canonical batches; `file` is named in errors;
/// `options` is `PlanOptions` as JSON; `rows` are expected; `progress`, if given, is called with
/// the rows read.
#[pyfunction]
#[pyo3(signature = (reader, file, granularity_bytes, options, rows=0, progress=None))]
pub fn plan_rpo(
    py: Python<'_>,
    reader: &Bound<'_, PyAny>,
    file: String,
    granularity_bytes: u64,
    options: &str,
    rows: u64,
    progress: Option<Py<PyAny>>,
) -> PyResult<String> {
    let options = PlanOptions::read(options).map_err(|e| to_py(&e))?;
    options.check().map_err(|e| to_py(&e))?;
    let stream = stream_from_py(reader)?;
    let after_batch = |rows: u64| {
        Python::attach(|py| {
            py.check_signals()?;
            progress.as_ref().map_or(Ok(()), |p| p.call1(py, (rows,)).map(drop))
        })
    };
    py.detach(|| {
        let mut trace = ArrowTrace::new(stream, &file);
        let mut workload = Workload::new(granularity_bytes, true).map_err(|e| to_py(&e))?;
        workload.expect(rows);
        workload.loads = Loads::new(options.rate_window_ns);
        while add_next(&mut trace, &mut workload, &file).map_err(|e| to_py(&e))? {
            after_batch(workload.ios)?;
        }
        workload.finish();
        let report = plan(&workload, &options, trace.disks()).map_err(|e| to_py(&e))?;
        serde_json::to_string(&report).map_err(|e| to_py(&Error::failed(e.to_string())))
    })
}

/// A batch whose columns the allocator keeps: larger ones are fresh memory each time.
const BATCH_ROWS: usize = 1 << 13;

fn add_next<R: RecordBatchReader + Send>(
    trace: &mut ArrowTrace<R>,
    workload: &mut Workload,
    file: &str,
) -> Result<bool> {
    let Some(batch) = trace.next_batch(BATCH_ROWS)? else { return Ok(false) };
    workload.add(&batch).map_err(|mut e| {
        e.context.insert(0, ("file", file.to_owned()));
        e
    })?;
    Ok(true)
}
