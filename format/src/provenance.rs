//! Provenance: where a pack comes from, as lines of text that any tool can read.

use crate::codes::SectionKind;
use crate::error::FormatError;
use crate::limits::PROVENANCE_BYTES_MAX;

/// Keys that every pack has: the order of the bundles, and the tool that wrote it.
pub const REQUIRED_KEYS: [&str; 2] = ["order", "tool"];

/// The validated provenance section: lines `key=value`, keys ascending, each once.
#[derive(Clone, Copy, Debug)]
pub struct Provenance<'a> {
    text: &'a str,
}

impl<'a> Provenance<'a> {
    /// Validates the section; `offset` is where it begins in the file.
    ///
    /// # Errors
    /// [`FormatError::Field`] with the offset of the line that breaks a rule.
    pub fn parse(bytes: &'a [u8], offset: u64) -> Result<Self, FormatError> {
        let broken = |at: usize, rule: &'static str, found: u64| FormatError::Field {
            field: SectionKind::Provenance.name(),
            offset: offset + at as u64,
            rule,
            found,
        };
        let length = bytes.len() as u64;
        if length == 0 || length > PROVENANCE_BYTES_MAX {
            return Err(broken(0, "must have 1 to 1,048,576 bytes", length));
        }
        let text = core::str::from_utf8(bytes)
            .map_err(|error| broken(error.valid_up_to(), "must be UTF-8", length))?;
        if !text.ends_with('\n') {
            return Err(broken(text.len() - 1, "must end with a line feed", length));
        }
        let mut previous = "";
        let mut at = 0;
        for line in text.split_terminator('\n') {
            let (key, value) = line
                .split_once('=')
                .ok_or_else(|| broken(at, "a line must be key=value", line.len() as u64))?;
            let key_ok = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'.');
            if key.is_empty() || !key.bytes().all(key_ok) {
                return Err(broken(at, "a key must be of a-z, 0-9, _ and .", key.len() as u64));
            }
            if value.chars().any(char::is_control) {
                return Err(broken(
                    at,
                    "a value must have no control characters",
                    value.len() as u64,
                ));
            }
            if key <= previous {
                return Err(broken(at, "keys must ascend, each once", key.len() as u64));
            }
            previous = key;
            at += line.len() + 1;
        }
        let provenance = Self { text };
        for key in REQUIRED_KEYS {
            if provenance.value(key).is_none() {
                return Err(broken(0, "must have the keys order and tool", length));
            }
        }
        Ok(provenance)
    }

    /// The lines as (key, value), keys ascending.
    pub fn entries(&self) -> impl Iterator<Item = (&'a str, &'a str)> + use<'a> {
        self.text.split_terminator('\n').filter_map(|line| line.split_once('='))
    }

    /// The value of a key.
    pub fn value(&self, key: &str) -> Option<&'a str> {
        self.entries().find(|(name, _)| *name == key).map(|(_, value)| value)
    }

    /// Name of the order in which the bundles stand.
    pub fn order(&self) -> &'a str {
        self.value("order").unwrap_or_default()
    }
}
