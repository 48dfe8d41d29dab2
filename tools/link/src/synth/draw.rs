//! Drawing the bits of a synthetic layer.

use std::ops::Range;

use anyhow::{Context, Result, ensure};
use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::Rng;

use super::population::{ONE, Population};
use super::{Split, shuffle};

/// What the bits of a layer are drawn by.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The template of each synthetic neuron.
    pub template: Vec<u32>,
    /// The real token that each synthetic one comes from.
    pub tokens: Vec<u32>,
    /// Where the draws come from.
    pub random: Xoshiro256PlusPlus,
}

/// A template for each of `width` neurons, in random order; all are used equally often, to one.
pub fn templates(real_neurons: usize, width: usize, mut random: Xoshiro256PlusPlus) -> Vec<u32> {
    let mut chosen: Vec<u32> = (0..real_neurons as u32).collect();
    shuffle(&mut random, &mut chosen);
    let mut template: Vec<u32> = chosen.into_iter().cycle().take(width).collect();
    shuffle(&mut random, &mut template);
    template
}

/// Real windows one after the other: all of the split in random order, then again in another. The
/// last of a trace is left out where it is shorter than the others.
///
/// # Errors
/// No window for that split.
pub fn source_tokens(
    windows: &[Range<usize>],
    split: Split,
    tokens: usize,
    mut random: Xoshiro256PlusPlus,
) -> Result<Vec<u32>> {
    let longest = windows.iter().map(Range::len).max().unwrap_or(0);
    let whole = windows.iter().filter(|window| window.len() == longest).enumerate();
    let mut windows: Vec<&Range<usize>> =
        whole.filter(|(number, _)| split.has(*number)).map(|(_, window)| window).collect();
    ensure!(
        windows.iter().any(|window| !window.is_empty()),
        "the traces have too few whole windows for --split {}: trace more text",
        split.name()
    );
    let mut source = Vec::new();
    let had = source.try_reserve_exact(tokens + longest);
    had.with_context(|| format!("no memory for {tokens} tokens"))?;
    while source.len() < tokens {
        shuffle(&mut random, &mut windows);
        for window in &windows {
            if source.len() < tokens {
                source.extend(window.start as u32..window.end as u32);
            }
        }
    }
    source.truncate(tokens);
    Ok(source)
}

impl Plan {
    /// The bits, a row a token; `bits` are those of the population's real layer.
    pub fn draw(mut self, population: &Population, bits: &[u8]) -> Vec<u8> {
        let row_bytes = self.template.len().div_ceil(8);
        let mut drawn = vec![0; row_bytes * self.tokens.len()];
        let (begin, children) = self.children(population.neurons());
        let mut shares = vec![0.0; population.neurons()];
        let mut chances = vec![0; population.neurons()];
        let renewal = (population.renewal() * f64::from(ONE)).round() as u32;
        let mut numbers: Vec<u32> =
            self.template.iter().map(|_| (self.random.next_u64() >> 48) as u32).collect();
        for (row, token) in drawn.chunks_exact_mut(row_bytes).zip(&self.tokens) {
            population.chances(bits, *token as usize, &mut shares, &mut chances);
            for (template, chance) in chances.iter().enumerate().filter(|(_, chance)| **chance > 0)
            {
                for &neuron in &children[begin[template]..begin[template + 1]] {
                    // Two draws from one of 64 bits: whether to renew, and by what.
                    let word = self.random.next_u64();
                    let number = &mut numbers[neuron as usize];
                    if (word as u32 & (ONE - 1)) < renewal {
                        *number = (word >> 48) as u32;
                    }
                    row[neuron as usize / 8] |= u8::from(*number < *chance) << (neuron % 8);
                }
            }
        }
        drawn
    }

    /// The neurons of each template, and where each template's begin.
    fn children(&self, templates: usize) -> (Vec<usize>, Vec<u32>) {
        let mut begin = vec![0; templates + 1];
        for template in &self.template {
            begin[*template as usize + 1] += 1;
        }
        for template in 0..templates {
            begin[template + 1] += begin[template];
        }
        let mut children: Vec<u32> = (0..self.template.len() as u32).collect();
        children.sort_by_key(|neuron| self.template[*neuron as usize]);
        (begin, children)
    }
}
