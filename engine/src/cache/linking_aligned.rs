//! The linking-aligned cache, as published for Neuralink: a bundle read alone costs a whole
//! operation, one in the midst of a long run costs its bytes only, and thrown out of the midst it
//! breaks the run. So bundles of short runs (*outliers*) are admitted as they come, those of long
//! runs (*continuous segments*) with a lower probability. Below that, S3-FIFO.

use super::s3_fifo::S3Fifo;
use super::table::Table;
use super::{Read, Replacement};
use crate::limits::{CACHE_LONG_RUN_ADMITS_ONE_IN, CACHE_LONG_RUN_BUNDLES};

/// S3-FIFO behind an admission rule.
#[derive(Debug)]
pub(super) struct LinkingAligned<'a> {
    base: S3Fifo<'a>,
    /// Bundles of long runs seen. Counting stands for the published probability: it needs no random
    /// numbers, and a replay does the same every time.
    long: u32,
}

impl<'a> LinkingAligned<'a> {
    pub(super) const fn new(base: S3Fifo<'a>) -> Self {
        Self { base, long: 0 }
    }
}

impl Replacement for LinkingAligned<'_> {
    fn hit(&mut self, cell: u32) {
        self.base.hit(cell);
    }

    fn admit(&mut self, table: &mut Table<'_>, bundle: u32, read: Read) -> Option<u32> {
        if read.run_bundles >= CACHE_LONG_RUN_BUNDLES {
            self.long = self.long.wrapping_add(1);
            if !self.long.is_multiple_of(CACHE_LONG_RUN_ADMITS_ONE_IN) {
                return None;
            }
        }
        self.base.admit(table, bundle, read)
    }

    fn clear(&mut self) {
        self.long = 0;
        self.base.clear();
    }
}
