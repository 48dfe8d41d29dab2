//! The read queue for kernels without io_uring: one `pread` after the other.

use heapless::Deque;

use super::{DirectFile, clock};
use crate::limits::QUEUE_DEPTH_MAX;
use crate::queue::{Clock, Completion, Read, ReadError, ReadFailure, ReadQueue};

/// Reads are done one at a time, when their completion is asked for.
#[derive(Debug)]
pub struct PreadQueue<'a> {
    file: &'a DirectFile,
    depth: u32,
    waiting: Deque<Read<'a>, QUEUE_DEPTH_MAX>,
}

impl<'a> PreadQueue<'a> {
    /// A queue over a file; `depth` is at most [`QUEUE_DEPTH_MAX`].
    pub fn new(file: &'a DirectFile, depth: u32) -> Self {
        let depth = depth.clamp(1, QUEUE_DEPTH_MAX as u32);
        Self { file, depth, waiting: Deque::new() }
    }
}

impl Clock for PreadQueue<'_> {
    fn now_ns(&self) -> u64 {
        clock::now_ns()
    }
}

impl<'a> ReadQueue<'a> for PreadQueue<'a> {
    fn depth(&self) -> u32 {
        self.depth
    }

    fn in_flight(&self) -> u32 {
        self.waiting.len() as u32
    }

    fn reads_in_background(&self) -> bool {
        false
    }

    fn submit(&mut self, read: Read<'a>) -> Result<(), ReadError> {
        if self.in_flight() == self.depth {
            return Err(ReadError::of(&read, ReadFailure::QueueFull));
        }
        self.waiting.push_back(read).map_err(|read| ReadError::of(&read, ReadFailure::QueueFull))
    }

    fn flush(&mut self) {}

    fn poll(&mut self) -> Option<Completion> {
        None
    }

    fn wait(&mut self) -> Option<Completion> {
        let mut read = self.waiting.pop_front()?;
        let result = self.file.read_exact_at(read.file_offset, read.lease.as_mut_slice());
        Some(Completion::of(read, result))
    }
    fn end_batch(&mut self) {}
}
