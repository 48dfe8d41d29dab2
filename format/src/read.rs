//! From bytes to views: everything is checked here, once; what comes out cannot fail any more.

use core::cmp::Ordering;

use zerocopy::FromBytes;
use zerocopy::byteorder::{F32, LE, U32};

use crate::Dtype;
use crate::checksum::{check, check_zero};
use crate::codes::{
    FIRST_BULK_KIND, INCOMPAT_KNOWN, INCOMPAT_PLACEHOLDER, SectionKind, WHOLE_PACK,
};
use crate::error::FormatError;
use crate::layout::{
    LinkIndexHeader, MAGIC, ModelShape, SIDE_NEURON_BIAS, SIDE_OUTPUT_BIAS, SectionEntry,
    SideDataHeader, Superblock, VERSION_MAJOR,
};
use crate::limits;
use crate::provenance::Provenance;
use crate::shape::Shape;

/// Validates the superblock, the first 4,096 bytes of a file of `file_bytes` bytes.
///
/// Afterwards [`Superblock::index_bytes`] says how many bytes [`Pack::parse`] needs.
///
/// # Errors
/// [`FormatError`]: not a pack, another version, damaged, or a field that breaks its rule.
pub fn check_superblock(bytes: &[u8], file_bytes: u64) -> Result<&Superblock, FormatError> {
    let truncated = FormatError::Truncated {
        what: "superblock",
        offset: 0,
        expected: limits::SUPERBLOCK_BYTES as u64,
        found: (bytes.len() as u64).min(file_bytes),
    };
    let (superblock, _) = Superblock::ref_from_prefix(bytes).map_err(|_| truncated)?;
    if superblock.magic != MAGIC {
        return Err(FormatError::NotAPack { found: u64::from_le_bytes(superblock.magic) });
    }
    if superblock.version_major.get() != VERSION_MAJOR {
        return Err(FormatError::Version { found: superblock.version_major.get() });
    }
    let sealed = bytes.get(..limits::SUPERBLOCK_BYTES - 4).ok_or(truncated)?;
    check("superblock", 0, sealed, superblock.superblock_crc.get())?;
    let unknown = superblock.feature_incompat.get() & !INCOMPAT_KNOWN;
    if unknown != 0 {
        return Err(FormatError::Features { found: unknown });
    }
    let at = |name: &str| {
        let field = Superblock::FIELDS.iter().find(|field| field.name == name);
        field.map_or(0, |field| field.offset as u64)
    };
    let rule = |ok: bool, field: &'static str, rule: &'static str, found: u64| {
        if ok { Ok(()) } else { Err(FormatError::Field { field, offset: at(field), rule, found }) }
    };
    let block = superblock.block_bytes.get();
    rule(is_block(block), "block_bytes", "must be a power of two, 512 to 65,536", block.into())?;
    let stated = superblock.file_bytes.get();
    if stated > file_bytes {
        return Err(FormatError::Truncated {
            what: "file",
            offset: 0,
            expected: stated,
            found: file_bytes,
        });
    }
    rule(stated <= limits::FILE_BYTES_MAX, "file_bytes", "must be at most 2^62", stated)?;
    rule(stated == file_bytes, "file_bytes", "must be the length of the file", stated)?;
    let index = superblock.index_bytes.get();
    rule(index <= stated, "index_bytes", "must be within the file", index)?;
    rule(index <= limits::INDEX_BYTES_MAX, "index_bytes", "must be at most 2^32", index)?;
    rule(
        index.is_multiple_of(block.into()),
        "index_bytes",
        "must be a multiple of block_bytes",
        index,
    )?;
    let count = superblock.section_count.get();
    rule(
        count <= limits::SECTIONS_MAX,
        "section_count",
        "must be at most 1,048,576",
        count.into(),
    )?;
    check_zero("superblock.reserved", at("reserved"), &superblock.reserved)?;
    Ok(superblock)
}

/// Whether a block may have so many bytes.
pub(crate) const fn is_block(bytes: u32) -> bool {
    bytes.is_power_of_two() && limits::BLOCK_BYTES_MIN <= bytes && bytes <= limits::BLOCK_BYTES_MAX
}

/// Rounds up to a multiple of `block` (a power of two).
pub(crate) const fn round_up(bytes: u64, block: u64) -> u64 {
    bytes.saturating_add(block - 1) & !(block - 1)
}

/// A validated pack: views into the index bytes that the caller holds.
#[derive(Clone, Copy, Debug)]
pub struct Pack<'a> {
    index: &'a [u8],
    superblock: &'a Superblock,
    sections: &'a [SectionEntry],
    shape: Shape,
    provenance: Provenance<'a>,
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
                offset: offset + core::mem::offset_of!(ModelShape, dtype) as u64,
                rule: "must be placeholder where the feature bit says so, and only there",
                found: shape.dtype.code().into(),
            });
        }
        let (bytes, entry) = find(index, sections, SectionKind::Provenance, WHOLE_PACK, 0)
            .ok_or(missing(SectionKind::Provenance, WHOLE_PACK))?;
        let provenance = Provenance::parse(bytes, entry.offset.get())?;

        let pack = Self { index, superblock, sections, shape, provenance };
        pack.check_owners()?;
        for number in 0..shape.layers {
            pack.check_layer(number)?;
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

    /// Whether the bundles are placeholders, nothing to compute from.
    pub fn is_placeholder(&self) -> bool {
        self.shape.dtype == Dtype::Placeholder
    }

    /// The first placement of a layer; `None` where the model has no such layer.
    pub fn layer(&self, layer: u32) -> Option<Layer<'a>> {
        if layer >= self.shape.layers {
            return None;
        }
        let find = |kind| find(self.index, self.sections, kind, layer, 0);
        let link_index = LinkIndex::split(find(SectionKind::LinkIndex)?.0)?;
        let side = match find(SectionKind::SideData) {
            None => SideData::default(),
            Some((bytes, _)) => SideData::split(bytes, &self.shape)?,
        };
        let checksums = <[U32<LE>]>::ref_from_bytes(find(SectionKind::BundleChecksums)?.0).ok()?;
        let region = find_entry(self.sections, SectionKind::BundleRegion, layer, 0)?;
        Some(Layer {
            link_index,
            side,
            checksums,
            region_offset: region.offset.get(),
            region_bytes: region.bytes.get(),
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
            let whole = matches!(kind, SectionKind::ModelShape | SectionKind::Provenance);
            let layer = entry.layer.get();
            let owner_ok = if whole { layer == WHOLE_PACK } else { layer < self.shape.layers };
            let once = whole || kind == SectionKind::SideData;
            if !owner_ok || (once && entry.placement.get() != 0) {
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

    /// Everything of one layer's first placement that is in the index, and the region's place.
    fn check_layer(&self, layer: u32) -> Result<(), FormatError> {
        let shape = &self.shape;
        let find =
            |kind| find(self.index, self.sections, kind, layer, 0).ok_or(missing(kind, layer));
        let (bytes, entry) = find(SectionKind::LinkIndex)?;
        let link_index = LinkIndex::split(bytes).ok_or(wrong_length(
            SectionKind::LinkIndex,
            entry,
            "must be that of its four arrays",
        ))?;
        link_index.check(shape.neurons, entry.offset.get())?;

        let (bytes, entry) = find(SectionKind::BundleChecksums)?;
        if bytes.len() as u64 != u64::from(shape.neurons) * 4 {
            return Err(wrong_length(SectionKind::BundleChecksums, entry, "must be 4 per neuron"));
        }
        if let Some(entry) = find_entry(self.sections, SectionKind::SideData, layer, 0) {
            let (bytes, _) = find(SectionKind::SideData)?;
            SideData::check(bytes, shape, entry)?;
        }
        let region = find_entry(self.sections, SectionKind::BundleRegion, layer, 0)
            .ok_or(missing(SectionKind::BundleRegion, layer))?;
        if region.bytes.get() != shape.region_bytes() {
            return Err(wrong_length(
                SectionKind::BundleRegion,
                region,
                "must be neurons times bundle_stride",
            ));
        }
        Ok(())
    }
}

/// One layer of a pack: its link index, its side data, and where its bundles are.
#[derive(Clone, Copy, Debug)]
pub struct Layer<'a> {
    link_index: LinkIndex<'a>,
    side: SideData<'a>,
    checksums: &'a [U32<LE>],
    region_offset: u64,
    region_bytes: u64,
}

impl<'a> Layer<'a> {
    /// Slot of each neuron, by neuron id.
    pub const fn slot_of_neuron(&self) -> &'a [U32<LE>] {
        self.link_index.slot_of_neuron
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
    /// Bias of the FFN's output, `hidden` values; empty where the model has none.
    pub const fn output_bias(&self) -> &'a [F32<LE>] {
        self.side.output_bias
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

/// The arrays of a `link_index` section.
#[derive(Clone, Copy, Debug)]
struct LinkIndex<'a> {
    header: &'a LinkIndexHeader,
    slot_of_neuron: &'a [U32<LE>],
    neuron_of_slot: &'a [U32<LE>],
    link_begin: &'a [U32<LE>],
    active_count: &'a [U32<LE>],
}

impl<'a> LinkIndex<'a> {
    /// Cuts the section into its arrays; `None` where its length is not that of the arrays.
    fn split(bytes: &'a [u8]) -> Option<Self> {
        let (header, rest) = LinkIndexHeader::ref_from_prefix(bytes).ok()?;
        let words = <[U32<LE>]>::ref_from_bytes(rest).ok()?;
        let neurons = usize::try_from(header.neurons.get()).ok()?;
        let links = usize::try_from(header.links.get()).ok()?;
        let (slot_of_neuron, words) = words.split_at_checked(neurons)?;
        let (neuron_of_slot, words) = words.split_at_checked(neurons)?;
        let (link_begin, words) = words.split_at_checked(links.checked_add(1)?)?;
        (words.len() == neurons).then_some(Self {
            header,
            slot_of_neuron,
            neuron_of_slot,
            link_begin,
            active_count: words,
        })
    }

    fn check(&self, neurons: u32, offset: u64) -> Result<(), FormatError> {
        let broken = |field, words_before: usize, rule, found: u32| FormatError::Field {
            field,
            offset: offset + size_of::<LinkIndexHeader>() as u64 + 4 * words_before as u64,
            rule,
            found: found.into(),
        };
        if self.header.neurons.get() != neurons {
            return Err(FormatError::Field {
                field: "neurons",
                offset,
                rule: "must be that of the model shape",
                found: self.header.neurons.get().into(),
            });
        }
        check_zero("link_index_header.reserved", offset + 16, &self.header.reserved)?;
        let n = self.slot_of_neuron.len();
        // Each array being the other's inverse is what makes both permutations.
        for (slot, neuron) in self.neuron_of_slot.iter().enumerate() {
            let back =
                usize::try_from(neuron.get()).ok().and_then(|id| self.slot_of_neuron.get(id));
            if back.map(|back| back.get() as usize) != Some(slot) {
                let rule = "must name each neuron once and be the inverse of slot_of_neuron";
                return Err(broken("neuron_of_slot", n + slot, rule, neuron.get()));
            }
        }
        let mut expected = Ordering::Equal; // the first link begins at slot 0, later ones after it
        let mut previous = 0;
        for (link, begin) in self.link_begin.iter().enumerate() {
            if begin.get().cmp(&previous) != expected {
                let rule = "must begin with 0 and ascend";
                return Err(broken("link_begin", 2 * n + link, rule, begin.get()));
            }
            previous = begin.get();
            expected = Ordering::Greater;
        }
        if previous != neurons {
            let rule = "must end with the number of neurons";
            return Err(broken("link_begin", 2 * n + self.link_begin.len() - 1, rule, previous));
        }
        let tokens = self.header.profile_tokens.get();
        for (slot, count) in self.active_count.iter().enumerate() {
            if u64::from(count.get()) > tokens {
                let rule = "must be at most profile_tokens";
                let before = 2 * n + self.link_begin.len() + slot;
                return Err(broken("active_count", before, rule, count.get()));
            }
        }
        Ok(())
    }
}

/// The arrays of a `side_data` section; both empty where a layer has none.
#[derive(Clone, Copy, Debug, Default)]
struct SideData<'a> {
    neuron_bias: &'a [F32<LE>],
    output_bias: &'a [F32<LE>],
}

impl<'a> SideData<'a> {
    /// Cuts the section into its arrays; `None` where its length is not that of the arrays.
    fn split(bytes: &'a [u8], shape: &Shape) -> Option<Self> {
        let (header, rest) = SideDataHeader::ref_from_prefix(bytes).ok()?;
        let values = <[F32<LE>]>::ref_from_bytes(rest).ok()?;
        let length = |bit: u32, values: u32| {
            if header.arrays.get() & bit == 0 { 0 } else { values as usize }
        };
        let (neuron_bias, values) =
            values.split_at_checked(length(SIDE_NEURON_BIAS, shape.neurons))?;
        (values.len() == length(SIDE_OUTPUT_BIAS, shape.hidden))
            .then_some(Self { neuron_bias, output_bias: values })
    }

    fn check(bytes: &'a [u8], shape: &Shape, entry: &SectionEntry) -> Result<(), FormatError> {
        let rule = "must be that of the arrays it names";
        let offset = entry.offset.get();
        let length = || wrong_length(SectionKind::SideData, entry, rule);
        let (header, _) = SideDataHeader::ref_from_prefix(bytes).map_err(|_| length())?;
        let known = SIDE_NEURON_BIAS | SIDE_OUTPUT_BIAS;
        if header.arrays.get() & !known != 0 {
            return Err(FormatError::Field {
                field: "arrays",
                offset,
                rule: "must name known arrays only",
                found: header.arrays.get().into(),
            });
        }
        check_zero("side_data_header.reserved", offset + 4, &header.reserved)?;
        Self::split(bytes, shape).ok_or_else(length).map(|_| ())
    }
}

/// The section table, its checksum verified.
fn section_table<'a>(
    index: &'a [u8],
    superblock: &Superblock,
) -> Result<&'a [SectionEntry], FormatError> {
    let offset = limits::SUPERBLOCK_BYTES;
    let bytes = superblock.section_count.get() as usize * size_of::<SectionEntry>();
    let table = index.get(offset..offset + bytes).ok_or(FormatError::Truncated {
        what: "section table",
        offset: offset as u64,
        expected: bytes as u64,
        found: index.len().saturating_sub(offset) as u64,
    })?;
    check("section table", offset as u64, table, superblock.section_table_crc.get())?;
    <[SectionEntry]>::ref_from_bytes(table).map_err(|_| FormatError::Truncated {
        what: "section table",
        offset: offset as u64,
        expected: bytes as u64,
        found: table.len() as u64,
    })
}

/// Order and place of every section, padding and checksums of the index sections.
fn check_places(
    index: &[u8],
    superblock: &Superblock,
    sections: &[SectionEntry],
) -> Result<(), FormatError> {
    let block = u64::from(superblock.block_bytes.get());
    let mut end = limits::SUPERBLOCK_BYTES as u64 + size_of_val(sections) as u64;
    let mut index_end = None;
    let mut previous: Option<&SectionEntry> = None;
    for (number, entry) in sections.iter().enumerate() {
        let broken = |field, rule, found| FormatError::Field {
            field,
            offset: entry_offset(number),
            rule,
            found,
        };
        if previous.is_some_and(|previous| key(previous) >= key(entry)) {
            let rule = "sections must ascend by kind, layer, placement";
            return Err(broken("kind", rule, entry.kind.get().into()));
        }
        check_zero("section_entry.reserved", entry_offset(number) + 32, &entry.reserved)?;
        let begin = round_up(end, block);
        let (offset, bytes) = (entry.offset.get(), entry.bytes.get());
        if offset != begin {
            let rule = "must be the first block after the section before";
            return Err(broken("offset", rule, offset));
        }
        if bytes > superblock.file_bytes.get() - offset.min(superblock.file_bytes.get()) {
            return Err(broken("bytes", "must end within the file", bytes));
        }
        let bulk = entry.kind.get() >= FIRST_BULK_KIND;
        if bulk && index_end.is_none() {
            index_end = Some(begin);
        }
        if !bulk || index_end == Some(begin) {
            // Within the index: the padding before this section, and the section if it is there.
            check_index_bytes(index, end, begin, if bulk { 0 } else { bytes }, entry)?;
        }
        end = offset + bytes;
        previous = Some(entry);
    }
    let file_end = round_up(end, block);
    let index_end = match index_end {
        Some(index_end) => index_end,
        None => {
            let padding = slice(index, end, file_end)?;
            check_zero("padding", end, padding)?;
            file_end
        }
    };
    let rule = |field, offset, stated: u64, rule, wanted: u64| {
        if stated == wanted {
            Ok(())
        } else {
            Err(FormatError::Field { field, offset, rule, found: stated })
        }
    };
    rule(
        "index_bytes",
        40,
        superblock.index_bytes.get(),
        "must end where the first bulk section begins",
        index_end,
    )?;
    rule(
        "file_bytes",
        32,
        superblock.file_bytes.get(),
        "must end with the last section's block",
        file_end,
    )
}

/// Checks padding `[end, begin)` and the checksum of `[begin, begin + bytes)`.
fn check_index_bytes(
    index: &[u8],
    end: u64,
    begin: u64,
    bytes: u64,
    entry: &SectionEntry,
) -> Result<(), FormatError> {
    check_zero("padding", end, slice(index, end, begin)?)?;
    if bytes == 0 && entry.kind.get() >= FIRST_BULK_KIND {
        return Ok(());
    }
    let what =
        SectionKind::from_code(entry.kind.get()).map_or("unknown section", SectionKind::name);
    check(what, begin, slice(index, begin, begin + bytes)?, entry.section_crc.get())
}

/// `index[begin..end]`, or an error where the index is shorter.
fn slice(index: &[u8], begin: u64, end: u64) -> Result<&[u8], FormatError> {
    usize::try_from(begin)
        .ok()
        .zip(usize::try_from(end).ok())
        .and_then(|(begin, end)| index.get(begin..end))
        .ok_or(FormatError::Truncated {
            what: "index",
            offset: begin,
            expected: end - begin.min(end),
            found: (index.len() as u64).saturating_sub(begin),
        })
}

/// What sections are sorted by.
fn key(entry: &SectionEntry) -> (u32, u32, u32) {
    (entry.kind.get(), entry.layer.get(), entry.placement.get())
}

/// File offset of an entry of the section table.
fn entry_offset(number: usize) -> u64 {
    (limits::SUPERBLOCK_BYTES + number * size_of::<SectionEntry>()) as u64
}

fn find_entry(
    sections: &[SectionEntry],
    kind: SectionKind,
    layer: u32,
    placement: u32,
) -> Option<&SectionEntry> {
    let wanted = (kind.code(), layer, placement);
    sections.binary_search_by(|entry| key(entry).cmp(&wanted)).ok().and_then(|at| sections.get(at))
}

/// An index section's bytes and entry.
fn find<'a>(
    index: &'a [u8],
    sections: &'a [SectionEntry],
    kind: SectionKind,
    layer: u32,
    placement: u32,
) -> Option<(&'a [u8], &'a SectionEntry)> {
    let entry = find_entry(sections, kind, layer, placement)?;
    let begin = entry.offset.get();
    let bytes = slice(index, begin, begin.checked_add(entry.bytes.get())?).ok()?;
    Some((bytes, entry))
}

fn missing(kind: SectionKind, layer: u32) -> FormatError {
    FormatError::Missing { what: kind.name(), layer }
}

fn wrong_length(kind: SectionKind, entry: &SectionEntry, rule: &'static str) -> FormatError {
    FormatError::Field {
        field: kind.name(),
        offset: entry.offset.get(),
        rule,
        found: entry.bytes.get(),
    }
}
