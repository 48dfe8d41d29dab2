//! The comparison table and the chart for people.

use super::rows::Row;
use lnp_common::report::{bytes, table, thousands, width};

/// What the bound is: below the tables that show it.
pub const BOUND_NOTE: &str = "bound: all active bytes at the law's bandwidth B; speedup: over bundle, or the first row but dense\n";

/// What the second table is: below it.
const BELADY_NOTE: &str = "best possible cache (Belady's, which knows the future; fewest misses, not always least time),\nby the law, NOT MEASURED:\n";

/// Width that the table needs with all its columns.
const WIDE: usize = 110;

/// One table per bundle size, the bound at its end (none of no rows); then the best that caches could do, if that was
/// computed, in a table of its own. A terminal that is too narrow for all columns does without p99
/// and bandwidth.
pub fn render(rows: &[Row]) -> String {
    let mut out = String::new();
    for group in by_bundle_bytes(rows) {
        let base = base_of(group);
        let lines_of = |belady: bool| -> Vec<Vec<String>> {
            let of_kind = group.iter().filter(|row| row.is_belady() == belady);
            of_kind.map(|row| line(row, base, &name_of(row, group))).collect()
        };
        let mut lines = lines_of(false);
        let mut bound = vec!["-".to_owned(); lines[0].len()];
        bound[0] = "bound".into();
        bound[3] = bytes(base.active_bundles_per_token * f64::from(base.bundle_bytes));
        bound[5] = thousands(base.bound_io_us_per_token);
        bound[9] = speedup(base.io_us_per_token.mean, base.bound_io_us_per_token);
        lines.push(bound);
        out += &format!("bundles of {}, per token:\n", bytes(base.bundle_bytes.into()));
        out += &with_head(&lines);
        let best = lines_of(true);
        if !best.is_empty() {
            out += BELADY_NOTE;
            out += &with_head(&best);
        }
    }
    out
}

/// The columns for which there is room, under their names.
fn with_head(lines: &[Vec<String>]) -> String {
    let head = [
        "strategy",
        "reads",
        "bundles/run",
        "read",
        "hits",
        "I/O us",
        "p99",
        "law us",
        "MiB/s",
        "speedup",
    ];
    let wide = width() >= WIDE;
    let keep = |column: &usize| wide || ![6, 8].contains(column);
    let columns: Vec<usize> = (0..head.len()).filter(keep).collect();
    let head: Vec<&str> = columns.iter().map(|column| head[*column]).collect();
    let lines: Vec<Vec<String>> = lines
        .iter()
        .map(|line| columns.iter().map(|column| line[*column].clone()).collect())
        .collect();
    table(&head, &lines, 1)
}

/// Rows of one bundle size stand together.
fn by_bundle_bytes(rows: &[Row]) -> impl Iterator<Item = &[Row]> {
    rows.chunk_by(|a, b| a.bundle_bytes == b.bundle_bytes)
}

/// What others are compared with: model order, one read per run, or else the first row that is not
/// dense.
pub(crate) fn base_of(group: &[Row]) -> &Row {
    let named = |name: &'static str| group.iter().find(move |row| row.strategy == name);
    let sparse = || group.iter().find(|row| row.collapse != "whole");
    named("bundle").or_else(sparse).unwrap_or(&group[0])
}

/// The strategy, with the file where another has the same.
pub(crate) fn name_of(row: &Row, group: &[Row]) -> String {
    if group.iter().filter(|other| other.strategy == row.strategy).count() < 2 {
        return row.strategy.clone();
    }
    let file = row.pack.file_stem().unwrap_or_default().to_string_lossy();
    format!("{} ({file})", row.strategy)
}

/// How many times as fast; of no time at all that is no number.
pub(crate) fn speedup(base_us: f64, us: f64) -> String {
    if base_us > 0.0 && us > 0.0 { format!("{:.2}x", base_us / us) } else { "-".into() }
}

/// How far repeats lie apart; one lies apart from none.
fn told_spread(spread: Option<f64>) -> String {
    spread.map_or("-".into(), |spread| format!("{:.1} %", 100.0 * spread))
}

fn line(row: &Row, base: &Row, name: &str) -> Vec<String> {
    let dense = row.collapse == "whole";
    // The law's time compares with the law's time.
    let base_us =
        if row.is_belady() { base.predicted_io_us_per_token } else { base.io_us_per_token.mean };
    vec![
        name.to_owned(),
        thousands(row.reads_per_token),
        if dense || row.runs_per_token == 0.0 {
            "-".into()
        } else {
            format!("{:.2}", row.bundles_per_run)
        },
        bytes(row.bytes_read_per_token),
        format!("{:.1} %", 100.0 * row.hit_rate),
        thousands(row.io_us_per_token.mean),
        thousands(row.io_us_per_token.p99),
        thousands(row.predicted_io_us_per_token),
        thousands(row.effective_mib_s),
        speedup(base_us, row.io_us_per_token.mean),
    ]
}

/// What predicted sets are of, below the tables that have rows of them; empty where none has.
pub fn predicted(rows: &[Row]) -> String {
    let judged = rows.iter().find_map(|row| row.recall.zip(row.reads_per_active));
    judged.map_or(String::new(), |(recall, reads)| {
        format!(
            "predicted: {:.2} % of the active bundles, {reads:.3} read for each active one\n",
            100.0 * recall
        )
    })
}

/// How well the law of this very replay predicts each row; empty where it was judged by none.
pub fn calibrated(rows: &[Row]) -> String {
    let lines: Vec<Vec<String>> = rows
        .iter()
        .filter_map(|row| Some((row, row.calibrated?)))
        .map(|(row, calibrated)| {
            vec![
                name_of(row, rows),
                bytes(row.bundle_bytes.into()),
                thousands(row.io_us_per_token.mean),
                thousands(calibrated.io_us_per_token),
                format!("{:+.1} %", 100.0 * calibrated.error_median),
                told_spread((row.repeats > 1).then_some(calibrated.repeat_spread)),
            ]
        })
        .collect();
    if lines.is_empty() {
        return String::new();
    }
    let head = ["strategy", "bundle", "I/O us", "law us", "error", "spread"];
    table(&head, &lines, 1)
        + "law: fitted to every other 8 tokens of all rows; error: median over the other tokens of measured\n\
     over predicted - 1; spread: largest over smallest of the repeats' means - 1\n"
}

/// How well the law of the device profile predicts turns of seconds; empty where there were none.
pub fn sustained(rows: &[Row]) -> String {
    let lines: Vec<Vec<String>> = rows
        .iter()
        .filter_map(|row| Some((row, row.sustained?)))
        .map(|(row, sustained)| {
            vec![
                name_of(row, rows),
                bytes(row.bundle_bytes.into()),
                thousands(row.io_us_per_token.mean),
                thousands(row.predicted_io_us_per_token),
                format!("{:+.1} %", 100.0 * sustained.error),
                told_spread(sustained.turn_spread),
            ]
        })
        .collect();
    if lines.is_empty() {
        return String::new();
    }
    let head = ["strategy", "bundle", "I/O us", "law us", "error", "spread"];
    "\nturns of seconds, begin to end (I/O us and p99: the tokens of the middle turn):\n".to_owned()
        + &table(&head, &lines, 1)
        + "law: the one above, measured before; error: median turn over it - 1; spread: longest over shortest turn - 1\n"
}

/// I/O time per token as bars, and the bound, on one scale.
pub fn chart(rows: &[Row]) -> String {
    const WIDTH: f64 = 40.0;
    const EIGHTHS: [&str; 8] =
        [" ", "\u{258f}", "\u{258e}", "\u{258d}", "\u{258c}", "\u{258b}", "\u{258a}", "\u{2589}"];
    let rows: Vec<Row> = rows.iter().filter(|row| !row.is_belady()).cloned().collect();
    let most = rows.iter().map(|row| row.io_us_per_token.mean).fold(1e-9, f64::max);
    let name_width = rows.iter().map(|row| row.strategy.len()).max().unwrap_or(0);
    let line = |name: &str, us: f64| {
        let eighths = (us / most * WIDTH * 8.0).round() as usize;
        let (bar, rest) = ("\u{2588}".repeat(eighths / 8), EIGHTHS[eighths % 8]);
        format!("{name:name_width$}  {bar}{rest} {} us\n", thousands(us))
    };
    let mut out: String =
        rows.iter().map(|row| line(&row.strategy, row.io_us_per_token.mean)).collect();
    for group in by_bundle_bytes(&rows).take(1) {
        out += &line("bound", base_of(group).bound_io_us_per_token);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::calibrate::Calibrated;
    use super::super::options::CacheState;
    use super::super::rows::{Sustained, Times};
    use super::*;

    /// A row of a strategy that took so long.
    fn row(strategy: &str, us: f64) -> Row {
        Row {
            strategy: strategy.into(),
            order: "identity".into(),
            pack: "m.lnp".into(),
            dtype: "f16".into(),
            bundle_bytes: 4096,
            placements: 1,
            collapse: "law".into(),
            waits_per_token: 0.0,
            cache_policy: "none".into(),
            cache_ratio: 0.0,
            cache_state: CacheState::Cold,
            queue_depth: 32,
            tokens: 1,
            repeats: 1,
            simulated: false,
            active_bundles_per_token: 0.0,
            recall: None,
            reads_per_active: None,
            reads_per_token: 0.0,
            runs_per_token: 0.0,
            merges_per_token: 0.0,
            bundles_per_run: 0.0,
            bytes_read_per_token: 0.0,
            useful_bytes_per_token: 0.0,
            hit_rate: 0.0,
            io_us_per_token: Times { mean: us, p50: us, p99: us },
            predicted_io_us_per_token: us,
            calibrated: None,
            sustained: None,
            beliefs: Vec::new(),
            effective_mib_s: 0.0,
            device_mib_s: 0.0,
            bound_io_us_per_token: 0.0,
            layers: Vec::new(),
        }
    }

    #[test]
    fn nothing_is_said_of_no_rows() {
        assert_eq!(render(&[]) + &calibrated(&[]) + &sustained(&[]) + &chart(&[]), "");
    }

    #[test]
    fn what_took_no_time_has_no_speedup() {
        let told = render(&[row("bundle", 10.0), row("bundle+collapse+cache", 0.0)]);
        assert!(
            told.contains("1.00x") && !told.contains("000x") && !told.contains("inf"),
            "{told}"
        );
        assert!(!told.contains("best possible"), "{told}");
    }

    #[test]
    fn tables_of_laws_are_for_rows_that_have_one() {
        let rows = [row("bundle", 10.0)];
        assert_eq!(calibrated(&rows) + &sustained(&rows), "");
        // One repeat, one turn: there is no spread.
        let judged = Calibrated { io_us_per_token: 9.0, error_median: 0.1, repeat_spread: 0.0 };
        let turn = Sustained { turns: 1, error: 0.1, turn_spread: None };
        let once = [Row { calibrated: Some(judged), sustained: Some(turn), ..row("bundle", 10.0) }];
        for told in [calibrated(&once), sustained(&once)] {
            assert!(told.contains("+10.0 %  ") && !told.contains("0.0 %\n"), "{told}");
        }
        let thrice = [Row { repeats: 3, ..once[0].clone() }];
        assert!(calibrated(&thrice).contains(" 0.0 %\n"));
    }
}
