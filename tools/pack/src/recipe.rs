//! What goes into a pack besides the bundles, and the index that comes of it.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use lnp_format::checksum::crc32;
use lnp_format::codes::{
    INCOMPAT_COPIES, INCOMPAT_LAYER_ACTIVATIONS, INCOMPAT_PLACEHOLDER, WHOLE_PACK,
};
use lnp_format::layout::{
    SIDE_DOWN_NORM, SIDE_NEURON_BIAS, SIDE_OUTPUT_BIAS, SIDE_UP_BIAS, SectionEntry,
};
use lnp_format::limits::SUPERBLOCK_BYTES;
use lnp_format::write::{self, BLOCK_BYTES_USUAL, PackBytes};
use lnp_format::{Activation, Dtype, Pack, SectionKind, Shape};
use zerocopy::IntoBytes;
use zerocopy::byteorder::{LE, U32};

use lnp_common::report::plain;
use lnp_link::{LayerLinks, Links};
use lnp_link::{next_slots, slot_of_neuron};
use lnp_model::{Checkpoint, ModelConfig};

/// What one layer has beside its bundles; an empty vector where the model has none.
#[derive(Debug, Clone, Default)]
pub struct SideData {
    /// By neuron id.
    pub neuron_bias: Vec<f32>,
    /// `hidden` values.
    pub output_bias: Vec<f32>,
    /// By neuron id.
    pub up_bias: Vec<f32>,
    /// Weights of a norm over the coefficients, by neuron id.
    pub down_norm: Vec<f32>,
    /// Epsilon of that norm.
    pub norm_eps: f32,
    /// The layer's own activation with its threshold, where it is not that of the shape.
    pub activation: Option<(Activation, f32)>,
}

impl SideData {
    /// Whether there is nothing to say.
    fn is_empty(&self) -> bool {
        self.activation.is_none() && self.arrays().iter().all(|(values, _)| values.is_empty())
    }

    /// The arrays, in the order of their bits.
    fn arrays(&self) -> [(&Vec<f32>, u32); 4] {
        [
            (&self.neuron_bias, SIDE_NEURON_BIAS),
            (&self.output_bias, SIDE_OUTPUT_BIAS),
            (&self.up_bias, SIDE_UP_BIAS),
            (&self.down_norm, SIDE_DOWN_NORM),
        ]
    }
}

/// The size of a model whose bundles are placeholders.
#[derive(Debug, Clone, Copy)]
pub struct ModelSize {
    /// Layers, once.
    pub layers: u32,
    /// Neurons of each layer.
    pub neurons: u32,
    /// Hidden size.
    pub hidden: u32,
    /// Parts of a bundle.
    pub parts: u32,
}

impl ModelSize {
    /// The size of a model.
    pub fn of_config(config: &ModelConfig) -> Self {
        Self {
            layers: config.layers as u32,
            neurons: config.neurons as u32,
            hidden: config.hidden as u32,
            parts: config.parts() as u32,
        }
    }

    /// The size of the model that links are for. They do not know hidden size and parts, which play
    /// no role for placeholders: any that the format takes.
    pub fn of_links(links: &Links) -> Self {
        let (layers, neurons) = (links.layers.len() as u32, links.neurons as u32);
        Self { layers, neurons, hidden: 32, parts: 2 }
    }
}

/// Everything about a pack but its bundles.
#[derive(Debug, Clone)]
pub struct Recipe {
    /// The model shape.
    pub shape: Shape,
    /// Alignment of sections and reads, bytes.
    pub block_bytes: u32,
    /// The placements of each layer of the *model*, or of one layer where all are alike; layer `l` of
    /// the pack has those of `l` modulo their number.
    pub layers: Vec<LayerLinks>,
    /// Tokens behind the active counts.
    pub profile_tokens: u64,
    /// Biases, one entry a layer of the pack, or none at all.
    pub side_data: Vec<SideData>,
    /// Predictors, by layer, then by horizon.
    pub predictors: Vec<PackedPredictor>,
    /// Bytes of the model's other weights, which [`super::BundleSource::write_resident`] writes; 0 for none.
    pub resident_bytes: u64,
    /// Where the pack comes from.
    pub provenance: BTreeMap<String, String>,
}

/// A predictor's section.
#[derive(Debug, Clone)]
pub struct PackedPredictor {
    /// The layer whose active neurons it predicts.
    pub layer: u32,
    /// How many layers ahead.
    pub horizon: u32,
    /// The section's bytes, as section 9.2 of the specification has them.
    pub bytes: Vec<u8>,
}

/// The index of a pack in memory, and where everything goes.
#[derive(Debug)]
pub struct PackLayout {
    /// The section table, in file order.
    pub sections: Vec<SectionEntry>,
    /// Where index and file end.
    pub bytes: PackBytes,
    /// The first `bytes.index_bytes` bytes of the file.
    pub index: Vec<u8>,
    block_bytes: u32,
    /// The incompatible feature bits.
    features: u64,
}

impl Recipe {
    /// The shape of a model's pack with weights of a type.
    pub fn shape_of(config: &ModelConfig, dtype: Dtype) -> Shape {
        let (activation, activation_threshold) = activation(config.activation);
        Shape {
            layers: config.layers as u32,
            neurons: config.neurons as u32,
            hidden: config.hidden as u32,
            parts: config.parts() as u32,
            activation,
            activation_threshold,
            dtype,
            bundle_stride: dtype.part_bytes(config.hidden as u32) * config.parts() as u32,
            slots: config.neurons as u32,
        }
    }

    /// Checks that a pack is of a model's shape, and says of its bundles what the model does with them.
    ///
    /// # Errors
    /// One line that says what differs.
    pub fn check_pack(pack: &Pack<'_>, config: &ModelConfig) -> Result<()> {
        let shape = pack.shape();
        let of_model = Self::shape_of(config, shape.dtype);
        let dimensions = |shape: &Shape| [shape.layers, shape.neurons, shape.hidden, shape.parts];
        let (found, expected) = (dimensions(shape), dimensions(&of_model));
        ensure!(
            found == expected,
            "the pack has layers, neurons, hidden, parts {found:?}, the model {expected:?}: they do not \
             belong together"
        );
        let told =
            |(activation, threshold): (Activation, f32)| format!("{activation} above {threshold}");
        for (number, layer) in pack.layers().enumerate() {
            let found = told(layer.activation());
            let expected = told(activation(config.activation_of(number)));
            ensure!(
                found == expected,
                "the pack's activation is {found}, the model's {expected} (layer {number}): they do not belong \
                 together, or --activation has to say the model's"
            );
        }
        Ok(())
    }

    /// The recipe for a checkpoint's weights, with the hashes of its files.
    ///
    /// # Errors
    /// A model that is not sparse or has what the format lacks, links of another shape, or a checkpoint that is not what `config.json` says or cannot be read.
    pub fn for_checkpoint(
        checkpoint: &Checkpoint,
        config: &ModelConfig,
        links: Option<&Links>,
        dtype: Dtype,
    ) -> Result<Self> {
        config.check_active(checkpoint)?;
        config.check_ffn(checkpoint)?;
        let mut recipe = Self::with_links(Self::shape_of(config, dtype), 1, links)?;
        recipe.provenance.insert("model".into(), plain(&checkpoint.name()));
        recipe.provenance.insert("model.family".into(), config.family.into());
        if let Some(how) = checkpoint.synthetic() {
            recipe.provenance.insert("synthetic".into(), plain(how));
        }
        for (number, source) in checkpoint.sources()?.into_iter().enumerate() {
            let mut put = |key: &str, value: String| {
                recipe.provenance.insert(format!("source.{number}.{key}"), value);
            };
            put("file", plain(&source.file_name));
            put("bytes", source.bytes.to_string());
            put("sha256", source.sha256_hex);
        }
        for layer in 0..config.layers {
            let tensors = config.ffn_tensors(layer);
            let read = |name: Option<&String>, length: usize| -> Result<Vec<f32>> {
                let Some(name) = name else { return Ok(Vec::new()) };
                let values = checkpoint.read_f32(name)?;
                ensure!(
                    values.len() == length,
                    "{name} has {} values, {} makes it {length}",
                    values.len(),
                    checkpoint.description()
                );
                Ok(values)
            };
            recipe.side_data.push(SideData {
                neuron_bias: read(tensors.neuron_bias(), config.neurons)?,
                output_bias: read(tensors.down_bias.as_ref(), config.hidden)?,
                up_bias: read(tensors.gated_up_bias(), config.neurons)?,
                down_norm: read(tensors.sub_norm.as_ref(), config.neurons)?,
                activation: config.own_activation(layer).map(activation),
                norm_eps: if tensors.sub_norm.is_some() { config.norm_eps as f32 } else { 0.0 },
            });
        }
        Ok(recipe)
    }

    /// The recipe for a pack of placeholders: the links of a model, `copies` times, over bundles of
    /// any size. Layer `c * L + l` of the pack is copy `c` of layer `l`.
    ///
    /// # Errors
    /// A size or a number of layers beyond the format.
    pub fn for_placeholders(
        links: Option<&Links>,
        model: ModelSize,
        bundle_bytes: u32,
        copies: u32,
    ) -> Result<Self> {
        let shape = Shape {
            layers: model.layers.checked_mul(copies).context("too many copies")?,
            neurons: model.neurons,
            hidden: model.hidden,
            parts: model.parts,
            activation: Activation::Relu,
            activation_threshold: 0.0,
            dtype: Dtype::Placeholder,
            bundle_stride: bundle_bytes,
            slots: model.neurons,
        };
        let mut recipe = Self::with_links(shape, copies, links)?;
        recipe.provenance.insert("placeholder.copies".into(), copies.to_string());
        Ok(recipe)
    }

    fn with_links(shape: Shape, copies: u32, links: Option<&Links>) -> Result<Self> {
        shape.check(0).context("the model does not fit the format")?;
        let mut provenance = BTreeMap::from([
            ("tool".to_owned(), Links::this_tool()),
            ("order".into(), "identity".into()),
        ]);
        let Some(links) = links else {
            let each_alone = LayerLinks {
                neuron_of_slot: (0..shape.neurons).collect(),
                link_begin: (0..=shape.neurons).collect(),
                active_count: vec![0; shape.neurons as usize],
                further: Vec::new(),
            };
            return Ok(Self::new(shape, vec![each_alone], 0, provenance));
        };
        let found = (links.layers.len() as u32, links.neurons as u32);
        ensure!(
            found.0.checked_mul(copies) == Some(shape.layers) && found.1 == shape.neurons,
            "the links are for {} layers of {} neurons, the model has {} of {}: link its own traces",
            found.0,
            found.1,
            shape.layers / copies.max(1),
            shape.neurons
        );
        let mut put = |key: &str, value: String| provenance.insert(key.to_owned(), value);
        put("order", links.order.to_string());
        if let lnp_link::Order::Random { seed } = links.order {
            put("order.seed", seed.to_string());
        }
        put("model", plain(&links.model));
        put("profile.model", plain(&links.model));
        put("profile.corpora", plain(&links.corpora.join(",")));
        put("profile.tokens", links.profile_tokens.to_string());
        for (number, trace) in links.traces.iter().enumerate() {
            put(&format!("profile.trace.{number}.file"), plain(&trace.file));
            put(&format!("profile.trace.{number}.sha256"), trace.sha256.clone());
        }
        Ok(Self::new(shape, links.layers.clone(), links.profile_tokens, provenance))
    }

    fn new(
        shape: Shape,
        layers: Vec<LayerLinks>,
        profile_tokens: u64,
        provenance: BTreeMap<String, String>,
    ) -> Self {
        let side_data = Vec::new();
        let slots = layers.iter().map(LayerLinks::slots).max().unwrap_or(0);
        Self {
            shape: Shape { slots: shape.neurons.max(slots as u32), ..shape },
            block_bytes: BLOCK_BYTES_USUAL,
            layers,
            profile_tokens,
            side_data,
            predictors: Vec::new(),
            resident_bytes: 0,
            provenance,
        }
    }

    /// The placements of a layer of the pack.
    pub fn layer(&self, layer: u32) -> &LayerLinks {
        &self.layers[layer as usize % self.layers.len()]
    }

    /// Placements of every layer.
    pub fn placements(&self) -> u32 {
        self.layers.first().map_or(1, |layer| 1 + layer.further.len() as u32)
    }

    /// Each layer of the pack in each placement, as sections are sorted.
    pub fn regions(&self) -> impl Iterator<Item = (u32, u32)> + use<> {
        let placements = self.placements();
        (0..self.shape.layers).flat_map(move |layer| (0..placements).map(move |p| (layer, p)))
    }

    /// Bytes of all bundles of the pack, copies included.
    pub fn bundle_bytes(&self) -> u64 {
        let layers = (0..self.shape.layers).map(|layer| self.layer(layer));
        let regions = layers.flat_map(LayerLinks::placements);
        let slots: u64 = regions.map(|(neuron_of_slot, _)| neuron_of_slot.len() as u64).sum();
        slots.saturating_mul(self.shape.bundle_stride.into())
    }

    /// Lays the pack out. The checksums of bundles and regions are still open.
    ///
    /// # Errors
    /// A limit of the format is passed: that is known before anything of the index is made.
    pub fn layout(&self) -> Result<PackLayout> {
        let sections = self.sections()?;
        let mut table: Vec<SectionEntry> = sections
            .iter()
            .map(|(kind, layer, placement, bytes)| write::entry(*kind, *layer, *placement, *bytes))
            .collect();
        let bytes = write::place(&mut table, self.block_bytes)?;
        let index_bytes = usize::try_from(bytes.index_bytes)?;
        let mut index = Vec::new();
        let had = index.try_reserve_exact(index_bytes);
        had.with_context(|| format!("no memory for an index of {index_bytes} bytes"))?;
        index.resize(index_bytes, 0);
        for (entry, (kind, layer, placement, bytes)) in table.iter_mut().zip(sections) {
            if kind == SectionKind::BundleRegion {
                break;
            }
            let begin = entry.offset.get() as usize;
            let place = &mut index[begin..begin + bytes as usize];
            // zeros, until the bundles are known
            if kind != SectionKind::BundleChecksums {
                place.copy_from_slice(&self.body(kind, layer, placement)?);
            }
            entry.section_crc = U32::new(crc32(place));
        }
        let (block_bytes, features) = (self.block_bytes, self.features());
        let mut layout = PackLayout { sections: table, bytes, index, block_bytes, features };
        layout.seal();
        Ok(layout)
    }

    fn features(&self) -> u64 {
        let placeholder = self.shape.dtype == Dtype::Placeholder;
        let own_activations = self.side_data.iter().any(|side| side.activation.is_some());
        let bit = |set: bool, bit: u64| if set { bit } else { 0 };
        bit(placeholder, INCOMPAT_PLACEHOLDER)
            | bit(own_activations, INCOMPAT_LAYER_ACTIVATIONS)
            | bit(self.shape.has_copies(), INCOMPAT_COPIES)
    }

    /// Kind, layer, placement and bytes of each section, in file order.
    fn sections(&self) -> Result<Vec<(SectionKind, u32, u32, u64)>> {
        let mut sections = Vec::new();
        for kind in [SectionKind::ModelShape, SectionKind::Provenance] {
            sections.push((kind, WHOLE_PACK, 0, self.body(kind, WHOLE_PACK, 0)?.len() as u64));
        }
        let (mut checksums, mut regions) = (Vec::new(), Vec::new());
        for (layer, placement) in self.regions() {
            let (neuron_of_slot, link_begin) = self.placement(layer, placement)?;
            let (neurons, slots) = (self.shape.neurons, neuron_of_slot.len() as u32);
            let links = link_begin.len() as u32 - 1;
            let bytes = if self.shape.has_copies() {
                write::link_index_bytes_with_copies(neurons, slots, links)
            } else {
                write::link_index_bytes(neurons, links)
            };
            sections.push((SectionKind::LinkIndex, layer, placement, bytes));
            checksums.push((SectionKind::BundleChecksums, layer, placement, 4 * u64::from(slots)));
            let bytes = self.shape.region_bytes(slots);
            regions.push((SectionKind::BundleRegion, layer, placement, bytes));
        }
        for (layer, side) in (0..).zip(&self.side_data) {
            if !side.is_empty() {
                let bytes = side_data(side).len() as u64;
                sections.push((SectionKind::SideData, layer, 0, bytes));
            }
        }
        sections.extend(checksums);
        sections.extend(self.predictors.iter().map(|predictor| {
            let PackedPredictor { layer, horizon, bytes } = predictor;
            (SectionKind::Predictor, *layer, *horizon, bytes.len() as u64)
        }));
        sections.extend(regions);
        if self.resident_bytes > 0 {
            sections.push((SectionKind::Resident, WHOLE_PACK, 0, self.resident_bytes));
        }
        Ok(sections)
    }

    /// The bytes of a section that is known before the bundles are.
    fn body(&self, kind: SectionKind, layer: u32, placement: u32) -> Result<Vec<u8>> {
        Ok(match kind {
            SectionKind::ModelShape => self.shape.to_disk().as_bytes().to_vec(),
            SectionKind::Provenance => self.provenance_text().into_bytes(),
            SectionKind::LinkIndex => self.link_index(layer, placement)?,
            SectionKind::Predictor => self.predictor(layer, placement)?.to_vec(),
            _ => side_data(&self.side_data[layer as usize]),
        })
    }

    /// Order and links of a placement of a layer.
    ///
    /// # Errors
    /// There is no such placement.
    pub(super) fn placement(&self, layer: u32, placement: u32) -> Result<(&[u32], &[u32])> {
        let mut placements = self.layer(layer).placements();
        placements.nth(placement as usize).context("layers of fewer placements")
    }

    fn predictor(&self, layer: u32, horizon: u32) -> Result<&[u8]> {
        let own = |p: &&PackedPredictor| (p.layer, p.horizon) == (layer, horizon);
        let found = self.predictors.iter().find(own).context("a missing predictor")?;
        Ok(&found.bytes)
    }

    fn provenance_text(&self) -> String {
        self.provenance.iter().map(|(key, value)| format!("{key}={value}\n")).collect()
    }

    fn link_index(&self, layer: u32, placement: u32) -> Result<Vec<u8>> {
        let (neuron_of_slot, link_begin) = self.placement(layer, placement)?;
        let slot_of_neuron = slot_of_neuron(neuron_of_slot, self.shape.neurons as usize)?;
        let count = link_begin.len() as u32 - 1;
        let (slots, next_slot) = match self.shape.has_copies() {
            false => (0, Vec::new()),
            true => (neuron_of_slot.len(), next_slots(neuron_of_slot, slot_of_neuron.len())),
        };
        let neurons = self.shape.neurons;
        let header = write::link_index_header(neurons, count, self.profile_tokens, slots as u32);
        let active_count = &self.layer(layer).active_count;
        let counts_by_slot: Vec<u32> =
            neuron_of_slot.iter().map(|neuron| active_count[*neuron as usize]).collect();
        let mut bytes = header.as_bytes().to_vec();
        for array in [&slot_of_neuron[..], neuron_of_slot, link_begin, &counts_by_slot, &next_slot]
        {
            bytes.extend(array.iter().flat_map(|word| word.to_le_bytes()));
        }
        Ok(bytes)
    }
}

impl PackLayout {
    /// Where the bundle region of a placement of a layer begins in the file, bytes.
    pub fn region_offset(&self, layer: u32, placement: u32) -> Option<u64> {
        let at = self.find(SectionKind::BundleRegion, layer, placement)?;
        Some(self.sections[at].offset.get())
    }

    /// Where the model's other weights begin in the file, bytes; none where there are none.
    pub fn resident_offset(&self) -> Option<u64> {
        let at = self.find(SectionKind::Resident, WHOLE_PACK, 0)?;
        Some(self.sections[at].offset.get())
    }

    /// Enters their checksum.
    pub fn set_resident_checksum(&mut self, checksum: u32) {
        if let Some(at) = self.find(SectionKind::Resident, WHOLE_PACK, 0) {
            self.sections[at].section_crc = U32::new(checksum);
        }
    }

    /// Enters the checksums of a placement of a layer: of each bundle in slot order, and of the region.
    pub fn set_checksums(&mut self, layer: u32, placement: u32, bundles: &[u32], region: u32) {
        if let Some(at) = self.find(SectionKind::BundleRegion, layer, placement) {
            self.sections[at].section_crc = U32::new(region);
        }
        if let Some(at) = self.find(SectionKind::BundleChecksums, layer, placement) {
            let words: Vec<U32<LE>> = bundles.iter().map(|sum| U32::new(*sum)).collect();
            let begin = self.sections[at].offset.get() as usize;
            self.index[begin..begin + words.as_bytes().len()].copy_from_slice(words.as_bytes());
            self.sections[at].section_crc = U32::new(crc32(words.as_bytes()));
        }
    }

    /// Writes section table and superblock into the index.
    pub fn seal(&mut self) {
        let superblock = write::seal(&self.sections, self.bytes, self.block_bytes, self.features);
        self.index[..SUPERBLOCK_BYTES].copy_from_slice(superblock.as_bytes());
        let table = self.sections.as_bytes();
        self.index[SUPERBLOCK_BYTES..SUPERBLOCK_BYTES + table.len()].copy_from_slice(table);
    }

    fn find(&self, kind: SectionKind, layer: u32, placement: u32) -> Option<usize> {
        let key =
            |entry: &SectionEntry| (entry.kind.get(), entry.layer.get(), entry.placement.get());
        self.sections.binary_search_by_key(&(kind.code(), layer, placement), key).ok()
    }
}

/// An activation in the words of the format, and its threshold.
fn activation(of_model: lnp_model::Activation) -> (Activation, f32) {
    use lnp_model::Activation as Model;
    match of_model {
        Model::Relu => (Activation::Relu, 0.0),
        Model::Fatrelu { threshold } => (Activation::Fatrelu, threshold),
        Model::Relu2 => (Activation::Relu2, 0.0),
        Model::Drelu => (Activation::Drelu, 0.0),
        Model::Silu => (Activation::Silu, 0.0),
        Model::Gelu => (Activation::Gelu, 0.0),
        Model::GeluTanh => (Activation::GeluTanh, 0.0),
        Model::GaussianTopk { deviations } => (Activation::GaussianTopk, deviations),
    }
}

fn side_data(side: &SideData) -> Vec<u8> {
    let mut arrays = 0;
    for (values, bit) in side.arrays() {
        arrays |= if values.is_empty() { 0 } else { bit };
    }
    let mut bytes =
        write::side_data_header(arrays, side.norm_eps, side.activation).as_bytes().to_vec();
    let values = side.arrays().into_iter().flat_map(|(values, _)| values);
    bytes.extend(values.flat_map(|value| value.to_le_bytes()));
    bytes
}
