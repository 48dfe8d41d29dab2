//! The numbers of a tensor, row by row, in any order: each row has its own stream.

use std::sync::OnceLock;

use crate::activity::Neurons;
use crate::random::{Purpose, fill_normal, named, stream};
use crate::residual::{LATENTS_OF_COLUMN, OwnRow, Reading, Residual, Writer, Writing};
use crate::shapes::Shape;
use crate::tensors::{Fill, Tensor};

/// What all tensors of a model are made from.
pub(crate) struct Maker<'a> {
    shape: &'a Shape,
    active: f64,
    seed: u64,
    residual: Residual,
    /// Of each layer, made when first asked for, and small.
    neurons: Vec<OnceLock<Neurons>>,
}

/// What the rows of one tensor are made from.
pub(crate) struct Rows<'a> {
    maker: &'a Maker<'a>,
    tensor: &'a Tensor,
    name: u64,
    kind: Kind,
}

enum Kind {
    Same(f32),
    WithoutCommon,
    Normal(f32),
    Thresholds(usize),
    Readers { layer: usize, reading: Reading },
    Writers { writing: Writing, targets: Vec<(u32, f32)> },
    Embeddings,
    Head,
    ProjectIn,
    ProjectOut,
}

/// Room for the rows of a thread.
#[derive(Default)]
pub(crate) struct Scratch {
    row: Vec<f32>,
    other: Vec<f32>,
}

impl<'a> Maker<'a> {
    pub(crate) fn new(shape: &'a Shape, active: f64, seed: u64) -> Self {
        let neurons = (0..shape.layers).map(|_| OnceLock::new()).collect();
        Self { shape, active, seed, residual: Residual::new(shape, seed), neurons }
    }

    fn neurons(&self, layer: usize) -> &Neurons {
        self.neurons[layer].get_or_init(|| Neurons::draw(self.shape, self.active, self.seed, layer))
    }

    /// Prepares the rows of a tensor.
    pub(crate) fn rows(&'a self, tensor: &'a Tensor) -> Rows<'a> {
        let name = named(&tensor.name);
        let kind = match tensor.fill {
            Fill::Ones => Kind::Same(1.0),
            Fill::Zeros => Kind::Same(0.0),
            Fill::WithoutCommon => Kind::WithoutCommon,
            Fill::Plain { layer } => Kind::Normal(self.residual.attention_deviation(layer) as f32),
            Fill::Positions => Kind::Normal(POSITION_DEVIATION),
            Fill::Thresholds { layer } => Kind::Thresholds(layer),
            Fill::Readers { layer } => {
                Kind::Readers { layer, reading: self.residual.reading(layer) }
            }
            Fill::Writers { layer, what } => {
                let columns = tensor.columns();
                let squares = match what {
                    Writer::Ffn => self.neurons(layer).squares,
                    Writer::Attention => columns as f64,
                };
                Kind::Writers {
                    writing: self.residual.writing(what, squares, columns),
                    targets: self.residual.targets(name, columns),
                }
            }
            Fill::Embeddings => Kind::Embeddings,
            Fill::Head => Kind::Head,
            Fill::ProjectIn => Kind::ProjectIn,
            Fill::ProjectOut => Kind::ProjectOut,
        };
        Rows { maker: self, tensor, name, kind }
    }
}

/// Deviation of learned positions, beside tokens of variance 1.
const POSITION_DEVIATION: f32 = 0.1;

impl Rows<'_> {
    /// Makes a row, which lies in `scratch` until the next one.
    pub(crate) fn make<'s>(&self, number: usize, scratch: &'s mut Scratch) -> &'s [f32] {
        let residual = &self.maker.residual;
        let Scratch { row, other } = scratch;
        row.resize(self.tensor.columns(), 0.0);
        let own = || stream(self.maker.seed, Purpose::Weights, [self.name, number as u64]);
        match &self.kind {
            Kind::Same(value) => row.fill(*value),
            Kind::WithoutCommon => {
                for (at, value) in row.iter_mut().enumerate() {
                    *value = if residual.common_sign(at) == 0.0 { 1.0 } else { 0.0 };
                }
            }
            Kind::Normal(deviation) => fill_normal(&mut own(), *deviation, row),
            Kind::Thresholds(layer) => {
                for (value, threshold) in row.iter_mut().zip(&self.maker.neurons(*layer).thresholds)
                {
                    *value = -threshold;
                }
            }
            Kind::Readers { layer, reading } => {
                let neurons = self.maker.neurons(*layer);
                let direction = residual.direction(*layer, neurons.clusters[number]);
                let threshold = neurons.thresholds[number];
                other.resize(row.len(), 0.0);
                let mut own = OwnRow { random: own(), direction: &direction, threshold };
                residual.reader(reading, &mut own, other, row);
            }
            Kind::Writers { writing, targets } => {
                fill_normal(&mut own(), writing.rest, row);
                other.resize(residual.deviations.len(), 0.0);
                residual.rotation.row(number, other);
                for (value, targets) in row.iter_mut().zip(targets.chunks_exact(LATENTS_OF_COLUMN))
                {
                    let sum: f32 = targets
                        .iter()
                        .map(|(latent, factor)| other[*latent as usize] * factor)
                        .sum();
                    *value += writing.latents * sum;
                }
            }
            Kind::Embeddings => {
                other.resize(row.len(), 0.0);
                residual.embedding(number, other, row);
            }
            Kind::Head => {
                other.resize(row.len(), 0.0);
                residual.head(number, other, row);
            }
            Kind::ProjectIn => {
                other.resize(row.len(), 0.0);
                residual.rotation.row(number, other);
                residual.embedding_rotation.apply(other, row);
            }
            Kind::ProjectOut => {
                other.clear();
                other.resize(row.len(), 0.0);
                residual
                    .embedding_rotation
                    .row(number, &mut other[..self.maker.shape.embedding_width()]);
                residual.rotation.apply(other, row);
            }
        }
        row
    }
}
