//! What a run was asked for, written as a trace: what its engine's recorder kept.

use std::io::Write;
use std::path::Path;

use anyhow::{Result, anyhow, ensure};
use lnp_common::files::write_whole;
use lnp_common::tensor_file::SYNTHETIC;
use lnp_engine::recorder::Recorder;
use lnp_model::Model;

/// Bytes of the file that are made at a time.
const PART_BYTES: usize = 1 << 20;

/// Writes what was recorded of a model; `told` is what told the sets. Without the tokens' ids, which say what was written.
/// The file appears complete or not at all.
///
/// # Errors
/// Nothing was recorded, or a failed write.
pub fn write_recorded(
    path: &Path,
    recorder: &Recorder<'_>,
    model: &Model,
    told: &str,
) -> Result<()> {
    let active = format!("{}, told by {told}", model.config().active_rule());
    let name = model.checkpoint().name();
    let mut entries = vec![("active", active.as_str()), ("model", name.as_str())];
    entries.extend(model.checkpoint().synthetic().map(|how| (SYNTHETIC, how)));
    let bytes = recorder.bytes(&entries);
    ensure!(bytes > 0, "--record: no token went through all layers");
    write_whole(path, bytes, |file| {
        let (mut part, mut at) = (vec![0; PART_BYTES], 0);
        while at < bytes {
            let copied = recorder.read(&entries, at, &mut part);
            file.write_all(&part[..copied])?;
            at += copied as u64;
        }
        Ok(())
    })
    .map_err(|error| anyhow!("cannot write trace {error:#}"))
}
