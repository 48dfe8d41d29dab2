//! What the queue over io_uring asks of a ring, and the two that there are: of the crate `io-uring`, for
//! programs with std, and one of our own over plain system calls, for programs without.
//!
//! A ring only carries submissions and completions. Whatever is decided (what is registered, when to
//! enter the kernel, what an error means) stands once, in `uring.rs` and in [`open`].

#[cfg(feature = "io-uring")]
mod of_crate;
mod own;
mod setup;

#[cfg(feature = "io-uring")]
pub(super) use of_crate::CrateRing;
pub(super) use own::OwnRing;
pub use setup::Polling;
pub(super) use setup::{Opened, open};

/// Which implementation of the ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RingKind {
    /// Of the crate `io-uring` (feature `io-uring`, which needs std).
    #[cfg(feature = "io-uring")]
    Crate,
    /// Our own, over libc alone.
    Own,
}

impl RingKind {
    /// Those that this build has, the one that is taken unless told otherwise first.
    pub const ALL: &[Self] = &[
        #[cfg(feature = "io-uring")]
        Self::Crate,
        Self::Own,
    ];

    /// Its name in reports.
    pub const fn name(self) -> &'static str {
        match self {
            #[cfg(feature = "io-uring")]
            Self::Crate => "crate io-uring",
            Self::Own => "own ring",
        }
    }
}

impl Default for RingKind {
    fn default() -> Self {
        let [first, ..] = *Self::ALL else { return Self::Own };
        first
    }
}

/// A read from the registered file.
#[derive(Clone, Copy, Debug)]
pub(super) struct RingRead {
    /// Where to read from, bytes.
    pub(super) file_offset: u64,
    /// Where to read to.
    pub(super) memory: *mut u8,
    /// How many bytes.
    pub(super) bytes: u32,
    /// Whether that memory lies within the registered buffer.
    pub(super) registered: bool,
    /// Comes back with the completion.
    pub(super) tag: u16,
}

/// A read that is done.
#[derive(Clone, Copy, Debug)]
pub(super) struct RingCompletion {
    /// Of the read.
    pub(super) tag: u16,
    /// Bytes read, or the error's number, negative.
    pub(super) result: i32,
}

/// A submission ring and a completion ring, not inherited by a forked child, which would submit reads into
/// its parent's memory and take them for its own.
///
/// The kernel waits for nothing when it is dropped: what is in flight goes on. Nothing allocates. Errors
/// are error numbers (errno).
pub(super) trait Ring: Sized {
    /// Makes a ring with places for `depth` submissions and twice as many completions; `cooperative` asks
    /// the kernel not to interrupt the submitting thread (Linux 5.19), and counts under [`Polling::None`].
    ///
    /// # Errors
    /// `ENOSYS` also for kernels before 5.6.
    fn new(depth: u32, polling: Polling, cooperative: bool) -> Result<Self, i32>;

    /// Registers the file of all reads.
    fn register_file(&mut self, fd: libc::c_int) -> Result<(), i32>;

    /// Registers memory for reads that say so. It pins its pages; nothing is written there but by reads.
    ///
    /// # Safety
    /// The memory is mapped. Where it is given back before [`Ring::unregister`] was called or the ring is
    /// gone, no read that says so is in flight then, or pushed afterwards.
    ///
    /// # Errors
    /// `ENOMEM` where it is more than may be locked.
    unsafe fn register_buffer(&mut self, base: *mut u8, bytes: usize) -> Result<(), i32>;

    /// Gives up what is registered, now: closing the ring does it some time later, and until then the
    /// file is open and the memory locked. Nothing is in flight.
    fn unregister(&mut self);

    /// Submissions that the kernel has not taken yet.
    fn unsubmitted(&mut self) -> u32;

    /// Whether the kernel holds completions back until the next system call.
    fn holds_back(&mut self) -> bool;

    /// Puts a read into the submission ring; `false` where it is full.
    ///
    /// # Safety
    /// The memory that it names may be written to, by nobody else, until its completion has come.
    unsafe fn push(&mut self, read: &RingRead) -> bool;

    /// Hands over what is in the submission ring, and waits for so many completions. No system call
    /// where a thread of the kernel takes submissions, is awake, and nothing is to be waited for.
    fn submit_and_wait(&mut self, wanted: u32) -> Result<(), i32>;

    /// Waits until the submission ring has a free place, where a thread of the kernel empties it.
    fn wait_for_place(&mut self) -> Result<(), i32>;

    /// Takes a completion that is posted already.
    fn completion(&mut self) -> Option<RingCompletion>;
}
