//! Chat templates: how the messages of a dialogue become the text that a model was tuned on.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use lnp_common::files::read_text;
use minijinja::syntax::SyntaxConfig;
use minijinja::{Environment, Error, ErrorKind, context};
use serde_json::{Map, Value};

use super::config::{CONFIG_BYTES_MAX, ModelConfig};
use super::folder::{CHAT_TEMPLATE_FILE, TOKENIZER_CONFIG_FILE};
use super::gguf::{self, GgufFile};
use super::json::parse;
use super::tokenizer::Tokenizer;

/// The template's name in its environment, and in messages about it.
const NAME: &str = "chat_template";
/// Steps that a template may take: those of real models take some thousands.
const STEPS_MAX: u64 = 10_000_000;

/// One message of a dialogue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Who says it.
    pub role: Role,
    /// What.
    pub content: String,
}

impl Message {
    /// As templates see it.
    fn value(&self) -> minijinja::Value {
        context! { role => self.role.name(), content => &*self.content }
    }
}

/// Who says something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// How the model shall be.
    System,
    /// The one who asks.
    User,
    /// The model.
    Assistant,
}

impl Role {
    /// What templates call it.
    const fn name(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::User => "user",
            Self::Assistant => "assistant",
        }
    }
}

/// A model's chat template.
pub struct ChatTemplate {
    environment: Environment<'static>,
    bos: String,
    eos: String,
    /// The file that it stands in, for messages.
    path: PathBuf,
}

impl ChatTemplate {
    /// The template of a model folder (`chat_template.jinja`, or `chat_template` in `tokenizer_config.json`) or of a GGUF
    /// file.
    ///
    /// # Errors
    /// A model without one, or one that is no template.
    pub fn load(model: &Path, config: &ModelConfig, tokenizer: &Tokenizer) -> Result<Self> {
        let token = |id: Option<u32>| id.and_then(|id| tokenizer.token(id)).unwrap_or_default();
        let mut bos = token(config.bos_token_id);
        let mut eos = token(config.eos_token_ids.first().copied());
        let (path, text) = if gguf::is_gguf(model) {
            (model.to_owned(), GgufFile::open(model)?.chat_template()?)
        } else {
            let path = model.join(TOKENIZER_CONFIG_FILE);
            let map = match path.exists() {
                true => parse(&read_text(&path, CONFIG_BYTES_MAX)?).with_context(|| {
                    format!("{}: not a tokenizer configuration", path.display())
                })?,
                false => Map::new(),
            };
            for (token, key) in [(&mut bos, "bos_token"), (&mut eos, "eos_token")] {
                *token = map.get(key).and_then(token_text).map_or(token.clone(), str::to_owned);
            }
            let own = model.join(CHAT_TEMPLATE_FILE);
            match own.exists() {
                true => (own.clone(), Some(read_text(&own, CONFIG_BYTES_MAX)?)),
                false => (path, map.get(NAME).and_then(template_text).map(str::to_owned)),
            }
        };
        let Some(text) = text else {
            bail!(
                "{}: the model has no chat template ({CHAT_TEMPLATE_FILE}, or `{NAME}` in {TOKENIZER_CONFIG_FILE}): \
                 was it tuned to chat? Without --chat it continues a text",
                model.display()
            )
        };
        Self::parse(text, bos, eos, path)
    }

    fn parse(text: String, bos: String, eos: String, path: PathBuf) -> Result<Self> {
        let mut environment = Environment::new();
        // As transformers sets Jinja up.
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        environment.set_syntax(syntax.context("the syntax of chat templates")?);
        environment
            .set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.set_fuel(Some(STEPS_MAX));
        environment.add_filter("tojson", |value: minijinja::Value| -> Result<String, Error> {
            let told = |error| Error::new(ErrorKind::BadSerialization, format!("{error}"));
            serde_json::to_string(&value).map_err(told)
        });
        environment.add_function("raise_exception", |told: String| -> Result<String, Error> {
            Err(Error::new(ErrorKind::InvalidOperation, told))
        });
        let added = environment.add_template_owned(NAME, text);
        added.map_err(|error| anyhow!("{}: {}", path.display(), one_line(&error)))?;
        Ok(Self { environment, bos, eos, path })
    }

    /// The text of a dialogue, up to where the model's next message begins.
    ///
    /// # Errors
    /// Messages that the template does not take, or a mistake in it.
    pub fn render(&self, messages: &[Message]) -> Result<String> {
        let told = |error: Error| anyhow!("{}: {}", self.path.display(), one_line(&error));
        let template = self.environment.get_template(NAME).map_err(told)?;
        let rendered = template.render(context! {
            messages => messages.iter().map(Message::value).collect::<Vec<_>>(),
            add_generation_prompt => true,
            bos_token => &*self.bos,
            eos_token => &*self.eos,
        });
        rendered.map_err(told)
    }
}

/// What is wrong, and in which line.
fn one_line(error: &Error) -> String {
    let told = error.detail().map_or_else(|| error.kind().to_string(), str::to_owned);
    let told = told.split_whitespace().collect::<Vec<_>>().join(" ");
    match error.line() {
        Some(line) => format!("line {line} of the chat template: {told}"),
        None => format!("the chat template: {told}"),
    }
}

/// A special token: its text, or an object that has it.
fn token_text(value: &Value) -> Option<&str> {
    value.as_str().or_else(|| value.get("content")?.as_str())
}

/// A template: its text, or the one of several that is named `default`.
fn template_text(value: &Value) -> Option<&str> {
    let named = |one: &&Value| one.get("name").and_then(Value::as_str) == Some("default");
    let of_several = || value.as_array()?.iter().find(named)?.get("template")?.as_str();
    value.as_str().or_else(of_several)
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    /// Made by `tests/chat.py` with Jinja as transformers sets it up.
    const REFERENCE: &str = include_str!("../tests/chat.json");

    #[derive(Deserialize)]
    struct Case {
        name: String,
        template: String,
        bos_token: String,
        eos_token: String,
        messages: Vec<(String, String)>,
        /// None where the template refuses the messages.
        text: Option<String>,
        /// What it says then.
        told: Option<String>,
    }

    #[test]
    fn renders_what_jinja_renders() {
        let cases: Vec<Case> = serde_json::from_str(REFERENCE).unwrap();
        assert!(cases.len() >= 20);
        for case in cases {
            let path = PathBuf::from("model");
            let template =
                ChatTemplate::parse(case.template, case.bos_token, case.eos_token, path).unwrap();
            let message = |(role, content): &(String, String)| {
                let role = match &**role {
                    "system" => Role::System,
                    "user" => Role::User,
                    _ => Role::Assistant,
                };
                Message { role, content: content.clone() }
            };
            let messages: Vec<Message> = case.messages.iter().map(message).collect();
            match (template.render(&messages), case.text) {
                (Ok(found), Some(expected)) => assert_eq!(found, expected, "{}", case.name),
                (Err(error), None) => {
                    let found = error.to_string();
                    let told = case.told.unwrap();
                    assert!(found.ends_with(&told), "{}: {found} for {told}", case.name);
                }
                (found, expected) => panic!("{}: {found:?} for {expected:?}", case.name),
            }
        }
    }

    #[test]
    fn what_is_no_template_is_told_in_a_line() {
        let parse = |text: &str| {
            let parsed = ChatTemplate::parse(text.into(), String::new(), String::new(), "m".into());
            parsed.and_then(|template| template.render(&[]))
        };
        for text in ["a\n{% if %}", "{{ messages[0].content.foo() }}", "{% for m in", "{{ 1 / 0 }}"]
        {
            let told = parse(text).unwrap_err().to_string();
            assert!(told.starts_with("m: line ") && !told.contains('\n'), "{told}");
        }
        // without end: stopped
        let told =
            parse("{% for a in range(9999) %}{% for b in range(9999) %}{% endfor %}{% endfor %}");
        assert!(told.is_err());
        let several = serde_json::json!([{"name": "tool_use", "template": "a"}, {"name": "default", "template": "b"}]);
        assert_eq!(template_text(&several), Some("b"));
        assert_eq!(token_text(&serde_json::json!({"content": "<s>"})), Some("<s>"));
    }
}
