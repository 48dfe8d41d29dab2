//! What Gemma 3n has around its layers: hidden states in several streams, of which a layer computes one and
//! corrects the others by it (AltUp, arXiv 2301.13310), and inputs of each layer's own, by token.

use anyhow::{Context, Result};
use candle_core::{D, Device, Module, Tensor};

use super::activation::Activation;
use super::architecture::{NormKind, StreamsAbout};
use super::checkpoint::Checkpoint;
use super::config::ModelConfig;
use super::loader::{Loader, Norm};
use super::matrix::Matrix;
use super::stored::to_f32;

/// Least mean square that a stream is scaled by.
const SQUARE_MIN: f32 = 1e-5;

/// The weights of it.
pub(crate) struct Streams {
    about: StreamsAbout,
    activation: Activation,
    /// From the embeddings to the streams from the second on.
    into: Vec<Matrix>,
    /// From these streams to what is averaged at the end.
    out: Vec<Matrix>,
    own_inputs: OwnInputs,
    layers: Vec<Layer>,
}

/// Where the inputs of each layer's own come from.
struct OwnInputs {
    /// Its rows, one a token, are read from the file: larger than all else, and hardly used.
    table: Checkpoint,
    name: String,
    table_scale: f64,
    projection: Matrix,
    projection_scale: f64,
    norm: Norm,
}

struct Layer {
    router_norm: Norm,
    router: Matrix,
    prediction: Matrix,
    correction: Matrix,
    /// Of the computed stream, for the gate below.
    scale: Option<Tensor>,
    gate: Matrix,
    back: Matrix,
    norm: Norm,
}

impl Streams {
    pub(crate) fn load(
        loader: &mut Loader<'_>,
        config: &ModelConfig,
        about: StreamsAbout,
    ) -> Result<Self> {
        let ModelConfig { hidden, norm_eps, layers, .. } = *config;
        let StreamsAbout { count, input_width, input_vocab, .. } = about;
        let name = |end: &str| format!("{}{end}", config.prefix);
        let mut square = |list: &str| -> Result<Vec<Matrix>> {
            let one = |at: usize| name(&format!("{list}.{at}.weight"));
            (1..count).map(|at| loader.matrix(&one(at - 1), None, hidden, hidden)).collect()
        };
        let (into, out) = (square("altup_projections")?, square("altup_unembed_projections")?);
        let table = name("embed_tokens_per_layer.weight");
        loader.on_demand(&table, &[input_vocab, layers * input_width])?;
        let projection = name("per_layer_model_projection.weight");
        let norm = name("per_layer_projection_norm");
        let own_inputs = OwnInputs {
            table: loader.checkpoint().clone(),
            name: table,
            table_scale: (input_width as f64).sqrt(),
            projection: loader.matrix(&projection, None, layers * input_width, hidden)?,
            projection_scale: 1.0 / (hidden as f64).sqrt(),
            norm: loader.norm(&norm, input_width, NormKind::Rms, norm_eps)?,
        };
        let layers = (0..layers)
            .map(|layer| Layer::load(loader, config, &about, &config.layer_prefix(layer)))
            .collect::<Result<_>>()?;
        Ok(Self { about, activation: config.activation, into, out, own_inputs, layers })
    }

    /// The streams of some tokens, from their embeddings [tokens, hidden].
    pub(crate) fn begin(&self, embedded: &Tensor, tokens: &[u32]) -> Result<Flow<'_>> {
        let mut streams = vec![embedded.clone()];
        for matrix in &self.into {
            streams.push(as_large(&matrix.forward(embedded)?, embedded)?);
        }
        let inputs = self.own_inputs.of(embedded, tokens, &self.about)?;
        Ok(Flow { own: self, streams, inputs })
    }
}

/// The streams of some tokens on their way through the layers.
pub(crate) struct Flow<'s> {
    own: &'s Streams,
    /// [tokens, hidden] each.
    streams: Vec<Tensor>,
    /// [tokens, layers, input_width].
    inputs: Tensor,
}

impl Flow<'_> {
    /// Predicts what the streams will be after a layer; returns the one that the layer computes from.
    pub(crate) fn predict(&mut self, layer: usize) -> Result<Tensor> {
        let (own, count) = (&self.own.layers[layer], self.streams.len());
        let routed = own.routed(&self.streams[self.own.about.active])?;
        // [tokens, count of each stream, count of what it is made of]
        let shares = own.prediction.forward(&routed)?.reshape(((), count, count))?;
        let predicted = (0..count).map(|to| -> Result<Tensor> {
            let mut sum = self.streams[to].clone();
            for (from, stream) in self.streams.iter().enumerate() {
                let share = shares.narrow(1, to, 1)?.narrow(2, from, 1)?.squeeze(2)?;
                sum = (sum + stream.broadcast_mul(&share)?)?;
            }
            Ok(sum)
        });
        self.streams = predicted.collect::<Result<_>>()?;
        Ok(self.streams[self.own.about.active].clone())
    }

    /// Corrects the streams by what the layer made of that one.
    pub(crate) fn correct(&mut self, layer: usize, computed: &Tensor) -> Result<()> {
        let (about, own) = (&self.own.about, &self.own.layers[layer]);
        let off = (computed - &self.streams[about.active])?;
        let shares = (own.correction.forward(&own.routed(computed)?)? + 1.0)?;
        for (at, stream) in self.streams.iter_mut().enumerate() {
            *stream = (off.broadcast_mul(&shares.narrow(1, at, 1)?)? + &*stream)?;
        }
        let mut x = self.streams[about.active].clone();
        if let Some(scale) = &own.scale {
            x = x.broadcast_mul(scale)?;
        }
        let input = self.inputs.narrow(1, layer, 1)?.squeeze(1)?;
        let gated = (self.own.activation.activated(&own.gate.forward(&x)?)? * input)?;
        let more = own.norm.forward(&own.back.forward(&gated)?)?;
        for stream in self.streams.iter_mut().skip(1) {
            *stream = (&*stream + &more)?;
        }
        Ok(())
    }

    /// What the streams come to [tokens, hidden].
    pub(crate) fn end(self) -> Result<Tensor> {
        let [first, others @ ..] = &self.streams[..] else { return Ok(self.inputs) };
        let mut sum = first.clone();
        for (matrix, stream) in self.own.out.iter().zip(others) {
            sum = (sum + as_large(&matrix.forward(stream)?, first)?)?;
        }
        Ok((sum / self.streams.len() as f64)?)
    }
}

impl OwnInputs {
    /// [tokens, layers, input_width].
    fn of(&self, embedded: &Tensor, tokens: &[u32], about: &StreamsAbout) -> Result<Tensor> {
        let mut rows = Vec::new();
        for id in tokens {
            // ids beyond the table have its first row
            let row = Some(*id as usize).filter(|row| *row < about.input_vocab).unwrap_or(0);
            let (dtype, bytes) = self.table.read_rows_raw(&self.name, row..row + 1)?;
            let row = to_f32(dtype, &bytes);
            rows.extend(row.with_context(|| format!("tensor `{}` is {dtype}", self.name))?);
        }
        let looked_up =
            Tensor::from_vec(rows, (tokens.len(), (), about.input_width), &Device::Cpu)?;
        let projected = (self.projection.forward(embedded)? * self.projection_scale)?;
        let projected = self.norm.forward(&projected.reshape(looked_up.shape())?)?;
        Ok(((projected + (looked_up * self.table_scale)?)? / 2f64.sqrt())?)
    }
}

impl Layer {
    fn load(
        loader: &mut Loader<'_>,
        config: &ModelConfig,
        about: &StreamsAbout,
        prefix: &str,
    ) -> Result<Self> {
        let ModelConfig { hidden, norm_eps, .. } = *config;
        let (count, width) = (about.count, about.input_width);
        let mut matrix = |name: &str, output: usize, input: usize| {
            loader.matrix(&format!("{prefix}{name}.weight"), None, output, input)
        };
        let router = matrix("altup.modality_router", count, hidden)?;
        let prediction = matrix("altup.prediction_coefs", count * count, count)?;
        let correction = matrix("altup.correction_coefs", count, count)?;
        let gate = matrix("per_layer_input_gate", width, hidden)?;
        let back = matrix("per_layer_projection", hidden, width)?;
        let scale = format!("{prefix}altup.correct_output_scale");
        let scale = about.scales.then(|| loader.tensor(&scale, &[hidden])).transpose()?;
        let mut norm =
            |name: &str| loader.norm(&format!("{prefix}{name}"), hidden, NormKind::Rms, norm_eps);
        let (router_norm, norm) = (norm("altup.router_norm")?, norm("post_per_layer_input_norm")?);
        Ok(Self { router_norm, router, prediction, correction, scale, gate, back, norm })
    }

    /// What the shares of the streams go by [tokens, count].
    fn routed(&self, x: &Tensor) -> Result<Tensor> {
        let hidden = x.dim(1)? as f64;
        let normed = (self.router_norm.forward(x)? / hidden)?;
        Ok(self.router.forward(&normed)?.tanh()?)
    }
}

/// `x` with the root mean square of `like`, by token.
fn as_large(x: &Tensor, like: &Tensor) -> Result<Tensor> {
    let square = |x: &Tensor| x.sqr()?.mean_keepdim(D::Minus1);
    let factor = (square(like)?.sqrt()? / square(x)?.maximum(SQUARE_MIN)?.sqrt()?)?;
    Ok(x.broadcast_mul(&factor)?)
}
