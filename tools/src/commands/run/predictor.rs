//! Who tells which neurons are active, and which will be.

use anyhow::{Context, Result, bail, ensure};
use lnp_model::{ExactPredictor, Model};
use lnp_predict::Predictors;
use lnp_run::ahead::HORIZON_MAX;
use lnp_run::{AheadChoice, AtQuality, ExactAndAhead, Predict};

use super::Args;

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

/// Who tells.
pub(super) struct Predictor {
    pub(super) predict: Box<dyn Predict>,
    pub(super) told: String,
    /// The operating points that layers ahead are predicted at, where the law does not choose them.
    pub(super) quality: f64,
    /// Whether layers may be read ahead.
    pub(super) ahead: bool,
    /// Bytes of what tells who is active, as a share of the FFN in f16.
    pub(super) bytes_share: f64,
}

impl Predictor {
    pub(super) fn of(args: &Args, model: &Model) -> Result<Self> {
        let wanted = args.ahead != AheadChoice::Layers(0);
        let exact = args.quality == Some(Quality::Exact);
        // Nothing of them is needed where all is told exactly and nothing is read ahead.
        let Some(path) = args.predictors.as_deref().filter(|_| wanted || !exact) else {
            ensure!(
                !matches!(args.quality, Some(Quality::Recall(_))),
                "--quality: only --predictors can name a part of what is active"
            );
            if let (AheadChoice::Layers(1..), None) = (args.ahead, &args.predictors) {
                bail!("--ahead: only --predictors can tell what layers ahead will need");
            }
            return Self::exact(model, None);
        };
        let named = || path.display().to_string();
        let predictors = Predictors::read(path)?;
        predictors.check_model(model.checkpoint(), model.config()).with_context(named)?;
        let quality = match args.quality {
            Some(Quality::Recall(recall)) => recall,
            _ => predictors.recall,
        };
        let farthest = predictors.predictors.iter().map(|predictor| predictor.horizon).max();
        let ahead = wanted && farthest > Some(0);
        if let AheadChoice::Layers(layers) = args.ahead {
            ensure!(
                !wanted || ahead,
                "{}: no predictors of layers ahead, as --ahead {layers} needs them; make them with `lnp predict \
                 --horizon 0,1,2`",
                path.display()
            );
        }
        if exact {
            return Ok(Self { quality, ahead, ..Self::exact(model, Some(predictors))? });
        }
        let told = format!("predicted, quality {quality}");
        let bytes_share = predictors.bytes_share(0);
        let predict = AtQuality::new(predictors, model.config(), quality).with_context(named)?;
        Ok(Self { predict: Box::new(predict), told, quality, ahead, bytes_share })
    }
    /// All that is active, from resident weights; layers ahead by `predictors`, where there are any.
    fn exact(model: &Model, predictors: Option<Predictors>) -> Result<Self> {
        let config = model.config();
        let exact = ExactPredictor::load(model.checkpoint(), config)?;
        let bytes_share =
            exact.resident_bytes() as f64 / lnp_predict::settings::ffn_bytes(config) as f64;
        let predict: Box<dyn Predict> = match predictors {
            Some(predictors) => Box::new(ExactAndAhead { exact, predictors }),
            None => Box::new(exact),
        };
        let told = "exact, from resident weights".to_owned();
        Ok(Self { predict, told, quality: 1.0, ahead: false, bytes_share })
    }
}
