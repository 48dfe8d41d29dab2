//! Text to token ids and back, with decoding of a stream as it grows.

use std::cell::Cell;
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::sync::Once;

use anyhow::{Result, anyhow};

use lnp_common::files::read_text;

/// Name of the file in a model folder.
pub(super) const FILE: &str = "tokenizer.json";
/// Longest tokenizer.json, bytes.
const TOKENIZER_BYTES_MAX: u64 = 1 << 28;
/// What a decoder puts where bytes are not (yet) UTF-8.
const REPLACEMENT: char = '\u{fffd}';

/// The tokenizer of a model folder.
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    /// Its file, for errors.
    path: PathBuf,
}

impl Tokenizer {
    /// Loads `tokenizer.json`. What it says of truncation and padding is left out, as `transformers`
    /// does: they are habits of its training, and a text is encoded whole.
    ///
    /// # Errors
    /// A missing or invalid file.
    pub fn load(dir: &Path) -> Result<Self> {
        let path = dir.join(FILE);
        let text = read_text(&path, TOKENIZER_BYTES_MAX)?;
        let inner = contained(|| {
            let mut inner: tokenizers::Tokenizer = text.parse()?;
            inner.with_truncation(None)?;
            inner.with_padding(None);
            Ok(inner)
        })
        .map_err(|error| anyhow!("{}: cannot load the tokenizer: {error}", path.display()))?;
        Ok(Self { inner, path })
    }

    /// Token ids of a text; none is added at its beginning or end.
    ///
    /// # Errors
    /// A text that the tokenizer refuses.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        let encoding = contained(|| self.inner.encode_fast(text, false)).map_err(|error| {
            anyhow!(
                "{}: cannot encode a text of {} bytes: {error}",
                self.path.display(),
                text.len()
            )
        })?;
        Ok(encoding.get_ids().to_vec())
    }

    /// Text of some token ids; ids that the tokenizer does not know give nothing. With
    /// `skip_special`, neither do special tokens (end of text and the like).
    ///
    /// # Errors
    /// Ids that the tokenizer's decoder refuses.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> Result<String> {
        contained(|| self.inner.decode(ids, skip_special)).map_err(|error| {
            anyhow!("{}: cannot decode {} token ids: {error}", self.path.display(), ids.len())
        })
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
/// [`Tokenizer::decode`] gives for all ids; no piece ends within a character.
pub struct Decoder<'a> {
    tokenizer: &'a Tokenizer,
    skip_special: bool,
    /// The ids of the last piece, kept because decoding may depend on what comes before (a leading
    /// space), then those whose text is not complete.
    ids: Vec<u32>,
    /// How many of `ids` are context.
    context: usize,
    /// The part of the text of `ids` that is out already.
    emitted: String,
}

impl Decoder<'_> {
    /// Takes one id and returns the text it completes, which may be empty.
    ///
    /// # Errors
    /// As [`Tokenizer::decode`].
    pub fn push(&mut self, id: u32) -> Result<String> {
        self.ids.push(id);
        let text = self.tokenizer.decode(&self.ids, self.skip_special)?;
        // Bytes at the end that are no character may become one with the next token.
        let complete = text.trim_end_matches(REPLACEMENT);
        let Some(piece) = complete.strip_prefix(self.emitted.as_str()) else {
            return Ok(String::new());
        };
        let piece = piece.to_owned();
        if piece.is_empty() {
            return Ok(piece);
        }
        if complete.len() == text.len() {
            self.ids.drain(..self.context);
            self.context = self.ids.len();
            self.emitted = self.tokenizer.decode(&self.ids, self.skip_special)?;
        } else {
            self.emitted.push_str(&piece);
        }
        Ok(piece)
    }

    /// Returns what is left: bytes that never became a character, as replacement characters.
    ///
    /// # Errors
    /// As [`Tokenizer::decode`].
    pub fn finish(self) -> Result<String> {
        let text = self.tokenizer.decode(&self.ids, self.skip_special)?;
        Ok(text.strip_prefix(self.emitted.as_str()).unwrap_or_default().to_owned())
    }
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
