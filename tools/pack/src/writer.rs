//! Writes a pack: streamed, one layer's weights in memory at a time, whole under its name or not
//! at all.

use std::fs::File;
use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use lnp_format::checksum::{Crc32, crc32};

use super::bundles::BundleSource;
use super::recipe::{PackLayout, Recipe};
use lnp_common::files::{check_room, write_in_parts, write_whole};

/// Writes the pack that `recipe` and `bundles` make; `progress` is told the bytes written so far.
/// The same inputs give the same bytes.
///
/// # Errors
/// The first thing that cannot be read or written; nothing stands under `path` then that was not
/// there before.
pub fn write_pack(
    path: &Path,
    recipe: &Recipe,
    bundles: &mut dyn BundleSource,
    progress: &mut dyn FnMut(u64),
) -> Result<PackLayout> {
    // First what costs nothing to know: an index of gigabytes is not made for a disk that is full.
    check_room(path, recipe.bundle_bytes().saturating_add(recipe.resident_bytes))?;
    let mut layout = recipe.layout()?;
    write_whole(path, layout.bytes.file_bytes, |file| {
        fill(file, recipe, &mut layout, bundles, progress)
    })?;
    Ok(layout)
}

/// The same by way of the file `part`, which stays where this is interrupted. Layers that it holds already, as far as the
/// checksums tell that `bundles` knows, are not written again.
///
/// # Errors
/// As [`write_pack`].
pub fn go_on_writing(
    path: &Path,
    part: &Path,
    recipe: &Recipe,
    bundles: &mut dyn BundleSource,
    progress: &mut dyn FnMut(u64),
) -> Result<PackLayout> {
    let mut layout = recipe.layout()?;
    write_in_parts(path, part, layout.bytes.file_bytes, |file| {
        fill(file, recipe, &mut layout, bundles, progress)
    })?;
    Ok(layout)
}

/// Fills a file that is empty, or has some of the layers.
fn fill(
    file: &mut File,
    recipe: &Recipe,
    layout: &mut PackLayout,
    bundles: &mut dyn BundleSource,
    progress: &mut dyn FnMut(u64),
) -> Result<()> {
    let held = file.try_clone()?;
    let mut out = BufWriter::with_capacity(1 << 20, file);
    let mut written = layout.bytes.index_bytes;
    out.seek(SeekFrom::Start(written))?;
    for (layer, placement) in recipe.regions() {
        if placement == 0 {
            bundles.load_layer(layer).with_context(|| format!("layer {layer}"))?;
        }
        let begin = layout.region_offset(layer, placement).context("a missing region")?;
        pad(&mut out, begin - written)?;
        let (order, _) = recipe.placement(layer, placement)?;
        let region_bytes = recipe.shape.region_bytes(order.len() as u32);
        let (sums, region) = match held_region(&held, begin, recipe, order, bundles) {
            Some(sums) => {
                out.seek(SeekFrom::Start(begin + region_bytes))?;
                sums
            }
            None => write_region(&mut out, recipe, order, bundles)
                .with_context(|| format!("layer {layer}"))?,
        };
        layout.set_checksums(layer, placement, &sums, region);
        written = begin + region_bytes;
        progress(written);
    }
    if let Some(begin) = layout.resident_offset() {
        pad(&mut out, begin - written)?;
        let mut counted = Counted { out: &mut out, bytes: 0, checksum: Crc32::new() };
        bundles.write_resident(&mut counted).context("the resident section")?;
        let (bytes, checksum) = (counted.bytes, counted.checksum.finish());
        ensure!(
            bytes == recipe.resident_bytes,
            "the resident section has {bytes} bytes, {} were promised",
            recipe.resident_bytes
        );
        layout.set_resident_checksum(checksum);
        written = begin + bytes;
        progress(written);
    }
    pad(&mut out, layout.bytes.file_bytes - written)?;
    // The index last: a file without it is not a pack.
    layout.seal();
    out.seek(SeekFrom::Start(0))?;
    out.write_all(&layout.index)?;
    out.flush()?;
    Ok(())
}

/// The checksums of a region, of its bundles and of it all, where the file holds it whole.
fn held_region(
    file: &File,
    begin: u64,
    recipe: &Recipe,
    neuron_of_slot: &[u32],
    bundles: &dyn BundleSource,
) -> Option<(Vec<u32>, u32)> {
    let mut bundle = vec![0; recipe.shape.bundle_stride as usize];
    let offsets = (begin..).step_by(bundle.len());
    let mut sums = Vec::new();
    let mut region = Crc32::new();
    for (offset, neuron) in offsets.zip(neuron_of_slot) {
        let expected = bundles.checksum(*neuron)?;
        file.read_exact_at(&mut bundle, offset).ok()?;
        if crc32(&bundle) != expected {
            return None;
        }
        sums.push(expected);
        region.update(&bundle);
    }
    Some((sums, region.finish()))
}

/// Writes the bundles of the layer that is loaded in the order of a placement; returns their checksums, and that of the region.
fn write_region(
    out: &mut impl Write,
    recipe: &Recipe,
    neuron_of_slot: &[u32],
    bundles: &mut dyn BundleSource,
) -> Result<(Vec<u32>, u32)> {
    let mut bundle = vec![0; recipe.shape.bundle_stride as usize];
    let mut sums = Vec::with_capacity(recipe.shape.neurons as usize);
    let mut region = Crc32::new();
    for neuron in neuron_of_slot {
        bundles.bundle(*neuron, &mut bundle)?;
        sums.push(crc32(&bundle));
        region.update(&bundle);
        out.write_all(&bundle)?;
    }
    Ok((sums, region.finish()))
}

/// Counts what goes through it, and sums it up.
struct Counted<W> {
    out: W,
    bytes: u64,
    checksum: Crc32,
}

impl<W: Write> Write for Counted<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.out.write(bytes)?;
        self.bytes += count as u64;
        self.checksum.update(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

fn pad(out: &mut impl Write, bytes: u64) -> Result<()> {
    io::copy(&mut io::repeat(0).take(bytes), out)?;
    Ok(())
}
