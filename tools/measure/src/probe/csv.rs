//! Raw results: one line a turn of a stream, in the order in which they were measured.

use anyhow::Result;

use super::rounds::Turn;

/// The columns.
const HEAD: [&str; 17] = [
    "turn",
    "round",
    "pattern",
    "read_bytes",
    "depth",
    "range_bytes",
    "back_end",
    "reads",
    "seconds",
    "reads_per_s",
    "mib_s",
    "latency_us_p50",
    "latency_us_p99",
    "latency_us_p999",
    "cpu_us_per_read",
    "asked_bytes",
    "device_bytes",
];

/// All turns under their names. `device_bytes` is empty where the kernel does not count.
///
/// # Errors
/// None in practice: it is written to memory.
pub fn csv(turns: &[Turn]) -> Result<String> {
    let mut out = csv::Writer::from_writer(Vec::new());
    out.write_record(HEAD)?;
    for turn in turns {
        out.write_record(record(turn))?;
    }
    Ok(String::from_utf8(out.into_inner()?)?)
}

fn record(turn: &Turn) -> [String; HEAD.len()] {
    let (kind, visit) = (&turn.kind, &turn.visit);
    let reads_per_s = visit.reads as f64 / visit.seconds;
    let mib_s = reads_per_s * f64::from(kind.read_bytes) / lnp_engine::law::MIB;
    let [p50, p99, p999] = turn.latency_us.map(|us| format!("{us:.2}"));
    [
        turn.number.to_string(),
        turn.round.to_string(),
        kind.pattern.name().into(),
        kind.read_bytes.to_string(),
        kind.depth.to_string(),
        kind.range_bytes.to_string(),
        kind.back_end.name().into(),
        visit.reads.to_string(),
        format!("{:.6}", visit.seconds),
        format!("{reads_per_s:.1}"),
        format!("{mib_s:.2}"),
        p50,
        p99,
        p999,
        format!("{:.3}", visit.cpu_seconds * 1e6 / visit.reads.max(1) as f64),
        visit.asked_bytes.to_string(),
        visit.device_bytes.map_or(String::new(), |bytes| bytes.to_string()),
    ]
}

#[cfg(test)]
mod tests {
    use super::super::stream::Visit;
    use super::*;
    use crate::profile::{Pattern, StreamBackEnd, StreamKind};

    #[test]
    fn every_line_has_all_columns() {
        let kind = StreamKind {
            pattern: Pattern::Sequential,
            read_bytes: 4096,
            depth: 8,
            range_bytes: 1 << 20,
            back_end: StreamBackEnd::Uring,
        };
        let visit = Visit {
            reads: 500,
            seconds: 0.25,
            cpu_seconds: 0.001,
            asked_bytes: 4096 * 520,
            device_bytes: None,
        };
        let turn = Turn { number: 3, round: 1, kind, visit, latency_us: [1.0, 2.0, 3.0] };
        let counted = Turn { visit: Visit { device_bytes: Some(7), ..visit }, ..turn };
        let text = csv(&[turn, counted]).unwrap();
        let head = "turn,round,pattern,read_bytes,depth,range_bytes,back_end,reads,seconds,reads_per_s,mib_s,\
             latency_us_p50,latency_us_p99,latency_us_p999,cpu_us_per_read,asked_bytes,device_bytes\n";
        let line = "3,1,sequential,4096,8,1048576,io_uring,500,0.250000,2000.0,7.81,1.00,2.00,3.00,2.000,2129920,";
        assert_eq!(text, format!("{head}{line}\n{line}7\n"));
        let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split(',').collect()).collect();
        assert!(lines.iter().all(|line| line.len() == lines[0].len()), "{text}");
        let of = |line: usize, name: &str| {
            let column = lines[0].iter().position(|column| *column == name).unwrap();
            lines[line][column]
        };
        assert_eq!((of(1, "reads_per_s"), of(1, "mib_s")), ("2000.0", "7.81"));
        assert_eq!((of(1, "cpu_us_per_read"), of(1, "device_bytes")), ("2.000", ""));
        assert_eq!((of(2, "device_bytes"), of(2, "back_end")), ("7", "io_uring"));
    }
}
