//! Reading a predictors file: anyone may have written it, so everything is checked.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail, ensure};
use lnp_common::tensor_file::TensorFile;
use lnp_format::limits::{HIDDEN_MAX, NEURONS_MAX};
use lnp_link::trace::check_tensor;
use lnp_model::Source;
use safetensors::Dtype;

use crate::file::{About, FORMAT, POINT_NUMBERS, Predictors, RELU, tensor_name, tensor_type};
use crate::numbers::{Matrix, Numbers, from_f16_bytes};
use crate::points::Point;
use crate::predictor::{Between, Body, Predictor};

/// Most operating points of a predictor.
const POINTS_MAX: usize = 64;

pub(crate) fn parse(file: &TensorFile) -> Result<Predictors> {
    let metadata = file.metadata();
    let found = text(metadata, "format")?;
    ensure!(found == FORMAT, "format is '{found}', this program reads '{FORMAT}'");
    let [layers, neurons, hidden, ffn_bytes, rows] =
        ["layers", "neurons", "hidden", "ffn_bytes", "rows"].map(|key| number(metadata, key));
    let (layers, neurons, hidden) = (layers?, neurons?, hidden?);
    ensure!(
        (1..=NEURONS_MAX as usize).contains(&neurons) && is_width(hidden),
        "{neurons} neurons a layer, hidden size {hidden}: 1 to {NEURONS_MAX} and 1 to {HIDDEN_MAX} are possible"
    );
    let recall = text(metadata, "recall")?;
    let traces = text(metadata, "traces")?;
    let mut predictors = Vec::new();
    for (key, value) in metadata {
        let Some(place) = key.strip_prefix("predictor.") else { continue };
        let place = place.split_once('.').and_then(|(layer, horizon)| {
            Some((layer.parse::<usize>().ok()?, horizon.parse::<usize>().ok()?))
        });
        let place = place.filter(|(layer, horizon)| *layer < layers && horizon <= layer);
        let place = place.with_context(|| format!("metadata entry '{key}' names no predictor"))?;
        let about = serde_json::from_str(value)
            .with_context(|| format!("metadata entry '{key}' describes no predictor"))?;
        let predictor = predictor(file, place, &about, neurons, hidden);
        predictors.push(predictor.with_context(|| format!("predictor {}.{}", place.0, place.1))?);
    }
    ensure!(!predictors.is_empty(), "there is no predictor in it");
    predictors.sort_by_key(|predictor| (predictor.horizon, predictor.layer));
    Ok(Predictors {
        model: text(metadata, "model")?.to_owned(),
        layers,
        neurons,
        hidden,
        sources: sources(metadata)?,
        ffn_bytes: ffn_bytes?,
        recall: recall
            .parse()
            .with_context(|| format!("metadata entry 'recall' is '{recall}', not a number"))?,
        rows: rows?,
        traces: serde_json::from_str(traces)
            .context("metadata entry 'traces' is no list of traces")?,
        predictors,
    })
}

/// Whether a matrix may be so wide: as wide as a pack's.
fn is_width(columns: usize) -> bool {
    (1..=HIDDEN_MAX as usize).contains(&columns)
}

fn text<'a>(metadata: &'a BTreeMap<String, String>, key: &str) -> Result<&'a str> {
    let found = metadata.get(key).map(String::as_str);
    found.with_context(|| format!("metadata entry '{key}' is missing: not a predictors file?"))
}

fn number(metadata: &BTreeMap<String, String>, key: &str) -> Result<usize> {
    let text = text(metadata, key)?;
    text.parse().with_context(|| format!("metadata entry '{key}' is '{text}', not a number"))
}

fn sources(metadata: &BTreeMap<String, String>) -> Result<Vec<Source>> {
    let mut sources = Vec::new();
    while metadata.contains_key(&format!("source.{}.file", sources.len())) {
        let key = |end: &str| format!("source.{}.{end}", sources.len());
        sources.push(Source {
            file_name: text(metadata, &key("file"))?.to_owned(),
            bytes: number(metadata, &key("bytes"))? as u64,
            sha256_hex: text(metadata, &key("sha256"))?.to_owned(),
        });
    }
    Ok(sources)
}

fn predictor(
    file: &TensorFile,
    place: (usize, usize),
    about: &About,
    neurons: usize,
    hidden: usize,
) -> Result<Predictor> {
    let numbers: Numbers = about.numbers.parse()?;
    let matrix = |array: &str, rows, columns| {
        matrix(file, &tensor_name(array, place.0, place.1), numbers, rows, columns)
    };
    let body = match (about.kind.as_str(), about.rank) {
        ("low-rank", Some(rank)) if !is_width(rank) => {
            bail!("a predictor of rank {rank}: 1 to {HIDDEN_MAX} are possible")
        }
        ("low-rank", Some(rank)) => Body::LowRank {
            reduce: matrix("reduce", rank, hidden)?,
            expand: matrix("expand", neurons, rank)?,
            between: between(file, place, about.between.as_deref(), rank)?,
        },
        ("rows" | "exact", None) => Body::Rows(matrix("rows", neurons, hidden)?),
        _ => bail!("no such kind of predictor: {}", about.kind),
    };
    let name = tensor_name("points", place.0, place.1);
    let info = file.info(&name)?;
    let (dtype, shape) = (info.dtype, &info.shape);
    ensure!(
        dtype == Dtype::F32
            && matches!(shape.as_slice(), &[points, POINT_NUMBERS] if (1..=POINTS_MAX).contains(&points)),
        "tensor `{name}` is {dtype:?} {shape:?}, expected F32 [1 to {POINTS_MAX}, {POINT_NUMBERS}]"
    );
    let values: Vec<f32> =
        file.read(&name)?.as_chunks().0.iter().map(|four| f32::from_le_bytes(*four)).collect();
    ensure!(values.iter().all(|value| value.is_finite()), "a number that is none: damaged");
    let points: Vec<Point> = values.as_chunks().0.iter().map(point).collect();
    // As a pack's reader has it, which would refuse what became of others.
    let share = |value: f32| (0.0..=1.0).contains(&value);
    let sound = |of: &Point| {
        share(of.quality) && share(of.recall) && share(of.share_kept) && of.reads_per_active >= 0.0
    };
    ensure!(
        points.iter().all(sound),
        "an operating point with a share that is not 0 to 1: damaged"
    );
    let name = tensor_name("offset", place.0, place.1);
    let expected = match about.thresholds.as_str() {
        "layer" => vec![neurons],
        "neuron" => vec![points.len(), neurons],
        other => bail!("thresholds by {other}: layer or neuron are possible"),
    };
    check_tensor(file, &name, Dtype::F16, &expected)?;
    let offsets = from_f16_bytes(&file.read(&name)?)?;
    let offsets = offsets.chunks(neurons.max(1)).map(<[f32]>::to_vec).collect();
    let predictor = Predictor::new(place, body, offsets, points)?;
    let name = tensor_name("strength_scale", place.0, place.1);
    if !file.tensors().contains_key(&name) {
        return Ok(predictor);
    }
    check_tensor(file, &name, Dtype::F16, &[neurons])?;
    predictor.telling_strengths(from_f16_bytes(&file.read(&name)?)?)
}

/// What stands between the factors.
fn between(
    file: &TensorFile,
    place: (usize, usize),
    told: Option<&str>,
    rank: usize,
) -> Result<Between> {
    let name = tensor_name("reduce_bias", place.0, place.1);
    match told {
        None => Ok(Between::Nothing),
        Some(RELU) if !file.tensors().contains_key(&name) => Ok(Between::Relu { bias: None }),
        Some(RELU) => {
            check_tensor(file, &name, Dtype::F16, &[rank])?;
            Ok(Between::Relu { bias: Some(from_f16_bytes(&file.read(&name)?)?) })
        }
        Some(other) => bail!("{other} between two factors: {RELU} is possible"),
    }
}

fn point(values: &[f32; POINT_NUMBERS]) -> Point {
    let [quality, threshold, recall, reads_per_active, share_kept] = *values;
    Point { quality, threshold, recall, reads_per_active, share_kept }
}

fn matrix(
    file: &TensorFile,
    name: &str,
    numbers: Numbers,
    rows: usize,
    columns: usize,
) -> Result<Matrix> {
    let (dtype, width) = tensor_type(numbers, columns);
    check_tensor(file, name, dtype, &[rows, width])?;
    Matrix::from_bytes(numbers, rows, columns, file.read(name)?)
}
