//! `vaio_bench._core`: bindings only, one file a verb. No logic.

use pyo3::prelude::*;

mod arrow;
mod catalogue;
mod errors;
mod foreign;
mod import;
mod laws;
mod lent;
mod planner;
mod profile;
mod python_filter;
mod replay;
mod simulate;
mod site;

#[pymodule]
fn _core(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("DEBUG_BUILD", cfg!(debug_assertions))?;
    module.add("VERSION", env!("CARGO_PKG_VERSION"))?;
    module.add_function(wrap_pyfunction!(catalogue::catalogue, module)?)?;
    module.add_function(wrap_pyfunction!(catalogue::check_filter, module)?)?;
    module.add_function(wrap_pyfunction!(catalogue::check_server, module)?)?;
    module.add_function(wrap_pyfunction!(catalogue::is_server, module)?)?;
    foreign::register(module)?;
    // A filter in Python may be placed in another process: the interpreter has to know of it.
    vaio_bench_core::hop::process::set_fork(foreign::fork);
    python_filter::register(module)?;
    module.add_function(wrap_pyfunction!(laws::certify, module)?)?;
    module.add_function(wrap_pyfunction!(laws::filter_laws, module)?)?;
    import::register(module)?;
    module.add_function(wrap_pyfunction!(profile::profile_trace, module)?)?;
    module.add_function(wrap_pyfunction!(planner::plan_rpo, module)?)?;
    module.add_class::<simulate::CacheTrace>()?;
    replay::register(module)?;
    site::register(module)
}
