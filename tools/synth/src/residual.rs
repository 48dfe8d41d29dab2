//! The residual stream: what a token puts into it, what readers find there, what writers add.
//!
//! Before it is turned ([`Rotation`]), the first coordinates of a hidden state are the *latents*: few, of falling
//! variance, alike for neighbouring tokens. The others have a *code*, each token its own. FFN rows read the latents,
//! and a little of the rest; the head reads the code. Where a model has no biases, a *common* direction, the same for all
//! tokens, stands for the thresholds: in 32 raw coordinates, which the norms before attention leave out.

use crate::activity::Likeness;
use crate::random::{Purpose, below, fill_normal, stream};
use crate::rotation::Rotation;
use crate::shapes::{Family, Shape};
use crate::tokens::Words;

/// Share of a token's variance that is in the latents; the rest is its code.
pub(crate) const LATENT_SHARE: f64 = 0.5;
/// Square of the common direction, where the rest has variance 1 at first.
const COMMON_SQUARE: f64 = 0.5;
/// Coordinates that the common direction lies in.
const COMMON_COORDINATES: usize = 32;
/// Variance that all FFNs together add to that of the tokens, 1: neighbouring layers' inputs then have a cosine of 0.98
/// (Kairox, 2026, tells that of real ones).
const FFN_SQUARE: f64 = 1.0;
/// The same where activations are squared: a few of them are then much larger than the others, and would make whole tokens
/// more active than others.
const FFN_SQUARE_OF_SQUARES: f64 = 0.3;
/// The same of attention, where it sees one token; the mean of several is smaller.
const ATTENTION_SQUARE: f64 = 0.3;
/// Tokens of a stretch in which what changes slowly turns into something else.
const TOPIC_TOKENS: usize = 64;
/// Latents that a column of a writing matrix goes to, beside its own direction.
pub(crate) const LATENTS_OF_COLUMN: usize = 2;
/// Hidden states are so many times as wide as they have latents.
const WIDTH_OF_LATENTS: usize = 8;

/// The plan of a model's residual stream.
pub(crate) struct Residual {
    pub(crate) likeness: Likeness,
    /// Of the hidden state.
    pub(crate) rotation: Rotation,
    /// Of the embeddings, which may be narrower.
    pub(crate) embedding_rotation: Rotation,
    /// Deviations of the latents; their squares add up to 1.
    pub(crate) deviations: Vec<f32>,
    seed: u64,
    layers: usize,
    words: Words,
    has_common: bool,
    norm_after: bool,
    ffn_square: f64,
}

impl Residual {
    pub(crate) fn new(shape: &Shape, seed: u64) -> Self {
        let likeness = Likeness::of(shape.family);
        let latents = shape.hidden / WIDTH_OF_LATENTS;
        let raw: Vec<f64> =
            (0..latents).map(|at| libm::pow(at as f64 + 2.0, -likeness.decay)).collect();
        let whole = libm::sqrt(raw.iter().map(|deviation| deviation * deviation).sum());
        Self {
            likeness,
            rotation: Rotation::new(shape.hidden, seed),
            embedding_rotation: Rotation::new(shape.embedding_width(), seed),
            deviations: raw.into_iter().map(|deviation| (deviation / whole) as f32).collect(),
            seed,
            layers: shape.layers,
            words: Words::of(shape.vocab, seed),
            has_common: !shape.family.is_opt(),
            norm_after: shape.embedding_width() < shape.hidden,
            ffn_square: match shape.family {
                Family::Arcee => FFN_SQUARE_OF_SQUARES,
                _ => FFN_SQUARE,
            },
        }
    }

    fn hidden(&self) -> usize {
        self.rotation.width()
    }

    /// Share of the common direction in the square of a layer's hidden state, before its FFN.
    fn common_share(&self, layer: usize) -> f64 {
        if !self.has_common {
            return 0.0;
        }
        let others =
            1.0 + (self.ffn_square + ATTENTION_SQUARE * 0.3) * layer as f64 / self.layers as f64;
        COMMON_SQUARE / (COMMON_SQUARE + others)
    }

    /// Whether the common direction has this coordinate, and its sign there.
    pub(crate) fn common_sign(&self, coordinate: usize) -> f32 {
        let step = self.hidden() / COMMON_COORDINATES;
        match (
            self.has_common && coordinate.is_multiple_of(step),
            (coordinate / step).is_multiple_of(2),
        ) {
            (false, _) => 0.0,
            (true, true) => 1.0,
            (true, false) => -1.0,
        }
    }

    fn common_coordinate(&self, square: f64) -> f32 {
        libm::sqrt(square * self.hidden() as f64 / COMMON_COORDINATES as f64) as f32
    }

    /// Gives a row so much of the common direction, whatever it had of it.
    fn set_common(&self, row: &mut [f32], size: f32) {
        let coordinates = || (0..row.len()).filter(|at| self.common_sign(*at) != 0.0);
        let found: f32 = coordinates().map(|at| row[at] * self.common_sign(at)).sum();
        let missing = size - found / COMMON_COORDINATES as f32;
        for (coordinate, value) in row.iter_mut().enumerate() {
            *value += missing * self.common_sign(coordinate);
        }
    }

    /// The embedding of a token: variance 1 a coordinate, but for the common direction.
    pub(crate) fn embedding(&self, token: usize, scratch: &mut [f32], row: &mut [f32]) {
        let place = self.words.place(token);
        self.code(place, 1.0, scratch);
        let latents = self.latents(place);
        let size = libm::sqrt(LATENT_SHARE * self.hidden() as f64) as f32;
        for ((value, latent), deviation) in scratch.iter_mut().zip(latents).zip(&self.deviations) {
            *value += size * deviation * latent;
        }
        self.embedding_rotation.apply(scratch, row);
        if self.has_common {
            self.set_common(row, self.common_coordinate(COMMON_SQUARE));
        }
    }

    /// The row of the head for a token: it finds the codes of the two before it in the cycle, so that after each token
    /// come the next or the next but one, as what the layers added decides. A text goes on for the whole cycle.
    pub(crate) fn head(&self, token: usize, scratch: &mut [f32], row: &mut [f32]) {
        /// The logit of what comes next; others are about 0.
        const LOGIT: f64 = 12.0;
        let Some([one, two]) = self.words.before(token) else {
            // never next
            row.fill(0.0);
            return;
        };
        let added =
            if self.norm_after { libm::exp(self.ffn_square) } else { 1.0 + self.ffn_square };
        let common = if self.has_common { COMMON_SQUARE } else { 0.0 };
        let size = (1.0 - LATENT_SHARE) * self.hidden() as f64 / libm::sqrt(added + common);
        let factor = (LOGIT / size) as f32;
        self.code(one, factor, scratch);
        self.code(two, factor, row);
        for (sum, other) in scratch.iter_mut().zip(&*row) {
            *sum += other;
        }
        self.embedding_rotation.apply(scratch, row);
        if self.has_common {
            self.set_common(row, 0.0);
        }
    }

    /// What is a token's own, times a factor.
    fn code(&self, place: usize, factor: f32, out: &mut [f32]) {
        let (latents, others) = out.split_at_mut(self.deviations.len());
        // all of the variance in fewer coordinates
        let wide = self.hidden() as f64 / others.len() as f64;
        let deviation = libm::sqrt((1.0 - LATENT_SHARE) * wide) as f32;
        let mut random = stream(self.seed, Purpose::Code, [place as u64, 0]);
        latents.fill(0.0);
        fill_normal(&mut random, deviation * factor, others);
    }

    /// The latents of a place in the cycle, each of variance 1: a slow part, which turns from one stretch's topic to the
    /// next one's, and a quick part, alike for neighbours.
    fn latents(&self, place: usize) -> Vec<f32> {
        let count = self.deviations.len();
        let numbers = |purpose: Purpose, place: usize| {
            let mut numbers = vec![0.0; count];
            fill_normal(&mut stream(self.seed, purpose, [place as u64, 0]), 1.0, &mut numbers);
            numbers
        };
        let Likeness { topic, neighbour, .. } = self.likeness;
        let angle =
            (place % TOPIC_TOKENS) as f64 / TOPIC_TOKENS as f64 * std::f64::consts::FRAC_PI_2;
        // b / (1 + b^2) is the correlation of neighbours where each takes b times the other's number
        let b = (1.0 - libm::sqrt(1.0 - 4.0 * neighbour * neighbour)) / (2.0 * neighbour);
        let quick = libm::sqrt((1.0 - topic) / (1.0 + b * b));
        let stretches = self.words.count().div_ceil(TOPIC_TOKENS);
        let stretch = place / TOPIC_TOKENS;
        let before = (place + self.words.count() - 1) % self.words.count();
        let parts = [
            (libm::sqrt(topic) * libm::cos(angle), numbers(Purpose::Topic, stretch)),
            (
                libm::sqrt(topic) * libm::sin(angle),
                numbers(Purpose::Topic, (stretch + 1) % stretches),
            ),
            (quick, numbers(Purpose::Latents, place)),
            (quick * b, numbers(Purpose::Latents, before)),
        ];
        (0..count)
            .map(|at| parts.iter().map(|(size, numbers)| *size as f32 * numbers[at]).sum())
            .collect()
    }

    /// The direction of a cluster among the latents: what it reads has variance 1 for latents of theirs.
    pub(crate) fn direction(&self, layer: usize, cluster: u32) -> Vec<f32> {
        let mut numbers = vec![0.0; self.deviations.len()];
        let mut random = stream(self.seed, Purpose::Cluster, [layer as u64, cluster.into()]);
        fill_normal(&mut random, 1.0, &mut numbers);
        self.scaled_to(1.0, &mut numbers);
        numbers
    }

    /// Scales a direction so that what it reads has this variance.
    pub(crate) fn scaled_to(&self, variance: f64, direction: &mut [f32]) {
        let of_number = |(number, deviation): (&f32, &f32)| f64::from(number * deviation).powi(2);
        let found: f64 = direction.iter().zip(&self.deviations).map(of_number).sum();
        let factor = libm::sqrt(variance / found.max(1e-30)) as f32;
        direction.iter_mut().for_each(|number| *number *= factor);
    }

    /// How an FFN row of a layer is scaled, for what its norm gives.
    pub(crate) fn reading(&self, layer: usize) -> Reading {
        let common = self.common_share(layer);
        let width = self.hidden() as f64;
        Reading {
            latents: 1.0 / libm::sqrt(width * LATENT_SHARE * (1.0 - common)),
            rest: libm::sqrt(
                self.likeness.unseen / (width * (1.0 - LATENT_SHARE) * (1.0 - common)),
            ),
            threshold: if self.has_common {
                -1.0 / libm::sqrt(common * width * COMMON_COORDINATES as f64)
            } else {
                0.0
            },
        }
    }

    /// Deviation of the weights of queries, keys and values, for products of variance 1.
    pub(crate) fn attention_deviation(&self, layer: usize) -> f64 {
        1.0 / libm::sqrt(self.hidden() as f64 * (1.0 - self.common_share(layer)))
    }

    /// A row of the FFN, of which a pre-activation of variance 1 around minus the threshold comes (without a common
    /// direction around 0: a bias does it).
    pub(crate) fn reader(
        &self,
        reading: &Reading,
        own: &mut OwnRow<'_>,
        scratch: &mut [f32],
        row: &mut [f32],
    ) {
        fill_normal(&mut own.random, reading.rest as f32, scratch);
        let of_cluster = libm::sqrt(self.likeness.of_cluster) as f32;
        let of_own = libm::sqrt(1.0 - self.likeness.of_cluster);
        let mut latents = vec![0.0; own.direction.len()];
        fill_normal(&mut own.random, 1.0, &mut latents);
        self.scaled_to(of_own * of_own, &mut latents);
        for (latent, common) in latents.iter_mut().zip(own.direction) {
            *latent += of_cluster * common;
        }
        self.scaled_to(1.0 - self.likeness.unseen, &mut latents);
        for (value, latent) in scratch.iter_mut().zip(latents) {
            *value = latent * reading.latents as f32;
        }
        self.rotation.apply(scratch, row);
        if self.has_common {
            self.set_common(row, reading.threshold as f32 * own.threshold);
        }
    }

    /// How the columns of a matrix write, which take numbers whose squares add up to `squares`.
    pub(crate) fn writing(&self, what: Writer, squares: f64, columns: usize) -> Writing {
        let added = match what {
            Writer::Ffn => self.ffn_square,
            Writer::Attention => ATTENTION_SQUARE,
        } / self.layers as f64;
        let latents = self.deviations.len() as f64;
        let to_each = columns as f64 * LATENTS_OF_COLUMN as f64 / latents;
        Writing {
            rest: libm::sqrt(added * (1.0 - LATENT_SHARE) / squares) as f32,
            latents: libm::sqrt(
                added * LATENT_SHARE * self.hidden() as f64 / (squares / columns as f64 * to_each),
            ) as f32,
        }
    }

    /// Where each column of a writing matrix goes to: latents, with factors.
    pub(crate) fn targets(&self, name: u64, columns: usize) -> Vec<(u32, f32)> {
        let mut random = stream(self.seed, Purpose::Writing, [name, 0]);
        let mut target = || {
            let latent = below(&mut random, 2 * self.deviations.len());
            let sign = if latent.is_multiple_of(2) { 1.0 } else { -1.0 };
            ((latent / 2) as u32, sign * self.deviations[latent / 2])
        };
        (0..columns * LATENTS_OF_COLUMN).map(|_| target()).collect()
    }
}

/// What writes into the residual stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Writer {
    Ffn,
    Attention,
}

/// Factors of what a row reads.
pub(crate) struct Reading {
    latents: f64,
    /// Deviation of the numbers that read all else.
    rest: f64,
    /// Of the threshold, in the common direction.
    threshold: f64,
}

/// What a row of the FFN has of its own.
pub(crate) struct OwnRow<'a> {
    pub(crate) random: rand_xoshiro::Xoshiro256PlusPlus,
    /// Its cluster's.
    pub(crate) direction: &'a [f32],
    pub(crate) threshold: f32,
}

/// Factors of what a column writes.
pub(crate) struct Writing {
    /// Deviation of its own direction.
    pub(crate) rest: f32,
    pub(crate) latents: f32,
}
