//! The one catalogue: every kind the engine knows, and the check of a filter's parameters.

use pyo3::prelude::*;
use serde_json::{Value, json};
use vaio_bench_core::backends::BACKENDS;
use vaio_bench_core::filters::{self, DataMode, Kind, Setting};

/// JSON: a list of `{kind, name, class, page, schema, properties}`.
#[pyfunction]
fn catalogue() -> String {
    let mut kinds: Vec<Value> = filters::FILTERS.iter().map(filter).collect();
    kinds.extend(BACKENDS.iter().map(|(name, page)| {
        json!({"kind": "backend", "name": name, "class": null, "page": page,
               "schema": null, "properties": null})
    }));
    Value::from(kinds).to_string()
}

fn filter(kind: &Kind) -> Value {
    json!({"kind": "filter", "name": kind.name, "class": kind.class, "page": kind.page,
           "schema": (kind.schema)(), "properties": null})
}

/// `[(key path, what was expected)]`; empty when the parameters (JSON) are right.
#[pyfunction]
fn check_filter(name: &str, params: &str) -> Vec<(String, String)> {
    let Some(kind) = filters::find(name) else {
        let known: Vec<&str> = filters::FILTERS.iter().map(|kind| kind.name).collect();
        let message = format!("expected one of {}, got \"{name}\"", known.join(", "));
        return vec![("use".to_owned(), message)];
    };
    let params = match serde_json::from_str(params) {
        Ok(params) => params,
        Err(error) => return vec![(String::new(), format!("not JSON: {error}"))],
    };
    let setting = Setting { disk: String::new(), disk_index: 0, seed: 0, data: DataMode::Bytes };
    match (kind.build)(&params, &setting) {
        Ok(_) => Vec::new(),
        Err(errors) => errors.into_iter().map(|e| (e.path, e.message)).collect(),
    }
}

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(catalogue, module)?)?;
    module.add_function(wrap_pyfunction!(check_filter, module)?)
}
