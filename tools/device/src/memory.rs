//! Memory for the engine's arenas.

use std::ops::{Deref, DerefMut};

use anyhow::{Context, Result};
use memmap2::MmapMut;

/// A huge page of the architectures that we know, bytes.
const HUGE_PAGE_BYTES: usize = 2 << 20;

/// Zeroed memory, in huge pages where the system has them.
pub struct ArenaMemory {
    map: MmapMut,
    begin: usize,
    bytes: usize,
}

/// Zeroed memory in huge pages where the system has them: it begins at the boundary of one, and all
/// of it lies within whole ones.
///
/// That is for the device: a direct read into scattered 4 KiB pages is one segment a page for the
/// driver, and was up to 2.5 times slower here than one into contiguous memory. Which pages a plain
/// allocation gets depends on what ran before, so comparisons would measure that instead.
///
/// # Errors
/// The memory cannot be had.
pub fn arena(bytes: usize) -> Result<ArenaMemory> {
    let whole = bytes.max(1).checked_next_multiple_of(HUGE_PAGE_BYTES);
    let map = whole
        .and_then(|whole| whole.checked_add(HUGE_PAGE_BYTES))
        .and_then(|whole| MmapMut::map_anon(whole).ok())
        .with_context(|| {
            format!("{bytes} bytes of memory cannot be had: ask for less, or make room")
        })?;
    let begin = map.as_ptr().addr().wrapping_neg() % HUGE_PAGE_BYTES;
    // Advice only: a kernel without huge pages gives small ones. The crate has no such advice for
    // Android.
    #[cfg(not(target_os = "android"))]
    let _ = map.advise_range(memmap2::Advice::HugePage, begin, map.len() - HUGE_PAGE_BYTES);
    Ok(ArenaMemory { map, begin, bytes })
}

impl Deref for ArenaMemory {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.map[self.begin..self.begin + self.bytes]
    }
}

impl DerefMut for ArenaMemory {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.map[self.begin..self.begin + self.bytes]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arenas_begin_at_a_huge_page_and_are_zero() {
        for bytes in [0, 1, 4096, HUGE_PAGE_BYTES, 3 * HUGE_PAGE_BYTES + 1] {
            let memory = arena(bytes).unwrap();
            assert_eq!(memory.len(), bytes);
            assert!(memory.as_ptr().addr().is_multiple_of(HUGE_PAGE_BYTES));
            assert!(memory.iter().all(|byte| *byte == 0));
        }
        assert!(arena(usize::MAX).is_err());
    }
}
