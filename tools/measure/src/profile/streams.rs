//! What streams of reads did, and which streams there are.

use serde::{Deserialize, Serialize};

/// Where a stream's reads lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Pattern {
    /// Anywhere in the range, each by chance.
    Random,
    /// One after the other from a random place, from the front again at the range's end.
    Sequential,
}

impl Pattern {
    /// Its name in files and tables.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Random => "random",
            Self::Sequential => "sequential",
        }
    }
}

/// How a stream's reads reach the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum StreamBackEnd {
    /// io_uring.
    #[serde(rename = "io_uring")]
    Uring,
    /// One pread after the other.
    #[serde(rename = "pread")]
    Pread,
}

impl StreamBackEnd {
    /// Its name in files and tables.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Uring => "io_uring",
            Self::Pread => "pread",
        }
    }
}

/// One point of the matrix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamKind {
    /// Where the reads lie.
    pub pattern: Pattern,
    /// Bytes of each read.
    pub read_bytes: u32,
    /// Reads in flight.
    pub depth: u32,
    /// They lie in the first so many bytes.
    pub range_bytes: u64,
    /// How they reach the device.
    pub back_end: StreamBackEnd,
}

impl StreamKind {
    /// Bytes in flight.
    pub const fn bytes_in_flight(&self) -> u64 {
        self.read_bytes as u64 * self.depth as u64
    }
}

/// What a stream of one kind did, over its turns.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Stream {
    /// What was read, and how.
    #[serde(flatten)]
    pub kind: StreamKind,
    /// Turns.
    pub turns: usize,
    /// Reads in them.
    pub reads: u64,
    /// Reads a second: median of the turns.
    pub reads_per_s: f64,
    /// The slowest turn.
    pub reads_per_s_least: f64,
    /// The fastest turn.
    pub reads_per_s_most: f64,
    /// MiB a second: median of the turns.
    pub mib_s: f64,
    /// Median latency, microseconds.
    pub latency_us_p50: f64,
    /// 99th percentile; absent where fewer than ten reads lie beyond it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latency_us_p99: Option<f64>,
    /// 99.9th percentile; absent where fewer than ten reads lie beyond it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latency_us_p999: Option<f64>,
    /// CPU time of the reading thread a read, microseconds.
    pub cpu_us_per_read: f64,
    /// Bytes that the device read by the kernel's count, over those asked for; absent where it does
    /// not count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_share: Option<f64>,
}
