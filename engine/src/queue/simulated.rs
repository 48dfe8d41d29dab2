//! The simulated device: virtual time, one seed, the same bytes and times on every run.
//!
//! Its model: a batch is what is submitted between two calls of [`ReadQueue::drain`]. The k-th read
//! of a batch is done when the device law says that k reads and their bytes are; draining costs the
//! law's `t0`, once. Completions come in an order drawn from the seed. Reads beyond the image come
//! back short. Fault model of this version: none (no errors, no delays, no wrong bytes).

use heapless::Vec;

use super::{Clock, Completion, Read, ReadError, ReadFailure, ReadQueue, staging_range};
use crate::law::DeviceLaw;
use crate::limits::QUEUE_DEPTH_MAX;

/// What the device holds.
#[derive(Clone, Copy, Debug)]
pub enum Image<'a> {
    /// These bytes.
    Bytes(&'a [u8]),
    /// So many bytes that nobody looks at: reads take their time and leave the staging area alone.
    Opaque(u64),
}

/// A device that obeys a [`DeviceLaw`] to the letter.
#[derive(Debug)]
pub struct SimulatedQueue<'a> {
    staging: &'a mut [u8],
    image: Image<'a>,
    law: DeviceLaw,
    depth: u32,
    random: u64,
    now_ns: u64,
    batch: Option<Batch>,
    waiting: Vec<Read, QUEUE_DEPTH_MAX>,
}

/// The batch under way.
#[derive(Clone, Copy, Debug, Default)]
struct Batch {
    begin_ns: u64,
    reads: u64,
    bytes: u64,
}

impl<'a> SimulatedQueue<'a> {
    /// A device with `depth` places (at most [`QUEUE_DEPTH_MAX`]).
    pub fn new(
        staging: &'a mut [u8],
        image: Image<'a>,
        law: DeviceLaw,
        depth: u32,
        seed: u64,
    ) -> Self {
        let depth = depth.clamp(1, QUEUE_DEPTH_MAX as u32);
        let waiting = Vec::new();
        Self { staging, image, law, depth, random: seed, now_ns: 0, batch: None, waiting }
    }

    /// SplitMix64: the next number of the seed's sequence.
    fn random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Brings a read's bytes into the staging area.
    fn transfer(&mut self, read: &Read) -> Result<(), ReadError> {
        let short = |found: u64| ReadError::of(read, ReadFailure::Short { found: found as u32 });
        let end = read.file_offset.saturating_add(read.bytes.into());
        match self.image {
            Image::Opaque(bytes) if end <= bytes => Ok(()),
            Image::Opaque(bytes) => Err(short(bytes.saturating_sub(read.file_offset))),
            Image::Bytes(image) => {
                let there = image.len() as u64;
                let begin = usize::try_from(read.file_offset).unwrap_or(usize::MAX);
                let end = usize::try_from(end).unwrap_or(usize::MAX);
                let source =
                    image.get(begin..end).ok_or(short(there.saturating_sub(read.file_offset)))?;
                let range = staging_range(read, self.staging.len())?;
                self.staging[range].copy_from_slice(source);
                Ok(())
            }
        }
    }
}

impl Clock for SimulatedQueue<'_> {
    fn now_ns(&self) -> u64 {
        self.now_ns
    }
}

impl ReadQueue for SimulatedQueue<'_> {
    fn depth(&self) -> u32 {
        self.depth
    }

    fn in_flight(&self) -> u32 {
        self.waiting.len() as u32
    }

    fn submit(&mut self, read: &Read) -> Result<(), ReadError> {
        staging_range(read, self.staging.len())?;
        if self.in_flight() == self.depth {
            return Err(ReadError::of(read, ReadFailure::QueueFull));
        }
        self.batch.get_or_insert(Batch { begin_ns: self.now_ns, ..Batch::default() });
        self.waiting.push(*read).map_err(|read| ReadError::of(&read, ReadFailure::QueueFull))
    }

    fn complete(&mut self) -> Result<Completion, ReadError> {
        if self.waiting.is_empty() {
            return Err(ReadError::of(&Read::default(), ReadFailure::QueueEmpty));
        }
        let at = (self.random() % self.waiting.len() as u64) as usize;
        let read = self.waiting.swap_remove(at);
        let mut batch = self.batch.unwrap_or_default();
        batch.reads += 1;
        batch.bytes += u64::from(read.bytes);
        let since_ns = (self.law.work_us(batch.reads, batch.bytes) * 1e3) as u64;
        self.now_ns = self.now_ns.max(batch.begin_ns.saturating_add(since_ns));
        self.batch = Some(batch);
        self.transfer(&read)?;
        Ok(Completion { tag: read.tag })
    }

    fn staging(&self) -> Option<&[u8]> {
        self.waiting.is_empty().then_some(&*self.staging)
    }

    fn drain(&mut self) -> Result<(), ReadError> {
        let mut result = Ok(());
        while self.in_flight() > 0 {
            let completion = self.complete();
            result = result.and(completion.map(|_| ()));
        }
        if self.batch.take().is_some() {
            self.now_ns = self.now_ns.saturating_add((self.law.t0_us() * 1e3) as u64);
        }
        result
    }
}
