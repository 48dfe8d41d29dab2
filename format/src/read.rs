//! From bytes to views: everything is checked here, once; what comes out cannot fail any more.

use zerocopy::FromBytes;
use zerocopy::byteorder::{F32, LE, U32};

use crate::codes::{
    INCOMPAT_COPIES, INCOMPAT_LAYER_ACTIVATIONS, INCOMPAT_PLACEHOLDER, SectionKind, WHOLE_PACK,
};
use crate::error::FormatError;
use crate::layout::{ModelShape, SectionEntry, Superblock, field_at};
use crate::link_index::{LinkIndex, Slots};
use crate::predictor::Predictor;
use crate::provenance::Provenance;
use crate::sections::{check_places, entry_offset, find, find_entry, missing, wrong_length};
pub use crate::sections::{check_superblock, section_table};
use crate::shape::Shape;
use crate::side_data::SideData;
use crate::{Activation, Dtype};

/// A validated pack: views into the index bytes that the caller holds.
#[derive(Clone, Copy, Debug)]
pub struct Pack<'a> {
    index: &'a [u8],
    superblock: &'a Superblock,
    sections: &'a [SectionEntry],
    shape: Shape,
    provenance: Provenance<'a>,
    placements: u32,
}

impl<'a> Pack<'a> {
    /// Validates the index: the first [`Superblock::index_bytes`] bytes of a file of `file_bytes`.
    ///
    /// Takes time linear in the length of the index, whatever its fields claim. Every index
    /// section's checksum is verified; of the bulk sections only the place is.
    ///
    /// # Errors
    /// The first rule of `spec/lnp-v1.md` that the bytes break.
    pub fn parse(index: &'a [u8], file_bytes: u64) -> Result<Self, FormatError> {
        let superblock = check_superblock(index, file_bytes)?;
        let index_bytes = superblock.index_bytes.get();
        let index = usize::try_from(index_bytes)
            .ok()
            .and_then(|length| index.get(..length))
            .ok_or(FormatError::Truncated {
                what: "index",
                offset: 0,
                expected: index_bytes,
                found: index.len() as u64,
            })?;
        let sections = section_table(index, superblock)?;
        check_places(index, superblock, sections)?;

        let (bytes, entry) = find(index, sections, SectionKind::ModelShape, WHOLE_PACK, 0)
            .ok_or(missing(SectionKind::ModelShape, WHOLE_PACK))?;
        let offset = entry.offset.get();
        let disk = ModelShape::ref_from_bytes(bytes)
            .map_err(|_| wrong_length(SectionKind::ModelShape, entry, "must be 64"))?;
        let shape = Shape::from_disk(disk, offset)?;
        let placeholder = superblock.feature_incompat.get() & INCOMPAT_PLACEHOLDER != 0;
        if placeholder != (shape.dtype == Dtype::Placeholder) {
            return Err(FormatError::Field {
                field: "dtype",
                offset: field_at(ModelShape::FIELDS, "dtype", offset),
                rule: "must be placeholder where the feature bit says so, and only there",
                found: shape.dtype.code().into(),
            });
        }
        let copies = superblock.feature_incompat.get() & INCOMPAT_COPIES != 0;
        if copies != (disk.slots.get() > 0) {
            return Err(FormatError::Field {
                field: "slots",
                offset: field_at(ModelShape::FIELDS, "slots", offset),
                rule: "must be there where the feature bit says so, and only there",
                found: disk.slots.get().into(),
            });
        }
        let (bytes, entry) = find(index, sections, SectionKind::Provenance, WHOLE_PACK, 0)
            .ok_or(missing(SectionKind::Provenance, WHOLE_PACK))?;
        let provenance = Provenance::parse(bytes, entry.offset.get())?;

        let mut pack = Self { index, superblock, sections, shape, provenance, placements: 1 };
        pack.check_owners()?;
        for number in 0..shape.layers {
            pack.check_layer(number)?;
        }
        pack.check_predictors()?;
        while (0..shape.layers).all(|layer| pack.is_usable(layer, pack.placements)) {
            pack.placements += 1;
        }
        Ok(pack)
    }

    /// The superblock.
    pub const fn superblock(&self) -> &'a Superblock {
        self.superblock
    }

    /// Bytes of a block: alignment of sections, and of direct reads.
    pub fn block_bytes(&self) -> u32 {
        self.superblock.block_bytes.get()
    }

    /// The section table, ascending by (kind, layer, placement) and by offset.
    pub const fn sections(&self) -> &'a [SectionEntry] {
        self.sections
    }

    /// The model shape.
    pub const fn shape(&self) -> &Shape {
        &self.shape
    }

    /// Where the pack comes from.
    pub const fn provenance(&self) -> Provenance<'a> {
        self.provenance
    }

    /// Where in the file the model's other weights are, first byte and length: a safetensors file, of which nothing is
    /// checked here. `None` where the pack has none.
    pub fn resident(&self) -> Option<(u64, u64)> {
        let entry = find_entry(self.sections, SectionKind::Resident, WHOLE_PACK, 0)?;
        Some((entry.offset.get(), entry.bytes.get()))
    }

    /// Whether the bundles are placeholders, nothing to compute from.
    pub fn is_placeholder(&self) -> bool {
        self.shape.dtype == Dtype::Placeholder
    }

    /// Placements that every layer has, complete and of the same bundles: at least 1. What lies
    /// beyond is not looked at, as section 5.2 of the specification asks.
    pub const fn placements(&self) -> u32 {
        self.placements
    }

    /// The first placement of a layer; `None` where the model has no such layer.
    pub fn layer(&self, layer: u32) -> Option<Layer<'a>> {
        self.placement(layer, 0)
    }

    /// A placement of a layer; `None` where there is no such layer or not so many placements.
    pub fn placement(&self, layer: u32, placement: u32) -> Option<Layer<'a>> {
        if layer >= self.shape.layers || placement >= self.placements {
            return None;
        }
        self.view(layer, placement)
    }

    /// The same, whatever it holds.
    fn view(&self, layer: u32, placement: u32) -> Option<Layer<'a>> {
        let own = |kind| find(self.index, self.sections, kind, layer, placement);
        let link_index = LinkIndex::split(own(SectionKind::LinkIndex)?.0)?;
        let side = match find(self.index, self.sections, SectionKind::SideData, layer, 0) {
            None => SideData::default(),
            Some((bytes, _)) => SideData::split(bytes, &self.shape)?,
        };
        let checksums = <[U32<LE>]>::ref_from_bytes(own(SectionKind::BundleChecksums)?.0).ok()?;
        let region = find_entry(self.sections, SectionKind::BundleRegion, layer, placement)?;
        Some(Layer {
            link_index,
            activation: side
                .activation
                .unwrap_or((self.shape.activation, self.shape.activation_threshold)),
            side,
            checksums,
            region_offset: region.offset.get(),
            region_bytes: region.bytes.get(),
        })
    }

    /// The predictor of a layer from the input of the layer `horizon` before it; `None` where the pack has none, or one of
    /// a kind that is not known here.
    pub fn predictor(&self, layer: u32, horizon: u32) -> Option<Predictor<'a>> {
        Predictor::split(find(self.index, self.sections, SectionKind::Predictor, layer, horizon)?.0)
    }

    /// All predictors that are known here, each with its layer and horizon; by layer, then by horizon.
    pub fn predictors(&self) -> impl Iterator<Item = (u32, u32, Predictor<'a>)> + '_ {
        let of_kind = |entry: &&SectionEntry| entry.kind.get() == SectionKind::Predictor.code();
        self.sections.iter().filter(of_kind).filter_map(|entry| {
            let (layer, horizon) = (entry.layer.get(), entry.placement.get());
            Some((layer, horizon, self.predictor(layer, horizon)?))
        })
    }

    /// All layers, first placement, in order.
    pub fn layers(&self) -> impl Iterator<Item = Layer<'a>> + '_ {
        (0..self.shape.layers).filter_map(|layer| self.layer(layer))
    }

    /// A section of a known kind belongs to the whole pack or to a layer that exists.
    fn check_owners(&self) -> Result<(), FormatError> {
        for (number, entry) in self.sections.iter().enumerate() {
            let Some(kind) = SectionKind::from_code(entry.kind.get()) else { continue };
            let whole = matches!(
                kind,
                SectionKind::ModelShape | SectionKind::Provenance | SectionKind::Resident
            );
            let layer = entry.layer.get();
            let owner_ok = if whole { layer == WHOLE_PACK } else { layer < self.shape.layers };
            let placement_max = match kind {
                SectionKind::ModelShape
                | SectionKind::Provenance
                | SectionKind::SideData
                | SectionKind::Resident => 0,
                // its horizon: what is so far before the layer is a layer too
                SectionKind::Predictor => layer,
                _ => u32::MAX,
            };
            if !owner_ok || entry.placement.get() > placement_max {
                return Err(FormatError::Field {
                    field: if owner_ok { "placement" } else { "layer" },
                    offset: entry_offset(number),
                    rule: "must be one that the section's kind may belong to",
                    found: if owner_ok { entry.placement.get() } else { layer }.into(),
                });
            }
        }
        Ok(())
    }

    /// What the predictors' sections hold; a placeholder pack has none.
    fn check_predictors(&self) -> Result<(), FormatError> {
        for (number, entry) in self.sections.iter().enumerate() {
            let (kind, layer, horizon) =
                (entry.kind.get(), entry.layer.get(), entry.placement.get());
            if kind != SectionKind::Predictor.code() {
                continue;
            }
            if self.is_placeholder() {
                let rule = "a placeholder pack has no predictors";
                let offset = entry_offset(number);
                return Err(FormatError::Field { field: "kind", offset, rule, found: kind.into() });
            }
            let kind = SectionKind::Predictor;
            let (bytes, _) = find(self.index, self.sections, kind, layer, horizon)
                .ok_or(missing(kind, layer))?;
            Predictor::check(bytes, &self.shape, entry.offset.get())?;
        }
        Ok(())
    }

    /// Whether a placement from 1 on may be read from: it is there, keeps the rules of the first,
    /// and its checksums say that its bundles are those of the first.
    fn is_usable(&self, layer: u32, placement: u32) -> bool {
        let (Some(first), Some(other)) = (self.view(layer, 0), self.view(layer, placement)) else {
            return false;
        };
        let slots = other.link_index.slots();
        other.link_index.check(&self.shape, self.has_copies(), 0).is_ok()
            && other.checksums.len() as u64 == u64::from(slots)
            && other.region_bytes == self.shape.region_bytes(slots)
            && (0..self.shape.neurons)
                .all(|id| matches!((first.checksum(id), other.checksum(id)), (Some(one), Some(two)) if one == two))
    }

    /// Whether a neuron may have several slots in a placement.
    const fn has_copies(&self) -> bool {
        self.superblock.feature_incompat.get() & INCOMPAT_COPIES != 0
    }

    /// Everything of one layer's first placement that is in the index, and the region's place.
    fn check_layer(&self, layer: u32) -> Result<(), FormatError> {
        let shape = &self.shape;
        let find =
            |kind| find(self.index, self.sections, kind, layer, 0).ok_or(missing(kind, layer));
        let (bytes, entry) = find(SectionKind::LinkIndex)?;
        let link_index = LinkIndex::split(bytes).ok_or(wrong_length(
            SectionKind::LinkIndex,
            entry,
            "must be that of its arrays",
        ))?;
        link_index.check(shape, self.has_copies(), entry.offset.get())?;

        let (bytes, entry) = find(SectionKind::BundleChecksums)?;
        if bytes.len() as u64 != u64::from(link_index.slots()) * 4 {
            return Err(wrong_length(SectionKind::BundleChecksums, entry, "must be 4 per slot"));
        }
        if let Some(entry) = find_entry(self.sections, SectionKind::SideData, layer, 0) {
            let (bytes, _) = find(SectionKind::SideData)?;
            let features = self.superblock.feature_incompat.get();
            SideData::check(bytes, shape, entry, features & INCOMPAT_LAYER_ACTIVATIONS != 0)?;
        }
        let region = find_entry(self.sections, SectionKind::BundleRegion, layer, 0)
            .ok_or(missing(SectionKind::BundleRegion, layer))?;
        if region.bytes.get() != shape.region_bytes(link_index.slots()) {
            let rule = "must be slots times bundle_stride";
            return Err(wrong_length(SectionKind::BundleRegion, region, rule));
        }
        let view = self.view(layer, 0).ok_or(missing(SectionKind::LinkIndex, layer))?;
        let unlike = |neuron: &u32| view.checksum(*neuron).is_none();
        let unlike = (0..shape.neurons).filter(|_| self.has_copies()).find(unlike);
        unlike.map_or(Ok(()), |neuron| {
            let (field, rule) = ("bundle_checksums", "must be equal for all slots of a neuron");
            let offset = entry.offset.get();
            Err(FormatError::Field { field, offset, rule, found: neuron.into() })
        })
    }
}

/// One placement of a layer: its link index, the layer's side data, and where its bundles are.
#[derive(Clone, Copy, Debug)]
pub struct Layer<'a> {
    link_index: LinkIndex<'a>,
    side: SideData<'a>,
    activation: (Activation, f32),
    checksums: &'a [U32<LE>],
    region_offset: u64,
    region_bytes: u64,
}

impl<'a> Layer<'a> {
    /// Slot of each neuron, by neuron id; of several the first.
    pub const fn slot_of_neuron(&self) -> &'a [U32<LE>] {
        self.link_index.slot_of_neuron
    }
    /// Slots of the placement: as many as neurons, or more where some have copies.
    pub const fn slots(&self) -> u32 {
        self.link_index.slots()
    }
    /// The slots of a neuron, ascending: one, or more where it has copies. None where there is no such neuron.
    pub fn slots_of(&self, neuron: u32) -> Slots<'a> {
        self.link_index.slots_of(neuron)
    }
    /// CRC-32 of a neuron's bundle; `None` where there is no such neuron or its slots disagree, which a valid pack rules out.
    pub fn checksum(&self, neuron: u32) -> Option<u32> {
        let sum_of = |slot: u32| self.checksums.get(slot as usize).map(|sum| sum.get());
        let mut slots = self.slots_of(neuron);
        let first = sum_of(slots.next()?)?;
        slots.all(|slot| sum_of(slot) == Some(first)).then_some(first)
    }
    /// Neuron of each slot, by slot.
    pub const fn neuron_of_slot(&self) -> &'a [U32<LE>] {
        self.link_index.neuron_of_slot
    }
    /// First slot of each link, then the number of slots: link k is `link_begin[k]..link_begin[k + 1]`.
    pub const fn link_begin(&self) -> &'a [U32<LE>] {
        self.link_index.link_begin
    }
    /// In how many tokens of the profile each slot was active, by slot.
    pub const fn active_count(&self) -> &'a [U32<LE>] {
        self.link_index.active_count
    }
    /// Tokens of the profile.
    pub fn profile_tokens(&self) -> u64 {
        self.link_index.header.profile_tokens.get()
    }
    /// Links of the layer.
    pub fn links(&self) -> u32 {
        self.link_index.header.links.get()
    }
    /// CRC-32 of each bundle, by slot.
    pub const fn bundle_checksums(&self) -> &'a [U32<LE>] {
        self.checksums
    }
    /// Bias of each neuron's activation input, by neuron id; empty where the model has none.
    pub const fn neuron_bias(&self) -> &'a [F32<LE>] {
        self.side.neuron_bias
    }
    /// The function between up (or gate) and down, and its threshold: its own, or those of the model shape.
    pub const fn activation(&self) -> (Activation, f32) {
        self.activation
    }
    /// Bias of the FFN's output, `hidden` values; empty where the model has none.
    pub const fn output_bias(&self) -> &'a [F32<LE>] {
        self.side.output_bias
    }
    /// Bias of each neuron's product with its up part, by neuron id; empty where the model has none.
    pub const fn up_bias(&self) -> &'a [F32<LE>] {
        self.side.up_bias
    }
    /// Weights of the norm over the coefficients before the down columns, by neuron id, and its epsilon; `None` where
    /// the model has none.
    pub const fn down_norm(&self) -> Option<(&'a [F32<LE>], f32)> {
        if self.side.down_norm.is_empty() {
            return None;
        }
        Some((self.side.down_norm, self.side.norm_eps))
    }
    /// Where the bundle region begins, bytes from the start of the file; a multiple of the block.
    pub const fn region_offset(&self) -> u64 {
        self.region_offset
    }
    /// Bytes of the bundle region, padding not included.
    pub const fn region_bytes(&self) -> u64 {
        self.region_bytes
    }
}
