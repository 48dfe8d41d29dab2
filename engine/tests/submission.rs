//! When reads reach the device: the simulated one shows what handing over early gains, as it was measured, and
//! that it never loses.

mod support;

use lnp_engine::arena::{Arena, Staging};
use lnp_engine::queue::simulated::{Image, SimulatedQueue, Submission};
use lnp_engine::queue::{Clock, Feeder, Read, ReadQueue, drain, early_reads, turn};
use lnp_engine::{Combine, DeviceLaw};
use support::Dice;

const DEPTH: u32 = 32;

/// Nanoseconds that reads of these sizes take, as many in flight as the device takes, the end of the batch included.
fn batch_ns(law: DeviceLaw, submission: Submission, sizes: &[u32]) -> u64 {
    let total: usize = sizes.iter().map(|bytes| *bytes as usize).sum();
    let mut memory = vec![0; total + sizes.len() * 64 + (1 << 16)];
    let mut device = device(law, submission);
    let mut arena = Arena::new(&mut memory);
    let area = arena.take_bytes(total, 4096).unwrap();
    let mut staging = Staging::new(&mut arena, area, sizes.len()).unwrap();
    assert!(staging.lay_out(sizes.iter().map(|bytes| u64::from(*bytes))));
    let reads = (0..sizes.len()).map(|at| {
        let lease = staging.lease(at).unwrap();
        Ok(Read { file_offset: 0, lease, tag: at as u32 })
    });
    let (mut reads, mut done) = (reads, 0);
    while turn(&mut device, &mut reads, Iterator::next, |_, _| done += 1).unwrap() {}
    assert_eq!(done, sizes.len());
    drain(&mut device).unwrap();
    device.now_ns()
}

fn device<'a>(law: DeviceLaw, submission: Submission) -> SimulatedQueue<'a> {
    SimulatedQueue::new(Image::Opaque(1 << 40), law, DEPTH, 3).submitting(submission)
}

fn near(found_us: f64, measured_us: f64) {
    let ratio = found_us / measured_us;
    assert!((0.9..1.1).contains(&ratio), "{found_us} us, {measured_us} measured");
}

/// A layer's batch on the disk of a development machine, in one piece and in pieces of 4. A burst goes faster than
/// that disk's limit on reads a second, so its law is not that of a stream.
#[test]
fn batches_take_the_time_that_was_measured() {
    let law = DeviceLaw::new(152.0, 1.25, 2441.0, Combine::Sum).unwrap();
    let us = |reads: usize, bytes: u32, early_reads| {
        let submission = Submission { read_ns: 2500, together: true, early_reads };
        batch_ns(law, submission, &vec![bytes; reads]) as f64 / 1e3
    };
    for (reads, bytes, one_piece_us, pieces_us) in
        [(16, 4 << 10, 238.0, 209.0), (40, 16 << 10, 538.0, 476.0), (16, 24 << 10, 366.0, 331.0)]
    {
        near(us(reads, bytes, Some(DEPTH)), one_piece_us);
        near(us(reads, bytes, Some(4)), pieces_us);
    }
    // no gain was measured here; the model has one of a thirtieth
    near(us(14, 96 << 10, Some(4)), us(14, 96 << 10, Some(DEPTH)));
}

/// The stream of 4 KiB: reads a second, entered once for all that are free, and every 8.
#[test]
fn streams_go_at_the_rate_that_was_measured() {
    let law = DeviceLaw::new(0.0, 9.0, 2441.0, Combine::Sum).unwrap();
    for (early, reads_per_s) in [(DEPTH, 80_100.0), (8, 91_400.0)] {
        let submission = Submission { read_ns: 2130, together: true, early_reads: Some(early) };
        let reads = 4000;
        let ns = batch_ns(law, submission, &vec![4096; reads]);
        near(ns as f64 / reads as f64 / 1e3, 1e6 / reads_per_s);
    }
}

/// Whatever is read, and on whatever device: what is handed over early is not done later.
#[test]
fn early_is_never_later() {
    let mut dice = Dice::new(17);
    for _ in 0..2000 {
        let combine = dice.pick(&[Combine::Sum, Combine::Max]);
        let (t0, a) = (f64::from(dice.below(200)), f64::from(dice.below(400)) / 10.0);
        let law = DeviceLaw::new(t0, a, f64::from(dice.among(100, 4000)), combine).unwrap();
        let most = dice.pick(&[DEPTH, 4 * DEPTH]);
        let reads = dice.among(1, most);
        // Under the maximum large reads pay for small ones of the same stretch of work, and early ones may be of
        // another stretch.
        let bytes = 4096 * dice.among(1, 64);
        let sizes: Vec<u32> = (0..reads).map(|_| bytes).collect();
        let mut submission = Submission {
            read_ns: dice.below(20_000).into(),
            together: dice.one_in(2),
            early_reads: Some(u32::MAX),
        };
        let at_once = batch_ns(law, submission, &sizes);
        submission.early_reads = None;
        let early = batch_ns(law, submission, &sizes);
        assert!(
            early <= at_once,
            "{early} ns, {at_once} at once: {reads} of {bytes}, {submission:?}, {law:?}"
        );
    }
}

/// Handing over costs nothing unless told, and then pieces make no difference.
#[test]
fn without_a_cost_pieces_make_no_difference() {
    let law = DeviceLaw::new(20.0, 9.64, 2034.0, Combine::Sum).unwrap();
    let ns =
        |early_reads| batch_ns(law, Submission { early_reads, ..Submission::FREE }, &[4096; 100]);
    assert_eq!(ns(None), ns(Some(1)));
    assert_eq!(ns(None), ns(Some(u32::MAX)));
    assert_eq!(ns(None) / 1000, law.time_us(100, 100 * 4096) as u64);
}

#[test]
fn a_part_of_the_depth_is_enough_but_not_fewer_than_a_few() {
    assert_eq!([1, 8, 16, 32, 256].map(early_reads), [4, 4, 4, 8, 64]);
}

/// Submits so many reads.
fn submit<'a>(
    queue: &mut SimulatedQueue<'a>,
    staging: &Staging<'a>,
    tags: &mut std::ops::Range<u32>,
    count: usize,
) {
    for tag in tags.take(count) {
        let lease = staging.lease(tag as usize).unwrap();
        queue.submit(Read { file_offset: 0, lease, tag }).unwrap();
    }
}

/// What is handed over: a part of the depth by submitting, the rest by polling where the device has nothing, by
/// flushing, or by waiting.
#[test]
fn reads_wait_for_others_but_not_for_ever() {
    let law = DeviceLaw::new(0.0, 10.0, 1000.0, Combine::Sum).unwrap();
    let submission = Submission { read_ns: 100, together: false, early_reads: None };
    let mut memory = vec![0; 1 << 18];
    let mut queue = device(law, submission).polled(1_000_000);
    let mut arena = Arena::new(&mut memory);
    let area = arena.take_bytes(32 * 4096, 4096).unwrap();
    let mut staging = Staging::new(&mut arena, area, 32).unwrap();
    assert!(staging.lay_out([4096; 32].into_iter()));
    let mut tags = 0..32;
    // The host's time passes when reads are handed over.
    submit(&mut queue, &staging, &mut tags, 7);
    assert_eq!(queue.now_ns(), 0);
    submit(&mut queue, &staging, &mut tags, 1);
    assert_eq!(queue.now_ns(), 800);
    submit(&mut queue, &staging, &mut tags, 3);
    assert_eq!(queue.now_ns(), 800);
    queue.flush();
    assert_eq!(queue.now_ns(), 1100);
    for _ in 0..11 {
        assert!(queue.poll().is_some());
    }
    let idle_ns = queue.now_ns();
    submit(&mut queue, &staging, &mut tags, 2);
    assert!(queue.poll().is_some(), "handed over, since the device has nothing");
    assert!(queue.now_ns() > idle_ns + 200);
    drain(&mut queue).unwrap();
    assert_eq!(queue.in_flight(), 0);
}

#[test]
fn prefetching_leaves_room_for_what_is_demanded() {
    for depth in 1..=256 {
        let limit = Feeder::Prefetched.limit(depth);
        assert!((1..=depth).contains(&limit) && depth - limit == depth / 4);
        assert_eq!(Feeder::Demanded.limit(depth), depth);
    }
}
