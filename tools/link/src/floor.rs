//! A floor of device time: what no order of a layer can go below on given batches, not even one made from them.
//!
//! Under a law that adds up, with `a` for a read and `s` for a bundle's bytes, a batch in which m bundles are wanted costs
//! at least `t0 + m (s + a)` less what its neighbours save: with the next wanted one d slots further, reading through the
//! d - 1 bundles between them saves `w_d = max(0, a - (d - 1) s)`, and no plan saves more. (Its extents are stretches of
//! slots that hold all that is wanted; rounding to blocks and cutting long reads only add to them.)
//!
//! Let `v_e = w_e - w_(e+1)`, none of them negative. As `w_d` is the sum of `v_e` over e >= d, all batches together save the
//! sum over e of `v_e N_e`, where `N_e` counts the pairs of neighbours, over all batches, at most e slots apart. Count each
//! pair from both of its ends. A neuron that is wanted n times has a neighbour to either side: at most 2 n pairs. And the
//! others within e slots of it are at most 2 e neurons, with each of which it is wanted together c times: at most the sum of
//! the 2 e largest c. Half of the smaller of the two, summed over neurons, is at least `N_e`, whatever the order.
//!
//! With copies a batch reads one of the k copies of a neuron, and its neighbours within e slots are among the 2 e k neurons
//! around all of them. That is as good as concave in k (sums of the largest, cut off, are), so that giving copies one by one
//! to whom they add most is the best that any budget allows.

use lnp_engine::law::Combine;

use super::price::Objective;

/// Of each neuron of a layer, with whom it is wanted and how often.
#[derive(Debug)]
pub struct Together {
    neurons: usize,
    /// Batches in which something is wanted.
    batches: u64,
    /// Bundles wanted, all batches together.
    wanted: u64,
    /// By neuron.
    rows: Vec<Row>,
}

/// One neuron's.
#[derive(Debug)]
struct Row {
    /// Batches in which it is wanted.
    wanted: u64,
    /// Those it is wanted with, by descending count: how many there are up to here, and the sum of their counts.
    sums: Vec<(u64, u64)>,
}

impl Row {
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
            let pairs = self.largest(2 * reach * copies).min(2 * self.wanted);
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
        let last = (1..neurons as u64).take_while(|distance| saved.from_us(*distance) > 0.0);
        saved.steps_us = last.map(|at| saved.from_us(at) - saved.from_us(at + 1)).collect();
        saved
    }

    /// `w_d`.
    fn from_us(&self, distance: u64) -> f64 {
        (self.read_us - (distance - 1) as f64 * self.bundle_us).max(0.0)
    }
}

impl Together {
    /// Counts `batches`, the neurons, each once, that are wanted together in a layer of `neurons`.
    pub fn of<'a>(neurons: usize, batches: impl Iterator<Item = &'a [u32]>) -> Self {
        let batches: Vec<&[u32]> = batches.filter(|batch| !batch.is_empty()).collect();
        let mut batches_of = vec![Vec::new(); neurons];
        for (number, batch) in batches.iter().enumerate() {
            batch.iter().for_each(|id| batches_of[*id as usize].push(number));
        }
        let mut counts = vec![0_u32; neurons];
        let row = |(id, mine): (usize, &Vec<usize>)| {
            counts.fill(0);
            for number in mine {
                batches[*number].iter().for_each(|other| counts[*other as usize] += 1);
            }
            counts[id] = 0;
            let mut having = vec![0_u64; mine.len() + 1];
            counts.iter().for_each(|count| having[*count as usize] += 1);
            let (mut others, mut sum) = (0, 0);
            let mut sums = Vec::new();
            for count in (1..having.len()).rev() {
                if having[count] > 0 {
                    others += having[count];
                    sum += having[count] * count as u64;
                    sums.push((others, sum));
                }
            }
            Row { wanted: mine.len() as u64, sums }
        };
        Self {
            neurons,
            batches: batches.len() as u64,
            wanted: batches.iter().map(|batch| batch.len() as u64).sum(),
            rows: batches_of.iter().enumerate().map(row).collect(),
        }
    }

    /// Microseconds that all batches together take at least, for each of `flash`, slots over neurons, 1 for a placement
    /// that holds each bundle once. None under a law that does not add up.
    pub fn floor_us(&self, objective: &Objective, flash: &[f64]) -> Option<Vec<f64>> {
        let law = &objective.law;
        if law.combine() != Combine::Sum {
            return None;
        }
        let bundle_us = law.transfer_us(objective.bundle_bytes.into());
        let saved = Saved::new(law.a_us(), bundle_us, self.neurons);
        let copies = |flash: &f64| ((flash - 1.0).max(0.0) * self.neurons as f64).ceil() as usize;
        let most = flash.iter().map(copies).max().unwrap_or(0);
        let (mut single_us, mut gains) = (0.0, Vec::new());
        for row in &self.rows {
            let mut us = row.saved_us(1, &saved);
            single_us += us;
            for copies in 2..most as u64 + 2 {
                let more_us = row.saved_us(copies, &saved);
                if more_us <= us {
                    break;
                }
                gains.push(more_us - us);
                us = more_us;
            }
        }
        gains.sort_unstable_by(|one, other| other.total_cmp(one));
        let (bundles, batches) = (self.wanted as f64, self.batches as f64);
        // One read at least for each batch.
        let bytes_us = bundles * bundle_us + batches * law.a_us();
        let floor = |flash: &f64| {
            let saved_us = single_us + gains.iter().take(copies(flash)).sum::<f64>();
            let us = bundles * (bundle_us + law.a_us()) - saved_us;
            us.max(bytes_us) + batches * law.t0_us()
        };
        Some(flash.iter().map(floor).collect())
    }
}

#[cfg(test)]
#[path = "floor_tests.rs"]
mod tests;
