//! The FFN inputs that predictors are fitted to and judged by: rows of traces that carry them, or of a
//! model run over a trace's tokens.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use half::f16;
use lnp_link::inputs::sampled_rows;
use lnp_link::trace::TraceReader;
use lnp_model::{
    Checkpoint, DenseFfn, DenseOptions, InputSample, Model, ModelConfig, forward_windows,
};

/// What a row is used for. Text goes to one of them only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// The map is fitted to it.
    Fit,
    /// Thresholds are set by it.
    Set,
    /// What comes out is judged by it.
    Judge,
}

/// Stretches of text go to these uses in turn.
const TURNS: [Use; 6] = [Use::Fit, Use::Fit, Use::Set, Use::Fit, Use::Fit, Use::Judge];
/// A trace has at least so many stretches: where its windows are fewer, they are cut.
const STRETCHES_MIN: usize = 4 * TURNS.len();

/// FFN inputs of every layer at the same tokens.
pub struct Sample {
    hidden: usize,
    uses: Vec<Use>,
    /// Per layer, f16, little-endian, row-major.
    layers: Vec<Vec<u8>>,
}

/// A trace to take inputs from.
struct Source {
    path: PathBuf,
    trace: TraceReader,
    /// Tokens whose inputs the trace carries.
    carried: Option<Vec<u32>>,
    /// How many rows it can give.
    rows: usize,
}

impl Sample {
    /// Takes at most so many rows, from each trace its share. Where a trace carries no inputs, the model,
    /// which is not loaded else, is run over its tokens; `progress` is told over how many
    /// so far, and over how many in all.
    ///
    /// # Errors
    /// A trace of another shape, or one without inputs and token ids; too few rows.
    pub fn of_traces(
        checkpoint: &Checkpoint,
        config: &ModelConfig,
        paths: &[PathBuf],
        rows: usize,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<Self> {
        let sources: Vec<Source> =
            paths.iter().map(|path| Source::open(path, config)).collect::<Result<_>>()?;
        let all: usize = sources.iter().map(|source| source.rows).sum();
        let running: usize = sources
            .iter()
            .filter(|source| source.carried.is_none())
            .map(|source| source.trace.tokens())
            .sum();
        let mut sample = Self {
            hidden: config.hidden,
            uses: Vec::new(),
            layers: vec![Vec::new(); config.layers],
        };
        let mut ran = 0;
        for source in &sources {
            let share = (rows as u128 * source.rows as u128).div_ceil(all.max(1) as u128) as usize;
            let told = &mut |done| progress(ran + done, running);
            let tokens = source.take(checkpoint, config, share, &mut sample.layers, told)?;
            if source.carried.is_none() {
                ran += source.trace.tokens();
            }
            let trace = &source.trace;
            let stretch = trace.window().min(trace.tokens() / STRETCHES_MIN).max(1);
            let use_of = |token: u32| TURNS[token as usize / stretch % TURNS.len()];
            sample.uses.extend(tokens.into_iter().map(use_of));
        }
        for wanted in [Use::Fit, Use::Set, Use::Judge] {
            let found = sample.uses.iter().filter(|found| **found == wanted).count();
            ensure!(
                found >= ROWS_MIN,
                "{} tokens to learn from are too few: trace more text, or take more --rows",
                sample.uses.len()
            );
        }
        Ok(sample)
    }

    /// Rows taken.
    pub fn rows(&self) -> usize {
        self.uses.len()
    }

    /// The inputs of a layer at all tokens, row-major.
    pub fn all_inputs(&self, layer: usize) -> Vec<f32> {
        numbers(self.layers[layer].as_chunks().0).collect()
    }

    /// The inputs of a layer at the tokens of one use, row-major.
    pub(crate) fn inputs(&self, layer: usize, wanted: Use) -> Vec<f32> {
        let rows = self.layers[layer].chunks(2 * self.hidden).zip(&self.uses);
        let chosen = rows.filter(|(_, found)| **found == wanted);
        chosen.flat_map(|(row, _)| numbers(row.as_chunks().0)).collect()
    }
}

fn numbers(stored: &[[u8; 2]]) -> impl Iterator<Item = f32> {
    stored.iter().map(|two| f16::from_le_bytes(*two).to_f32())
}

/// Fewest rows of each use.
const ROWS_MIN: usize = 16;

impl Source {
    fn open(path: &Path, config: &ModelConfig) -> Result<Self> {
        let trace = TraceReader::open(path)?;
        ensure!(
            (trace.layers(), trace.neurons()) == (config.layers, config.neurons),
            "{}: a trace of {} layers of {} neurons, the model has {} of {}: trace this model",
            path.display(),
            trace.layers(),
            trace.neurons(),
            config.layers,
            config.neurons
        );
        let carried = match trace.input_rows()? {
            None => None,
            Some((rows, hidden)) => {
                let expected = config.hidden;
                ensure!(
                    hidden == expected,
                    "{}: FFN inputs {hidden} wide, the model's are {expected}: trace this model",
                    path.display()
                );
                Some(rows)
            }
        };
        let rows = carried.as_ref().map_or(trace.tokens(), Vec::len);
        Ok(Self { path: path.to_owned(), trace, carried, rows })
    }

    /// Appends the inputs of so many tokens to each layer's; returns which tokens.
    fn take(
        &self,
        checkpoint: &Checkpoint,
        config: &ModelConfig,
        rows: usize,
        layers: &mut [Vec<u8>],
        progress: &mut dyn FnMut(usize),
    ) -> Result<Vec<u32>> {
        let chosen = sampled_rows(self.rows, rows);
        if let Some(carried) = &self.carried {
            let row_bytes = 2 * config.hidden;
            for (layer, inputs) in layers.iter_mut().enumerate() {
                let all = self.trace.inputs(layer)?;
                for row in chosen.iter().map(|row| *row as usize) {
                    inputs.extend_from_slice(&all[row * row_bytes..(row + 1) * row_bytes]);
                }
            }
            return Ok(chosen.iter().map(|row| carried[*row as usize]).collect());
        }
        let ids = self.trace.token_ids()?.with_context(|| {
            format!(
                "{}: the trace carries neither inputs nor token_ids; record it again with `lnp trace \
                 --inputs`",
                self.path.display()
            )
        })?;
        let model = Model::of(checkpoint.clone())?;
        let mut dense = DenseFfn::held(model.checkpoint(), config, DenseOptions::default())?;
        let mut sample = InputSample::new(&mut dense, config, &chosen);
        forward_windows(&model, &mut sample, &ids, self.trace.window(), progress)
            .with_context(|| self.path.display().to_string())?;
        for (inputs, found) in layers.iter_mut().zip(sample.take()) {
            inputs.extend(found);
        }
        Ok(chosen)
    }
}
