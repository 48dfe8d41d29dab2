//! Opening files on a device.

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use anyhow::{Context, Result, anyhow, bail};
use lnp_engine::sys::{DirectFile, FileError};

/// Opens a file for direct reads.
///
/// # Errors
/// One line that says what to do; on a file system without direct reads, `--buffered` does.
pub fn open_direct(path: &Path, buffered: bool) -> Result<DirectFile> {
    if path.is_dir() {
        bail!("{}: is a folder, a file or device is needed", path.display());
    }
    let name = CString::new(path.as_os_str().as_bytes()).context("a path with a zero byte")?;
    DirectFile::open(&name, buffered).map_err(|error| match error {
        FileError::NoDirectReads => anyhow!(
            "{}: its file system refuses direct reads (O_DIRECT): put it on a disk, or say --buffered",
            path.display()
        ),
        FileError::System { action, errno } => {
            let reason = std::io::Error::from_raw_os_error(errno);
            anyhow!("{}: cannot {action}: {reason}", path.display())
        }
        other => anyhow!("{}: {other}", path.display()),
    })
}
