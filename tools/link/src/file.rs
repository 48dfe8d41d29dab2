//! The links file: the order of every layer, as a safetensors file.
//!
//! Per layer i three U32 tensors: `neuron_of_slot.{i}` `[slots]`, `link_begin.{i}` `[links + 1]` and
//! `active_count.{i}` `[neurons]`, the last by neuron id. There are as many slots as neurons, or more: then some neurons
//! have copies, and stand in several slots. Metadata, all strings: `format` =
//! [`FORMAT`], `order`, `layers`, `neurons`, `profile_tokens`, `corpora` (comma-separated, one a
//! trace), `model`, `traces` (JSON list of [`TraceSource`]), `tool`, and `seed` for the random
//! order. Where a layer has several placements, the entry `placements` says how many, and placement p
//! from 1 on has tensors `neuron_of_slot.{i}.{p}` and `link_begin.{i}.{p}`. Other entries are notes:
//! `order.pinned`, `order.law`, `order.bundle_bytes`, `order.chosen_by` and `synthetic` (a trace was
//! made up), as far as they apply. Same links, same bytes: the header's keys and the tensors are
//! sorted by name.

use std::collections::BTreeMap;
use std::io::{BufWriter, Write};
use std::path::Path;

use anyhow::{Context, Result, anyhow, ensure};
use safetensors::Dtype;
use serde::{Deserialize, Serialize};

use super::orders::Order;
use super::placement::LayerLinks;
use super::{LAYERS_MAX, NEURONS_MAX};
use lnp_common::files::{sha256_hex, write_whole};
use lnp_common::tensor_file::{Elements, TensorData, write_tensors};

/// Metadata entries that are fields of [`Links`]; all others are notes.
pub(super) const FIELDS: [&str; 11] = [
    "format",
    "order",
    "layers",
    "placements",
    "neurons",
    "profile_tokens",
    "corpora",
    "model",
    "traces",
    "tool",
    "seed",
];

/// The value of the metadata entry `format`.
pub(crate) const FORMAT: &str = "lnp-links-v1";

/// A trace that an order was made from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceSource {
    /// File name, without folders.
    pub file: String,
    /// SHA-256 of the file, 64 lower-case hexadecimal digits.
    pub sha256: String,
}

impl TraceSource {
    /// Name and hash of the trace at `path`.
    ///
    /// # Errors
    /// The file can't be read or has no UTF-8 name.
    pub fn of_file(path: &Path) -> Result<Self> {
        let name = path.file_name().and_then(|name| name.to_str());
        let name =
            name.with_context(|| format!("{}: a trace needs a name in UTF-8", path.display()))?;
        let sha256 = sha256_hex(path)?;
        Ok(Self { file: name.to_owned(), sha256 })
    }
}

/// The order of all layers and where it comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Links {
    /// The order, with its seed.
    pub order: Order,
    /// Neurons of every layer.
    pub neurons: usize,
    /// Tokens of all profiling traces together.
    pub profile_tokens: u64,
    /// Corpus of each trace, in the order of `traces`; no commas.
    pub corpora: Vec<String>,
    /// Name of the model the traces were taken from.
    pub model: String,
    /// The traces, in the order they were appended.
    pub traces: Vec<TraceSource>,
    /// Program and version that made the order, as [`Links::this_tool`].
    pub tool: String,
    /// Further metadata entries: how the order was made. Readers need none of them.
    pub notes: BTreeMap<String, String>,
    /// One entry a layer.
    pub layers: Vec<LayerLinks>,
}

impl Links {
    /// Name and version of this program, for the field `tool`.
    pub fn this_tool() -> String {
        format!("lnp {}", env!("CARGO_PKG_VERSION"))
    }

    /// Placements of every layer, 1 where only one is there.
    pub fn placements(&self) -> usize {
        self.layers.first().map_or(1, |layer| 1 + layer.further.len())
    }

    /// Slots of all placements of all layers: bundles that a pack will hold.
    pub fn slots(&self) -> u64 {
        let placements = self.layers.iter().flat_map(LayerLinks::placements);
        placements.map(|(neuron_of_slot, _)| neuron_of_slot.len() as u64).sum()
    }

    /// Checks everything the file promises; done before writing and after reading.
    ///
    /// # Errors
    /// The first rule broken, in words, with the layer.
    pub fn check(&self) -> Result<()> {
        ensure!(
            (1..=LAYERS_MAX).contains(&self.layers.len()),
            "{} layers: 1 to {LAYERS_MAX} are possible",
            self.layers.len()
        );
        ensure!(
            (1..=NEURONS_MAX).contains(&self.neurons),
            "{} neurons a layer: 1 to {NEURONS_MAX} are possible",
            self.neurons
        );
        self.check_source()?;
        for (layer, links) in self.layers.iter().enumerate() {
            ensure!(
                links.neurons() == self.neurons,
                "layer {layer}: {} neurons, expected {}",
                links.neurons(),
                self.neurons
            );
            links.check(self.profile_tokens).with_context(|| format!("layer {layer}"))?;
            let found = 1 + links.further.len();
            ensure!(
                found == self.placements(),
                "layer {layer}: {found} placements, expected {}",
                self.placements()
            );
        }
        Ok(())
    }

    /// Checks what the file says of where its order comes from.
    pub(super) fn check_source(&self) -> Result<()> {
        ensure!(
            !self.traces.is_empty() && self.corpora.len() == self.traces.len(),
            "{} corpora for {} traces: every trace needs its corpus, and at least one is needed",
            self.corpora.len(),
            self.traces.len()
        );
        for corpus in &self.corpora {
            ensure!(
                !corpus.is_empty() && !corpus.contains(','),
                "corpus name '{corpus}': it must not be empty or contain a comma"
            );
        }
        for TraceSource { file, sha256 } in &self.traces {
            ensure!(
                !file.is_empty() && !file.contains('/'),
                "trace '{file}': a file name without folders is needed"
            );
            ensure!(
                sha256.len() == 64
                    && sha256.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f')),
                "trace '{file}': '{sha256}' is no SHA-256 (64 lower-case hexadecimal digits)"
            );
        }
        Ok(())
    }

    /// Flash that the bundles of a pack take, in times of what they take once.
    pub fn flash(&self) -> f64 {
        self.slots() as f64 / (self.layers.len() * self.neurons).max(1) as f64
    }

    /// About the length of a links file for so much [`Links::flash`]: ids by slot and counts, without links and header.
    pub fn file_bytes(layers: usize, neurons: usize, flash: f64) -> u64 {
        (4.0 * layers as f64 * neurons as f64 * (1.0 + flash)) as u64
    }

    /// Writes the links file, so that `path` holds either what it held before or the whole file.
    ///
    /// # Errors
    /// A rule of [`Links::check`] is broken, or the file can't be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        let file_bytes = Self::file_bytes(self.layers.len(), self.neurons, self.flash());
        write_whole(path, file_bytes, |file| {
            let mut out = BufWriter::new(file);
            self.write_to(&mut out)?;
            Ok(out.flush()?)
        })
        .map_err(|error| anyhow!("cannot write links file {error:#}"))
    }

    /// Writes the bytes of the links file.
    ///
    /// # Errors
    /// A rule of [`Links::check`] is broken, or `out` can't be written.
    pub fn write_to(&self, out: &mut impl Write) -> Result<()> {
        self.check()?;
        let mut tensors = Vec::new();
        for (layer, links) in self.layers.iter().enumerate() {
            let mut add = |name: String, words| {
                let shape = vec![<[u32]>::len(words)];
                let data = Elements::Words(words);
                tensors.push(TensorData { name, dtype: Dtype::U32, shape, data });
            };
            add(format!("active_count.{layer}"), &links.active_count);
            for (placement, (neuron_of_slot, link_begin)) in links.placements().enumerate() {
                add(tensor_name("neuron_of_slot", layer, placement), neuron_of_slot);
                add(tensor_name("link_begin", layer, placement), link_begin);
            }
        }
        tensors.sort_by(|a, b| a.name.cmp(&b.name));
        write_tensors(out, &self.metadata()?, &tensors)
    }

    fn metadata(&self) -> Result<BTreeMap<String, String>> {
        let entries = [
            ("format", FORMAT.to_owned()),
            ("order", self.order.to_string()),
            ("layers", self.layers.len().to_string()),
            ("neurons", self.neurons.to_string()),
            ("profile_tokens", self.profile_tokens.to_string()),
            ("corpora", self.corpora.join(",")),
            ("model", self.model.clone()),
            ("traces", serde_json::to_string(&self.traces)?),
            ("tool", self.tool.clone()),
        ];
        let mut metadata = self.notes.clone();
        metadata.extend(entries.map(|(key, value)| (key.to_owned(), value)));
        if self.placements() > 1 {
            metadata.insert("placements".to_owned(), self.placements().to_string());
        }
        if let Order::Random { seed } = self.order {
            metadata.insert("seed".to_owned(), seed.to_string());
        }
        Ok(metadata)
    }
}

/// The name of a placement's tensor.
pub(super) fn tensor_name(array: &str, layer: usize, placement: usize) -> String {
    match placement {
        0 => format!("{array}.{layer}"),
        _ => format!("{array}.{layer}.{placement}"),
    }
}

#[cfg(test)]
#[path = "file_tests.rs"]
mod tests;
