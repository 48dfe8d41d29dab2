//! Folders as wholes: there with everything in them, or not there.

use std::fs::{File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use crate::files::{check_free, folder_of};
use crate::interrupt::Temporary;

/// Checks early that [`write_folder`] will be able to make `path`, of about so many bytes.
///
/// # Errors
/// What stands in the way, in one line that begins with the path.
pub fn check_new_folder(path: &Path, bytes: u64) -> Result<()> {
    let check = || -> Result<()> {
        ensure!(
            path.file_name().is_some(),
            "no folder can be made of this name; give another path"
        );
        let parent = folder_of(path);
        ensure!(
            parent.is_dir(),
            "there is no folder {}; make it first, or give another path",
            parent.display()
        );
        let is_empty = || std::fs::read_dir(path).is_ok_and(|mut inside| inside.next().is_none());
        ensure!(
            path.symlink_metadata().is_err() || is_empty(),
            "is there already; give another path, or remove it first"
        );
        check_free(parent, bytes)
    };
    check().with_context(|| path.display().to_string())
}

/// Lets `write` fill a folder of about so many bytes, which then appears under `path`, complete. After an error nothing
/// is there: it is filled under another name beside it and renamed. What `write` writes it syncs itself, as
/// [`crate::files::write_whole`] does.
///
/// # Errors
/// As [`check_new_folder`], whatever `write` returns, or a failed rename. The message begins with the path.
pub fn write_folder(
    path: &Path,
    bytes: u64,
    write: impl FnOnce(&Path) -> Result<()>,
) -> Result<()> {
    check_new_folder(path, bytes)?;
    let parent = folder_of(path);
    let fill = || -> Result<()> {
        let temporary = tempfile::Builder::new()
            .prefix(".lnp-")
            .suffix(".tmp")
            // for others to read, as far as the umask lets them
            .permissions(Permissions::from_mode(0o777))
            .tempdir_in(parent)
            .with_context(|| {
                format!("cannot write to folder {}; give a path where you may", parent.display())
            })?;
        let registered = Temporary::new(temporary.path());
        write(temporary.path())?;
        File::open(temporary.path())?.sync_all()?;
        std::fs::rename(temporary.path(), path)?;
        drop(registered);
        // it is under its own name now: nothing is left to remove
        let _ = temporary.keep();
        // the new name is durable once the folder is
        Ok(File::open(parent)?.sync_all()?)
    };
    fill().with_context(|| path.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_or_not_at_all() -> Result<()> {
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("x");
        let failed = write_folder(&path, 1, |folder| {
            std::fs::write(folder.join("half"), "half")?;
            anyhow::bail!("no more")
        });
        assert!(format!("{:#}", failed.unwrap_err()).contains("x: no more"));
        assert_eq!(std::fs::read_dir(dir.path())?.count(), 0, "nothing left behind");
        write_folder(&path, 1, |folder| Ok(std::fs::write(folder.join("a"), "a")?))?;
        assert_eq!(std::fs::read(path.join("a"))?, b"a");
        let refused = |path: &Path, bytes: u64| {
            let result = write_folder(path, bytes, |_| panic!("not to be called"));
            format!("{:#}", result.unwrap_err())
        };
        assert!(refused(&path, 1).contains("x: is there already"));
        assert!(refused(&dir.path().join("none/y"), 1).contains("there is no folder"));
        assert!(refused(&dir.path().join("y"), 1 << 60).contains("are free there; make room"));
        assert!(refused(Path::new("/"), 1).contains("no folder can be made"));
        std::fs::create_dir(dir.path().join("empty"))?;
        write_folder(&dir.path().join("empty"), 1, |_| Ok(()))?;
        Ok(())
    }
}
