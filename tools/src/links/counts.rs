//! Counting pairs: in how many tokens two neurons are both active, for every pair of a layer.
//!
//! Column j of the matrix of counts is the sum, over the tokens in which neuron i is active, of the
//! bits of j. So 128 columns at a time are laid out as bytes, a line of 128 per token; row i adds up
//! the lines of its own tokens, in bytes as long as they cannot overflow, and the sums go into the
//! counts. That is `active * neurons / 2` additions a row, 16 to an instruction on any x86-64: the
//! sparser the layer, the faster. A block of tokens is as long as its lines stay in the second-level
//! cache.
//!
//! Counts take 4 bytes a pair. Where all of a layer's fit into the memory allowed, they are counted
//! once and kept; else a strip of rows at a time, anew for every pass over the pairs.

use super::coactivation::{LayerActivity, set_bits};

/// Columns counted together.
const GROUP: usize = 128;
/// Lines added up in bytes before one could overflow.
const LINES_MAX: usize = u8::MAX as usize;
/// Tokens of a block: from words, whose lines fill half a second-level cache at most.
const BLOCK_WORDS: std::ops::RangeInclusive<usize> = 16..=64;
/// Mean active tokens of a row that a block aims at: adding a row's sums to the counts then costs
/// little beside adding its lines up.
const BLOCK_ACTIVE: usize = 200;

/// The counts of consecutive rows, each with the columns after it.
#[derive(Debug, Clone)]
pub(super) struct Strip {
    first: usize,
    columns: usize,
    counts: Vec<u32>,
}

impl Strip {
    /// Pairs of rows `first..end` of so many columns.
    fn pairs(first: usize, end: usize, columns: usize) -> usize {
        let before = |row: usize| row * columns - row * (row + 1) / 2;
        before(end) - before(first)
    }

    fn place(&self, row: usize) -> usize {
        Self::pairs(self.first, row, self.columns)
    }

    /// The counts of a row with the columns `row + 1..`.
    pub(super) fn row(&self, row: usize) -> &[u32] {
        let place = self.place(row);
        &self.counts[place..place + self.columns - row - 1]
    }

    /// Counts rows `first..end` of the matrix of `members`.
    pub(super) fn count(
        activity: &LayerActivity,
        members: &[u32],
        first: usize,
        end: usize,
    ) -> Self {
        let columns = members.len();
        let counts = vec![0; Self::pairs(first, end, columns)];
        let mut strip = Self { first, columns, counts };
        let words = activity.words_per_row();
        let step = block_words(activity, &members[first..end]);
        let mut lines = vec![[0u8; GROUP]; 64 * step];
        for word in (0..words).step_by(step) {
            let block = word..(word + step).min(words);
            let (begin, tokens) = token_lists(activity, &members[first..end], block.clone());
            for group in (first / GROUP * GROUP..columns).step_by(GROUP) {
                let group_end = (group + GROUP).min(columns);
                lay_out(activity, &members[group..group_end], block.clone(), &mut lines);
                for row in first..end.min(group_end - 1) {
                    let tokens = &tokens[begin[row - first]..begin[row - first + 1]];
                    strip.add(row, group, group_end, tokens, &lines);
                }
            }
        }
        strip
    }

    /// Adds the lines of a row's tokens to its counts of a group of columns.
    fn add(
        &mut self,
        row: usize,
        group: usize,
        group_end: usize,
        tokens: &[u16],
        lines: &[[u8; GROUP]],
    ) {
        let from = group.max(row + 1);
        let place = self.place(row) + from - row - 1;
        let counts = &mut self.counts[place..place + group_end - from];
        for tokens in tokens.chunks(LINES_MAX) {
            // Wrapping, so that no build checks each of them: LINES_MAX is why none overflows.
            let mut sums = [0u8; GROUP];
            for &token in tokens {
                for (sum, bit) in sums.iter_mut().zip(&lines[usize::from(token)]) {
                    *sum = sum.wrapping_add(*bit);
                }
            }
            for (count, sum) in counts.iter_mut().zip(&sums[from - group..]) {
                *count = count.wrapping_add(u32::from(*sum));
            }
        }
    }
}

/// Words of a block of tokens, by how active the rows are.
fn block_words(activity: &LayerActivity, rows: &[u32]) -> usize {
    let active: usize = rows.iter().map(|&id| activity.count(id as usize) as usize).sum();
    let per_token = active / rows.len().max(1);
    let tokens = BLOCK_ACTIVE * activity.tokens() / per_token.max(1);
    (tokens / 64).clamp(*BLOCK_WORDS.start(), *BLOCK_WORDS.end())
}

/// For each row the tokens of a block in which it is active, from the block's first; and where each
/// row's list begins.
fn token_lists(
    activity: &LayerActivity,
    rows: &[u32],
    block: std::ops::Range<usize>,
) -> (Vec<usize>, Vec<u16>) {
    let (mut begin, mut tokens) = (vec![0], Vec::new());
    for &id in rows {
        let bits = &activity.row(id as usize)[block.clone()];
        tokens.extend(set_bits(bits).map(|token| token as u16));
        begin.push(tokens.len());
    }
    (begin, tokens)
}

/// The bits of a group of columns as bytes, a line a token of the block.
fn lay_out(
    activity: &LayerActivity,
    columns: &[u32],
    block: std::ops::Range<usize>,
    lines: &mut [[u8; GROUP]],
) {
    for line in lines.iter_mut().take(64 * block.len()) {
        *line = [0; GROUP];
    }
    for (column, &id) in columns.iter().enumerate() {
        for token in set_bits(&activity.row(id as usize)[block.clone()]) {
            lines[token][column] = 1;
        }
    }
}

/// Rows of a strip that takes at most `bytes_max`, but one at least.
pub(super) fn strip_end(first: usize, columns: usize, bytes_max: u64) -> usize {
    let pairs_max = usize::try_from(bytes_max / 4).unwrap_or(usize::MAX);
    let (mut low, mut high) = (first + 1, columns);
    while low < high {
        let middle = low + (high - low).div_ceil(2);
        if Strip::pairs(first, middle, columns) <= pairs_max {
            low = middle
        } else {
            high = middle - 1
        }
    }
    low
}
