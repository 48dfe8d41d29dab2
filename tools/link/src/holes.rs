//! What holes cost, and how much of it a change of the order adds or saves: counted over all tokens at
//! once, a bit each, in the CPU's vectors.
//!
//! With L and R the inactive slots on either side of a gap to the next active one, `[L >= k]` is a
//! vector of bits: the tokens in which none of the k nearest rows to the left is active. From them L
//! and R are made as numbers in bit planes (see `bits`), subtracted, and what comes out is
//! added up; no token is looked at by itself.

use pulp::{Arch, Simd, WithSimd, bytemuck};

use super::bits::{add_one, add_two};
use super::price::Objective;

/// Holes of more bundles than this are taken to cost a read whatever the law says: it bounds the
/// slots that a move looks at.
pub(super) const HOLE_BUNDLES_MAX: usize = 16;
/// A last step of less than this share of the others is left out: a hole is then taken to cost so
/// much less than a read, and each move looks at one slot less to either side.
const LAST_STEP_MIN: f64 = 0.05;
/// Vectors counted between looks at whether a place can still be the best.
const LOOK_VECTORS: usize = 16;
/// Planes of a number below [`HOLE_BUNDLES_MAX`].
const NUMBER: usize = 4;
/// Planes of the sum of so many numbers as vectors are counted at once.
const SUM: usize = 8;
const _: () = assert!(HOLE_BUNDLES_MAX <= 1 << NUMBER && LOOK_VECTORS << NUMBER <= 1 << SUM);

/// What a hole costs by its length in bundles: equal steps, then perhaps one that reaches the cost of
/// a read, then nothing more.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HoleCost {
    /// Microseconds of each of the first bundles.
    step_us: f64,
    /// Bundles that cost a step, at least 1.
    steps: usize,
    /// Microseconds of the bundle after them; 0 for none.
    last_us: f64,
}

impl HoleCost {
    /// By the law and the size of a bundle.
    pub(crate) fn new(objective: &Objective) -> Self {
        let law = &objective.law;
        let (read_us, step_us) = (law.a_us(), law.transfer_us(objective.bundle_bytes.into()));
        if read_us <= 0.0 || step_us <= 0.0 {
            // A device that reads cost nothing on: any order is as good, runs are what is left.
            return Self { step_us: 1.0, steps: 1, last_us: 0.0 };
        }
        let steps = ((read_us / step_us) as usize).min(HOLE_BUNDLES_MAX - 1);
        if steps == 0 {
            return Self { step_us: read_us, steps: 1, last_us: 0.0 };
        }
        let last_us = read_us - steps as f64 * step_us;
        let last_us = if last_us < LAST_STEP_MIN * step_us { 0.0 } else { last_us };
        Self { step_us, steps, last_us }
    }

    /// Slots to either side that matter.
    pub(super) fn reach(&self) -> usize {
        self.steps + usize::from(self.last_us > 0.0)
    }

    /// Microseconds of a hole of so many bundles.
    pub(crate) fn of(&self, bundles: usize) -> f64 {
        let last_us = if bundles > self.steps { self.last_us } else { 0.0 };
        bundles.min(self.steps) as f64 * self.step_us + last_us
    }

    fn us(&self, count: Count) -> f64 {
        count.steps as f64 * self.step_us + count.lasts as f64 * self.last_us
    }

    /// Whether no token's cost falls by a neuron put into a gap: a further bundle costs at most
    /// what the one before it costs.
    fn is_concave(&self) -> bool {
        self.last_us <= self.step_us
    }
}

/// Steps of [`HoleCost`], summed over tokens.
#[derive(Debug, Clone, Copy, Default)]
struct Count {
    steps: i64,
    lasts: i64,
}

/// Rows to one side of a gap, nearest first; [`HoleCost::reach`] of them count.
///
/// All are of as many words, a multiple of
/// [`ROW_WORDS_MULTIPLE`](super::rows::ROW_WORDS_MULTIPLE).
#[derive(Debug, Clone, Copy)]
pub(super) struct Side<'a> {
    rows: [&'a [u64]; HOLE_BUNDLES_MAX],
}

impl<'a> Side<'a> {
    /// `zeros` stands where there are no more rows: beyond the end of the order nothing is active.
    pub(super) fn new(rows: impl Iterator<Item = &'a [u64]>, zeros: &'a [u64]) -> Self {
        let mut side = Self { rows: [zeros; HOLE_BUNDLES_MAX] };
        for (place, row) in side.rows.iter_mut().zip(rows) {
            *place = row;
        }
        side
    }
}

/// Numbers of tokens, one in each bit of the planes.
type Number<V> = [V; NUMBER];

/// L and R of a gap in the tokens of one vector, compared.
struct Hole<V> {
    /// L + R - `STEPS`, both cut off at `STEPS`; 0 where that is negative.
    over: Number<V>,
    /// L + R < `STEPS`.
    short: V,
    /// `[L > STEPS]`, `[R > STEPS]` and `[L + R > STEPS]`; only where there is a last step.
    beyond: [V; 3],
}

impl<V: Copy> Hole<V> {
    #[inline(always)]
    fn new<const STEPS: usize, S: Simd<u64s = V>>(
        simd: S,
        left: &Side<'_>,
        right: &Side<'_>,
        vector: usize,
        has_last: bool,
    ) -> Self {
        let zero = simd.splat_u64s(0);
        let row = |side: &Side<'_>, k: usize| S::as_simd_u64s(side.rows[k]).0[vector];
        // L by its digits, and how much less than STEPS R is: digit p of a number is the exclusive
        // or of [number >= k] over the multiples k of 2^p.
        let (mut empty, mut taken) = (simd.splat_u64s(u64::MAX), zero);
        let (mut number, mut lack) = ([zero; NUMBER], [zero; NUMBER]);
        for k in 1..=STEPS {
            empty = simd.and_u64s(empty, simd.not_u64s(row(left, k - 1)));
            taken = simd.or_u64s(taken, row(right, k - 1));
            for p in 0..NUMBER {
                if k.is_multiple_of(1 << p) {
                    number[p] = simd.xor_u64s(number[p], empty);
                }
                if (STEPS + 1 - k).is_multiple_of(1 << p) {
                    lack[p] = simd.xor_u64s(lack[p], taken);
                }
            }
        }
        let mut short = zero;
        for p in 0..NUMBER {
            let differ = simd.xor_u64s(number[p], lack[p]);
            let less = simd.and_u64s(differ, lack[p]);
            number[p] = simd.xor_u64s(differ, short);
            short = simd.or_u64s(less, simd.and_u64s(short, simd.not_u64s(differ)));
        }
        let (mut beyond, long) = ([zero; 3], simd.not_u64s(short));
        let mut any = zero;
        for digit in &mut number {
            *digit = simd.and_u64s(*digit, long);
            any = simd.or_u64s(any, *digit);
        }
        if has_last {
            let left = simd.and_u64s(empty, simd.not_u64s(row(left, STEPS)));
            let right = simd.not_u64s(simd.or_u64s(taken, row(right, STEPS)));
            beyond = [left, right, simd.or_u64s(any, simd.or_u64s(left, right))];
        }
        Self { over: number, short, beyond }
    }
}

/// Numbers added up, at most [`LOOK_VECTORS`] of them to each bit.
struct Sum<V> {
    planes: [V; SUM],
}

impl<V: bytemuck::Pod> Sum<V> {
    #[inline(always)]
    fn new<S: Simd<u64s = V>>(simd: S) -> Self {
        Self { planes: [simd.splat_u64s(0); SUM] }
    }

    #[inline(always)]
    fn add<S: Simd<u64s = V>>(&mut self, simd: S, number: &[V]) {
        let mut carry = simd.splat_u64s(0);
        for (p, plane) in self.planes.iter_mut().enumerate() {
            carry = match number.get(p) {
                Some(digit) => add_two(simd, plane, *digit, carry),
                None => add_one(simd, plane, carry),
            };
        }
    }

    /// The numbers of all bits together.
    #[inline(always)]
    fn total(&self) -> i64 {
        let mut total = 0;
        for (p, plane) in self.planes.iter().enumerate() {
            let words: &[u64] = bytemuck::cast_slice(std::slice::from_ref(plane));
            total += words.iter().map(|word| i64::from(word.count_ones())).sum::<i64>() << p;
        }
        total
    }
}

/// A match over all numbers of steps, so that the loops over them are written out by the compiler.
macro_rules! with_steps {
    ($steps:expr, $S:ident => $call:expr) => {
        with_steps!($steps, $S => $call, 1 2 3 4 5 6 7 8 9 10 11 12 13 14; 15)
    };
    ($steps:expr, $S:ident => $call:expr, $($n:literal)*; $most:literal) => {
        match $steps {
            $($n => { const $S: usize = $n; $call })*
            _ => { const $S: usize = $most; $call }
        }
    };
}

/// What putting a neuron with these bits into a gap adds, in microseconds; or no less than
/// `limit`, should it be that much.
///
/// Where the neuron is active there are holes of L and R for one of L + R, and where it is not the
/// hole is longer by one. For the equal steps, k of them: with L and R cut off at k, the first costs
/// L + R - k where that is positive, the second a step where L + R < k.
pub(super) fn insertion(
    arch: Arch,
    cost: &HoleCost,
    left: &Side<'_>,
    right: &Side<'_>,
    row: &[u64],
    limit: f64,
) -> f64 {
    with_steps!(cost.steps, STEPS => {
        arch.dispatch(Insertion::<STEPS> { cost, left, right, row, limit })
    })
}

struct Insertion<'a, const STEPS: usize> {
    cost: &'a HoleCost,
    left: &'a Side<'a>,
    right: &'a Side<'a>,
    row: &'a [u64],
    limit: f64,
}

impl<const STEPS: usize> WithSimd for Insertion<'_, STEPS> {
    type Output = f64;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> f64 {
        let Self { cost, left, right, row, limit } = self;
        let has_last = cost.last_us > 0.0;
        let mut count = Count::default();
        for (block, rows) in S::as_simd_u64s(row).0.chunks(LOOK_VECTORS).enumerate() {
            if cost.is_concave() && cost.us(count) >= limit {
                break;
            }
            let [mut steps, mut more, mut less] = [(); 3].map(|()| Sum::new(simd));
            for (index, active) in rows.iter().enumerate() {
                let vector = LOOK_VECTORS * block + index;
                let hole = Hole::new::<STEPS, S>(simd, left, right, vector, has_last);
                let idle = simd.not_u64s(*active);
                let mut added = hole.over;
                for digit in &mut added {
                    *digit = simd.and_u64s(*digit, *active);
                }
                added[0] = simd.or_u64s(added[0], simd.and_u64s(hole.short, idle));
                steps.add(simd, &added);
                if has_last {
                    let [left, right, both] = hole.beyond;
                    // A last step for L and for R, less one for L + R: more where both are beyond,
                    // less where neither is, but they are together.
                    let split = simd.and_u64s(*active, simd.and_u64s(left, right));
                    let joined = simd.not_u64s(simd.or_u64s(hole.short, both));
                    more.add(simd, &[simd.or_u64s(split, simd.and_u64s(idle, joined))]);
                    let neither = simd.not_u64s(simd.or_u64s(left, right));
                    less.add(simd, &[simd.and_u64s(*active, simd.and_u64s(both, neither))]);
                }
            }
            count.steps += steps.total();
            if has_last {
                count.lasts += more.total() - less.total();
            }
        }
        cost.us(count)
    }
}

/// What putting `right` against `left` costs less than if no hole went on across the junction: the
/// cost of L and of R alone, less that of L + R. In microseconds, up to a constant for each side.
pub(super) fn junction(arch: Arch, cost: &HoleCost, left: &Side<'_>, right: &Side<'_>) -> f64 {
    with_steps!(cost.steps, STEPS => arch.dispatch(Junction::<STEPS> { cost, left, right }))
}

struct Junction<'a, const STEPS: usize> {
    cost: &'a HoleCost,
    left: &'a Side<'a>,
    right: &'a Side<'a>,
}

impl<const STEPS: usize> WithSimd for Junction<'_, STEPS> {
    type Output = f64;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> f64 {
        let Self { cost, left, right } = self;
        let has_last = cost.last_us > 0.0;
        let mut count = Count::default();
        let vectors = left.rows[0].len() / S::U64_LANES;
        for first in (0..vectors).step_by(LOOK_VECTORS) {
            let [mut steps, mut lasts] = [(); 2].map(|()| Sum::new(simd));
            for vector in first..(first + LOOK_VECTORS).min(vectors) {
                let hole = Hole::new::<STEPS, S>(simd, left, right, vector, has_last);
                steps.add(simd, &hole.over);
                if has_last {
                    lasts.add(simd, &[hole.beyond[2]]);
                }
            }
            count.steps += steps.total();
            if has_last {
                count.lasts -= lasts.total();
            }
        }
        cost.us(count)
    }
}

#[cfg(test)]
#[path = "holes_tests.rs"]
mod tests;
