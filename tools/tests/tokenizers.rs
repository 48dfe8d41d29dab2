//! Tokenizers from strangers: an error or a value, although the crate that reads them panics where the
//! parts of a file contradict each other; and what of a tokenizer.json does not count.

mod common;

use std::path::Path;

use common::demo_model;
use lnp_model::Tokenizer;
use proptest::prelude::*;
use serde_json::{Value, json};

/// The demo's tokenizer, with no more than its first tokens and merges.
fn small() -> Value {
    let text = std::fs::read(demo_model().join("tokenizer.json")).unwrap();
    let mut json: Value = serde_json::from_slice(&text).unwrap();
    let vocab = json["model"]["vocab"].as_object_mut().unwrap();
    vocab.retain(|_, id| id.as_u64().unwrap() < 270);
    let vocab = vocab.clone();
    let known = |merge: &Value| {
        let [left, right] = [&merge[0], &merge[1]].map(|side| side.as_str().unwrap());
        vocab.contains_key(left)
            && vocab.contains_key(right)
            && vocab.contains_key(&format!("{left}{right}"))
    };
    json["model"]["merges"].as_array_mut().unwrap().retain(known);
    json
}

fn load(folder: &Path, json: &Value) -> anyhow::Result<Tokenizer> {
    std::fs::write(folder.join("tokenizer.json"), json.to_string()).unwrap();
    Tokenizer::load(folder)
}

#[test]
fn a_text_is_encoded_whole() {
    let folder = tempfile::tempdir().unwrap();
    let mut json = small();
    let text = "Neurons that fire together are written together.";
    let whole = load(folder.path(), &json).unwrap().encode(text).unwrap();
    json["truncation"] =
        json!({"direction": "Right", "max_length": 3, "strategy": "LongestFirst", "stride": 0});
    json["padding"] = json!({
        "strategy": {"Fixed": 1000}, "direction": "Left", "pad_to_multiple_of": null,
        "pad_id": 0, "pad_type_id": 0, "pad_token": "<pad>",
    });
    assert_eq!(load(folder.path(), &json).unwrap().encode(text).unwrap(), whole);
}

#[test]
fn what_the_crate_panics_on_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let changed = |part: &str, value: Value| {
        let mut json = small();
        json[part] = value;
        load(folder.path(), &json)
    };
    let told = changed("normalizer", json!({"type": "Precompiled"})).map(drop).unwrap_err();
    assert!(told.to_string().contains("contradict"), "{told}");
    let tokenizer = changed("pre_tokenizer", json!({"type": "FixedLength", "length": 0})).unwrap();
    // again and again: no step leaves anything behind for the next
    for _ in 0..3 {
        let told = tokenizer.encode("abc").unwrap_err();
        assert!(told.to_string().contains("contradict"), "{told}");
        assert_eq!(tokenizer.decode(&[3, 4], false).unwrap(), "!\"");
    }
}

const PARTS: [&str; 6] =
    ["model", "normalizer", "pre_tokenizer", "post_processor", "decoder", "added_tokens"];

/// What an edit puts somewhere: values of any kind, and parts that other tokenizers have.
fn replacements() -> Vec<Value> {
    let mut all = vec![
        json!(null),
        json!(0),
        json!(-1),
        json!(u32::MAX),
        json!(u64::MAX),
        json!(0.5),
        json!(1e308),
        json!(""),
        json!("a"),
        json!("\u{e9}"),
        json!("\u{120}"),
        json!("\u{2581}"),
        json!("<0xFF>"),
        json!("(a*)*"),
        json!("("),
        json!(true),
        json!([]),
        json!({}),
        json!("AAAA"),
    ];
    let vocab = json!({"a": 0, "b": 1, "ab": 2, "#b": 3, "a\u{e9}": 4, "\u{e9}": 5});
    let scores = json!([["a", -1.0], ["b", -2.0], ["", 1e308]]);
    let text = json!({"String": ""});
    let regex = json!({"Regex": "(?<=x)|(a|b)*?"});
    all.extend([
        json!({"type": "BPE", "vocab": vocab, "merges": [["a", "b"]], "byte_fallback": true, "unk_token": "u"}),
        json!({"type": "BPE", "vocab": vocab, "merges": [["a", "b"]], "continuing_subword_prefix": "##"}),
        json!({"type": "BPE", "vocab": vocab, "merges": [["a", "\u{e9}"]], "continuing_subword_prefix": "#"}),
        json!({"type": "WordPiece", "vocab": vocab, "unk_token": "u", "continuing_subword_prefix": "#",
            "max_input_chars_per_word": 0}),
        json!({"type": "WordLevel", "vocab": vocab, "unk_token": "u"}),
        json!({"type": "Unigram", "vocab": scores, "unk_id": 2, "byte_fallback": true}),
        json!({"type": "Unigram", "vocab": [], "unk_id": null}),
        json!({"type": "Precompiled", "precompiled_charsmap": "BAAAAAAAAAAA"}),
        json!({"type": "Prepend", "prepend": ""}),
        json!({"type": "Replace", "pattern": text, "content": "x"}),
        json!({"type": "Replace", "pattern": regex, "content": "\u{e9}"}),
        json!({"type": "Strip", "content": "\u{e9}", "start": u64::MAX, "stop": 3}),
        json!({"type": "StripAccents"}),
        json!({"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true}),
        json!({"type": "Metaspace", "replacement": "\u{2581}", "prepend_scheme": "always", "split": true}),
        json!({"type": "Split", "pattern": regex, "behavior": "MergedWithPrevious", "invert": true}),
        json!({"type": "Split", "pattern": text, "behavior": "Contiguous", "invert": false}),
        json!({"type": "FixedLength", "length": 0}),
        json!({"type": "WordPiece", "prefix": "\u{e9}", "cleanup": false}),
        json!({"type": "CTC", "pad_token": "", "word_delimiter_token": "", "cleanup": true}),
        json!({"type": "BPEDecoder", "suffix": ""}),
        json!({"type": "ByteFallback"}),
        json!({"type": "TemplateProcessing", "pair": [], "special_tokens": {},
            "single": [{"SpecialToken": {"id": "x", "type_id": 0}}]}),
        json!([{"id": u32::MAX, "content": "", "single_word": true, "lstrip": true, "rstrip": true,
            "normalized": true, "special": true}]),
    ]);
    all
}

/// The value number `place` of a tree: the root first, then its members.
fn nth<'a>(value: &'a mut Value, place: &mut usize) -> Option<&'a mut Value> {
    if *place == 0 {
        return Some(value);
    }
    *place -= 1;
    match value {
        Value::Array(members) => members.iter_mut().find_map(|member| nth(member, place)),
        Value::Object(members) => members.values_mut().find_map(|member| nth(member, place)),
        _ => None,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    #[test]
    fn edited_ones_give_an_error_or_a_value(
        edits in prop::collection::vec(
            (prop::sample::select(PARTS.to_vec()), 0_usize..12, prop::sample::select(replacements())),
            1..4,
        ),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let mut json = small();
        for (part, mut place, value) in edits {
            if let Some(at) = nth(&mut json[part], &mut place) {
                *at = value;
            }
        }
        let Ok(tokenizer) = load(folder.path(), &json) else { return Ok(()) };
        for text in ["", "Hello \u{e9}\u{301} 123, a  b\n\n", "ab x<0xFF>abba##b", "\0\u{fffd}\u{1f642}"] {
            if let Ok(ids) = tokenizer.encode(text) {
                let _ = tokenizer.decode(&ids, true);
            }
        }
        let mut decoder = tokenizer.decoder(false);
        for id in [0, 3, 200, 250, 251, u32::MAX] {
            let _ = decoder.push(id);
        }
        let _ = decoder.finish();
    }
}
