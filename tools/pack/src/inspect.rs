//! Describes a pack: shape, sections, link statistics, predictors, provenance. Whole numbers, and those f32 that
//! stand in the pack, so that a second reader in another language comes to exactly the same JSON.

use std::collections::BTreeMap;

use lnp_format::codes::WHOLE_PACK;
use lnp_format::layout::VERSION_MAJOR;
use lnp_format::{Layer, Pack, Predictor, PredictorBody, PredictorKind, SectionKind};
use serde::Serialize;
use zerocopy::byteorder::{LE, U32};

/// Everything that `lnp inspect --json` prints.
#[derive(Debug, Serialize)]
pub struct Description {
    /// `[major, minor]`.
    pub version: [u16; 2],
    /// Alignment of sections and reads, bytes.
    pub block_bytes: u32,
    /// Compatible feature bits.
    pub feature_compat: u64,
    /// Incompatible feature bits.
    pub feature_incompat: u64,
    /// Length of the file, bytes.
    pub file_bytes: u64,
    /// Bytes up to the first bulk section.
    pub index_bytes: u64,
    /// The model shape.
    pub shape: ShapeDescription,
    /// Sections by kind.
    pub sections: Vec<SectionDescription>,
    /// Placements that can be read from.
    pub placements: u32,
    /// One entry a layer, of its first placement.
    pub layers: Vec<LayerDescription>,
    /// Its predictors, by layer, then by horizon.
    pub predictors: Vec<PredictorDescription>,
    /// Where the pack comes from.
    pub provenance: BTreeMap<String, String>,
}

/// The model shape, names for codes.
#[derive(Debug, Serialize)]
pub struct ShapeDescription {
    /// Layers of the pack.
    pub layers: u32,
    /// Neurons of each layer.
    pub neurons: u32,
    /// Hidden size.
    pub hidden: u32,
    /// Parts of a bundle.
    pub parts: u32,
    /// Name of the activation.
    pub activation: &'static str,
    /// Bits of the threshold, an f32.
    pub activation_threshold_bits: u32,
    /// Name of the number type.
    pub dtype: &'static str,
    /// Bytes of a part.
    pub part_bytes: u32,
    /// Bytes of a bundle.
    pub bundle_stride: u32,
    /// Most slots of a placement: as many as neurons, or more where some have copies.
    pub slots: u32,
}

/// One entry of the section table.
#[derive(Debug, Serialize)]
pub struct SectionDescription {
    /// Name of the kind, or its number where it is not known.
    pub kind: String,
    /// The layer; `None` for the whole pack.
    pub layer: Option<u32>,
    /// The placement.
    pub placement: u32,
    /// First byte.
    pub offset: u64,
    /// Length, bytes.
    pub bytes: u64,
    /// CRC-32, 8 hexadecimal digits.
    pub section_crc: String,
}

/// Statistics of one layer's first placement.
#[derive(Debug, Serialize)]
pub struct LayerDescription {
    /// The layer.
    pub layer: u32,
    /// Slots: as many as neurons, or more where some have copies.
    pub slots: u32,
    /// Links.
    pub links: u32,
    /// Slots in the longest link.
    pub longest_link: u32,
    /// Links of one slot.
    pub single_links: u32,
    /// Slots whose neuron follows that of the slot before in the model's order.
    pub model_order_pairs: u32,
    /// Tokens of the profile.
    pub profile_tokens: u64,
    /// Sum of the active counts: active neurons of all profile tokens.
    pub profile_active: u64,
    /// Neurons that were never active in the profile.
    pub never_active: u32,
    /// Whether the layer has neuron biases, and an output bias.
    pub biases: [bool; 2],
    /// Whether it has biases of the up rows of a gated FFN.
    pub up_bias: bool,
    /// Whether a norm comes before its down columns.
    pub down_norm: bool,
    /// Its activation: its own, or that of the model shape.
    pub activation: &'static str,
    /// The bits of the threshold beside it, an f32.
    pub activation_threshold_bits: u32,
    /// Where the bundles begin, bytes.
    pub region_offset: u64,
}

/// One predictor.
#[derive(Debug, Serialize)]
pub struct PredictorDescription {
    /// The layer whose active neurons it predicts.
    pub layer: u32,
    /// How many layers ahead.
    pub horizon: u32,
    /// What it is made of.
    pub kind: &'static str,
    /// How its matrices are stored.
    pub numbers: &'static str,
    /// The rank of a low-rank one, else 0.
    pub rank: u32,
    /// Whether what is below zero between its matrices becomes zero.
    pub relu_between: bool,
    /// Whether something is added between its matrices.
    pub reduce_bias: bool,
    /// Whether it tells how much each neuron matters.
    pub strength_scales: bool,
    /// Whether scores are compared by `layer`, or by `neuron` at each operating point.
    pub thresholds: &'static str,
    /// Bytes of the matrices, and of what is added at one operating point.
    pub bytes: u64,
    /// The operating points.
    pub points: Vec<PointDescription>,
}

/// An operating point; shares are 0 to 1.
#[derive(Debug, Serialize)]
pub struct PointDescription {
    /// What the point is chosen by.
    pub quality: f64,
    /// What scores are compared with.
    pub threshold: f64,
    /// Share of the active (token, neuron) pairs that are read.
    pub recall: f64,
    /// Bundles read for each active one.
    pub reads_per_active: f64,
    /// Share of the squared strength that is read.
    pub share_kept: f64,
}

/// Describes a validated pack.
pub fn describe(pack: &Pack<'_>) -> Description {
    let (superblock, shape) = (pack.superblock(), pack.shape());
    Description {
        version: [VERSION_MAJOR, superblock.version_minor.get()],
        block_bytes: pack.block_bytes(),
        feature_compat: superblock.feature_compat.get(),
        feature_incompat: superblock.feature_incompat.get(),
        file_bytes: superblock.file_bytes.get(),
        index_bytes: superblock.index_bytes.get(),
        shape: ShapeDescription {
            layers: shape.layers,
            neurons: shape.neurons,
            hidden: shape.hidden,
            parts: shape.parts,
            activation: shape.activation.name(),
            activation_threshold_bits: shape.activation_threshold.to_bits(),
            dtype: shape.dtype.name(),
            part_bytes: shape.part_bytes(),
            bundle_stride: shape.bundle_stride,
            slots: shape.slots,
        },
        sections: pack.sections().iter().map(describe_section).collect(),
        placements: pack.placements(),
        layers: (0..).zip(pack.layers()).map(|(n, layer)| describe_layer(n, &layer)).collect(),
        predictors: pack.predictors().map(describe_predictor).collect(),
        provenance: pack
            .provenance()
            .entries()
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect(),
    }
}

fn describe_section(entry: &lnp_format::layout::SectionEntry) -> SectionDescription {
    let kind = entry.kind.get();
    let layer = entry.layer.get();
    SectionDescription {
        kind: SectionKind::from_code(kind).map_or(kind.to_string(), |kind| kind.name().into()),
        layer: (layer != WHOLE_PACK).then_some(layer),
        placement: entry.placement.get(),
        offset: entry.offset.get(),
        bytes: entry.bytes.get(),
        section_crc: format!("{:08x}", entry.section_crc.get()),
    }
}

fn describe_predictor(
    (layer, horizon, predictor): (u32, u32, Predictor<'_>),
) -> PredictorDescription {
    let (kind, rank, reduce_bias) = match predictor.body() {
        PredictorBody::LowRank { rank, reduce_bias, .. } => {
            (PredictorKind::LowRank, rank, !reduce_bias.is_empty())
        }
        PredictorBody::Rows(_) => (PredictorKind::Rows, 0, false),
    };
    let points = predictor.points().iter().map(|point| PointDescription {
        quality: point.quality.get().into(),
        threshold: point.threshold.get().into(),
        recall: point.recall.get().into(),
        reads_per_active: point.reads_per_active.get().into(),
        share_kept: point.share_kept.get().into(),
    });
    PredictorDescription {
        layer,
        horizon,
        kind: kind.name(),
        numbers: predictor.numbers().name(),
        rank,
        relu_between: predictor.relu_between(),
        reduce_bias,
        strength_scales: !predictor.strength_scales().is_empty(),
        thresholds: if predictor.by_neuron() { "neuron" } else { "layer" },
        bytes: predictor.bytes(),
        points: points.collect(),
    }
}

fn describe_layer(number: u32, layer: &Layer<'_>) -> LayerDescription {
    let lengths = || layer.link_begin().windows(2).map(|pair| pair[1].get() - pair[0].get());
    let follows = |pair: &&[U32<LE>]| pair[1].get() == pair[0].get().wrapping_add(1);
    // Of each neuron once, by its first slot.
    let count_of = |slot: &U32<LE>| layer.active_count().get(slot.get() as usize);
    let counts = || layer.slot_of_neuron().iter().filter_map(count_of).map(|count| count.get());
    let (activation, threshold) = layer.activation();
    LayerDescription {
        layer: number,
        slots: layer.slots(),
        links: layer.links(),
        longest_link: lengths().max().unwrap_or(0),
        single_links: lengths().filter(|length| *length == 1).count() as u32,
        model_order_pairs: layer.neuron_of_slot().windows(2).filter(follows).count() as u32,
        profile_tokens: layer.profile_tokens(),
        profile_active: counts().map(u64::from).sum(),
        never_active: counts().filter(|count| *count == 0).count() as u32,
        biases: [!layer.neuron_bias().is_empty(), !layer.output_bias().is_empty()],
        up_bias: !layer.up_bias().is_empty(),
        down_norm: layer.down_norm().is_some(),
        activation: activation.name(),
        activation_threshold_bits: threshold.to_bits(),
        region_offset: layer.region_offset(),
    }
}
