//! The thresholds that a model of an activation without zeros is used with: those of `--activity`, else of its pack.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use lnp_model::{Activity, Checkpoint, Model, ModelConfig};
use lnp_pack::PackIndex;
use lnp_predict::activity::{ActivityFile, of_provenance};

/// Those of a file, of a model that was seen to be theirs.
pub(super) fn of_file(
    path: &Path,
    checkpoint: &Checkpoint,
    config: &ModelConfig,
) -> Result<Activity> {
    let file = ActivityFile::read(path)?;
    file.check_model(checkpoint, config).with_context(|| path.display().to_string())?;
    Ok(file.activity)
}

/// Those that a pack tells of.
pub(super) fn of_pack(index: &PackIndex) -> Result<Option<Activity>> {
    let pack = index.pack()?;
    let provenance = pack.provenance();
    of_provenance(|key| provenance.value(key)).with_context(|| index.path().display().to_string())
}

/// Those of a file, else those that the packs tell of, which have to be the same.
pub(super) fn of_file_or_packs(
    checkpoint: &Checkpoint,
    config: &ModelConfig,
    file: Option<&Path>,
    packs: &[PackIndex],
) -> Result<Option<Activity>> {
    let of_packs = packs.iter().map(of_pack).collect::<Result<Vec<_>>>()?;
    ensure!(
        of_packs.windows(2).all(|two| two[0] == two[1]),
        "packs of different thresholds: one after the other, please"
    );
    match file {
        Some(path) => Ok(Some(of_file(path, checkpoint, config)?)),
        None => Ok(of_packs.into_iter().next().flatten()),
    }
}

/// The model, told from where on its neurons are active, if that is not in its activation.
pub(super) fn with_activity(
    model: Model,
    file: Option<&Path>,
    packs: &[PackIndex],
) -> Result<Model> {
    let told = of_file_or_packs(model.checkpoint(), model.config(), file, packs)?;
    model.with_activity(told)
}
