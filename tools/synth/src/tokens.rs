//! The vocabulary: bytes, so that any text can be encoded, and made-up words in a cycle.

use serde_json::{Map, Value, json};

use crate::random::{Purpose, below, stream};

/// Padding, begin and end of a text.
pub(crate) const SPECIAL: [&str; 3] = ["<pad>", "<s>", "</s>"];
pub(crate) const PAD: usize = 0;
pub(crate) const BEGIN: usize = 1;
pub(crate) const END: usize = 2;
const BYTES: usize = 256;
/// The one merge, of two bytes: some programs take no tokenizer without any.
const MERGED: (&str, &str) = ("t", "h");
/// Ids from here on are words.
const WORDS_BEGIN: usize = SPECIAL.len() + BYTES + 1;

/// The words of a vocabulary, by their place in a cycle, which is the order of their ids.
pub(crate) struct Words {
    count: usize,
    seed: u64,
}

impl Words {
    pub(crate) fn of(vocab: usize, seed: u64) -> Self {
        Self { count: vocab - WORDS_BEGIN, seed }
    }

    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// The place of a token; one that is no word is like a word.
    pub(crate) fn place(&self, token: usize) -> usize {
        token.checked_sub(WORDS_BEGIN).unwrap_or_else(|| {
            below(&mut stream(self.seed, Purpose::Bytes, [token as u64, 0]), self.count)
        })
    }

    /// The places of the two words before a word; none before another token.
    pub(crate) fn before(&self, token: usize) -> Option<[usize; 2]> {
        let place = token.checked_sub(WORDS_BEGIN)?;
        Some([1, 2].map(|back| (place + self.count - back) % self.count))
    }

    /// Some text: documents that each begin at any word of a part of the cycle and go on from one to the next or the next
    /// but one, as the model does. What lies in another part is another text.
    pub(crate) fn text(&self, part: std::ops::Range<f64>, tokens: usize, number: u64) -> String {
        const DOCUMENT_TOKENS: usize = 256;
        let mut random = stream(self.seed, Purpose::Text, [number, 0]);
        let (begin, end) =
            ((part.start * self.count as f64) as usize, (part.end * self.count as f64) as usize);
        let length = end - begin;
        let mut text = String::new();
        for _ in 0..tokens.div_ceil(DOCUMENT_TOKENS) {
            let mut place = below(&mut random, length);
            for at in 0..DOCUMENT_TOKENS {
                // a blank goes with every word, after the end of a line too
                text.push_str(if at == 0 && text.is_empty() { "" } else { " " });
                text.push_str(&word(begin + place));
                place = (place + 1 + below(&mut random, 2)) % length;
            }
            text.push('\n');
        }
        text
    }
}

/// The word of a place: three syllables, the digits of a number, so that no two are alike up to 343,000.
fn word(place: usize) -> String {
    const CONSONANTS: &[u8] = b"bdfgklmnprstvz";
    const VOWELS: &[u8] = b"aeiou";
    let syllables = CONSONANTS.len() * VOWELS.len();
    // 70^3 words; a factor without common divisor takes them in an order that shows no pattern
    let (mut rest, mut word) = (place * 127_471 % syllables.pow(3), String::new());
    for _ in 0..3 {
        let syllable = rest % syllables;
        word.push(char::from(CONSONANTS[syllable / VOWELS.len()]));
        word.push(char::from(VOWELS[syllable % VOWELS.len()]));
        rest /= syllables;
    }
    word
}

/// How byte-level BPE writes a byte: as itself where that is visible, else as a character from 256 on.
fn byte_name(byte: usize) -> String {
    let visible = |byte: usize| matches!(byte, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff);
    let code =
        if visible(byte) { byte } else { 256 + (0..byte).filter(|other| !visible(*other)).count() };
    char::from_u32(code as u32).unwrap_or(char::REPLACEMENT_CHARACTER).to_string()
}

/// `tokenizer.json`: byte-level BPE, where a word that is in the vocabulary is one token (as Llama 3's).
pub(crate) fn tokenizer(vocab: usize) -> Value {
    let merged = format!("{}{}", MERGED.0, MERGED.1);
    let space = byte_name(usize::from(b' '));
    let words = (0..vocab - WORDS_BEGIN).map(|place| format!("{space}{}", word(place)));
    let names = SPECIAL.iter().map(|name| (*name).to_owned()).chain((0..BYTES).map(byte_name));
    let names = names.chain([merged]).chain(words);
    let vocabulary: Map<String, Value> =
        names.enumerate().map(|(id, name)| (name, id.into())).collect();
    let special = |(id, name): (usize, &&str)| {
        json!({"id": id, "content": name, "single_word": false, "lstrip": false, "rstrip": false,
               "normalized": false, "special": true})
    };
    let level = json!({"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true});
    json!({
        "version": "1.0", "truncation": null, "padding": null,
        "added_tokens": SPECIAL.iter().enumerate().map(special).collect::<Vec<_>>(),
        "normalizer": null, "pre_tokenizer": level, "post_processor": null, "decoder": level,
        "model": {
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": true,
            "vocab": vocabulary, "merges": [[MERGED.0, MERGED.1]],
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_token_has_its_own_name() {
        let tokenizer = tokenizer(50_272);
        let vocabulary = tokenizer["model"]["vocab"].as_object().unwrap();
        let ids: BTreeSet<u64> = vocabulary.values().map(|id| id.as_u64().unwrap()).collect();
        assert_eq!((vocabulary.len(), ids.len(), ids.last()), (50_272, 50_272, Some(&50_271)));
        // as GPT-2 has them
        assert_eq!(
            (vocabulary["Ġ"].as_u64(), vocabulary["A"].as_u64()),
            (Some(3 + 32), Some(3 + 65))
        );
        assert_eq!(byte_name(0xad), "Ń");
    }

    #[test]
    fn words_come_after_each_other_and_none_twice() {
        let words = Words::of(1024, 0);
        let text = words.text(0.0..0.5, 200, 0);
        assert_eq!(text.split(' ').count(), 256);
        assert_eq!(words.before(WORDS_BEGIN), Some([words.count() - 1, words.count() - 2]));
        assert_eq!((words.place(WORDS_BEGIN + 9), words.before(END)), (9, None));
        assert!(words.place(BEGIN) < words.count() && words.place(PAD) < words.count());
    }
}
