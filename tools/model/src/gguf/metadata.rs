//! The metadata of a GGUF file: values by key, left where they stand in the header.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;

use anyhow::{Context, Result, bail, ensure};

/// Most values of an array that are read: twice as many as the largest vocabularies have merges.
const VALUES_MAX: usize = 1 << 20;

/// Types of values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    U8,
    I8,
    U16,
    I16,
    U32,
    I32,
    F32,
    Bool,
    Text,
    Array,
    U64,
    I64,
    F64,
}

impl Kind {
    pub(super) fn from_code(code: u32) -> Option<Self> {
        const KINDS: [Kind; 13] = [
            Kind::U8,
            Kind::I8,
            Kind::U16,
            Kind::I16,
            Kind::U32,
            Kind::I32,
            Kind::F32,
            Kind::Bool,
            Kind::Text,
            Kind::Array,
            Kind::U64,
            Kind::I64,
            Kind::F64,
        ];
        KINDS.get(code as usize).copied()
    }

    /// Bytes of a value, where all have as many.
    pub(super) fn bytes(self) -> Option<u64> {
        match self {
            Self::U8 | Self::I8 | Self::Bool => Some(1),
            Self::U16 | Self::I16 => Some(2),
            Self::U32 | Self::I32 | Self::F32 => Some(4),
            Self::U64 | Self::I64 | Self::F64 => Some(8),
            Self::Text | Self::Array => None,
        }
    }
}

/// A value, or an array of them.
#[derive(Debug)]
pub(super) struct Value {
    pub(super) kind: Kind,
    /// How many, of an array.
    pub(super) count: Option<usize>,
    /// Where in the header.
    pub(super) range: Range<usize>,
}

/// All entries.
#[derive(Debug)]
pub(super) struct Metadata {
    header: Vec<u8>,
    entries: BTreeMap<String, Value>,
}

impl Metadata {
    pub(super) fn new(header: Vec<u8>, entries: BTreeMap<String, Value>) -> Self {
        Self { header, entries }
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    pub(super) fn text(&self, key: &str) -> Result<Option<&str>> {
        self.single(key, "a text", |kind, bytes| match kind {
            Kind::Text => std::str::from_utf8(bytes).ok(),
            _ => None,
        })
    }

    pub(super) fn whole(&self, key: &str) -> Result<Option<u64>> {
        self.single(key, "a whole number", |kind, bytes| whole(kind, bytes)?.try_into().ok())
    }

    /// A number; f32 become what they are the nearest of, in decimals: 0.00001, not what that is in binary.
    pub(super) fn number(&self, key: &str) -> Result<Option<f64>> {
        self.single(key, "a number", |kind, bytes| match kind {
            Kind::F32 => {
                let value = f32::from_le_bytes(bytes.try_into().ok()?);
                value.to_string().parse().ok()
            }
            Kind::F64 => Some(f64::from_le_bytes(bytes.try_into().ok()?)),
            _ => Some(whole(kind, bytes)? as f64),
        })
    }

    pub(super) fn flag(&self, key: &str) -> Result<Option<bool>> {
        self.single(key, "true or false", |kind, bytes| match (kind, bytes) {
            (Kind::Bool, &[byte]) => Some(byte != 0),
            _ => None,
        })
    }

    /// Whole numbers, one or an array of them.
    pub(super) fn wholes(&self, key: &str) -> Result<Option<Vec<i64>>> {
        self.array(key, "an array of whole numbers", |kind, bytes| {
            whole(kind, bytes).and_then(|value| value.try_into().ok())
        })
    }

    /// f32, an array of them.
    pub(super) fn floats(&self, key: &str) -> Result<Option<Vec<f32>>> {
        self.array(key, "an array of numbers", |kind, bytes| match kind {
            Kind::F32 => Some(f32::from_le_bytes(bytes.try_into().ok()?)),
            _ => None,
        })
    }

    /// An array of texts.
    pub(super) fn texts(&self, key: &str) -> Result<Option<Vec<&str>>> {
        let Some(value) = self.entries.get(key) else { return Ok(None) };
        let (Kind::Text, Some(count)) = (value.kind, value.count) else {
            bail!("metadata `{key}` is {}, expected is an array of texts", self.shown(key));
        };
        check_count(key, count)?;
        let mut rest = &self.header[value.range.clone()];
        let mut texts = Vec::with_capacity(count);
        while let Some((text, after)) = split_text(rest) {
            texts.push(std::str::from_utf8(text).with_context(|| {
                format!("metadata `{key}`: text {} is not UTF-8: damaged", texts.len())
            })?);
            rest = after;
        }
        Ok(Some(texts))
    }

    /// A value in a few words.
    pub(super) fn shown(&self, key: &str) -> String {
        const CHARACTERS_MAX: usize = 60;
        let Some(value) = self.entries.get(key) else { return "absent".into() };
        let bytes = &self.header[value.range.clone()];
        if let Some(count) = value.count {
            return format!("an array of {count} values of type {}", value.kind);
        }
        match value.kind {
            Kind::Text => {
                let text = String::from_utf8_lossy(bytes);
                let mut shown: String = text.chars().take(CHARACTERS_MAX).collect();
                if shown.len() < text.len() {
                    shown.push('…');
                }
                shown
            }
            Kind::Bool => (bytes != [0]).to_string(),
            Kind::F32 | Kind::F64 => {
                self.number(key).ok().flatten().map_or(String::new(), |number| number.to_string())
            }
            kind => whole(kind, bytes).map_or(String::new(), |number| number.to_string()),
        }
    }

    fn single<'a, T>(
        &'a self,
        key: &str,
        expected: &str,
        of: impl Fn(Kind, &'a [u8]) -> Option<T>,
    ) -> Result<Option<T>> {
        let Some(value) = self.entries.get(key) else { return Ok(None) };
        let found = of(value.kind, &self.header[value.range.clone()]);
        let found = found.filter(|_| value.count.is_none());
        Ok(Some(found.with_context(|| {
            format!("metadata `{key}` is {}, expected is {expected}", self.shown(key))
        })?))
    }

    fn array<T>(
        &self,
        key: &str,
        expected: &str,
        of: impl Fn(Kind, &[u8]) -> Option<T>,
    ) -> Result<Option<Vec<T>>> {
        let Some(value) = self.entries.get(key) else { return Ok(None) };
        check_count(key, value.count.unwrap_or(1))?;
        let bytes = value.kind.bytes().unwrap_or(1) as usize;
        let values = self.header[value.range.clone()].chunks_exact(bytes);
        let found: Option<Vec<T>> = values.map(|bytes| of(value.kind, bytes)).collect();
        Ok(Some(found.with_context(|| {
            format!("metadata `{key}` is {}, expected is {expected}", self.shown(key))
        })?))
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&format!("{self:?}").to_lowercase())
    }
}

fn check_count(key: &str, count: usize) -> Result<()> {
    ensure!(
        count <= VALUES_MAX,
        "metadata `{key}` has {count} values, at most {VALUES_MAX} are read: damaged?"
    );
    Ok(())
}

/// The first text of an array, and what follows it. Its lengths were checked when the header was read.
fn split_text(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<8>()?;
    rest.split_at_checked(u64::from_le_bytes(*length) as usize)
}

fn whole(kind: Kind, bytes: &[u8]) -> Option<i128> {
    Some(match kind {
        Kind::U8 => u8::from_le_bytes(bytes.try_into().ok()?).into(),
        Kind::I8 => i8::from_le_bytes(bytes.try_into().ok()?).into(),
        Kind::U16 => u16::from_le_bytes(bytes.try_into().ok()?).into(),
        Kind::I16 => i16::from_le_bytes(bytes.try_into().ok()?).into(),
        Kind::U32 => u32::from_le_bytes(bytes.try_into().ok()?).into(),
        Kind::I32 => i32::from_le_bytes(bytes.try_into().ok()?).into(),
        Kind::U64 => u64::from_le_bytes(bytes.try_into().ok()?).into(),
        Kind::I64 => i64::from_le_bytes(bytes.try_into().ok()?).into(),
        _ => return None,
    })
}
