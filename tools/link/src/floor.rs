//! A floor of device time: what no order of a layer can go below on given batches, not even one made from them.
//!
//! Under a law that adds up, with `a` for a read and `s` for a bundle's bytes, a batch in which m bundles are wanted costs
//! at least `t0 + m (s + a)` less what its neighbours save: with the next wanted one d slots further, reading through the
//! d - 1 bundles between them saves `w_d = max(0, a - (d - 1) s)`, and no plan saves more. (Its extents are stretches of
//! slots that hold all that is wanted; rounding to blocks and cutting long reads only add to them.)
//!
//! Let `v_e = w_e - w_(e+1)`, none of them negative. As `w_d` is the sum of `v_e` over e >= d, all batches together save the
//! sum over e of `v_e N_e`, where `N_e` counts the pairs of neighbours, over all batches, at most e slots apart. Count each
//! pair from both of its ends. The others within e slots of a neuron are at most 2 e neurons, with each of which it is wanted
//! together c times: at most the sum of the 2 e largest c. And to either side it has one neighbour in a batch, in those
//! batches only in which one of the e neurons on that side is wanted too: at most twice the batches that e neurons can
//! cover. Half of the smaller of the two, summed over neurons, is at least `N_e`, whatever the order.
//!
//! How many batches m neurons can cover at most is hard to say exactly. Whatever they are, they cover no more than any set S
//! covers and what each of them adds to S by itself: the batches of S and the m largest such additions. The least of that is
//! taken over S that grow by what adds most.
//!
//! With copies a batch reads one of the k copies of a neuron, and on each side of them all there are e k neurons: e k in the
//! place of e. The bound is concave in k, a minimum of sums of the largest, so that giving copies one by one to whom they add
//! most is the best that any budget allows.

use lnp_engine::law::Combine;

use super::price::Objective;

/// Neurons that a set grows to.
const GROWN_MAX: usize = 24;
/// Others that it is kept of how much they can cover.
const OTHERS_MAX: u64 = 512;

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
    /// Those in which something else is wanted too.
    in_company: u64,
    /// Of those it is wanted with.
    counts: Largest,
    /// Batches that one, two, three others can cover at most; from where it ends on all that are in company.
    covered: Vec<u64>,
}

/// Sums of the largest of some counts.
#[derive(Debug)]
struct Largest {
    /// By descending count, equal ones together: how many there are up to here, and their sum.
    sums: Vec<(u64, u64)>,
}

impl Largest {
    /// Of counts of at most `most`.
    fn of(counts: &[u32], most: usize) -> Self {
        let mut having = vec![0_u64; most + 1];
        counts.iter().for_each(|count| having[*count as usize] += 1);
        let (mut number, mut sum, mut sums) = (0, 0, Vec::new());
        for count in (1..=most).rev().filter(|count| having[*count] > 0) {
            number += having[count];
            sum += having[count] * count as u64;
            sums.push((number, sum));
        }
        Self { sums }
    }

    fn sum_of_all(&self) -> u64 {
        self.sums.last().map_or(0, |(_, sum)| *sum)
    }

    /// The sum of the `most` largest.
    fn sum(&self, most: u64) -> u64 {
        let at = self.sums.partition_point(|(number, _)| *number <= most);
        let (number, sum) = if at == 0 { (0, 0) } else { self.sums[at - 1] };
        let rest = |(to, end): &(u64, u64)| (most - number) * ((end - sum) / (to - number));
        sum + self.sums.get(at).map_or(0, rest)
    }
}

impl Row {
    /// Counts who is wanted with neuron `id`, in the batches `mine`. `counts` is as long as the layer.
    fn of(
        id: usize,
        mine: &[u32],
        batches: &[&[u32]],
        batches_of: &[Vec<u32>],
        counts: &mut [u32],
    ) -> Self {
        counts.fill(0);
        let mut in_company = 0;
        for number in mine {
            let batch = batches[*number as usize];
            in_company += u64::from(batch.len() > 1);
            batch.iter().for_each(|other| counts[*other as usize] += 1);
        }
        counts[id] = 0;
        let all = Largest::of(counts, mine.len());
        let others = all.sums.last().map_or(0, |(number, _)| *number).min(OTHERS_MAX);
        let mut covered = vec![in_company; others as usize];
        let mut open: Vec<u32> = mine.to_vec();
        let mut so_far = 0;
        for _ in 0..GROWN_MAX {
            let additions = Largest::of(counts, open.len());
            for (others, most) in (1..).zip(&mut covered) {
                *most = (*most).min(so_far + additions.sum(others));
            }
            let Some(best) = (0..counts.len()).max_by_key(|other| counts[*other]) else { break };
            if counts[best] == 0 {
                break;
            }
            so_far += u64::from(counts[best]);
            open.retain(|number| {
                let is_new = batches_of[best].binary_search(number).is_ok();
                if is_new {
                    let wanted =
                        batches[*number as usize].iter().filter(|other| **other as usize != id);
                    wanted.for_each(|other| counts[*other as usize] -= 1);
                }
                !is_new
            });
        }
        covered.truncate(covered.partition_point(|most| *most < in_company));
        Self { in_company, counts: all, covered }
    }

    /// Batches that so many others can cover at most.
    fn covered(&self, others: u64) -> u64 {
        self.covered.get(others as usize - 1).copied().unwrap_or(self.in_company)
    }

    /// Most that `copies` copies of it can save with their neighbours; each pair is half its own.
    fn saved_us(&self, copies: u64, saved: &Saved) -> f64 {
        let mut us = 0.0;
        let all = self.counts.sum_of_all().min(2 * self.in_company);
        for (reach, step_us) in (1..).zip(&saved.steps_us) {
            let others = reach * copies;
            let pairs = self.counts.sum(2 * others).min(2 * self.covered(others));
            if pairs == all {
                // From here on nothing is added.
                return us + 0.5 * all as f64 * saved.us_from(reach);
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
        let last = (1..neurons as u64).take_while(|distance| saved.us_from(*distance) > 0.0);
        saved.steps_us = last.map(|at| saved.us_from(at) - saved.us_from(at + 1)).collect();
        saved
    }

    /// `w_d`.
    fn us_from(&self, distance: u64) -> f64 {
        (self.read_us - (distance - 1) as f64 * self.bundle_us).max(0.0)
    }
}

impl Together {
    /// Counts `batches`, the neurons, each once, that are wanted together in a layer of `neurons`.
    pub fn of<'a>(neurons: usize, batches: impl Iterator<Item = &'a [u32]>) -> Self {
        let batches: Vec<&[u32]> = batches.filter(|batch| !batch.is_empty()).collect();
        let mut batches_of = vec![Vec::new(); neurons];
        for (number, batch) in (0_u32..).zip(&batches) {
            batch.iter().for_each(|id| batches_of[*id as usize].push(number));
        }
        let mut counts = vec![0_u32; neurons];
        let row =
            |(id, mine): (usize, &Vec<u32>)| Row::of(id, mine, &batches, &batches_of, &mut counts);
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
