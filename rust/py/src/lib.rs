//! `vaio_bench._core`: bindings only, one file a verb. No logic.

use pyo3::prelude::*;

mod arrow;
mod errors;
mod import;

#[pymodule]
fn _core(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("DEBUG_BUILD", cfg!(debug_assertions))?;
    module.add("VERSION", env!("CARGO_PKG_VERSION"))?;
    import::register(module)?;
    Ok(())
}
