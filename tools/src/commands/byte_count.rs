//! Byte counts on the command line, with units: the one parser of every option that takes bytes.

use std::fmt;
use std::str::FromStr;

use anyhow::{Context, Result, bail, ensure};

/// Units and the powers of two they stand for, the largest first.
const UNITS: [(char, u32); 4] = [('T', 40), ('G', 30), ('M', 20), ('K', 10)];

/// A number of bytes, written `4096`, `4K`, `64KiB`, `1M`, `4G`, `1T`: powers of 1024.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ByteCount(pub(super) u64);

impl ByteCount {
    /// For an option of 32 bits; what is beyond them is beyond its range too.
    pub(super) fn saturating_u32(self) -> u32 {
        u32::try_from(self.0).unwrap_or(u32::MAX)
    }

    /// For memory; more than can be addressed cannot be had either.
    pub(super) fn saturating_usize(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

impl FromStr for ByteCount {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
        let unit = text[digits.len()..].to_ascii_uppercase();
        let unit = unit.strip_suffix("IB").or(unit.strip_suffix('B')).unwrap_or(&unit);
        let named = UNITS.iter().find(|(name, _)| unit.chars().eq([*name]));
        let power = match named {
            Some((_, power)) => *power,
            None if unit.is_empty() => 0,
            None => bail!("no such unit: write 4096, 4K, 1M or 4G"),
        };
        let number: u64 = digits.parse().context("not a number: write 4096, 4K, 1M or 4G")?;
        Ok(Self(number.checked_mul(1 << power).context("too large")?))
    }
}

/// As it can be written again: in the largest unit that divides it.
impl fmt::Display for ByteCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let divides = |power: u32| self.0 > 0 && self.0.is_multiple_of(1 << power);
        match UNITS.iter().find(|(_, power)| divides(*power)) {
            Some((name, power)) => write!(f, "{}{name}", self.0 >> power),
            None => write!(f, "{}", self.0),
        }
    }
}

/// A byte count above 0.
pub(super) fn above_0(text: &str) -> Result<ByteCount> {
    let bytes: ByteCount = text.parse()?;
    ensure!(bytes.0 > 0, "must be above 0");
    Ok(bytes)
}

/// A number of bytes, 0 included.
pub(super) fn parse_bytes(text: &str) -> Result<u64> {
    Ok(text.parse::<ByteCount>()?.0)
}

/// The length of something: above 0.
pub(super) fn parse_length(text: &str) -> Result<u64> {
    Ok(above_0(text)?.0)
}

/// The length of a bundle or another thing that is counted in 32 bits.
pub(super) fn parse_short_length(text: &str) -> Result<u32> {
    u32::try_from(parse_length(text)?).context("too large")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units() {
        for (text, bytes) in [
            ("4096", 4096),
            ("4k", 4096),
            ("64KiB", 65536),
            ("64kb", 65536),
            ("100b", 100),
            ("1M", 1 << 20),
            ("4G", 4 << 30),
            ("1T", 1 << 40),
            ("0", 0),
        ] {
            assert_eq!(text.parse::<ByteCount>().unwrap(), ByteCount(bytes), "{text}");
        }
        for text in ["", "K", "-1", "1.5G", "4X", "4KK", "4iB2", "20000000T", " 4K"] {
            assert!(text.parse::<ByteCount>().is_err(), "{text}");
        }
        assert!(above_0("0K").is_err() && parse_length("1").is_ok());
        assert_eq!(parse_short_length("24K").unwrap(), 24 << 10);
        assert!(parse_short_length("4G").is_err());
    }

    #[test]
    fn printed_as_written() {
        for (bytes, text) in
            [(0, "0"), (1000, "1000"), (4096, "4K"), (2 << 30, "2G"), (1536, "1536")]
        {
            assert_eq!(ByteCount(bytes).to_string(), text);
            assert_eq!(text.parse::<ByteCount>().unwrap(), ByteCount(bytes));
        }
    }
}
