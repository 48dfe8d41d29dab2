//! Text that goes on: the prompt fed, then token after token.

use anyhow::{Result, ensure};

use crate::sampler::Sampler;
use crate::times::{Times, timed};
use crate::{FeedForward, KvOptions, Model, PIECE_TOKENS, State};

/// What came of [`generate`].
#[derive(Debug)]
pub struct Generated {
    /// The tokens.
    pub tokens: Vec<u32>,
    /// Logits after the prompt.
    pub prompt_logits: Vec<f32>,
    /// Tokens that went through the model: those of the prompt that had not before, and all generated ones but the last.
    pub fed: usize,
    /// Bytes of keys and values that attention remembered at the end.
    pub state_bytes: usize,
    /// Where the time of the tokens after the first went.
    pub times: Times,
}

/// Feeds a prompt and generates `count` tokens, or fewer where `on_token` says false.
///
/// # Errors
/// A context that is too short, or whatever the model or the engine says.
pub fn generate(
    model: &Model,
    ffn: &mut dyn FeedForward,
    prompt_ids: &[u32],
    count: usize,
    sampler: &mut Sampler,
    on_token: &mut dyn FnMut(u32) -> Result<bool>,
) -> Result<Generated> {
    Text::new(model).go_on(model, ffn, prompt_ids, count, sampler, on_token)
}

/// A text that goes on more than once: what was fed of it stays in attention's memory.
pub struct Text {
    state: State,
    /// The tokens in it.
    fed: Vec<u32>,
}

impl Text {
    /// No text as yet.
    pub fn new(model: &Model) -> Self {
        Self::with(model, KvOptions::default())
    }

    /// The same, with keys and values held as the caller says.
    pub fn with(model: &Model, options: KvOptions) -> Self {
        Self { state: model.new_state_with(options), fed: Vec::new() }
    }

    /// As [`generate`], of a prompt that is the whole text so far: only what differs from what was fed before is fed.
    ///
    /// # Errors
    /// As [`generate`].
    pub fn go_on(
        &mut self,
        model: &Model,
        ffn: &mut dyn FeedForward,
        prompt_ids: &[u32],
        count: usize,
        sampler: &mut Sampler,
        on_token: &mut dyn FnMut(u32) -> Result<bool>,
    ) -> Result<Generated> {
        let most = model.config().max_positions;
        ensure!(
            count <= (most + 1).saturating_sub(prompt_ids.len()),
            "the prompt has {} tokens and {count} are to follow: the model's context is {most}; use a \
             shorter prompt or a smaller -n",
            prompt_ids.len()
        );
        // At least one token has to be fed: its logits choose the next.
        let known = self.fed.iter().zip(prompt_ids).take_while(|(a, b)| a == b).count();
        let known = known.min(prompt_ids.len().saturating_sub(1));
        self.state.rewind(known);
        self.fed.truncate(known);
        sampler.saw(&prompt_ids[known..]);
        // In pieces: attention takes memory as the square of what is fed at once.
        let mut prompt_logits = Vec::new();
        for piece in prompt_ids[known..].chunks(PIECE_TOKENS) {
            prompt_logits = self.feed(model, ffn, piece)?;
        }
        let mut tokens = Vec::new();
        let mut logits = prompt_logits.clone();
        let (mut own, mut before) = (Times::default(), Times::default());
        while tokens.len() < count {
            let token = timed(&mut own.sampling, || sampler.choose(&logits))?;
            tokens.push(token);
            let goes_on = timed(&mut own.text, || on_token(token))?;
            if tokens.len() == 1 {
                before = self.times(own, ffn);
            }
            if !goes_on || tokens.len() == count {
                break;
            }
            logits = self.feed(model, ffn, &[token])?;
        }
        let times = self.times(own, ffn) - before;
        let fed = self.state.position() - known;
        Ok(Generated { tokens, prompt_logits, fed, state_bytes: self.state.bytes(), times })
    }

    /// Where the time went so far, `own` among it.
    fn times(&self, own: Times, ffn: &dyn FeedForward) -> Times {
        let (model, of_ffn) = (self.state.times(), ffn.times());
        let rest = model.ffn.saturating_sub(of_ffn.total());
        Times { ffn: rest, ..model } + of_ffn + own
    }

    fn feed(
        &mut self,
        model: &Model,
        ffn: &mut dyn FeedForward,
        tokens: &[u32],
    ) -> Result<Vec<f32>> {
        let logits = model.forward(&mut self.state, tokens, ffn)?;
        self.fed.extend(tokens);
        Ok(logits)
    }
}
