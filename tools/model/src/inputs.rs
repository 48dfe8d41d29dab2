//! What reaches the FFN: a text run through a model in windows, and the inputs of every layer at some of
//! its tokens.

use anyhow::{Context, Result, ensure};
use half::f16;

use super::{FeedForward, Model, ModelConfig, PIECE_TOKENS};

/// Runs a model over tokens, in windows that each start at position 0 with nothing cached. `progress` is
/// told the number of tokens done so far.
///
/// # Errors
/// No token, a window of 0 or beyond the model's context, or a failed forward pass.
pub fn forward_windows(
    model: &Model,
    ffn: &mut dyn FeedForward,
    token_ids: &[u32],
    window: usize,
    progress: &mut dyn FnMut(usize),
) -> Result<()> {
    let limit = model.config().max_positions;
    ensure!(
        (1..=limit).contains(&window),
        "window of {window} tokens: the model takes 1 to {limit}"
    );
    ensure!(!token_ids.is_empty(), "no token to trace: the text is empty");
    let mut done = 0;
    for tokens in token_ids.chunks(window) {
        let mut state = model.new_state();
        for piece in tokens.chunks(PIECE_TOKENS) {
            model.forward_hidden(&mut state, piece, ffn)?;
            done += piece.len();
            progress(done);
        }
    }
    Ok(())
}

/// An FFN that keeps the inputs of every layer at some tokens, counted from the first that it is fed.
pub struct InputSample<'a> {
    ffn: &'a mut dyn FeedForward,
    /// The tokens, ascending.
    rows: &'a [u32],
    hidden: usize,
    layers: Vec<LayerSample>,
}

/// What was kept of a layer.
#[derive(Default, Clone)]
struct LayerSample {
    tokens_seen: usize,
    rows_kept: usize,
    inputs: Vec<u8>,
}

impl<'a> InputSample<'a> {
    /// Keeps the inputs at `rows`, ascending, of every layer of a model, and computes by `ffn`.
    pub fn new(ffn: &'a mut dyn FeedForward, config: &ModelConfig, rows: &'a [u32]) -> Self {
        let layers = vec![LayerSample::default(); config.layers];
        Self { ffn, rows, hidden: config.hidden, layers }
    }

    /// Per layer, the inputs kept: f16, little-endian, row-major `[rows][hidden]`.
    pub fn take(self) -> Vec<Vec<u8>> {
        self.layers.into_iter().map(|layer| layer.inputs).collect()
    }
}

impl FeedForward for InputSample<'_> {
    fn forward(&mut self, layer: usize, x: &[f32], y: &mut [f32]) -> Result<()> {
        self.ffn.forward(layer, x, y)?;
        let count = self.layers.len();
        let kept =
            self.layers.get_mut(layer).with_context(|| format!("layer {layer} of {count}"))?;
        let (hidden, tokens) = (self.hidden, x.len() / self.hidden);
        for row in self.rows[kept.rows_kept..].iter().map(|row| *row as usize) {
            let Some(at) = row.checked_sub(kept.tokens_seen).filter(|at| *at < tokens) else {
                break;
            };
            for value in &x[at * hidden..(at + 1) * hidden] {
                let value = f16::from_f32(*value);
                ensure!(value.is_finite(), "layer {layer}: an FFN input does not fit into f16");
                kept.inputs.extend(value.to_le_bytes());
            }
            kept.rows_kept += 1;
        }
        kept.tokens_seen += tokens;
        Ok(())
    }
}
