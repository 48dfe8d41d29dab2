//! Predictors computed by our kernels from their bytes as they are stored, in a pack or in a file of predictors: nothing
//! is decoded, and nothing besides is held.

use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result};
use lnp_engine::predictors::Predictors as Computing;
use lnp_format::{Pack, Predictor, Shape};
use lnp_kernels::{CpuFeatures, TOKENS_MAX};
use lnp_model::{ModelConfig, multiply_rows};
use lnp_pack::Recipe;
use lnp_predict::Predictors;
use lnp_predict::points::Point;
use lnp_predict::section::Section;

use crate::predict::{Needed, Predict};

/// Where predictors lie.
pub enum Stored<'p> {
    /// In a pack.
    Pack(Pack<'p>),
    /// In a file of predictors, in the sections that a pack would have.
    Sections(Shape, Vec<Section>),
}

impl<'p> Stored<'p> {
    /// The predictors of a pack; `None` where it has not one for each layer.
    pub fn of_pack(pack: &Pack<'p>) -> Option<Self> {
        Some(Self::Pack(*pack)).filter(|stored| stored.missing().is_none())
    }

    /// The predictors of a file, of a model that was seen to be theirs.
    ///
    /// # Errors
    /// Predictors beyond what a pack can have.
    pub fn of_file(predictors: &Predictors, config: &ModelConfig) -> Result<Self> {
        // whatever the bundles are: the predictors look at their inputs only
        let shape = Recipe::shape_of(config, lnp_format::Dtype::F16);
        let sections = predictors.sections()?;
        for Section { bytes, .. } in &sections {
            Predictor::of_section(bytes, &shape)?.context("predictors of a kind to come")?;
        }
        Ok(Self::Sections(shape, sections))
    }

    /// The predictor of a layer from the input of the layer `horizon` before it.
    pub fn of(&self, layer: u32, horizon: u32) -> Option<Predictor<'_>> {
        match self {
            Self::Pack(pack) => pack.predictor(layer, horizon),
            Self::Sections(shape, sections) => {
                let own = |section: &&Section| (section.layer, section.horizon) == (layer, horizon);
                let Section { bytes, .. } = sections.iter().find(own)?;
                Predictor::of_section(bytes, shape).ok().flatten()
            }
        }
    }

    fn shape(&self) -> &Shape {
        match self {
            Self::Pack(pack) => pack.shape(),
            Self::Sections(shape, _) => shape,
        }
    }

    /// Layers and horizons of all predictors.
    fn places(&self) -> Vec<(u32, u32)> {
        match self {
            Self::Pack(pack) => {
                pack.predictors().map(|(layer, horizon, _)| (layer, horizon)).collect()
            }
            Self::Sections(_, sections) => {
                sections.iter().map(|section| (section.layer, section.horizon)).collect()
            }
        }
    }

    fn rank_max(&self) -> u32 {
        let all = self.places().into_iter();
        all.filter_map(|(layer, horizon)| Some(self.of(layer, horizon)?.rank())).max().unwrap_or(0)
    }

    /// The first layer without a predictor of its own.
    pub fn missing(&self) -> Option<u32> {
        (0..self.shape().layers).find(|layer| self.of(*layer, 0).is_none())
    }

    /// The farthest that one looks ahead, layers; `None` where there is none.
    pub fn farthest(&self) -> Option<u32> {
        self.places().into_iter().map(|(_, horizon)| horizon).max()
    }

    /// Whether all layers tell how much their neurons matter.
    pub fn tells_strengths(&self) -> bool {
        let tells = |layer| {
            let predictor = self.of(layer, 0);
            predictor.is_some_and(|predictor| !predictor.strength_scales().is_empty())
        };
        (0..self.shape().layers).all(tells)
    }

    /// Bytes of all predictors of one horizon, at one operating point.
    pub fn bytes(&self, horizon: u32) -> u64 {
        let of_horizon = self.places().into_iter().filter(|(_, found)| *found == horizon);
        of_horizon.filter_map(|(layer, horizon)| Some(self.of(layer, horizon)?.bytes())).sum()
    }

    /// The same as a share of the FFN in f16.
    pub fn bytes_share(&self, horizon: u32) -> f64 {
        let shape = self.shape();
        let weights =
            [shape.neurons, shape.hidden, shape.parts].map(u64::from).iter().product::<u64>();
        self.bytes(horizon) as f64 / (2 * weights * u64::from(shape.layers)).max(1) as f64
    }

    /// What it was measured to find at an operating point of a quality: share of the active neurons, mean of the layers.
    pub fn recall(&self, quality: f64) -> f64 {
        let layers = self.shape().layers;
        let of = |layer| {
            let predictor = self.of(layer, 0)?;
            let point = predictor.points().get(predictor.point_of(quality as f32))?;
            Some(f64::from(point.recall.get()))
        };
        (0..layers).filter_map(of).sum::<f64>() / f64::from(layers)
    }

    /// Memory to compute them in.
    ///
    /// # Errors
    /// Not so much memory.
    pub fn memory(&self, features: CpuFeatures) -> Result<Vec<u8>> {
        let bytes = Computing::required_bytes(self.shape(), self.rank_max(), features, TOKENS_MAX)?;
        Ok(vec![0; bytes])
    }
}

/// Predictors at their operating points of one quality.
pub struct StoredPredictors<'s> {
    stored: &'s Stored<'s>,
    quality: f32,
    computing: Mutex<Computing<'s>>,
    /// By layer, then by horizon.
    points: Vec<Vec<Vec<Point>>>,
}

impl<'s> StoredPredictors<'s> {
    /// `memory` is of [`Stored::memory`].
    ///
    /// # Errors
    /// Too little memory.
    pub fn new(
        stored: &'s Stored<'s>,
        quality: f64,
        features: CpuFeatures,
        memory: &'s mut [u8],
    ) -> Result<Self> {
        let (shape, rank) = (stored.shape(), stored.rank_max());
        let computing = Computing::new(shape, rank, features, TOKENS_MAX, memory)?;
        let mut points = vec![Vec::new(); shape.layers as usize];
        for (layer, horizon) in stored.places() {
            let of_layer: &mut Vec<Vec<Point>> = &mut points[layer as usize];
            of_layer.resize(of_layer.len().max(horizon as usize + 1), Vec::new());
            let found = stored.of(layer, horizon).map_or(&[][..], |predictor| predictor.points());
            of_layer[horizon as usize] = found.iter().map(of_disk).collect();
        }
        Ok(Self { stored, quality: quality as f32, computing: Mutex::new(computing), points })
    }

    /// Layers.
    pub fn layers(&self) -> usize {
        self.points.len()
    }

    /// Fills `out` with one list for each token of `x`: what a predictor names at the operating point of a quality.
    ///
    /// # Errors
    /// No such predictor, or inputs that are not whole tokens.
    pub fn named(
        &self,
        place: (usize, usize),
        quality: f32,
        x: &[f32],
        out: &mut Vec<Vec<u32>>,
    ) -> Result<()> {
        let mut lists = Lists::of(out);
        self.predict(place, quality, x, &mut |set, _| lists.push(set))?;
        lists.end();
        Ok(())
    }

    fn predict(
        &self,
        (layer, horizon): (usize, usize),
        quality: f32,
        x: &[f32],
        take: &mut dyn FnMut(&[u32], &[f32]),
    ) -> Result<()> {
        let predictor = self.stored.of(layer as u32, horizon as u32);
        let predictor = predictor
            .with_context(|| format!("no predictor of layer {layer}, {horizon} layers ahead"))?;
        // What a panic left half computed is computed anew.
        let mut computing = self.computing.lock().unwrap_or_else(PoisonError::into_inner);
        for x in x.chunks(TOKENS_MAX * self.stored.shape().hidden as usize) {
            let predicted = computing.predict_by_with(&predictor, quality, x, &multiply_rows)?;
            let sets = predicted.sets().iter().zip(predicted.strengths());
            sets.for_each(|(set, strengths)| take(set, strengths));
        }
        Ok(())
    }
}

/// Lists that are filled one after the other, in the memory that they have.
struct Lists<'l, T> {
    lists: &'l mut Vec<Vec<T>>,
    count: usize,
}

impl<'l, T: Copy> Lists<'l, T> {
    fn of(lists: &'l mut Vec<Vec<T>>) -> Self {
        Self { lists, count: 0 }
    }

    fn push(&mut self, values: &[T]) {
        if self.lists.len() == self.count {
            self.lists.push(Vec::new());
        }
        self.lists[self.count].clear();
        self.lists[self.count].extend_from_slice(values);
        self.count += 1;
    }

    fn end(self) {
        self.lists.truncate(self.count);
    }
}

fn of_disk(point: &lnp_format::layout::OperatingPoint) -> Point {
    Point {
        quality: point.quality.get(),
        threshold: point.threshold.get(),
        recall: point.recall.get(),
        reads_per_active: point.reads_per_active.get(),
        share_kept: point.share_kept.get(),
    }
}

impl Predict for StoredPredictors<'_> {
    fn active(&self, layer: usize, x: &[f32], out: &mut Needed) -> Result<()> {
        out.cutoffs.clear();
        let (mut sets, mut told) = (Lists::of(&mut out.sets), Lists::of(&mut out.strengths));
        self.predict((layer, 0), self.quality, x, &mut |set, strengths| {
            sets.push(set);
            told.push(strengths);
        })?;
        sets.end();
        told.end();
        Ok(())
    }

    fn points_ahead(&self, layer: usize, horizon: usize) -> &[Point] {
        self.points.get(layer).and_then(|points| points.get(horizon)).map_or(&[], Vec::as_slice)
    }

    fn ahead(
        &self,
        layer: usize,
        horizon: usize,
        point: usize,
        x: &[f32],
        out: &mut Vec<u32>,
    ) -> Result<()> {
        let points = self.points_ahead(layer, horizon);
        let point = points.get(point).with_context(|| format!("no operating point {point}"))?;
        out.clear();
        self.predict((layer, horizon), point.quality, x, &mut |set, _| out.extend_from_slice(set))
    }

    fn lends(&self, layer: usize) -> bool {
        !self.points_ahead(layer, 0).is_empty()
    }

    fn lent(&self, layer: usize, x: &[f32], out: &mut Vec<u32>) -> Result<()> {
        out.clear();
        self.predict((layer, 0), self.quality, x, &mut |set, _| out.extend_from_slice(set))
    }

    fn recall(&self) -> f64 {
        self.stored.recall(self.quality.into())
    }

    fn resident_bytes(&self) -> usize {
        let all = self.stored.places().into_iter();
        all.filter_map(|(layer, horizon)| Some(self.stored.of(layer, horizon)?.bytes() as usize))
            .sum()
    }
}
