//! The profile of a device: its law, and all that was measured on the way to it.

mod curve;
mod streams;

use std::path::Path;

use anyhow::{Context, Result, anyhow, ensure};
use lnp_common::files::{read_stream, write_text};
use lnp_device::{LawText, Machine};
use lnp_engine::law::Curve;
use serde::{Deserialize, Serialize};

pub use curve::DepthCurve;
pub use streams::{Pattern, Stream, StreamBackEnd, StreamKind};

/// Longest device profile, bytes.
const PROFILE_BYTES_MAX: u64 = 1 << 24;

/// How well a law fits what was measured.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Fit {
    /// Median of |predicted / measured - 1| over the points.
    pub error_median: f64,
    /// 90th percentile of the same.
    pub error_p90: f64,
    /// Median error of the best law that combines the other way.
    pub other_combine_error_median: f64,
    /// Whether it is fitted to sustained reads, since the device does not keep up what it does in
    /// bursts.
    #[serde(default)]
    pub sustained: bool,
}

/// Where a law is off by more than a fifth.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Misfit {
    /// Bytes of each read.
    pub read_bytes: u32,
    /// Reads of the batch.
    pub reads: u32,
    /// Predicted / measured - 1.
    pub error: f64,
}

/// One measured kind of batch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// Bytes of each read.
    pub read_bytes: u32,
    /// Reads of the batch.
    pub reads: u32,
    /// Batches measured.
    pub batches: usize,
    /// Median time of a batch, microseconds.
    pub batch_us_median: f64,
    /// 10th percentile.
    pub batch_us_p10: f64,
    /// 90th percentile.
    pub batch_us_p90: f64,
}

/// The device under a file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ProbedPlace {
    /// `major:minor`, where the kernel has a device of that number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub number: Option<String>,
    /// Its name, such as `nvme0n1`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Its maker's name for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// The file system; absent for a raw device.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file_system: Option<String>,
    /// How it is mounted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mount_options: Option<String>,
}

/// What was measured, how, and where.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// The file or device.
    pub path: String,
    /// Its length, bytes.
    pub file_bytes: u64,
    /// Reads in flight.
    pub queue_depth: u32,
    /// `io_uring` or `pread`.
    pub back_end: String,
    /// Whether the page cache was out of the way.
    pub direct: bool,
    /// Seconds of measuring.
    pub seconds: f64,
    /// The command.
    pub command: String,
    /// When it ended, seconds since 1970 (UTC).
    pub unix_time: u64,
    /// The same for people.
    #[serde(default)]
    pub date: String,
    /// Whether all was measured that should be; not where somebody stopped it.
    #[serde(default = "yes")]
    pub complete: bool,
    /// The core that the reading thread was kept on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub core: Option<u32>,
    /// How much faster the first point was when it was measured again at the end (-0.1: a tenth slower).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drift: Option<f64>,
    /// Bytes that the device read by the kernel's count, over those that streams asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_share: Option<f64>,
    /// What makes these figures doubtful.
    #[serde(default)]
    pub warnings: Vec<String>,
    /// Device and file system.
    #[serde(default)]
    pub place: ProbedPlace,
}

const fn yes() -> bool {
    true
}

/// A device profile: what `lnp probe -o` writes and `--device` reads.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DeviceProfile {
    /// The law.
    pub law: LawText,
    /// How well it fits; absent from profiles made from published figures.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fit: Option<Fit>,
    /// What was measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub measured: Option<Measured>,
    /// The machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine: Option<Machine>,
    /// What was measured in turns.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub points: Vec<Point>,
    /// What was measured without pauses: the median is the time of a batch over the whole stretch.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sustained: Vec<Point>,
    /// Where the law is off by more than a fifth, the worst first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub misfits: Vec<Misfit>,
    /// What one read costs by its size, a curve each queue depth.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub curves: Vec<DepthCurve>,
    /// What streams of reads did.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub streams: Vec<Stream>,
}

impl DeviceProfile {
    /// A profile of a law and nothing else.
    pub fn of_law(law: LawText) -> Self {
        Self {
            law,
            fit: None,
            measured: None,
            machine: None,
            points: Vec::new(),
            sustained: Vec::new(),
            misfits: Vec::new(),
            curves: Vec::new(),
            streams: Vec::new(),
        }
    }

    /// The measured curve at a queue depth, to plan by instead of the law.
    ///
    /// # Errors
    /// There is none at that depth, or the device does not keep up what it was measured at.
    pub fn curve(&self, depth: u32) -> Result<Curve> {
        ensure!(
            !self.fit.is_some_and(|fit| fit.sustained),
            "the device does not keep up its bursts, which the curves are of: plan by the law"
        );
        // pread has one read in flight whatever the queue takes.
        let by_pread = self.measured.as_ref().is_some_and(|measured| measured.back_end == "pread");
        let depth = if by_pread { 1 } else { depth };
        let curve = self.curves.iter().find(|curve| curve.depth == depth).with_context(|| {
            let depths: Vec<String> =
                self.curves.iter().map(|curve| curve.depth.to_string()).collect();
            match depths.is_empty() {
                true => "the profile has no curves: a full `lnp probe` measures them".to_owned(),
                false => format!(
                    "the profile has no curve at queue depth {depth}, but at {}",
                    depths.join(", ")
                ),
            }
        })?;
        curve.curve()
    }

    /// Reads a profile.
    ///
    /// # Errors
    /// One line that names the file and what is wrong.
    pub fn read(path: &Path) -> Result<Self> {
        let read = || -> Result<Self> {
            let text = read_stream(path, PROFILE_BYTES_MAX)?;
            let profile: Self =
                toml::from_str(&text).map_err(|error| in_one_line(&text, &error))?;
            profile.law.law()?;
            Ok(profile)
        };
        read().map_err(|error| {
            anyhow!(
                "cannot read device profile {}: {error:#}; make one with `lnp probe`",
                path.display()
            )
        })
    }

    /// Writes the profile, whole or not at all.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        let text = toml::to_string_pretty(self)?;
        write_text(path, &text)
    }
}

/// What is wrong with a profile's text, without the picture of the place that the parser draws.
fn in_one_line(text: &str, error: &toml::de::Error) -> anyhow::Error {
    let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
    anyhow!("line {}: {}", before.matches('\n').count() + 1, error.message())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_of_four_lines_is_enough() {
        let text = "[law]\na_us = 9.64\nb_mib_s = 2034.0\ncombine = \"sum\"\n";
        let profile: DeviceProfile = toml::from_str(text).unwrap();
        assert_eq!(profile.law, LawText::ONEPLUS_12);
        let again: DeviceProfile =
            toml::from_str(&toml::to_string_pretty(&profile).unwrap()).unwrap();
        assert_eq!(again, profile);
    }
}
