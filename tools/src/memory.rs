//! Memory for the engine's arenas.

use anyhow::{Context, Result};
use memmap2::{Advice, MmapMut};

/// Zeroed memory in huge pages where the system has them.
///
/// That is for the device: a direct read into scattered 4 KiB pages is one segment a page for the
/// driver, and was up to 40 % slower here than one into contiguous memory. Which pages a plain
/// allocation gets depends on what ran before, so comparisons would measure that instead.
///
/// # Errors
/// The memory cannot be had.
pub(crate) fn arena(bytes: usize) -> Result<MmapMut> {
    let memory = MmapMut::map_anon(bytes.max(1))
        .with_context(|| format!("{bytes} bytes of memory cannot be had"))?;
    // Advice only: a kernel without huge pages gives small ones.
    let _ = memory.advise(Advice::HugePage);
    Ok(memory)
}
