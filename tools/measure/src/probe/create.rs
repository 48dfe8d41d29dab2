//! Makes a file to probe: random contents, which nothing can compress or leave out.

use std::io::Write;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Result, ensure};
use rand::{Rng, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;

use lnp_common::files::{check_room_of_all, write_new};

/// Bytes written at a time.
const CHUNK_BYTES: u64 = 1 << 20;
/// What is left on the disk at least, bytes.
const SPARE_BYTES: u64 = 64 << 20;

/// Makes a file of so many bytes; `progress` is told the bytes written.
///
/// # Errors
/// Something of that name exists, there is no room, or it cannot be written. Nothing is left behind.
pub fn create(path: &Path, file_bytes: u64, progress: &mut dyn FnMut(u64)) -> Result<()> {
    ensure!(
        path.symlink_metadata().is_err(),
        "{}: exists; --create makes a new file and overwrites nothing",
        path.display()
    );
    check_room_of_all(path, file_bytes.saturating_add(SPARE_BYTES))?;
    // Another sequence each time, so that a device that finds what it has already finds nothing.
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut random = Xoshiro256PlusPlus::seed_from_u64(now.as_nanos() as u64);
    write_new(path, file_bytes, |file| {
        let mut chunk = vec![0; CHUNK_BYTES as usize];
        let mut written = 0;
        while written < file_bytes {
            random.fill_bytes(&mut chunk);
            let count = CHUNK_BYTES.min(file_bytes - written);
            file.write_all(&chunk[..count as usize])?;
            written += count;
            progress(written);
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_file_of_random_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new");
        let mut last = 0;
        create(&path, (3 << 20) + 5, &mut |written| last = written).unwrap();
        let contents = std::fs::read(&path).unwrap();
        assert_eq!((contents.len() as u64, last), ((3 << 20) + 5, (3 << 20) + 5));
        // Each value of a byte about as often as any other, and no block twice.
        let mut counts = [0_u64; 256];
        contents.iter().for_each(|byte| counts[usize::from(*byte)] += 1);
        assert!(counts.iter().all(|count| (11_000..14_000).contains(count)), "{counts:?}");
        let mut blocks: Vec<&[u8]> = contents.chunks_exact(4096).collect();
        blocks.sort_unstable();
        assert!(blocks.windows(2).all(|pair| pair[0] != pair[1]));
    }

    #[test]
    fn nothing_is_overwritten_and_nothing_left_behind() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("mine");
        std::fs::write(&path, "precious").unwrap();
        let error = create(&path, 4096, &mut |_| {}).unwrap_err().to_string();
        assert!(error.contains("exists; --create makes a new file"), "{error}");
        assert_eq!(std::fs::read(&path).unwrap(), b"precious");
        // a link to nothing is something too
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(dir.path().join("none"), &link).unwrap();
        assert!(create(&link, 4096, &mut |_| {}).is_err());
        let error = create(&dir.path().join("huge"), 1 << 60, &mut |_| {}).unwrap_err();
        let error = format!("{error:#}");
        assert!(error.contains("are free there"), "{error}");
        assert!(create(&dir.path().join("none/x"), 1, &mut |_| {}).is_err());
        assert!(create(Path::new("/dev/null"), 1, &mut |_| {}).is_err());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2);
    }
}
