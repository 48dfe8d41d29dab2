//! Engines on real devices: where the engine meets the system.

use crate::engine::{Config, Engine, Session};
use crate::queue::{Logged, ReadLog, TimedQueue};
use crate::sys::{DeviceQueue, DirectFile, OpenError, ReadOptions};
use lnp_format::Pack;

/// Opens an engine on a file, and checks that the file is the pack.
///
/// # Errors
/// [`OpenError`].
pub fn open_engine<'a>(
    file: &'a DirectFile,
    pack: Pack<'a>,
    config: &Config,
    memory: &'a mut [u8],
    options: impl Into<ReadOptions>,
) -> Result<Engine<'a, DeviceQueue<'a>>, OpenError> {
    open_over(file, pack, config, memory, options.into(), |queue| queue)
}

/// The same, where reads are noted one by one if there is a log ([`Engine::read_log`]).
///
/// # Errors
/// [`OpenError`].
pub fn open_logged<'a>(
    file: &'a DirectFile,
    pack: Pack<'a>,
    config: &Config,
    memory: &'a mut [u8],
    options: impl Into<ReadOptions>,
    log: Option<ReadLog<'a>>,
) -> Result<Engine<'a, Logged<'a, DeviceQueue<'a>>>, OpenError> {
    open_over(file, pack, config, memory, options.into(), |queue| Logged::new(queue, log))
}

/// Opens an engine over the queue that `over` makes of the device's: that queue, or one of ours that owns it and passes every
/// call on, calling nobody else's code.
fn open_over<'a, Q: TimedQueue<'a>>(
    file: &'a DirectFile,
    pack: Pack<'a>,
    config: &Config,
    memory: &'a mut [u8],
    options: ReadOptions,
    over: impl FnOnce(DeviceQueue<'a>) -> Q,
) -> Result<Engine<'a, Q>, OpenError> {
    if !file.takes_blocks_of(pack.block_bytes()) {
        let (expected, found) = (file.align(), pack.block_bytes());
        return Err(OpenError::Alignment { expected, found });
    }
    let mut engine = Engine::open(pack, config, memory, |staging| {
        // SAFETY: the queue goes, within the one that `over` makes of it, into the engine, which leases only buffers of this memory, never
        // hands out the queue but by shared reference, and has nothing in flight when one of its
        // own methods returns or unwinds (`Drained` in `engine/round.rs`, `Session`'s drop): it can be
        // leaked, but never with a read in flight.
        let queue =
            unsafe { DeviceQueue::open_borrowed(file, staging, config.queue_depth, options) };
        queue.map(over)
    })?;
    engine.check_superblock()?;
    Ok(engine)
}

/// A session that is not lent but given: for callers that keep it over calls of their own, as the C ABI
/// does.
///
/// # Safety
/// The memory that the engine was opened with is not given back before the session or the engine was
/// dropped: until then the kernel may be writing to it.
pub unsafe fn open_session<'s, 'a, Q: TimedQueue<'a>>(
    engine: &'s mut Engine<'a, Q>,
) -> Session<'s, 'a, Q> {
    Session::new(engine)
}
