//! Arbitrary bytes as a pack: an error or a view, and what the view promises holds.
//!
//! Checksums pass under `cfg(fuzzing)`, so that damage gets past them. Nothing here may panic, run
//! long, or read outside the bytes; `Pack`'s accessors and the planner are held to their docs.

use crate::pack_checks::check;

/// The file's length is told truly, as the superblock claims it, and wrong.
pub fn run(data: &[u8]) {
    let length = data.len() as u64;
    // The length that the superblock claims: the index of a larger file, or a lie about this one.
    let claimed = data.get(32..40).and_then(|bytes| bytes.try_into().ok()).map(u64::from_le_bytes);
    for file_bytes in [Some(length), claimed, length.checked_mul(2)].into_iter().flatten() {
        check(data, file_bytes);
    }
}
