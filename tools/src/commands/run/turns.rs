//! Whose turn it is: a text that is continued once, or a dialogue.

use std::io::{IsTerminal, stdin};

use anyhow::{Result, bail};
use lnp_common::report::say;
use lnp_model::{ChatTemplate, Message, ModelConfig, PIECE_TOKENS, Role, Tokenizer, prompt_ids};

use super::Args;

/// Most tokens of a reply, where nothing else is said.
const REPLY_TOKENS: usize = 1024;
/// Tokens of a text that goes on, likewise.
const TEXT_TOKENS: usize = 64;

/// What the model is given to go on with, again and again.
pub(super) enum Turns<'a> {
    /// A text.
    Text(Option<Vec<u32>>),
    /// A dialogue.
    Chat(Box<Chat<'a>>),
}

pub(super) struct Chat<'a> {
    template: ChatTemplate,
    tokenizer: &'a Tokenizer,
    messages: Vec<Message>,
    /// The one question of --prompt; else they come from stdin.
    question: Option<String>,
    interactive: bool,
}

impl<'a> Turns<'a> {
    /// # Errors
    /// A prompt that cannot be encoded, or a model without a chat template.
    pub(super) fn of(
        args: &'a Args,
        config: &ModelConfig,
        tokenizer: &'a Tokenizer,
    ) -> Result<Self> {
        let path = &args.model.path;
        if args.chat {
            let template = ChatTemplate::load(path, config, tokenizer)?;
            let system = args.system.iter().map(|content| message(Role::System, content));
            return Ok(Self::Chat(Box::new(Chat {
                template,
                tokenizer,
                messages: system.collect(),
                question: args.prompt.clone(),
                interactive: args.prompt.is_none(),
            })));
        }
        let prompt = args.prompt.as_deref().unwrap_or_default();
        let ids = prompt_ids(path, config, tokenizer, prompt, args.no_bos)?;
        Ok(Self::Text(Some(ids)))
    }

    /// Most tokens that are fed at once, and tokens of the whole text where the context holds `most`.
    pub(super) fn sizes(&self, asked: Option<usize>, most: usize) -> (usize, usize) {
        match self {
            Self::Text(ids) => {
                let prompt = ids.as_ref().map_or(0, Vec::len);
                (prompt, most.min(prompt.saturating_add(self.count(asked, prompt, most))))
            }
            Self::Chat(_) => (most.min(PIECE_TOKENS), most),
        }
    }

    /// The whole text so far, where there is something to go on with.
    ///
    /// # Errors
    /// Input that cannot be read, or messages that the template refuses.
    pub(super) fn next(&mut self) -> Result<Option<Vec<u32>>> {
        match self {
            Self::Text(ids) => Ok(ids.take()),
            Self::Chat(chat) => chat.next(),
        }
    }

    /// Takes the model's reply.
    pub(super) fn replied(&mut self, text: &str) {
        if let Self::Chat(chat) = self {
            chat.messages.push(message(Role::Assistant, text));
        }
    }

    /// How many tokens are to follow a text of `had` tokens, where the context holds `most`.
    pub(super) fn count(&self, asked: Option<usize>, had: usize, most: usize) -> usize {
        match (self, asked) {
            (_, Some(count)) => count,
            (Self::Text(_), None) => TEXT_TOKENS,
            (Self::Chat(_), None) => REPLY_TOKENS.min((most + 1).saturating_sub(had)),
        }
    }
}

impl Chat<'_> {
    fn next(&mut self) -> Result<Option<Vec<u32>>> {
        let Some(question) = self.question()? else { return Ok(None) };
        self.messages.push(message(Role::User, &question));
        // What the template makes is the whole text: bos is in it where it belongs.
        let ids = self.tokenizer.encode(&self.template.render(&self.messages)?)?;
        if ids.is_empty() {
            bail!("the chat template makes no text of this");
        }
        Ok(Some(ids))
    }

    /// The next question, if there is one.
    fn question(&mut self) -> Result<Option<String>> {
        if !self.interactive {
            return Ok(self.question.take());
        }
        loop {
            if stdin().is_terminal() {
                say("> ");
            }
            let mut line = String::new();
            if stdin().read_line(&mut line)? == 0 {
                return Ok(None);
            }
            let line = line.trim();
            if !line.is_empty() {
                return Ok(Some(line.to_owned()));
            }
        }
    }
}

fn message(role: Role, content: &str) -> Message {
    Message { role, content: content.to_owned() }
}
