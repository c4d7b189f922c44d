//! The one mapping from the engine's errors to Python's.

use pyo3::exceptions::PyKeyboardInterrupt;
use pyo3::prelude::*;
use vaio_bench_core::error::{Error, ErrorKind};

/// `vaio_bench.errors.InputError`, `WorkError`, `FilterHungError`, `ServerLostError`,
/// `ServerSilentError` or `KeyboardInterrupt`, with the one-line message.
pub fn to_py(error: &Error) -> PyErr {
    let class = match error.kind {
        ErrorKind::Input => "InputError",
        ErrorKind::Failed => "WorkError",
        ErrorKind::Hung => "FilterHungError",
        ErrorKind::ServerLost => "ServerLostError",
        ErrorKind::ServerSilent => "ServerSilentError",
        ErrorKind::Interrupted => return PyKeyboardInterrupt::new_err(error.to_string()),
    };
    Python::attach(|py| {
        match py
            .import("vaio_bench.errors")
            .and_then(|m| m.getattr(class))
            .and_then(|c| c.call1((error.to_string(),)))
        {
            Ok(instance) => PyErr::from_value(instance),
            Err(failure) => failure,
        }
    })
}
