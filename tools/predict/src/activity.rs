//! Thresholds for activations that are zero nowhere: learned from a profile for a share of the neurons, judged on text
//! apart, kept in a file, and in the provenance of packs.
//!
//! The file is JSON: `format` = [`FORMAT`], `model` and `sources` (the model's files by SHA-256), `share`, `measure` (`magnitude`
//! or `strength`), `thresholds` (one a layer, what the measure of an active neuron is above), `tokens` and `texts` that
//! they were learned from.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use lnp_common::files::{read_text, write_text};
use lnp_model::activity::{Activity, Measure, down_norms};
use lnp_model::perplexity::{Loss, Windows, loss};
use lnp_model::{Checkpoint, DenseFfn, FeedForward, Model, ModelConfig, Source};
use serde::{Deserialize, Serialize};

/// The value of the entry `format`.
pub const FORMAT: &str = "lnp-activity-v1";
/// Longest file, bytes.
const BYTES_MAX: u64 = 1 << 24;
/// Of so many windows the last is for judging.
pub const JUDGE_EVERY: usize = 6;
/// Values are counted by the upper bits of their f32: exponent, and this many of the fraction. A threshold is exact to a
/// part in 256.
const BINS: usize = 1 << 16;
const BIN_SHIFT: u32 = 15;

/// Thresholds, and where they come from.
#[derive(Debug, Clone, PartialEq)]
pub struct ActivityFile {
    /// Name of the model.
    pub model: String,
    /// The files of the model.
    pub sources: Vec<Source>,
    /// The thresholds.
    pub activity: Activity,
    /// Tokens that they were learned from.
    pub tokens: usize,
    /// Names of the texts.
    pub texts: Vec<String>,
}

/// What thresholds came to on text that they were not learned from.
#[derive(Debug, Clone, PartialEq)]
pub struct Judged {
    /// Share of the neurons that was active, by layer.
    pub active_share: Vec<f64>,
    /// Of the whole FFN.
    pub dense: Loss,
    /// Of what is active.
    pub active: Loss,
}

/// Learns thresholds from a model's text: `share` (between 0 and 1) of all (token, neuron) pairs of a layer are above.
/// `progress` is told the number of tokens fed.
///
/// # Errors
/// An activation that has zeros of its own, or a failed forward pass.
pub fn learn(
    model: &Model,
    windows: &Windows,
    share: f64,
    measure: Measure,
    progress: &mut dyn FnMut(usize),
) -> Result<Activity> {
    let config = model.config();
    let activity = |thresholds| Activity { share, measure, thresholds };
    // Before the model is run, which takes long.
    activity(vec![0.0; config.layers]).check(config)?;
    let scales = match measure {
        Measure::Magnitude => None,
        Measure::Strength => {
            let norms = |layer| down_norms(model.checkpoint(), config, layer);
            Some((0..config.layers).map(norms).collect::<Result<_>>()?)
        }
    };
    let dense = DenseFfn::load(model.checkpoint(), config)?;
    let layers = vec![vec![0; BINS]; config.layers];
    let mut counting = Counting { dense, scales, neurons: config.neurons, layers };
    loss(model, &mut counting, windows, progress)?;
    Ok(activity(counting.layers.iter().map(|bins| threshold(bins, share)).collect()))
}

/// What thresholds cost on some text; `progress` is told the number of tokens fed, of twice as many.
///
/// # Errors
/// As [`learn`].
pub fn judge(
    model: &Model,
    windows: &Windows,
    activity: &Activity,
    progress: &mut dyn FnMut(usize),
) -> Result<Judged> {
    let mut config = model.config().clone();
    config.activity = Some(activity.clone());
    let mut whole = DenseFfn::load(model.checkpoint(), model.config())?;
    let dense = loss(model, &mut whole, windows, progress)?;
    drop(whole);
    let mut ffn = DenseFfn::load(model.checkpoint(), &config)?;
    ffn.start_recording();
    let active = loss(model, &mut ffn, windows, &mut |fed| progress(windows.tokens() + fed))?;
    let pairs = (windows.tokens() * config.neurons).max(1) as f64;
    let ones = |bits: &Vec<u8>| bits.iter().map(|byte| u64::from(byte.count_ones())).sum::<u64>();
    let active_share = ffn.take_recording().iter().map(|bits| ones(bits) as f64 / pairs).collect();
    Ok(Judged { active_share, dense, active })
}

/// The whole FFN in memory, whose activations are counted by magnitude.
struct Counting {
    dense: DenseFfn,
    /// What each neuron's magnitude is multiplied by, by layer.
    scales: Option<Vec<Vec<f32>>>,
    neurons: usize,
    layers: Vec<Vec<u64>>,
}

impl FeedForward for Counting {
    fn forward(&mut self, layer: usize, x: &[f32], y: &mut [f32]) -> Result<()> {
        let Self { dense, scales, neurons, layers } = self;
        let (bins, scales) = (&mut layers[layer], scales.as_ref().map(|scales| &scales[layer]));
        dense.forward_chosen(layer, x, y, &mut |activations| {
            for token in activations.chunks(*neurons) {
                for (neuron, value) in token.iter().enumerate() {
                    let measure = value.abs() * scales.map_or(1.0, |scales| scales[neuron]);
                    bins[(measure.to_bits() >> BIN_SHIFT) as usize] += 1;
                }
            }
        })
    }
}

/// The value that this share of what was counted is above: the end of the bin in which it lies.
fn threshold(bins: &[u64], share: f64) -> f32 {
    let wanted = (share * bins.iter().sum::<u64>() as f64) as u64;
    let mut above = 0;
    for (bin, count) in bins.iter().enumerate().rev() {
        if above + count > wanted {
            // Values of the bin itself are not above its end.
            let end = ((bin as u32 + 1) << BIN_SHIFT) - 1;
            return f32::from_bits(end);
        }
        above += count;
    }
    0.0
}

/// The file, as it stands there.
#[derive(Debug, Serialize, Deserialize)]
struct Stored {
    format: String,
    model: String,
    sources: Vec<StoredSource>,
    share: f64,
    measure: String,
    thresholds: Vec<f32>,
    tokens: usize,
    texts: Vec<String>,
}

#[derive(Debug, Serialize, Deserialize)]
struct StoredSource {
    file: String,
    bytes: u64,
    sha256: String,
}

impl ActivityFile {
    /// Reads a file.
    ///
    /// # Errors
    /// It cannot be read, is of another format, or contradicts itself.
    pub fn read(path: &Path) -> Result<Self> {
        let read = || -> Result<Self> {
            let stored: Stored = serde_json::from_str(&read_text(path, BYTES_MAX)?)?;
            let found = &stored.format;
            ensure!(found == FORMAT, "format is '{found}', this program reads '{FORMAT}'");
            let (share, thresholds) = (stored.share, stored.thresholds);
            let activity = Activity { share, measure: stored.measure.parse()?, thresholds };
            let source = |source: StoredSource| Source {
                file_name: source.file,
                bytes: source.bytes,
                sha256_hex: source.sha256,
            };
            Ok(Self {
                model: stored.model,
                sources: stored.sources.into_iter().map(source).collect(),
                activity,
                tokens: stored.tokens,
                texts: stored.texts,
            })
        };
        read().with_context(|| {
            let path = path.display();
            format!("{path}: not usable thresholds; make them with `lnp predict --activity SHARE`")
        })
    }

    /// Writes the file, which appears whole or not at all.
    ///
    /// # Errors
    /// A failed write.
    pub fn write(&self, path: &Path) -> Result<()> {
        let source = |source: &Source| StoredSource {
            file: source.file_name.clone(),
            bytes: source.bytes,
            sha256: source.sha256_hex.clone(),
        };
        let stored = Stored {
            format: FORMAT.to_owned(),
            model: self.model.clone(),
            sources: self.sources.iter().map(source).collect(),
            share: self.activity.share,
            measure: self.activity.measure.to_string(),
            thresholds: self.activity.thresholds.clone(),
            tokens: self.tokens,
            texts: self.texts.clone(),
        };
        let text = serde_json::to_string_pretty(&stored)? + "\n";
        write_text(path, &text)
    }

    /// Checks that they are of a model's weights; hashes the model's files.
    ///
    /// # Errors
    /// Another shape or activation, or other files.
    pub fn check_model(&self, checkpoint: &Checkpoint, config: &ModelConfig) -> Result<()> {
        self.activity.check(config)?;
        let same = checkpoint.sources()? == self.sources;
        ensure!(same, "thresholds of other weights: learn them from this model");
        Ok(())
    }
}

/// What a pack's provenance says of thresholds.
pub fn provenance(activity: &Activity) -> BTreeMap<String, String> {
    let all: Vec<String> = activity.thresholds.iter().map(f32::to_string).collect();
    [
        ("activity.share", activity.share.to_string()),
        ("activity.measure", activity.measure.to_string()),
        ("activity.thresholds", all.join(" ")),
    ]
    .into_iter()
    .map(|(key, value)| (key.to_owned(), value))
    .collect()
}

/// The thresholds that a pack's provenance tells, if it does; `value` gives that of a key.
///
/// # Errors
/// Entries that are no thresholds.
pub fn of_provenance<'v>(value: impl Fn(&str) -> Option<&'v str>) -> Result<Option<Activity>> {
    let Some(share) = value("activity.share") else { return Ok(None) };
    let get = |key: &str| value(key).with_context(|| format!("provenance has no `{key}`"));
    let number = || "provenance: `activity.thresholds` are no numbers";
    let thresholds = get("activity.thresholds")?.split_whitespace();
    Ok(Some(Activity {
        share: share.parse().context("provenance: `activity.share` is no number")?,
        measure: get("activity.measure")?.parse().context("provenance: `activity.measure`")?,
        thresholds: thresholds.map(str::parse).collect::<Result<_, _>>().with_context(number)?,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_threshold_is_the_quantile() {
        for share in [0.01, 0.3, 0.5, 0.99] {
            let values: Vec<f32> =
                (1..=10_000).map(|at| (at as f32 / 1000.0).exp() - 1.0).collect();
            let mut bins = vec![0; BINS];
            values.iter().for_each(|value| bins[(value.to_bits() >> BIN_SHIFT) as usize] += 1);
            let found = threshold(&bins, share);
            let above = values.iter().filter(|value| **value > found).count() as f64;
            assert!(above <= share * 1e4 && above >= 0.98 * share * 1e4 - 1.0, "{share}: {above}");
        }
        // all alike, and none at all
        let mut bins = vec![0; BINS];
        bins[(1.5_f32.to_bits() >> BIN_SHIFT) as usize] = 7;
        assert!(threshold(&bins, 0.5) >= 1.5);
        assert_eq!(threshold(&vec![0; BINS], 0.5), 0.0);
    }

    #[test]
    fn what_a_pack_tells_is_what_was_learned() {
        let thresholds = vec![0.1, 1.0e-9, 0.333_333_34, 65504.0];
        for measure in [Measure::Magnitude, Measure::Strength] {
            let activity = Activity { share: 0.3, measure, thresholds: thresholds.clone() };
            let entries = provenance(&activity);
            let told = of_provenance(|key| entries.get(key).map(String::as_str)).unwrap();
            assert_eq!(told, Some(activity));
        }
        assert_eq!(of_provenance(|_| None).unwrap(), None);
        assert!(of_provenance(|key| (key == "activity.share").then_some("0.3")).is_err());
        assert!(of_provenance(|_| Some("often")).is_err());
    }
}
