//! Checks every byte of a pack: each checksum, each index, each pad byte.

use std::io::{BufReader, Read};
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use lnp_format::checksum::{Crc32, check_zero, crc32};
use lnp_format::codes::FIRST_BULK_KIND;
use lnp_format::layout::SectionEntry;
use lnp_format::{Layer, Pack, SectionKind};
use serde::Serialize;

use super::compare::{WeightError, compare_with_model};
use super::open::{pack_length, read_index};
use lnp_common::files::open_file;
use lnp_model::Checkpoint;

/// What was checked.
#[derive(Debug, Default, Clone, PartialEq, Serialize)]
pub struct Verified {
    /// Sections whose checksums match.
    pub sections: u64,
    /// Bundles whose checksums match.
    pub bundles: u64,
    /// Bytes read: all of the file.
    pub bytes: u64,
    /// Bundles that are what the checkpoint's weights convert to; `None` where none was given.
    pub bundles_equal_to_model: Option<u64>,
    /// How far the pack's weights are from the checkpoint's; `None` where none was given.
    pub weight_error: Option<WeightError>,
    /// Whether the checkpoint's files are those that the pack was made from; the same weights may lie
    /// in others. `None` where none was given.
    pub same_files_as_packed: Option<bool>,
}

/// Verifies a pack file; with `model`, that every bundle is what the checkpoint converts to.
/// `progress` is told the bytes read so far.
///
/// # Errors
/// The first thing that is wrong, in one line.
pub fn verify_file(
    path: &Path,
    model: Option<&Checkpoint>,
    progress: &mut dyn FnMut(u64),
) -> Result<Verified> {
    let mut verify_all = || -> Result<Verified> {
        let mut file = open_file(path)?;
        let file_bytes = pack_length(&mut file)?;
        let mut input = BufReader::with_capacity(1 << 20, file);
        let mut verified = verify(&mut input, file_bytes, progress)?;
        if let Some(model) = model {
            let compared = compare_with_model(&mut input, file_bytes, model)?;
            verified.bundles_equal_to_model = Some(compared.bundles);
            verified.weight_error = Some(compared.error);
            verified.same_files_as_packed = Some(compared.same_files);
        }
        Ok(verified)
    };
    verify_all().with_context(|| format!("{}", path.display()))
}

/// Verifies a pack of `file_bytes` bytes, read from its beginning.
///
/// # Errors
/// The first thing that is wrong.
pub fn verify(
    input: &mut impl Read,
    file_bytes: u64,
    progress: &mut dyn FnMut(u64),
) -> Result<Verified> {
    let index = read_index(input, file_bytes)?;
    // Places, padding and checksums of the index, and every rule about its contents.
    let pack = Pack::parse(&index, file_bytes)?;
    let mut verified = Verified::default();
    let mut at = index.len() as u64;
    for entry in pack.sections() {
        verified.sections += 1;
        if entry.kind.get() < FIRST_BULK_KIND {
            continue;
        }
        check_padding(input, &mut at, entry.offset.get())?;
        verified.bundles += check_bulk(input, &pack, entry)?;
        at += entry.bytes.get();
        progress(at);
    }
    check_padding(input, &mut at, pack.superblock().file_bytes.get())?;
    verified.bytes = at;
    Ok(verified)
}

/// Reads padding up to `end` and checks that it is zero.
fn check_padding(input: &mut impl Read, at: &mut u64, end: u64) -> Result<()> {
    let mut padding = vec![0; (end - *at) as usize];
    input.read_exact(&mut padding).with_context(|| format!("padding at byte {at}"))?;
    check_zero("padding", *at, &padding)?;
    *at = end;
    Ok(())
}

/// Reads a bulk section and checks its checksum and those of its bundles; returns how many.
fn check_bulk(input: &mut impl Read, pack: &Pack<'_>, entry: &SectionEntry) -> Result<u64> {
    let kind = SectionKind::from_code(entry.kind.get());
    let layer = match kind {
        Some(SectionKind::BundleRegion) => pack.placement(entry.layer.get(), entry.placement.get()),
        _ => None,
    };
    let piece_bytes = layer.map_or(1 << 20, |_| u64::from(pack.shape().bundle_stride));
    let mut piece = vec![0; piece_bytes as usize];
    let mut section = Crc32::new();
    let mut slot = 0_u64;
    let mut left = entry.bytes.get();
    while left > 0 {
        let piece = &mut piece[..left.min(piece_bytes) as usize];
        let offset = entry.offset.get() + entry.bytes.get() - left;
        input.read_exact(piece).with_context(|| format!("section at byte {offset}"))?;
        section.update(piece);
        if let Some(layer) = &layer {
            check_bundle(layer, entry.layer.get(), slot as usize, piece, offset)?;
            slot += 1;
        }
        left -= piece.len() as u64;
    }
    let found = section.finish();
    let expected = entry.section_crc.get();
    ensure!(
        found == expected,
        "checksum of the section at byte {} is {found:08x}, {expected:08x} expected: damaged",
        entry.offset.get()
    );
    Ok(slot)
}

fn check_bundle(
    layer: &Layer<'_>,
    number: u32,
    slot: usize,
    bundle: &[u8],
    offset: u64,
) -> Result<()> {
    let expected = layer.bundle_checksums().get(slot).map(|sum| sum.get());
    let found = crc32(bundle);
    if expected != Some(found) {
        let expected = expected.unwrap_or_default();
        bail!(
            "bundle in slot {slot} of layer {number} at byte {offset} has checksum {found:08x}, \
             {expected:08x} expected: damaged"
        );
    }
    Ok(())
}
