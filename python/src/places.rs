//! Where arrays lie in a file that was checked: offset, type as numpy writes it, shape. As JSON, for a file's arrays
//! are many and of few kinds.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::Result;
use lnp_common::tensor_file::TensorFile;
use lnp_format::{Layer, Pack};
use lnp_link::Links;
use lnp_link::trace::TraceReader;
use lnp_pack::PackIndex;
use lnp_pack::inspect::describe;
use pyo3::prelude::*;
use serde_json::{Value, json};
use zerocopy::byteorder::{F32, LE, U32};

use crate::told;

/// Where the tensors of a trace lie, and what it says of itself.
#[pyfunction]
pub(crate) fn trace_places(py: Python<'_>, path: PathBuf) -> PyResult<String> {
    py.detach(|| trace(&path)).map_err(told)
}

/// Where the tensors of a links file lie, and what it says of itself.
#[pyfunction]
pub(crate) fn links_places(py: Python<'_>, path: PathBuf) -> PyResult<String> {
    py.detach(|| links(&path)).map_err(told)
}

/// Where the arrays of a pack lie, and its description.
#[pyfunction]
pub(crate) fn pack_places(py: Python<'_>, path: PathBuf) -> PyResult<String> {
    py.detach(|| pack(&path)).map_err(told)
}

/// What tells one file from another that is put in its place: whoever maps it compares. Nothing where there is no file,
/// which the reader then says.
fn identity(path: &Path) -> Value {
    std::fs::metadata(path).map_or(Value::Null, |facts| {
        json!([facts.dev(), facts.ino(), facts.size(), facts.mtime(), facts.mtime_nsec()])
    })
}

fn trace(path: &Path) -> Result<String> {
    let identity = identity(path);
    let trace = TraceReader::open(path)?;
    let about = json!({
        "layers": trace.layers(), "neurons": trace.neurons(), "tokens": trace.tokens(), "window": trace.window(),
        "metadata": trace.metadata(), "identity": identity, "places": tensors(path)?,
    });
    Ok(about.to_string())
}

fn links(path: &Path) -> Result<String> {
    let identity = identity(path);
    let links = Links::read(path)?;
    let about = json!({
        "layers": links.layers.len(), "neurons": links.neurons, "placements": links.placements(),
        "order": links.order.to_string(), "model": links.model, "corpora": links.corpora,
        "profile_tokens": links.profile_tokens, "notes": links.notes, "identity": identity, "places": tensors(path)?,
    });
    Ok(about.to_string())
}

/// The tensors of a safetensors file; those of types that numpy has not are left out.
fn tensors(path: &Path) -> Result<BTreeMap<String, Value>> {
    use safetensors::Dtype;
    let (_, header) = TensorFile::open(path)?.into_parts();
    let place = |(name, info): (String, safetensors::tensor::TensorInfo)| {
        let dtype = match info.dtype {
            Dtype::U8 => "|u1",
            Dtype::I32 => "<i4",
            Dtype::U32 => "<u4",
            Dtype::F16 => "<f2",
            Dtype::F32 => "<f4",
            _ => return None,
        };
        let offset = header.data_start + info.data_offsets.0 as u64;
        Some((name, json!([offset, dtype, info.shape])))
    };
    Ok(header.tensors.into_iter().filter_map(place).collect())
}

fn pack(path: &Path) -> Result<String> {
    let identity = identity(path);
    let index = PackIndex::open(path)?;
    let pack = index.pack()?;
    let layers: Vec<Vec<Value>> = (0..pack.shape().layers)
        .map(|layer| {
            (0..pack.placements()).filter_map(|at| pack.placement(layer, at)).collect::<Vec<_>>()
        })
        .map(|placements| placements.iter().map(|layer| arrays(&pack, layer)).collect())
        .collect();
    let about = json!({"description": describe(&pack), "identity": identity, "places": layers});
    Ok(about.to_string())
}

/// The arrays of a placement. The index begins with the superblock, at the file's first byte: an array's distance from
/// it is where it lies in the file.
fn arrays(pack: &Pack<'_>, layer: &Layer<'_>) -> Value {
    let begin = std::ptr::from_ref(pack.superblock()).addr();
    let of = |address: usize, dtype: &str, count: usize| json!([address - begin, dtype, [count]]);
    let words = |array: &[U32<LE>]| of(array.as_ptr().addr(), "<u4", array.len());
    let floats = |array: &[F32<LE>]| of(array.as_ptr().addr(), "<f4", array.len());
    let shape = pack.shape();
    let mut arrays = json!({
        "slot_of_neuron": words(layer.slot_of_neuron()),
        "neuron_of_slot": words(layer.neuron_of_slot()),
        "link_begin": words(layer.link_begin()),
        "active_count": words(layer.active_count()),
        "bundle_checksums": words(layer.bundle_checksums()),
        "bundles": [layer.region_offset(), "|u1", [layer.slots(), shape.bundle_stride]],
    });
    let side = [
        ("neuron_bias", layer.neuron_bias()),
        ("up_bias", layer.up_bias()),
        ("output_bias", layer.output_bias()),
        ("down_norm", layer.down_norm().map_or(&[][..], |(weights, _)| weights)),
    ];
    for (name, array) in side.into_iter().filter(|(_, array)| !array.is_empty()) {
        arrays[name] = floats(array);
    }
    arrays
}
