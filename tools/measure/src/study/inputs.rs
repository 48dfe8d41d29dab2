//! The traces of a study: profiles to make orders from, tests to try them on.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context, Result, ensure};
use rayon::prelude::*;

use lnp_link::trace::{TraceReader, active};
use lnp_link::{Part, Profile};

/// What all profiles together are called.
pub const MIXED: &str = "mixed";

/// A trace as it is given: `FILE`, or `NAME=FILE` where the name of its text is given too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// The file.
    pub path: PathBuf,
    /// What its text is called.
    pub name: Option<String>,
}

impl FromStr for Source {
    type Err = std::convert::Infallible;

    /// `NAME=FILE`, where the name has no `/` in it and no file is called all of that.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let named = text.split_once('=').filter(|(name, file)| {
            !name.is_empty() && !name.contains('/') && !file.is_empty() && !Path::new(text).exists()
        });
        Ok(match named {
            Some((name, file)) => Self { path: file.into(), name: Some(name.to_owned()) },
            None => Self { path: text.into(), name: None },
        })
    }
}

/// The text that a trace is of, as far as that is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Corpus {
    /// Its name; of a text that nothing names, the file's.
    pub name: String,
    /// Whether the name says which text it is, so that it can be compared with others.
    pub known: bool,
}

impl Corpus {
    /// The name given; else what the trace's metadata say, where that is more than its `split`; else
    /// what is left of the file's name without its endings and the split.
    fn of(source: &Source, trace: &TraceReader) -> Self {
        let split = trace.split().unwrap_or_default();
        // `lnp trace --text test.txt --split test` takes `test` for the corpus: that is no text's name.
        let recorded = trace.corpus().filter(|name| {
            !name.is_empty() && *name != "unknown" && *name != split && !SPLITS.contains(name)
        });
        let named = source.name.as_deref().or(recorded).map(|name| name.replace(',', " "));
        let by_file = || from_file(&source.path, split);
        match named.or_else(by_file) {
            Some(name) => Self { name, known: true },
            None => {
                let file = source.path.file_name().unwrap_or_default();
                Self { name: file.to_string_lossy().replace(',', " "), known: false }
            }
        }
    }
}

/// What traces are for, which is no text's name.
const SPLITS: [&str; 3] = ["profile", "test", "train"];

/// `alpaca` of `alpaca.profile.safetensors`; nothing of `profile.trace`.
fn from_file(path: &Path, split: &str) -> Option<String> {
    let name = path.file_name()?.to_string_lossy().replace(',', " ");
    let says = |part: &&str| {
        !["safetensors", "trace", split].contains(part)
            && !SPLITS.contains(part)
            && !part.is_empty()
    };
    let parts: Vec<&str> = name.split('.').filter(says).collect();
    (!parts.is_empty()).then(|| parts.join("."))
}

/// How the text that an order is made from stands to the one that it is tried on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Relation {
    /// The same corpus.
    Matched,
    /// Another one.
    Mismatched,
    /// All profiles together.
    Mixed,
    /// Which text one of them is of is not known.
    Unknown,
}

impl Relation {
    /// Its name in tables.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Matched => "matched",
            Self::Mismatched => "mismatched",
            Self::Mixed => "mixed",
            Self::Unknown => "unknown",
        }
    }
}

/// A profile that orders are made from.
pub struct Learned {
    /// Its corpus; none of all profiles together, [`MIXED`].
    pub text: Option<Corpus>,
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
    pub fn open(sources: &[Source], memory: u64) -> Result<Vec<Self>> {
        let paths: Vec<PathBuf> = sources.iter().map(|source| source.path.clone()).collect();
        let all = Profile::open(&paths)?;
        let corpus = |source: &Source| Ok(Corpus::of(source, &TraceReader::open(&source.path)?));
        let corpora = sources.iter().map(corpus).collect::<Result<Vec<_>>>()?;
        check_names("--traces", &corpora)?;
        let mut learned = Vec::new();
        for (path, corpus) in paths.iter().zip(corpora) {
            let profile = Profile::open(std::slice::from_ref(path))?.with_memory(memory);
            learned.push(Self::of(Some(corpus), profile)?);
        }
        if paths.len() > 1 {
            learned.push(Self::of(None, all.with_memory(memory))?);
        }
        Ok(learned)
    }

    fn of(text: Option<Corpus>, profile: Profile) -> Result<Self> {
        let counts = |layer| Ok(profile.activity(layer, Part::All)?.active_count().to_vec());
        let active_counts: Vec<Result<Vec<u32>>> =
            (0..profile.layers()).into_par_iter().map(counts).collect();
        let active_counts = active_counts.into_iter().collect::<Result<_>>()?;
        Ok(Self { text, profile, active_counts })
    }

    /// What it is called in tables.
    pub fn name(&self) -> &str {
        self.text.as_ref().map_or(MIXED, |text| &text.name)
    }

    /// How its text stands to a test's.
    pub fn relation(&self, test: &Test) -> Relation {
        match &self.text {
            None => Relation::Mixed,
            Some(text) if !text.known || !test.text.known => Relation::Unknown,
            Some(text) if text.name == test.text.name => Relation::Matched,
            Some(_) => Relation::Mismatched,
        }
    }
}

/// The first tokens of a test trace, in memory.
pub struct Test {
    /// Its corpus.
    pub text: Corpus,
    /// The file's name, without folders.
    pub file: String,
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
    pub fn read(sources: &[Source], tokens: usize, learned: &[Learned]) -> Result<Vec<Self>> {
        let profile = &learned.last().context("no profile")?.profile;
        let (layers, neurons) = (profile.layers(), profile.neurons());
        let mut tests = Vec::new();
        for source in sources {
            let path = &source.path;
            let trace = TraceReader::open(path)?;
            ensure!(
                (trace.layers(), trace.neurons()) == (layers, neurons)
                    && trace.model().unwrap_or("unknown") == profile.model(),
                "{}: of {} layers of {} neurons of {}, the profiles are of {layers} of {neurons} of {}: \
                 study one model at a time",
                path.display(),
                trace.layers(),
                trace.neurons(),
                trace.model().unwrap_or("unknown"),
                profile.model(),
            );
            let hash = trace.sha256_hex()?;
            let same = profile.sources.iter().any(|profile| profile.sha256 == hash);
            ensure!(!same, "{}: is a profile too; test on another text", path.display());
            tests.push(Self::of(source, &trace, tokens)?);
        }
        let corpora: Vec<Corpus> = tests.iter().map(|test: &Self| test.text.clone()).collect();
        check_names("--tests", &corpora)?;
        Ok(tests)
    }

    fn of(source: &Source, trace: &TraceReader, tokens: usize) -> Result<Self> {
        let tokens = trace.tokens().min(tokens);
        let bytes = tokens * trace.neurons().div_ceil(8);
        let bits = |layer| -> Result<Vec<u8>> {
            let mut bits = trace.layer_bits(layer)?;
            bits.truncate(bytes);
            Ok(bits)
        };
        Ok(Self {
            text: Corpus::of(source, trace),
            file: source.path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
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
fn check_names(option: &str, corpora: &[Corpus]) -> Result<()> {
    for (at, Corpus { name, .. }) in corpora.iter().enumerate() {
        ensure!(
            name != MIXED,
            "{option}: `{MIXED}` is what all profiles together are called: name the trace's text \
             otherwise, as in NAME=FILE"
        );
        ensure!(
            !corpora[..at].iter().any(|other| other.name == *name),
            "{option}: two traces of `{name}`: give one of each corpus, under its own name, as in NAME=FILE"
        );
    }
    Ok(())
}

#[cfg(test)]
#[path = "inputs_tests.rs"]
mod tests;
