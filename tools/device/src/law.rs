//! The law of a device as text: in profiles, options and JSON.

use std::fmt;
use std::str::FromStr;

use anyhow::{Context, Result, anyhow, bail};
use lnp_engine::{Combine, DeviceLaw};
use serde::{Deserialize, Serialize};

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
}
