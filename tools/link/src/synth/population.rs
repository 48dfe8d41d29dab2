//! The population that synthetic neurons are drawn from: with which probability a neuron fires at a
//! real token.
//!
//! q = (1 - m) b + m a, where b is the template's bit, a the share of its kin that fire (weighted by
//! Jaccard's index, scaled so that it has the mean of b), and m the mixture. Two neurons of one
//! template fire together in the sum of q² tokens, those of two templates in the sum of their
//! products: the strength of pairs is known for any m before anything is drawn.
//!
//! m is chosen by it. In real layers the best partners of a neuron are the stronger, the more neurons
//! there are to choose from; by how much is measured on halves of the real layer, and added for every
//! doubling.
//!
//! Drawn anew at every token, neurons would change more from token to token than real ones. So a
//! neuron keeps the number that its chance is compared with until it is *renewed*, which happens with
//! a probability that makes the overlap of successive tokens that of the real layer.

use anyhow::Result;

use super::kin::{KIN, Kin, PARTNERS, jaccard};
use crate::LayerActivity;
use crate::trace::active;

/// Tokens, spread evenly, that the mixture is fitted on.
const FIT_TOKENS: usize = 8192;
/// Probabilities are in steps of 1 / ONE.
pub(super) const ONE: u32 = 1 << 16;
/// Strength is at most this: neurons are never all the same.
const STRENGTH_MAX: f64 = 0.95;

/// A real layer as a population.
#[derive(Debug, Clone)]
pub struct Population {
    neurons: usize,
    /// Per neuron, those that it is kin of, with its weight among their kin.
    reach: Vec<Vec<(u32, f32)>>,
    /// Whether a neuron has kin that fire; one without is its own.
    has_kin: Vec<bool>,
    mix: f64,
    renewal: f64,
}

/// For a neuron with itself and with each of its kin: in how many tokens both fire, by the parts of
/// the mixture. Of two neurons `b` are the bits and `a` the shares of their kin.
#[derive(Debug, Clone, Copy, Default)]
struct Together {
    bits: f64,
    crossed: f64,
    kin: f64,
}

impl Together {
    fn at(&self, mix: f64) -> f64 {
        let own = 1.0 - mix;
        own * own * self.bits + own * mix * self.crossed + mix * mix * self.kin
    }
}

impl Population {
    /// Fits the mixture of a layer of `width` neurons to the bits of a real one, a row a token.
    ///
    /// # Errors
    /// Bits that do not fit the number of neurons.
    pub fn fit(bits: &[u8], neurons: usize, width: usize) -> Result<Self> {
        let tokens = bits.len() / neurons.div_ceil(8);
        let activity = LayerActivity::from_bits(neurons, &[(bits, tokens)])?;
        let kin = Kin::of(&activity);
        let mut population = Self::of_kin(&activity, &kin);
        let pairs = population.pairs(bits, &kin);
        let doublings = (width as f64 / neurons as f64).log2();
        if doublings > 0.0 {
            let wanted = pairs.strength(0.0, 1.0) + kin.growth_per_doubling * doublings;
            let copies = width as f64 / neurons as f64;
            population.mix = pairs.mix_for(wanted.min(STRENGTH_MAX), copies);
            population.renewal = population.renewal_for_overlap(bits);
        }
        Ok(population)
    }

    /// The share of firing that comes from kin.
    pub fn mix(&self) -> f64 {
        self.mix
    }

    /// The probability that a neuron is drawn anew where it may fire.
    pub fn renewal(&self) -> f64 {
        self.renewal
    }

    /// Neurons of the real layer.
    pub fn neurons(&self) -> usize {
        self.neurons
    }

    fn of_kin(activity: &LayerActivity, kin: &Kin) -> Self {
        let neurons = activity.neurons();
        let mut reach = vec![Vec::new(); neurons];
        let mut has_kin = vec![false; neurons];
        for (neuron, best) in kin.best.iter().enumerate() {
            // Scaled so that as many firings come from kin as are the neuron's own.
            let of_kin = |(other, index): &(u32, f32)| {
                f64::from(*index) * f64::from(activity.count(*other as usize))
            };
            let total: f64 = best.iter().map(of_kin).sum();
            if total > 0.0 {
                has_kin[neuron] = true;
                let scale = f64::from(activity.count(neuron)) / total;
                for (other, index) in best {
                    let weight = f64::from(*index) * scale;
                    reach[*other as usize].push((neuron as u32, weight as f32));
                }
            }
        }
        Self { neurons, reach, has_kin, mix: 0.0, renewal: 1.0 }
    }

    /// The share of each neuron's kin that fire at a token, at most 1; `shares` is overwritten.
    fn kin_shares(&self, bits: &[u8], token: usize, shares: &mut [f32]) {
        shares.fill(0.0);
        for id in active(bits, self.neurons, token) {
            if !self.has_kin[id as usize] {
                shares[id as usize] = 1.0;
            }
            for (neuron, weight) in &self.reach[id as usize] {
                shares[*neuron as usize] += weight;
            }
        }
        shares.iter_mut().for_each(|share| *share = share.min(1.0));
    }

    /// With which probability a neuron of each template fires at a real token, in steps of
    /// 1 / 65536; `chances` and `shares` have an entry a template and are overwritten.
    pub(super) fn chances(
        &self,
        bits: &[u8],
        token: usize,
        shares: &mut [f32],
        chances: &mut [u32],
    ) {
        self.kin_shares(bits, token, shares);
        let (one, mix) = (ONE as f32, self.mix as f32);
        for (chance, share) in chances.iter_mut().zip(shares.iter()) {
            *chance = (share * mix * one).round() as u32;
        }
        for id in active(bits, self.neurons, token) {
            let q = (1.0 - mix) + mix * shares[id as usize];
            chances[id as usize] = (q * one).round() as u32;
        }
    }

    /// Tokens after which a neuron is active in both: renewed, in the product of its two chances;
    /// not renewed, in the lesser one. Their mixture is to be the real number.
    fn renewal_for_overlap(&self, bits: &[u8]) -> f64 {
        let mut shares = vec![0.0; self.neurons];
        let mut chances = [vec![0u32; self.neurons], vec![0u32; self.neurons]];
        let (mut renewed, mut kept, mut real) = (0.0, 0.0, 0.0);
        for token in self.fit_tokens(bits).skip(1) {
            for (before, chances) in chances.iter_mut().enumerate() {
                self.chances(bits, token - before, &mut shares, chances);
            }
            for (now, before) in chances[0].iter().zip(&chances[1]) {
                let [now, before] =
                    [*now, *before].map(|chance| f64::from(chance) / f64::from(ONE));
                renewed += now * before;
                kept += now.min(before);
            }
            let row = |token| active(bits, self.neurons, token);
            let mut before = row(token - 1).peekable();
            for id in row(token) {
                while before.next_if(|other| *other < id).is_some() {}
                real += f64::from(u8::from(before.next_if_eq(&id).is_some()));
            }
        }
        if kept > renewed { ((kept - real) / (kept - renewed)).clamp(0.0, 1.0) } else { 1.0 }
    }

    fn fit_tokens(&self, bits: &[u8]) -> impl Iterator<Item = usize> + use<> {
        let tokens = bits.len() / self.neurons.div_ceil(8);
        (0..tokens).step_by((tokens / FIT_TOKENS).max(1))
    }

    fn pairs(&self, bits: &[u8], kin: &Kin) -> Pairs {
        let row_bytes = self.neurons.div_ceil(8);
        let mut pairs = Pairs::new(kin);
        let mut shares = vec![0.0; self.neurons];
        for token in self.fit_tokens(bits) {
            self.kin_shares(bits, token, &mut shares);
            pairs.add(&bits[token * row_bytes..][..row_bytes], &shares);
        }
        pairs
    }
}

/// Who fires together with whom, for each neuron and its kin.
struct Pairs {
    others: Vec<Vec<u32>>,
    /// Per neuron with itself, then with each of its kin.
    together: Vec<[Together; KIN + 1]>,
    /// Per neuron its firings, by itself and by its kin.
    firings: Vec<[f64; 2]>,
}

impl Pairs {
    fn new(kin: &Kin) -> Self {
        let neurons = kin.best.len();
        Self {
            others: kin.best.iter().map(|best| best.iter().map(|(id, _)| *id).collect()).collect(),
            together: vec![[Together::default(); KIN + 1]; neurons],
            firings: vec![[0.0; 2]; neurons],
        }
    }

    fn add(&mut self, row: &[u8], shares: &[f32]) {
        let at = |neuron: usize| {
            let bit = row[neuron / 8] >> (neuron % 8) & 1;
            (f64::from(bit), f64::from(shares[neuron]))
        };
        for neuron in 0..shares.len() {
            let (bit, share) = at(neuron);
            if bit == 0.0 && share == 0.0 {
                continue;
            }
            self.firings[neuron][0] += bit;
            self.firings[neuron][1] += share;
            let others = self.others[neuron].iter().map(|other| *other as usize);
            let both = std::iter::once(neuron).chain(others);
            for (sum, other) in self.together[neuron].iter_mut().zip(both) {
                let (other_bit, other_share) = at(other);
                sum.bits += bit * other_bit;
                sum.crossed += bit * other_share + share * other_bit;
                sum.kin += share * other_share;
            }
        }
    }

    /// Expected strength, as [`Kin`] has it, where every template has so many copies: a neuron's
    /// partners are the other copies of its template and all copies of its template's kin.
    fn strength(&self, mix: f64, copies: f64) -> f64 {
        let firings = |neuron: usize| {
            let [own, kin] = self.firings[neuron];
            (1.0 - mix) * own + mix * kin
        };
        let (mut sum, mut total) = (0.0, 0.0);
        for neuron in 0..self.others.len() {
            let own = firings(neuron);
            let index = |(place, other): (usize, usize)| {
                let number = if place == 0 { copies - 1.0 } else { copies };
                (jaccard(self.together[neuron][place].at(mix), own, firings(other)), number)
            };
            let others = self.others[neuron].iter().map(|other| *other as usize);
            let mut partners: Vec<(f64, f64)> =
                std::iter::once(neuron).chain(others).enumerate().map(index).collect();
            partners.sort_by(|a, b| b.0.total_cmp(&a.0));
            let mut open = PARTNERS as f64;
            for (index, number) in partners {
                sum += own * index * number.min(open) / PARTNERS as f64;
                open -= number.min(open);
            }
            total += own;
        }
        if total > 0.0 { sum / total } else { 0.0 }
    }

    /// The mixture with that strength, or the nearest there is. Strength falls as more is mixed.
    fn mix_for(&self, strength: f64, copies: f64) -> f64 {
        let (mut low, mut high) = (0.0, 1.0);
        for _ in 0..20 {
            let middle = f64::midpoint(low, high);
            if self.strength(middle, copies) > strength { low = middle } else { high = middle }
        }
        // No mixture at all where even that is too weak: `low` never moved.
        if low == 0.0 { 0.0 } else { f64::midpoint(low, high) }
    }
}
