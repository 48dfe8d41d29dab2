//! Loom tries all interleavings of the calls on a slot's state: no byte is read while it is written,
//! every slot is claimed once, and all are free in the end.
//!
//! The source is included, so that `crate::sync` is loom's here and needs no cfg in the library. A
//! slot's bytes stand in a cell that tells on whoever reads it while another writes.
#![allow(unreachable_pub)] // the included file is public in its crate

mod sync {
    pub(crate) use loom::sync::atomic::{AtomicU32, Ordering};
}

#[allow(dead_code)] // not every call is tried here
#[path = "../src/arena/slot.rs"]
mod slot;

use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::thread;
use slot::SlotState;
use sync::{AtomicU32, Ordering};

/// A slot and its bytes.
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

    const fn state(&self) -> SlotState<'_> {
        SlotState(&self.state)
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
        self.state().claim().then(|| {
            let value = self.read();
            self.state().leave();
            value
        })
    }
}

/// All interleavings with at most so many preemptions (`None`: all there are).
fn explore(preemptions: Option<usize>, body: impl Fn() + Sync + Send + 'static) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = preemptions;
    model.check(body);
}

#[test]
fn two_workers_claim_each_of_two_slots_once() {
    explore(Some(2), || {
        let slots = Arc::new([Buffer::new(), Buffer::new()]);
        let claims = Arc::new([AtomicU32::new(0), AtomicU32::new(0)]);
        let look = |slots: &[Buffer; 2], claims: &[AtomicU32; 2]| {
            for (slot, claims) in slots.iter().zip(claims) {
                if let Some(value) = slot.compute() {
                    assert_eq!(value, 7);
                    claims.fetch_add(1, Ordering::Relaxed);
                }
            }
        };
        let workers: Vec<_> = (0..2)
            .map(|_| {
                let (slots, claims) = (Arc::clone(&slots), Arc::clone(&claims));
                thread::spawn(move || look(&slots, &claims))
            })
            .collect();
        slots.iter().for_each(|slot| slot.deliver(7));
        workers.into_iter().for_each(|worker| worker.join().unwrap());
        // The submitter computes what nobody was there for.
        look(&slots, &claims);
        for (slot, claims) in slots.iter().zip(&*claims) {
            assert_eq!(claims.load(Ordering::Relaxed), 1);
            assert!(slot.state().is_idle() && slot.state().is_claimed());
            assert!(slot.state().release() && slot.state().is_free());
        }
    });
}

/// Released while a worker may still be there, and filled anew: nobody sees the new bytes as the old
/// ones, and nobody writes under a reader.
#[test]
fn a_slot_is_filled_again_only_after_its_readers_have_left() {
    explore(Some(2), || {
        let slot = Arc::new(Buffer::new());
        let workers: Vec<_> = (0..2)
            .map(|_| {
                let slot = Arc::clone(&slot);
                thread::spawn(move || (slot.compute(), slot.compute()))
            })
            .collect();
        slot.deliver(1);
        let first = slot.compute();
        let released = slot.state().release();
        if released {
            slot.deliver(2);
        }
        let mut seen: Vec<u32> = first.into_iter().collect();
        for worker in workers {
            let (one, two) = worker.join().unwrap();
            assert!(one <= two || two.is_none(), "the old bytes never come after the new ones");
            seen.extend(one.into_iter().chain(two));
        }
        seen.extend(slot.compute());
        seen.sort_unstable();
        assert_eq!(seen, if released { vec![1, 2] } else { vec![1] });
        assert!(slot.state().release());
    });
}

/// Several may read what one has claimed, and what is renewed can be claimed again.
#[test]
fn readers_share_and_claims_are_renewed() {
    explore(None, || {
        let slot = Arc::new(Buffer::new());
        slot.deliver(3);
        let reader = {
            let slot = Arc::clone(&slot);
            thread::spawn(move || {
                if slot.state().enter() {
                    assert_eq!(slot.read(), 3);
                    slot.state().leave();
                }
                slot.compute().is_some()
            })
        };
        let here = slot.compute().is_some();
        let early = slot.state().release();
        let there = reader.join().unwrap();
        assert!(early || here != there, "one of them");
        if !early {
            slot.state().renew();
            assert_eq!(slot.compute(), Some(3));
            assert!(slot.state().release());
        }
        assert!(slot.state().is_free());
    });
}

#[test]
fn cancelling_races_with_the_end_of_the_read_and_with_workers() {
    for filled in [true, false] {
        explore(None, move || {
            let slot = Arc::new(Buffer::new());
            assert!(slot.state().begin());
            let device = {
                let slot = Arc::clone(&slot);
                thread::spawn(move || {
                    slot.fill(5);
                    slot.state().finish(filled);
                })
            };
            let worker = {
                let slot = Arc::clone(&slot);
                thread::spawn(move || slot.compute())
            };
            let cancelled = slot.state().cancel();
            device.join().unwrap();
            let computed = worker.join().unwrap();
            assert!(computed.is_none_or(|value| value == 5 && filled && !cancelled));
            if cancelled || !filled {
                assert!(slot.state().is_free());
            }
            assert!(slot.state().release() && slot.state().is_free());
            slot.deliver(6);
            assert_eq!(slot.compute(), Some(6));
        });
    }
}

/// The submitter stops with a read in flight: it cancels, waits for the device, and the workers leave.
/// All slots are free in the end, whoever was where.
#[test]
fn shutting_down_with_reads_in_flight_leaves_all_slots_free() {
    explore(None, || {
        let slots = Arc::new([Buffer::new(), Buffer::new()]);
        let over = Arc::new(AtomicU32::new(0));
        slots.iter().for_each(|slot| assert!(slot.state().begin()));
        let device = {
            let slots = Arc::clone(&slots);
            thread::spawn(move || {
                for slot in slots.iter() {
                    slot.fill(9);
                    slot.state().finish(true);
                }
            })
        };
        let worker = {
            let (slots, over) = (Arc::clone(&slots), Arc::clone(&over));
            thread::spawn(move || {
                for slot in slots.iter() {
                    if over.load(Ordering::Acquire) == 0
                        && let Some(value) = slot.compute()
                    {
                        assert_eq!(value, 9);
                    }
                }
            })
        };
        slots[1].state().cancel();
        over.store(1, Ordering::Release);
        device.join().unwrap();
        worker.join().unwrap();
        for slot in slots.iter() {
            assert!(slot.state().release() && slot.state().is_free());
        }
    });
}
