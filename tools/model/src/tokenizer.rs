//! Text to token ids and back, with decoding of a stream as it grows.

use std::cell::Cell;
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::sync::Once;

use anyhow::{Result, anyhow, bail};
use tokenizers::{Decoder as _, DecoderWrapper};

use lnp_common::files::read_text;

use super::folder::{TOKENIZER_FILE, check_folder, conversion};
use super::gguf::{self, GgufFile};

/// Longest tokenizer.json, bytes.
const TOKENIZER_BYTES_MAX: u64 = 1 << 28;
/// What a decoder puts where bytes are not (yet) UTF-8.
const REPLACEMENT: char = '\u{fffd}';
/// Most replacement characters at the end of a text that bytes to come can still change: a character
/// of UTF-8 has at most three bytes before its last.
const UNDECIDED_MAX: usize = 3;

/// The tokenizer of a model folder.
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    /// Whether tokens such as `<0xE2>` stand for bytes.
    byte_fallback: bool,
    /// Whether a text begins with bos, where the file says so itself: a GGUF file does.
    adds_bos: Option<bool>,
    /// Its file, for errors.
    path: PathBuf,
}

impl Tokenizer {
    /// Loads `tokenizer.json` of a model folder, or what a GGUF file has of it. What it says of truncation and padding is left out, as `transformers`
    /// does: they are habits of its training, and a text is encoded whole.
    ///
    /// # Errors
    /// No folder and no GGUF file, or a missing or invalid file; what to do where the tokenizer is of
    /// another kind.
    pub fn load(dir: &Path) -> Result<Self> {
        if gguf::is_gguf(dir) {
            return GgufFile::open(dir)?.tokenizer();
        }
        check_folder(dir)?;
        let path = dir.join(TOKENIZER_FILE);
        check_is_there(dir, &path)?;
        Self::from_json(&read_text(&path, TOKENIZER_BYTES_MAX)?, &path, None)
    }

    /// The tokenizer that a text such as tokenizer.json describes; `path` is its file, for errors.
    pub(crate) fn from_json(text: &str, path: &Path, adds_bos: Option<bool>) -> Result<Self> {
        let inner = contained(|| {
            let mut inner: tokenizers::Tokenizer = text.parse()?;
            inner.with_truncation(None)?;
            inner.with_padding(None);
            Ok(inner)
        })
        .map_err(|error| anyhow!("{}: cannot load the tokenizer: {error}", path.display()))?;
        let byte_fallback = inner.get_decoder().is_some_and(has_byte_fallback);
        Ok(Self { inner, byte_fallback, adds_bos, path: path.to_owned() })
    }

    /// Token ids of a text; none is added at its beginning or end.
    ///
    /// # Errors
    /// A text that the tokenizer refuses.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        self.encode_with(text, false)
    }

    /// The same, with what tokenizer.json itself puts around a text if `special`.
    fn encode_with(&self, text: &str, special: bool) -> Result<Vec<u32>> {
        let encoding = contained(|| self.inner.encode_fast(text, special)).map_err(|error| {
            anyhow!(
                "{}: cannot encode a text of {} bytes: {error}",
                self.path.display(),
                text.len()
            )
        })?;
        Ok(encoding.get_ids().to_vec())
    }

    /// Whether a text begins with the model's bos token, where the tokenizer's file says so.
    pub(crate) fn adds_bos(&self) -> Option<bool> {
        self.adds_bos
    }

    /// The token that tokenizer.json itself puts before a text, if it does.
    ///
    /// # Errors
    /// As [`Self::encode`].
    pub(crate) fn puts_first(&self) -> Result<Option<u32>> {
        let (plain, special) = (self.encode_with("a", false)?, self.encode_with("a", true)?);
        Ok(special.first().copied().filter(|id| Some(id) != plain.first()))
    }

    /// Text of some token ids; ids that the tokenizer does not know give nothing. With
    /// `skip_special`, neither do special tokens (end of text and the like).
    ///
    /// Bytes that are part of no UTF-8 character become U+FFFD, and what stands beside them is kept:
    /// with tokens for single bytes (`<0xE2>`) one for each byte, as SentencePiece has it. (The crate
    /// `tokenizers` gives up every byte of such a row where one is wrong.)
    ///
    /// # Errors
    /// Ids that the tokenizer's decoder refuses.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> Result<String> {
        let decoded = match self.inner.get_decoder().filter(|_| self.byte_fallback) {
            Some(decoder) => contained(|| decoder.decode(self.tokens(ids, skip_special))),
            None => contained(|| self.inner.decode(ids, skip_special)),
        };
        decoded.map_err(|error| {
            anyhow!("{}: cannot decode {} token ids: {error}", self.path.display(), ids.len())
        })
    }

    /// The tokens of some ids, those for bytes that are part of no character replaced.
    fn tokens(&self, ids: &[u32], skip_special: bool) -> Vec<String> {
        let added = self.inner.get_added_vocabulary();
        let known = ids.iter().filter_map(|id| self.inner.id_to_token(*id));
        let mut tokens: Vec<String> =
            known.filter(|token| !(skip_special && added.is_special_token(token))).collect();
        let mut rest = &mut tokens[..];
        while !rest.is_empty() {
            let bytes: Vec<u8> = rest.iter().map_while(|token| byte_of(token)).collect();
            let (row, after) = rest.split_at_mut(bytes.len());
            let mut left = row.iter_mut();
            for chunk in bytes.utf8_chunks() {
                left.by_ref().take(chunk.valid().len()).for_each(drop);
                let wrong = left.by_ref().take(chunk.invalid().len());
                wrong.for_each(|token| *token = REPLACEMENT.to_string());
            }
            rest = after.get_mut(1..).unwrap_or_default();
        }
        tokens
    }

    /// The text of a token itself, if there is such a token.
    pub(crate) fn token(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    /// A decoder for ids that arrive one by one.
    pub fn decoder(&self, skip_special: bool) -> Decoder<'_> {
        Decoder {
            tokenizer: self,
            skip_special,
            ids: Vec::new(),
            context: 0,
            emitted: String::new(),
        }
    }
}

/// Turns a stream of token ids into a stream of text. All pieces together are the text that
/// [`Tokenizer::decode`] gives for all ids, whatever they are, with every decoder that makes characters
/// of bytes (byte-level, byte fallback) or joins pieces of words. One that changes text when more
/// follows (a regular expression over all of it) would take back what is out already: there the text
/// begins again with the token at hand. No piece ends within a character.
pub struct Decoder<'a> {
    tokenizer: &'a Tokenizer,
    skip_special: bool,
    /// The ids of the last piece, kept because decoding may depend on what comes before (a leading
    /// space), then those whose text is not complete.
    ids: Vec<u32>,
    /// How many of `ids` are context.
    context: usize,
    /// The part of the text of `ids` that is out already: what it begins with.
    emitted: String,
}

impl Decoder<'_> {
    /// Takes one id and returns the text it completes, which may be empty.
    ///
    /// # Errors
    /// As [`Tokenizer::decode`].
    pub fn push(&mut self, id: u32) -> Result<String> {
        self.ids.push(id);
        let text = self.text()?;
        if text.starts_with(&self.emitted) {
            return self.advance(&text);
        }
        let held = self.begin_again(id)?;
        let text = self.text()?;
        Ok(held + &self.advance(&text)?)
    }

    /// Returns what is left: bytes that never became a character, as replacement characters.
    ///
    /// # Errors
    /// As [`Tokenizer::decode`].
    pub fn finish(&mut self) -> Result<String> {
        let held = self.held()?;
        (self.ids, self.context, self.emitted) = (Vec::new(), 0, String::new());
        Ok(held)
    }

    fn text(&self) -> Result<String> {
        self.tokenizer.decode(&self.ids, self.skip_special)
    }

    /// What of the text is not out yet.
    fn held(&self) -> Result<String> {
        Ok(self.text()?.strip_prefix(&self.emitted).unwrap_or_default().to_owned())
    }

    /// What of a text, which begins with what is out, may go out too.
    fn advance(&mut self, text: &str) -> Result<String> {
        let complete = &text[..text.len() - undecided_bytes(text)];
        let piece = complete.get(self.emitted.len()..).unwrap_or_default().to_owned();
        if piece.is_empty() {
            return Ok(piece);
        }
        if complete.len() == text.len() {
            self.ids.drain(..self.context);
            self.context = self.ids.len();
            self.emitted = self.text()?;
        } else {
            self.emitted.push_str(&piece);
        }
        Ok(piece)
    }

    /// Leaves all ids behind but the last; returns what of their text was held back.
    fn begin_again(&mut self, last: u32) -> Result<String> {
        self.ids.pop();
        let held = self.held()?;
        (self.ids, self.context, self.emitted) = (vec![last], 0, String::new());
        Ok(held)
    }
}

/// Checks that a folder has a tokenizer.json; where it has a tokenizer of another kind, says how to
/// convert that.
fn check_is_there(dir: &Path, path: &Path) -> Result<()> {
    const OTHERS: [&str; 4] = ["tokenizer.model", "spiece.model", "vocab.json", "vocab.txt"];
    if path.symlink_metadata().is_ok() {
        return Ok(());
    }
    let Some(other) = OTHERS.iter().find(|name| dir.join(name).exists()) else {
        bail!("{}: no {TOKENIZER_FILE}; download it, from where the weights came", dir.display());
    };
    bail!(
        "{}: no {TOKENIZER_FILE}; convert {other}, which is there, once: {}",
        dir.display(),
        conversion("AutoTokenizer", dir)
    )
}

/// How many bytes at the end of a text are no character yet.
fn undecided_bytes(text: &str) -> usize {
    let tail = text.chars().rev().take(UNDECIDED_MAX);
    tail.take_while(|c| *c == REPLACEMENT).map(char::len_utf8).sum()
}

/// Whether a decoder makes characters of tokens for single bytes.
fn has_byte_fallback(decoder: &DecoderWrapper) -> bool {
    match decoder {
        DecoderWrapper::ByteFallback(_) => true,
        DecoderWrapper::Sequence(steps) => steps.get_decoders().iter().any(has_byte_fallback),
        _ => false,
    }
}

/// The byte that a token such as `<0xE2>` stands for.
fn byte_of(token: &str) -> Option<u8> {
    let digits = token.strip_prefix("<0x")?.strip_suffix('>')?;
    (digits.len() == 2).then(|| u8::from_str_radix(digits, 16).ok())?
}

thread_local! {
    /// Whether a panic of this thread becomes an error, about which nothing need be printed.
    static CONTAINED: Cell<bool> = const { Cell::new(false) };
}

/// Runs a step of `tokenizers`. Where the parts of a tokenizer.json contradict each other (a prefix longer
/// than its token, pieces of no characters), that crate panics: an error here.
fn contained<T>(step: impl FnOnce() -> tokenizers::Result<T>) -> tokenizers::Result<T> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let told = panic::take_hook();
        panic::set_hook(Box::new(move |panic| {
            if !CONTAINED.get() {
                told(panic);
            }
        }));
    });
    CONTAINED.set(true);
    let done = panic::catch_unwind(AssertUnwindSafe(step));
    CONTAINED.set(false);
    done.unwrap_or_else(|panic| {
        let reason = panic
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| panic.downcast_ref::<&str>().copied())
            .unwrap_or("no reason given");
        Err(anyhow!("its parts contradict each other ({reason})").into())
    })
}
