//! A layer's FFN from a pack, in a program without std and without an allocator: one static arena holds
//! the pack's index, the engine and all that is computed with. Prints what `engine/examples/forward.rs`
//! prints.
#![no_std]
#![no_main]

use core::ffi::{CStr, c_char, c_int};
use core::fmt::{self, Write};

use lnp_engine::arena::{Arena, ArenaError};
use lnp_engine::ffn::Ffn;
use lnp_engine::limits::GAP_BYTES_USUAL;
use lnp_engine::sys::{BackEndChoice, DirectFile, FileError, OpenError, cpu};
use lnp_engine::{Collapse, Config, EngineError, open_engine, required_bytes};
use lnp_format::Pack;
use lnp_format::limits::SUPERBLOCK_BYTES;
use lnp_format::read::check_superblock;

/// All the memory that the program has.
const ARENA_BYTES: usize = 16 << 20;

#[repr(align(4096))]
struct Memory([u8; ARENA_BYTES]);
static mut MEMORY: Memory = Memory([0; ARENA_BYTES]);

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // SAFETY: takes nothing and does not return.
    unsafe { libc::abort() }
}

/// Why it failed.
enum Failure {
    File(FileError),
    Index,
    Open(OpenError),
}

impl From<ArenaError> for Failure {
    fn from(error: ArenaError) -> Self {
        EngineError::from(error).into()
    }
}

impl From<EngineError> for Failure {
    fn from(error: EngineError) -> Self {
        Self::Open(error.into())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(error) => error.fmt(f),
            Self::Index => f.write_str("the index cannot be read"),
            Self::Open(error) => error.fmt(f),
        }
    }
}

/// The checksum of every layer's results.
fn run(path: &CStr, memory: &'static mut [u8]) -> Result<u32, Failure> {
    let file = DirectFile::open(path, false).map_err(Failure::File)?;
    let mut arena = Arena::new(memory);

    // First the superblock, which tells how long the index is; then the index. Blocks of 4,096 bytes
    // are what every direct read is aligned to.
    let first = arena.take_bytes(SUPERBLOCK_BYTES, 4096)?;
    file.read_exact_at(0, first).map_err(|_| Failure::Index)?;
    let superblock = check_superblock(first, file.bytes()).map_err(EngineError::Pack)?;
    let index = arena.take_bytes(superblock.index_bytes.get() as usize, 4096)?;
    file.read_exact_at(0, index).map_err(|_| Failure::Index)?;
    let pack = Pack::parse(index, file.bytes()).map_err(EngineError::Pack)?;

    let config = Config {
        collapse: Collapse::Gap { bytes: GAP_BYTES_USUAL },
        cache_bundles: 100,
        ..Config::new(&pack)
    };
    let engine_memory = arena.take_bytes(required_bytes(&config, &pack)?, 1)?;
    let mut engine = open_engine(&file, pack, &config, engine_memory, BackEndChoice::Auto)
        .map_err(Failure::Open)?;
    let shape = *engine.pack().shape();
    let ffn_memory = arena.take_bytes(Ffn::required_bytes(&shape, cpu::detect(), 1)?, 1)?;
    let mut ffn = Ffn::new(&shape, cpu::detect(), 1, ffn_memory)?;

    let x: &mut [f32] = arena.take(shape.hidden as usize)?;
    let y: &mut [f32] = arena.take(shape.hidden as usize)?;
    let active: &mut [u32] = arena.take(shape.neurons.div_ceil(5) as usize)?;
    for (i, value) in (0_u32..).zip(x.iter_mut()) {
        *value = (i % 7) as f32 - 3.0;
    }
    for (neuron, place) in (0..).step_by(5).zip(active.iter_mut()) {
        *place = neuron;
    }
    let mut checksum = 0_u32;
    for layer in 0..shape.layers {
        ffn.forward(&mut engine, layer, x, active, y)?;
        checksum = y.iter().fold(checksum, |sum, value| sum.rotate_left(5) ^ value.to_bits());
    }
    Ok(checksum)
}

/// A descriptor to write text to.
struct Output(c_int);

impl Write for Output {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        // SAFETY: the text is readable for its whole length.
        let written = unsafe { libc::write(self.0, text.as_ptr().cast(), text.len()) };
        if written < 0 { Err(fmt::Error) } else { Ok(()) }
    }
}

/// # Safety
/// Called once, by the C library, with as many arguments as it says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn main(count: c_int, arguments: *const *const c_char) -> c_int {
    if count != 2 {
        let _ = writeln!(Output(2), "usage: lnp-no-std-example PACK");
        return 2;
    }
    // SAFETY: there are two arguments, as just seen.
    let path = unsafe { *arguments.wrapping_add(1) };
    // SAFETY: arguments are strings that live as long as the program.
    let path = unsafe { CStr::from_ptr(path) };
    let memory = &raw mut MEMORY;
    // SAFETY: `main` runs once, and nothing else names the memory.
    let memory = unsafe { &mut *memory };
    match run(path, &mut memory.0) {
        Ok(checksum) => {
            let _ = writeln!(Output(1), "{checksum:08x}");
            0
        }
        Err(failure) => {
            let _ = writeln!(Output(2), "{failure}");
            1
        }
    }
}
