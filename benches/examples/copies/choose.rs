//! Which copy of each wanted bundle is read: a local search, and a bound below which none can come.

use lnp_link::Objective;

/// A layer with copies: some neurons stand in several slots.
pub(crate) struct Copies {
    /// Where each neuron's slots begin in `slots`.
    begin: Vec<u32>,
    slots: Vec<u32>,
    /// Microseconds of a read, and of a bundle's bytes.
    read_us: f64,
    bundle_us: f64,
    /// Holes of this many bundles cost a read.
    pub(crate) reach: usize,
    /// Microseconds of a hole by its bundles.
    hole_us: Vec<f64>,
    /// A bit for each chosen slot, the first at 64: a word may be looked at to either side.
    bits: Vec<u64>,
}

impl Copies {
    pub(crate) fn new(objective: &Objective, order: &[u32], neurons: usize) -> Self {
        let read_us = objective.law.a_us();
        let bundle_us = objective.law.transfer_us(objective.bundle_bytes.into());
        let reach = (read_us / bundle_us).ceil() as usize;
        assert!((1..64).contains(&reach), "bundles too small for this law");
        let hole_us = (0..2 * reach + 2).map(|k| (k as f64 * bundle_us).min(read_us)).collect();
        let mut begin = vec![0_u32; neurons + 1];
        order.iter().for_each(|id| begin[*id as usize + 1] += 1);
        (0..neurons).for_each(|id| begin[id + 1] += begin[id]);
        let (mut at, mut slots) = (begin.clone(), vec![0; order.len()]);
        for (slot, id) in order.iter().enumerate() {
            slots[at[*id as usize] as usize] = slot as u32;
            at[*id as usize] += 1;
        }
        let bits = vec![0; order.len() / 64 + 4];
        Self { begin, slots, read_us, bundle_us, reach, hole_us, bits }
    }

    /// The slots of a neuron.
    pub(crate) fn of(&self, id: u32) -> &[u32] {
        &self.slots[self.begin[id as usize] as usize..self.begin[id as usize + 1] as usize]
    }

    pub(crate) fn hole_us(&self, bundles: usize) -> f64 {
        self.hole_us[bundles.min(2 * self.reach)]
    }

    fn set(&mut self, slot: u32) {
        self.bits[slot as usize / 64 + 1] |= 1 << (slot % 64);
    }

    fn clear(&mut self, slot: u32) {
        self.bits[slot as usize / 64 + 1] &= !(1 << (slot % 64));
    }

    /// The 64 bits from a place on.
    fn word(&self, place: usize) -> u64 {
        let (word, bit) = (place / 64, place % 64);
        let low = self.bits[word] >> bit;
        if bit == 0 { low } else { low | self.bits[word + 1] << (64 - bit) }
    }

    /// Slots that are not chosen to the left and right of one, at most `reach` each.
    fn sides(&self, slot: u32) -> (usize, usize) {
        let left = self.word(slot as usize).leading_zeros() as usize;
        let right = self.word(slot as usize + 65).trailing_zeros() as usize;
        (left.min(self.reach), right.min(self.reach))
    }

    /// What having a slot costs beside the others that are chosen.
    fn cost(&self, slot: u32) -> f64 {
        let (left, right) = self.sides(slot);
        self.bundle_us + self.hole_us(left) + self.hole_us(right) - self.hole_us(left + right + 1)
    }

    fn cheapest(&self, id: u32, but: u32) -> (f64, u32) {
        let others = self.of(id).iter().filter(|slot| **slot != but);
        let best = others.map(|slot| (self.cost(*slot), *slot));
        best.min_by(|a, b| a.0.total_cmp(&b.0)).unwrap_or((f64::INFINITY, but))
    }

    /// Chooses a slot for each of the wanted neurons; microseconds by the costs of holes.
    pub(crate) fn choose(&mut self, wanted: &[u32], chosen: &mut Vec<u32>) -> f64 {
        const PASSES: usize = 4;
        self.bits.fill(0);
        for id in wanted {
            for at in self.begin[*id as usize]..self.begin[*id as usize + 1] {
                self.set(self.slots[at as usize]);
            }
        }
        // Where most of what is wanted stands near.
        let near = |slot: u32| {
            let mask = (1_u64 << (2 * self.reach + 1).min(63)) - 1;
            (self.word(slot as usize + 64 - self.reach) & mask).count_ones()
        };
        chosen.clear();
        chosen.extend(wanted.iter().map(|id| {
            let densest = self.of(*id).iter().max_by_key(|slot| (near(**slot), u32::MAX - **slot));
            densest.copied().unwrap_or_default()
        }));
        self.bits.fill(0);
        chosen.iter().for_each(|slot| self.set(*slot));
        for _ in 0..PASSES {
            if !(self.move_singles(wanted, chosen) | self.move_reads(wanted, chosen)) {
                break;
            }
        }
        let holes: f64 = chosen.iter().map(|slot| self.hole_us(self.sides(*slot).1)).sum();
        chosen.len() as f64 * self.bundle_us + holes
    }

    fn move_singles(&mut self, wanted: &[u32], chosen: &mut [u32]) -> bool {
        let mut moved = false;
        for (id, slot) in wanted.iter().zip(chosen.iter_mut()) {
            if self.of(*id).len() < 2 {
                continue;
            }
            self.clear(*slot);
            let (cost, other) = self.cheapest(*id, *slot);
            if cost < self.cost(*slot) - 1e-9 {
                (*slot, moved) = (other, true);
            }
            self.set(*slot);
        }
        moved
    }

    /// A whole read is given up where all of it is cheaper elsewhere.
    fn move_reads(&mut self, wanted: &[u32], chosen: &mut [u32]) -> bool {
        let mut by_slot: Vec<(u32, usize)> =
            chosen.iter().copied().enumerate().map(|(at, slot)| (slot, at)).collect();
        by_slot.sort_unstable();
        let reach = self.reach as u32;
        let mut moved = false;
        for read in by_slot.chunk_by(|a, b| b.0 - a.0 <= reach) {
            if !(2..=12).contains(&read.len())
                || read.iter().any(|(_, at)| self.of(wanted[*at]).len() < 2)
            {
                continue;
            }
            let mut saved = 0.0;
            for (slot, _) in read {
                saved += self.cost(*slot);
                self.clear(*slot);
            }
            let mut elsewhere = Vec::with_capacity(read.len());
            for (slot, at) in read {
                let (cost, other) = self.cheapest(wanted[*at], *slot);
                saved -= cost;
                self.set(other);
                elsewhere.push(other);
            }
            if saved > 1e-9 {
                read.iter().zip(&elsewhere).for_each(|((_, at), slot)| chosen[*at] = *slot);
                moved = true;
            } else {
                elsewhere.iter().for_each(|slot| self.clear(*slot));
                read.iter().for_each(|(slot, _)| self.set(*slot));
            }
        }
        moved
    }

    /// No choice of these copies costs less: the Lagrange dual, in which a bundle that is not read has a price and
    /// the cheapest set of reads is found exactly. `upper_us` is what a choice costs.
    pub(crate) fn bound(&self, wanted: &[u32], upper_us: f64, rounds: usize) -> f64 {
        let of = |(at, id): (usize, &u32)| self.of(*id).iter().map(move |slot| (*slot, at));
        let mut slots: Vec<(u32, usize)> = wanted.iter().enumerate().flat_map(of).collect();
        slots.sort_unstable();
        let mut price = vec![upper_us / wanted.len().max(1) as f64; wanted.len()];
        let (mut best, mut step) = (0.0_f64, 1.0);
        for _ in 0..rounds {
            // Least cost with the last slot not in a read, and in one.
            let (mut out, mut inside, mut last) = (0.0, f64::INFINITY, 0);
            let mut back = Vec::with_capacity(slots.len());
            for (slot, at) in &slots {
                let begun = out + self.read_us + self.bundle_us;
                let gone_on = inside + f64::from(slot - last) * self.bundle_us;
                inside = begun.min(gone_on) - price[*at];
                back.push((begun < gone_on, inside < out));
                (out, last) = (inside.min(out), *slot);
            }
            let value = out + price.iter().sum::<f64>();
            best = best.max(value);
            let (mut read, mut is_inside) = (vec![0_i32; wanted.len()], false);
            for ((_, at), (begun, left)) in slots.iter().zip(&back).rev() {
                is_inside |= *left;
                if is_inside {
                    read[*at] += 1;
                    is_inside = !begun;
                }
            }
            let norm: f64 = read.iter().map(|count| f64::from((1 - count).pow(2))).sum();
            if norm < 0.5 {
                break;
            }
            let size = step * (upper_us - value).max(0.01) / norm;
            for (price, count) in price.iter_mut().zip(&read) {
                *price = (*price + size * f64::from(1 - count)).max(0.0);
            }
            step *= 0.97;
        }
        best
    }
}
