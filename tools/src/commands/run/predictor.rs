//! Who tells which neurons are active, and which will be.

use anyhow::{Context, Result, bail, ensure};
use lnp_format::Pack;
use lnp_kernels::CpuFeatures;
use lnp_model::{Checkpoint, ExactPredictor, ModelConfig};
use lnp_predict::Predictors;
use lnp_run::ahead::HORIZON_MAX;
use lnp_run::stored::{Stored, StoredPredictors};
use lnp_run::{AheadChoice, Every, ExactAndAhead, Predict};

use super::Args;

/// The quality that is asked for where neither the caller nor the pack says one.
const QUALITY_USUAL: f64 = 0.99;

/// What `--quality` says.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Quality {
    Exact,
    Recall(f64),
}

pub(super) fn parse_quality(text: &str) -> Result<Quality> {
    if text == "exact" {
        return Ok(Quality::Exact);
    }
    super::super::perplexity::parse_quality(text).map(Quality::Recall)
}

/// `--ahead`, here and in `lnp replay`.
pub(in crate::commands) fn parse_ahead(text: &str) -> Result<AheadChoice> {
    match (text, text.parse::<usize>()) {
        ("auto", _) => Ok(AheadChoice::Auto),
        (_, Ok(layers)) if layers <= HORIZON_MAX => Ok(AheadChoice::Layers(layers)),
        _ => bail!("must be auto, 0, 1 or 2"),
    }
}

/// Predictors, and what is asked of them.
pub(super) struct Source<'p> {
    /// None where all is told exactly and nothing is read ahead.
    stored: Option<Stored<'p>>,
    /// Whether nobody is asked: all are needed.
    every: bool,
    exact: bool,
    quality: f64,
    ahead: bool,
}

/// Who tells.
pub(super) struct Predictor<'s> {
    pub(super) predict: Box<dyn Predict + 's>,
    pub(super) told: String,
    /// The operating points that layers ahead are predicted at, where the law does not choose them.
    pub(super) quality: f64,
    /// Bytes of what tells who is active, as a share of the FFN in f16.
    pub(super) bytes_share: f64,
    /// Whether it tells how much what it names matters.
    pub(super) tells_strengths: bool,
}

impl<'p> Source<'p> {
    /// Those of `--predictors`, else those of the pack.
    pub(super) fn of(
        args: &Args,
        (checkpoint, config): (&Checkpoint, &ModelConfig),
        pack: &Pack<'p>,
    ) -> Result<Self> {
        let named = || match &args.predictors {
            Some(path) => path.display().to_string(),
            None => args.pack.display().to_string(),
        };
        let (found, made_for) = match args.predictors.as_deref() {
            None => (Stored::of_pack(pack), made_for(pack)),
            Some(path) => {
                let predictors = Predictors::read(path)?;
                predictors.check_model(checkpoint, config).with_context(named)?;
                let stored = Stored::of_file(&predictors, config).with_context(named)?;
                (Some(stored), predictors.recall)
            }
        };
        let (quality, exact) = match args.quality {
            Some(Quality::Recall(recall)) => (recall, false),
            Some(Quality::Exact) => (made_for, true),
            None => (made_for, found.is_none()),
        };
        let wanted = args.ahead != AheadChoice::Layers(0);
        if let (None, Some(Quality::Recall(_))) = (&found, args.quality) {
            bail!(
                "--quality: only predictors can name a part of what is active; give some with --predictors or \
                 `lnp pack --predictors`"
            );
        }
        let ahead = wanted && found.is_some();
        if let (AheadChoice::Layers(layers @ 1..), false) = (args.ahead, ahead) {
            bail!(
                "{}: no predictors, as --ahead {layers} needs them; make them with `lnp predict`",
                named()
            );
        }
        if let (false, Some(layer)) = (exact, found.as_ref().and_then(Stored::missing)) {
            bail!("{}: no predictor of layer {layer} itself", named());
        }
        let stored = found.filter(|_| !exact || ahead);
        Ok(Self { stored, every: false, exact, quality, ahead })
    }

    /// Every neuron, always.
    pub(super) fn every(args: &Args) -> Result<Self> {
        ensure!(
            args.predictors.is_none() && args.quality.is_none() && args.leave_out.is_none(),
            "--strategy dense reads all there is: no --predictors, --quality or --leave-out"
        );
        Ok(Self { stored: None, every: true, exact: false, quality: 1.0, ahead: false })
    }

    /// Whether layers may be read ahead.
    pub(super) fn ahead(&self) -> bool {
        self.ahead
    }

    /// Whether what is needed is told exactly, from rows in memory.
    pub(super) fn exact(&self) -> bool {
        self.exact
    }

    /// Bytes that it will hold, but for what is in the pack's index.
    ///
    /// # Errors
    /// As [`ExactPredictor::load`].
    pub(super) fn bytes_needed(
        &self,
        checkpoint: &Checkpoint,
        config: &ModelConfig,
    ) -> Result<usize> {
        let of_file = match &self.stored {
            Some(Stored::Sections(_, sections)) => {
                sections.iter().map(|section| section.bytes.len()).sum()
            }
            _ => 0,
        };
        let exact = if self.exact { ExactPredictor::bytes_needed(checkpoint, config)? } else { 0 };
        Ok(of_file + exact)
    }

    /// Memory for the predictors to be computed in.
    pub(super) fn memory(&self, features: CpuFeatures) -> Result<Vec<u8>> {
        self.stored.as_ref().map_or(Ok(Vec::new()), |stored| stored.memory(features))
    }

    /// Makes them ready.
    pub(super) fn predictor<'s>(
        &'s self,
        (checkpoint, config): (&Checkpoint, &ModelConfig),
        features: CpuFeatures,
        memory: &'s mut [u8],
    ) -> Result<Predictor<'s>> {
        let quality = self.quality;
        if self.every {
            let (neurons, hidden) = (config.neurons, config.hidden);
            return Ok(Predictor {
                predict: Box::new(Every { neurons, hidden }),
                told: "every neuron".to_owned(),
                quality,
                bytes_share: 0.0,
                tells_strengths: false,
            });
        }
        let stored = self.stored.as_ref();
        let own = match stored {
            Some(stored) => Some(StoredPredictors::new(stored, quality, features, memory)?),
            None => None,
        };
        let (predict, told, bytes_share): (Box<dyn Predict + 's>, _, _) = match (own, self.exact) {
            (Some(own), false) => {
                let bytes_share = stored.map_or(0.0, |stored| stored.bytes_share(0));
                (Box::new(own), format!("predicted, quality {quality}"), bytes_share)
            }
            (own, _) => {
                let exact = ExactPredictor::load(checkpoint, config)?;
                let resident_bytes = exact.resident_bytes() as f64;
                let bytes_share = resident_bytes / lnp_predict::settings::ffn_bytes(config) as f64;
                let predict: Box<dyn Predict + 's> = match own {
                    Some(ahead) => Box::new(ExactAndAhead { exact, ahead }),
                    None => Box::new(exact),
                };
                (predict, "exact, from resident weights".to_owned(), bytes_share)
            }
        };
        let tells_strengths = !self.exact && stored.is_some_and(Stored::tells_strengths);
        Ok(Predictor { predict, told, quality, bytes_share, tells_strengths })
    }
}

/// The quality that a pack's predictors were made for, by its provenance.
fn made_for(pack: &Pack<'_>) -> f64 {
    let told = pack.provenance().value("predictors.recall").and_then(|recall| recall.parse().ok());
    told.filter(|recall| (0.0..=1.0).contains(recall)).unwrap_or(QUALITY_USUAL)
}
