//! A floor of device time: what no order of a layer can go below on given batches, not even one made from them.
//!
//! Under a law that adds up, with `a` for a read and `s` for a bundle's bytes, a batch in which m bundles are wanted costs
//! at least `t0 + m (s + a)` less what its neighbours save: with the next wanted one d slots further, reading through the
//! d - 1 bundles between them saves `w_d = max(0, a - (d - 1) s)`, and no plan saves more. (Its extents are stretches of
//! slots that hold all that is wanted; rounding to blocks and cutting long reads only add to them.)
//!
//! Let `v_e = w_e - w_(e+1)`, none of them negative. As `w_d` is the sum of `v_e` over e >= d, all batches together save the
//! sum over e of `v_e N_e`, where `N_e` counts the pairs of neighbours, over all batches, at most e slots apart. Two neurons
//! that are wanted together in c batches are neighbours in at most c of them. A neuron that is wanted n times, not alone, is
//! in at most 2 n pairs, as it has one neighbour to either side; and within e slots of it are at most 2 e others.
//!
//! Count each pair from both of its ends: half of the smaller of 2 n and the sum of the 2 e largest c, summed over neurons, is
//! at least `N_e`, whatever the order. Neurons that are wanted all the time are then beside everyone, though they have no
//! more room beside them than others. So a price is put on it: y for each of the 2 e places of a neuron, z for each of its 2 n
//! pairs. A pair of neighbours in x batches then pays y + y' and (z + z') x, and keeps at most c (1 - z - z') - y - y', which
//! counts where it is positive: `N_e` is at most the sum of that over all pairs and of 2 e y + 2 n z over all neurons. That holds
//! for any prices; good ones are looked for neuron by neuron, among those it is most often wanted with.
//!
//! With copies a batch reads one of the k copies of a neuron, and its neighbours within e slots are among the 2 e k neurons
//! around all of them. What is counted from both ends is concave in k (sums of the largest, cut off), so that giving copies
//! one by one to whom they add most is the best that any budget allows. Prices are not asked for there.

use lnp_engine::DeviceLaw;
use lnp_engine::law::Combine;

/// Neurons that prices are found by, of those that each is wanted with.
const PARTNERS: usize = 64;
/// Times that all prices are looked at.
const SWEEPS: usize = 24;
/// Distances that prices are found for.
const REACH_MAX: usize = 16;

/// Of each neuron of a layer, with whom it is wanted and how often.
#[derive(Debug)]
pub struct Together<'a> {
    neurons: usize,
    /// Those in which something is wanted.
    batches: Vec<&'a [u32]>,
    /// By neuron, those it is wanted in.
    batches_of: Vec<Vec<u32>>,
    /// Bundles wanted, all batches together.
    wanted: u64,
    /// By neuron.
    rows: Vec<Row>,
}

/// One neuron's.
#[derive(Debug)]
struct Row {
    /// Batches in which it is wanted and not alone.
    wanted: u64,
    /// Those it is most often wanted with, and how often.
    partners: Vec<(u32, f64)>,
    /// Those it is wanted with, by descending count: how many there are up to here, and the sum of their counts.
    sums: Vec<(u64, u64)>,
}

/// Of what neighbours use up, by neuron; in pairs.
struct Prices {
    /// Of each place near it.
    place: Vec<f64>,
    /// Of each of its pairs.
    pair: Vec<f64>,
}

impl Prices {
    /// What two neurons keep that are neighbours `count` times.
    fn kept(&self, one: usize, other: usize, count: f64) -> f64 {
        count * (1.0 - self.pair[one] - self.pair[other]) - self.place[one] - self.place[other]
    }
}

impl Row {
    /// By how often each other is wanted with it, `wanted` times at most.
    fn of(counts: &[u32], wanted: usize) -> Self {
        let mut having = vec![0_u64; wanted + 1];
        counts.iter().for_each(|count| having[*count as usize] += 1);
        let (mut others, mut sum, mut sums) = (0, 0, Vec::new());
        for count in (1..=wanted).rev().filter(|count| having[*count] > 0) {
            others += having[count];
            sum += having[count] * count as u64;
            sums.push((others, sum));
        }
        let mut partners: Vec<(u32, u32)> =
            (0..).zip(counts.iter().copied()).filter(|(_, count)| *count > 0).collect();
        let by_count =
            |one: &(u32, u32), other: &(u32, u32)| other.1.cmp(&one.1).then(one.cmp(other));
        if partners.len() > PARTNERS {
            partners.select_nth_unstable_by(PARTNERS - 1, by_count);
            partners.truncate(PARTNERS);
        }
        partners.sort_unstable_by(by_count);
        let partners = partners.into_iter().map(|(id, count)| (id, f64::from(count))).collect();
        Self { wanted: wanted as u64, partners, sums }
    }

    /// Pairs with so many others, at most.
    fn pairs(&self, others: u64) -> u64 {
        self.largest(others).min(2 * self.wanted)
    }

    /// The sum of the `most` largest counts.
    fn largest(&self, most: u64) -> u64 {
        let at = self.sums.partition_point(|(others, _)| *others <= most);
        let (others, sum) = if at == 0 { (0, 0) } else { self.sums[at - 1] };
        let rest = |(to, end): &(u64, u64)| (most - others) * ((end - sum) / (to - others));
        sum + self.sums.get(at).map_or(0, rest)
    }

    /// Most that `copies` copies of it can save with their neighbours; each pair is half its own.
    fn saved_us(&self, copies: u64, saved: &Saved) -> f64 {
        let mut us = 0.0;
        let all = self.sums.last().map_or(0, |(_, sum)| *sum).min(2 * self.wanted);
        for (reach, step_us) in (1..).zip(&saved.steps_us) {
            let pairs = self.pairs(2 * reach * copies);
            if pairs == all {
                // From here on nothing is added.
                return us + 0.5 * all as f64 * saved.from_us(reach);
            }
            us += 0.5 * pairs as f64 * step_us;
        }
        us
    }
}

/// What a pair of neighbours saves by its distance.
struct Saved {
    read_us: f64,
    bundle_us: f64,
    /// `v_e`, from e = 1 on.
    steps_us: Vec<f64>,
}

impl Saved {
    fn new(read_us: f64, bundle_us: f64, neurons: usize) -> Self {
        let mut saved = Self { read_us, bundle_us, steps_us: Vec::new() };
        let last =
            (1..neurons as u64).take_while(|distance| saved.from_us(*distance) > 0.0).count();
        // No two are further apart than the layer is long: the last step is all that is left.
        let beyond = |at: u64| if at == last as u64 { 0.0 } else { saved.from_us(at + 1) };
        saved.steps_us = (1..=last as u64).map(|at| saved.from_us(at) - beyond(at)).collect();
        saved
    }

    /// `w_d`.
    fn from_us(&self, distance: u64) -> f64 {
        (self.read_us - (distance - 1) as f64 * self.bundle_us).max(0.0)
    }
}

impl<'a> Together<'a> {
    /// Counts `batches`, the neurons, each once, that are wanted together in a layer of `neurons`.
    pub fn of(neurons: usize, batches: impl Iterator<Item = &'a [u32]>) -> Self {
        let batches: Vec<&[u32]> = batches.filter(|batch| !batch.is_empty()).collect();
        let mut batches_of = vec![Vec::new(); neurons];
        for (number, batch) in (0..).zip(&batches) {
            batch.iter().for_each(|id| batches_of[*id as usize].push(number));
        }
        let wanted = batches.iter().map(|batch| batch.len() as u64).sum();
        let mut together = Self { neurons, batches, batches_of, wanted, rows: Vec::new() };
        let mut counts = vec![0; neurons];
        for id in 0..neurons {
            together.count(id, &mut counts);
            let row = Row::of(&counts, together.batches_of[id].len());
            together.rows.push(row);
        }
        // One that is wanted alone has no neighbour.
        for batch in together.batches.iter().filter(|batch| batch.len() == 1) {
            together.rows[batch[0] as usize].wanted -= 1;
        }
        together
    }

    /// In how many batches each neuron is wanted with neuron `id`.
    fn count(&self, id: usize, counts: &mut [u32]) {
        counts.fill(0);
        for number in &self.batches_of[id] {
            self.batches[*number as usize].iter().for_each(|other| counts[*other as usize] += 1);
        }
        counts[id] = 0;
    }

    /// Most pairs of neighbours at most 1, 2, 3 ... `most` slots apart, all batches together.
    fn pairs(&self, most: usize) -> Vec<f64> {
        let prices: Vec<Prices> = (1..=most).map(|reach| self.prices(reach)).collect();
        let paid = |(reach, prices): (u64, &Prices)| {
            let row = |(id, row): (usize, &Row)| {
                (2 * reach) as f64 * prices.place[id] + (2 * row.wanted) as f64 * prices.pair[id]
            };
            self.rows.iter().enumerate().map(row).sum()
        };
        let mut pairs: Vec<f64> = (1..).zip(&prices).map(paid).collect();
        let mut counts = vec![0; self.neurons];
        for id in 0..self.neurons {
            self.count(id, &mut counts);
            for (pairs, prices) in pairs.iter_mut().zip(&prices) {
                let kept = |other: usize| prices.kept(id, other, f64::from(counts[other])).max(0.0);
                *pairs += (id + 1..self.neurons)
                    .filter(|other| counts[*other] > 0)
                    .map(kept)
                    .sum::<f64>();
            }
        }
        (1..).zip(pairs).map(|(reach, pairs)| pairs.min(self.counted(reach))).collect()
    }

    /// The same counted from both ends, for one distance.
    fn counted(&self, reach: usize) -> f64 {
        self.rows.iter().map(|row| 0.5 * row.pairs(2 * reach as u64) as f64).sum()
    }

    /// Prices for neighbours at most `reach` slots apart.
    fn prices(&self, reach: usize) -> Prices {
        let places = 2 * reach;
        let begin = |row: &Row| match row.largest(places as u64) >= 2 * row.wanted {
            true => (0.0, 0.5),
            false => (row.partners.get(places - 1).map_or(0.0, |(_, count)| 0.5 * count), 0.0),
        };
        let (place, pair) = self.rows.iter().map(begin).unzip();
        let mut prices = Prices { place, pair };
        let (mut kept, mut ends) = (Vec::new(), Vec::new());
        for _ in 0..SWEEPS {
            for (id, row) in self.rows.iter().enumerate() {
                // As many as there is room for keep something.
                let of = |(other, count): &(u32, f64)| {
                    prices.kept(id, *other as usize, *count) + prices.place[id]
                };
                kept.clear();
                kept.extend(row.partners.iter().map(of));
                kept.sort_unstable_by(|one, other| other.total_cmp(one));
                let target = kept.get(places - 1).map_or(0.0, |kept| kept.max(0.0));
                prices.place[id] = 0.5 * (prices.place[id] + target);
                // Those that would keep something at a lower price are in no more batches than there are pairs.
                let of = |(other, count): &(u32, f64)| {
                    (prices.kept(id, *other as usize, *count) / count + prices.pair[id], *count)
                };
                ends.clear();
                ends.extend(row.partners.iter().map(of));
                ends.sort_unstable_by(|one, other| other.0.total_cmp(&one.0));
                let mut sum = 0.0;
                let is_full = |(_, count): &&(f64, f64)| {
                    sum += count;
                    sum > (2 * row.wanted) as f64
                };
                let target = ends.iter().find(is_full).map_or(0.0, |(end, _)| end.clamp(0.0, 1.0));
                prices.pair[id] = 0.5 * (prices.pair[id] + target);
            }
        }
        prices
    }

    /// Microseconds that all batches together take at least: for each size of a bundle and each of `flash`, slots over
    /// neurons, 1 for a placement that holds each bundle once. None under a law that does not add up.
    pub fn floors_us(
        &self,
        law: &DeviceLaw,
        bundle_bytes: &[u32],
        flash: &[f64],
    ) -> Option<Vec<Vec<f64>>> {
        if law.combine() != Combine::Sum {
            return None;
        }
        let saved =
            |bytes: &u32| Saved::new(law.a_us(), law.transfer_us((*bytes).into()), self.neurons);
        let saved: Vec<Saved> = bundle_bytes.iter().map(saved).collect();
        let reach = saved.iter().map(|saved| saved.steps_us.len()).max().unwrap_or(0);
        let priced = self.pairs(reach.min(REACH_MAX));
        Some(saved.iter().map(|saved| self.floor_us(law, saved, &priced, flash)).collect())
    }

    /// Of one size, by most pairs of neighbours.
    fn floor_us(&self, law: &DeviceLaw, saved: &Saved, priced: &[f64], flash: &[f64]) -> Vec<f64> {
        let copies = |flash: &f64| ((flash - 1.0).max(0.0) * self.neurons as f64).ceil() as usize;
        let most = flash.iter().map(copies).max().unwrap_or(0);
        let (mut single_us, mut gains) = (0.0, Vec::new());
        for row in &self.rows {
            let mut us = row.saved_us(1, saved);
            single_us += us;
            for copies in 2..most as u64 + 2 {
                let more_us = row.saved_us(copies, saved);
                if more_us <= us {
                    break;
                }
                gains.push(more_us - us);
                us = more_us;
            }
        }
        gains.sort_unstable_by(|one, other| other.total_cmp(one));
        let step = |(at, step_us): (usize, &f64)| {
            step_us * priced.get(at).copied().unwrap_or_else(|| self.counted(at + 1))
        };
        let priced_us: f64 = saved.steps_us.iter().enumerate().map(step).sum();
        let (bundles, batches) = (self.wanted as f64, self.batches.len() as f64);
        // One read at least for each batch.
        let bytes_us = bundles * saved.bundle_us + batches * law.a_us();
        let floor = |flash: &f64| {
            let saved_us = match copies(flash) {
                0 => priced_us.min(single_us),
                copies => single_us + gains.iter().take(copies).sum::<f64>(),
            };
            let us = bundles * (saved.bundle_us + law.a_us()) - saved_us;
            us.max(bytes_us) + batches * law.t0_us()
        };
        flash.iter().map(floor).collect()
    }
}

#[cfg(test)]
#[path = "floor_tests.rs"]
mod tests;
