//! How a text begins: with the model's bos token, with the tokenizer's, or with neither.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use lnp_common::files::read_text;

use super::config::{CONFIG_BYTES_MAX, ModelConfig};
use super::folder::TOKENIZER_CONFIG_FILE;
use super::json::{Fields, parse};
use super::tokenizer::Tokenizer;

/// Classes of tokenizers that put nothing first unless `add_bos_token` says so.
const CLASSES_WITHOUT_BOS: [&str; 5] =
    ["CodeGenTokenizer", "GPT2Tokenizer", "GPTNeoXTokenizer", "Qwen2Tokenizer", "Qwen3Tokenizer"];

/// What a tokenizer's files say of the first token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum First {
    /// The model's bos token.
    OfModel,
    /// This one.
    Token(u32),
    Nothing,
}

/// The tokens of a prompt as the model is to be fed it. A bos token goes first where model and tokenizer
/// have one, unless the text begins with it already or `no_bos` is said.
///
/// # Errors
/// A text that the tokenizer refuses, tokenizer_config.json that is none, or no token at all.
pub fn prompt_ids(
    dir: &Path,
    config: &ModelConfig,
    tokenizer: &Tokenizer,
    text: &str,
    no_bos: bool,
) -> Result<Vec<u32>> {
    let mut ids = tokenizer.encode(text)?;
    let first = match first(dir, tokenizer)? {
        _ if no_bos => None,
        First::OfModel => config.bos_token_id,
        First::Token(id) => Some(id),
        First::Nothing => None,
    };
    if let Some(id) = first.filter(|id| ids.first() != Some(id)) {
        ids.insert(0, id);
    }
    ensure!(
        !ids.is_empty(),
        "an empty prompt, and no bos token before it: give some text with --prompt"
    );
    Ok(ids)
}

/// A GGUF file says it; else `add_bos_token` of tokenizer_config.json decides; else what tokenizer.json puts first; else the kind of
/// the tokenizer; else the model.
fn first(dir: &Path, tokenizer: &Tokenizer) -> Result<First> {
    if let Some(adds_bos) = tokenizer.adds_bos() {
        return Ok(if adds_bos { First::OfModel } else { First::Nothing });
    }
    let path = dir.join(TOKENIZER_CONFIG_FILE);
    let context = || format!("{}: not a tokenizer configuration", path.display());
    let mut class = None;
    if path.exists() {
        let map = parse(&read_text(&path, CONFIG_BYTES_MAX)?).with_context(context)?;
        let fields = Fields(&map);
        match fields.flag("add_bos_token").with_context(context)? {
            Some(true) => return Ok(First::OfModel),
            Some(false) => return Ok(First::Nothing),
            None => {
                class = fields.text("tokenizer_class").with_context(context)?.map(str::to_owned)
            }
        }
    }
    if let Some(id) = tokenizer.puts_first()? {
        return Ok(First::Token(id));
    }
    let class = class.unwrap_or_default();
    let known = CLASSES_WITHOUT_BOS.contains(&class.trim_end_matches("Fast"));
    Ok(if known { First::Nothing } else { First::OfModel })
}
