//! The machine that a number was measured on.

use serde::{Deserialize, Serialize};

/// What a reader needs to know to compare.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// CPU model, as the kernel names it.
    pub cpu: String,
    /// CPUs that this process may use.
    pub cores: usize,
    /// Memory, bytes.
    pub memory_bytes: u64,
    /// Kernel release.
    pub kernel: String,
    /// Architecture.
    pub arch: String,
    /// Tier of the kernels that this CPU gets.
    pub kernel_tier: String,
}

impl Machine {
    /// This machine.
    pub fn here() -> Self {
        let cpu = read("/proc/cpuinfo");
        let shape = lnp_kernels::KernelShape {
            hidden: 32,
            parts: 2,
            dtype: lnp_kernels::Dtype::F32,
            activation: lnp_kernels::Activation::Relu,
        };
        let kernel = lnp_kernels::Kernel::new(shape, lnp_engine::sys::cpu::detect());
        Self {
            cpu: field(&cpu, "model name").or(field(&cpu, "CPU part")).unwrap_or("unknown").into(),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            memory_bytes: kilobytes(&read("/proc/meminfo"), "MemTotal"),
            kernel: read("/proc/sys/kernel/osrelease").trim().into(),
            arch: std::env::consts::ARCH.into(),
            kernel_tier: kernel.map_or("portable", |kernel| kernel.tier().name()).into(),
        }
    }
}

/// Memory that this process holds, bytes; 0 where the kernel does not say.
pub fn memory_bytes() -> u64 {
    kilobytes(&read("/proc/self/status"), "VmRSS")
}

/// Most memory that this process has held at once, bytes; 0 where the kernel does not say.
pub fn peak_memory_bytes() -> u64 {
    kilobytes(&read("/proc/self/status"), "VmHWM")
}

fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

/// The value of `key: value` in a file of the kernel's.
fn field<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    text.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        (name.trim() == key).then_some(value.trim())
    })
}

fn kilobytes(text: &str, key: &str) -> u64 {
    field(text, key)
        .and_then(|value| value.split(' ').next())
        .and_then(|value| value.parse::<u64>().ok())
        .map_or(0, |kilobytes| kilobytes * 1024)
}
