//! Dates for people.

use jiff::Timestamp;

/// Seconds since 1970 as `2026-11-21 12:34:56 UTC`; the last that can be written (of the year 9999)
/// for what comes after it.
pub fn utc(unix_time: u64) -> String {
    let time = i64::try_from(unix_time).ok().and_then(|at| Timestamp::from_second(at).ok());
    time.unwrap_or(Timestamp::MAX).strftime("%Y-%m-%d %H:%M:%S UTC").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_that_date_says() {
        // as `date -u -d @N` has them
        assert_eq!(utc(0), "1970-01-01 00:00:00 UTC");
        assert_eq!(utc(951_827_696), "2000-02-29 12:34:56 UTC");
        assert_eq!(utc(1_709_251_199), "2024-02-29 23:59:59 UTC");
        assert_eq!(utc(1_795_262_400), "2026-11-21 12:00:00 UTC");
        assert_eq!(utc(4_107_542_400), "2100-03-01 00:00:00 UTC");
        assert!(utc(u64::MAX).starts_with("9999-12-3"));
    }
}
