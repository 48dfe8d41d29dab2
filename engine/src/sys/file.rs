//! A file or block device that is read around the page cache.

use core::ffi::CStr;
use core::fmt;

use super::errno;
use crate::limits::READ_RETRIES_MAX;
use crate::queue::ReadFailure;

/// Alignment taken where the kernel does not tell it: right for every file system we know.
const ALIGN_FALLBACK: u32 = 4096;

/// Why a file cannot be opened for direct reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FileError {
    /// The system refused to open it or to tell its length.
    System {
        /// What was tried.
        action: &'static str,
        /// The error number (errno).
        errno: i32,
    },
    /// The file system has no direct reads (tmpfs, for one, whatever it says).
    NoDirectReads,
}

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::System { action, errno } => write!(f, "cannot {action} (errno {errno})"),
            Self::NoDirectReads => f.write_str(
                "the file system refuses direct reads (O_DIRECT): put the file on a disk, or allow buffered reads",
            ),
        }
    }
}

impl core::error::Error for FileError {}

/// A file opened for direct reads; closed when dropped.
#[derive(Debug)]
pub struct DirectFile {
    fd: libc::c_int,
    bytes: u64,
    align: u32,
    direct: bool,
    device: bool,
}

const OPEN: &str = "open the file";

/// Whether what a `stat` finds is a block device.
///
/// # Errors
/// It is neither that nor a file, or cannot be looked at.
fn is_device(stat: impl FnOnce(*mut libc::stat) -> libc::c_int) -> Result<bool, FileError> {
    let mut found = core::mem::MaybeUninit::<libc::stat>::zeroed();
    if stat(found.as_mut_ptr()) < 0 {
        return Err(FileError::System { action: OPEN, errno: errno() });
    }
    // SAFETY: all-zero bytes are a valid stat, and the call wrote no less.
    let found = unsafe { found.assume_init() };
    match found.st_mode & libc::S_IFMT {
        libc::S_IFREG => Ok(false),
        libc::S_IFBLK => Ok(true),
        _ => Err(FileError::System {
            action: "read from it: it is neither a file nor a block device",
            errno: libc::EINVAL,
        }),
    }
}

impl DirectFile {
    /// Opens a file or block device with `O_DIRECT`, read-only. `allow_buffered` goes on through
    /// the page cache where the file system refuses that; [`DirectFile::is_direct`] tells.
    ///
    /// # Errors
    /// [`FileError`].
    pub fn open(path: &CStr, allow_buffered: bool) -> Result<Self, FileError> {
        // Looked at before it is opened: opening a pipe would wait for somebody to write into it.
        let device = is_device(|found| {
            // SAFETY: `path` is a C string that lives through the call; `found` is large enough for what
            // the call writes.
            unsafe { libc::stat(path.as_ptr(), found) }
        })?;
        let flags = libc::O_RDONLY | libc::O_CLOEXEC;
        let mut direct = true;
        // SAFETY: `path` is a C string that lives through the call.
        let mut fd = unsafe { libc::open(path.as_ptr(), flags | libc::O_DIRECT) };
        if fd < 0 && errno() == libc::EINVAL {
            if !allow_buffered {
                return Err(FileError::NoDirectReads);
            }
            direct = false;
            // SAFETY: `path` is a C string that lives through the call.
            fd = unsafe { libc::open(path.as_ptr(), flags) };
        }
        if fd < 0 {
            return Err(FileError::System { action: OPEN, errno: errno() });
        }
        Self { fd, bytes: 0, align: ALIGN_FALLBACK, direct, device }.looked_at(allow_buffered)
    }

    /// The same of a file that the caller has opened, for reading; direct where it was opened with
    /// `O_DIRECT`. The descriptor is duplicated: the caller's stays the caller's to close.
    ///
    /// # Errors
    /// [`FileError`].
    pub fn duplicate(fd: core::ffi::c_int, allow_buffered: bool) -> Result<Self, FileError> {
        // SAFETY: takes numbers; whether the descriptor is open is for the kernel to say.
        let flags = unsafe { libc::fcntl(fd, libc::F_GETFL) };
        if flags < 0 {
            return Err(FileError::System { action: "use the file descriptor", errno: errno() });
        }
        let direct = flags & libc::O_DIRECT != 0;
        if !direct && !allow_buffered {
            return Err(FileError::NoDirectReads);
        }
        let device = is_device(|found| {
            // SAFETY: takes a number; `found` is large enough for what the call writes.
            unsafe { libc::fstat(fd, found) }
        })?;
        // SAFETY: takes numbers; the new descriptor is nobody else's.
        let fd = unsafe { libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, 0) };
        if fd < 0 {
            let action = "duplicate the file descriptor";
            return Err(FileError::System { action, errno: errno() });
        }
        Self { fd, bytes: 0, align: ALIGN_FALLBACK, direct, device }.looked_at(allow_buffered)
    }

    /// Finds out length and alignment.
    fn looked_at(mut self, allow_buffered: bool) -> Result<Self, FileError> {
        self.bytes = self.length()?;
        // Some file systems take the flag and read through memory all the same.
        match self.direct_io_align() {
            // That, or an emulator passed the answer on without its numbers (qemu-user): then a
            // misaligned read is refused.
            Some(0) => self.direct &= self.refuses_misaligned_reads(),
            Some(align) => self.align = align,
            // a device's name lies in memory (/dev), the device does not
            None => self.direct &= self.device || !self.is_in_memory(),
        }
        if !self.direct && !allow_buffered {
            return Err(FileError::NoDirectReads);
        }
        Ok(self)
    }

    /// Whether it is a block device, which may be longer than the pack on it.
    pub const fn is_device(&self) -> bool {
        self.device
    }

    /// Fills a buffer with what is at an offset, bytes; both, and the buffer's place in memory, are
    /// multiples of [`DirectFile::align`] where reads are direct. Tries again after EINTR, EAGAIN and
    /// short reads, [`READ_RETRIES_MAX`] times.
    ///
    /// # Errors
    /// [`ReadFailure`].
    pub fn read_exact_at(&self, mut offset: u64, mut buffer: &mut [u8]) -> Result<(), ReadFailure> {
        let bytes = buffer.len();
        let mut tries = 0;
        while !buffer.is_empty() {
            // SAFETY: `buffer` is ours to be written to for its whole length, and the descriptor is
            // open.
            let count = unsafe {
                libc::pread(
                    self.fd,
                    buffer.as_mut_ptr().cast(),
                    buffer.len(),
                    offset as libc::off_t,
                )
            };
            if count == 0 {
                return Err(ReadFailure::Short { found: (bytes - buffer.len()) as u32 });
            }
            tries += 1;
            if let Ok(count) = usize::try_from(count) {
                offset += count as u64;
                buffer = buffer.get_mut(count..).unwrap_or_default();
            } else if !matches!(errno(), libc::EINTR | libc::EAGAIN) {
                return Err(ReadFailure::System { errno: errno() });
            }
            if tries > READ_RETRIES_MAX && !buffer.is_empty() {
                return Err(ReadFailure::System { errno: libc::EAGAIN });
            }
        }
        Ok(())
    }

    /// Length, bytes; of a block device too.
    fn length(&self) -> Result<u64, FileError> {
        let seek = |offset, from| {
            // SAFETY: `fd` is open; seeking touches no memory.
            unsafe { libc::lseek(self.fd, offset, from) }
        };
        // A duplicated descriptor shares its position with the caller's.
        let position = seek(0, libc::SEEK_CUR);
        let end = seek(0, libc::SEEK_END);
        let found = u64::try_from(end)
            .map_err(|_| FileError::System { action: "find the end of the file", errno: errno() });
        seek(position.max(0), libc::SEEK_SET);
        found
    }

    /// Whether the file lies in memory (tmpfs, ramfs), where nothing can be read from a device.
    fn is_in_memory(&self) -> bool {
        const RAMFS_MAGIC: i64 = 0x8584_58f6;
        let mut found = core::mem::MaybeUninit::<libc::statfs>::zeroed();
        // SAFETY: `fd` is open; `found` is large enough for what the call writes.
        let result = unsafe { libc::fstatfs(self.fd, found.as_mut_ptr()) };
        // SAFETY: all-zero bytes are a valid statfs, and the call wrote no less.
        let found = unsafe { found.assume_init() };
        #[allow(clippy::unnecessary_cast)] // the type of both differs from target to target
        let (kind, tmpfs) = (found.f_type as i64, libc::TMPFS_MAGIC as i64);
        result == 0 && (kind == tmpfs || kind == RAMFS_MAGIC)
    }

    /// Whether one byte of the middle of a block cannot be read: not so through the page cache.
    fn refuses_misaligned_reads(&self) -> bool {
        let mut byte = 0_u8;
        // SAFETY: `fd` is open, and `byte` has room for the one byte that is read.
        let read = unsafe { libc::pread(self.fd, (&raw mut byte).cast(), 1, 1) };
        read < 0 && errno() == libc::EINVAL
    }

    /// What the kernel says direct reads must be aligned to: the larger of offset and memory
    /// alignment; 0 where there are none. `None` before Linux 6.1 and on file systems that do not
    /// say.
    fn direct_io_align(&self) -> Option<u32> {
        #[cfg(target_env = "gnu")]
        {
            let mut found = core::mem::MaybeUninit::<libc::statx>::zeroed();
            // SAFETY: the empty path with AT_EMPTY_PATH means `fd` itself, which is open; `found`
            // is large enough for what the call writes.
            let result = unsafe {
                libc::statx(
                    self.fd,
                    c"".as_ptr(),
                    libc::AT_EMPTY_PATH,
                    libc::STATX_DIOALIGN,
                    found.as_mut_ptr(),
                )
            };
            // SAFETY: all-zero bytes are a valid statx, and the call wrote no less.
            let found = unsafe { found.assume_init() };
            let told = result == 0 && found.stx_mask & libc::STATX_DIOALIGN != 0;
            told.then_some(found.stx_dio_offset_align.max(found.stx_dio_mem_align))
        }
        #[cfg(not(target_env = "gnu"))]
        None
    }

    /// The open file descriptor.
    pub(super) const fn fd(&self) -> libc::c_int {
        self.fd
    }

    /// Length, bytes.
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// What offset, length and memory of a read must be a multiple of, bytes.
    pub const fn align(&self) -> u32 {
        self.align
    }

    /// Whether reads of whole blocks of this many bytes, into memory aligned to
    /// [`crate::limits::STAGING_ALIGN`], are possible.
    pub const fn takes_blocks_of(&self, block_bytes: u32) -> bool {
        let align = self.align as usize;
        !self.direct
            || (align <= crate::limits::STAGING_ALIGN && block_bytes.is_multiple_of(self.align))
    }

    /// Whether reads go around the page cache.
    pub const fn is_direct(&self) -> bool {
        self.direct
    }
}

impl Drop for DirectFile {
    fn drop(&mut self) {
        // SAFETY: `fd` is open and ours; nobody uses it after this.
        unsafe { libc::close(self.fd) };
    }
}
