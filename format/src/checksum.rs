//! The one checksum of the format: CRC-32 as in IEEE 802.3, zlib and PNG.

use crate::error::FormatError;

/// CRC-32 (polynomial 0x04C11DB7 reflected, initial value and final XOR of all ones).
pub fn crc32(bytes: &[u8]) -> u32 {
    crc32fast::hash(bytes)
}

/// A CRC-32 over bytes that arrive in pieces.
#[derive(Clone, Debug, Default)]
pub struct Crc32(crc32fast::Hasher);

impl Crc32 {
    /// The checksum of nothing, to be continued.
    pub fn new() -> Self {
        Self::default()
    }
    /// Takes the next piece.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }
    /// The checksum of all pieces.
    pub fn finish(self) -> u32 {
        self.0.finalize()
    }
}

/// Compares a stored checksum with that of the bytes.
///
/// # Errors
/// [`FormatError::Checksum`] where they differ. Under `cfg(fuzzing)` every checksum passes, so that
/// a fuzzer reaches what lies behind it.
pub fn check(
    what: &'static str,
    offset: u64,
    bytes: &[u8],
    expected: u32,
) -> Result<(), FormatError> {
    let found = crc32(bytes);
    if found == expected || cfg!(fuzzing) {
        Ok(())
    } else {
        Err(FormatError::Checksum { what, offset, expected, found })
    }
}

/// Checks that reserved or padding bytes are zero; `offset` is that of `bytes` in the file.
///
/// # Errors
/// [`FormatError::NotZero`] for the first byte that is not.
pub fn check_zero(what: &'static str, offset: u64, bytes: &[u8]) -> Result<(), FormatError> {
    // All at once first: no branch a byte, which is what a pack's padding would take long with.
    if bytes.iter().fold(0, |all, byte| all | byte) == 0 {
        return Ok(());
    }
    match bytes.iter().enumerate().find(|(_, byte)| **byte != 0) {
        None => Ok(()),
        Some((at, byte)) => {
            Err(FormatError::NotZero { what, offset: offset + at as u64, found: *byte })
        }
    }
}
