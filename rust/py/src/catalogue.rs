//! The engine's list of kinds, and the check of a filter's parameters.

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use vaio_bench_core::backends::nbd;
use vaio_bench_core::catalogue as core;

/// JSON: `[{kind, name, class, page, schema, properties}]`.
#[pyfunction]
pub fn catalogue() -> PyResult<String> {
    serde_json::to_string(&core::entries()).map_err(|e| PyValueError::new_err(e.to_string()))
}

/// As `check_filter`, for a filter that is an NBD server: `use` is its URI.
#[pyfunction]
#[pyo3(signature = (uri, params_json))]
pub fn check_server(uri: &str, params_json: &str) -> PyResult<Vec<(String, String)>> {
    let params =
        serde_json::from_str(params_json).map_err(|e| PyValueError::new_err(e.to_string()))?;
    let faults = nbd::check(uri, &params);
    Ok(faults.into_iter().map(|fault| (fault.path, fault.message)).collect())
}

/// Whether a policy's `use` means an NBD server.
#[pyfunction]
pub fn is_server(r#use: &str) -> bool {
    nbd::Uri::is_meant(r#use)
}

/// `[(key path, message)]`, one for each fault of the parameters (a JSON object).
#[pyfunction]
#[pyo3(signature = (r#use, params_json))]
pub fn check_filter(r#use: &str, params_json: &str) -> PyResult<Vec<(String, String)>> {
    let params =
        serde_json::from_str(params_json).map_err(|e| PyValueError::new_err(e.to_string()))?;
    let faults = core::check_filter(r#use, &params);
    Ok(faults.into_iter().map(|fault| (fault.path, fault.message)).collect())
}
