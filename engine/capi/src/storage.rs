//! A read queue over functions of the caller's.

use lnp_engine::limits::{QUEUE_DEPTH_MAX, STAGING_ALIGN};
use lnp_engine::queue::{Clock, Completion, Read, ReadError, ReadFailure, ReadQueue};

use crate::error::Failure;
use crate::types::lnp_storage_t;

type Submit =
    unsafe extern "C" fn(*mut core::ffi::c_void, u64, *mut core::ffi::c_void, u32, u32) -> i32;
type Complete = unsafe extern "C" fn(*mut core::ffi::c_void, i32, *mut u32, *mut i32) -> i32;

/// The caller's functions, all of them there.
#[derive(Clone, Copy)]
pub(crate) struct Storage {
    told: lnp_storage_t,
    submit: Submit,
    complete: Complete,
}

// SAFETY: numbers, pointers to functions, and a context that only they reach; they may be called from
// whatever thread calls the engine, one at a time: `lnp_storage_t` asks that of who writes them.
unsafe impl Send for Storage {}

impl Storage {
    pub(crate) fn new(told: lnp_storage_t) -> Result<Self, Failure> {
        let (Some(submit), Some(complete)) = (told.submit, told.complete) else {
            return Err(Failure::Argument("a storage needs submit and complete"));
        };
        if !told.align.is_power_of_two() || told.align as usize > STAGING_ALIGN {
            return Err(Failure::Argument(
                "a storage's align must be a power of two, at most 4096",
            ));
        }
        if !(1..=QUEUE_DEPTH_MAX as u32).contains(&told.queue_depth) {
            return Err(Failure::Argument("a storage's queue_depth must be 1 to 256"));
        }
        Ok(Self { told, submit, complete })
    }

    /// Length as the caller told it; `None` where the pack knows.
    pub(crate) const fn bytes(&self) -> Option<u64> {
        if self.told.bytes == 0 { None } else { Some(self.told.bytes) }
    }

    pub(crate) const fn takes_blocks_of(&self, block_bytes: u32) -> bool {
        block_bytes.is_multiple_of(self.told.align)
    }

    pub(crate) const fn align(&self) -> u32 {
        self.told.align
    }

    pub(crate) fn now_ns(&self) -> u64 {
        match self.told.now_ns {
            // SAFETY: `lnp_storage_t` says that the function is called with this context and nothing else,
            // by the thread that calls the engine, which this one is.
            Some(now_ns) => unsafe { now_ns(self.told.context) },
            None => lnp_engine::sys::now_ns(),
        }
    }

    /// # Safety
    /// The memory may be written to, by the storage alone, until `complete` has told of the tag.
    unsafe fn submit(
        &self,
        offset: u64,
        memory: *mut u8,
        bytes: u32,
        tag: u32,
    ) -> Result<(), ReadFailure> {
        // SAFETY: the function is called as `lnp_storage_t` says: with its context, and with memory that
        // may be written to until the read is told of, as this function asks of its caller.
        match unsafe { (self.submit)(self.told.context, offset, memory.cast(), bytes, tag) } {
            0 => Ok(()),
            errno => Err(ReadFailure::System { errno }),
        }
    }

    /// What has ended: tag and bytes; or the number of the error where the storage is gone. Asks again
    /// where it should wait and does not.
    fn complete(&self, wait: bool) -> Result<Option<(u32, i32)>, i32> {
        let (mut tag, mut bytes) = (u32::MAX, 0);
        loop {
            // SAFETY: the function is called as `lnp_storage_t` says: with its context, and with two numbers
            // of ours that it may write to during the call.
            let told = unsafe {
                (self.complete)(self.told.context, wait.into(), &raw mut tag, &raw mut bytes)
            };
            match told {
                0 if wait => {}
                0 => return Ok(None),
                1.. => return Ok(Some((tag, bytes))),
                gone => return Err(gone.saturating_neg().max(1)),
            }
        }
    }

    /// Reads and waits, with nothing else in flight; offset, length and memory are aligned.
    pub(crate) fn read_exact_at(&self, offset: u64, memory: &mut [u8]) -> Result<(), ReadFailure> {
        let bytes = memory.len() as u32;
        // SAFETY: the memory is ours until this function returns, and it waits for the read.
        unsafe { self.submit(offset, memory.as_mut_ptr(), bytes, 0) }?;
        loop {
            return match self.complete(true) {
                Ok(Some((0, came))) if came == bytes as i32 => Ok(()),
                Ok(Some((0, came @ 0..))) => Err(ReadFailure::Short { found: came as u32 }),
                Ok(Some((0, errno))) => Err(ReadFailure::System { errno: errno.saturating_neg() }),
                // No read of ours: the memory is the storage's until it tells of the one that is.
                Ok(_) => continue,
                Err(errno) => Err(ReadFailure::System { errno }),
            };
        }
    }
}

/// The queue: what is in flight, by the tags that the storage knows.
pub(crate) struct StorageQueue {
    storage: Storage,
    depth: u32,
    in_flight: u32,
    pending: [Option<Read<'static>>; QUEUE_DEPTH_MAX],
    /// Why the storage is gone (errno): nothing writes to any memory any more.
    gone: Option<i32>,
    /// Why nothing is asked of the storage any more (errno): it does not keep its promises.
    refused: Option<i32>,
}

impl StorageQueue {
    pub(crate) fn new(storage: Storage, depth: u32) -> Self {
        let depth = depth.min(storage.told.queue_depth);
        Self {
            storage,
            depth,
            in_flight: 0,
            pending: [const { None }; QUEUE_DEPTH_MAX],
            gone: None,
            refused: None,
        }
    }

    fn take(&mut self, number: u32) -> Option<Read<'static>> {
        let read = self.pending.get_mut(number as usize)?.take()?;
        self.in_flight -= 1;
        Some(read)
    }

    /// A completion of a storage that is gone: any of what was in flight.
    fn lost(&mut self, errno: i32) -> Option<Completion> {
        let number = self.pending.iter().position(Option::is_some)?;
        let read = self.take(number as u32)?;
        Some(Completion::of(read, Err(ReadFailure::System { errno })))
    }

    fn next(&mut self, wait: bool) -> Option<Completion> {
        if self.in_flight == 0 {
            return None;
        }
        if let Some(errno) = self.gone {
            return self.lost(errno);
        }
        let (read, bytes) = loop {
            match self.storage.complete(wait) {
                Ok(None) => return None,
                Ok(Some((tag, bytes))) => {
                    if let Some(read) = self.take(tag) {
                        break (read, bytes);
                    }
                    // A read that there is not. What it may have been told for is not given back before
                    // the storage tells of it, or that it is gone; and nothing new is asked of it.
                    self.refused = Some(libc::EPROTO);
                }
                Err(errno) => {
                    self.gone = Some(errno);
                    return self.lost(errno);
                }
            }
        };
        let result = match u32::try_from(bytes) {
            Ok(came) if came == read.lease.bytes() => Ok(()),
            Ok(came) => Err(ReadFailure::Short { found: came.min(read.lease.bytes()) }),
            Err(_) => Err(ReadFailure::System { errno: bytes.saturating_neg() }),
        };
        Some(Completion::of(read, result))
    }
}

impl Clock for StorageQueue {
    fn now_ns(&self) -> u64 {
        self.storage.now_ns()
    }
}

impl ReadQueue<'static> for StorageQueue {
    fn depth(&self) -> u32 {
        self.depth
    }

    fn in_flight(&self) -> u32 {
        self.in_flight
    }

    fn reads_in_background(&self) -> bool {
        true
    }

    fn submit(&mut self, read: Read<'static>) -> Result<(), ReadError> {
        let free = self.pending.iter().take(self.depth as usize).position(Option::is_none);
        let Some(number) = free else {
            return Err(ReadError::of(&read, ReadFailure::QueueFull));
        };
        if let Some(errno) = self.gone.or(self.refused) {
            return Err(ReadError::of(&read, ReadFailure::System { errno }));
        }
        let (memory, bytes) = (read.lease.as_mut_ptr(), read.lease.bytes());
        // SAFETY: the lease stays in `pending` until the storage has told of the read, or that it is
        // gone; the memory is the engine's, which waits for both before it is given back.
        let submitted =
            unsafe { self.storage.submit(read.file_offset, memory, bytes, number as u32) };
        match submitted {
            Ok(()) => {
                if let Some(place) = self.pending.get_mut(number) {
                    *place = Some(read);
                    self.in_flight += 1;
                }
                Ok(())
            }
            Err(failure) => Err(ReadError::of(&read, failure)),
        }
    }

    fn flush(&mut self) {}

    fn poll(&mut self) -> Option<Completion> {
        self.next(false)
    }

    fn wait(&mut self) -> Option<Completion> {
        self.next(true)
    }

    fn end_batch(&mut self) {}
}

impl Drop for StorageQueue {
    fn drop(&mut self) {
        while self.wait().is_some() {}
    }
}
