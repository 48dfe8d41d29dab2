//! The read queue over io_uring: registered file and buffer, one system call for many reads.

use core::marker::PhantomData;

use io_uring::{IoUring, opcode, squeue, types};

use super::{DirectFile, clock};
use crate::limits::{QUEUE_DEPTH_MAX, READ_RETRIES_MAX, WAIT_RETRIES_MAX};
use crate::queue::{Clock, Completion, Read, ReadError, ReadFailure, ReadQueue, staging_range};

/// A read that the kernel may be working on.
#[derive(Clone, Copy, Debug, Default)]
struct Pending {
    read: Read,
    /// Bytes of it that have come already.
    done: u32,
    tries: u32,
}

/// Reads go to the kernel in batches; the kernel writes straight into the staging area.
pub struct UringQueue<'a> {
    ring: IoUring,
    staging: *mut u8,
    staging_bytes: usize,
    /// Why the staging area is not registered with the kernel (errno), if it is not.
    unregistered: Option<i32>,
    depth: u32,
    in_flight: u32,
    pending: [Pending; QUEUE_DEPTH_MAX],
    /// Numbers of the places of `pending` that are free: the first `depth - in_flight`.
    free: [u16; QUEUE_DEPTH_MAX],
    /// The queue borrows both, though it holds a pointer and the kernel a reference.
    borrows: PhantomData<(&'a mut [u8], &'a DirectFile)>,
}

impl core::fmt::Debug for UringQueue<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("UringQueue")
            .field("depth", &self.depth)
            .field("in_flight", &self.in_flight)
            .field("staging_bytes", &self.staging_bytes)
            .finish_non_exhaustive()
    }
}

// SAFETY: the pointer stands for an exclusive borrow of bytes, which may move to another thread; the
// ring is `Send`; nothing in here is tied to the thread that opened it.
unsafe impl Send for UringQueue<'_> {}

impl<'a> UringQueue<'a> {
    /// A queue over borrowed staging memory; `depth` is at most [`QUEUE_DEPTH_MAX`].
    ///
    /// Where the memory cannot be registered (RLIMIT_MEMLOCK), reads go there all the same, and
    /// [`UringQueue::unregistered`] tells.
    ///
    /// # Safety
    /// The queue is not leaked (`mem::forget` and its like) while a read is in flight: the kernel
    /// would go on writing into memory whose borrow has ended. Dropping it waits for the kernel.
    ///
    /// # Errors
    /// The error number where the system has no io_uring, and the staging memory back.
    pub(super) unsafe fn open(
        file: &'a DirectFile,
        staging: &'a mut [u8],
        depth: u32,
    ) -> Result<Self, (i32, &'a mut [u8])> {
        let depth = depth.clamp(1, QUEUE_DEPTH_MAX as u32);
        let errno = |error: std::io::Error| error.raw_os_error().unwrap_or(libc::EIO);
        let ring = match IoUring::builder().build(depth) {
            Ok(ring) => ring,
            Err(error) => return Err((errno(error), staging)),
        };
        if let Err(error) = ring.submitter().register_files(&[file.fd()]) {
            return Err((errno(error), staging));
        }
        let buffer = libc::iovec { iov_base: staging.as_mut_ptr().cast(), iov_len: staging.len() };
        // SAFETY: the buffer is borrowed for as long as the queue lives, and the queue's drop (or
        // the caller's promise) keeps it until the kernel is done.
        let registered = unsafe { ring.submitter().register_buffers(&[buffer]) };
        let mut free = [0; QUEUE_DEPTH_MAX];
        for (number, place) in (0..).zip(&mut free) {
            *place = number;
        }
        Ok(Self {
            ring,
            staging: staging.as_mut_ptr(),
            staging_bytes: staging.len(),
            unregistered: registered.err().map(errno),
            depth,
            in_flight: 0,
            pending: [Pending::default(); QUEUE_DEPTH_MAX],
            free,
            borrows: PhantomData,
        })
    }

    /// Why the staging area is not registered with the kernel (errno); `None` where it is.
    pub const fn unregistered(&self) -> Option<i32> {
        self.unregistered
    }

    /// Puts what is left of a pending read into the submission queue.
    fn push(&mut self, number: u16) -> Result<(), ReadError> {
        let Pending { read, done, .. } = self.pending[usize::from(number)];
        let at = read.staging_offset + done as usize;
        let (file, buffer) = (types::Fixed(0), self.staging.wrapping_add(at));
        let (bytes, offset) = (read.bytes - done, read.file_offset + u64::from(done));
        let entry = match self.unregistered {
            None => opcode::ReadFixed::new(file, buffer, bytes, 0).offset(offset).build(),
            Some(_) => opcode::Read::new(file, buffer, bytes).offset(offset).build(),
        };
        let entry = entry.user_data(number.into());
        if self.push_entry(&entry) {
            return Ok(());
        }
        // The submission queue has `depth` places; it is full only with what was never handed over.
        let submitted = self.ring.submit();
        if self.push_entry(&entry) {
            return Ok(());
        }
        let errno = submitted.err().and_then(|error| error.raw_os_error()).unwrap_or(libc::EBUSY);
        Err(ReadError::of(&read, ReadFailure::System { errno }))
    }

    fn push_entry(&mut self, entry: &squeue::Entry) -> bool {
        // SAFETY: the entry names the registered file, and bytes of the registered buffer that
        // `submit` checked to lie within the staging area; that memory stays valid and unread
        // until the completion comes, because `staging` gives nothing out while reads are in
        // flight and dropping the queue waits for them.
        unsafe { self.ring.submission().push(entry) }.is_ok()
    }

    /// Waits for a completion and gives its place in `pending` and its result.
    ///
    /// Ends the process where the kernel lets us wait no more: it still writes into memory that
    /// will be given back, and nothing sound can follow.
    fn wait(&mut self) -> (u16, i32) {
        let mut tries = 0;
        loop {
            if let Some(entry) = self.ring.completion().next() {
                return (entry.user_data() as u16, entry.result());
            }
            let Err(error) = self.ring.submit_and_wait(1) else { continue };
            match error.raw_os_error() {
                Some(libc::EINTR) => {}
                Some(libc::EAGAIN | libc::EBUSY) if tries < WAIT_RETRIES_MAX => {
                    tries += 1;
                    std::thread::yield_now();
                }
                _ => std::process::abort(),
            }
        }
    }

    /// Frees a place of `pending`.
    fn release(&mut self, number: u16) -> Pending {
        self.in_flight -= 1;
        self.free[(self.depth - self.in_flight - 1) as usize] = number;
        self.pending[usize::from(number)]
    }
}

impl Clock for UringQueue<'_> {
    fn now_ns(&self) -> u64 {
        clock::now_ns()
    }
}

impl ReadQueue for UringQueue<'_> {
    fn depth(&self) -> u32 {
        self.depth
    }

    fn in_flight(&self) -> u32 {
        self.in_flight
    }

    fn submit(&mut self, read: &Read) -> Result<(), ReadError> {
        staging_range(read, self.staging_bytes)?;
        if self.in_flight == self.depth {
            return Err(ReadError::of(read, ReadFailure::QueueFull));
        }
        let number = self.free[(self.depth - self.in_flight - 1) as usize];
        self.pending[usize::from(number)] = Pending { read: *read, ..Pending::default() };
        self.push(number)?;
        self.in_flight += 1;
        Ok(())
    }

    fn complete(&mut self) -> Result<Completion, ReadError> {
        if self.in_flight == 0 {
            return Err(ReadError::of(&Read::default(), ReadFailure::QueueEmpty));
        }
        loop {
            let (number, result) = self.wait();
            let pending = &mut self.pending[usize::from(number)];
            pending.tries += 1;
            let again = match result {
                1.. => {
                    pending.done += result as u32;
                    pending.done < pending.read.bytes
                }
                0 => false,
                error => matches!(-error, libc::EINTR | libc::EAGAIN),
            };
            if again && pending.tries <= READ_RETRIES_MAX {
                if let Err(error) = self.push(number) {
                    self.release(number);
                    return Err(error);
                }
                continue;
            }
            let Pending { read, done, .. } = self.release(number);
            let failure = match result {
                _ if done == read.bytes => return Ok(Completion { tag: read.tag }),
                0.. => ReadFailure::Short { found: done },
                error => ReadFailure::System { errno: -error },
            };
            return Err(ReadError::of(&read, failure));
        }
    }

    fn staging(&self) -> Option<&[u8]> {
        if self.in_flight > 0 {
            return None;
        }
        // SAFETY: the memory is borrowed for 'a, no read is in flight, so the kernel writes
        // nothing, and a new read needs `&mut self`, which this borrow rules out.
        Some(unsafe { core::slice::from_raw_parts(self.staging, self.staging_bytes) })
    }
}

impl Drop for UringQueue<'_> {
    fn drop(&mut self) {
        while self.in_flight > 0 {
            let (number, _) = self.wait();
            self.release(number);
        }
    }
}
