//! A pack written again from a pack: the same weights, bit for bit, in another order.
//!
//! Everything comes from the old file, a layer's bundles in memory at a time, and each bundle is checked
//! against its checksum on the way: what was damaged does not get a new checksum that fits.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lnp_format::checksum::{Crc32, crc32};
use lnp_format::codes::WHOLE_PACK;
use lnp_format::{Layer, Pack, SectionKind};
use zerocopy::byteorder::{F32, LE, U32};

use super::bundles::BundleSource;
use super::open::PackIndex;
use super::recipe::{PackedPredictor, Recipe, SideData};
use lnp_common::files::open_file;
use lnp_common::report::plain;
use lnp_link::relink::{HeldLayer, Relinked};
use lnp_link::{LayerLinks, Links, TraceSource};

/// Orders and counts of a pack, by layer.
///
/// # Errors
/// A pack whose layers have several placements, or are copies of others.
pub fn held_layers(pack: &Pack<'_>) -> Result<Vec<HeldLayer>> {
    ensure!(
        pack.placements() == 1,
        "the pack has {} placements of each layer: only packs of one can be linked again",
        pack.placements()
    );
    ensure!(
        !pack.shape().has_copies(),
        "the pack has copies of bundles: only packs without can be linked again"
    );
    Ok(pack.layers().map(|layer| held_layer(&layer)).collect())
}

fn held_layer(layer: &Layer<'_>) -> HeldLayer {
    let neuron_of_slot = words(layer.neuron_of_slot());
    let mut active_count = vec![0; neuron_of_slot.len()];
    for (neuron, count) in neuron_of_slot.iter().zip(layer.active_count()) {
        active_count[*neuron as usize] = count.get();
    }
    HeldLayer { neuron_of_slot, active_count, profile_tokens: layer.profile_tokens() }
}

/// The recipe of a pack that is `index` but for what was relinked from the traces `seen`, which the provenance tells.
///
/// # Errors
/// The index is not what it was.
pub fn recipe(
    index: &PackIndex,
    relinked: &Relinked,
    seen: &[TraceSource],
    seen_tokens: u64,
) -> Result<Recipe> {
    let pack = index.pack()?;
    let layers = pack.layers().zip(&relinked.layers).map(|(layer, new)| {
        let kept = || (words(layer.neuron_of_slot()), words(layer.link_begin()));
        let (neuron_of_slot, link_begin) = new.order.clone().unwrap_or_else(kept);
        let active_count = new.active_count.clone();
        LayerLinks { neuron_of_slot, link_begin, active_count, further: Vec::new() }
    });
    let predictors =
        pack.sections().iter().filter(|entry| entry.kind.get() == SectionKind::Predictor.code());
    let predictors = predictors.map(|entry| {
        let bytes = index.section(entry).context("a missing predictor")?.to_vec();
        let (layer, horizon) = (entry.layer.get(), entry.placement.get());
        Ok(PackedPredictor { layer, horizon, bytes })
    });
    let mut provenance: BTreeMap<String, String> = pack
        .provenance()
        .entries()
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect();
    note(&mut provenance, relinked, seen, seen_tokens);
    Ok(Recipe {
        shape: *pack.shape(),
        block_bytes: pack.block_bytes(),
        layers: layers.collect(),
        profile_tokens: relinked.profile_tokens,
        side_data: pack.layers().map(|layer| side_data(&pack, &layer)).collect(),
        predictors: predictors.collect::<Result<_>>()?,
        resident_bytes: pack.resident().map_or(0, |(_, bytes)| bytes),
        provenance,
    })
}

/// Writes down that and from what a pack was relinked: `relink.N`, N counting from 0.
fn note(
    provenance: &mut BTreeMap<String, String>,
    relinked: &Relinked,
    seen: &[TraceSource],
    seen_tokens: u64,
) {
    let number =
        (0_u32..).find(|number| !provenance.contains_key(&format!("relink.{number}.tokens")));
    let number = number.unwrap_or(0);
    let mut put = |key: String, value: String| provenance.insert(key, value);
    put("tool".into(), Links::this_tool());
    put(format!("relink.{number}.tokens"), seen_tokens.to_string());
    put(format!("relink.{number}.layers"), relinked.moved().to_string());
    for (trace, source) in seen.iter().enumerate() {
        put(format!("relink.{number}.trace.{trace}.file"), plain(&source.file));
        put(format!("relink.{number}.trace.{trace}.sha256"), source.sha256.clone());
    }
}

fn side_data(pack: &Pack<'_>, layer: &Layer<'_>) -> SideData {
    let floats = |values: &[F32<LE>]| values.iter().map(|value| value.get()).collect();
    let of_shape = (pack.shape().activation, pack.shape().activation_threshold);
    let (down_norm, norm_eps) = layer.down_norm().unwrap_or_default();
    SideData {
        neuron_bias: floats(layer.neuron_bias()),
        output_bias: floats(layer.output_bias()),
        up_bias: floats(layer.up_bias()),
        down_norm: floats(down_norm),
        norm_eps,
        activation: (layer.activation() != of_shape).then(|| layer.activation()),
    }
}

fn words(words: &[U32<LE>]) -> Vec<u32> {
    words.iter().map(|word| word.get()).collect()
}

/// The bundles of a pack; one layer's are in memory at a time.
pub struct PackBundles<'a> {
    pack: Pack<'a>,
    file: File,
    layer: Option<Layer<'a>>,
    region: Vec<u8>,
}

impl<'a> PackBundles<'a> {
    /// Those of the pack that `index` is of.
    ///
    /// # Errors
    /// The file cannot be opened any more.
    pub fn open(index: &'a PackIndex) -> Result<Self> {
        let (pack, file) = (index.pack()?, open_file(index.path())?);
        Ok(Self { pack, file, layer: None, region: Vec::new() })
    }
}

impl BundleSource for PackBundles<'_> {
    fn load_layer(&mut self, layer: u32) -> Result<()> {
        let view = self.pack.layer(layer).context("no such layer")?;
        self.region.resize(usize::try_from(view.region_bytes())?, 0);
        self.file.seek(SeekFrom::Start(view.region_offset()))?;
        self.file.read_exact(&mut self.region)?;
        self.layer = Some(view);
        Ok(())
    }

    fn bundle(&mut self, neuron: u32, out: &mut [u8]) -> Result<()> {
        let layer = self.layer.context("no such layer")?;
        let slot = layer.slot_of_neuron().get(neuron as usize).context("no such neuron")?.get();
        let bytes = self.region.chunks_exact(out.len()).nth(slot as usize);
        out.copy_from_slice(bytes.context("no such neuron")?);
        let sum = layer.bundle_checksums().get(slot as usize).map(|sum| sum.get());
        ensure!(
            sum == Some(crc32(out)),
            "the bundle in slot {slot} is damaged: take the pack that it is a copy of, or pack the model again"
        );
        Ok(())
    }

    fn checksum(&self, neuron: u32) -> Option<u32> {
        let layer = self.layer?;
        let slot = layer.slot_of_neuron().get(neuron as usize)?.get();
        Some(layer.bundle_checksums().get(slot as usize)?.get())
    }

    fn write_resident(&mut self, out: &mut dyn Write) -> Result<()> {
        let Some((offset, bytes)) = self.pack.resident() else { return Ok(()) };
        let own = |entry: &&lnp_format::layout::SectionEntry| {
            (entry.kind.get(), entry.layer.get()) == (SectionKind::Resident.code(), WHOLE_PACK)
        };
        let entry = self.pack.sections().iter().find(own).context("a missing section")?;
        self.file.seek(SeekFrom::Start(offset))?;
        let mut checksum = Crc32::new();
        let mut piece = vec![0; 1 << 20];
        let mut left = bytes;
        while left > 0 {
            let length = left.min(piece.len() as u64) as usize;
            self.file.read_exact(&mut piece[..length])?;
            checksum.update(&piece[..length]);
            out.write_all(&piece[..length])?;
            left -= length as u64;
        }
        ensure!(
            checksum.finish() == entry.section_crc.get(),
            "the rest of the model in the pack is damaged: take the pack that it is a copy of, or pack the model again"
        );
        Ok(())
    }
}

/// Bundles at a bounded rate, for work in the background.
pub struct Paced<'a> {
    bundles: &'a mut dyn BundleSource,
    pace: Pace,
}

impl<'a> Paced<'a> {
    /// At most so many bytes a second, from now on.
    pub fn new(bundles: &'a mut dyn BundleSource, bytes_per_second: u64) -> Self {
        Self { bundles, pace: Pace { bytes_per_second, since: Instant::now(), bytes: 0 } }
    }
}

impl BundleSource for Paced<'_> {
    fn load_layer(&mut self, layer: u32) -> Result<()> {
        self.bundles.load_layer(layer)
    }

    fn bundle(&mut self, neuron: u32, out: &mut [u8]) -> Result<()> {
        self.pace.wait(out.len());
        self.bundles.bundle(neuron, out)
    }

    fn checksum(&self, neuron: u32) -> Option<u32> {
        self.bundles.checksum(neuron)
    }

    fn write_resident(&mut self, out: &mut dyn Write) -> Result<()> {
        self.bundles.write_resident(&mut PacedOut { pace: &mut self.pace, out })
    }
}

/// How far the bytes may be ahead of their time: less is not worth going to sleep for.
const AHEAD_MAX: Duration = Duration::from_millis(20);

struct Pace {
    bytes_per_second: u64,
    since: Instant,
    bytes: u64,
}

impl Pace {
    /// Waits until so many bytes more are due.
    fn wait(&mut self, bytes: usize) {
        self.bytes += bytes as u64;
        let due = Duration::from_secs_f64(self.bytes as f64 / self.bytes_per_second as f64);
        let ahead = due.saturating_sub(self.since.elapsed());
        if ahead > AHEAD_MAX {
            std::thread::sleep(ahead);
        }
    }
}

struct PacedOut<'a> {
    pace: &'a mut Pace,
    out: &'a mut dyn Write,
}

impl Write for PacedOut<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.pace.wait(bytes.len());
        self.out.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
