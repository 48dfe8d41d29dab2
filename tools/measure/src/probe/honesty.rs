//! What would make a result a lie: reads that no device was asked for, or that it answered without
//! reading.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use rand::{RngExt, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;
use rustix::fs::SeekFrom;

use super::FILE_BYTES_USUAL;
use super::settle::WAITED_BUSY;
use crate::profile::ProbedPlace;
use lnp_common::report::bytes;

/// A file with more holes is not measured at all.
const HOLES_MOST: f64 = 0.5;
/// Holes, zeros and reads that the kernel did not count are told from such a share on.
const SHARE_TOLD: f64 = 0.02;
/// A device that is so much slower or faster at the end is told of.
const DRIFT_TOLD: f64 = 0.1;
/// Blocks that are looked at.
const SAMPLES: u64 = 256;
const SAMPLE_BYTES: usize = 4096;
/// Holes are counted up to so many pieces.
const PIECES_MOST: usize = 100_000;

/// Refuses a file that is mostly holes.
///
/// # Errors
/// It is, or it cannot be looked at.
pub fn refuse_holes(path: &Path) -> Result<()> {
    let share = holes(path)?;
    ensure!(
        share <= HOLES_MOST,
        "{}: a sparse file, {:.0} % of it holes that no device is asked for: use one with contents, \
         such as `lnp probe --create 1G FILE` makes",
        path.display(),
        share * 100.0
    );
    Ok(())
}

/// Share of a file that is holes, or was reserved and never written; 0 of a device.
///
/// # Errors
/// The file cannot be opened.
fn holes(path: &Path) -> Result<f64> {
    let facts = fs::metadata(path).with_context(|| path.display().to_string())?;
    if !facts.is_file() || facts.len() == 0 {
        return Ok(0.0);
    }
    // What the file's size says, where the file system does not know its holes.
    let by_blocks = 1.0 - (facts.blocks() * 512) as f64 / facts.len() as f64;
    let file = File::open(path).with_context(|| path.display().to_string())?;
    let (mut at, mut hole_bytes) = (0, 0);
    for _ in 0..PIECES_MOST {
        let Ok(hole) = rustix::fs::seek(&file, SeekFrom::Hole(at)) else { break };
        if hole >= facts.len() {
            break;
        }
        // No data after it: the hole is the rest.
        let data = rustix::fs::seek(&file, SeekFrom::Data(hole)).unwrap_or(facts.len());
        hole_bytes += data.saturating_sub(hole);
        at = data;
    }
    Ok(by_blocks.max(hole_bytes as f64 / facts.len() as f64).clamp(0.0, 1.0))
}

/// Share of blocks, of some chosen by chance, that hold nothing but zeros.
fn zeros(path: &Path, file_bytes: u64) -> Result<f64> {
    let file = File::open(path)?;
    let blocks = file_bytes / SAMPLE_BYTES as u64;
    let mut random = Xoshiro256PlusPlus::seed_from_u64(file_bytes);
    let mut block = [0; SAMPLE_BYTES];
    let mut zeros = 0;
    for _ in 0..SAMPLES.min(blocks) {
        let place = random.random_range(0..blocks) * SAMPLE_BYTES as u64;
        file.read_exact_at(&mut block, place)?;
        zeros += u64::from(block.iter().all(|byte| *byte == 0));
    }
    Ok(zeros as f64 / SAMPLES.min(blocks).max(1) as f64)
}

/// What is known of a file before anything is measured.
///
/// # Errors
/// It cannot be read, or is mostly holes.
pub fn warnings_before(path: &Path, place: &ProbedPlace, file: (u64, bool)) -> Result<Vec<String>> {
    let (file_bytes, direct) = file;
    refuse_holes(path)?;
    let mut found = Vec::new();
    if !direct {
        found.push("buffered reads: the page cache answers, not the device".to_owned());
    }
    if file_bytes < FILE_BYTES_USUAL {
        let small = bytes(file_bytes as f64);
        found.push(format!("a small file ({small}): the device may answer from its own memory"));
    }
    let holes = holes(path)?;
    if holes >= SHARE_TOLD {
        let percent = holes * 100.0;
        found.push(format!("{percent:.0} % of the file is holes that no device is asked for"));
    }
    let zeros = zeros(path, file_bytes).with_context(|| path.display().to_string())?;
    if zeros >= SHARE_TOLD && zeros > holes {
        found.push(format!(
            "{:.0} % of it is zeros, which some devices answer without reading; use random contents, \
             such as `lnp probe --create 1G FILE` makes",
            zeros * 100.0
        ));
    }
    found.extend(compression(place));
    let direct =
        |number: &String| fs::read_to_string(format!("/sys/dev/block/{number}/loop/dio")).ok();
    let loop_direct = place.number.as_ref().and_then(direct).is_some_and(|text| text.trim() == "1");
    found.extend(memory(place, loop_direct));
    Ok(found)
}

/// Whether the file system may compress, so that less is read than is asked for.
fn compression(place: &ProbedPlace) -> Option<String> {
    let kind = place.file_system.as_deref()?;
    let options = place.mount_options.as_deref().unwrap_or_default();
    let asked = options.split(',').any(|option| option.starts_with("compress"));
    let always = matches!(kind, "zfs" | "squashfs" | "erofs" | "bcachefs");
    let may = always || (asked && matches!(kind, "btrfs" | "f2fs" | "ubifs"));
    may.then(|| format!("{kind} may compress: the device may read less than is asked for"))
}

/// Whether the device is memory, or a file behind the page cache, which the kernel's counters do not show.
fn memory(place: &ProbedPlace, loop_direct: bool) -> Option<String> {
    let name = place.name.as_deref()?;
    if name.starts_with("loop") && !loop_direct {
        return Some(format!(
            "{name} is a loop device without direct reads: the page cache answers for its file"
        ));
    }
    let is_memory = name.starts_with("ram") || name.starts_with("zram");
    is_memory.then(|| format!("{name} is memory, not flash"))
}

/// What shows only in what was measured: `share` is what the device read over what was asked of it,
/// `drift` how much faster the first point was at the end, `waited` the share of the time that the reading
/// thread was ready and had no core.
pub fn warnings_after(share: Option<f64>, drift: Option<f64>, waited: Option<f64>) -> Vec<String> {
    let mut found = Vec::new();
    if let Some(share) = share.filter(|share| *share < 1.0 - SHARE_TOLD) {
        found.push(format!(
            "THE DEVICE WAS NOT READ: the kernel counts {:.0} % of the bytes asked for; the rest came \
             from a cache, from holes or compressed, and these are no figures of the device",
            share * 100.0
        ));
    }
    if let Some(drift) = drift.filter(|drift| drift.abs() > DRIFT_TOLD) {
        found.push(format!(
            "the device drifted: the first point was {:.0} % {} at the end (heat, or a neighbour)",
            drift.abs() * 100.0,
            if drift < 0.0 { "slower" } else { "faster" }
        ));
    }
    if let Some(waited) = waited.filter(|waited| *waited > WAITED_BUSY) {
        found.push(format!(
            "a busy machine: the reading thread waited for a core {:.0} % of the time, which looks like a \
             slow device, or like one that is held back",
            waited * 100.0
        ));
    }
    found
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn holes_are_counted() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        let mut file = File::create(&path).unwrap();
        file.set_len(64 << 20).unwrap();
        assert_eq!(holes(&path).unwrap(), 1.0);
        let error = refuse_holes(&path).unwrap_err().to_string();
        assert!(error.contains("a sparse file, 100 % of it holes"), "{error}");
        // three quarters of it written
        file.write_all(&vec![1; 48 << 20]).unwrap();
        file.sync_all().unwrap();
        let share = holes(&path).unwrap();
        assert!((share - 0.25).abs() < 0.02, "{share}");
        let told = warnings_before(&path, &ProbedPlace::default(), (64 << 20, true)).unwrap();
        assert!(told.iter().any(|line| line.contains("25 % of the file is holes")), "{told:?}");
    }

    #[test]
    fn zeros_are_seen_and_contents_are_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        fs::write(&path, vec![0; 1 << 20]).unwrap();
        assert_eq!(zeros(&path, 1 << 20).unwrap(), 1.0);
        fs::write(&path, vec![0x5a; 1 << 20]).unwrap();
        assert_eq!(zeros(&path, 1 << 20).unwrap(), 0.0);
        assert_eq!(zeros(&path, 0).unwrap(), 0.0);
    }

    #[test]
    fn compressing_file_systems_are_named() {
        let of = |file_system: &str, options: &str| {
            compression(&ProbedPlace {
                file_system: Some(file_system.into()),
                mount_options: Some(options.into()),
                ..ProbedPlace::default()
            })
        };
        assert!(of("btrfs", "rw,compress-force=zstd:3").unwrap().contains("btrfs"));
        assert!(of("zfs", "rw").is_some());
        assert!(of("btrfs", "rw").is_none() && of("ext4", "rw,discard").is_none());
    }

    #[test]
    fn devices_that_are_none_are_named() {
        let of = |name: &str, direct| {
            memory(&ProbedPlace { name: Some(name.into()), ..ProbedPlace::default() }, direct)
        };
        assert!(of("loop0", false).unwrap().contains("page cache"));
        assert!(of("zram1", false).unwrap().contains("memory"));
        assert!(of("loop0", true).is_none() && of("nvme0n1", false).is_none());
        assert!(memory(&ProbedPlace::default(), false).is_none());
    }

    #[test]
    fn what_only_measuring_shows() {
        assert!(warnings_after(Some(0.0), None, None)[0].contains("NOT READ"));
        assert!(warnings_after(None, Some(-0.3), None)[0].contains("30 % slower"));
        assert!(warnings_after(None, None, Some(0.3))[0].contains("30 % of the time"));
        assert_eq!(warnings_after(Some(1.1), Some(0.03), Some(0.001)), Vec::<String>::new());
    }
}
