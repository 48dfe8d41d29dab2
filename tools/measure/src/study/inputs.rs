//! The traces of a study: profiles to make orders from, tests to try them on.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use rayon::prelude::*;

use lnp_link::trace::{TraceReader, active};
use lnp_link::{Part, Profile};

/// What all profiles together are called.
pub const MIXED: &str = "mixed";

/// A profile that orders are made from.
pub struct Learned {
    /// Its corpus, or [`MIXED`].
    pub corpus: String,
    /// Its traces.
    pub profile: Profile,
    /// In how many of its tokens each neuron is active, by layer.
    pub active_counts: Vec<Vec<u32>>,
}

impl Learned {
    /// Each trace alone, and where there are several all of them as [`MIXED`].
    ///
    /// # Errors
    /// A trace that cannot be read, traces of several models, or two of one corpus.
    pub fn open(paths: &[PathBuf], memory: u64) -> Result<Vec<Self>> {
        let all = Profile::open(paths)?;
        let corpora = all.corpora();
        check_names("--traces", &corpora)?;
        let mut learned = Vec::new();
        for (path, corpus) in paths.iter().zip(corpora) {
            let profile = Profile::open(std::slice::from_ref(path))?.with_memory(memory);
            learned.push(Self::of(corpus, profile)?);
        }
        if paths.len() > 1 {
            learned.push(Self::of(MIXED.into(), all.with_memory(memory))?);
        }
        Ok(learned)
    }

    fn of(corpus: String, profile: Profile) -> Result<Self> {
        let counts = |layer| Ok(profile.activity(layer, Part::All)?.active_count().to_vec());
        let active_counts: Vec<Result<Vec<u32>>> =
            (0..profile.layers()).into_par_iter().map(counts).collect();
        let active_counts = active_counts.into_iter().collect::<Result<_>>()?;
        Ok(Self { corpus, profile, active_counts })
    }

    /// `matched` where the test is of the same corpus, else `mismatched`; or `mixed`.
    pub fn relation(&self, test: &Test) -> &'static str {
        match self.corpus.as_str() {
            MIXED => "mixed",
            corpus if corpus == test.corpus => "matched",
            _ => "mismatched",
        }
    }
}

/// The first tokens of a test trace, in memory.
pub struct Test {
    /// Its corpus.
    pub corpus: String,
    /// Neurons of every layer.
    pub neurons: usize,
    /// Tokens.
    pub tokens: usize,
    /// Tokens that are resampled together.
    pub block_tokens: usize,
    /// Bits by layer: ceil(neurons / 8) bytes a token.
    pub layers: Vec<Vec<u8>>,
    /// Whether it was made up by `lnp synth`.
    pub synthetic: bool,
}

impl Test {
    /// Least blocks that resampling needs.
    const BLOCKS_MIN: usize = 16;

    /// Reads the first `tokens` tokens of each trace.
    ///
    /// # Errors
    /// A trace that cannot be read, is not of the profiles' model or is one of their files, or two of
    /// one corpus.
    pub fn read(paths: &[PathBuf], tokens: usize, learned: &[Learned]) -> Result<Vec<Self>> {
        let sources = learned.last().context("no profile")?;
        let (layers, neurons) = (sources.profile.layers(), sources.profile.neurons());
        let mut tests = Vec::new();
        for path in paths {
            let trace = TraceReader::open(path)?;
            ensure!(
                (trace.layers(), trace.neurons()) == (layers, neurons)
                    && trace.model().unwrap_or("unknown") == sources.profile.model(),
                "{}: of {} layers of {} neurons of {}, the profiles are of {layers} of {neurons} of {}: \
                 study one model at a time",
                path.display(),
                trace.layers(),
                trace.neurons(),
                trace.model().unwrap_or("unknown"),
                sources.profile.model(),
            );
            let hash = trace.sha256_hex()?;
            let same = sources.profile.sources.iter().any(|source| source.sha256 == hash);
            ensure!(!same, "{}: is a profile too; test on another text", path.display());
            tests.push(Self::of(&trace, tokens)?);
        }
        let corpora: Vec<String> = tests.iter().map(|test| test.corpus.clone()).collect();
        check_names("--tests", &corpora)?;
        Ok(tests)
    }

    fn of(trace: &TraceReader, tokens: usize) -> Result<Self> {
        let tokens = trace.tokens().min(tokens);
        let bytes = tokens * trace.neurons().div_ceil(8);
        let bits = |layer| -> Result<Vec<u8>> {
            let mut bits = trace.layer_bits(layer)?;
            bits.truncate(bytes);
            Ok(bits)
        };
        Ok(Self {
            corpus: lnp_link::profile::corpus_of(trace),
            neurons: trace.neurons(),
            tokens,
            block_tokens: trace.window().min(tokens / Self::BLOCKS_MIN).max(1),
            layers: (0..trace.layers()).map(bits).collect::<Result<_>>()?,
            synthetic: trace.is_synthetic(),
        })
    }

    /// Ids, ascending, that are active in a layer.
    pub fn active(&self, layer: usize, token: usize) -> impl Iterator<Item = u32> + '_ {
        active(&self.layers[layer], self.neurons, token)
    }

    /// Blocks that are resampled.
    pub fn blocks(&self) -> usize {
        self.tokens.div_ceil(self.block_tokens)
    }

    /// Tokens of each block.
    pub fn tokens_of_blocks(&self) -> Vec<f64> {
        let begins = (0..self.tokens).step_by(self.block_tokens);
        begins.map(|begin| self.block_tokens.min(self.tokens - begin) as f64).collect()
    }
}

/// Corpora are told apart by name.
fn check_names(option: &str, corpora: &[String]) -> Result<()> {
    for (at, corpus) in corpora.iter().enumerate() {
        ensure!(
            !corpora[..at].contains(corpus) && corpus != MIXED,
            "{option}: two traces of `{corpus}`: give one of each corpus, under its own name"
        );
    }
    Ok(())
}
