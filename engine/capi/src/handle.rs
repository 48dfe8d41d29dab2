//! The handle at the front of the caller's memory: whether an engine is open there, whose it is, how it comes and goes.

use crate::error::{Failure, Text};
use crate::opened::Opened;
use crate::owner::Owner;
use crate::source::Source;
use crate::types::*;

/// What a handle begins with, by what state it is in.
const OPEN: u64 = u64::from_le_bytes(*b"lnp open");
const FAILED: u64 = u64::from_le_bytes(*b"lnp fail");
const CLOSED: u64 = u64::from_le_bytes(*b"lnp shut");

/// There is no engine.
const NONE: Failure = Failure::Argument("not an engine, or a closed one");

/// The start of the caller's memory: what `lnp_engine_t` points to.
#[repr(C, align(64))]
pub(crate) struct Handle {
    magic: u64,
    /// Where it lies: what was copied from elsewhere is no engine.
    place: usize,
    /// Whose it is; looked at by every call, so by a word while it is open.
    owner: Owner,
    bytes: usize,
    last_error: Text,
    open: Option<Opened>,
}

const _: () = assert!(align_of::<Handle>() == LNP_MEMORY_ALIGN);
const _: () = assert!(align_of::<Source>() <= LNP_MEMORY_ALIGN);
/// Where the source lies: not in the handle, which is borrowed as a whole while the engine reads by it.
pub(crate) const SOURCE_BEGIN: usize = size_of::<Handle>();
pub(crate) const REST_BEGIN: usize = SOURCE_BEGIN + size_of::<Source>();
const _: () = assert!(REST_BEGIN <= LNP_TEXT_BYTES);

impl Handle {
    /// Opens an engine in the caller's memory. Afterwards a handle is there, open or with the text of
    /// the error, unless the memory is not even large enough for that.
    ///
    /// # Safety
    /// The path is a string, the storage one whose functions do what `lnp_storage_t` says, where they are
    /// asked for; the memory is of so many bytes and the engine's alone until it is closed.
    pub(crate) unsafe fn open(
        source: &lnp_source_t,
        config: lnp_config_t,
        memory: *mut u8,
        bytes: usize,
    ) -> Result<(), Failure> {
        if memory.is_null() || !memory.cast::<Self>().is_aligned() {
            return Err(Failure::Argument("the memory is null, or no multiple of 64"));
        }
        if bytes < REST_BEGIN {
            let magic = memory.cast::<u64>();
            // SAFETY: aligned, and where it is read within the memory.
            if bytes >= size_of::<u64>() && unsafe { magic.read() } == FAILED {
                // What an earlier attempt left is not this one's, and may be longer than the memory.
                // SAFETY: it was just read there, and the memory is this engine's alone.
                unsafe { magic.write(CLOSED) };
            }
            return Err(Failure::Memory { expected: REST_BEGIN, found: bytes });
        }
        let handle = memory.cast::<Self>();
        // SAFETY: a handle fits there (`REST_BEGIN` is more), and the caller of `lnp_open` has given the
        // memory to this engine alone.
        let before = unsafe { Self::written(handle) };
        // By number: what lies there may be of a process that is long gone, and its word with it.
        if before.is_ok_and(|(magic, owner)| magic == OPEN && owner.is_this_process()) {
            return Err(Failure::Argument("an engine is open in this memory: close it first"));
        }
        let place = memory.addr();
        let failed = Self {
            magic: FAILED,
            place,
            owner: Owner::by_number(),
            bytes,
            last_error: Text::EMPTY,
            open: None,
        };
        // SAFETY: aligned, as was seen, and within the memory, which is at least `REST_BEGIN` and this
        // engine's alone.
        unsafe { handle.write(failed) };
        // SAFETY: source and memory are what this function asks of its caller; memory of at least
        // `REST_BEGIN` bytes and aligned, as was seen.
        let opened = unsafe { Opened::new(source, config, memory, bytes) };
        // SAFETY: it was written above, and nothing else reaches it now.
        let handle = unsafe { &mut *handle };
        match opened {
            Ok(opened) => {
                handle.open = Some(opened);
                handle.owner = Owner::by_word();
                handle.magic = OPEN;
                Ok(())
            }
            Err(failure) => {
                handle.last_error = Text::of(&failure);
                Err(failure)
            }
        }
    }

    /// State and owner of the handle at a place.
    ///
    /// # Safety
    /// Where it is not null, memory that was given to `lnp_open` lies there, and nobody else uses it now.
    unsafe fn written(handle: *mut Self) -> Result<(u64, Owner), Failure> {
        if handle.is_null() || !handle.is_aligned() {
            return Err(NONE);
        }
        // SAFETY: not null, aligned, and within memory that nobody else uses now, as this function asks
        // of its caller; `lnp_open` leaves eight bytes of magic at the front, or any that are no magic.
        let magic = unsafe { handle.cast::<u64>().read() };
        if magic != OPEN && magic != FAILED {
            return Err(NONE);
        }
        const PLACE: usize = core::mem::offset_of!(Handle, place);
        // SAFETY: with this magic a whole handle was written there, or bytes that look like one: any are
        // a number, and a field of an aligned handle is aligned.
        let place = unsafe { handle.wrapping_byte_add(PLACE).cast::<usize>().read() };
        if place != handle.addr() {
            return Err(NONE);
        }
        const OWNER: usize = core::mem::offset_of!(Handle, owner);
        // SAFETY: the magic and the place say that `Handle::open` wrote this handle here, its owner at
        // this offset with it.
        Ok((magic, unsafe { handle.wrapping_byte_add(OWNER).cast::<Owner>().read() }))
    }

    /// The handle behind a pointer of the caller's, whether it is open or not.
    ///
    /// # Safety
    /// Where it is not null, memory that was given to `lnp_open` lies there, and nobody else uses it now.
    pub(crate) unsafe fn of<'h>(engine: *mut lnp_engine_t) -> Result<&'h mut Self, Failure> {
        let handle = engine.cast::<Self>();
        // SAFETY: null, or memory that was given to `lnp_open` and that nobody else uses now, as this
        // function asks of its caller.
        let (_, owner) = unsafe { Self::written(handle) }?;
        // SAFETY: the memory was given to `lnp_open` by this process or by one that it was forked from,
        // which made the owner; it ends in `close`, which changes the magic that was just seen.
        if !unsafe { owner.is_here() } {
            return Err(NONE);
        }
        // SAFETY: `Handle::open` wrote a handle there, and nobody else uses it now, as this function asks
        // of its caller.
        Ok(unsafe { &mut *handle })
    }

    pub(crate) fn opened(&mut self) -> Result<&mut Opened, Failure> {
        self.open.as_mut().ok_or(Failure::Argument("the engine is not open"))
    }

    /// Runs a function of an engine, and keeps the text of its error.
    pub(crate) fn run(
        &mut self,
        body: impl FnOnce(&mut Self) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let result = body(self);
        if let Err(failure) = &result {
            self.last_error = Text::of(failure);
        }
        result
    }

    /// Whether a stretch of memory lies, in part, within the engine's own.
    pub(crate) fn overlaps(&self, begin: *const u8, bytes: usize) -> bool {
        let own = core::ptr::from_ref(self).addr();
        begin.addr() < own + self.bytes && own < begin.addr().saturating_add(bytes)
    }

    pub(crate) const fn last_error(&self) -> &Text {
        &self.last_error
    }

    /// Waits until nothing is in flight, and closes what was opened.
    ///
    /// # Safety
    /// Where it is not null, memory that was given to `lnp_open` lies there, and nobody else uses it now.
    pub(crate) unsafe fn close(engine: *mut lnp_engine_t) -> Result<(), Failure> {
        // SAFETY: null, or memory that was given to `lnp_open` and that nobody else uses now, as this
        // function asks of its caller.
        let handle = unsafe { Self::of(engine) }?;
        handle.opened()?;
        handle.open = None;
        handle.magic = CLOSED;
        // SAFETY: without its magic the handle is looked at no further, and other copies there are none.
        unsafe { handle.owner.end() };
        let source = engine.cast::<u8>().wrapping_add(SOURCE_BEGIN).cast::<Source>();
        // SAFETY: `Opened::new` wrote it there, and the engine, which borrowed it, is gone.
        unsafe { source.drop_in_place() };
        Ok(())
    }
}
