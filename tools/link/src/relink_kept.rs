//! Layers that were linked again, kept so that an interrupted work goes on.
//!
//! A line of JSON a layer, which says of what work it is; a line that is not whole does not count, nor what follows it.
//! A file that begins otherwise is somebody else's, and so is a half-written pack beside a file without a line: the pack is
//! begun when all layers are kept.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result, ensure};
use lnp_common::files::open_to_go_on;
use serde::{Deserialize, Serialize};

use super::RelinkedLayer;
use crate::LayerLinks;

/// What every such file begins with.
const BEGIN: &[u8] = br#"{"work":"lnp "#;

/// The file of them.
#[derive(Debug)]
pub struct KeptLayers {
    path: PathBuf,
    file: Mutex<File>,
    work: String,
    lines: Vec<Line>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Line {
    work: String,
    layer: usize,
    relinked: RelinkedLayer,
}

impl KeptLayers {
    /// Those that the file has of the work named `work`, which begins with `lnp `. What it has of another is dropped, and with
    /// it `part`, the pack that was being written from them.
    ///
    /// # Errors
    /// The file cannot be read or written, or it or `part` is none of ours; the message begins with the path.
    pub fn open(path: &Path, part: &Path, work: String) -> Result<Self> {
        let open = || -> Result<(File, Vec<Line>)> {
            let mut file = open_to_go_on(path)?;
            let mut text = Vec::new();
            file.read_to_end(&mut text)?;
            // As much of its first line as a cut has left.
            let own = text.iter().zip(BEGIN).all(|(found, expected)| found == expected);
            ensure!(own, "no interrupted relink left it; move it away, or choose another output");
            let (mut lines, mut whole) = (Vec::new(), 0);
            for text in text.split_inclusive(|byte| *byte == b'\n') {
                match serde_json::from_slice::<Line>(text) {
                    Ok(line) if text.ends_with(b"\n") && line.work == work => lines.push(line),
                    _ => break,
                }
                whole += text.len() as u64;
            }
            if whole == 0 && part.exists() {
                ensure!(
                    !text.is_empty(),
                    "no interrupted relink left {}; move it away, or choose another output",
                    part.display()
                );
                // Before the lines go that say whose it is.
                std::fs::remove_file(part)?;
            }
            file.set_len(whole)?;
            file.seek(SeekFrom::Start(whole))?;
            Ok((file, lines))
        };
        let (file, lines) = open().with_context(|| path.display().to_string())?;
        Ok(Self { path: path.to_owned(), file: Mutex::new(file), work, lines })
    }

    /// A layer whose counts by neuron id are these.
    pub(super) fn get(&self, layer: usize, active_count: &[u32]) -> Option<RelinkedLayer> {
        let line = self.lines.iter().find(|line| line.layer == layer)?;
        let relinked = &line.relinked;
        // It comes from a file, which may say anything.
        let fits = relinked.order.as_ref().is_none_or(|(neuron_of_slot, link_begin)| {
            let links = LayerLinks {
                neuron_of_slot: neuron_of_slot.clone(),
                link_begin: link_begin.clone(),
                active_count: active_count.to_vec(),
                further: Vec::new(),
            };
            neuron_of_slot.len() == active_count.len() && links.check(u64::MAX).is_ok()
        });
        (fits && relinked.active_count == active_count).then(|| relinked.clone())
    }

    /// Keeps a layer, durably.
    pub(super) fn put(&self, layer: usize, relinked: &RelinkedLayer) -> Result<()> {
        let line = Line { work: self.work.clone(), layer, relinked: relinked.clone() };
        let mut text = serde_json::to_vec(&line)?;
        text.push(b'\n');
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let put = file.write_all(&text).and_then(|()| file.sync_data());
        put.with_context(|| self.path.display().to_string())
    }
}
