//! What a probe found, for people.

use super::over_turns;
use crate::profile::Pattern;
use crate::profile::Stream;
use crate::profile::{DeviceProfile, Measured, Misfit, Point};
use lnp_common::report::{bytes, plain, table, thousands};

/// Misfits that are told one by one.
const MISFITS_TOLD: usize = 3;

/// A profile: what was measured, batches, streams, and the law as the last line.
pub fn profile(profile: &DeviceProfile) -> String {
    let mut out = profile.measured.as_ref().map_or(String::new(), head);
    out += &points_table(&profile.points);
    if let Some(most) = over_turns(&profile.points, &profile.sustained).reduce(f64::max) {
        out += &format!("without pauses (up to {most:.2} times as long as in turns):\n");
        out += &points_table(&profile.sustained);
    }
    let depth = profile.measured.as_ref().map_or(1, |measured| measured.queue_depth);
    out += &streams(&profile.streams, depth);
    if profile.fit.is_some_and(|fit| fit.sustained) {
        out += "held back: the device does not keep up its bursts; the law is that of reads without pauses\n";
    }
    for curve in &profile.curves {
        if let (Some(median), Some(p90)) = (curve.error_median, curve.error_p90) {
            out += &format!(
                "curve at depth {}: t0 {:.0} us; error {:.0} % median, {:.0} % p90\n",
                curve.depth,
                curve.t0_us,
                100.0 * median,
                100.0 * p90
            );
        }
    }
    out + &misfits(&profile.misfits) + &law_line(profile) + &doubts(profile.measured.as_ref())
}

/// What was measured, and how.
pub fn head(measured: &Measured) -> String {
    let place = &measured.place;
    let parts = [&place.name, &place.model, &place.file_system];
    let parts: Vec<&str> = parts.into_iter().flatten().map(String::as_str).collect();
    let on = if parts.is_empty() { String::new() } else { format!(" on {}", parts.join(", ")) };
    format!(
        "{}{on}: {}, {} of {}, queue depth {}{}, {:.0} s\n",
        plain(&measured.path),
        measured.back_end,
        if measured.direct { "direct reads" } else { "BUFFERED reads (page cache!)" },
        bytes(measured.file_bytes as f64),
        measured.queue_depth,
        measured.core.map_or(String::new(), |core| format!(", core {core}")),
        measured.seconds
    )
}

/// What makes the figures doubtful, a line each.
pub fn doubts(measured: Option<&Measured>) -> String {
    let warnings = measured.map_or(&[][..], |measured| &measured.warnings);
    warnings.iter().map(|warning| format!("warning: {warning}\n")).collect()
}

fn points_table(points: &[Point]) -> String {
    let rows: Vec<Vec<String>> = points
        .iter()
        .map(|point| {
            let us = point.batch_us_median;
            let batch_bytes = f64::from(point.reads) * f64::from(point.read_bytes);
            vec![
                bytes(point.read_bytes.into()),
                point.reads.to_string(),
                thousands(us),
                thousands(point.batch_us_p10),
                thousands(point.batch_us_p90),
                thousands(f64::from(point.reads) / us * 1e6),
                thousands(batch_bytes / us * 1e6 / lnp_engine::law::MIB),
            ]
        })
        .collect();
    let head = ["read", "reads", "batch us", "p10", "p90", "reads/s", "MiB/s"];
    table(&head, &rows, 0)
}

/// Streams: the plane of sizes and depths as one table of MiB/s; in full those of the least depth and of the queue
/// depth, and all beside the plane.
pub fn streams(streams: &[Stream], queue_depth: u32) -> String {
    let Some(longest) = streams.iter().map(|one| one.kind.range_bytes).max() else {
        return String::new();
    };
    let back_end = streams[0].kind.back_end;
    let in_plane = |one: &&Stream| {
        one.kind.pattern == Pattern::Random
            && one.kind.range_bytes == longest
            && one.kind.back_end == back_end
    };
    let plane: Vec<&Stream> = streams.iter().filter(in_plane).collect();
    let sorted = |of: fn(&Stream) -> u32| {
        let mut values: Vec<u32> = plane.iter().map(|one| of(one)).collect();
        values.sort_unstable();
        values.dedup();
        values
    };
    let (sizes, depths) = (sorted(|one| one.kind.read_bytes), sorted(|one| one.kind.depth));
    let mut out = String::new();
    // A short list is clearer in full.
    let as_plane = sizes.len() > 2 && depths.len() > 2;
    if as_plane {
        let cell = |read_bytes: u32, depth: u32| {
            let found = plane
                .iter()
                .find(|one| one.kind.read_bytes == read_bytes && one.kind.depth == depth);
            found.map_or("-".to_owned(), |one| thousands(one.mib_s))
        };
        let rows: Vec<Vec<String>> = sizes
            .iter()
            .map(|size| {
                let cells = depths.iter().map(|depth| cell(*size, *depth));
                [bytes((*size).into())].into_iter().chain(cells).collect()
            })
            .collect();
        let names: Vec<String> = depths.iter().map(|depth| format!("depth {depth}")).collect();
        let head: Vec<&str> =
            ["MiB/s"].into_iter().chain(names.iter().map(String::as_str)).collect();
        out += "random reads without pauses or barriers, always so many in flight:\n";
        out += &table(&head, &rows, 0);
    }
    let in_full = |one: &&Stream| {
        !as_plane
            || !in_plane(one)
            || (one.kind.depth == depths[0] || one.kind.depth == queue_depth)
    };
    let rows: Vec<Vec<String>> =
        streams.iter().filter(in_full).map(|one| row(one, longest)).collect();
    let head = [
        "pattern", "back end", "range", "depth", "read", "reads/s", "MiB/s", "p50 us", "p99",
        "p99.9", "CPU us",
    ];
    out + "streams (latencies, CPU time of a read):\n" + &table(&head, &rows, 2)
}

fn row(one: &Stream, longest: u64) -> Vec<String> {
    let kind = &one.kind;
    let us = |us: f64| if us < 100.0 { format!("{us:.1}") } else { thousands(us) };
    let told = |value: Option<f64>| value.map_or("-".to_owned(), us);
    vec![
        kind.pattern.name().into(),
        kind.back_end.name().into(),
        if kind.range_bytes == longest { "whole".into() } else { bytes(kind.range_bytes as f64) },
        kind.depth.to_string(),
        bytes(kind.read_bytes.into()),
        thousands(one.reads_per_s),
        thousands(one.mib_s),
        us(one.latency_us_p50),
        told(one.latency_us_p99),
        told(one.latency_us_p999),
        format!("{:.2}", one.cpu_us_per_read),
    ]
}

fn misfits(misfits: &[Misfit]) -> String {
    if misfits.is_empty() {
        return String::new();
    }
    let one = |misfit: &Misfit| {
        let size = bytes(misfit.read_bytes.into());
        format!("{} x {size} ({:+.0} %)", misfit.reads, misfit.error * 100.0)
    };
    let told: Vec<String> = misfits.iter().take(MISFITS_TOLD).map(one).collect();
    let more = match misfits.len().saturating_sub(MISFITS_TOLD) {
        0 => String::new(),
        more => format!(" and {more} more kinds"),
    };
    format!("the law is off by more than 20 % for batches of {}{more}\n", told.join(", "))
}

/// The law in one line, with how well it fits.
pub fn law_line(profile: &DeviceProfile) -> String {
    let law = &profile.law;
    let gap = law.law().map_or(0, |law| law.gap_bytes());
    let combine = format!("{:?}", law.combine).to_lowercase();
    let fit = profile.fit.map_or(String::new(), |fit| {
        format!(
            "; error {:.0} % median, {:.0} % p90 (other form: {:.0} %)",
            100.0 * fit.error_median,
            100.0 * fit.error_p90,
            100.0 * fit.other_combine_error_median
        )
    });
    format!(
        "device law: t0 {:.0} us, a {:.2} us, B {:.0} MiB/s, {combine}; break-even gap {}{fit}\n",
        law.t0_us,
        law.a_us,
        law.b_mib_s,
        bytes(gap as f64)
    )
}
