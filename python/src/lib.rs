//! The part of the Python package `lnp` that is Rust: it calls the tools' crates, and hands out what they find as plain
//! values. Arrays are not among them: it says where in a file they lie, and `lnp/__init__.py` maps them.
//!
//! Reading order: `law`; `places`, where arrays lie in traces, links files and packs; `work`, what takes time.

mod law;
mod places;
mod work;

use anyhow::Error as AnyError;
use lnp_common::report::plain;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

pyo3::create_exception!(
    lnp,
    Error,
    PyValueError,
    "What `lnp` says in one line: bad input, or a file that is not there."
);

/// The line that the command line would print.
fn told(error: AnyError) -> PyErr {
    Error::new_err(plain(&format!("{error:#}")))
}

/// The module `lnp._lnp`.
#[pymodule]
mod _lnp {
    use super::{Bound, Error, PyModule, PyModuleMethods, PyResult};

    #[pymodule_export]
    use super::law::DeviceLaw;
    #[pymodule_export]
    use super::places::{links_places, pack_places, trace_places};
    #[pymodule_export]
    use super::work::{link, replay, verify, write_trace};

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        module.add("Error", module.py().get_type::<Error>())?;
        module.add("__version__", env!("CARGO_PKG_VERSION"))
    }
}
