//! Text that goes on: the prompt fed, then token after token.

use anyhow::{Result, ensure};

use crate::sampler::Sampler;
use crate::{FeedForward, Model, PIECE_TOKENS};

/// What came of [`generate`].
#[derive(Debug)]
pub struct Generated {
    /// The tokens.
    pub tokens: Vec<u32>,
    /// Logits after the prompt.
    pub prompt_logits: Vec<f32>,
    /// Tokens that went through the model: the prompt, and all generated ones but the last.
    pub fed: usize,
    /// Bytes of keys and values that attention remembered at the end.
    pub state_bytes: usize,
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
    let most = model.config().max_positions;
    ensure!(
        count <= (most + 1).saturating_sub(prompt_ids.len()),
        "the prompt has {} tokens and {count} are to follow: the model's context is {most}; use a \
         shorter prompt or a smaller -n",
        prompt_ids.len()
    );
    let mut state = model.new_state();
    // In pieces: attention takes memory as the square of what is fed at once.
    let mut prompt_logits = Vec::new();
    for piece in prompt_ids.chunks(PIECE_TOKENS) {
        prompt_logits = model.forward(&mut state, piece, ffn)?;
    }
    let mut tokens = Vec::new();
    let mut logits = prompt_logits.clone();
    while tokens.len() < count {
        let token = sampler.choose(&logits)?;
        tokens.push(token);
        if !on_token(token)? || tokens.len() == count {
            break;
        }
        logits = model.forward(&mut state, &[token], ffn)?;
    }
    Ok(Generated { tokens, prompt_logits, fed: state.position(), state_bytes: state.bytes() })
}
