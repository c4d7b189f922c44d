//! `certify`: the laws that a filter, or an NBD server, keeps or breaks.

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use serde_json::Value;
use vaio_bench_core::backends::nbd::Uri;
use vaio_bench_core::error::{Error, Result};
use vaio_bench_core::filters::{Filter, Properties, foreign};
use vaio_bench_core::hop::Where;
use vaio_bench_core::laws;

use crate::errors::to_py;

/// Every law of filters: `(name, what it says)`.
#[pyfunction]
pub fn filter_laws() -> Vec<(&'static str, &'static str)> {
    laws::names()
}

/// JSON: `[{law, says, outcome, detail}]` of a filter by name or a server by URI. `placement` is
/// where the filter runs: "inline", "thread" or "process"; `law` is the only one that is tested.
#[pyfunction]
#[pyo3(signature = (r#use, params_json, seed, placement="inline", law=None))]
pub fn certify(
    py: Python<'_>,
    r#use: &str,
    params_json: &str,
    seed: u64,
    placement: &str,
    law: Option<&str>,
) -> PyResult<String> {
    let fault = |e: serde_json::Error| PyValueError::new_err(e.to_string());
    let params: Value = serde_json::from_str(params_json).map_err(fault)?;
    let placed: Option<Where> = match placement {
        "inline" => None,
        other => Some(serde_json::from_value(other.into()).map_err(fault)?),
    };
    let findings = py.detach(|| {
        if Uri::is_meant(r#use) {
            return laws::certify_server(r#use, &params, seed);
        }
        let setting = laws::setting(seed);
        let build = || -> Result<(Box<dyn Filter>, Properties)> {
            foreign::build(r#use, &params, &setting).map_err(|faults| {
                let told: Vec<_> =
                    faults.iter().map(|f| format!("{}: {}", f.path, f.message)).collect();
                Error::input(told.join("; "))
            })
        };
        build()?;
        Ok(laws::certify(&build, seed, placed, law))
    });
    let findings = findings.map_err(|e| to_py(&e))?;
    serde_json::to_string(&findings).map_err(|e| PyValueError::new_err(e.to_string()))
}
