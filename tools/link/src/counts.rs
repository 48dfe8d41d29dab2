//! Counting pairs: in how many tokens two neurons are both active, for every pair of a layer.
//!
//! Column j of the matrix of counts is the sum, over the tokens in which neuron i is active, of the
//! bits of j. So 512 columns at a time are laid out as lines of bits, one per token; row i adds up
//! the lines of its own tokens, all 512 at once: the sums are kept as bit planes (see `bits`), and
//! only at the end of a block of tokens turned into numbers and added to the counts. A line costs
//! about one addition of a plane, so a row takes `active * neurons / 2 / 512` of them: the sparser
//! the layer, the faster. A block of tokens is as long as its lines stay in the second-level cache.
//!
//! Counts take 4 bytes a pair. Where all of a layer's fit into the memory allowed, they are counted
//! once and kept; else a strip of rows at a time, anew for every pass over the pairs.

use std::ops::Range;

use pulp::{Arch, Simd, WithSimd};

use super::bits::{add_one, add_two, planes_to_bytes, transpose};
use super::rows::{BitRows, set_bits};

/// 64-bit words of a line.
const LINE_WORDS: usize = 8;
/// Columns counted together.
const GROUP: usize = 64 * LINE_WORDS;
/// Words of a block of tokens: its lines, 64 bytes each, fill half a second-level cache.
const BLOCK_WORDS: usize = 128;
/// Lines added up together: a row's tokens are filled up to a multiple with the line of zeros.
const LINES: usize = 16;
/// Planes that hold the sums of a block: it has fewer tokens than 2^16.
const PLANES: usize = 16;
const _: () = assert!(64 * BLOCK_WORDS + LINES < 1 << PLANES);

/// The bits of a group of columns in one token. Column `64 a + b` is bit a of byte b: so
/// [`planes_to_bytes`] yields the sums in the order of the columns.
type Line = [u64; LINE_WORDS];

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
    pub(super) fn count(activity: &BitRows, members: &[u32], first: usize, end: usize) -> Self {
        Self::count_on(Arch::new(), activity, members, first, end)
    }

    /// [`Strip::count`] with these instructions; the result doesn't depend on them.
    fn count_on(arch: Arch, activity: &BitRows, members: &[u32], first: usize, end: usize) -> Self {
        let columns = members.len();
        let counts = vec![0; Self::pairs(first, end, columns)];
        let mut strip = Self { first, columns, counts };
        let words = activity.words_per_row();
        // The last line stays zero.
        let mut lines = vec![[0; LINE_WORDS]; 64 * BLOCK_WORDS.min(words) + 1];
        for word in (0..words).step_by(BLOCK_WORDS) {
            let block = word..(word + BLOCK_WORDS).min(words);
            let zeros = lines.len() - 1;
            let tokens = TokenLists::new(activity, &members[first..end], block.clone(), zeros);
            for group in (first / GROUP * GROUP..columns).step_by(GROUP) {
                let group_end = (group + GROUP).min(columns);
                lay_out(activity, &members[group..group_end], block.clone(), &mut lines);
                let columns = group..group_end;
                arch.dispatch(Counting {
                    strip: &mut strip,
                    columns,
                    tokens: &tokens,
                    lines: &lines,
                });
            }
        }
        strip
    }

    /// The counts of a row with the columns of a range, as far as they come after it; and the first
    /// such column.
    fn part(&mut self, row: usize, columns: &Range<usize>) -> (usize, &mut [u32]) {
        let from = columns.start.max(row + 1);
        let place = self.place(row) + from - row - 1;
        (from, &mut self.counts[place..place + columns.end - from])
    }
}

/// For each row of a strip the tokens of a block in which it is active, from the block's first,
/// filled up to a multiple of [`LINES`] with the line of zeros.
struct TokenLists {
    tokens: Vec<u16>,
    /// Where each row's list begins, and the last ends.
    begin: Vec<usize>,
}

impl TokenLists {
    fn new(activity: &BitRows, rows: &[u32], block: Range<usize>, zeros: usize) -> Self {
        let (mut tokens, mut begin) = (Vec::new(), vec![0]);
        for &id in rows {
            let bits = &activity.row(id as usize)[block.clone()];
            tokens.extend(set_bits(bits).map(|token| token as u16));
            tokens.resize(tokens.len().next_multiple_of(LINES), zeros as u16);
            begin.push(tokens.len());
        }
        Self { tokens, begin }
    }

    fn of(&self, row: usize) -> &[u16] {
        &self.tokens[self.begin[row]..self.begin[row + 1]]
    }
}

/// Adds the lines of every row's tokens to its counts of a group of columns.
struct Counting<'a> {
    strip: &'a mut Strip,
    columns: Range<usize>,
    tokens: &'a TokenLists,
    lines: &'a [Line],
}

impl WithSimd for Counting<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { strip, columns, tokens, lines } = self;
        let rows = tokens.begin.len() - 1;
        let first = strip.first;
        for row in first..(first + rows).min(columns.end - 1) {
            let tokens = tokens.of(row - first);
            if tokens.is_empty() {
                continue;
            }
            let mut planes = [[0; LINE_WORDS]; PLANES];
            let used = PLANES - (tokens.len() as u16).leading_zeros() as usize;
            for vector in 0..LINE_WORDS / S::U64_LANES {
                add_lines(simd, lines, tokens, vector, &mut planes[..used]);
            }
            let (from, counts) = strip.part(row, &columns);
            for (digit, planes) in planes[..used].chunks(8).enumerate() {
                let mut sums = [[0; LINE_WORDS]; 8];
                sums[..planes.len()].copy_from_slice(planes);
                add_sums(&mut sums, from - columns.start, 8 * digit as u32, counts);
            }
        }
    }
}

/// Adds up the lines of some tokens, a multiple of [`LINES`] and at least so many, in one vector of
/// the planes.
#[inline(always)]
fn add_lines<S: Simd>(simd: S, lines: &[Line], tokens: &[u16], vector: usize, planes: &mut [Line]) {
    let zero = simd.splat_u64s(0);
    let mut sums = [zero; PLANES];
    let (mut ones, mut twos, mut fours, mut eights) = (zero, zero, zero, zero);
    for tokens in tokens.as_chunks::<LINES>().0 {
        let (mut a, mut b, mut c) = ([zero; 8], [zero; 4], [zero; 2]);
        for i in 0..8 {
            let one = S::as_simd_u64s(&lines[usize::from(tokens[2 * i])]).0[vector];
            let other = S::as_simd_u64s(&lines[usize::from(tokens[2 * i + 1])]).0[vector];
            a[i] = add_two(simd, &mut ones, one, other);
        }
        for i in 0..4 {
            b[i] = add_two(simd, &mut twos, a[2 * i], a[2 * i + 1]);
        }
        for i in 0..2 {
            c[i] = add_two(simd, &mut fours, b[2 * i], b[2 * i + 1]);
        }
        let mut carry = add_two(simd, &mut eights, c[0], c[1]);
        for sum in &mut sums[4..planes.len()] {
            carry = add_one(simd, sum, carry);
        }
    }
    sums[..4].copy_from_slice(&[ones, twos, fours, eights]);
    for (plane, sum) in planes.iter_mut().zip(&sums) {
        S::as_mut_simd_u64s(plane).0[vector] = *sum;
    }
}

/// Adds the numbers in eight planes, times 2^`shift`, to the counts of the columns from `skip` on.
#[inline(always)]
fn add_sums(planes: &mut [Line; 8], skip: usize, shift: u32, counts: &mut [u32]) {
    planes_to_bytes(planes);
    let mut sums = [0u8; GROUP];
    for (bytes, word) in sums.chunks_exact_mut(8).zip(planes.as_flattened()) {
        bytes.copy_from_slice(&word.to_le_bytes());
    }
    for (count, sum) in counts.iter_mut().zip(&sums[skip..]) {
        // Wrapping, so that no build checks each of them: a count is at most the tokens, a u32.
        *count = count.wrapping_add(u32::from(*sum) << shift);
    }
}

/// The bits of a group of columns as lines, one a token of the block.
fn lay_out(activity: &BitRows, columns: &[u32], block: Range<usize>, lines: &mut [Line]) {
    for byte in (0..GROUP / 8).step_by(8) {
        for (index, word) in block.clone().enumerate() {
            // Row r of the square is bit r of this word of a line.
            let mut square = [0; 64];
            for (r, row) in square.iter_mut().enumerate() {
                if let Some(&id) = columns.get(64 * (r % 8) + byte + r / 8) {
                    *row = activity.row(id as usize)[word];
                }
            }
            transpose(&mut square);
            for (line, bits) in lines[64 * index..][..64].iter_mut().zip(square) {
                line[byte / 8] = bits;
            }
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Whatever the instructions; the counts themselves are checked in `coactivation_tests`.
    #[test]
    fn vectors_count_as_words_do() {
        let (neurons, tokens) = (1_100_usize, 700);
        let mut state = 1u64;
        let mut bits = vec![0u8; neurons.div_ceil(8) * tokens];
        for row in bits.chunks_mut(neurons.div_ceil(8)) {
            for neuron in 0..neurons {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                row[neuron / 8] |= u8::from((state >> 54) as usize > neuron) << (neuron % 8);
            }
        }
        let activity = BitRows::from_bits(neurons, &[(&bits, tokens)]).unwrap();
        let members: Vec<u32> = (0..neurons as u32).filter(|id| id % 5 > 0).collect();
        for (first, end) in [(0, members.len()), (0, 1), (511, 514), (700, members.len())] {
            let vectors = Strip::count(&activity, &members, first, end);
            let words = Strip::count_on(Arch::Scalar, &activity, &members, first, end);
            assert_eq!(vectors.counts, words.counts);
        }
    }
}
