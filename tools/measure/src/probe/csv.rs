//! Raw results: one line a turn of a stream, in the order in which they were measured.

use std::fmt::Write as _;

use super::rounds::Turn;

/// The columns.
pub const HEAD: &str = "turn,round,pattern,read_bytes,depth,range_bytes,back_end,reads,seconds,\
reads_per_s,mib_s,latency_us_p50,latency_us_p99,latency_us_p999,cpu_us_per_read,asked_bytes,device_bytes";

/// All turns under their names. `device_bytes` is empty where the kernel does not count.
pub fn csv(turns: &[Turn]) -> String {
    let mut out = format!("{HEAD}\n");
    for turn in turns {
        let (kind, visit) = (&turn.kind, &turn.visit);
        let reads_per_s = visit.reads as f64 / visit.seconds;
        let [p50, p99, p999] = turn.latency_us;
        let line = write!(
            out,
            "{},{},{},{},{},{},{},{},{:.6},{:.1},{:.2},{:.2},{:.2},{:.2},{:.3},{},",
            turn.number,
            turn.round,
            kind.pattern.name(),
            kind.read_bytes,
            kind.depth,
            kind.range_bytes,
            kind.back_end.name(),
            visit.reads,
            visit.seconds,
            reads_per_s,
            reads_per_s * f64::from(kind.read_bytes) / lnp_engine::law::MIB,
            p50,
            p99,
            p999,
            visit.cpu_seconds * 1e6 / visit.reads.max(1) as f64,
            visit.asked_bytes,
        );
        // Writing to a string does not fail.
        let _ = line.and_then(|()| match visit.device_bytes {
            Some(bytes) => writeln!(out, "{bytes}"),
            None => writeln!(out),
        });
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::stream::{Pattern, StreamBackEnd, StreamKind, Visit};
    use super::*;

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
        let text = csv(&[turn, counted]);
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
