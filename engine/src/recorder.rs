//! What an engine is asked for: counted by neuron and sampled by token, in memory that does not grow, and taken out
//! as a trace file that `lnp relink --seen` reads.
//!
//! A recorder is told the active sets of each pass, layer by layer, ascending ([`Recorder::take`]); a pass is a token,
//! or all tokens of a prompt. It keeps
//!
//! - of some whole tokens the sets in all layers, as rows of bits: pairs can be counted from them;
//! - of each neuron in how many tokens it was asked for: all tokens count here. Before counts are of more than twice
//!   [`RecorderConfig::span_tokens`], all are halved.
//!
//! Which tokens are kept depends on the seed and the token's number alone, so that all layers agree without being told.
//! While fewer than the span were seen, every token so far is kept with the same probability (a reservoir); then each new one
//! is kept with probability `kept_tokens / span_tokens`, in place of any, so that one of `n` tokens ago is there still with
//! probability `exp(-n / span_tokens)`. A token that was not told of in all layers (its computation failed) is in no file, and
//! its number is the next one's.

mod trace_file;

use lnp_format::Shape;

use crate::arena::{Arena, ArenaSize};
use crate::engine::ActiveSet;
use crate::error::EngineError;
use crate::limits::{ARENA_ALIGN, RECORD_SPAN_TOKENS_DEFAULT, RECORD_SPAN_TOKENS_MAX};

/// No token.
const NONE: u64 = u64::MAX;

/// How much is recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecorderConfig {
    /// Tokens whose sets are kept: an eighth of a byte each for each neuron of the model.
    pub kept_tokens: u32,
    /// How many of the last tokens what is kept stands for: the mean age, once more were seen. At least `kept_tokens`, at most
    /// [`RECORD_SPAN_TOKENS_MAX`].
    pub span_tokens: u32,
    /// What chance goes by: the same seed and tokens give the same file.
    pub seed: u64,
}

impl RecorderConfig {
    /// So many tokens of the last [`RECORD_SPAN_TOKENS_DEFAULT`].
    pub fn new(kept_tokens: u32) -> Self {
        let span_tokens = RECORD_SPAN_TOKENS_DEFAULT.max(kept_tokens);
        Self { kept_tokens, span_tokens, seed: 0 }
    }

    fn check(&self) -> Result<(), EngineError> {
        let most = u64::from(RECORD_SPAN_TOKENS_MAX);
        let (kept, span) = (u64::from(self.kept_tokens), u64::from(self.span_tokens));
        let rule = |ok: bool, field, rule, found| {
            if ok { Ok(()) } else { Err(EngineError::Config { field, rule, found }) }
        };
        rule((1..=most).contains(&kept), "kept_tokens", "must be 1 to 32767", kept)?;
        let fits = (kept..=most).contains(&span);
        rule(fits, "span_tokens", "must be kept_tokens to 32767", span)
    }
}

/// The sets of a pass, as far as they were told.
#[derive(Clone, Copy, Debug, Default)]
struct Pass {
    /// Number of its first token.
    first: u64,
    tokens: u64,
    /// Layers told so far, and the least that may come.
    layers: u32,
    next_layer: u32,
}

/// Counts and a sample of what was asked for. See the [module](self).
#[derive(Debug)]
pub struct Recorder<'m> {
    config: RecorderConfig,
    layers: u32,
    neurons: u32,
    pass: Pass,
    /// Bits of the sets, `[layers][kept_tokens][row_bytes]`.
    rows: &'m mut [u8],
    /// By row: the token's number, and in how many layers it was told of.
    token_of_row: &'m mut [u64],
    layers_of_row: &'m mut [u32],
    /// Rows by number of their tokens, ascending where the tokens are whole: the first `used`.
    order: &'m mut [u32],
    used: usize,
    /// `[layers][neurons]`, and how many tokens they are of.
    counts: &'m mut [u16],
    counted_tokens: u64,
}

impl<'m> Recorder<'m> {
    /// A recorder that has seen nothing, for packs of a shape. `memory` is the caller's, of
    /// [`Recorder::required_bytes`], at any alignment.
    ///
    /// # Errors
    /// As [`Recorder::required_bytes`]; [`EngineError::ArenaTooSmall`].
    pub fn new(
        shape: &Shape,
        config: &RecorderConfig,
        memory: &'m mut [u8],
    ) -> Result<Self, EngineError> {
        let (expected, found) = (Self::required_bytes(shape, config)?, memory.len());
        if found < expected {
            return Err(EngineError::ArenaTooSmall { expected, found });
        }
        let kept = config.kept_tokens as usize;
        let mut arena = Arena::new(memory);
        let token_of_row: &mut [u64] = arena.take(kept)?;
        token_of_row.fill(NONE);
        Ok(Self {
            config: *config,
            layers: shape.layers,
            neurons: shape.neurons,
            pass: Pass::default(),
            token_of_row,
            layers_of_row: arena.take(kept)?,
            order: arena.take(kept)?,
            used: 0,
            counts: arena.take(shape.bundles() as usize)?,
            counted_tokens: 0,
            // as it is: a row is emptied when a token gets it
            rows: arena.take_bytes(rows_bytes(shape, config), ARENA_ALIGN)?,
        })
    }

    /// Bytes of memory: 2 + `kept_tokens` / 8 for each neuron of the model, and 16 for each token kept.
    ///
    /// # Errors
    /// [`EngineError::Config`] for a setting that breaks its rule.
    pub fn required_bytes(shape: &Shape, config: &RecorderConfig) -> Result<usize, EngineError> {
        config.check()?;
        let kept = config.kept_tokens as usize;
        let mut size = ArenaSize::default();
        size.add::<u64>(kept);
        size.add::<u32>(kept);
        size.add::<u32>(kept);
        size.add::<u16>(shape.bundles() as usize);
        size.add_bytes(rows_bytes(shape, config), ARENA_ALIGN);
        Ok(size.bytes())
    }

    /// Takes note of what was asked for in a layer, a set (ids strictly ascending) for each token of the pass. Layers come
    /// ascending; one that does not, or another number of sets, begins the next pass.
    ///
    /// # Errors
    /// [`EngineError::Layer`] and [`EngineError::Active`] for a layer or neuron that is not there, or ids that do not ascend;
    /// nothing is noted then.
    pub fn take<S: AsRef<[u32]>>(&mut self, layer: u32, sets: &[S]) -> Result<(), EngineError> {
        if layer >= self.layers {
            return Err(EngineError::Layer { found: layer, layers: self.layers });
        }
        for set in sets {
            ActiveSet::new(set.as_ref(), self.neurons)?;
        }
        if layer < self.pass.next_layer || self.pass.tokens != sets.len() as u64 {
            self.begin_pass(sets.len() as u64);
        }
        for (token, set) in (self.pass.first..).zip(sets) {
            self.count(layer, set.as_ref());
            self.keep(layer, token, set.as_ref());
        }
        self.pass.layers += 1;
        self.pass.next_layer = layer + 1;
        Ok(())
    }

    /// Tokens that were told of in all layers, kept or not.
    pub fn seen_tokens(&self) -> u64 {
        let Pass { first, tokens, layers, .. } = self.pass;
        first + if layers == self.layers { tokens } else { 0 }
    }

    /// In how many of [`Recorder::counted_tokens`] each neuron of a layer was asked for, halves rounded down.
    pub fn counts(&self, layer: u32) -> &[u16] {
        let neurons = self.neurons as usize;
        self.counts.chunks_exact(neurons.max(1)).nth(layer as usize).unwrap_or_default()
    }

    /// How many tokens the counts are of, after halving; of layers that were not told of them, fewer.
    pub fn counted_tokens(&self) -> u64 {
        self.counted_tokens
    }

    fn begin_pass(&mut self, tokens: u64) {
        let most = 2 * u64::from(self.config.span_tokens);
        while self.counted_tokens > 0 && self.counted_tokens + tokens > most {
            self.counted_tokens /= 2;
            self.counts.iter_mut().for_each(|count| *count /= 2);
        }
        self.counted_tokens += tokens;
        self.pass = Pass { first: self.seen_tokens(), tokens, layers: 0, next_layer: 0 };
    }

    fn count(&mut self, layer: u32, set: &[u32]) {
        let neurons = (self.neurons as usize).max(1);
        let counts = self.counts.chunks_exact_mut(neurons).nth(layer as usize);
        let counts = counts.unwrap_or_default();
        for neuron in set {
            if let Some(count) = counts.get_mut(*neuron as usize) {
                *count = count.saturating_add(1);
            }
        }
    }

    /// Writes the token's row of a layer, where it has one.
    fn keep(&mut self, layer: u32, token: u64, set: &[u32]) {
        let Some(row) = self.row_of(token) else { return };
        if self.pass.layers == 0 {
            self.give(row, token);
        }
        // Another token of the pass may have got the row.
        if self.token_of_row.get(row) != Some(&token) {
            return;
        }
        let row_bytes = row_bytes(self.neurons);
        let begin = (layer as usize * self.config.kept_tokens as usize + row) * row_bytes;
        let Some(bits) = self.rows.get_mut(begin..begin + row_bytes) else { return };
        bits.fill(0);
        for neuron in set {
            if let Some(byte) = bits.get_mut(*neuron as usize / 8) {
                *byte |= 1 << (neuron % 8);
            }
        }
        if let Some(layers) = self.layers_of_row.get_mut(row) {
            *layers += 1;
        }
    }

    /// Gives a row to a token, which is the newest.
    fn give(&mut self, row: usize, token: u64) {
        let (Some(owner), Some(layers)) =
            (self.token_of_row.get_mut(row), self.layers_of_row.get_mut(row))
        else {
            return;
        };
        let before = core::mem::replace(owner, token);
        *layers = 0;
        if before == NONE {
            if let Some(place) = self.order.get_mut(self.used) {
                *place = row as u32;
                self.used += 1;
            }
            return;
        }
        let used = self.order.get_mut(..self.used).unwrap_or_default();
        let from = used.iter().position(|other| *other as usize == row);
        if let Some(later) = from.and_then(|from| used.get_mut(from..)) {
            later.rotate_left(1);
        }
    }

    /// The row that a token gets, if any.
    fn row_of(&self, token: u64) -> Option<usize> {
        let kept = u64::from(self.config.kept_tokens);
        if token < kept {
            return Some(token as usize);
        }
        // One of so many numbers, of which the first are rows.
        let among = (token + 1).min(self.config.span_tokens.into());
        let drawn = (u128::from(chance(self.config.seed, token)) * u128::from(among)) >> 64;
        (drawn < kept.into()).then_some(drawn as usize)
    }
}

/// A number that seed and token give: the finaliser of SplitMix64 over its sequence.
const fn chance(seed: u64, token: u64) -> u64 {
    let mut z = seed.wrapping_add(token.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Bytes of a row of bits.
const fn row_bytes(neurons: u32) -> usize {
    neurons.div_ceil(8) as usize
}

fn rows_bytes(shape: &Shape, config: &RecorderConfig) -> usize {
    let of_layer = row_bytes(shape.neurons).saturating_mul(config.kept_tokens as usize);
    of_layer.saturating_mul(shape.layers as usize)
}
