//! Byte counts on the command line: `4096`, `4K`, `64KiB`, `1M`, `4G`, `1T`, powers of 1024. Every option
//! that takes one reads it here.

use anyhow::{Context, Result, bail, ensure};

/// A count, 0 included.
pub(super) fn parse_bytes(text: &str) -> Result<u64> {
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let unit = text[digits.len()..].to_ascii_lowercase();
    let power = match unit.trim_end_matches('b').trim_end_matches('i') {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        _ => bail!("no such unit: write 4096, 4K, 1M or 4G"),
    };
    let number: u64 = digits.parse().context("not a number: write 4096, 4K, 1M or 4G")?;
    number.checked_mul(1 << power).context("too large")
}

/// The length of something: above 0.
pub(super) fn parse_length(text: &str) -> Result<u64> {
    let bytes = parse_bytes(text)?;
    ensure!(bytes > 0, "must be above 0");
    Ok(bytes)
}

/// The length of a bundle or another thing that is counted in 32 bits.
pub(super) fn parse_short_length(text: &str) -> Result<u32> {
    u32::try_from(parse_length(text)?).context("too large")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_with_units() {
        for (text, expected) in [
            ("4096", 4096),
            ("4K", 4096),
            ("64KiB", 65536),
            ("1m", 1 << 20),
            ("4GB", 4 << 30),
            ("0", 0),
        ] {
            assert_eq!(parse_bytes(text).unwrap(), expected, "{text}");
        }
        for wrong in ["", "K", "4X", "-1", "99999999999999T", "1.5G"] {
            assert!(parse_bytes(wrong).is_err(), "{wrong}");
        }
        assert!(parse_length("0").is_err() && parse_length("1").is_ok());
        assert_eq!(parse_short_length("24K").unwrap(), 24 << 10);
        assert!(parse_short_length("4G").is_err());
    }
}
