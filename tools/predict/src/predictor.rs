//! One predictor: from an FFN input to the neurons that will be active, in a layer or one of the next.

use std::fmt;

use anyhow::{Context, Result, ensure};
use half::f16;

use crate::linear::{product, view};
use crate::numbers::Matrix;
use crate::points::Point;

/// What stands between the two factors of a low-rank map.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum Between {
    /// Nothing: the map is linear, and a bias of the first factor is part of the offsets.
    #[default]
    Nothing,
    /// relu(reduce x + bias), as PowerInfer has it.
    Relu {
        /// `[rank]`, numbers that f16 holds; none where there is none.
        bias: Option<Vec<f32>>,
    },
}

/// What scores are computed from.
#[derive(Debug, Clone, PartialEq)]
pub enum Body {
    /// expand (reduce x), or with a ReLU between.
    LowRank {
        /// `[rank, hidden]`.
        reduce: Matrix,
        /// `[neurons, rank]`.
        expand: Matrix,
        /// Nothing, unless others made it so.
        between: Between,
    },
    /// The deciding rows themselves, `[neurons, hidden]`: in few bits, or exact.
    Rows(Matrix),
}

impl Body {
    fn matrices(&self) -> [Option<&Matrix>; 2] {
        match self {
            Self::LowRank { reduce, expand, .. } => [Some(reduce), Some(expand)],
            Self::Rows(rows) => [Some(rows), None],
        }
    }

    /// Bytes of the matrices, and of a bias between them in f16.
    pub fn bytes(&self) -> usize {
        let matrices = self.matrices().into_iter().flatten();
        let bias = self.reduce_bias().map_or(0, |bias| 2 * bias.len());
        matrices.map(|matrix| matrix.bytes().len()).sum::<usize>() + bias
    }

    /// The bias of the factor that meets the input, where a ReLU keeps it from being part of the offsets.
    pub fn reduce_bias(&self) -> Option<&[f32]> {
        match self {
            Self::LowRank { between: Between::Relu { bias }, .. } => bias.as_deref(),
            _ => None,
        }
    }

    /// The rank of a low-rank one.
    pub fn rank(&self) -> Option<usize> {
        match self {
            Self::LowRank { reduce, .. } => Some(reduce.rows()),
            Self::Rows(_) => None,
        }
    }

    /// The matrices in f32, to compute with.
    pub(crate) fn decode(&self) -> Decoded {
        let (first, second) = match self {
            Self::LowRank { reduce, expand, .. } => {
                (reduce, Some((expand.decode(), expand.columns())))
            }
            Self::Rows(rows) => (rows, None),
        };
        let between = match self {
            Self::LowRank { between, .. } => between.clone(),
            Self::Rows(_) => Between::Nothing,
        };
        Decoded { first: (first.decode(), first.columns()), between, second }
    }
}

/// Its name in tables and files.
impl fmt::Display for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use crate::numbers::Numbers;
        match self {
            Self::LowRank { .. } => f.write_str("low-rank"),
            Self::Rows(rows) => match rows.numbers() {
                Numbers::F32 | Numbers::F16 => f.write_str("exact"),
                _ => f.write_str("rows"),
            },
        }
    }
}

/// Matrices in f32, each with its columns.
#[derive(Debug, Clone)]
pub(crate) struct Decoded {
    first: (Vec<f32>, usize),
    between: Between,
    second: Option<(Vec<f32>, usize)>,
}

impl Decoded {
    /// Scores without an offset, row-major `[tokens][neurons]`.
    pub(crate) fn scores(&self, x: &[f32]) -> Vec<f32> {
        let (first, columns) = &self.first;
        let mut found = product(view(x, *columns), view(first, *columns).transpose());
        let Some((second, rank)) = &self.second else { return found };
        if let Between::Relu { bias } = &self.between {
            for token in found.chunks_mut(*rank) {
                let biases = bias.iter().flatten().copied().chain(std::iter::repeat(0.0));
                token
                    .iter_mut()
                    .zip(biases)
                    .for_each(|(value, bias)| *value = (*value + bias).max(0.0));
            }
        }
        product(view(&found, *rank), view(second, *rank).transpose())
    }
}

/// A predictor of one layer.
#[derive(Debug, Clone)]
pub struct Predictor {
    /// The layer whose active neurons it predicts.
    pub layer: usize,
    /// How many layers ahead: the input is that of layer `layer - horizon`.
    pub horizon: usize,
    body: Body,
    /// What is added to the scores, by neuron: one list for all operating points, or one for each.
    offsets: Vec<Vec<f32>>,
    /// What makes a score above 0 an estimate of the neuron's strength, by neuron; none where strengths are not told.
    strength_scales: Option<Vec<f32>>,
    points: Vec<Point>,
    decoded: Decoded,
}

impl Predictor {
    /// Puts a predictor together. Offsets are rounded to f16, as a file has them.
    ///
    /// # Errors
    /// Parts that do not fit together, or an offset that f16 does not hold.
    pub fn new(
        (layer, horizon): (usize, usize),
        body: Body,
        mut offsets: Vec<Vec<f32>>,
        points: Vec<Point>,
    ) -> Result<Self> {
        let neurons = match &body {
            Body::LowRank { reduce, expand, .. } => {
                ensure!(reduce.rows() == expand.columns(), "two factors of different ranks");
                let bias = body.reduce_bias();
                let fits = bias.is_none_or(|bias| {
                    let held =
                        |value: &f32| value.is_finite() && f16::from_f32(*value).to_f32() == *value;
                    bias.len() == reduce.rows() && bias.iter().all(held)
                });
                ensure!(fits, "a bias between the factors does not fit them, or not into f16");
                expand.rows()
            }
            Body::Rows(rows) => rows.rows(),
        };
        ensure!(
            offsets.len() == 1 || offsets.len() == points.len(),
            "{} offsets for {} operating points",
            offsets.len(),
            points.len()
        );
        for offset in &mut offsets {
            ensure!(offset.len() == neurons, "{} offsets of {neurons} neurons", offset.len());
            offset.iter_mut().for_each(|value| *value = f16::from_f32(*value).to_f32());
            let sound = offset.iter().all(|value| value.is_finite());
            ensure!(sound, "an offset of the predictor does not fit into f16");
        }
        let ascend = points.is_sorted_by(|a, b| a.quality < b.quality);
        ensure!(ascend, "operating points must ascend");
        let decoded = body.decode();
        Ok(Self { layer, horizon, body, offsets, strength_scales: None, points, decoded })
    }

    /// The same, telling strengths: coefficient times |down column|, as a score times the scale of its neuron. Scales are
    /// rounded to f16.
    ///
    /// # Errors
    /// Not a scale for each neuron, or one that f16 does not hold.
    pub fn telling_strengths(mut self, mut scales: Vec<f32>) -> Result<Self> {
        let neurons = self.offsets.first().map_or(0, Vec::len);
        ensure!(scales.len() == neurons, "{} scales of {neurons} neurons", scales.len());
        scales.iter_mut().for_each(|scale| *scale = f16::from_f32(*scale).to_f32());
        let sound = scales.iter().all(|scale| scale.is_finite());
        ensure!(sound, "a scale of strength does not fit into f16");
        self.strength_scales = Some(scales);
        Ok(self)
    }

    /// What makes a score above 0 an estimate of the neuron's strength, by neuron.
    pub fn strength_scales(&self) -> Option<&[f32]> {
        self.strength_scales.as_deref()
    }

    /// The same with its only operating point of this quality.
    pub(crate) fn of_quality(mut self, quality: f32) -> Self {
        self.points.truncate(1);
        self.points.iter_mut().for_each(|point| point.quality = quality);
        self
    }

    /// What scores are computed from.
    pub fn body(&self) -> &Body {
        &self.body
    }

    /// Operating points, by ascending quality.
    pub fn points(&self) -> &[Point] {
        &self.points
    }

    /// What is added to the scores: one list for all operating points, or one for each.
    pub fn offsets(&self) -> &[Vec<f32>] {
        &self.offsets
    }

    /// Whether each neuron has a bias of its own at each operating point.
    pub fn by_neuron(&self) -> bool {
        self.offsets.len() > 1
    }

    /// Bytes that have to be in memory at one operating point: matrices, and in f16 one offset and what tells strengths.
    pub fn bytes(&self) -> usize {
        let lists = [self.offsets.first().map(Vec::len), self.strength_scales().map(<[f32]>::len)];
        self.body.bytes() + lists.into_iter().flatten().map(|values| 2 * values).sum::<usize>()
    }

    /// The first operating point of at least this quality, or the last.
    pub fn point_of(&self, quality: f64) -> usize {
        // what was written as f32 is asked for as f64
        let enough = |point: &Point| f64::from(point.quality) >= quality - 1e-6;
        let last = self.points.len().saturating_sub(1);
        self.points.iter().position(enough).unwrap_or(last)
    }

    /// What scores of an operating point are compared with.
    ///
    /// # Errors
    /// No such point.
    pub fn threshold(&self, point: usize) -> Result<f32> {
        let found =
            self.points.get(point).with_context(|| format!("no operating point {point}"))?;
        Ok(found.threshold)
    }

    /// How strongly each neuron is predicted to be active at an operating point, row-major
    /// `[tokens][neurons]`: read is what is above the point's threshold.
    ///
    /// # Errors
    /// No such point, or inputs that are not whole.
    pub fn scores(&self, x: &[f32], point: usize) -> Result<Vec<f32>> {
        let columns = self.decoded.first.1;
        ensure!(
            x.len().is_multiple_of(columns),
            "FFN input of {} values is not whole tokens of {columns}",
            x.len()
        );
        let offset = self.offsets.get(point).or(self.offsets.first().filter(|_| !self.by_neuron()));
        let offset = offset.with_context(|| format!("no operating point {point}"))?;
        let mut scores = self.decoded.scores(x);
        for token in scores.chunks_mut(offset.len().max(1)) {
            token.iter_mut().zip(offset).for_each(|(score, offset)| *score += offset);
        }
        Ok(scores)
    }

    /// Fills `out` with one list for each token of `x` (row-major `[tokens][hidden]`): the ids, ascending,
    /// of the neurons predicted to be active at an operating point.
    ///
    /// # Errors
    /// No such point, or inputs that are not whole.
    pub fn active(&self, x: &[f32], point: usize, out: &mut Vec<Vec<u32>>) -> Result<()> {
        let scores = self.scores(x, point)?;
        let threshold = self.threshold(point)?;
        let neurons = self.offsets.first().map_or(1, Vec::len).max(1);
        out.resize_with(scores.len() / neurons, Vec::new);
        for (ids, scores) in out.iter_mut().zip(scores.chunks(neurons)) {
            ids.clear();
            let read = (0u32..).zip(scores).filter(|(_, score)| **score > threshold);
            ids.extend(read.map(|(id, _)| id));
        }
        Ok(())
    }
}
