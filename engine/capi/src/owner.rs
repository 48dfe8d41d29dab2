//! Whose an engine is. What a forked child inherits is its parent's, whose reads it must not stop and
//! whose ring it does not have; it is told from its own by a word that the kernel empties in children.

use core::sync::atomic::{AtomicU32, Ordering};

/// The word, where it was not emptied.
const HERE: u32 = u32::from_le_bytes(*b"here");

/// Bytes that are mapped for it: the kernel makes whole pages of them.
const WORD_BYTES: usize = size_of::<AtomicU32>();

/// The process that opened an engine. A copy stands for the same.
#[derive(Clone, Copy)]
pub(crate) struct Owner {
    process: libc::pid_t,
    /// A word alone in a page that children find empty (`MADV_WIPEONFORK`, Linux 4.14); null where there
    /// is none, and the kernel is asked for the process each time.
    word: *const AtomicU32,
}

impl Owner {
    /// This process, by its number.
    pub(crate) fn by_number() -> Self {
        Self { process: process(), word: core::ptr::null() }
    }

    /// This process, by a word where that can be had: no system call to look at it. [`Owner::end`] gives
    /// it back.
    pub(crate) fn by_word() -> Self {
        Self { word: emptied_in_children().unwrap_or(core::ptr::null()), ..Self::by_number() }
    }

    /// Whether it is the process that asks, by its number.
    pub(crate) fn is_this_process(self) -> bool {
        self.process == process()
    }

    /// Whether it is the process that asks, without a system call where there is a word.
    ///
    /// # Safety
    /// Made by this library, in this process or in one that it was forked from, and not ended since.
    pub(crate) unsafe fn is_here(self) -> bool {
        if self.word.is_null() {
            return self.is_this_process();
        }
        // SAFETY: the word was mapped by `by_word` and not unmapped since, as `end` was not called; a
        // child inherits the mapping with zeros in it. It is aligned as pages are, and only ever read.
        let word = unsafe { &*self.word };
        word.load(Ordering::Relaxed) == HERE
    }

    /// Gives back the word.
    ///
    /// # Safety
    /// Nobody asks a copy of it afterwards.
    pub(crate) unsafe fn end(self) {
        if !self.word.is_null() {
            // SAFETY: `by_word` mapped so many bytes there, for this owner alone, and nobody looks at
            // them any more.
            unsafe { libc::munmap(self.word.cast_mut().cast(), WORD_BYTES) };
        }
    }
}

/// This process.
fn process() -> libc::pid_t {
    // SAFETY: takes nothing, and never fails.
    unsafe { libc::getpid() }
}

/// Maps a word that says `HERE`, and nothing in children that are forked from now on.
fn emptied_in_children() -> Option<*const AtomicU32> {
    const PROTECTION: libc::c_int = libc::PROT_READ | libc::PROT_WRITE;
    const FLAGS: libc::c_int = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: a new mapping at a place of the kernel's choice: no memory of ours is touched.
    let base = unsafe { libc::mmap(core::ptr::null_mut(), WORD_BYTES, PROTECTION, FLAGS, -1, 0) };
    if base == libc::MAP_FAILED {
        return None;
    }
    let advise = |advice| {
        // SAFETY: the page was just mapped, and is nobody else's; at most, children find it empty.
        unsafe { libc::madvise(base, WORD_BYTES, advice) == 0 }
    };
    // Some emulators take any advice for a hint, and say yes to what they do not do: -1 is none.
    if advise(-1) || !advise(libc::MADV_WIPEONFORK) {
        // SAFETY: just mapped, and nothing points there.
        unsafe { libc::munmap(base, WORD_BYTES) };
        return None;
    }
    let word = base.cast::<AtomicU32>();
    // SAFETY: mapped for reading and writing, aligned as pages are, and nobody else's yet.
    unsafe { word.write(AtomicU32::new(HERE)) };
    Some(word)
}
