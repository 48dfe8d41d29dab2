//! JSON as model folders have it, and its fields by type.

use std::borrow::Cow;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Map, Value};

/// Constants that Python writes and JSON does not have.
const PYTHON_ONLY: [&str; 3] = ["-Infinity", "Infinity", "NaN"];

/// Parses a text, a byte-order mark before it or not. The constants of Python, `NaN` and `Infinity`,
/// become strings: they do no harm where nobody reads them, and are told where a number is expected.
///
/// # Errors
/// No JSON, or no object.
pub(crate) fn parse(text: &str) -> Result<Map<String, Value>> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    match serde_json::from_str(text) {
        Ok(map) => Ok(map),
        // The first error is told: its place is that in the file.
        Err(error) => serde_json::from_str(&quoted(text)).map_err(|_| error.into()),
    }
}

/// The text with the constants of Python in quotation marks, but for those within strings.
fn quoted(text: &str) -> Cow<'_, str> {
    if !PYTHON_ONLY.iter().any(|constant| text.contains(constant)) {
        return text.into();
    }
    let mut out = String::with_capacity(text.len() + 16);
    let mut rest = text;
    let mut within = false;
    while let Some(first) = rest.chars().next() {
        let constant = PYTHON_ONLY.iter().find(|constant| rest.starts_with(**constant));
        let taken = match (within, first, constant) {
            (false, _, Some(constant)) => {
                out.extend(["\"", constant, "\""]);
                rest = &rest[constant.len()..];
                continue;
            }
            // What stands behind a backslash ends no string.
            (true, '\\', _) => rest.chars().take(2).map(char::len_utf8).sum(),
            (_, '"', _) => {
                within = !within;
                1
            }
            _ => first.len_utf8(),
        };
        out.push_str(&rest[..taken]);
        rest = &rest[taken..];
    }
    out.into()
}

/// The fields of an object, `null` being as good as absent.
#[derive(Clone, Copy)]
pub(crate) struct Fields<'a>(pub(crate) &'a Map<String, Value>);

impl<'a> Fields<'a> {
    /// A field that is there and not null.
    pub(crate) fn value(&self, key: &str) -> Option<&'a Value> {
        self.0.get(key).filter(|value| !value.is_null())
    }

    /// Whether the field is there, if only as null.
    pub(crate) fn mentions(&self, key: &str) -> bool {
        self.0.contains_key(key)
    }

    pub(crate) fn whole(&self, key: &str) -> Result<Option<usize>> {
        self.typed(key, "a whole number", |value| value.as_u64()?.try_into().ok())
    }

    /// A whole number that has to be there.
    pub(crate) fn size(&self, key: &str) -> Result<usize> {
        self.whole(key)?.with_context(|| format!("key `{key}` is missing"))
    }

    pub(crate) fn number(&self, key: &str) -> Result<Option<f64>> {
        self.typed(key, "a number", Value::as_f64)
    }

    pub(crate) fn flag(&self, key: &str) -> Result<Option<bool>> {
        self.typed(key, "true or false", Value::as_bool)
    }

    pub(crate) fn text(&self, key: &str) -> Result<Option<&'a str>> {
        self.typed(key, "a text", Value::as_str)
    }

    pub(crate) fn object(&self, key: &str) -> Result<Option<Fields<'a>>> {
        self.typed(key, "an object", |value| value.as_object().map(Fields))
    }

    pub(crate) fn texts(&self, key: &str) -> Result<Option<Vec<&'a str>>> {
        self.typed(key, "a list of texts", |value| {
            value.as_array()?.iter().map(Value::as_str).collect()
        })
    }

    /// Token ids: a number, a list of them, or -1 for none.
    pub(crate) fn ids(&self, key: &str) -> Result<Option<Vec<u32>>> {
        let id = |value: &Value| u32::try_from(value.as_u64()?).ok();
        self.typed(key, "a token id or a list of them", |value| match value {
            Value::Array(all) => all.iter().map(id).collect(),
            Value::Number(number) if number.as_i64() == Some(-1) => Some(Vec::new()),
            one => Some(vec![id(one)?]),
        })
    }

    /// Checks that a field is absent or has the one value that is supported.
    pub(crate) fn only(&self, key: &str, supported: impl Into<Value>) -> Result<()> {
        let supported = supported.into();
        let Some(found) = self.value(key) else { return Ok(()) };
        let equal =
            found == &supported || found.as_f64().is_some_and(|n| Some(n) == supported.as_f64());
        ensure!(equal, "{key} {found} is not supported: only {supported} is");
        Ok(())
    }

    fn typed<T>(
        &self,
        key: &str,
        expected: &str,
        of: impl Fn(&'a Value) -> Option<T>,
    ) -> Result<Option<T>> {
        let Some(value) = self.value(key) else { return Ok(None) };
        match of(value) {
            Some(found) => Ok(Some(found)),
            None => bail!("key `{key}` is {value}, expected is {expected}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_of_python() -> Result<()> {
        let map = parse(
            "\u{feff}{\"a\": NaN, \"b\": [-Infinity, 3], \"c\\\"\": \"NaN, \\\"Infinity\", \"d\": null}",
        )?;
        let fields = Fields(&map);
        assert_eq!(fields.text("c\"")?, Some("NaN, \"Infinity"));
        let told = fields.number("a").unwrap_err().to_string();
        assert_eq!(told, "key `a` is \"NaN\", expected is a number");
        assert!(fields.value("d").is_none() && fields.mentions("d") && !fields.mentions("e"));
        assert!(parse("{\"a\": NaNa}").unwrap_err().to_string().contains("line 1 column 7"));
        Ok(())
    }

    #[test]
    fn token_ids_in_every_form() -> Result<()> {
        let map =
            parse("{\"one\": 2, \"none\": -1, \"many\": [2, 3], \"null\": null, \"bad\": -2}")?;
        let fields = Fields(&map);
        assert_eq!(fields.ids("one")?, Some(vec![2]));
        assert_eq!(fields.ids("none")?, Some(vec![]));
        assert_eq!(fields.ids("many")?, Some(vec![2, 3]));
        assert_eq!((fields.ids("null")?, fields.ids("absent")?), (None, None));
        assert!(fields.ids("bad").is_err());
        Ok(())
    }
}
