//! `cache`: the simulator.

use pyo3::prelude::*;
use serde::Serialize;
use vaio_bench_core::error::{Error, ErrorKind, Result};
use vaio_bench_core::simulate::trace::{Batches, Job, ShardsPlan};
use vaio_bench_core::simulate::{Setting, SimulatedTrace};
use vaio_bench_core::trace_arrow::ArrowTrace;

use crate::arrow::stream_from_py;
use crate::errors::to_py;

/// A canonical trace as block requests, read once; documents go in and out as JSON.
///
/// `open` is called without arguments, also again when the trace is too long to be kept, and
/// returns what has `__arrow_c_stream__`; `file` is named in errors; `setting` is `Setting`.
/// `progress`, if given, is called with a number of rows here, of requests elsewhere.
#[pyclass]
pub struct CacheTrace {
    trace: SimulatedTrace,
}

#[pymethods]
impl CacheTrace {
    #[new]
    #[pyo3(signature = (open, file, setting, progress=None))]
    fn new(
        py: Python<'_>,
        open: Py<PyAny>,
        file: String,
        setting: &str,
        progress: Option<Py<PyAny>>,
    ) -> PyResult<Self> {
        let setting: Setting = parse(setting)?;
        let mut raised = None;
        let named = file.clone();
        let open_again = Box::new(move || open_trace(&open, &named));
        let read = py.detach(|| {
            SimulatedTrace::read(setting, open_again, &mut |rows| {
                tell(progress.as_ref(), rows, &mut raised)
            })
        });
        let read = read.map_err(|mut e| {
            if e.kind == ErrorKind::Input && e.context.first().is_some_and(|(key, _)| *key == "row")
            {
                e.context.insert(0, ("file", file));
            }
            e
        });
        Ok(Self { trace: answer(read, raised)? })
    }

    /// `Summary`.
    fn summary(&self) -> PyResult<String> {
        to_json(&self.trace.summary)
    }

    /// `jobs`: `[{policy, stream, capacity}]`; a `CacheReport` for each.
    #[pyo3(signature = (jobs, seed, progress=None))]
    fn simulate(
        &mut self,
        py: Python<'_>,
        jobs: &str,
        seed: u64,
        progress: Option<Py<PyAny>>,
    ) -> PyResult<String> {
        let jobs: Vec<Job> = parse(jobs)?;
        told(py, progress, |tell| self.trace.simulate(&jobs, seed, tell))
    }

    /// The same on a sample of the blocks.
    #[pyo3(signature = (jobs, seed, rate, salt, progress=None))]
    fn simulate_sample(
        &mut self,
        py: Python<'_>,
        jobs: &str,
        seed: u64,
        rate: f64,
        salt: u64,
        progress: Option<Py<PyAny>>,
    ) -> PyResult<String> {
        let jobs: Vec<Job> = parse(jobs)?;
        told(py, progress, |tell| self.trace.simulate_sample(&jobs, seed, rate, salt, tell))
    }

    /// Of content-based caches: a `ContentReport` for each job; what `open` gives has `content`.
    #[pyo3(signature = (jobs, seed, progress=None))]
    fn simulate_contents(
        &mut self,
        py: Python<'_>,
        jobs: &str,
        seed: u64,
        progress: Option<Py<PyAny>>,
    ) -> PyResult<String> {
        let jobs: Vec<Job> = parse(jobs)?;
        told(py, progress, |tell| self.trace.simulate_contents(&jobs, seed, tell))
    }

    /// `LruCurve` for caches of these numbers of blocks, in order; `plan` is `ShardsPlan`.
    #[pyo3(signature = (capacities, plan, progress=None))]
    fn lru_curve(
        &mut self,
        py: Python<'_>,
        capacities: Vec<u64>,
        plan: &str,
        progress: Option<Py<PyAny>>,
    ) -> PyResult<String> {
        let plan: ShardsPlan = parse(plan)?;
        told(py, progress, |tell| self.trace.lru_curve(&capacities, &plan, tell))
    }
}

fn open_trace(open: &Py<PyAny>, file: &str) -> Result<Batches> {
    let stream = Python::attach(|py| {
        let reader = open.call0(py)?;
        stream_from_py(reader.bind(py))
    })
    .map_err(|e| Error::input(e.to_string()).with("file", file))?;
    let mut trace = ArrowTrace::new(stream, file);
    Ok(Box::new(move || trace.next_as_stored()))
}

/// The document of some work, during which Python is told how far it is.
fn told<T: Serialize + Send>(
    py: Python<'_>,
    progress: Option<Py<PyAny>>,
    work: impl FnOnce(&mut dyn FnMut(u64) -> Result<()>) -> Result<T> + Send,
) -> PyResult<String> {
    let mut raised = None;
    let found = py.detach(|| work(&mut |done| tell(progress.as_ref(), done, &mut raised)));
    to_json(&answer(found, raised)?)
}

/// Calls back; what Python raises is kept for [`answer`].
fn tell(progress: Option<&Py<PyAny>>, done: u64, raised: &mut Option<PyErr>) -> Result<()> {
    Python::attach(|py| {
        py.check_signals()?;
        progress.map_or(Ok(()), |progress| progress.call1(py, (done,)).map(drop))
    })
    .map_err(|e| {
        *raised = Some(e);
        Error::new(ErrorKind::Interrupted, "interrupted")
    })
}

fn answer<T>(found: Result<T>, raised: Option<PyErr>) -> PyResult<T> {
    match (found, raised) {
        (Err(_), Some(raised)) => Err(raised),
        (found, _) => found.map_err(|e| to_py(&e)),
    }
}

fn parse<'a, T: serde::Deserialize<'a>>(json: &'a str) -> PyResult<T> {
    serde_json::from_str(json).map_err(|e| to_py(&Error::input(e.to_string())))
}

fn to_json<T: Serialize>(document: &T) -> PyResult<String> {
    serde_json::to_string(document).map_err(|e| to_py(&Error::failed(e.to_string())))
}
