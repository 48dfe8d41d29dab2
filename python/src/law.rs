//! The law of a device.

use std::path::PathBuf;

use anyhow::anyhow;
use lnp_device::{CombineName, LawText};
use lnp_engine::{Combine, DeviceLaw as Law};
use lnp_measure::profile::DeviceProfile;
use pyo3::prelude::*;

use crate::told;

/// What a batch of reads costs on a device: t = t0 + combine(a * reads, bytes / B).
#[pyclass(frozen, eq, module = "lnp", from_py_object)]
#[derive(Clone, Copy, PartialEq)]
pub(crate) struct DeviceLaw {
    law: Law,
    /// As people write it.
    text: LawText,
}

impl DeviceLaw {
    fn of_text(text: LawText) -> PyResult<Self> {
        Ok(Self { law: text.law().map_err(told)?, text })
    }

    /// The engine's form.
    pub(crate) const fn law(&self) -> Law {
        self.law
    }

    /// The law that plans are made by where no device is given.
    pub(crate) fn usual() -> PyResult<Self> {
        Self::of_text(LawText::ONEPLUS_12)
    }
}

#[pymethods]
impl DeviceLaw {
    /// A law: microseconds a read, MiB/s, how they combine ("sum" or "max"), microseconds a batch.
    #[new]
    #[pyo3(signature = (a_us, b_mib_s, combine="sum", t0_us=0.0))]
    fn new(a_us: f64, b_mib_s: f64, combine: &str, t0_us: f64) -> PyResult<Self> {
        let combine = match Combine::from_name(combine) {
            Some(Combine::Sum) => CombineName::Sum,
            Some(Combine::Max) => CombineName::Max,
            None => return Err(told(anyhow!("combine={combine} in a law: must be sum or max"))),
        };
        Self::of_text(LawText { t0_us, a_us, b_mib_s, combine })
    }

    /// The law as options have it: "a_us=9.64,b_mib_s=2034,combine=sum".
    #[staticmethod]
    fn parse(text: &str) -> PyResult<Self> {
        Self::of_text(text.parse().map_err(told)?)
    }

    /// The law of a device profile, as `lnp probe` writes it.
    #[staticmethod]
    fn read(path: PathBuf) -> PyResult<Self> {
        Self::of_text(DeviceProfile::read(&path).map_err(told)?.law)
    }

    /// A OnePlus 12 with UFS 4.0, fitted to published times: what is planned for where nothing else is said.
    #[staticmethod]
    fn oneplus_12() -> PyResult<Self> {
        Self::usual()
    }

    /// Microseconds that draining the queue at the end of a batch costs.
    #[getter]
    fn t0_us(&self) -> f64 {
        self.law.t0_us()
    }

    /// Microseconds a read.
    #[getter]
    fn a_us(&self) -> f64 {
        self.law.a_us()
    }

    /// Bandwidth of long reads, MiB/s.
    #[getter]
    fn b_mib_s(&self) -> f64 {
        self.law.b_mib_s()
    }

    /// "sum" or "max".
    #[getter]
    fn combine(&self) -> &'static str {
        self.law.combine().name()
    }

    /// Holes between reads that are smaller are worth reading through: a * B, bytes.
    #[getter]
    fn gap_bytes(&self) -> u64 {
        self.law.gap_bytes()
    }

    /// Microseconds that a batch of reads takes; 0 for an empty one.
    fn time_us(&self, reads: u64, bytes: u64) -> f64 {
        self.law.time_us(reads, bytes)
    }

    /// Microseconds that so many bytes take at full bandwidth: the bound for any plan.
    fn transfer_us(&self, bytes: u64) -> f64 {
        self.law.transfer_us(bytes)
    }

    fn __str__(&self) -> String {
        self.text.to_string()
    }

    fn __repr__(&self) -> String {
        format!("DeviceLaw.parse('{}')", self.text)
    }

    fn __hash__(&self) -> u64 {
        let numbers = [self.law.t0_us(), self.law.a_us(), self.law.b_mib_s()];
        let bits = numbers.map(|number| (number + 0.0).to_bits());
        bits[0].rotate_left(2) ^ bits[1].rotate_left(1) ^ bits[2]
    }
}
