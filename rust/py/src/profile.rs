//! `info`: the workload profile.

use arrow_array::RecordBatchReader;
use pyo3::prelude::*;
use vaio_bench_core::error::{Error, Result};
use vaio_bench_core::profile::Profile;
use vaio_bench_core::trace::TraceSource;
use vaio_bench_core::trace_arrow::ArrowTrace;

use crate::arrow::stream_from_py;
use crate::errors::to_py;

/// The profile of a trace as a JSON document.
///
/// `reader` has `__arrow_c_stream__` and gives canonical batches; `file` is named in errors;
/// `progress`, if given, is called with the rows done after every batch.
#[pyfunction]
#[pyo3(signature = (reader, file, block_bytes, progress=None))]
pub fn profile_trace(
    py: Python<'_>,
    reader: &Bound<'_, PyAny>,
    file: String,
    block_bytes: u64,
    progress: Option<Py<PyAny>>,
) -> PyResult<String> {
    let stream = stream_from_py(reader)?;
    let after_batch = |rows: u64| {
        Python::attach(|py| {
            py.check_signals()?;
            progress.as_ref().map_or(Ok(()), |p| p.call1(py, (rows,)).map(drop))
        })
    };
    py.detach(|| {
        let mut trace = ArrowTrace::new(stream, &file);
        let mut profile = Profile::new(block_bytes).map_err(|e| to_py(&e))?;
        let mut rows = 0;
        while let Some(added) = add_next(&mut trace, &mut profile, &file).map_err(|e| to_py(&e))? {
            rows += added;
            after_batch(rows)?;
        }
        serde_json::to_string(&profile.report(trace.disks()))
            .map_err(|e| to_py(&Error::failed(e.to_string())))
    })
}

fn add_next<R: RecordBatchReader + Send>(
    trace: &mut ArrowTrace<R>,
    profile: &mut Profile,
    file: &str,
) -> Result<Option<u64>> {
    let Some(batch) = trace.next_as_stored()? else { return Ok(None) };
    profile.add(&batch).map_err(|mut e| {
        e.context.insert(0, ("file", file.to_owned()));
        e
    })?;
    Ok(Some(batch.len() as u64))
}
