//! The simulated device against what its header says of time and of each fault.

use lnp_engine::arena::{Arena, Staging};
use lnp_engine::queue::simulated::{FaultCounts, Faults, Image, Meanwhile, SimulatedQueue};
use lnp_engine::queue::{Clock, Completion, Read, ReadFailure, ReadQueue, drain};
use lnp_engine::{Combine, DeviceLaw};

const SLOT: usize = 4096;
const SLOTS: usize = 16;

fn law(t0_us: f64, a_us: f64) -> DeviceLaw {
    DeviceLaw::new(t0_us, a_us, 1000.0, Combine::Sum).unwrap()
}

fn image() -> Vec<u8> {
    (0..SLOT * SLOTS).map(|at| (at % 251 + at / 4096) as u8).collect()
}

/// What came of reading each slot once.
#[derive(Debug, PartialEq)]
struct Outcome {
    completions: Vec<Completion>,
    slots: Vec<Option<Vec<u8>>>,
    /// After each completion, and after the end of the batch.
    times_ns: Vec<u64>,
    counts: FaultCounts,
}

/// Reads all slots, `rounds` times; the outcome is that of the last.
fn outcome<'a>(device: SimulatedQueue<'a>, memory: &'a mut [u8], rounds: u32) -> Outcome {
    let mut device = device;
    let mut arena = Arena::new(memory);
    let bytes = arena.take_bytes(SLOT * SLOTS, 4096).unwrap();
    let mut staging = Staging::new(&mut arena, bytes, SLOTS).unwrap();
    let (mut completions, mut times_ns) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        assert!(staging.lay_out([SLOT as u64; SLOTS].into_iter()));
        (completions, times_ns) = (Vec::new(), Vec::new());
        for tag in 0..SLOTS as u32 {
            let lease = staging.lease(tag as usize).unwrap();
            let file_offset = u64::from(tag) * SLOT as u64;
            let _ = device.submit(Read { file_offset, lease, tag });
        }
        while let Some(completion) = device.poll().or_else(|| device.wait()) {
            completions.push(completion);
            times_ns.push(device.now_ns());
        }
        drain(&mut device).unwrap();
        times_ns.push(device.now_ns());
    }
    let slots = (0..SLOTS).map(|at| staging.bytes_of(at).map(|bytes| bytes.to_vec())).collect();
    Outcome { completions, slots, times_ns, counts: *device.counts() }
}

fn read_all(faults: Faults, seed: u64) -> Outcome {
    let (image, mut memory) = (image(), vec![0; SLOT * SLOTS + (1 << 13)]);
    let device = SimulatedQueue::new(Image::Bytes(&image), law(7.0, 10.0), 16, seed);
    outcome(device.with_faults(faults), &mut memory, 1)
}

/// Slots are ready exactly where the read succeeded, and hold the image's bytes.
fn check(found: &Outcome) -> usize {
    let image = image();
    let mut failed = 0;
    for completion in &found.completions {
        let at = completion.tag as usize;
        let right = image[at * SLOT..][..SLOT].to_vec();
        assert_eq!(found.slots[at], completion.result.is_ok().then_some(right));
        failed += usize::from(completion.result.is_err());
    }
    failed
}

#[test]
fn one_seed_is_one_run_and_faults_do_not_change_another() {
    let some = Faults {
        eio: 50_000,
        short: 300_000,
        eagain: 100_000,
        flipped: 100_000,
        delayed: 100_000,
        delay_factor: 9,
        ..Faults::NONE
    };
    assert_eq!(read_all(some, 3), read_all(some, 3));
    assert_ne!(read_all(some, 3), read_all(some, 4));
    let plain = read_all(Faults::NONE, 3);
    assert_eq!(check(&plain), 0);
    // A fault that never strikes changes nothing.
    let never = Faults { gone_from_ns: Some(u64::MAX), ..Faults::NONE };
    assert_eq!(plain, read_all(never, 3));
    let tags: Vec<u32> = plain.completions.iter().map(|completion| completion.tag).collect();
    assert!(!tags.is_sorted(), "completions come in any order");
}

#[test]
fn what_is_short_or_interrupted_is_continued_within_bounds() {
    for faults in [
        Faults { short: 500_000, ..Faults::NONE },
        Faults { eagain: 500_000, ..Faults::NONE },
        Faults { eintr: 500_000, ..Faults::NONE },
    ] {
        let found = read_all(faults, 11);
        assert_eq!(check(&found), found.counts.worn_out as usize);
        let again = found.counts.short + found.counts.eagain + found.counts.eintr;
        assert!(again > 4, "{:?}", found.counts);
    }
    // Each attempt, and no more of them than the real back ends make.
    let always = read_all(Faults { eintr: 1_000_000, ..Faults::NONE }, 1);
    assert_eq!(always.counts.eintr, 9 * SLOTS as u64);
    assert_eq!(check(&always), SLOTS);
    let errno = ReadFailure::System { errno: 4 };
    assert!(always.completions.iter().all(|c| c.result.unwrap_err().failure == errno));
}

#[test]
fn errors_ends_and_refusals_end_a_read() {
    for (faults, failure) in [
        (Faults { eio: 1_000_000, ..Faults::NONE }, ReadFailure::System { errno: 5 }),
        (Faults { end: 1_000_000, ..Faults::NONE }, ReadFailure::Short { found: 0 }),
        (Faults { gone_from_ns: Some(0), ..Faults::NONE }, ReadFailure::System { errno: 19 }),
    ] {
        let found = read_all(faults, 1);
        assert_eq!(check(&found), SLOTS);
        assert!(found.completions.iter().all(|c| c.result.unwrap_err().failure == failure));
        assert_eq!(found.counts.fatal(), SLOTS as u64);
    }
    let refused = read_all(Faults { refused: 1_000_000, ..Faults::NONE }, 1);
    assert_eq!((refused.completions.len(), refused.counts.refused), (0, SLOTS as u64));
    // The image ends within a read: what is there comes, and then nothing.
    let (short, mut memory) = (&image()[..SLOT + 100], vec![0; SLOT * SLOTS + (1 << 13)]);
    let device = SimulatedQueue::new(Image::Bytes(short), law(0.0, 1.0), 16, 1);
    let found = outcome(device, &mut memory, 1);
    for completion in &found.completions {
        let failure = completion.result.err().map(|error| error.failure);
        let bytes = [None, Some(100), Some(0)][completion.tag.min(2) as usize];
        assert_eq!(failure, bytes.map(|found| ReadFailure::Short { found }));
    }
}

#[test]
fn a_flip_is_one_bit_of_a_read() {
    let found = read_all(Faults { flipped: 1_000_000, ..Faults::NONE }, 1);
    assert_eq!(found.counts.flipped, SLOTS as u64);
    for (bytes, right) in found.slots.iter().zip(image().chunks(SLOT)) {
        let pairs = bytes.as_ref().unwrap().iter().zip(right);
        assert_eq!(pairs.map(|(a, b)| (a ^ b).count_ones()).sum::<u32>(), 1);
    }
}

#[test]
fn a_delayed_read_takes_so_many_times_as_long_and_is_overtaken() {
    let plain = read_all(Faults::NONE, 6);
    let faults = Faults { delayed: 200_000, delay_factor: 1000, ..Faults::NONE };
    let found = read_all(faults, 6);
    assert_eq!(check(&found), 0);
    let late = found.counts.delayed as usize;
    assert!((1..SLOTS).contains(&late));
    let own_ns = (law(7.0, 10.0).work_us(1, SLOT as u64) * 1e3) as u64;
    // The others are in time, and the delayed ones are the last.
    assert_eq!(found.times_ns[..SLOTS - late], plain.times_ns[..SLOTS - late]);
    assert!(found.times_ns[SLOTS - late..SLOTS].iter().all(|ns| *ns == 1000 * own_ns));
}

#[test]
fn polling_takes_the_same_time_and_a_batch_one_timing() {
    let image = image();
    let expected = |law: &DeviceLaw, reads| law.time_us(reads, reads * SLOT as u64) * 1e3;
    for polled in [0, 300_000, 1_000_000] {
        let device = || {
            SimulatedQueue::new(Image::Bytes(&image), law(7.0, 10.0), 16, 1)
                .polled(polled)
                .then(1, law(50.0, 80.0))
                .then(2, law(90.0, 200.0))
        };
        let mut memory = vec![0; SLOT * SLOTS + (1 << 13)];
        let once = outcome(device(), &mut memory, 1);
        let mut memory = vec![0; SLOT * SLOTS + (1 << 13)];
        let twice = outcome(device(), &mut memory, 2);
        let (first, second) = (once.times_ns[SLOTS], twice.times_ns[SLOTS]);
        let (cold, hot) = (expected(&law(7.0, 10.0), 16), expected(&law(90.0, 200.0), 16));
        assert!((first as f64 - cold).abs() < 10.0, "{first} {cold}");
        assert!(((second - first) as f64 - hot).abs() < 10.0, "{second} {hot}");
    }
}

/// While its owner computes, the device reads what it was handed, and no more than there is time for.
#[test]
fn time_that_passes_beside_is_read_in() {
    let law = DeviceLaw::new(0.0, 9.9, 1_000_000.0, Combine::Sum).unwrap();
    for (passed_us, expected, end_us) in
        [(0, 0, 99), (35, 3, 99), (95, 9, 99), (100, 10, 100), (500, 10, 500)]
    {
        let meanwhile = Meanwhile::default();
        let mut memory = vec![0; SLOT * SLOTS + (1 << 13)];
        let mut arena = Arena::new(&mut memory);
        let bytes = arena.take_bytes(SLOT * SLOTS, 4096).unwrap();
        let mut staging = Staging::new(&mut arena, bytes, SLOTS).unwrap();
        assert!(staging.lay_out([SLOT as u64; 10].into_iter()));
        let device = SimulatedQueue::new(Image::Opaque(1 << 20), law, 16, 7);
        let mut device = device.meanwhile(&meanwhile);
        for tag in 0..10u32 {
            let lease = staging.lease(tag as usize).unwrap();
            device.submit(Read { file_offset: 0, lease, tag }).unwrap();
        }
        device.flush();
        meanwhile.pass(passed_us * 1000);
        assert_eq!(device.now_ns() / 1000, u64::from(passed_us));
        let polled = std::iter::from_fn(|| device.poll()).count();
        assert_eq!(polled, expected, "{passed_us}");
        let waited = std::iter::from_fn(|| device.wait()).count();
        assert_eq!((waited, device.now_ns() / 1000), (10 - expected, end_us), "{passed_us}");
    }
}
