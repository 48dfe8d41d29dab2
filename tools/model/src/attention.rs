//! Causal attention over what is remembered of all tokens so far, the same for all families.

use candle_core::{Device, Module, Result, Tensor};
use candle_nn::ops::softmax_last_dim;
use rayon::prelude::*;

use super::loader::Norm;
use super::remembered::Rows;
use super::with_numbers;

/// Keys that a thread goes through at least: fewer numbers are not worth waking one up.
const THREAD_NUMBERS_MIN: usize = 1 << 17;

/// How the columns of queries, keys and values divide into heads, and how these are compared.
#[derive(Clone, Copy)]
pub(crate) struct Heads {
    pub(crate) heads: usize,
    pub(crate) kv_heads: usize,
    pub(crate) head_dim: usize,
    /// Scores are multiplied by it.
    pub(crate) scale: f64,
    /// Scores become `cap * tanh(scores / cap)`.
    pub(crate) cap: Option<f64>,
}

impl Heads {
    /// Each head of x [tokens, heads * head_dim] normed, if there is a norm.
    pub(crate) fn normed(&self, x: Tensor, norm: Option<&Norm>) -> Result<Tensor> {
        let Some(norm) = norm else { return Ok(x) };
        let shape = x.dims2()?;
        norm.forward(&x.reshape(((), self.head_dim))?)?.reshape(shape)
    }

    /// Attention of queries [tokens, heads * head_dim] over keys and values
    /// [positions, kv_heads * head_dim]; the result has the shape of the queries.
    pub(crate) fn attend(&self, q: &Tensor, kv: [Rows<'_>; 2], mask: &Mask) -> Result<Tensor> {
        let Self { heads, kv_heads, head_dim, .. } = *self;
        let [k, v] = kv.map(|all| all.after(mask.begin));
        if q.dim(0)? == 1 {
            return self.attend_one(q, k, v);
        }
        let (tokens, positions) = (q.dim(0)?, k.count());
        let (k, v) = (k.tensor()?, v.tensor()?);
        // Consecutive query heads share a key-value head: stacked as more rows of the same
        // matrix, they need no copies of it.
        let rows = heads / kv_heads * tokens;
        let q = (q * self.scale)?.reshape((tokens, heads, head_dim))?.transpose(0, 1)?;
        let q = q.contiguous()?.reshape((kv_heads, rows, head_dim))?;
        let k = k.reshape((positions, kv_heads, head_dim))?.permute((1, 2, 0))?;
        let v = v.reshape((positions, kv_heads, head_dim))?.transpose(0, 1)?;
        let mut scores = q.matmul(&k)?.reshape((heads, tokens, positions))?;
        if let Some(cap) = self.cap {
            scores = capped(&scores, cap)?;
        }
        if let Some(hidden) = &mask.hidden {
            scores = scores.broadcast_add(hidden)?;
        }
        let weights = softmax_last_dim(&scores)?.reshape((kv_heads, rows, positions))?;
        let out = weights.matmul(&v)?.reshape((heads, tokens, head_dim))?.transpose(0, 1)?;
        out.contiguous()?.reshape((tokens, heads * head_dim))
    }
}

impl Heads {
    /// The same for a single token, which sees all: in one pass over keys and one over values, without copies of them.
    /// Where there are many, threads share the heads.
    fn attend_one(&self, q: &Tensor, k: Rows<'_>, v: Rows<'_>) -> Result<Tensor> {
        let Self { heads, kv_heads, head_dim, .. } = *self;
        let numbers = k.count() * kv_heads * head_dim;
        let threads = rayon::current_num_threads().min(numbers / THREAD_NUMBERS_MIN).max(1);
        // Heads that share keys and values stay together.
        let each = kv_heads.div_ceil(threads);
        let mut out = vec![0.0_f32; heads * head_dim];
        with_numbers(q, |q| {
            let width = each * (heads / kv_heads) * head_dim;
            let parts = out.par_chunks_mut(width).zip(q.par_chunks(width)).enumerate();
            parts.for_each(|(part, (out, q))| self.attend_heads(part * each, q, [k, v], out));
        })?;
        Tensor::from_vec(out, (1, heads * head_dim), &Device::Cpu)
    }

    /// Of the heads of some keys and values, from `first` on: their queries, and what comes out.
    fn attend_heads(&self, first: usize, q: &[f32], [k, v]: [Rows<'_>; 2], out: &mut [f32]) {
        let head_dim = self.head_dim;
        let (heads, share) = (q.len() / head_dim, self.heads / self.kv_heads);
        let columns = first * head_dim..(first + heads / share) * head_dim;
        let mut scores = vec![0.0_f32; k.count() * heads];
        k.each(columns.clone(), |position, k| {
            let scores = &mut scores[position * heads..][..heads];
            for (head, score) in scores.iter_mut().enumerate() {
                let key = &k[head / share * head_dim..][..head_dim];
                *score = self.score(dot(&q[head * head_dim..][..head_dim], key));
            }
        });
        softmax_by_head(&mut scores, heads);
        v.each(columns, |position, v| {
            let scores = &scores[position * heads..][..heads];
            let outs = out.chunks_exact_mut(head_dim);
            for (head, (score, out)) in scores.iter().zip(outs).enumerate() {
                let value = &v[head / share * head_dim..][..head_dim];
                out.iter_mut().zip(value).for_each(|(out, value)| *out += score * value);
            }
        });
    }

    fn score(&self, product: f32) -> f32 {
        let score = product * self.scale as f32;
        self.cap.map_or(score, |cap| {
            let cap = cap as f32;
            cap * (score / cap).tanh()
        })
    }
}

/// Softmax over the positions, for each of the heads that lie beside each other.
fn softmax_by_head(scores: &mut [f32], heads: usize) {
    for head in 0..heads {
        let of_head = || (head..).step_by(heads);
        let most =
            scores.iter().skip(head).step_by(heads).fold(f32::NEG_INFINITY, |a, b| a.max(*b));
        let mut sum = 0.0;
        for at in of_head().take(scores.len() / heads) {
            scores[at] = (scores[at] - most).exp();
            sum += scores[at];
        }
        for at in of_head().take(scores.len() / heads) {
            scores[at] /= sum;
        }
    }
}

/// In eight sums, as wide as the registers of any machine may be.
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<8>(), b.as_chunks::<8>());
    let mut sums = [0.0; 8];
    for (a, b) in a.iter().zip(b) {
        sums.iter_mut().zip(a).zip(b).for_each(|((sum, a), b)| *sum += a * b);
    }
    let rest: f32 = a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum();
    sums.iter().sum::<f32>() + rest
}

/// `cap * tanh(x / cap)`: no value beyond the cap.
pub(crate) fn capped(x: &Tensor, cap: f64) -> Result<Tensor> {
    (x / cap)?.tanh()? * cap
}

/// What the tokens at hand see of all up to them: none a later one, and none beyond its window.
pub(crate) struct Mask {
    /// The positions before this are beyond every window.
    begin: usize,
    /// What is added to the scores [tokens, position + tokens - begin]; None for a single token, which
    /// sees all from `begin` on.
    hidden: Option<Tensor>,
}

impl Mask {
    pub(crate) fn new(position: usize, tokens: usize, window: Option<usize>) -> Result<Self> {
        let first_seen = |at: usize| window.map_or(0, |window| (at + 1).saturating_sub(window));
        let begin = first_seen(position);
        if tokens == 1 {
            return Ok(Self { begin, hidden: None });
        }
        let positions = position + tokens;
        let mask: Vec<f32> = (position..positions)
            .flat_map(|at| {
                let seen = first_seen(at)..=at;
                (begin..positions)
                    .map(move |other| if seen.contains(&other) { 0.0 } else { f32::NEG_INFINITY })
            })
            .collect();
        let hidden = Tensor::from_vec(mask, (tokens, positions - begin), &Device::Cpu)?;
        Ok(Self { begin, hidden: Some(hidden) })
    }
}
