//! Checks every byte of a pack: each checksum, each index, each pad byte.

use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use lnp_format::checksum::{Crc32, check_zero, crc32};
use lnp_format::codes::FIRST_BULK_KIND;
use lnp_format::layout::SectionEntry;
use lnp_format::{Dtype, Layer, Pack, SectionKind};
use serde::Serialize;

use super::bundles::{BundleSource, CheckpointBundles};
use super::open::read_index;
use crate::model::{Checkpoint, ModelConfig};

/// What was checked.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize)]
pub struct Verified {
    /// Sections whose checksums match.
    pub sections: u64,
    /// Bundles whose checksums match.
    pub bundles: u64,
    /// Bytes read: all of the file.
    pub bytes: u64,
    /// Bundles whose weights are the checkpoint's; `None` where none was given.
    pub bundles_equal_to_model: Option<u64>,
}

/// Verifies a pack file; with `model`, that every bundle's weights are the checkpoint's.
/// `progress` is told the bytes read so far.
///
/// # Errors
/// The first thing that is wrong, in one line.
pub fn verify_file(
    path: &Path,
    model: Option<&Path>,
    progress: &mut dyn FnMut(u64),
) -> Result<Verified> {
    let mut verify_all = || -> Result<Verified> {
        let mut file = File::open(path)?;
        let file_bytes = file.seek(SeekFrom::End(0))?;
        file.seek(SeekFrom::Start(0))?;
        let mut input = BufReader::with_capacity(1 << 20, file);
        let mut verified = verify(&mut input, file_bytes, progress)?;
        if let Some(model) = model {
            let equal = compare_with_model(&mut input, file_bytes, model)?;
            verified.bundles_equal_to_model = Some(equal);
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
    let layer = match (kind, entry.placement.get()) {
        (Some(SectionKind::BundleRegion), 0) => pack.layer(entry.layer.get()),
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

/// Compares every bundle, the biases and the files' hashes with a checkpoint; returns the bundles.
fn compare_with_model(
    input: &mut (impl Read + Seek),
    file_bytes: u64,
    model: &Path,
) -> Result<u64> {
    input.seek(SeekFrom::Start(0))?;
    let index = read_index(input, file_bytes)?;
    let pack = Pack::parse(&index, file_bytes)?;
    let shape = pack.shape();
    ensure!(
        shape.dtype != Dtype::Placeholder,
        "the pack holds placeholders: there are no weights to compare"
    );
    let checkpoint = Checkpoint::open(model)?;
    let config = ModelConfig::load(model, &checkpoint)?;
    let found = [config.layers, config.neurons, config.hidden, config.parts()];
    let packed = [shape.layers, shape.neurons, shape.hidden, shape.parts].map(|n| n as usize);
    ensure!(
        found == packed,
        "{}: layers, neurons, hidden, parts are {found:?}, the pack has {packed:?}: another model",
        model.display()
    );
    for (number, source) in checkpoint.sources()?.into_iter().enumerate() {
        let stored = pack.provenance().value(&format!("source.{number}.sha256"));
        ensure!(
            stored == Some(&source.sha256_hex),
            "{}: SHA-256 is {}, the pack was made from {}",
            source.file_name,
            source.sha256_hex,
            stored.unwrap_or("no such file")
        );
    }
    let mut bundles = CheckpointBundles::new(&checkpoint, &config, shape.dtype)?;
    let stride = shape.bundle_stride as usize;
    let (mut expected, mut found) = (vec![0; stride], vec![0; stride]);
    for (number, layer) in (0..).zip(pack.layers()) {
        bundles.load_layer(number)?;
        input.seek(SeekFrom::Start(layer.region_offset()))?;
        for (slot, neuron) in layer.neuron_of_slot().iter().enumerate() {
            input.read_exact(&mut found)?;
            bundles.bundle(neuron.get(), &mut expected)?;
            ensure!(
                found == expected,
                "layer {number}, slot {slot}: the weights are not those of the model's neuron {neuron}"
            );
        }
        let tensors = config.ffn_tensors(number as usize);
        for (name, values) in
            [(tensors.up_bias, layer.neuron_bias()), (tensors.down_bias, layer.output_bias())]
        {
            let expected = name.map_or(Ok(Vec::new()), |name| checkpoint.read_f32(&name))?;
            let equal = expected.len() == values.len()
                && expected.iter().zip(values).all(|(a, b)| a.to_bits() == b.get().to_bits());
            ensure!(equal, "layer {number}: the biases are not those of the model");
        }
    }
    Ok(shape.bundles())
}
