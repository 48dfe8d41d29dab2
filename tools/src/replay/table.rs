//! The comparison table for people.

use super::Row;
use crate::report::{bytes, table, thousands};

/// The rows as a table, with the bound below; `speedup` is over the first row called `bundle` of
/// the same bundle size (model order, one read per run), or over the first row.
pub fn render(rows: &[Row]) -> String {
    let head = [
        "strategy",
        "bundle",
        "reads/token",
        "bundles/run",
        "read/token",
        "hits",
        "I/O us/token",
        "p99",
        "predicted",
        "useful MiB/s",
        "speedup",
    ];
    let mut lines = Vec::new();
    for row in rows {
        let same = |other: &&Row| other.bundle_bytes == row.bundle_bytes;
        let base = rows.iter().filter(same).find(|row| row.strategy == "bundle").unwrap_or(row);
        let speedup = base.io_us_per_token.mean / row.io_us_per_token.mean.max(1e-9);
        lines.push(vec![
            row.strategy.clone(),
            bytes(row.bundle_bytes.into()),
            thousands(row.reads_per_token),
            format!("{:.2}", row.bundles_per_run),
            bytes(row.bytes_read_per_token),
            format!("{:.1} %", 100.0 * row.hit_rate),
            thousands(row.io_us_per_token.mean),
            thousands(row.io_us_per_token.p99),
            thousands(row.predicted_io_us_per_token),
            thousands(row.effective_mib_s),
            format!("{speedup:.2}x"),
        ]);
        let last_of_size = rows.iter().rfind(same).is_some_and(|last| std::ptr::eq(last, row));
        if last_of_size {
            let base_us = base.io_us_per_token.mean;
            let bound_us = base.bound_io_us_per_token;
            let dash = || "-".to_owned();
            lines.push(vec![
                "bound (active bytes at full bandwidth)".into(),
                bytes(row.bundle_bytes.into()),
                dash(),
                dash(),
                bytes(base.active_bundles_per_token * f64::from(base.bundle_bytes)),
                dash(),
                thousands(bound_us),
                dash(),
                dash(),
                dash(),
                format!("{:.2}x", base_us / bound_us.max(1e-9)),
            ]);
        }
    }
    table(&head, &lines, 1)
}

/// I/O time per token as bars, longest first to last row, one scale.
pub fn chart(rows: &[Row]) -> String {
    const WIDTH: f64 = 50.0;
    let most = rows.iter().map(|row| row.io_us_per_token.mean).fold(1e-9, f64::max);
    let name_width = rows.iter().map(|row| row.strategy.len()).max().unwrap_or(0);
    let line = |name: &str, us: f64| {
        let eighths = (us / most * WIDTH * 8.0).round() as usize;
        let bar: String = "\u{2588}".repeat(eighths / 8);
        let rest = [
            " ", "\u{258f}", "\u{258e}", "\u{258d}", "\u{258c}", "\u{258b}", "\u{258a}", "\u{2589}",
        ][eighths % 8];
        format!("{name:name_width$}  {bar}{rest} {} us\n", thousands(us))
    };
    let mut out: String =
        rows.iter().map(|row| line(&row.strategy, row.io_us_per_token.mean)).collect();
    if let Some(row) = rows.first() {
        out += &line("bound", row.bound_io_us_per_token);
    }
    out
}
