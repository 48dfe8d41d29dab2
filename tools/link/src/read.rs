//! Reading a links file that anyone may have written: every claim is checked against the file's
//! length before memory is set aside for it, and every rule before the links are handed out.

use std::collections::BTreeMap;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::Path;
use std::str::FromStr;

use anyhow::{Context, Result, anyhow, bail, ensure};
use safetensors::Dtype;

use super::file::{FIELDS, FORMAT, Links, tensor_name};
use super::orders::{Order, PLACEMENTS_MAX};
use super::placement::{LayerLinks, Placement};
use super::{LAYERS_MAX, NEURONS_MAX};
use lnp_common::files::open_file;
use lnp_common::tensor_file::Header;

/// The tensors of a layer: its counts, and two for each placement.
const fn tensors_per_layer(placements: usize) -> usize {
    1 + 2 * placements
}

impl Links {
    /// Reads and checks a links file.
    ///
    /// # Errors
    /// One line that names the file, the layer and what is wrong: not readable, not a links file,
    /// or a rule of [`Links::check`] broken.
    pub fn read(path: &Path) -> Result<Self> {
        let read = || -> Result<Self> {
            let file = open_file(path)?;
            let facts = file.metadata()?;
            ensure!(facts.is_file(), "it is not a file");
            Self::read_from(&mut BufReader::new(file), facts.len())
        };
        read().map_err(|error| {
            anyhow!("cannot read links file {}: {error:#}; make it with `lnp link`", path.display())
        })
    }

    /// Reads and checks a links file of `len` bytes.
    ///
    /// # Errors
    /// As [`Links::read`], without the file's name.
    pub fn read_from(input: &mut (impl Read + Seek), len: u64) -> Result<Self> {
        let header = Header::read(input, len)?;
        let text = |key: &str| entry(&header.metadata, key);
        let format = text("format")?;
        ensure!(format == FORMAT, "format is '{format}', this program reads '{FORMAT}'");

        let layers: usize = number("layers", text("layers")?)?;
        let neurons: usize = number("neurons", text("neurons")?)?;
        ensure!(
            (1..=LAYERS_MAX).contains(&layers) && (1..=NEURONS_MAX).contains(&neurons),
            "{layers} layers of {neurons} neurons: at most {LAYERS_MAX} of {NEURONS_MAX} are \
             possible, and at least one of each"
        );
        let placements = match header.metadata.get("placements") {
            Some(text) => number("placements", text)?,
            None => 1,
        };
        ensure!(
            (1..=PLACEMENTS_MAX).contains(&placements),
            "{placements} placements of each layer: 1 to {PLACEMENTS_MAX} are possible"
        );
        let (tensors, per_layer) = (header.tensors.len(), tensors_per_layer(placements));
        ensure!(
            tensors == per_layer * layers,
            "{tensors} tensors for {layers} layers, expected {per_layer} a layer"
        );
        let mut links = Self::without_layers(&header.metadata, neurons)?;
        links.check_source()?;
        for layer in 0..layers {
            let mut tensor = |array: &str, placement: usize, entries: Option<usize>| {
                read_tensor(&header, input, &tensor_name(array, layer, placement), entries)
            };
            let mut placement = |number: usize| -> Result<Placement> {
                Ok(Placement {
                    neuron_of_slot: tensor("neuron_of_slot", number, None)?,
                    link_begin: tensor("link_begin", number, None)?,
                })
            };
            let Placement { neuron_of_slot, link_begin } = placement(0)?;
            let further = (1..placements).map(&mut placement).collect::<Result<_>>()?;
            let active_count = tensor("active_count", 0, Some(neurons))?;
            let layer_links = LayerLinks { neuron_of_slot, link_begin, active_count, further };
            // Before the next is read: holes in a sparse file are no permutation.
            layer_links.check(links.profile_tokens).with_context(|| format!("layer {layer}"))?;
            links.layers.push(layer_links);
        }
        Ok(links)
    }

    /// What the metadata say, but for the layers.
    fn without_layers(metadata: &BTreeMap<String, String>, neurons: usize) -> Result<Self> {
        let text = |key: &str| entry(metadata, key);
        let mut order = Order::from_str(text("order")?)?;
        if let Order::Random { seed } = &mut order {
            *seed = number("seed", text("seed")?)?;
        }
        Ok(Self {
            order,
            neurons,
            profile_tokens: number("profile_tokens", text("profile_tokens")?)?,
            corpora: text("corpora")?.split(',').map(str::to_owned).collect(),
            model: text("model")?.clone(),
            traces: serde_json::from_str(text("traces")?)
                .context("metadata entry 'traces' is no list of file names and hashes")?,
            tool: text("tool")?.clone(),
            notes: metadata
                .iter()
                .filter(|(key, _)| !FIELDS.contains(&key.as_str()))
                .map(|(key, value)| (key.clone(), value.clone()))
                .collect(),
            layers: Vec::new(),
        })
    }
}

fn entry<'m>(metadata: &'m BTreeMap<String, String>, key: &str) -> Result<&'m String> {
    metadata
        .get(key)
        .with_context(|| format!("metadata entry '{key}' is missing: not a links file?"))
}

/// Reads a U32 tensor of one dimension, with `entries` entries where given. What is set aside is
/// bounded by the file's length, which [`Header::read`] compared with the offsets.
fn read_tensor(
    header: &Header,
    input: &mut (impl Read + Seek),
    name: &str,
    entries: Option<usize>,
) -> Result<Vec<u32>> {
    let info = header.tensors.get(name).with_context(|| format!("tensor {name} is missing"))?;
    let length = match (info.dtype, info.shape.as_slice()) {
        (Dtype::U32, &[length]) if length <= NEURONS_MAX + 1 => length,
        (dtype, shape) => bail!("tensor {name} is {dtype:?} {shape:?}, expected a U32 list"),
    };
    if let Some(entries) = entries {
        ensure!(length == entries, "tensor {name} has {length} entries, expected {entries}");
    }
    let mut bytes = vec![0; 4 * length];
    input.seek(SeekFrom::Start(header.data_start + info.data_offsets.0 as u64))?;
    input.read_exact(&mut bytes)?;
    let (values, _) = bytes.as_chunks::<4>();
    Ok(values.iter().map(|value| u32::from_le_bytes(*value)).collect())
}

fn number<T: FromStr>(key: &str, text: &str) -> Result<T> {
    text.parse().ok().with_context(|| format!("metadata entry '{key}' is '{text}', not a number"))
}
