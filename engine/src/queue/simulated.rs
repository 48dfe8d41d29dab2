//! The simulated device: virtual time, one seed, the same bytes and times on every run.
//!
//! Its model: a batch is what is submitted between two calls of [`ReadQueue::drain`]. The k-th read
//! of a batch is done when the device law says that k reads and their bytes are; draining costs the
//! law's `t0`, once. Completions come in an order drawn from the seed. Reads beyond the image come
//! back short. Fault model of this version: none (no errors, no delays, no wrong bytes).

use heapless::Vec;

use super::{Clock, Completion, Read, ReadError, ReadFailure, ReadQueue};
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
    image: Image<'a>,
    law: DeviceLaw,
    depth: u32,
    random: u64,
    now_ns: u64,
    batch: Option<Batch>,
    waiting: Vec<Read<'a>, QUEUE_DEPTH_MAX>,
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
    pub fn new(image: Image<'a>, law: DeviceLaw, depth: u32, seed: u64) -> Self {
        let depth = depth.clamp(1, QUEUE_DEPTH_MAX as u32);
        let waiting = Vec::new();
        Self { image, law, depth, random: seed, now_ns: 0, batch: None, waiting }
    }

    /// SplitMix64: the next number of the seed's sequence.
    fn random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Brings a read's bytes into its slot.
    fn transfer(&self, read: &mut Read<'a>) -> Result<(), ReadFailure> {
        let short = |found: u64| ReadFailure::Short { found: found as u32 };
        let end = read.file_offset.saturating_add(read.lease.bytes().into());
        match self.image {
            Image::Opaque(bytes) if end <= bytes => Ok(()),
            Image::Opaque(bytes) => Err(short(bytes.saturating_sub(read.file_offset))),
            Image::Bytes(image) => {
                let there = image.len() as u64;
                let begin = usize::try_from(read.file_offset).unwrap_or(usize::MAX);
                let end = usize::try_from(end).unwrap_or(usize::MAX);
                let source =
                    image.get(begin..end).ok_or(short(there.saturating_sub(read.file_offset)))?;
                read.lease.as_mut_slice().copy_from_slice(source);
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

impl<'a> ReadQueue<'a> for SimulatedQueue<'a> {
    fn depth(&self) -> u32 {
        self.depth
    }

    fn in_flight(&self) -> u32 {
        self.waiting.len() as u32
    }

    fn submit(&mut self, read: Read<'a>) -> Result<(), ReadError> {
        if self.in_flight() == self.depth {
            return Err(ReadError::of(&read, ReadFailure::QueueFull));
        }
        self.batch.get_or_insert(Batch { begin_ns: self.now_ns, ..Batch::default() });
        self.waiting.push(read).map_err(|read| ReadError::of(&read, ReadFailure::QueueFull))
    }

    fn flush(&mut self) {}

    /// Time only passes in [`ReadQueue::wait`]: nothing is ever done before.
    fn poll(&mut self) -> Option<Completion> {
        None
    }

    fn wait(&mut self) -> Option<Completion> {
        let waiting = self.waiting.len() as u64;
        if waiting == 0 {
            return None;
        }
        let at = (self.random() % waiting) as usize;
        let mut read = self.waiting.swap_remove(at);
        let mut batch = self.batch.unwrap_or_default();
        batch.reads += 1;
        batch.bytes += u64::from(read.lease.bytes());
        let since_ns = (self.law.work_us(batch.reads, batch.bytes) * 1e3) as u64;
        self.now_ns = self.now_ns.max(batch.begin_ns.saturating_add(since_ns));
        self.batch = Some(batch);
        let result = self.transfer(&mut read);
        Some(Completion::of(read, result))
    }

    fn drain(&mut self) -> Result<(), ReadError> {
        let mut result = Ok(());
        while let Some(completion) = self.wait() {
            result = result.and(completion.result);
        }
        if self.batch.take().is_some() {
            self.now_ns = self.now_ns.saturating_add((self.law.t0_us() * 1e3) as u64);
        }
        result
    }
}
