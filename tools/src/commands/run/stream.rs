//! Text as it comes, and where it ends.

use std::time::Instant;

use anyhow::Result;
use lnp_common::report::print;
use lnp_model::Decoder;

/// Text as it comes, on stdout; not with `--json`, whose text comes whole.
pub(super) struct Stream<'a> {
    decoder: Decoder<'a>,
    /// Tokens that end the text.
    eos: &'a [u32],
    stops: Stops<'a>,
    json: bool,
    begin: Instant,
    told: Told,
}

/// What a [`Stream`] told.
pub(super) struct Told {
    pub(super) text: String,
    pub(super) end: End,
    /// When each token was there, seconds after the prompt was given.
    pub(super) tokens_at_s: Vec<f64>,
    /// In all.
    pub(super) seconds: f64,
}

/// Why a text ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// It is as long as it was to be.
    Length,
    /// A token ended it.
    Eos,
    /// A text of --stop came.
    Stop,
}

impl End {
    /// In JSON.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Length => "length",
            Self::Eos => "eos_token",
            Self::Stop => "stop",
        }
    }
}

impl<'a> Stream<'a> {
    pub(super) fn new(
        decoder: Decoder<'a>,
        eos: &'a [u32],
        stops: &'a [String],
        json: bool,
    ) -> Self {
        let told =
            Told { text: String::new(), end: End::Length, tokens_at_s: Vec::new(), seconds: 0.0 };
        let stops = Stops { texts: stops, held: String::new() };
        Self { decoder, eos, stops, json, begin: Instant::now(), told }
    }

    /// Takes a token; false where it ends the text.
    pub(super) fn take(&mut self, token: u32) -> Result<bool> {
        self.told.tokens_at_s.push(self.begin.elapsed().as_secs_f64());
        if self.eos.contains(&token) {
            self.told.end = End::Eos;
            return Ok(false);
        }
        let piece = self.decoder.push(token)?;
        self.put(&piece)?;
        Ok(self.told.end != End::Stop)
    }

    pub(super) fn end(mut self) -> Result<Told> {
        if self.told.end != End::Stop {
            let rest = self.decoder.finish()?;
            self.put(&rest)?;
        }
        if self.told.end != End::Stop {
            let held = std::mem::take(&mut self.stops.held);
            self.out(&held)?;
        }
        if !self.json {
            print("\n")?;
        }
        self.told.seconds = self.begin.elapsed().as_secs_f64();
        Ok(self.told)
    }

    /// Takes a piece of text, and notes where a stop is in it.
    fn put(&mut self, piece: &str) -> Result<()> {
        let (piece, stopped) = self.stops.push(piece);
        if stopped {
            self.told.end = End::Stop;
        }
        self.out(&piece)
    }

    fn out(&mut self, piece: &str) -> Result<()> {
        self.told.text += piece;
        if self.json || piece.is_empty() { Ok(()) } else { print(piece) }
    }
}

/// Texts at which a text ends, the first of them not being part of it.
struct Stops<'a> {
    texts: &'a [String],
    /// What may be the begin of one, and is not out yet.
    held: String,
}

impl Stops<'_> {
    /// Takes a piece; gives what may go out, and whether the text ends there.
    fn push(&mut self, piece: &str) -> (String, bool) {
        self.held += piece;
        let found = self.texts.iter().filter_map(|stop| self.held.find(&**stop)).min();
        if let Some(at) = found {
            let out = self.held[..at].to_owned();
            self.held.clear();
            return (out, true);
        }
        // The longest end of it that some stop begins with.
        let begins = |at: &usize| {
            let rest = &self.held[*at..];
            self.texts.iter().any(|stop| stop.starts_with(rest))
        };
        let keep = self.held.char_indices().map(|(at, _)| at).find(begins);
        let rest = self.held.split_off(keep.unwrap_or(self.held.len()));
        (std::mem::replace(&mut self.held, rest), false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whatever the pieces, what goes out is the text up to the first stop.
    #[test]
    fn a_text_ends_at_the_first_stop() {
        let stops: Vec<String> = ["</s>", "\nUser:", "\u{e9}\u{301}"].map(Into::into).into();
        for (text, expected) in [
            ("no end < / s >", None),
            ("one</s>two</s>", Some("one")),
            ("a\n\nUser: b</s>", Some("a\n")),
            ("<</s></s>", Some("<")),
            ("caf\u{e9}\u{301} x", Some("caf")),
            ("caf\u{e9} \nUser", None),
        ] {
            let chars: Vec<char> = text.chars().collect();
            for size in 1..=chars.len() {
                let mut by = Stops { texts: &stops, held: String::new() };
                let (mut out, mut ended) = (String::new(), false);
                for piece in chars.chunks(size) {
                    let (piece, stopped) = by.push(&piece.iter().collect::<String>());
                    out += &piece;
                    if stopped {
                        ended = true;
                        break;
                    }
                }
                let out = if ended { out } else { out + &by.held };
                assert_eq!((&*out, ended), (expected.unwrap_or(text), expected.is_some()));
            }
        }
    }
}
