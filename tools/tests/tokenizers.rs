//! Tokenizers from strangers: an error or a value, although the crate that reads them panics where the
//! parts of a file contradict each other; and what of a tokenizer.json does not count.

mod common;

use std::path::Path;
use std::sync::LazyLock;

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

/// Byte fallback as Llama has it. Ids: three special tokens, 256 bytes, then [`PIECES`] and one that is
/// added but not special.
fn byte_fallback(kind: &str) -> Value {
    let special = ["<unk>", "<s>", "</s>"].map(str::to_owned);
    let bytes = (0..256).map(|byte| format!("<0x{byte:02X}>"));
    let all: Vec<String> =
        special.into_iter().chain(bytes).chain(PIECES.map(str::to_owned)).collect();
    let vocab: serde_json::Map<String, Value> =
        all.iter().zip(0..).map(|(token, id)| (token.clone(), json!(id))).collect();
    let scores: Vec<Value> = all.iter().map(|token| json!([token, -1.0])).collect();
    let model = match kind {
        "BPE" => json!({"type": kind, "vocab": vocab, "merges": [], "byte_fallback": true,
            "unk_token": "<unk>", "fuse_unk": true}),
        _ => json!({"type": kind, "vocab": scores, "unk_id": 0, "byte_fallback": true}),
    };
    let added = |id: usize, content: &str, special: bool| {
        json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": special})
    };
    json!({
        "version": "1.0", "truncation": null, "padding": null,
        "added_tokens": [added(0, "<unk>", true), added(1, "<s>", true), added(2, "</s>", true),
            added(all.len(), ADDED, false)],
        "normalizer": null, "pre_tokenizer": null, "post_processor": null,
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "\u{2581}"}, "content": " "},
            {"type": "ByteFallback"}, {"type": "Fuse"},
            {"type": "Strip", "content": " ", "start": 1, "stop": 0},
        ]},
        "model": model,
    })
}

const PIECES: [&str; 9] = [
    "\u{2581}",
    "\u{2581}\u{2581}",
    "\u{2581}hello",
    "world",
    "\u{e9}",
    "\u{1f60a}",
    "\u{fffd}",
    "a\u{fffd}",
    "<0xZZ>",
];
const ADDED: &str = "<|turn|>";
const FIRST_BYTE: u32 = 3;

/// What SentencePiece makes of bytes: the longest character at each place, else U+FFFD for the byte.
fn characters(mut bytes: &[u8]) -> String {
    let mut text = String::new();
    while !bytes.is_empty() {
        let character = (1..=bytes.len().min(4)).find_map(|length| {
            let character = std::str::from_utf8(&bytes[..length]).ok()?;
            Some((length, character))
        });
        let (length, character) = character.unwrap_or((1, "\u{fffd}"));
        text += character;
        bytes = &bytes[length..];
    }
    text
}

/// What ids of [`byte_fallback`] mean, and whether each row of bytes is either all text or none.
fn text_of(ids: &[u32], skip_special: bool) -> (String, bool) {
    let (mut text, mut row, mut plain) = (String::new(), Vec::new(), true);
    let mut flush = |text: &mut String, row: &mut Vec<u8>| {
        let found = characters(row);
        let none = found.chars().all(|c| c == '\u{fffd}') && found.chars().count() == row.len();
        plain &= std::str::from_utf8(row).is_ok() || none;
        *text += &found;
        row.clear();
    };
    for id in ids {
        let special = (*id as usize) < 3;
        match (id.checked_sub(FIRST_BYTE), id.checked_sub(FIRST_BYTE + 256)) {
            (Some(byte @ 0..256), _) => row.push(byte as u8),
            (_, Some(piece)) if piece as usize <= PIECES.len() => {
                flush(&mut text, &mut row);
                let piece = PIECES.get(piece as usize).unwrap_or(&ADDED);
                text += &piece.replace('\u{2581}', " ");
            }
            _ if special && !skip_special => {
                flush(&mut text, &mut row);
                text += ["<unk>", "<s>", "</s>"][*id as usize];
            }
            // unknown or left out: as if it were not there
            _ => {}
        }
    }
    flush(&mut text, &mut row);
    (text.strip_prefix(' ').unwrap_or(&text).to_owned(), plain)
}

/// The pieces of a stream, joined.
fn streamed(tokenizer: &Tokenizer, ids: &[u32], skip_special: bool) -> String {
    let mut decoder = tokenizer.decoder(skip_special);
    let pieces: Vec<String> = ids.iter().map(|id| decoder.push(*id).unwrap()).collect();
    let joined = pieces.concat();
    let rest = decoder.finish().unwrap();
    // what waits for more is at most three bytes of a character
    assert!(rest.chars().count() <= 3 && rest.chars().all(|c| c == '\u{fffd}'), "{rest:?}");
    joined + &rest
}

/// Ours, and the crate's own.
type Both = (Tokenizer, tokenizers::Tokenizer);

fn both(json: &Value) -> Both {
    let folder = tempfile::tempdir().unwrap();
    (load(folder.path(), json).unwrap(), json.to_string().parse().unwrap())
}

/// Tokens by chance: any, whole characters as bytes, and characters that lack their end.
fn some_ids(
    first_byte: u32,
    count: u32,
    byte_id: fn(u8) -> u32,
) -> impl Strategy<Value = Vec<u32>> {
    let bytes = move |text: &str| text.bytes().map(byte_id).collect::<Vec<u32>>();
    let token = prop_oneof![
        4 => (0..count + 2).prop_map(|id| vec![id]),
        2 => (first_byte..first_byte + 256).prop_map(|id| vec![id]),
        2 => (0x80_u8..=0xff).prop_map(move |byte| vec![byte_id(byte)]),
        3 => prop::sample::select(vec!["\u{1f60a}", "\u{20ac}", "\u{e9}", "a", " ", "\u{fffd}", "\u{2581}"])
            .prop_map(bytes),
        3 => (prop::sample::select(vec!["\u{1f60a}", "\u{20ac}", "\u{e9}"]), 1_usize..4)
            .prop_map(move |(text, length)| bytes(text).into_iter().take(length).collect()),
    ];
    prop::collection::vec(token, 0..14).prop_map(|tokens| tokens.concat())
}

/// The id of a byte in the demo's tokenizer, whose first tokens are those of single bytes, by the
/// characters that GPT-2 writes them as.
fn byte_level_id(byte: u8) -> u32 {
    let printed = |byte: &u8| matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    let all: Vec<u8> = (0..=255).filter(printed).chain((0..=255).filter(|b| !printed(b))).collect();
    BYTE_LEVEL_FIRST + all.iter().position(|other| *other == byte).unwrap() as u32
}
const BYTE_LEVEL_FIRST: u32 = 3;

#[test]
fn what_follows_a_broken_character_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let tokenizer = load(folder.path(), &byte_fallback("BPE")).unwrap();
    let id = |byte: u8| FIRST_BYTE + u32::from(byte);
    let hello = FIRST_BYTE + 256 + 2;
    let mut ids: Vec<u32> = "\u{1f60a}".bytes().map(id).collect();
    ids.extend([id(0xe2), hello, hello + 1]);
    assert_eq!(streamed(&tokenizer, &ids, false), "\u{1f60a}\u{fffd} helloworld");
    let ids = [id(b'a'), id(0xff), hello];
    assert_eq!(streamed(&tokenizer, &ids, false), "a\u{fffd} hello");
    assert_eq!(tokenizer.decode(&ids, false).unwrap(), "a\u{fffd} hello");
}

/// A decoder that takes back what it said: nothing after it is lost.
#[test]
fn a_decoder_that_rewrites_begins_again() {
    let folder = tempfile::tempdir().unwrap();
    let mut json = byte_fallback("BPE");
    json["decoder"] = json!({"type": "Sequence", "decoders": [
        {"type": "Fuse"},
        {"type": "Replace", "pattern": {"Regex": "(?i)world\u{e9}"}, "content": "!"},
    ]});
    let tokenizer = load(folder.path(), &json).unwrap();
    let [world, e, face] = [3, 4, 5].map(|piece| FIRST_BYTE + 256 + piece);
    assert_eq!(tokenizer.decode(&[world, e, face], false).unwrap(), "!\u{1f60a}");
    let ids = [face, world, e, face, world];
    assert_eq!(streamed(&tokenizer, &ids, false), "\u{1f60a}world\u{e9}\u{1f60a}world");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    #[test]
    fn a_stream_of_byte_fallback_tells_all(
        ids in some_ids(FIRST_BYTE, FIRST_BYTE + 256 + PIECES.len() as u32, |byte| FIRST_BYTE + u32::from(byte)),
        unigram: bool,
        skip_special: bool,
    ) {
        static ALL: LazyLock<[Both; 2]> =
            LazyLock::new(|| ["BPE", "Unigram"].map(|kind| both(&byte_fallback(kind))));
        let (tokenizer, reference) = &ALL[usize::from(unigram)];
        let (text, plain) = text_of(&ids, skip_special);
        prop_assert_eq!(&tokenizer.decode(&ids, skip_special).unwrap(), &text);
        prop_assert_eq!(&streamed(tokenizer, &ids, skip_special), &text);
        if plain {
            prop_assert_eq!(reference.decode(&ids, skip_special).unwrap(), text);
        }
    }

    #[test]
    fn a_stream_of_byte_level_tells_all(
        ids in some_ids(BYTE_LEVEL_FIRST, 270, byte_level_id),
        skip_special: bool,
    ) {
        static ALL: LazyLock<Both> = LazyLock::new(|| both(&small()));
        let (tokenizer, reference) = &*ALL;
        let text = reference.decode(&ids, skip_special).unwrap();
        prop_assert_eq!(&tokenizer.decode(&ids, skip_special).unwrap(), &text);
        prop_assert_eq!(streamed(tokenizer, &ids, skip_special), text);
    }

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
