//! The tokenizer of a GGUF file, told as `tokenizer.json` tells it: the ids are those of the model's own.

use std::collections::HashSet;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Map, Value, json};

use super::metadata::Metadata;

/// Longest token of a SentencePiece vocabulary, bytes: each of its cuts in two is looked at.
const PIECE_BYTES_MAX: usize = 256;
/// What SentencePiece has in place of a space.
const SPACE: &str = "\u{2581}";

/// Kinds of tokens.
mod kind {
    pub(super) const UNKNOWN: i64 = 2;
    pub(super) const CONTROL: i64 = 3;
    pub(super) const USER_DEFINED: i64 = 4;
}

/// What is said of the tokenizer.
struct Entries<'a> {
    tokens: Vec<&'a str>,
    /// One a token; none in older files.
    kinds: Vec<i64>,
    metadata: &'a Metadata,
}

/// The text of a tokenizer.json, and whether a text begins with bos.
///
/// # Errors
/// No tokenizer, or one of a kind that is not supported.
pub(super) fn described(metadata: &Metadata) -> Result<(String, bool)> {
    let key = "tokenizer.ggml.tokens";
    let tokens = metadata.texts(key)?.with_context(|| format!("no tokenizer: no {key}"))?;
    let kinds = metadata.wholes("tokenizer.ggml.token_type")?.unwrap_or_default();
    ensure!(
        kinds.is_empty() || kinds.len() == tokens.len(),
        "{} tokens, but {} kinds of tokens: damaged",
        tokens.len(),
        kinds.len()
    );
    let entries = Entries { tokens, kinds, metadata };
    let model = metadata.text("tokenizer.ggml.model")?.unwrap_or("(missing)");
    let (json, adds_bos) = match model {
        "gpt2" => byte_level(&entries)?,
        "llama" => sentence_piece(&entries)?,
        _ => bail!("tokenizer `{model}` is not supported; supported are: gpt2, llama"),
    };
    let adds_bos = metadata.flag("tokenizer.ggml.add_bos_token")?.unwrap_or(adds_bos);
    Ok((json.to_string(), adds_bos))
}

impl Entries<'_> {
    /// Token to id; of equal ones the first.
    fn vocabulary(&self) -> Map<String, Value> {
        let mut vocabulary = Map::new();
        for (id, token) in self.tokens.iter().enumerate() {
            vocabulary.entry(*token).or_insert_with(|| id.into());
        }
        vocabulary
    }

    /// Tokens that are found in a text as they stand, before it is cut.
    fn added(&self) -> Vec<Value> {
        let tokens = self.tokens.iter().zip(&self.kinds).enumerate();
        let added = tokens.filter(|(_, (_, kind))| {
            matches!(**kind, kind::UNKNOWN | kind::CONTROL | kind::USER_DEFINED)
        });
        added
            .map(|(id, (token, kind))| {
                json!({
                    "id": id, "content": token, "special": *kind != kind::USER_DEFINED,
                    "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
                })
            })
            .collect()
    }
}

/// Byte-level BPE, as GPT-2's and its followers'; whether a text begins with bos where the file does not say.
fn byte_level(entries: &Entries<'_>) -> Result<(Value, bool)> {
    let key = "tokenizer.ggml.merges";
    let merges = entries.metadata.texts(key)?.with_context(|| format!("no {key}"))?;
    let pre = entries.metadata.text("tokenizer.ggml.pre")?.unwrap_or("default");
    let split = |pattern: &str| {
        json!({
            "type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": false,
        })
    };
    let bytes = |use_regex: bool| {
        json!({
            "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true,
            "use_regex": use_regex,
        })
    };
    let digits = |each: bool| json!({"type": "Digits", "individual_digits": each});
    // Llama 3's, with so many digits in a row at most
    let words = |digits: &str| {
        split(&format!(
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{digits}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
        ))
    };
    let of_llama_3 = matches!(pre, "llama-bpe" | "llama3" | "llama-v3" | "falcon3");
    let steps = match pre {
        "gpt-2" | "phi-2" | "mpt" | "olmo" | "jais" => vec![bytes(true)],
        "smollm" | "starcoder" | "refact" | "command-r" | "codeshell" => {
            vec![digits(true), bytes(true)]
        }
        "qwen2" | "stablelm2" | "deepseek-r1-qwen" => vec![words(""), bytes(false)],
        "llama-bpe" | "llama3" | "llama-v3" | "falcon3" | "smaug-bpe" | "dbrx" => {
            vec![words("{1,3}"), bytes(false)]
        }
        "falcon" => vec![
            json!({"type": "Punctuation", "behavior": "Contiguous"}),
            bytes(true),
            digits(false),
            split("[0-9][0-9][0-9]"),
        ],
        // what llama.cpp takes where a file does not say
        "default" => vec![
            split(r"[\p{P}\$\+<=>\^~\|]+"),
            bytes(true),
            split(r"\p{N}+"),
            split("[0-9][0-9][0-9]"),
        ],
        _ => bail!(
            "pre-tokenizer `{pre}` is not supported; supported are: default, gpt-2, phi-2, mpt, olmo, jais, \
             smollm, starcoder, refact, command-r, codeshell, qwen2, stablelm2, deepseek-r1-qwen, llama-bpe, \
             falcon3, smaug-bpe, dbrx, falcon"
        ),
    };
    // Qwen's own joins what is written in two characters and has one of its own; llama.cpp does not.
    let joins = matches!(pre, "qwen2" | "deepseek-r1-qwen");
    let json = json!({
        "version": "1.0", "added_tokens": entries.added(),
        "normalizer": joins.then(|| json!({"type": "NFC"})),
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": steps},
        "post_processor": null,
        "decoder": {
            "type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true,
        },
        "model": {
            "type": "BPE", "vocab": entries.vocabulary(), "merges": merges, "fuse_unk": false,
            "byte_fallback": false, "ignore_merges": of_llama_3,
        },
    });
    Ok((json, of_llama_3))
}

/// SentencePiece's BPE, as Llama 1 and 2 have it: what is joined first is the pair whose join has the highest
/// score.
fn sentence_piece(entries: &Entries<'_>) -> Result<(Value, bool)> {
    let key = "tokenizer.ggml.scores";
    let scores = entries.metadata.floats(key)?.with_context(|| format!("no {key}"))?;
    let tokens = &entries.tokens;
    ensure!(
        scores.len() == tokens.len(),
        "{} tokens, but {} scores: damaged",
        tokens.len(),
        scores.len()
    );
    let merges = merges(tokens, &scores)?;
    let prefix = entries.metadata.flag("tokenizer.ggml.add_space_prefix")?.unwrap_or(true);
    let mut normalizers = Vec::new();
    let mut decoders = vec![
        json!({"type": "Replace", "pattern": {"String": SPACE}, "content": " "}),
        json!({"type": "ByteFallback"}),
        json!({"type": "Fuse"}),
    ];
    if prefix {
        normalizers.push(json!({"type": "Prepend", "prepend": SPACE}));
        decoders.push(json!({"type": "Strip", "content": " ", "start": 1, "stop": 0}));
    }
    normalizers.push(json!({"type": "Replace", "pattern": {"String": " "}, "content": SPACE}));
    let unknown = entries.metadata.whole("tokenizer.ggml.unknown_token_id")?.unwrap_or(0);
    let unknown =
        tokens.get(unknown as usize).context("the unknown token is none of the tokens")?;
    let json = json!({
        "version": "1.0", "added_tokens": entries.added(),
        "normalizer": {"type": "Sequence", "normalizers": normalizers},
        "pre_tokenizer": null, "post_processor": null,
        "decoder": {"type": "Sequence", "decoders": decoders},
        "model": {
            "type": "BPE", "vocab": entries.vocabulary(), "merges": merges, "unk_token": unknown,
            "fuse_unk": true, "byte_fallback": true, "ignore_merges": false,
        },
    });
    Ok((json, true))
}

/// All pairs of tokens that make a token, those with the highest scores first; among equal ones as Hugging
/// Face's converter sorts them, the longest left part first.
fn merges<'a>(tokens: &[&'a str], scores: &[f32]) -> Result<Vec<[&'a str; 2]>> {
    let known: HashSet<&str> = tokens.iter().copied().collect();
    let mut pairs: Vec<(f32, [&str; 2])> = Vec::new();
    for (token, score) in tokens.iter().zip(scores) {
        ensure!(
            token.len() <= PIECE_BYTES_MAX && !score.is_nan(),
            "a token of {} bytes with score {score}: at most {PIECE_BYTES_MAX} bytes are read",
            token.len()
        );
        for (cut, _) in token.char_indices().skip(1) {
            let (left, right) = token.split_at(cut);
            if known.contains(left) && known.contains(right) {
                pairs.push((*score, [left, right]));
            }
        }
    }
    pairs.sort_by(|(a, [a_left, a_right]), (b, [b_left, b_right])| {
        let lengths = |left: &str, right: &str| (left.chars().count(), right.chars().count());
        let longer = lengths(b_left, b_right).cmp(&lengths(a_left, a_right));
        b.total_cmp(a).then(longer)
    });
    Ok(pairs.into_iter().map(|(_, pair)| pair).collect())
}
