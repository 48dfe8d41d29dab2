//! Loom tries all interleavings of the calls on a buffer's state: no byte is read while it is written,
//! every buffer is claimed once, and all are free in the end.
//!
//! The source is included, so that `crate::sync` is loom's here and needs no cfg in the library. A
//! buffer's bytes stand in a cell that tells on whoever reads it while another writes.
#![allow(unreachable_pub)] // the included file is public in its crate

mod sync {
    pub(crate) use loom::sync::atomic::{AtomicU32, Ordering};
}

#[allow(dead_code)] // not every call is tried here
#[path = "../src/arena/buffer.rs"]
mod buffer;

use buffer::BufferState;
use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::thread;
use sync::{AtomicU32, Ordering};

/// A buffer's state and its bytes.
struct Buffer {
    state: AtomicU32,
    bytes: UnsafeCell<u32>,
}

// SAFETY: `bytes` is only touched under the state, and loom fails the test where it is not.
unsafe impl Sync for Buffer {}

impl Buffer {
    fn new() -> Self {
        Self { state: AtomicU32::new(0), bytes: UnsafeCell::new(0) }
    }

    const fn state(&self) -> BufferState<'_> {
        BufferState(&self.state)
    }

    /// What the device does between `begin` and `finish`.
    fn fill(&self, value: u32) {
        self.bytes.with_mut(|bytes| {
            // SAFETY: loom checks that nobody else has it.
            unsafe {
                *bytes = value;
            }
        });
    }

    fn read(&self) -> u32 {
        self.bytes.with(|bytes| {
            // SAFETY: loom checks that nobody writes it.
            unsafe { *bytes }
        })
    }

    /// One read, from begin to end.
    fn deliver(&self, value: u32) {
        assert!(self.state().begin());
        self.fill(value);
        self.state().finish(true);
    }

    /// One look of a worker; the bytes it claimed, if it did.
    fn compute(&self) -> Option<u32> {
        self.state().claim().then(|| self.read())
    }
}

/// All interleavings with at most so many preemptions (`None`: all there are).
fn explore(preemptions: Option<usize>, body: impl Fn() + Sync + Send + 'static) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = preemptions;
    model.check(body);
}

#[test]
fn two_workers_claim_each_of_two_buffers_once() {
    explore(Some(2), || {
        let buffers = Arc::new([Buffer::new(), Buffer::new()]);
        let claims = Arc::new([AtomicU32::new(0), AtomicU32::new(0)]);
        let look = |buffers: &[Buffer; 2], claims: &[AtomicU32; 2]| {
            for (buffer, claims) in buffers.iter().zip(claims) {
                if let Some(value) = buffer.compute() {
                    assert_eq!(value, 7);
                    claims.fetch_add(1, Ordering::Relaxed);
                }
            }
        };
        let workers: Vec<_> = (0..2)
            .map(|_| {
                let (buffers, claims) = (Arc::clone(&buffers), Arc::clone(&claims));
                thread::spawn(move || look(&buffers, &claims))
            })
            .collect();
        buffers.iter().for_each(|buffer| buffer.deliver(7));
        workers.into_iter().for_each(|worker| worker.join().unwrap());
        // The submitter computes what nobody was there for.
        look(&buffers, &claims);
        for (buffer, claims) in buffers.iter().zip(&*claims) {
            assert_eq!(claims.load(Ordering::Relaxed), 1);
            assert!(buffer.state().is_idle() && buffer.state().is_claimed());
            assert!(buffer.state().release() && buffer.state().is_free());
        }
    });
}

/// Released once the workers have joined, as the exclusive borrow of the staging area says, and filled anew:
/// nobody sees the new bytes as the old ones, and nobody writes under a reader.
#[test]
fn a_buffer_is_filled_again_after_it_was_released() {
    explore(Some(2), || {
        let buffer = Arc::new(Buffer::new());
        for value in [1, 2] {
            let worker = {
                let buffer = Arc::clone(&buffer);
                thread::spawn(move || (buffer.compute(), buffer.compute()))
            };
            buffer.deliver(value);
            let here = buffer.compute();
            let (one, two) = worker.join().unwrap();
            let seen: Vec<u32> = [here, one, two].into_iter().flatten().collect();
            assert_eq!(seen, [value], "once, and what was delivered last");
            assert!(buffer.state().release() && buffer.state().is_free());
        }
    });
}

/// Several may read what one has claimed, and what is renewed can be claimed again.
#[test]
fn readers_share_and_claims_are_renewed() {
    explore(None, || {
        let buffer = Arc::new(Buffer::new());
        let reader = {
            let buffer = Arc::clone(&buffer);
            thread::spawn(move || {
                if buffer.state().is_ready() {
                    assert_eq!(buffer.read(), 3);
                }
                buffer.compute().is_some()
            })
        };
        buffer.deliver(3);
        let here = buffer.compute().is_some();
        let there = reader.join().unwrap();
        assert!(here != there, "one of them");
        buffer.state().renew();
        assert_eq!(buffer.compute(), Some(3));
        assert!(buffer.state().release() && buffer.state().is_free());
    });
}

#[test]
fn cancelling_races_with_the_end_of_the_read_and_with_workers() {
    for filled in [true, false] {
        explore(None, move || {
            let buffer = Arc::new(Buffer::new());
            assert!(buffer.state().begin());
            let device = {
                let buffer = Arc::clone(&buffer);
                thread::spawn(move || {
                    buffer.fill(5);
                    buffer.state().finish(filled);
                })
            };
            let worker = {
                let buffer = Arc::clone(&buffer);
                thread::spawn(move || buffer.compute())
            };
            let cancelled = buffer.state().cancel();
            device.join().unwrap();
            let computed = worker.join().unwrap();
            assert!(computed.is_none_or(|value| value == 5 && filled && !cancelled));
            if cancelled || !filled {
                assert!(buffer.state().is_free());
            }
            assert!(buffer.state().release() && buffer.state().is_free());
            buffer.deliver(6);
            assert_eq!(buffer.compute(), Some(6));
        });
    }
}

/// The submitter stops with a read in flight: it cancels, waits for the device, and the workers end.
/// All buffers are free in the end, whoever was where.
#[test]
fn shutting_down_with_reads_in_flight_leaves_all_buffers_free() {
    explore(None, || {
        let buffers = Arc::new([Buffer::new(), Buffer::new()]);
        let over = Arc::new(AtomicU32::new(0));
        buffers.iter().for_each(|buffer| assert!(buffer.state().begin()));
        let device = {
            let buffers = Arc::clone(&buffers);
            thread::spawn(move || {
                for buffer in buffers.iter() {
                    buffer.fill(9);
                    buffer.state().finish(true);
                }
            })
        };
        let worker = {
            let (buffers, over) = (Arc::clone(&buffers), Arc::clone(&over));
            thread::spawn(move || {
                for buffer in buffers.iter() {
                    if over.load(Ordering::Acquire) == 0
                        && let Some(value) = buffer.compute()
                    {
                        assert_eq!(value, 9);
                    }
                }
            })
        };
        buffers[1].state().cancel();
        over.store(1, Ordering::Release);
        device.join().unwrap();
        worker.join().unwrap();
        for buffer in buffers.iter() {
            assert!(buffer.state().release() && buffer.state().is_free());
        }
    });
}
