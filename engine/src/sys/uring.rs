//! The read queue over io_uring: registered file and buffer, one system call for many reads.

use super::ring::{self, Opened, Polling, Ring, RingRead};
use super::{DirectFile, clock};
use crate::arena::StagingMemory;
use crate::limits::{QUEUE_DEPTH_MAX, READ_RETRIES_MAX, WAIT_RETRIES_MAX};
use crate::queue::{Clock, Completion, Read, ReadError, ReadFailure, ReadQueue, early_reads};

/// A read that the kernel may be working on.
#[derive(Debug)]
struct Pending<'a> {
    read: Read<'a>,
    /// Bytes of it that have come already.
    done: u32,
    tries: u32,
}

/// Reads go to the kernel in batches, over a ring of either kind; the kernel writes straight into the
/// staging area.
pub(super) struct UringQueue<'a, R: Ring> {
    ring: R,
    /// Its descriptor is registered with the ring.
    file: &'a DirectFile,
    /// Why the staging area is not registered with the kernel (errno), if it is not.
    unregistered: Option<i32>,
    polling: Polling,
    /// Why it does not poll as it was asked to (errno), if it was.
    polling_refused: Option<i32>,
    depth: u32,
    in_flight: u32,
    pending: [Option<Pending<'a>>; QUEUE_DEPTH_MAX],
    /// Numbers of the places of `pending` that are free: the first `depth - in_flight`.
    free: [u16; QUEUE_DEPTH_MAX],
}

impl<R: Ring> core::fmt::Debug for UringQueue<'_, R> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("UringQueue")
            .field("depth", &self.depth)
            .field("in_flight", &self.in_flight)
            .field("file", &self.file)
            .finish_non_exhaustive()
    }
}

impl<'a, R: Ring> UringQueue<'a, R> {
    /// A queue that reads into buffers of `staging`; `depth` is at most [`QUEUE_DEPTH_MAX`].
    ///
    /// Where the memory cannot be registered (RLIMIT_MEMLOCK), reads go there all the same, and
    /// [`UringQueue::unregistered`] tells; where it cannot poll, it does not, and
    /// [`UringQueue::polling_refused`] tells.
    ///
    /// # Safety
    /// All leases of the reads submitted are of buffers within `staging`. The queue is not leaked
    /// (`mem::forget` and its like) while a read is in flight: the kernel would go on writing into
    /// memory whose borrow has ended. Dropping it waits for the kernel.
    ///
    /// # Errors
    /// The error number where the system has no io_uring.
    pub(super) unsafe fn open(
        file: &'a DirectFile,
        staging: StagingMemory<'a>,
        depth: u32,
        polling: Polling,
    ) -> Result<Self, i32> {
        let depth = depth.clamp(1, QUEUE_DEPTH_MAX as u32);
        // SAFETY: leases of the memory go only to reads of this queue, which is not there yet: nobody
        // touches it during the call.
        let opened = unsafe { ring::open(file, staging, depth, polling) };
        let Opened { mut ring, polling, refused }: Opened<R> = opened?;
        // SAFETY: the memory is borrowed, so mapped, for 'a, and dropping the queue unregisters it. The
        // queue may be leaked with nothing in flight; then nobody has it to push to.
        let registered = unsafe { ring.register_buffer(staging.base(), staging.bytes()) };
        let mut free = [0; QUEUE_DEPTH_MAX];
        for (number, place) in (0..).zip(&mut free) {
            *place = number;
        }
        Ok(Self {
            ring,
            file,
            unregistered: registered.err(),
            polling,
            polling_refused: refused,
            depth,
            in_flight: 0,
            pending: [const { None }; QUEUE_DEPTH_MAX],
            free,
        })
    }

    /// Why the staging area is not registered with the kernel (errno); `None` where it is.
    pub(super) const fn unregistered(&self) -> Option<i32> {
        self.unregistered
    }

    /// Who polls.
    pub(super) const fn polling(&self) -> Polling {
        self.polling
    }

    /// Why it does not poll as it was asked to (errno); `None` where it does.
    pub(super) const fn polling_refused(&self) -> Option<i32> {
        self.polling_refused
    }

    /// Puts what is left of a pending read into the submission queue.
    fn push(&mut self, number: u16) -> Result<(), ReadFailure> {
        let Some(Some(Pending { read, done, .. })) = self.pending.get(usize::from(number)) else {
            super::broken(c"what is pushed is pending");
        };
        let read = RingRead {
            file_offset: read.file_offset + u64::from(*done),
            memory: read.lease.as_mut_ptr().wrapping_add(*done as usize),
            bytes: read.lease.bytes() - done,
            registered: self.unregistered.is_none(),
            tag: number,
        };
        if self.push_read(&read) {
            return Ok(());
        }
        let room = self.make_room();
        if self.push_read(&read) {
            return Ok(());
        }
        Err(ReadFailure::System { errno: room.err().unwrap_or(libc::EBUSY) })
    }

    fn push_read(&mut self, read: &RingRead) -> bool {
        // SAFETY: it names bytes of a buffer whose lease lies in `pending` until the completion comes:
        // nobody else touches them, and the memory stays borrowed, because dropping the queue waits for
        // the kernel first.
        unsafe { self.ring.push(read) }
    }

    /// Hands over what waits once it is a part of the depth, so that the device begins while the rest of
    /// the batch is still being prepared. Under submission polling the kernel's thread has seen it already.
    fn hand_over_early(&mut self) {
        let enough = self.ring.unsubmitted() >= early_reads(self.depth);
        if enough && self.polling != Polling::Submission {
            // An error comes again, and is dealt with, when a completion is waited for.
            let _ = self.ring.submit_and_wait(0);
        }
    }

    /// Makes room in the submission ring, which is full only with what was never handed over.
    fn make_room(&mut self) -> Result<(), i32> {
        self.ring.submit_and_wait(0)?;
        if self.polling == Polling::Submission { self.ring.wait_for_place() } else { Ok(()) }
    }

    /// Has the kernel post what is complete and was not posted yet, without waiting.
    fn collect(&mut self) {
        let due = match self.polling {
            // nobody but us asks the device
            Polling::Completion => self.in_flight > 0,
            // completions of COOP_TASKRUN that the kernel holds until we come by, or reads that wait while
            // the kernel has none
            Polling::None => {
                self.ring.holds_back()
                    || (self.in_flight > 0 && self.ring.unsubmitted() >= self.in_flight)
            }
            Polling::Submission => false,
        };
        if due {
            // An error comes again, and is dealt with, when a completion is waited for.
            let _ = self.ring.submit_and_wait(0);
        }
    }

    /// A completion that is posted already: its place in `pending` and its result.
    fn posted(&mut self) -> Option<(u16, i32)> {
        self.ring.completion().map(|found| (found.tag, found.result))
    }

    /// Waits for a completion and gives its place in `pending` and its result.
    ///
    /// Ends the process where the kernel lets us wait no more: it still writes into memory that
    /// will be given back, and nothing sound can follow.
    fn wait_for_kernel(&mut self) -> (u16, i32) {
        let mut tries = 0;
        loop {
            if let Some(posted) = self.posted() {
                return posted;
            }
            match self.ring.submit_and_wait(1) {
                Ok(()) | Err(libc::EINTR) => {}
                Err(libc::EAGAIN | libc::EBUSY) if tries < WAIT_RETRIES_MAX => {
                    tries += 1;
                    super::yield_now();
                }
                Err(_) => super::broken(c"the kernel lets us wait for reads in flight"),
            }
        }
    }

    /// Frees a place of `pending`.
    fn release(&mut self, number: u16) -> Pending<'a> {
        let pending = self.pending.get_mut(usize::from(number)).and_then(Option::take);
        let Some(pending) = pending else {
            super::broken(c"the kernel tells of reads that are in flight");
        };
        self.in_flight -= 1;
        self.free[(self.depth - self.in_flight - 1) as usize] = number;
        pending
    }

    /// What the kernel's answer to a read means: its completion, or `None` where the rest of it was
    /// asked for once more.
    fn answered(&mut self, number: u16, answer: i32) -> Option<Completion> {
        let pending = self.pending.get_mut(usize::from(number)).and_then(Option::as_mut);
        let Some(pending) = pending else {
            super::broken(c"the kernel tells of reads that are in flight");
        };
        pending.tries += 1;
        let again = match answer {
            1.. => {
                pending.done += answer as u32;
                pending.done < pending.read.lease.bytes()
            }
            0 => false,
            // cancelled: the thread that submitted it has ended
            error => matches!(-error, libc::EINTR | libc::EAGAIN | libc::ECANCELED),
        };
        if again && pending.tries <= READ_RETRIES_MAX {
            let Err(failure) = self.push(number) else { return None };
            return Some(Completion::of(self.release(number).read, Err(failure)));
        }
        let Pending { read, done, .. } = self.release(number);
        let result = match answer {
            _ if done == read.lease.bytes() => Ok(()),
            0.. => Err(ReadFailure::Short { found: done }),
            error => Err(ReadFailure::System { errno: -error }),
        };
        Some(Completion::of(read, result))
    }
}

impl<R: Ring> Clock for UringQueue<'_, R> {
    fn now_ns(&self) -> u64 {
        clock::now_ns()
    }
}

impl<'a, R: Ring> ReadQueue<'a> for UringQueue<'a, R> {
    fn depth(&self) -> u32 {
        self.depth
    }

    fn in_flight(&self) -> u32 {
        self.in_flight
    }

    fn reads_in_background(&self) -> bool {
        true
    }

    fn submit(&mut self, read: Read<'a>) -> Result<(), ReadError> {
        if self.in_flight == self.depth {
            return Err(ReadError::of(&read, ReadFailure::QueueFull));
        }
        let number = self.free[(self.depth - self.in_flight - 1) as usize];
        self.pending[usize::from(number)] = Some(Pending { read, done: 0, tries: 0 });
        self.in_flight += 1;
        match self.push(number) {
            Ok(()) => {
                self.hand_over_early();
                Ok(())
            }
            Err(failure) => Err(ReadError::of(&self.release(number).read, failure)),
        }
    }

    fn flush(&mut self) {
        // An error comes again, and is dealt with, when a completion is waited for. Under submission
        // polling this wakes the kernel's thread, if it sleeps, and is no system call else.
        if self.ring.unsubmitted() > 0 {
            let _ = self.ring.submit_and_wait(0);
        }
    }

    fn poll(&mut self) -> Option<Completion> {
        loop {
            let mut posted = self.posted();
            if posted.is_none() {
                self.collect();
                posted = self.posted();
            }
            let (number, answer) = posted?;
            let completion = self.answered(number, answer);
            if completion.is_some() {
                return completion;
            }
        }
    }

    fn wait(&mut self) -> Option<Completion> {
        while self.in_flight > 0 {
            let (number, answer) = self.wait_for_kernel();
            let completion = self.answered(number, answer);
            if completion.is_some() {
                return completion;
            }
        }
        None
    }

    fn end_batch(&mut self) {}
}

impl<R: Ring> Drop for UringQueue<'_, R> {
    fn drop(&mut self) {
        while self.in_flight > 0 {
            let (number, _) = self.wait_for_kernel();
            self.release(number);
        }
        self.ring.unregister();
    }
}
