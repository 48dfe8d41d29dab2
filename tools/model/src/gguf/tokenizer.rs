//! The tokenizer of a GGUF file, told as `tokenizer.json` tells it: the ids are those of the model's own.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail, ensure};
use serde::Serialize;
use serde_json::{Value, json};

use super::metadata::Metadata;

/// Most tokens: twice as many as the largest vocabularies have.
const TOKENS_MAX: usize = 1 << 19;
/// Longest token of a SentencePiece vocabulary, bytes: each of its cuts in two is looked at.
const PIECE_BYTES_MAX: usize = 128;
/// Most pairs that are found so: the largest vocabularies have half as many.
const PAIRS_MAX: usize = 1 << 20;
/// What SentencePiece has in place of a space.
const SPACE: &str = "\u{2581}";

/// Kinds of tokens.
mod kind {
    pub(super) const NORMAL: i64 = 1;
    pub(super) const UNKNOWN: i64 = 2;
    pub(super) const CONTROL: i64 = 3;
    pub(super) const USER_DEFINED: i64 = 4;
}

/// A tokenizer.json. What is large in it is not copied into values first.
#[derive(Serialize)]
struct Described<'a> {
    #[serde(flatten)]
    rest: Value,
    model: Model<'a>,
}

#[derive(Serialize)]
struct Model<'a> {
    #[serde(flatten)]
    rest: Value,
    vocab: &'a BTreeMap<&'a str, usize>,
    merges: Merges<'a>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Merges<'a> {
    Texts(Vec<&'a str>),
    Pairs(Vec<[&'a str; 2]>),
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
    ensure!(
        tokens.len() <= TOKENS_MAX,
        "{} tokens, at most {TOKENS_MAX} are read: damaged?",
        tokens.len()
    );
    let entries = Entries { tokens, kinds, metadata };
    let model = metadata.text("tokenizer.ggml.model")?.unwrap_or("(missing)");
    let (json, adds_bos) = match model {
        "gpt2" => byte_level(&entries)?,
        "llama" => sentence_piece(&entries)?,
        _ => bail!("tokenizer `{model}` is not supported; supported are: gpt2, llama"),
    };
    let adds_bos = metadata.flag("tokenizer.ggml.add_bos_token")?.unwrap_or(adds_bos);
    Ok((json, adds_bos))
}

impl Entries<'_> {
    /// Token to id; of equal ones the first.
    fn vocabulary(&self) -> BTreeMap<&str, usize> {
        let mut vocabulary = BTreeMap::new();
        for (id, token) in self.tokens.iter().enumerate() {
            vocabulary.entry(*token).or_insert(id);
        }
        vocabulary
    }

    fn kind(&self, id: usize) -> i64 {
        self.kinds.get(id).copied().unwrap_or(kind::NORMAL)
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
fn byte_level(entries: &Entries<'_>) -> Result<(String, bool)> {
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
    let rest = json!({
        "version": "1.0", "added_tokens": entries.added(),
        "normalizer": joins.then(|| json!({"type": "NFC"})),
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": steps},
        "post_processor": null,
        "decoder": {
            "type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true,
        },
    });
    let of_model = json!({
        "type": "BPE", "fuse_unk": false, "byte_fallback": false, "ignore_merges": of_llama_3,
    });
    let (vocab, merges) = (&entries.vocabulary(), Merges::Texts(merges));
    let described = Described { rest, model: Model { rest: of_model, vocab, merges } };
    Ok((serde_json::to_string(&described)?, of_llama_3))
}

/// SentencePiece's BPE, as Llama 1 and 2 have it: what is joined first is the pair whose join has the highest
/// score.
fn sentence_piece(entries: &Entries<'_>) -> Result<(String, bool)> {
    let key = "tokenizer.ggml.scores";
    let scores = entries.metadata.floats(key)?.with_context(|| format!("no {key}"))?;
    let tokens = &entries.tokens;
    ensure!(
        scores.len() == tokens.len(),
        "{} tokens, but {} scores: damaged",
        tokens.len(),
        scores.len()
    );
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
    let rest = json!({
        "version": "1.0", "added_tokens": entries.added(),
        "normalizer": {"type": "Sequence", "normalizers": normalizers},
        "pre_tokenizer": null, "post_processor": null,
        "decoder": {"type": "Sequence", "decoders": decoders},
    });
    let of_model = json!({
        "type": "BPE", "unk_token": unknown, "fuse_unk": true, "byte_fallback": true,
        "ignore_merges": false,
    });
    let vocab = &entries.vocabulary();
    let merges = Merges::Pairs(pairs(entries, vocab, &scores)?);
    let described = Described { rest, model: Model { rest: of_model, vocab, merges } };
    Ok((serde_json::to_string(&described)?, true))
}

/// All pairs of tokens that make a token, those with the highest scores first; among equal ones as Hugging
/// Face's converter sorts them, the longest left part first.
fn pairs<'a>(
    entries: &Entries<'a>,
    vocabulary: &BTreeMap<&str, usize>,
    scores: &[f32],
) -> Result<Vec<[&'a str; 2]>> {
    let mut pairs: Vec<(f32, [&str; 2])> = Vec::new();
    for (id, (token, score)) in entries.tokens.iter().zip(scores).enumerate() {
        let is_text = matches!(entries.kind(id), kind::NORMAL | kind::USER_DEFINED);
        if !is_text || vocabulary.get(token) != Some(&id) {
            continue;
        }
        ensure!(
            token.len() <= PIECE_BYTES_MAX && !score.is_nan(),
            "a token of {} bytes with score {score}: at most {PIECE_BYTES_MAX} bytes are read",
            token.len()
        );
        for (cut, _) in token.char_indices().skip(1) {
            let (left, right) = token.split_at(cut);
            if vocabulary.contains_key(left) && vocabulary.contains_key(right) {
                pairs.push((*score, [left, right]));
            }
        }
        ensure!(
            pairs.len() <= PAIRS_MAX,
            "more than {PAIRS_MAX} pairs of tokens make tokens: damaged?"
        );
    }
    pairs.sort_by(|(a, [a_left, a_right]), (b, [b_left, b_right])| {
        let lengths = |left: &str, right: &str| (left.chars().count(), right.chars().count());
        let longer = lengths(b_left, b_right).cmp(&lengths(a_left, a_right));
        b.total_cmp(a).then(longer)
    });
    Ok(pairs.into_iter().map(|(_, pair)| pair).collect())
}
