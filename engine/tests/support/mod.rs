//! Chance and threads for the engine's tests.
#![allow(dead_code, unreachable_pub)] // each test binary uses its part

use lnp_engine::engine::Workers;

/// SplitMix64: what a test does depends on its seed alone.
pub struct Dice(u64);

impl Dice {
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`; 0 for 0.
    pub fn below(&mut self, end: u32) -> u32 {
        (self.next() % u64::from(end.max(1))) as u32
    }

    /// A number of a range, both ends included.
    pub fn among(&mut self, from: u32, to: u32) -> u32 {
        from + self.below(to - from + 1)
    }

    pub fn one_in(&mut self, count: u32) -> bool {
        self.below(count) == 0
    }

    pub fn pick<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len() as u32) as usize]
    }
}

/// So many real threads beside the one that reads.
#[derive(Clone, Copy, Debug)]
pub struct Threads(pub u32);

impl Workers for Threads {
    fn join(&self, here: &mut (dyn FnMut() + Send), there: &(dyn Fn() + Sync)) {
        if self.0 == 0 {
            return here();
        }
        std::thread::scope(|scope| {
            for _ in 0..self.0 {
                scope.spawn(there);
            }
            here();
        });
    }

    fn idle(&self) {
        std::thread::yield_now();
    }
}
