//! Files as wholes: written completely or not at all, and named by content.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use rustix::fs::OFlags;
use rustix::process::{Resource, getrlimit};
use sha2::{Digest, Sha256};
use tempfile::NamedTempFile;

use crate::interrupt::Temporary;
use crate::report::bytes;

const HASH_CHUNK_BYTES: usize = 1 << 20;

/// Lets `write` fill a file of about `file_bytes` that then appears under `path`, complete and
/// durable. After an error `path` holds what it held before: the file is written under another name
/// in the same folder, synced and renamed.
///
/// # Errors
/// No room for so many bytes, whatever `write` returns, no such folder, something at `path` that is
/// no file, or a failed write. The message begins with the path.
pub fn write_whole(
    path: &Path,
    file_bytes: u64,
    write: impl FnOnce(&mut File) -> Result<()>,
) -> Result<()> {
    told(path, file_bytes, fill_and_rename(path, file_bytes, true, write))
}

/// The same for a text.
///
/// # Errors
/// As [`write_whole`].
pub fn write_text(path: &Path, text: &str) -> Result<()> {
    write_whole(path, text.len() as u64, |file| Ok(file.write_all(text.as_bytes())?))
}

/// The same for a file that must not exist yet.
///
/// # Errors
/// As [`write_whole`], or something has that name.
pub fn write_new(
    path: &Path,
    file_bytes: u64,
    write: impl FnOnce(&mut File) -> Result<()>,
) -> Result<()> {
    told(path, file_bytes, fill_and_rename(path, file_bytes, false, write))
}

/// The same for a file that may take several starts: `write` fills `part`, which holds what an earlier start left,
/// and which stays after an error or a signal; in the end it is renamed.
///
/// # Errors
/// As [`write_whole`]; `part` lies in another file system.
pub fn write_in_parts(
    path: &Path,
    part: &Path,
    file_bytes: u64,
    write: impl FnOnce(&mut File) -> Result<()>,
) -> Result<()> {
    let fill = || {
        check_length(file_bytes)?;
        check_name(part)?;
        let mut file = open_to_go_on(part)?;
        // What it has needs no more room.
        let held = file.metadata()?.blocks().saturating_mul(512);
        find_room(path, file_bytes.saturating_sub(held))?;
        file.set_len(file_bytes)?;
        write(&mut file)?;
        file.sync_all()?;
        let path = &target_of(path);
        std::fs::rename(part, path)?;
        Ok(File::open(folder_of(path))?.sync_all()?)
    };
    told(path, file_bytes, fill())
}

/// Opens a file to go on with what it holds; an empty one where there is none.
///
/// # Errors
/// It cannot be opened or made.
pub fn open_to_go_on(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)
}

/// An error, with the path and what to do.
fn told(path: &Path, file_bytes: u64, result: Result<()>) -> Result<()> {
    result.map_err(|error| {
        let full = match error.root_cause().downcast_ref().map(io::Error::kind) {
            Some(ErrorKind::StorageFull | ErrorKind::QuotaExceeded) => {
                let wanted = bytes(file_bytes as f64);
                format!(": not written, {wanted} are needed; make room, or choose another disk")
            }
            _ => String::new(),
        };
        error.context(format!("{}{full}", path.display()))
    })
}

/// Checks that a file of about so many bytes has room beside what `path` holds now.
///
/// # Errors
/// It has not, the process may not write a file of that length, or there is no such folder; the message
/// begins with the path.
pub fn check_room(path: &Path, file_bytes: u64) -> Result<()> {
    check_length(file_bytes)
        .and_then(|()| find_room(path, file_bytes))
        .with_context(|| path.display().to_string())
}

/// The same of several files that lie beside each other, of so many bytes together.
///
/// # Errors
/// As [`check_room`], but for the length.
pub fn check_room_of_all(path: &Path, bytes: u64) -> Result<()> {
    find_room(path, bytes).with_context(|| path.display().to_string())
}

/// Checks a limit beyond which the kernel ends the process.
fn check_length(file_bytes: u64) -> Result<()> {
    let most = getrlimit(Resource::Fsize).current.unwrap_or(u64::MAX);
    ensure!(
        file_bytes <= most,
        "{} are needed, a file may have {} here (ulimit -f); raise the limit",
        bytes(file_bytes as f64),
        bytes(most as f64)
    );
    Ok(())
}

fn find_room(path: &Path, file_bytes: u64) -> Result<()> {
    let path = &target_of(path);
    check_name(path)?;
    check_free(folder_of(path), file_bytes)
}

/// Checks that so many bytes are free in a folder.
pub(crate) fn check_free(folder: &Path, file_bytes: u64) -> Result<()> {
    // Where a file system does not tell (some network ones), the write itself will.
    let Ok(room) = rustix::fs::statvfs(folder) else { return Ok(()) };
    let room = room.f_bavail.saturating_mul(room.f_frsize);
    let (wanted, free) = (bytes(file_bytes as f64), bytes(room as f64));
    ensure!(
        file_bytes <= room,
        "{wanted} are needed, {free} are free there; make room, or choose another disk"
    );
    Ok(())
}

fn fill_and_rename(
    path: &Path,
    file_bytes: u64,
    replace: bool,
    write: impl FnOnce(&mut File) -> Result<()>,
) -> Result<()> {
    check_length(file_bytes)?;
    find_room(path, file_bytes)?;
    let path = &target_of(path);
    let mut temporary = tempfile_beside(path)?;
    let registered = Temporary::new(temporary.path());
    write(temporary.as_file_mut())?;
    temporary.as_file().sync_all()?;
    if replace {
        temporary.persist(path).map_err(|error| error.error)?;
    } else {
        temporary.persist_noclobber(path).map_err(|error| error.error)?;
    }
    drop(registered);
    // The new name is durable once the folder is.
    Ok(File::open(folder_of(path))?.sync_all()?)
}

/// The folder that a file of this path lies in.
pub fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// The file that is written: a link stays one, and what it names is replaced.
fn target_of(path: &Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|_| path.to_owned())
}

fn check_name(path: &Path) -> Result<()> {
    let folder = folder_of(path);
    ensure!(
        folder.is_dir(),
        "there is no folder {}; make it first, or give another path",
        folder.display()
    );
    // Renaming would fail on a folder, and would replace a device such as /dev/null.
    match path.symlink_metadata() {
        Ok(_) => ensure!(
            path.is_file() || !path.exists(),
            "something other than a file has this name; give another path"
        ),
        // A folder that may not be searched is told where the file is made.
        Err(error)
            if !matches!(error.kind(), ErrorKind::NotFound | ErrorKind::PermissionDenied) =>
        {
            return Err(error).context("no file can have this name; give another path");
        }
        Err(_) => ensure!(
            !path.as_os_str().as_bytes().ends_with(b"/"),
            "ends with /, as a folder's name does; give a file's"
        ),
    }
    Ok(())
}

fn tempfile_beside(path: &Path) -> Result<NamedTempFile> {
    let folder = folder_of(path);
    tempfile::Builder::new()
        .prefix(".lnp-")
        .suffix(".tmp")
        // For others to read, as far as the umask lets them; a temporary file is private otherwise.
        .permissions(Permissions::from_mode(0o666))
        .tempfile_in(folder)
        .with_context(|| {
            format!("cannot write to folder {}; give a path where you may", folder.display())
        })
}

/// Checks early that [`write_whole`] will be able to write `path`, and that it is none of the files
/// that are about to be read.
///
/// # Errors
/// What stands in the way, in one line.
pub fn check_target(path: &Path, inputs: &[&Path]) -> Result<()> {
    if let Some(input) = inputs.iter().find(|input| same_file(path, input)) {
        bail!("{}: is {}, which is read; give another path", path.display(), input.display());
    }
    let check = || -> Result<()> {
        let path = &target_of(path);
        check_name(path)?;
        tempfile_beside(path)?;
        Ok(())
    };
    check().with_context(|| path.display().to_string())
}

/// Checks as [`check_target`] the files that one command writes, and that no two of them are one.
///
/// # Errors
/// What stands in the way, in one line.
pub fn check_targets(paths: &[PathBuf], inputs: &[&Path]) -> Result<()> {
    for (number, path) in paths.iter().enumerate() {
        check_target(path, inputs)?;
        if let Some(other) = paths[..number].iter().find(|other| same_file(path, other)) {
            bail!(
                "{}: is {}, which is written too; give another path",
                path.display(),
                other.display()
            );
        }
    }
    Ok(())
}

/// Whether two paths name one file, whether it is there or not.
fn same_file(one: &Path, other: &Path) -> bool {
    let id = |path: &Path| std::fs::metadata(path).map(|facts| (facts.dev(), facts.ino())).ok();
    let place =
        |path: &Path| Some((folder_of(path).canonicalize().ok()?, path.file_name()?.to_owned()));
    match (id(one), id(other)) {
        (Some(one), Some(other)) => one == other,
        (None, None) => place(one).is_some() && place(one) == place(other),
        _ => false,
    }
}

/// Opens a file or a block device. A pipe, which may wait for ever, or a device without end is an error.
///
/// # Errors
/// It cannot be opened, or is something else.
pub fn open_file(path: &Path) -> Result<File> {
    let without_waiting = OFlags::NONBLOCK.bits() as i32;
    let file = OpenOptions::new().read(true).custom_flags(without_waiting).open(path)?;
    let kind = file.metadata()?.file_type();
    ensure!(kind.is_file() || kind.is_block_device(), "it is not a file");
    Ok(file)
}

/// Begin of what Git leaves in place of a large file that was not downloaded.
const POINTER_BEGIN: &[u8] = b"version https://git-lfs";

/// Bytes that a file begins with, as many as tell its kind; `None` where it cannot be read.
pub fn first_bytes(path: &Path) -> Option<Vec<u8>> {
    let mut begin = Vec::new();
    open_file(path).ok()?.take(POINTER_BEGIN.len() as u64).read_to_end(&mut begin).ok()?;
    Some(begin)
}

/// Checks that a file is itself, and not what Git LFS leaves in its place.
///
/// # Errors
/// It is such a pointer; the message begins with the path.
pub fn check_is_no_pointer(path: &Path) -> Result<()> {
    ensure!(
        first_bytes(path).is_none_or(|begin| begin != POINTER_BEGIN),
        "{}: a Git LFS pointer stands in its place: run `git lfs pull` in its folder, or download \
         the file itself",
        path.display()
    );
    Ok(())
}

/// Reads a text file of at most `bytes_max` bytes; more are not even read.
///
/// # Errors
/// The file cannot be read, is larger, is not UTF-8, or is a pointer of Git LFS; the message begins
/// with the path.
pub fn read_text(path: &Path, bytes_max: u64) -> Result<String> {
    let text = text_of(path, bytes_max, open_file)?;
    if text.as_bytes().starts_with(POINTER_BEGIN) {
        check_is_no_pointer(path)?;
    }
    Ok(text)
}

/// The same of whatever the user names, a pipe too.
///
/// # Errors
/// As [`read_text`].
pub fn read_stream(path: &Path, bytes_max: u64) -> Result<String> {
    text_of(path, bytes_max, |path| Ok(File::open(path)?))
}

fn text_of(path: &Path, bytes_max: u64, open: fn(&Path) -> Result<File>) -> Result<String> {
    let read = || -> Result<String> {
        let mut text = String::new();
        open(path)?.take(bytes_max + 1).read_to_string(&mut text)?;
        ensure!(
            text.len() as u64 <= bytes_max,
            "more than {bytes_max} bytes, the most that it may have"
        );
        Ok(text)
    };
    read().with_context(|| format!("{}: cannot be read as text", path.display()))
}

/// SHA-256 of a file, 64 lower-case hexadecimal digits. Reads the whole file, piece by piece.
///
/// # Errors
/// The file can't be read; the message begins with the path.
pub fn sha256_hex(path: &Path) -> Result<String> {
    let hash = || -> Result<String> {
        let mut file = open_file(path)?;
        let mut hasher = Sha256::new();
        let mut buffer = vec![0; HASH_CHUNK_BYTES];
        loop {
            match file.read(&mut buffer)? {
                0 => break,
                read => hasher.update(&buffer[..read]),
            }
        }
        Ok(hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
    };
    hash().with_context(|| format!("{}: cannot hash", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_or_not_at_all() -> Result<()> {
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("x");
        write_whole(&path, 3, |file| Ok(file.write_all(b"abc")?))?;
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(sha256_hex(&path)?, abc);
        // As private as any other new file here.
        let plain = dir.path().join("plain");
        File::create(&plain)?;
        assert_eq!(path.metadata()?.permissions(), plain.metadata()?.permissions());

        let half_written = write_whole(&path, 5 << 10, |file| {
            file.write_all(b"half")?;
            Err(io::Error::from(ErrorKind::StorageFull).into())
        });
        let error = format!("{:#}", half_written.unwrap_err());
        assert!(error.contains("x: not written, 5.0 KiB are needed; make room"), "{error}");
        let error = write_whole(&path, 1 << 60, |_| panic!("not to be called")).unwrap_err();
        let error = format!("{error:#}");
        assert!(error.contains("x: 1048576.0 TiB are needed, "), "{error}");
        assert_eq!(std::fs::read(&path)?, b"abc");
        assert_eq!(std::fs::read_dir(dir.path())?.count(), 2, "nothing left behind");
        Ok(())
    }

    #[test]
    fn where_nothing_can_be_written() -> Result<()> {
        let dir = tempfile::tempdir()?;
        std::fs::write(dir.path().join("file"), "")?;
        for (path, expected) in [
            ("none/x", "none/x: there is no folder"),
            ("file/x", "file/x: there is no folder"),
            (".", "something other than a file"),
            ("", "something other than a file"),
        ] {
            let result = write_whole(&dir.path().join(path), 0, |_| panic!("not to be called"));
            let error = format!("{:#}", result.unwrap_err());
            assert!(error.contains(expected), "{error}");
        }
        assert!(write_whole(Path::new("/dev/null"), 0, |_| Ok(())).is_err());
        let error = sha256_hex(&dir.path().join("none")).unwrap_err().to_string();
        assert!(error.contains("none: cannot hash"), "{error}");
        Ok(())
    }
}
