//! The traces that links are made from, read a layer at a time.

use std::ops::Range;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use super::coactivation::{LayerActivity, PAIR_BYTES_DEFAULT};
use super::file::TraceSource;
use crate::trace::TraceReader;

/// Parts that a profile is split into for cross-validation.
pub const FOLDS: usize = 2;

/// Which tokens of a profile: windows of a trace go to the parts in turn, so that no text is in two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// All of them.
    All,
    /// Those of one fold.
    Only(usize),
    /// Those of all folds but one.
    Except(usize),
}

impl Part {
    fn has_window(self, window: usize) -> bool {
        match self {
            Self::All => true,
            Self::Only(fold) => window % FOLDS == fold,
            Self::Except(fold) => window % FOLDS != fold,
        }
    }
}

/// How many times the pairs of a layer may be counted anew because not all fit into memory.
const BANDS_MAX: u64 = 1024;

/// Traces of one model, open.
pub struct Profile {
    traces: Vec<TraceReader>,
    /// Bytes for the counts of pairs of one layer.
    pair_bytes_max: u64,
    /// Where they come from.
    pub sources: Vec<TraceSource>,
}

impl Profile {
    /// Opens traces, which must be of one model, and hashes them.
    ///
    /// # Errors
    /// No trace, one that cannot be read, or traces that do not belong together.
    pub fn open(paths: &[PathBuf]) -> Result<Self> {
        let traces: Vec<TraceReader> =
            paths.iter().map(|path| TraceReader::open(path)).collect::<Result<_>>()?;
        let first = traces.first().context("no traces")?;
        for (path, trace) in paths.iter().zip(&traces) {
            check_same_model(first, &paths[0], trace, path)?;
        }
        let sources = paths.iter().map(|path| TraceSource::of_file(path)).collect::<Result<_>>()?;
        Ok(Self { traces, pair_bytes_max: PAIR_BYTES_DEFAULT, sources })
    }

    /// The same, with so many bytes for counts of pairs, shared by the layers that rayon's threads
    /// link at once: half of a layer's share for the counts, half for its sorted pairs.
    pub fn with_memory(self, bytes: u64) -> Self {
        Self { pair_bytes_max: bytes / self.layers_at_once() / 2, ..self }
    }

    /// Least bytes for [`Profile::with_memory`] where pairs are counted: with less, a layer's would be
    /// counted anew more than 1,024 times.
    pub fn memory_min(&self) -> u64 {
        let neurons = self.neurons() as u64;
        let counts = 4_u64.saturating_mul(neurons).saturating_mul(neurons);
        (counts / BANDS_MAX).saturating_mul(2 * self.layers_at_once())
    }

    fn layers_at_once(&self) -> u64 {
        rayon::current_num_threads().min(self.layers()) as u64
    }

    /// Layers of the model.
    pub fn layers(&self) -> usize {
        self.traces[0].layers()
    }

    /// Neurons of every layer.
    pub fn neurons(&self) -> usize {
        self.traces[0].neurons()
    }

    /// Tokens of all traces.
    pub fn tokens(&self) -> u64 {
        self.traces.iter().map(|trace| trace.tokens() as u64).sum()
    }

    /// Name of the model, or `unknown`.
    pub fn model(&self) -> &str {
        self.traces[0].model().unwrap_or("unknown")
    }

    /// Whether a trace among them was made up by `lnp synth`.
    pub fn is_synthetic(&self) -> bool {
        self.traces.iter().any(TraceReader::is_synthetic)
    }

    /// What each trace's text is, without commas.
    pub fn corpora(&self) -> Vec<String> {
        self.traces.iter().map(corpus_of).collect()
    }

    /// Tokens of a window, of the first trace.
    pub fn window(&self) -> usize {
        self.traces[0].window()
    }

    /// The tokens of all traces, put one after the other as in [`Profile::bits`], in windows of the
    /// first trace's length; the last of a trace may be shorter.
    pub fn windows(&self) -> Vec<Range<usize>> {
        let (mut windows, mut begin) = (Vec::new(), 0);
        for trace in &self.traces {
            let end = begin + trace.tokens();
            let starts = (begin..end).step_by(self.window());
            windows.extend(starts.map(|start| start..(start + self.window()).min(end)));
            begin = end;
        }
        windows
    }

    /// Least windows of a trace: each trace needs one for every part.
    pub fn windows_min(&self) -> usize {
        let windows = |trace: &TraceReader| trace.tokens().div_ceil(trace.window());
        self.traces.iter().map(windows).min().unwrap_or(0)
    }

    /// The activity of a layer over a part of the tokens.
    ///
    /// # Errors
    /// A trace cannot be read or is damaged.
    pub fn activity(&self, layer: usize, part: Part) -> Result<LayerActivity> {
        let bits = self.bits(layer, part)?;
        let row_bytes = self.neurons().div_ceil(8);
        let slices: Vec<(&[u8], usize)> =
            bits.iter().map(|bits| (bits.as_slice(), bits.len() / row_bytes)).collect();
        let activity = LayerActivity::from_bits(self.neurons(), &slices)?;
        Ok(activity.with_pair_bytes(self.pair_bytes_max))
    }

    /// In how many tokens each neuron of a layer was active, and of how many: a trace that is a sample of more tells it of
    /// all of them.
    ///
    /// # Errors
    /// A trace cannot be read or is damaged.
    pub fn counted(&self, layer: usize) -> Result<(Vec<u32>, u64)> {
        let (mut sums, mut all) = (vec![0_u32; self.neurons()], 0);
        for trace in &self.traces {
            let (counts, tokens) = match trace.counted(layer)? {
                Some(counted) => counted,
                None => {
                    let bits = trace.layer_bits(layer)?;
                    let slices = [(bits.as_slice(), trace.tokens())];
                    let activity = LayerActivity::from_bits(self.neurons(), &slices)?;
                    (activity.active_count().to_vec(), trace.tokens() as u64)
                }
            };
            sums.iter_mut().zip(counts).for_each(|(sum, count)| *sum = sum.saturating_add(count));
            all += tokens;
        }
        Ok((sums, all))
    }

    /// The bits of a layer over a part of the tokens, trace by trace, a row a token.
    ///
    /// # Errors
    /// A trace cannot be read or is damaged.
    pub fn bits(&self, layer: usize, part: Part) -> Result<Vec<Vec<u8>>> {
        let of_trace =
            |trace: &TraceReader| Ok(self.of_part(trace, trace.layer_bits(layer)?, part));
        self.traces.iter().map(of_trace).collect()
    }

    /// The same of what is read: the sets predicted from a layer's own input where a trace has them, else what is active.
    ///
    /// # Errors
    /// A trace cannot be read or is damaged.
    pub fn read_bits(&self, layer: usize, part: Part) -> Result<Vec<Vec<u8>>> {
        let of_trace = |trace: &TraceReader| -> Result<Vec<u8>> {
            let bits = match trace.predicted_bits(layer, 0)? {
                Some(predicted) => predicted,
                None => trace.layer_bits(layer)?,
            };
            Ok(self.of_part(trace, bits, part))
        };
        self.traces.iter().map(of_trace).collect()
    }

    fn of_part(&self, trace: &TraceReader, bits: Vec<u8>, part: Part) -> Vec<u8> {
        if part == Part::All {
            return bits;
        }
        let windows = bits.chunks(self.neurons().div_ceil(8) * trace.window()).enumerate();
        let chosen = windows.filter(|(window, _)| part.has_window(*window));
        chosen.flat_map(|(_, rows)| rows).copied().collect()
    }

    /// Bytes for the counts of pairs of one layer.
    pub(crate) fn pair_bytes_max(&self) -> u64 {
        self.pair_bytes_max
    }
}

fn check_same_model(
    first: &TraceReader,
    first_path: &Path,
    trace: &TraceReader,
    path: &Path,
) -> Result<()> {
    ensure!(
        (trace.layers(), trace.neurons()) == (first.layers(), first.neurons()),
        "{}: {} layers of {} neurons, {} has {} of {}: link one model's traces at a time",
        path.display(),
        trace.layers(),
        trace.neurons(),
        first_path.display(),
        first.layers(),
        first.neurons()
    );
    ensure!(
        trace.model() == first.model(),
        "{}: a trace of model {}, {} is of {}: link one model's traces at a time",
        path.display(),
        trace.model().unwrap_or("unknown"),
        first_path.display(),
        first.model().unwrap_or("unknown")
    );
    Ok(())
}

/// What the text of a trace is, without commas; `unknown` where it does not say.
pub(crate) fn corpus_of(trace: &TraceReader) -> String {
    match trace.corpus() {
        Some(corpus) if !corpus.is_empty() => corpus.replace(',', " "),
        _ => "unknown".to_owned(),
    }
}
