//! Who is active with whom: exact counts for one layer from the bits of profiling traces.
//!
//! A pair's count is the popcount of the AND of two bit rows, n²/2 · tokens/64 word operations for
//! a layer. Very sparse layers of large models are counted faster from the other side, by walking
//! the neurons that are active in each token (Σ active²/2 steps). Both are exact, and a word and a
//! step take about the same time (1.0 and 0.7 ns where we measured), so [`LayerActivity`] takes
//! whichever are fewer.

use anyhow::{Result, ensure};

use super::NEURONS_MAX;

/// Bit rows counted together against every other row: few enough to stay in the first-level cache
/// while the other rows stream by once (16 rows of 12,288 tokens are 24 KiB).
const ROW_BLOCK: usize = 16;

/// The activity of one layer over all profiling tokens, a bit row per neuron.
#[derive(Debug, Clone)]
pub struct LayerActivity {
    neurons: usize,
    tokens: usize,
    words_per_row: usize,
    /// `neurons` rows of `words_per_row` words; bit `t % 64` of word `t / 64` = active in token t.
    rows: Vec<u64>,
    active_count: Vec<u32>,
    /// The same bits by token, kept only where counting pairs from them is less work.
    by_token: Option<TokenLists>,
}

/// For every token the ids of its active neurons, ascending.
#[derive(Debug, Clone)]
struct TokenLists {
    /// Start of each token's list in `neurons`; one more entry than tokens.
    begin: Vec<usize>,
    neurons: Vec<u32>,
}

impl TokenLists {
    fn of(&self, token: usize) -> &[u32] {
        &self.neurons[self.begin[token]..self.begin[token + 1]]
    }
}

impl LayerActivity {
    /// Transposes the bits of one layer from one or more traces, which are appended.
    ///
    /// Each trace is `(bits, tokens)` with `bits` row-major `[tokens][ceil(neurons / 8)]`; bit k of
    /// byte j, counted from the least significant, is neuron `8j + k`.
    ///
    /// # Errors
    /// `neurons` zero or over [`NEURONS_MAX`], a length that does not fit `tokens`, a bit set past
    /// the last neuron, or more than `u32::MAX` tokens in all.
    pub fn from_bits(neurons: usize, traces: &[(&[u8], usize)]) -> Result<Self> {
        let tokens = check_bits(neurons, traces)?;
        let words_per_row = tokens.div_ceil(64);
        let mut rows = vec![0u64; neurons * words_per_row];
        let mut active_count = vec![0u32; neurons];
        let mut steps = 0u64;
        for (token, bytes) in token_rows(neurons, traces).enumerate() {
            let mut active = 0u64;
            for neuron in active_neurons(bytes) {
                rows[neuron * words_per_row + token / 64] |= 1 << (token % 64);
                active_count[neuron] += 1;
                active += 1;
            }
            steps += active * active.saturating_sub(1) / 2;
        }
        let pairs = neurons as u64 * (neurons as u64 - 1) / 2;
        let words = pairs.saturating_mul(words_per_row as u64);
        let by_token = (steps < words).then(|| token_lists(neurons, tokens, traces));
        Ok(Self { neurons, tokens, words_per_row, rows, active_count, by_token })
    }

    /// Neurons of the layer.
    pub fn neurons(&self) -> usize {
        self.neurons
    }

    /// Tokens of all traces together.
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// In how many tokens each neuron is active, by neuron id.
    pub fn active_count(&self) -> &[u32] {
        &self.active_count
    }

    /// In how many tokens neuron `i` is active; 0 for an id outside the layer.
    pub fn count(&self, i: usize) -> u32 {
        self.active_count.get(i).copied().unwrap_or(0)
    }

    /// In how many tokens neurons `i` and `j` are both active; 0 for an id outside the layer.
    pub fn coactive(&self, i: usize, j: usize) -> u32 {
        if i < self.neurons && j < self.neurons { common_bits(self.row(i), self.row(j)) } else { 0 }
    }

    /// Calls `visit(i, j, count)` for every pair `i < j` of `neurons` that is ever active together
    /// (count > 0), by ascending i, then j. `neurons` must be ascending; ids outside the layer are
    /// passed over.
    pub fn visit_pairs(&self, neurons: &[u32], visit: impl FnMut(u32, u32, u32)) {
        let inside = neurons.partition_point(|&id| (id as usize) < self.neurons);
        let neurons = &neurons[..inside];
        match &self.by_token {
            Some(lists) => self.visit_by_token(lists, neurons, visit),
            None => self.visit_by_row(neurons, visit),
        }
    }

    /// The same bits by token, ceil(neurons / 8) bytes each, as in a trace.
    pub(crate) fn token_bits(&self) -> Vec<u8> {
        let bytes_per_token = self.neurons.div_ceil(8);
        let mut bits = vec![0; bytes_per_token * self.tokens];
        for neuron in 0..self.neurons {
            for token in set_bits(self.row(neuron)) {
                bits[token * bytes_per_token + neuron / 8] |= 1 << (neuron % 8);
            }
        }
        bits
    }

    /// Words of a bit row.
    pub(crate) fn words_per_row(&self) -> usize {
        self.words_per_row
    }

    /// The bits of a neuron by token; those past the last token are zero.
    pub(crate) fn row(&self, neuron: usize) -> &[u64] {
        &self.rows[neuron * self.words_per_row..][..self.words_per_row]
    }

    /// Popcounts: a block of rows against each later row in turn.
    fn visit_by_row(&self, neurons: &[u32], mut visit: impl FnMut(u32, u32, u32)) {
        let columns = neurons.len();
        // Only cells with column > row are written, and only those are read.
        let mut counts = vec![0u32; ROW_BLOCK * columns];
        for (index, block) in neurons.chunks(ROW_BLOCK).enumerate() {
            let first = index * ROW_BLOCK;
            for (column, &j) in neurons.iter().enumerate().skip(first + 1) {
                let row_j = self.row(j as usize);
                for (within, &i) in block.iter().enumerate().take(column - first) {
                    counts[within * columns + column] = common_bits(self.row(i as usize), row_j);
                }
            }
            for (within, &i) in block.iter().enumerate() {
                for column in first + within + 1..columns {
                    let count = counts[within * columns + column];
                    if count > 0 {
                        visit(i, neurons[column], count);
                    }
                }
            }
        }
    }

    /// Steps: for each token of neuron i, one for every later neuron of that token.
    fn visit_by_token(
        &self,
        lists: &TokenLists,
        neurons: &[u32],
        mut visit: impl FnMut(u32, u32, u32),
    ) {
        let mut counts = vec![0u32; self.neurons];
        for (index, &i) in neurons.iter().enumerate() {
            counts.fill(0);
            for token in set_bits(self.row(i as usize)) {
                for &j in lists.of(token).iter().rev().take_while(|&&j| j > i) {
                    counts[j as usize] += 1;
                }
            }
            for &j in &neurons[index + 1..] {
                let count = counts[j as usize];
                if count > 0 {
                    visit(i, j, count);
                }
            }
        }
    }
}

/// Checks what [`LayerActivity::from_bits`] promises to check; returns the tokens of all traces.
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

fn token_lists(neurons: usize, tokens: usize, traces: &[(&[u8], usize)]) -> TokenLists {
    let mut begin = Vec::with_capacity(tokens + 1);
    begin.push(0);
    let mut list = Vec::new();
    for bytes in token_rows(neurons, traces) {
        list.extend(active_neurons(bytes).map(|neuron| neuron as u32));
        begin.push(list.len());
    }
    TokenLists { begin, neurons: list }
}

fn common_bits(a: &[u64], b: &[u64]) -> u32 {
    a.iter().zip(b).map(|(a, b)| (a & b).count_ones()).sum()
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

#[cfg(test)]
#[path = "coactivation_tests.rs"]
mod tests;
