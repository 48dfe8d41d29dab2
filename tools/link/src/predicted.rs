//! Predicted sets in a trace: what predictors would have read at its tokens.
//!
//! Tensors `predicted.{i}` (layer i from its own FFN input) and `ahead.{h}.{i}` (layer i from the input of layer i - h),
//! U8 `[tokens, ceil(neurons / 8)]` as `layer.{i}` is; metadata `predictors`, the predictors file's SHA-256, and
//! `quality`, the recall that its operating points are named after. A program that does not know them reads
//! the trace as before.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use lnp_common::tensor_file::{Elements, TensorData, TensorFile};
use safetensors::Dtype;

use crate::trace::{check_tensor, check_unused_bits};

/// Metadata entries.
pub(crate) const PREDICTORS: &str = "predictors";
pub(crate) const QUALITY: &str = "quality";

/// What predictors would have read at a trace's tokens.
#[derive(Debug, Clone, PartialEq)]
pub struct PredictedSets {
    /// SHA-256 of the predictors file, lower-case hex.
    pub predictors: String,
    /// The recall that the operating points are named after.
    pub quality: f64,
    /// The sets: of as many layers and horizons as there are predictors for.
    pub layers: Vec<PredictedLayer>,
}

/// The predicted sets of a layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PredictedLayer {
    /// The layer.
    pub layer: usize,
    /// From how many layers before.
    pub horizon: usize,
    /// One row of ceil(neurons / 8) bytes per token.
    pub bits: Vec<u8>,
}

impl PredictedSets {
    pub(crate) fn check(&self, tokens: usize, neurons: usize, layers: usize) -> Result<()> {
        let expected = tokens.saturating_mul(neurons.div_ceil(8));
        for predicted in &self.layers {
            let PredictedLayer { layer, horizon, bits } = predicted;
            let found = bits.len();
            ensure!(
                found == expected && horizon <= layer && *layer < layers,
                "sets of layer {layer} predicted {horizon} layers ahead have {found} bytes, expected {expected}"
            );
            check_unused_bits(bits, neurons).with_context(|| format!("layer {layer}"))?;
        }
        Ok(())
    }

    pub(crate) fn metadata(&self) -> [(String, String); 2] {
        [
            (PREDICTORS.to_owned(), self.predictors.clone()),
            (QUALITY.to_owned(), self.quality.to_string()),
        ]
    }

    pub(crate) fn tensors(
        &self,
        tokens: usize,
        neurons: usize,
    ) -> impl Iterator<Item = TensorData<'_>> {
        self.layers.iter().map(move |predicted| TensorData {
            name: predicted_name(predicted.layer, predicted.horizon),
            dtype: Dtype::U8,
            shape: vec![tokens, neurons.div_ceil(8)],
            data: Elements::Bytes(&predicted.bits),
        })
    }
}

/// Each is of the shape of the layers, and of one of them.
pub(crate) fn check_predicted(file: &TensorFile, layers: usize, shape: &[usize]) -> Result<()> {
    for name in file.tensors().keys() {
        let Some(place) = place_of(name) else { continue };
        let sound = place.is_some_and(|(layer, horizon)| {
            layer < layers && horizon <= layer && *name == predicted_name(layer, horizon)
        });
        ensure!(sound, "tensor `{name}` is of no layer of {layers}");
        check_tensor(file, name, Dtype::U8, shape)?;
    }
    Ok(())
}

/// Layer and horizon that a tensor's name says; `None` for one that is no predicted set.
fn place_of(name: &str) -> Option<Option<(usize, usize)>> {
    if let Some(layer) = name.strip_prefix("predicted.") {
        return Some(layer.parse().ok().map(|layer| (layer, 0)));
    }
    let place = name.strip_prefix("ahead.")?;
    let place = place.split_once('.');
    Some(place.and_then(|(horizon, layer)| Some((layer.parse().ok()?, horizon.parse().ok()?))))
}

pub(crate) fn predicted_name(layer: usize, horizon: usize) -> String {
    match horizon {
        0 => format!("predicted.{layer}"),
        _ => format!("ahead.{horizon}.{layer}"),
    }
}

/// Hash of the predictors and quality, where the metadata say them.
pub(crate) fn about(metadata: &BTreeMap<String, String>) -> Option<(&str, f64)> {
    Some((metadata.get(PREDICTORS)?, metadata.get(QUALITY)?.parse().ok()?))
}
