//! The ring of the crate `io-uring`. It maps its memory itself and allocates nothing; its errors are
//! `std::io::Error`s that hold a number alone.

use io_uring::types::Fixed;
use io_uring::{IoUring, opcode};

use super::{Polling, Ring, RingCompletion, RingRead};
use crate::limits::SUBMISSION_POLL_IDLE_MS;

/// Number of the file and of the buffer among the registered.
const FIRST: u16 = 0;

pub(crate) struct CrateRing(IoUring);

/// The number of an error of the system.
macro_rules! number {
    ($result:expr) => {
        $result.map_err(|error| error.raw_os_error().unwrap_or(libc::EIO))
    };
}

impl Ring for CrateRing {
    fn new(depth: u32, polling: Polling, cooperative: bool) -> Result<Self, i32> {
        let mut builder = IoUring::builder();
        builder.dontfork();
        match polling {
            Polling::None if cooperative => builder.setup_coop_taskrun().setup_taskrun_flag(),
            Polling::None => &mut builder,
            Polling::Completion => builder.setup_iopoll(),
            Polling::Submission => builder.setup_sqpoll(SUBMISSION_POLL_IDLE_MS),
        };
        let ring = number!(builder.build(depth))?;
        let params = ring.params();
        // Reads came with what the second stands for.
        let suits = params.is_feature_single_mmap() && params.is_feature_rw_cur_pos();
        if suits { Ok(Self(ring)) } else { Err(libc::ENOSYS) }
    }

    fn register_file(&mut self, fd: libc::c_int) -> Result<(), i32> {
        number!(self.0.submitter().register_files(&[fd]))
    }

    unsafe fn register_buffer(&mut self, base: *mut u8, bytes: usize) -> Result<(), i32> {
        let buffer = libc::iovec { iov_base: base.cast(), iov_len: bytes };
        // SAFETY: the crate asks for memory that is valid until it is unregistered, for the sake of reads
        // into it: the kernel pins its pages, and after it was given back there are no such reads, which
        // this function asks of its caller. The list of one is read during the call only.
        number!(unsafe { self.0.submitter().register_buffers(&[buffer]) })
    }

    fn unregister(&mut self) {
        // An error says that nothing was registered.
        let _ = self.0.submitter().unregister_buffers();
        let _ = self.0.submitter().unregister_files();
    }

    fn unsubmitted(&mut self) -> u32 {
        self.0.submission().len() as u32
    }

    fn holds_back(&mut self) -> bool {
        self.0.submission().taskrun()
    }

    unsafe fn push(&mut self, read: &RingRead) -> bool {
        let file = Fixed(FIRST.into());
        let entry = if read.registered {
            opcode::ReadFixed::new(file, read.memory, read.bytes, FIRST)
                .offset(read.file_offset)
                .build()
        } else {
            opcode::Read::new(file, read.memory, read.bytes).offset(read.file_offset).build()
        };
        let entry = entry.user_data(read.tag.into());
        // SAFETY: what the entry names must be valid until the completion: the memory is, by what this
        // function asks of its caller, and the file is registered with the ring.
        unsafe { self.0.submission().push(&entry) }.is_ok()
    }

    fn submit_and_wait(&mut self, wanted: u32) -> Result<(), i32> {
        number!(self.0.submit_and_wait(wanted as usize)).map(drop)
    }

    fn wait_for_place(&mut self) -> Result<(), i32> {
        number!(self.0.submitter().squeue_wait()).map(drop)
    }

    fn completion(&mut self) -> Option<RingCompletion> {
        let found = self.0.completion().next()?;
        Some(RingCompletion { tag: found.user_data() as u16, result: found.result() })
    }
}
