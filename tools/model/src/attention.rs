//! Causal attention over what is remembered of all tokens so far, the same for all families.

use candle_core::{Device, Module, Result, Tensor};
use candle_nn::ops::softmax_last_dim;
use lnp_kernels::KernelError;
use rayon::prelude::*;

use super::loader::Norm;
use super::remembered::Span;
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
    pub(crate) fn attend(&self, q: &Tensor, kv: [Span<'_>; 2], mask: &Mask) -> Result<Tensor> {
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
        let mut scores = q.matmul(&k.transpose(1, 2)?)?.reshape((heads, tokens, positions))?;
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
    fn attend_one(&self, q: &Tensor, k: Span<'_>, v: Span<'_>) -> Result<Tensor> {
        let Self { heads, kv_heads, head_dim, .. } = *self;
        let numbers = k.count() * kv_heads * head_dim;
        let threads = rayon::current_num_threads().min(numbers / THREAD_NUMBERS_MIN).max(1);
        // Heads that share keys and values stay together.
        let each = kv_heads.div_ceil(threads);
        let mut out = vec![0.0_f32; heads * head_dim];
        let done = with_numbers(q, |q| {
            let width = each * (heads / kv_heads) * head_dim;
            let parts = out.par_chunks_mut(width).zip(q.par_chunks(width)).enumerate();
            parts.try_for_each(|(part, (out, q))| self.attend_heads(part * each, q, [k, v], out))
        })?;
        done.map_err(|error| candle_core::Error::Msg(error.to_string()))?;
        Tensor::from_vec(out, (1, heads * head_dim), &Device::Cpu)
    }

    /// Of the heads of some keys and values, from `first` on: their queries, and what comes out.
    fn attend_heads(
        &self,
        first: usize,
        q: &[f32],
        [k, v]: [Span<'_>; 2],
        out: &mut [f32],
    ) -> std::result::Result<(), KernelError> {
        let (share, count, columns) = (self.heads / self.kv_heads, k.count(), k.columns());
        // Of the queries that share keys and values.
        let mut queries = vec![0.0; share * columns];
        let mut scores = vec![0.0; share * count];
        let mut sum = vec![0.0; columns];
        let width = share * self.head_dim;
        for (head, (q, out)) in q.chunks_exact(width).zip(out.chunks_exact_mut(width)).enumerate() {
            let each = q.chunks_exact(self.head_dim).zip(queries.chunks_exact_mut(columns));
            each.for_each(|(q, query)| query[..q.len()].copy_from_slice(q));
            k.products(first + head, &queries, &mut scores)?;
            let weights = scores.chunks_exact_mut(count.max(1));
            for (weights, out) in weights.zip(out.chunks_exact_mut(self.head_dim)) {
                weights.iter_mut().for_each(|score| *score = self.score(*score));
                softmax(weights);
                sum.fill(0.0);
                v.add(first + head, weights, &mut sum)?;
                out.copy_from_slice(&sum[..out.len()]);
            }
        }
        Ok(())
    }

    fn score(&self, product: f32) -> f32 {
        let score = product * self.scale as f32;
        self.cap.map_or(score, |cap| {
            let cap = cap as f32;
            cap * (score / cap).tanh()
        })
    }
}

/// Scores to weights, over the positions.
fn softmax(scores: &mut [f32]) {
    let most = scores.iter().fold(f32::NEG_INFINITY, |most, score| most.max(*score));
    let mut sum = 0.0;
    for score in scores.iter_mut() {
        *score = (*score - most).exp();
        sum += *score;
    }
    scores.iter_mut().for_each(|weight| *weight /= sum);
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
