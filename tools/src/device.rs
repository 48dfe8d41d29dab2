//! The device at hand: its law, from a profile or from the command line, and opening files on it.

use std::ffi::CString;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::str::FromStr;

use anyhow::{Context, Result, anyhow, bail, ensure};
use lnp_engine::law::Curve;
use lnp_engine::sys::{DirectFile, FileError};
use lnp_engine::{Combine, DeviceLaw};
use serde::{Deserialize, Serialize};

use crate::files::{read_stream, write_text};
use crate::probe::curve::DepthCurve;
use crate::probe::place::Place;
use crate::probe::rounds::Stream;
use crate::report::Machine;

/// Longest device profile, bytes.
const PROFILE_BYTES_MAX: u64 = 1 << 24;

/// The law as it stands in profiles, options and JSON.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LawText {
    /// Microseconds that draining the queue costs, once a layer.
    #[serde(default)]
    pub t0_us: f64,
    /// Microseconds per read.
    pub a_us: f64,
    /// Bandwidth of long reads, MiB/s.
    pub b_mib_s: f64,
    /// How they come together.
    pub combine: CombineName,
}

/// `sum` or `max`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CombineName {
    /// They add up.
    Sum,
    /// The larger one rules.
    Max,
}

impl LawText {
    /// Fitted to published times of a OnePlus 12 (UFS 4.0), for plans without a device: the law of our
    /// first prototype, kept so that its figures compare. `devices/oneplus-12.toml` is a closer fit.
    pub const ONEPLUS_12: Self =
        Self { t0_us: 0.0, a_us: 9.64, b_mib_s: 2034.0, combine: CombineName::Sum };

    /// The engine's form.
    ///
    /// # Errors
    /// A number that no device has.
    pub fn law(&self) -> Result<DeviceLaw> {
        let combine = match self.combine {
            CombineName::Sum => Combine::Sum,
            CombineName::Max => Combine::Max,
        };
        Ok(DeviceLaw::new(self.t0_us, self.a_us, self.b_mib_s, combine)?)
    }
}

impl From<&DeviceLaw> for LawText {
    fn from(law: &DeviceLaw) -> Self {
        let combine = match law.combine() {
            Combine::Sum => CombineName::Sum,
            Combine::Max => CombineName::Max,
        };
        Self { t0_us: law.t0_us(), a_us: law.a_us(), b_mib_s: law.b_mib_s(), combine }
    }
}

impl fmt::Display for LawText {
    /// As [`LawText::from_str`] reads it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.t0_us != 0.0 {
            write!(f, "t0_us={},", self.t0_us)?;
        }
        let combine = match self.combine {
            CombineName::Sum => "sum",
            CombineName::Max => "max",
        };
        write!(f, "a_us={},b_mib_s={},combine={combine}", self.a_us, self.b_mib_s)
    }
}

impl FromStr for LawText {
    type Err = anyhow::Error;

    /// Parses `a_us=9.64,b_mib_s=2034,combine=sum`, with an optional `t0_us=...`.
    fn from_str(text: &str) -> Result<Self> {
        let (mut t0_us, mut a_us, mut b_mib_s, mut combine) = (None, None, None, None);
        for part in text.split(',') {
            let example = "write a_us=9.64,b_mib_s=2034,combine=sum";
            let (key, value) =
                part.split_once('=').with_context(|| format!("'{part}' in a law: {example}"))?;
            let place = match key {
                "t0_us" => &mut t0_us,
                "a_us" => &mut a_us,
                "b_mib_s" => &mut b_mib_s,
                "combine" => {
                    combine = Some(match value {
                        "sum" => CombineName::Sum,
                        "max" => CombineName::Max,
                        _ => bail!("combine={value} in a law: must be sum or max"),
                    });
                    continue;
                }
                _ => bail!("'{key}' in a law: {example}"),
            };
            let number: f64 =
                value.parse().map_err(|_| anyhow!("{key}={value} in a law: not a number"))?;
            *place = Some(number);
        }
        let law = Self {
            t0_us: t0_us.unwrap_or(0.0),
            a_us: a_us.context("a law needs a_us")?,
            b_mib_s: b_mib_s.context("a law needs b_mib_s")?,
            combine: combine.context("a law needs combine=sum or combine=max")?,
        };
        law.law()?;
        Ok(law)
    }
}

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
    pub place: Place,
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

/// Opens a file for direct reads.
///
/// # Errors
/// One line that says what to do; on a file system without direct reads, `--buffered` does.
pub fn open_direct(path: &Path, buffered: bool) -> Result<DirectFile> {
    if path.is_dir() {
        bail!("{}: is a folder, a file or device is needed", path.display());
    }
    let name = CString::new(path.as_os_str().as_bytes()).context("a path with a zero byte")?;
    DirectFile::open(&name, buffered).map_err(|error| match error {
        FileError::NoDirectReads => anyhow!(
            "{}: its file system refuses direct reads (O_DIRECT): put it on a disk, or say --buffered",
            path.display()
        ),
        FileError::System { action, errno } => {
            let reason = std::io::Error::from_raw_os_error(errno);
            anyhow!("{}: cannot {action}: {reason}", path.display())
        }
        other => anyhow!("{}: {other}", path.display()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn laws_on_the_command_line() {
        let law: LawText = "a_us=9.64,b_mib_s=2034,combine=sum".parse().unwrap();
        assert_eq!(law, LawText::ONEPLUS_12);
        let law: LawText = "combine=max,t0_us=3,a_us=50,b_mib_s=950".parse().unwrap();
        assert_eq!((law.t0_us, law.combine), (3.0, CombineName::Max));
        assert_eq!(law.to_string().parse::<LawText>().unwrap(), law);
        for bad in [
            "",
            "a_us=1",
            "a_us=x,b_mib_s=1,combine=sum",
            "a_us=1,b_mib_s=0,combine=sum",
            "a_us=1,b_mib_s=1,combine=avg",
            "a_us=1,b_mib_s=1,combine=sum,c=1",
        ] {
            assert!(bad.parse::<LawText>().is_err(), "{bad}");
        }
    }

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
