//! Filters of other makes: what one says of itself, and the record of what it is doing.

use std::path::PathBuf;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use vaio_bench_core::filters::foreign::About;
use vaio_bench_core::filters::{ParamError, dylib};
use vaio_bench_core::io::Op;
use vaio_bench_core::{black_box, catalogue};

use crate::errors::to_py;

/// JSON: `{"about": {name, class, page, properties}}`, or `{"faults": [[key path, message]]}`.
#[pyfunction]
#[pyo3(signature = (r#use, params_json))]
pub fn describe_filter(r#use: &str, params_json: &str) -> PyResult<String> {
    let params =
        serde_json::from_str(params_json).map_err(|e| PyValueError::new_err(e.to_string()))?;
    Ok(told(catalogue::describe_filter(r#use, &params)))
}

/// As `describe_filter`: what a library says of its filter, whatever its parameters.
#[pyfunction]
pub fn describe_library(path: &str) -> String {
    told(dylib::about(path))
}

fn told(about: Result<About, Vec<ParamError>>) -> String {
    let told = match about {
        Ok(about) => serde_json::json!({ "about": about }),
        Err(faults) => {
            let faults: Vec<_> = faults.into_iter().map(|f| (f.path, f.message)).collect();
            serde_json::json!({ "faults": faults })
        }
    };
    told.to_string()
}

/// From now on, what foreign filters of this process are doing is told in `file`.
#[pyfunction]
pub fn open_black_box(file: PathBuf) -> PyResult<()> {
    black_box::open(&file).map_err(|e| to_py(&e))
}

/// Forks this process as `os.fork` does: 0 in the child, -1 where it cannot be done.
pub fn fork() -> i32 {
    Python::attach(|py| {
        let forked = py.import("os").and_then(|os| os.call_method0("fork"));
        let pid = forked.and_then(|pid| pid.extract::<i32>()).unwrap_or(-1);
        if pid == 0 {
            // The child's interpreter knows no thread but this one; if it forgot this one too, it
            // would make up its first again and break on that (CPython 3.11).
            // SAFETY: called with the interpreter held; never released, as the child ends by _exit.
            unsafe { pyo3::ffi::PyGILState_Ensure() };
        }
        pid
    })
}

/// `(callbacks, operations)`, in the order of their numbers in the file.
#[pyfunction]
pub fn black_box_words() -> (Vec<&'static str>, Vec<&'static str>) {
    (black_box::CALLBACKS.to_vec(), Op::NAMES.to_vec())
}

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(describe_filter, module)?)?;
    module.add_function(wrap_pyfunction!(describe_library, module)?)?;
    module.add_function(wrap_pyfunction!(open_black_box, module)?)?;
    module.add_function(wrap_pyfunction!(black_box_words, module)?)
}
