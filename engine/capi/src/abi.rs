//! The functions of the border.

use core::ffi::{c_char, c_void};

use crate::error::Failure;
use crate::handle::Handle;
use crate::opened::Sizes;
use crate::settings::Settings;
use crate::source::Source;
use crate::types::*;

/// The library's `LNP_VERSION`, to be compared with the header's.
#[unsafe(no_mangle)]
pub extern "C" fn lnp_version() -> u32 {
    LNP_VERSION
}

/// What a number of an error means: one line in English, for ever valid. `lnp_last_error` says more.
#[unsafe(no_mangle)]
pub extern "C" fn lnp_status_text(status: i32) -> *const c_char {
    let text = match status {
        LNP_OK => c"all is well",
        LNP_ERROR_ARGUMENT => c"a null or misaligned pointer, a wrong length, or no open engine",
        LNP_ERROR_MEMORY => c"the memory is too small",
        LNP_ERROR_CONFIG => c"a setting breaks its rule",
        LNP_ERROR_OPEN => c"the file cannot be opened",
        LNP_ERROR_READ => c"a read failed",
        LNP_ERROR_PACK => c"the file is not a valid pack",
        LNP_ERROR_REPLACED => c"the file is not the pack that was opened",
        LNP_ERROR_DAMAGED => c"a bundle does not match its checksum",
        LNP_ERROR_ACTIVE => c"a layer or neuron that is not there, or neurons out of order",
        LNP_ERROR_UNSUPPORTED => {
            c"type of weights, predictor, direct reads or io_uring not to be had"
        }
        _ => c"no such status",
    };
    text.as_ptr()
}

/// How many bytes `lnp_open` needs for a pack with these settings. Reads three blocks of the pack.
///
/// # Safety
/// Pointers are null, which is an error, or of what their types say; `source` as for `lnp_open`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lnp_required_bytes(
    source: *const lnp_source_t,
    config: *const lnp_config_t,
    bytes: *mut usize,
) -> i32 {
    let required = || {
        let bytes = out(bytes)?;
        // SAFETY: null, or a config lies there, as this function asks of its caller.
        let settings = Settings::new(*unsafe { input(config) }?)?;
        // SAFETY: null, or a source lies there, as this function asks of its caller.
        let source = unsafe { input(source) }?;
        // SAFETY: its path is a string and its storage one, as this function asks of its caller.
        let source = unsafe { Source::open(source, &settings) }?;
        let total = Sizes::of(&source.peek()?, &settings)?.total();
        // SAFETY: not null and aligned, as `out` has seen; this function asks that it then be of its type.
        unsafe { bytes.write(total) };
        Ok(())
    };
    status(required())
}

/// Opens a pack in `bytes` bytes of memory, a multiple of `LNP_MEMORY_ALIGN`, which is the engine's
/// until `lnp_close`. Nothing is allocated; 160 KiB of stack are used. Where it fails, nothing is open
/// and `*engine` is null; `lnp_last_error` of the memory then says more, if it has `LNP_TEXT_BYTES`.
/// Memory in which an engine is open is refused.
///
/// # Safety
/// Pointers are null, which is an error, or of what their types say: the path a string, the memory the
/// engine's alone. A storage's functions do what `lnp_storage_t` says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lnp_open(
    source: *const lnp_source_t,
    config: *const lnp_config_t,
    memory: *mut c_void,
    bytes: usize,
    engine: *mut *mut lnp_engine_t,
) -> i32 {
    let open = || {
        let engine = out(engine)?;
        // SAFETY: not null and aligned, as `out` has seen; this function asks that it then be of its type.
        unsafe { engine.write(core::ptr::null_mut()) };
        // SAFETY: null, or a config lies there, as this function asks of its caller.
        let config = *unsafe { input(config) }?;
        // SAFETY: null, or a source lies there, as this function asks of its caller.
        let source = unsafe { input(source) }?;
        // SAFETY: the path is a string, the storage's functions do what they should, and the memory is
        // the engine's alone until it is closed: all of that this function asks of its caller.
        unsafe { Handle::open(source, config, memory.cast(), bytes) }?;
        // SAFETY: not null and aligned, as `out` has seen; this function asks that it then be of its type.
        unsafe { engine.write(memory.cast()) };
        Ok(())
    };
    status(open())
}

/// What the pack holds.
///
/// # Safety
/// Pointers are null, which is an error, or of what their types say; the engine is used by one thread
/// at a time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lnp_shape(engine: *mut lnp_engine_t, shape: *mut lnp_shape_t) -> i32 {
    // SAFETY: null, or memory that was given to `lnp_open`, and used by one thread at a time: this
    // function asks both of its caller.
    let handle = unsafe { Handle::of(engine) };
    let run = handle.and_then(|handle| {
        handle.run(|handle| {
            let shape = out(shape)?;
            let found = handle.opened()?.shape();
            // SAFETY: not null and aligned, as `out` has seen; this function asks that it then be of its type.
            unsafe { shape.write(found) };
            Ok(())
        })
    });
    status(run)
}

/// Computes a layer's FFN: `y` (`y_count` values) from the hidden state `x` (`x_count` values) over the
/// `active_count` active neurons, ids strictly ascending. Both counts are the shape's `hidden`. The bits
/// of the result do not depend on order, cache or back end. After an error `y` is undefined and the
/// engine can be used on.
///
/// # Safety
/// Pointers are null, which is an error (but for no active neurons), or of so many values; the engine is
/// used by one thread at a time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lnp_forward(
    engine: *mut lnp_engine_t,
    layer: u32,
    x: *const f32,
    x_count: usize,
    active: *const u32,
    active_count: usize,
    y: *mut f32,
    y_count: usize,
) -> i32 {
    // SAFETY: null, or memory that was given to `lnp_open`, and used by one thread at a time: this
    // function asks both of its caller.
    let handle = unsafe { Handle::of(engine) };
    let run = handle.and_then(|handle| {
        handle.run(|handle| {
            apart(handle, (x.cast(), bytes_of(x, x_count)?), (y.cast(), bytes_of(y, y_count)?))?;
            apart(
                handle,
                (active.cast(), bytes_of(active, active_count)?),
                (y.cast(), bytes_of(y, y_count)?),
            )?;
            // SAFETY: of so many values, as this function asks of its caller, and apart from `y` and from
            // the engine, as was checked: nobody writes to them now.
            let x = unsafe { values(x, x_count) }?;
            // SAFETY: of so many values, as this function asks of its caller, and apart from `y` and from
            // the engine, as was checked: nobody writes to them now.
            let active = unsafe { values(active, active_count) }?;
            let y = out(y)?;
            // SAFETY: not null and aligned, as `out` has seen; of so many values, as this function asks of
            // its caller, which fit an address space (`bytes_of`); apart from `x`, `active` and the engine,
            // as was checked.
            let y = unsafe { core::slice::from_raw_parts_mut(y, y_count) };
            handle.opened()?.forward(layer, x, active, y)
        })
    });
    status(run)
}

/// The same from the hidden state alone: over the neurons that the pack's predictor names at the operating point of
/// `quality` (0 to 1: the first of at least that, or the last). Needs `LNP_PREDICT`.
///
/// # Safety
/// As `lnp_forward`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lnp_forward_predicted(
    engine: *mut lnp_engine_t,
    layer: u32,
    quality: f32,
    x: *const f32,
    x_count: usize,
    y: *mut f32,
    y_count: usize,
) -> i32 {
    // SAFETY: null, or memory that was given to `lnp_open`, and used by one thread at a time: this
    // function asks both of its caller.
    let handle = unsafe { Handle::of(engine) };
    let run = handle.and_then(|handle| {
        handle.run(|handle| {
            apart(handle, (x.cast(), bytes_of(x, x_count)?), (y.cast(), bytes_of(y, y_count)?))?;
            // SAFETY: of so many values, as this function asks of its caller, and apart from `y` and from
            // the engine, as was checked: nobody writes to them now.
            let x = unsafe { values(x, x_count) }?;
            let y = out(y)?;
            // SAFETY: not null and aligned, as `out` has seen; of so many values, as this function asks of
            // its caller, which fit an address space (`bytes_of`); apart from `x` and the engine, as was
            // checked.
            let y = unsafe { core::slice::from_raw_parts_mut(y, y_count) };
            handle.opened()?.forward_predicted(layer, quality, x, y)
        })
    });
    status(run)
}

/// Starts to read what a layer will probably need, and returns at once: the next `lnp_forward` of that
/// layer finds it there. Two layers can be under way. Needs `prefetch_bytes`. With
/// `LNP_BACK_END_PREAD`, which reads only what is waited for, it does nothing.
///
/// # Safety
/// As `lnp_forward`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lnp_prefetch(
    engine: *mut lnp_engine_t,
    layer: u32,
    predicted: *const u32,
    predicted_count: usize,
) -> i32 {
    // SAFETY: null, or memory that was given to `lnp_open`, and used by one thread at a time: this
    // function asks both of its caller.
    let handle = unsafe { Handle::of(engine) };
    let run = handle.and_then(|handle| {
        handle.run(|handle| {
            apart(
                handle,
                (predicted.cast(), bytes_of(predicted, predicted_count)?),
                (core::ptr::null(), 0),
            )?;
            // SAFETY: of so many values, as this function asks of its caller, and apart from the engine, as
            // was checked: nobody writes to them now.
            let predicted = unsafe { values(predicted, predicted_count) }?;
            handle.opened()?.prefetch(layer, predicted)
        })
    });
    status(run)
}

/// `lnp_prefetch` of what the pack's predictor of `layer` names for `x`, the hidden state of the layer `horizon` before
/// it, at the operating point of `quality`. Needs `LNP_PREDICT` and `prefetch_bytes`.
///
/// # Safety
/// As `lnp_forward`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lnp_prefetch_predicted(
    engine: *mut lnp_engine_t,
    layer: u32,
    horizon: u32,
    quality: f32,
    x: *const f32,
    x_count: usize,
) -> i32 {
    // SAFETY: null, or memory that was given to `lnp_open`, and used by one thread at a time: this
    // function asks both of its caller.
    let handle = unsafe { Handle::of(engine) };
    let run = handle.and_then(|handle| {
        handle.run(|handle| {
            apart(handle, (x.cast(), bytes_of(x, x_count)?), (core::ptr::null(), 0))?;
            // SAFETY: of so many values, as this function asks of its caller, and apart from the engine, as
            // was checked: nobody writes to them now.
            let x = unsafe { values(x, x_count) }?;
            handle.opened()?.prefetch_predicted(layer, horizon, quality, x)
        })
    });
    status(run)
}

/// What was done since `lnp_open`.
///
/// # Safety
/// As `lnp_shape`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lnp_statistics(
    engine: *mut lnp_engine_t,
    statistics: *mut lnp_statistics_t,
) -> i32 {
    // SAFETY: null, or memory that was given to `lnp_open`, and used by one thread at a time: this
    // function asks both of its caller.
    let handle = unsafe { Handle::of(engine) };
    let run = handle.and_then(|handle| {
        handle.run(|handle| {
            let statistics = out(statistics)?;
            let found = handle.opened()?.statistics();
            // SAFETY: not null and aligned, as `out` has seen; this function asks that it then be of its type.
            unsafe { statistics.write(found) };
            Ok(())
        })
    });
    status(run)
}

/// Copies a part of the trace of what was asked for, from byte `offset` of it on, and says in `*copied` how many bytes:
/// fewer than `part_bytes` only where it ends, and 0 behind; at once where nothing was computed in all layers. Put
/// together they are a file for `lnp relink --seen`, the same until the next forward. Needs `record_tokens`. For that,
/// layers are computed in ascending order; a token of which one fails is computed again from there, or from the first.
///
/// # Safety
/// As `lnp_shape`; `part` is of so many bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lnp_recorded(
    engine: *mut lnp_engine_t,
    offset: u64,
    part: *mut c_void,
    part_bytes: usize,
    copied: *mut usize,
) -> i32 {
    // SAFETY: null, or memory that was given to `lnp_open`, and used by one thread at a time: this
    // function asks both of its caller.
    let handle = unsafe { Handle::of(engine) };
    let run = handle.and_then(|handle| {
        handle.run(|handle| {
            let copied = out(copied)?;
            let part = out(part.cast::<u8>())?;
            bytes_of(part, part_bytes)?;
            apart(handle, (copied.cast_const().cast(), size_of::<usize>()), (part, part_bytes))?;
            // SAFETY: not null, as `out` has seen; of so many bytes, as this function asks of its caller, which fit an
            // address space (`bytes_of`); apart from `copied` and the engine, as was checked.
            let part = unsafe { core::slice::from_raw_parts_mut(part, part_bytes) };
            let count = handle.opened()?.recorded(offset, part)?;
            // SAFETY: not null and aligned, as `out` has seen; this function asks that it then be of its type.
            unsafe { copied.write(count) };
            Ok(())
        })
    });
    status(run)
}

/// Copies one line about the last error, cut to `text_bytes` with the zero byte at its end, and returns
/// its whole length without that byte: 0 where there was no error. `engine` may also be the memory that
/// a failed `lnp_open` was given.
///
/// # Safety
/// `engine` is null or memory that was given to `lnp_open`; `text` is null or of so many bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lnp_last_error(
    engine: *mut lnp_engine_t,
    text: *mut c_char,
    text_bytes: usize,
) -> usize {
    // SAFETY: null, or memory that was given to `lnp_open`, as this function asks of its caller.
    let handle = unsafe { Handle::of(engine) };
    let bytes = handle.as_ref().map_or(&[][..], |handle| handle.last_error().bytes());
    if !text.is_null() && text_bytes > 0 {
        let count = bytes.len().min(text_bytes - 1);
        // SAFETY: `text` is of `text_bytes` bytes, as this function asks of its caller, one more than
        // `count` at least; the bytes are of the engine's own memory, which is nobody else's.
        unsafe { text.cast::<u8>().copy_from_nonoverlapping(bytes.as_ptr(), count) };
        // SAFETY: `count` is less than `text_bytes`, and of so many bytes is `text`.
        unsafe { text.wrapping_add(count).write(0) };
    }
    bytes.len()
}

/// Waits until nothing is in flight, and gives the memory back to the caller.
///
/// # Safety
/// As `lnp_shape`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lnp_close(engine: *mut lnp_engine_t) -> i32 {
    // SAFETY: null, or memory that was given to `lnp_open`, and used by one thread at a time: this
    // function asks both of its caller.
    status(unsafe { Handle::close(engine) })
}

fn status(result: Result<(), Failure>) -> i32 {
    result.map_or_else(|failure| failure.status(), |()| LNP_OK)
}

/// A place to write to.
fn out<T>(place: *mut T) -> Result<*mut T, Failure> {
    if place.is_null() || !place.is_aligned() {
        return Err(Failure::Argument("a pointer to write to is null or misaligned"));
    }
    Ok(place)
}

/// # Safety
/// Where it is not null, a value lies there.
unsafe fn input<'v, T>(value: *const T) -> Result<&'v T, Failure> {
    if value.is_null() || !value.is_aligned() {
        return Err(Failure::Argument("source or config is null or misaligned"));
    }
    // SAFETY: not null and aligned, as was just seen; then a value lies there, as this function asks of its
    // caller.
    Ok(unsafe { &*value })
}

/// Bytes of so many values.
fn bytes_of<T>(_: *const T, count: usize) -> Result<usize, Failure> {
    let bytes = count.checked_mul(size_of::<T>()).filter(|bytes| isize::try_from(*bytes).is_ok());
    bytes.ok_or(Failure::Argument("a count is more than memory can hold"))
}

/// # Safety
/// Where it is not null, so many values lie there, which nobody writes to meanwhile.
unsafe fn values<'v, T>(values: *const T, count: usize) -> Result<&'v [T], Failure> {
    bytes_of(values, count)?;
    if count == 0 {
        return Ok(&[]);
    }
    if values.is_null() || !values.is_aligned() {
        return Err(Failure::Argument("values are null or misaligned"));
    }
    // SAFETY: not null, aligned and of a possible length, as was just seen; so many values lie there and
    // nobody writes to them, as this function asks of its caller.
    Ok(unsafe { core::slice::from_raw_parts(values, count) })
}

/// Checks that what is written lies neither within what is read nor within the engine.
fn apart(
    handle: &Handle,
    read: (*const u8, usize),
    written: (*const u8, usize),
) -> Result<(), Failure> {
    let (a, b) = (read.0.addr(), written.0.addr());
    let shared = a < b.saturating_add(written.1) && b < a.saturating_add(read.1);
    if shared || handle.overlaps(read.0, read.1) || handle.overlaps(written.0, written.1) {
        return Err(Failure::Argument("inputs, output and the engine's memory must not overlap"));
    }
    Ok(())
}
