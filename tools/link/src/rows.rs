//! The activity of one layer as bits: a row per neuron, a bit per token.

use anyhow::{Result, ensure};

use super::NEURONS_MAX;
use super::bits::transpose;

/// Bit rows take a multiple of so many words: a whole number of the CPU's longest vectors.
pub(super) const ROW_WORDS_MULTIPLE: usize = 8;

/// `neurons` rows of `words_per_row` words; bit `t % 64` of word `t / 64` = active in token t.
#[derive(Debug, Clone)]
pub(crate) struct BitRows {
    neurons: usize,
    tokens: usize,
    words_per_row: usize,
    words: Vec<u64>,
}

impl BitRows {
    /// Transposes the bits of one or more traces, which are appended: each is `(bits, tokens)`, bits
    /// row-major `[tokens][ceil(neurons / 8)]`.
    ///
    /// # Errors
    /// `neurons` zero or over [`NEURONS_MAX`], a length that does not fit `tokens`, a bit set past
    /// the last neuron, or more than `u32::MAX` tokens in all.
    pub(crate) fn from_bits(neurons: usize, traces: &[(&[u8], usize)]) -> Result<Self> {
        let tokens = check_bits(neurons, traces)?;
        let words = transpose_bits(neurons, tokens, traces);
        Ok(Self { neurons, tokens, words_per_row: words_per_row(tokens), words })
    }

    /// Rows.
    pub(crate) fn neurons(&self) -> usize {
        self.neurons
    }

    /// Bits of a row that stand for a token.
    pub(crate) fn tokens(&self) -> usize {
        self.tokens
    }

    /// Words of a bit row.
    pub(crate) fn words_per_row(&self) -> usize {
        self.words_per_row
    }

    /// The bits of a neuron by token; those past the last token are zero.
    pub(crate) fn row(&self, neuron: usize) -> &[u64] {
        &self.words[neuron * self.words_per_row..][..self.words_per_row]
    }

    /// The same bits by token, ceil(neurons / 8) bytes each, as in a trace.
    pub(crate) fn token_bits(&self) -> Vec<u8> {
        let bytes_per_token = self.neurons.div_ceil(8);
        let mut bytes = vec![0; bytes_per_token * self.tokens];
        for word in 0..self.tokens.div_ceil(64) {
            for first in (0..self.neurons).step_by(64) {
                let mut square = [0; 64];
                for (bits, neuron) in square.iter_mut().zip(first..self.neurons) {
                    *bits = self.row(neuron)[word];
                }
                transpose(&mut square);
                for (bits, token) in square.iter().zip(64 * word..self.tokens) {
                    let row = &mut bytes[token * bytes_per_token..][..bytes_per_token];
                    let place = &mut row[first / 8..];
                    let length = place.len().min(8);
                    place[..length].copy_from_slice(&bits.to_le_bytes()[..length]);
                }
            }
        }
        bytes
    }
}

/// Checks what [`BitRows::from_bits`] promises to check; returns the tokens of all traces.
fn check_bits(neurons: usize, traces: &[(&[u8], usize)]) -> Result<usize> {
    ensure!(
        (1..=NEURONS_MAX).contains(&neurons),
        "a layer of {neurons} neurons: 1 to {NEURONS_MAX} are possible"
    );
    let bytes_per_token = neurons.div_ceil(8);
    let mut total = 0usize;
    for &(bits, tokens) in traces {
        ensure!(
            tokens.checked_mul(bytes_per_token) == Some(bits.len()),
            "trace of {tokens} tokens and {neurons} neurons has {} bytes a layer, expected \
             {bytes_per_token} a token",
            bits.len()
        );
        total = total.saturating_add(tokens);
        let padding = bits.chunks_exact(bytes_per_token).position(|bytes| {
            !neurons.is_multiple_of(8)
                && bytes.last().is_some_and(|last| last >> (neurons % 8) != 0)
        });
        if let Some(token) = padding {
            anyhow::bail!("token {token} has a bit set past neuron {}: trace damaged", neurons - 1);
        }
    }
    ensure!(u32::try_from(total).is_ok(), "{total} profiling tokens: at most {} fit", u32::MAX);
    Ok(total)
}

fn words_per_row(tokens: usize) -> usize {
    tokens.div_ceil(64).next_multiple_of(ROW_WORDS_MULTIPLE)
}

/// The bits of every token as a row of words for every neuron.
fn transpose_bits(neurons: usize, tokens: usize, traces: &[(&[u8], usize)]) -> Vec<u64> {
    /// Groups of 64 neurons done together: what is read of a token is then a line of the cache.
    const GROUPS: usize = 8;
    let words_per_row = words_per_row(tokens);
    let mut rows = vec![0; neurons * words_per_row];
    let groups = neurons.div_ceil(64);
    for first in (0..groups).step_by(GROUPS) {
        let mut token_rows = token_rows(neurons, traces);
        for word in 0..words_per_row {
            let mut tokens = [&[][..]; 64];
            let mut count = 0;
            for (token, row) in tokens.iter_mut().zip(&mut token_rows) {
                (*token, count) = (row, count + 1);
            }
            for group in first..(first + GROUPS).min(groups) {
                let mut square = [0; 64];
                for (bits, token) in square.iter_mut().zip(&tokens[..count]) {
                    *bits = word_of(&token[8 * group..]);
                }
                transpose(&mut square);
                let neurons = 64 * group..(64 * group + 64).min(neurons);
                for (neuron, bits) in neurons.zip(square) {
                    rows[neuron * words_per_row + word] = bits;
                }
            }
        }
    }
    rows
}

/// The first eight bytes, little-endian; zeros where there are fewer.
fn word_of(bytes: &[u8]) -> u64 {
    match bytes.first_chunk() {
        Some(bytes) => u64::from_le_bytes(*bytes),
        None => bytes.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte)),
    }
}

/// The bytes of each token over all traces, in order.
fn token_rows<'a>(
    neurons: usize,
    traces: &'a [(&'a [u8], usize)],
) -> impl Iterator<Item = &'a [u8]> {
    traces.iter().flat_map(move |(bits, _)| bits.chunks_exact(neurons.div_ceil(8)))
}

/// The neurons set in one token's bytes, ascending.
pub(crate) fn active_neurons(bytes: &[u8]) -> impl Iterator<Item = usize> {
    bytes
        .iter()
        .enumerate()
        .filter(|(_, byte)| **byte != 0)
        .flat_map(|(j, &byte)| (0..8).filter(move |k| byte >> k & 1 == 1).map(move |k| 8 * j + k))
}

/// The positions of the set bits of a row, ascending.
pub(crate) fn set_bits(row: &[u64]) -> impl Iterator<Item = usize> {
    row.iter().enumerate().flat_map(|(index, &word)| {
        let mut rest = word;
        std::iter::from_fn(move || {
            let bit = (rest != 0).then(|| rest.trailing_zeros() as usize)?;
            rest &= rest - 1;
            Some(64 * index + bit)
        })
    })
}
