//! What lies in the caller's memory: the handle, the source, the pack's index, the engine's arena, the
//! FFN's memory; in that order.

use core::mem::ManuallyDrop;

use lnp_engine::engine::{Alone, FetchStats};
use lnp_engine::ffn::Ffn;
use lnp_engine::sys::cpu;
use lnp_engine::{Config, Engine, open_session, required_bytes};
use lnp_format::{Pack, Peek};

use crate::error::{Failure, Text};
use crate::owner::Owner;
use crate::settings::Settings;
use crate::source::{Queue, Source};
use crate::types::*;

/// What a handle begins with, by what state it is in.
const OPEN: u64 = u64::from_le_bytes(*b"lnp open");
const FAILED: u64 = u64::from_le_bytes(*b"lnp fail");
const CLOSED: u64 = u64::from_le_bytes(*b"lnp shut");

/// There is no engine.
const NONE: Failure = Failure::Argument("not an engine, or a closed one");

/// Where the index begins: what direct reads on every device we know are aligned to.
const INDEX_ALIGN: usize = 4096;

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

/// An engine, and what it computes with.
struct Opened {
    engine: Engine<'static, Queue>,
    ffn: Ffn<'static>,
    forwards: u64,
    stats: FetchStats,
}

const _: () = assert!(align_of::<Handle>() == LNP_MEMORY_ALIGN);
const _: () = assert!(align_of::<Source>() <= LNP_MEMORY_ALIGN);
/// Where the source lies: not in the handle, which is borrowed as a whole while the engine reads by it.
const SOURCE_BEGIN: usize = size_of::<Handle>();
const REST_BEGIN: usize = SOURCE_BEGIN + size_of::<Source>();
const _: () = assert!(REST_BEGIN <= LNP_TEXT_BYTES);

/// How much memory a pack needs with these settings, and how it is cut.
pub(crate) struct Sizes {
    config: Config,
    index: usize,
    arena: usize,
    ffn: usize,
}

impl Sizes {
    pub(crate) fn of(peek: &Peek, settings: &Settings) -> Result<Self, Failure> {
        let config = settings.engine(peek.into())?;
        let index = usize::try_from(peek.index_bytes).map_err(|_| {
            Failure::Setting("the pack's index is more than this machine can address")
        })?;
        let arena = required_bytes(&config, peek)?;
        let ffn = Ffn::required_bytes(&peek.shape, cpu::detect(), 1)?;
        Ok(Self { config, index, arena, ffn })
    }

    pub(crate) const fn total(&self) -> usize {
        (REST_BEGIN + INDEX_ALIGN)
            .saturating_add(self.index)
            .saturating_add(self.arena)
            .saturating_add(self.ffn)
    }
}

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

    fn opened(&mut self) -> Result<&mut Opened, Failure> {
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

    pub(crate) fn shape(&mut self) -> Result<lnp_shape_t, Failure> {
        let pack = self.opened()?.engine.pack();
        let shape = pack.shape();
        Ok(lnp_shape_t {
            layers: shape.layers,
            neurons: shape.neurons,
            hidden: shape.hidden,
            parts: shape.parts,
            dtype: shape.dtype.code(),
            activation: shape.activation.code(),
            activation_threshold: shape.activation_threshold,
            bundle_bytes: shape.bundle_stride,
            placements: pack.placements(),
            block_bytes: pack.block_bytes(),
            file_bytes: pack.superblock().file_bytes.get(),
        })
    }

    pub(crate) fn statistics(&mut self) -> Result<lnp_statistics_t, Failure> {
        let Opened { engine, forwards, stats, .. } = self.opened()?;
        let (back_end, back_end_errno) = engine.queue().back_end();
        Ok(lnp_statistics_t {
            forwards: *forwards,
            active: stats.active,
            hits: stats.hits,
            prefetched: stats.prefetched,
            reads: stats.reads,
            runs: stats.runs,
            merges: stats.merges,
            bytes_read: stats.bytes_read,
            useful_bytes: stats.useful_bytes,
            io_ns: stats.io_ns,
            latency_ns_p50: engine.latencies().percentile_ns(50),
            latency_ns_p99: engine.latencies().percentile_ns(99),
            cached_bundles: engine.cached_bundles(),
            back_end,
            back_end_errno,
            reserved: 0,
        })
    }

    pub(crate) fn forward(
        &mut self,
        layer: u32,
        x: &[f32],
        active: &[u32],
        y: &mut [f32],
    ) -> Result<(), Failure> {
        let Opened { engine, ffn, forwards, stats } = self.opened()?;
        // SAFETY: the caller gives memory back only after `close`, which drops the engine.
        let session = unsafe { open_session(engine) };
        // What was prefetched goes on being read between two calls.
        let mut session = ManuallyDrop::new(session);
        let found = ffn.forward_in(&mut session, &Alone, layer, x, &[active], y)?;
        stats.add(&found);
        // Whoever counts reads counts those that were prefetched too.
        stats.reads += found.ahead_reads;
        stats.bytes_read += found.ahead_bytes;
        *forwards += 1;
        Ok(())
    }

    pub(crate) fn prefetch(&mut self, layer: u32, predicted: &[u32]) -> Result<(), Failure> {
        let Opened { engine, .. } = self.opened()?;
        // SAFETY: the caller gives memory back only after `close`, which drops the engine.
        let session = unsafe { open_session(engine) };
        let mut session = ManuallyDrop::new(session);
        session.prefetch(layer, predicted)?;
        Ok(())
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

impl Opened {
    /// # Safety
    /// The path is a string, the storage one whose functions do what `lnp_storage_t` says, where they are
    /// asked for; the memory is aligned to a handle, of so many bytes, `REST_BEGIN` at least, and the
    /// engine's alone until it is closed.
    unsafe fn new(
        source: &lnp_source_t,
        config: lnp_config_t,
        memory: *mut u8,
        bytes: usize,
    ) -> Result<Self, Failure> {
        let settings = Settings::new(config)?;
        // SAFETY: path and storage are what this function asks of its caller.
        let found = unsafe { Source::open(source, &settings) }?;
        let peek = found.peek()?;
        let sizes = Sizes::of(&peek, &settings)?;
        if bytes < sizes.total() {
            return Err(Failure::Memory { expected: sizes.total(), found: bytes });
        }
        let place = memory.wrapping_add(SOURCE_BEGIN).cast::<Source>();
        // SAFETY: within the memory (`bytes` is at least REST_BEGIN) and aligned (asserted above).
        unsafe { place.write(found) };
        // SAFETY: just written; nobody writes to it before it is dropped, here or in `close`.
        let source: &'static Source = unsafe { &*place };
        let rest = memory.wrapping_add(REST_BEGIN);
        // SAFETY: from behind handle and source to the end of the memory, which is this engine's alone
        // until it is closed, as this function asks of its caller; nothing else here reaches that part.
        let rest = unsafe { core::slice::from_raw_parts_mut(rest, bytes - REST_BEGIN) };
        let opened = Self::within(source, &peek, &sizes, &settings, rest);
        if opened.is_err() {
            // SAFETY: written above, and what borrowed it is gone.
            unsafe { place.drop_in_place() };
        }
        opened
    }

    fn within(
        source: &'static Source,
        peek: &Peek,
        sizes: &Sizes,
        settings: &Settings,
        memory: &'static mut [u8],
    ) -> Result<Self, Failure> {
        let small = || Failure::Memory { expected: sizes.total(), found: 0 };
        let skip = memory.as_ptr().addr().wrapping_neg() % INDEX_ALIGN;
        let (_, memory) = memory.split_at_mut_checked(skip).ok_or_else(small)?;
        let (index, memory) = memory.split_at_mut_checked(sizes.index).ok_or_else(small)?;
        let (arena, memory) = memory.split_at_mut_checked(sizes.arena).ok_or_else(small)?;
        let (ffn_memory, _) = memory.split_at_mut_checked(sizes.ffn).ok_or_else(small)?;
        source.read_index(index)?;
        let pack = Pack::parse(index, peek.file_bytes)?;
        let ffn = Ffn::new(pack.shape(), cpu::detect(), 1, ffn_memory)?;
        let config = &sizes.config;
        let mut engine = Engine::open(pack, config, arena, |staging| {
            source.queue(staging, config.queue_depth, settings)
        })?;
        engine.check_superblock()?;
        Ok(Self { engine, ffn, forwards: 0, stats: FetchStats::default() })
    }
}
