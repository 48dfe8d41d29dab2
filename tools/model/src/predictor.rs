//! Which neurons are active: exactly, by computing the pre-activations from resident rows.
//!
//! A trained predictor would hold far less than these rows; the exact one makes results
//! independent of any predictor's quality.

use anyhow::{Context, Result, ensure};
use candle_core::{Device, Tensor};

use super::activation::Activation;
use super::checkpoint::Checkpoint;
use super::config::ModelConfig;
use super::dense_type::DenseOptions;
use super::loader::Loader;
use super::matrix::Matrix;

/// The rows that decide activity (gate, where there is one, else up; both with dReLU) of all layers, held
/// without loss: in f16 where the checkpoint is, else in f32. None of a layer whose neurons are all active.
pub struct ExactPredictor {
    layers: Vec<Layer>,
    neurons: usize,
    hidden: usize,
    resident_bytes: usize,
}

struct Layer {
    activation: Activation,
    /// None where every neuron is active, whatever the token.
    rows: Option<Rows>,
}

struct Rows {
    first: Matrix,
    /// The up rows, where they decide too.
    up: Option<Matrix>,
    /// What decides is to be above this.
    cut: f32,
    /// What |activation| is to be above instead, by neuron, where thresholds decide.
    limits: Option<Vec<f32>>,
}

impl ExactPredictor {
    /// Loads the deciding rows and their biases.
    ///
    /// # Errors
    /// Activations that make no neuron inactive; a missing tensor, one of another shape, or a failed
    /// read.
    pub fn load(checkpoint: &Checkpoint, config: &ModelConfig) -> Result<Self> {
        Self::by(Loader::new(checkpoint, DenseOptions::default()), config)
    }

    /// Bytes that [`Self::load`] will hold: no weights are read.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn bytes_needed(checkpoint: &Checkpoint, config: &ModelConfig) -> Result<usize> {
        let counted = Self::by(Loader::counting(checkpoint, DenseOptions::default()), config)?;
        Ok(counted.resident_bytes)
    }

    fn by(mut loader: Loader<'_>, config: &ModelConfig) -> Result<Self> {
        config.check_active(loader.checkpoint())?;
        let (neurons, hidden) = (config.neurons, config.hidden);
        let layers = (0..config.layers)
            .map(|layer| {
                let activation = config.activation_of(layer);
                let rows = Rows::load(&mut loader, config, layer, activation)?;
                Ok(Layer { activation, rows })
            })
            .collect::<Result<_>>()?;
        Ok(Self { layers, neurons, hidden, resident_bytes: loader.bytes() })
    }

    /// Bytes of the rows and biases held.
    pub fn resident_bytes(&self) -> usize {
        self.resident_bytes
    }

    /// Fills `out` with one list per token of `x` (row-major `[tokens][hidden]`, normalised): the
    /// ids, ascending, of the neurons whose pre-activation is above the activation's cut, or whose
    /// activation is above its threshold.
    ///
    /// Deterministic: the same `x` gives the same ids on the same machine, whatever the number of
    /// threads. A token fed alone and the same token fed among others may differ in neurons whose
    /// pre-activation is at the cut but for rounding.
    ///
    /// # Errors
    /// No such layer, or an `x` that is not whole tokens.
    pub fn active(&self, layer: usize, x: &[f32], out: &mut Vec<Vec<u32>>) -> Result<()> {
        self.active_and_cutoffs(layer, x, out, &mut Vec::new())
    }

    /// The same, and in `cutoffs` that of each token, of a layer that has them; of others it is empty then.
    ///
    /// # Errors
    /// As [`Self::active`].
    pub fn active_and_cutoffs(
        &self,
        layer: usize,
        x: &[f32],
        out: &mut Vec<Vec<u32>>,
        cutoffs: &mut Vec<f32>,
    ) -> Result<()> {
        let count = self.layers.len();
        let layer_of = self.layers.get(layer);
        let Layer { activation, rows } =
            layer_of.with_context(|| format!("layer {layer} of {count}"))?;
        let x = token_rows(x, self.hidden)?;
        out.resize_with(x.dim(0)?, Vec::new);
        out.iter_mut().for_each(Vec::clear);
        cutoffs.clear();
        let Some(rows) = rows else {
            out.iter_mut().for_each(|ids| ids.extend(0..self.neurons as u32));
            return Ok(());
        };
        let up = rows.up.as_ref().map(|up| up.forward(&x)).transpose()?;
        let first = rows.first.forward(&x)?;
        cutoffs.extend(activation.cutoffs(&first)?.into_iter().flatten());
        let deciding = match &rows.limits {
            Some(_) => activation.activated(&first)?,
            None => activation.deciding(first, up.as_ref())?,
        };
        let pre = deciding.flatten_all()?.to_vec1::<f32>()?;
        check_numbers(&pre).with_context(|| format!("layer {layer}"))?;
        for (ids, pre) in out.iter_mut().zip(pre.chunks_exact(self.neurons)) {
            let all = (0u32..).zip(pre);
            match &rows.limits {
                None => ids.extend(all.filter(|&(_, &pre)| pre > rows.cut).map(|(id, _)| id)),
                Some(limits) => {
                    let above = all.zip(limits).filter(|((_, pre), limit)| pre.abs() > **limit);
                    ids.extend(above.map(|((id, _), _)| id));
                }
            }
        }
        Ok(())
    }
}

impl Rows {
    /// The rows of a layer; none where the activation is zero nowhere and there are no thresholds.
    fn load(
        loader: &mut Loader<'_>,
        config: &ModelConfig,
        layer: usize,
        activation: Activation,
    ) -> Result<Option<Self>> {
        let limits = match &config.activity {
            Some(activity) => Some(activity.limits(loader.checkpoint(), config, layer)?),
            None => None,
        };
        let cut = match (&limits, activation.cut()) {
            (_, Ok(cut)) => cut,
            (Some(_), Err(_)) => 0.0,
            (None, Err(_)) => return Ok(None),
        };
        let names = config.ffn_tensors(layer);
        let bias = names.neuron_bias().map(String::as_str);
        let mut rows = |name: &str, bias| loader.matrix(name, bias, config.neurons, config.hidden);
        let both = activation == Activation::Drelu && names.gate.is_some();
        let first = rows(names.deciding(), bias)?;
        let up = both.then(|| rows(&names.up, names.up_bias.as_deref())).transpose()?;
        Ok(Some(Self { first, up, cut, limits }))
    }
}

/// Refuses values that are not numbers: a comparison with them would hide them.
pub(super) fn check_numbers(values: &[f32]) -> Result<()> {
    ensure!(
        !values.iter().any(|value| value.is_nan()),
        "an activation is not a number: is the checkpoint damaged?"
    );
    Ok(())
}

/// A flat row-major slice as a tensor [tokens, hidden].
pub(super) fn token_rows(x: &[f32], hidden: usize) -> Result<Tensor> {
    ensure!(
        !x.is_empty() && x.len().is_multiple_of(hidden),
        "FFN input of {} values is not whole tokens of {hidden}",
        x.len()
    );
    Ok(Tensor::from_slice(x, (x.len() / hidden, hidden), &Device::Cpu)?)
}
