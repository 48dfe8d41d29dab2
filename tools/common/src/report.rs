//! What the tools print: tables, numbers, the machine, progress.

use std::io::Write;
use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use comfy_table::{CellAlignment, Table, presets};
use indicatif::{ProgressBar, ProgressStyle};

/// Whoever read our results has gone (`| head`): the end, but no failure.
#[derive(Debug, thiserror::Error)]
#[error("nobody reads the results any more")]
pub struct ReaderGone;

/// Prints results to stdout.
///
/// # Errors
/// [`ReaderGone`], or any other trouble with stdout.
pub fn print(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Err(ReaderGone.into()),
        result => Ok(result?),
    }
}

/// Says something that is no result, on stderr; nobody has to listen. Names from files may be in it:
/// no control characters but ends of lines come through.
pub fn say(text: &str) {
    let lines: Vec<String> = text.split('\n').map(plain).collect();
    let _ = std::io::stderr().lock().write_all(lines.join("\n").as_bytes());
}

/// Text from a file, safe for a terminal: no control characters.
pub fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// A path in a line of its own making: no control characters, no end of line.
pub fn shown(path: &Path) -> String {
    plain(&path.display().to_string())
}

/// Columns of the terminal that stdout is; a wide one where it is none.
pub fn width() -> usize {
    const NO_TERMINAL: usize = 160;
    let terminal = console::Term::stdout();
    if terminal.is_term() { terminal.size().1.into() } else { NO_TERMINAL }
}

/// Prints a value as JSON to stdout.
///
/// # Errors
/// Trouble with stdout.
pub fn print_json(value: &impl serde::Serialize) -> Result<()> {
    print(&(serde_json::to_string_pretty(value)? + "\n"))
}

/// A table: the first `text_columns` columns to the left, numbers to the right. Names from files may be
/// in it.
pub fn table(head: &[&str], rows: &[Vec<String>], text_columns: usize) -> String {
    let mut table = Table::new();
    table
        .load_preset(presets::NOTHING)
        .set_header(head.iter().map(|cell| plain(cell)))
        .add_rows(rows.iter().map(|row| row.iter().map(|cell| plain(cell))));
    for (number, column) in table.column_iter_mut().enumerate() {
        let (left, right) = (u16::from(number > 0) * 2, 0);
        column.set_padding((left, right));
        if number >= text_columns {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.trim_fmt() + "\n"
}

/// A progress bar on stderr; only on a terminal, and gone when done.
pub fn progress(what: &'static str, total: u64) -> ProgressBar {
    let style =
        ProgressStyle::with_template("{prefix:>10} [{bar:30}] {percent:>3}%  {eta} left {msg}")
            .unwrap_or_else(|_| ProgressStyle::default_bar())
            .progress_chars("=> ");
    let bar = ProgressBar::new(total).with_style(style).with_prefix(what);
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

/// Bytes for people: KiB, MiB or GiB.
pub fn bytes(count: f64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = count;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < units.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{value:.0} B") } else { format!("{value:.1} {}", units[unit]) }
}

/// A number with thousands set apart.
pub fn thousands(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) && !out.ends_with('-') {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// The `p`-th quantile (0 to 1) of values, by the nearest rank; 0 of none.
pub fn quantile(values: &mut [f64], p: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let rank = (p * values.len() as f64).ceil() as usize;
    values.get(rank.saturating_sub(1)).copied().unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_for_people() {
        assert_eq!(thousands(1_234_567.4), "1,234,567");
        assert_eq!(thousands(-1234.0), "-1,234");
        assert_eq!(thousands(12.0), "12");
        assert_eq!(bytes(1536.0), "1.5 KiB");
        assert_eq!(bytes(12.0), "12 B");
    }

    #[test]
    fn quantiles_by_nearest_rank() {
        let mut values: Vec<f64> = (1..=100).rev().map(f64::from).collect();
        assert_eq!(quantile(&mut values, 0.5), 50.0);
        assert_eq!(quantile(&mut values, 0.99), 99.0);
        assert_eq!(quantile(&mut values, 1.0), 100.0);
        assert_eq!(quantile(&mut [], 0.5), 0.0);
    }

    #[test]
    fn tables_align() {
        let rows = [vec!["a".into(), "1".into()], vec!["bcd".into(), "1,000".into()]];
        assert_eq!(table(&["name", "count"], &rows, 1), "name  count\na         1\nbcd   1,000\n");
    }
}
