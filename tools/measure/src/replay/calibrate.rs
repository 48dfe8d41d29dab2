//! Does the device law predict what was measured? It is fitted to every other block of tokens of this
//! very replay, over all contestants together, and judged by the blocks between: whatever the device
//! was up to meanwhile, it was for both.

use lnp_engine::law::MIB;
use lnp_engine::{Combine, DeviceLaw};
use serde::Serialize;

use super::record::{Batch, Record, TURN_TOKENS};
use crate::probe::least_squares;
use lnp_common::report::quantile;

/// Rounds of reweighting and, under *max*, of deciding which side rules each batch.
const ROUNDS: usize = 30;
/// Relative errors below this weigh alike: towards the median error, without its kinks.
const ERROR_FLOOR: f64 = 0.01;

/// How a row compares with the law that the replay itself was calibrated with.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Calibrated {
    /// The law's time, mean over the tokens judged.
    pub io_us_per_token: f64,
    /// Median over the tokens judged of measured / predicted - 1.
    pub error_median: f64,
    /// Means of the single repeats: (largest - smallest) / median.
    pub repeat_spread: f64,
}

/// The law of this replay, and how each record compares with it; `None` where too little was
/// measured.
///
/// Left out are the records that `skipped` says, by number.
pub(super) fn calibrate(
    records: &[&Record],
    skipped: &dyn Fn(usize) -> bool,
) -> Option<(DeviceLaw, Vec<Option<Calibrated>>)> {
    let all = records;
    let kept: Vec<&Record> = (0..all.len()).filter(|at| !skipped(*at)).map(|at| all[at]).collect();
    let records = &kept[..];
    let law = [Combine::Sum, Combine::Max]
        .into_iter()
        .filter_map(|combine| fit(records, combine))
        .min_by(|one, other| one.1.total_cmp(&other.1))?
        .0;
    let judged = |at: usize| if skipped(at) { None } else { judge(all[at], &law) };
    Some((law, (0..all.len()).map(judged).collect()))
}

/// Whether a token is one of those that the law is fitted to.
const fn calibrates(token: usize) -> bool {
    (token / TURN_TOKENS).is_multiple_of(2)
}

fn time_us(law: &DeviceLaw, batches: &[Batch]) -> f64 {
    batches.iter().map(|(reads, bytes)| law.time_us((*reads).into(), (*bytes).into())).sum()
}

/// Least absolute relative error by reweighted least squares; returns the law and that error.
fn fit(records: &[&Record], combine: Combine) -> Option<(DeviceLaw, f64)> {
    let mut points: Vec<(&[Batch], f64, f64)> = Vec::new();
    for record in records {
        let tokens = || (0..record.tokens()).filter(|token| calibrates(*token));
        let share = 1.0 / tokens().count().max(1) as f64;
        for token in tokens() {
            let us = quantile(&mut record.times_us[token].clone(), 0.5);
            // A token that was all cached says nothing.
            if us > 0.0 {
                points.push((&record.batches[token], us, share));
            }
        }
    }
    if points.len() < 16 {
        return None;
    }
    let mut law: Option<DeviceLaw> = None;
    for _ in 0..ROUNDS {
        let rows: Vec<[f64; 3]> = points
            .iter()
            .map(|(batches, us, _)| terms(batches, combine, law.as_ref()).map(|term| term / us))
            .collect();
        let weights: Vec<f64> = points
            .iter()
            .map(|(batches, us, share)| {
                let error = law.as_ref().map_or(1.0, |law| time_us(law, batches) / us - 1.0);
                share / error.abs().max(ERROR_FLOOR)
            })
            .collect();
        let [t0_us, a_us, us_per_mib] = least_squares(&rows, &weights);
        let b_mib_s = 1e6 / us_per_mib.max(1e-3);
        law = DeviceLaw::new(t0_us.min(1e6), a_us.min(1e6), b_mib_s, combine).ok();
    }
    let law = law?;
    let errors =
        points.iter().map(|(batches, us, share)| share * (time_us(&law, batches) / us - 1.0).abs());
    Some((law, errors.sum()))
}

/// What t0, a and 1/B (us per MiB) are multiplied by in the time of a token.
fn terms(batches: &[Batch], combine: Combine, law: Option<&DeviceLaw>) -> [f64; 3] {
    let mut terms = [0.0; 3];
    for (reads, bytes) in batches.iter().filter(|(reads, _)| *reads > 0) {
        let by_reads = law
            .is_none_or(|law| law.a_us() * f64::from(*reads) >= law.transfer_us(u64::from(*bytes)));
        terms[0] += 1.0;
        if combine == Combine::Sum || by_reads {
            terms[1] += f64::from(*reads);
        }
        if combine == Combine::Sum || !by_reads || law.is_none() {
            terms[2] += f64::from(*bytes) / MIB;
        }
    }
    terms
}

fn judge(record: &Record, law: &DeviceLaw) -> Option<Calibrated> {
    let tokens: Vec<usize> = (0..record.tokens()).filter(|token| !calibrates(*token)).collect();
    let mut errors = Vec::new();
    let mut predicted_us = 0.0;
    for token in &tokens {
        let us = quantile(&mut record.times_us[*token].clone(), 0.5);
        let predicted = time_us(law, &record.batches[*token]);
        predicted_us += predicted;
        if predicted > 0.0 {
            errors.push(us / predicted - 1.0);
        }
    }
    if errors.is_empty() {
        return None;
    }
    let repeats = tokens.iter().map(|token| record.times_us[*token].len()).min().unwrap_or(0);
    let mut means: Vec<f64> = (0..repeats)
        .map(|repeat| tokens.iter().map(|token| record.times_us[*token][repeat]).sum::<f64>())
        .collect();
    let middle = quantile(&mut means, 0.5);
    let (least, most) = (quantile(&mut means, 0.0), quantile(&mut means, 1.0));
    Some(Calibrated {
        io_us_per_token: predicted_us / tokens.len() as f64,
        error_median: quantile(&mut errors, 0.5),
        repeat_spread: (most - least) / middle.max(1e-9),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Tokens of two layers, with so many reads of so many bytes, timed by a law.
    fn record(law: &DeviceLaw, reads: u32, read_bytes: u32) -> Record {
        let mut record = Record::new(2);
        for token in 0..64 {
            let reads = reads + (token * 7) % 13;
            let batches = vec![(reads, reads * read_bytes), (reads / 2, reads / 2 * read_bytes)];
            record.times_us.push(vec![time_us(law, &batches); 3]);
            record.batches.push(batches);
        }
        record
    }

    #[test]
    fn finds_the_law_that_made_the_times_and_no_error() {
        for combine in [Combine::Sum, Combine::Max] {
            let law = DeviceLaw::new(30.0, 12.0, 1800.0, combine).unwrap();
            let records =
                [record(&law, 100, 4096), record(&law, 40, 30_000), record(&law, 4, 1 << 20)];
            let (found, rows) = calibrate(&records.each_ref(), &|_| false).unwrap();
            assert_eq!(found.combine(), combine);
            assert!((found.a_us() / law.a_us() - 1.0).abs() < 0.03, "{found:?}");
            assert!((found.b_mib_s() / law.b_mib_s() - 1.0).abs() < 0.03, "{found:?}");
            for row in rows {
                let row = row.unwrap();
                assert!(row.error_median.abs() < 0.01 && row.repeat_spread < 1e-9, "{row:?}");
            }
        }
        assert!(calibrate(&[], &|_| false).is_none());
    }
}
