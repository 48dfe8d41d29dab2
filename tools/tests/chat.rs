//! `lnp run --chat`: what the model is given is what its template makes of the dialogue, and replies are those of the
//! same text given as a prompt. Stop texts, and chance, by the way.

mod common;

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use common::{demo_model, fails, json, ok};
use lnp_model::Tokenizer;
use serde_json::{Value, json as value};

const TEMPLATE: &str =
    "{{ bos_token }}{% for m in messages %}<{{ m.role }}> {{ m.content }}\n{% endfor %}<assistant>";

struct Chat {
    folder: tempfile::TempDir,
    model: PathBuf,
    pack: String,
}

impl Chat {
    /// The bundled model with a template, and its pack.
    fn new() -> Self {
        let folder = common::disk_folder();
        let model = folder.path().join("model");
        fs::create_dir(&model).unwrap();
        for file in ["config.json", "generation_config.json", "model.safetensors", "tokenizer.json"]
        {
            fs::copy(demo_model().join(file), model.join(file)).unwrap();
        }
        let config = value!({ "chat_template": TEMPLATE, "bos_token": { "content": "<s>" } });
        fs::write(model.join("tokenizer_config.json"), config.to_string()).unwrap();
        let pack = folder.path().join("chat.lnp").to_str().unwrap().to_owned();
        ok(&["pack", "--model", model.to_str().unwrap(), "-o", &pack]);
        Self { folder, model, pack }
    }

    fn run(&self, more: &[&str]) -> Value {
        json(&self.with(more))
    }

    fn with<'a>(&'a self, more: &[&'a str]) -> Vec<&'a str> {
        let model = self.model.to_str().unwrap();
        [&["run", &self.pack, "--model", model, "--buffered", "--ignore-eos"], more].concat()
    }

    /// What the template makes of messages in turn, the user's first.
    fn text(messages: &[&str]) -> String {
        let role = |at: usize| if at.is_multiple_of(2) { "user" } else { "assistant" };
        let told = messages.iter().enumerate();
        let told: String = told.map(|(at, text)| format!("<{}> {text}\n", role(at))).collect();
        format!("<s>{told}<assistant>")
    }
}

fn text_of(run: &Value) -> &str {
    run["text"].as_str().unwrap()
}

#[test]
fn a_dialogue_is_the_text_that_the_template_makes() {
    let chat = Chat::new();
    let tokenizer = Tokenizer::load(&chat.model).unwrap();
    let asked = chat.run(&["--chat", "--prompt", "Who are you?", "-n", "12"]);
    let text = Chat::text(&["Who are you?"]);
    assert_eq!(asked["prompt_ids"], value!(tokenizer.encode(&text).unwrap()));
    let plain = chat.run(&["--no-bos", "--prompt", &text, "-n", "12"]);
    assert_eq!(asked["token_ids"], plain["token_ids"]);
    let system = chat.run(&["--chat", "--system", "Brief.", "--prompt", "Who?", "-n", "1"]);
    let expected = tokenizer.encode("<s><system> Brief.\n<user> Who?\n<assistant>").unwrap();
    assert_eq!(system["prompt_ids"], value!(expected));
    // a file of its own goes first
    fs::write(chat.model.join("chat_template.jinja"), "{{ messages[0].content.upper() }}").unwrap();
    let own = chat.run(&["--chat", "--prompt", "romeo", "-n", "1"]);
    assert_eq!(own["prompt_ids"], value!(tokenizer.encode("ROMEO").unwrap()));
}

#[test]
fn line_by_line() {
    let chat = Chat::new();
    let mut child = Command::new(env!("CARGO_BIN_EXE_lnp"))
        .args(chat.with(&["--chat", "-n", "10"]))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"Who are you?\n\nAnd  why?\n").unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    let said = String::from_utf8(output.stdout).unwrap();
    let first = chat.run(&["--no-bos", "--prompt", &Chat::text(&["Who are you?"]), "-n", "10"]);
    let text = Chat::text(&["Who are you?", text_of(&first), "And  why?"]);
    let second = chat.run(&["--no-bos", "--prompt", &text, "-n", "10"]);
    assert_eq!(said, format!("{}\n{}\n", text_of(&first), text_of(&second)));
    let summary = String::from_utf8(output.stderr).unwrap();
    assert!(summary.contains("20 tokens"), "{summary}");
}

#[test]
fn stops_and_chance() {
    let chat = Chat::new();
    let plain = chat.run(&["--prompt", "ROMEO:", "-n", "40"]);
    let text = text_of(&plain);
    let words: Vec<&str> = text.split_whitespace().collect();
    let stop = words[words.len() / 2];
    let stopped = chat.run(&["--prompt", "ROMEO:", "-n", "40", "--stop", "never", "--stop", stop]);
    assert_eq!(text_of(&stopped), &text[..text.find(stop).unwrap()]);
    assert_eq!(stopped["finish_reason"], "stop");
    assert_eq!(plain["finish_reason"], "length");
    // the most likely of one is the most likely of all
    let one = ["--prompt", "ROMEO:", "-n", "40", "--temperature", "1.5", "--top-k", "1"];
    assert_eq!(chat.run(&one)["token_ids"], plain["token_ids"]);
    let chance = |seed| {
        let args =
            ["--prompt", "ROMEO:", "-n", "40", "--temp", "1.2", "--top-p", "0.95", "--seed", seed];
        chat.run(&args)["token_ids"].clone()
    };
    assert_eq!(chance("3"), chance("3"));
    assert_ne!(chance("3"), chance("4"));
    let new = ["--prompt", "ROMEO:", "-n", "40", "--repetition-penalty", "1000"];
    let ids: Vec<u64> = serde_json::from_value(chat.run(&new)["token_ids"].clone()).unwrap();
    let distinct: std::collections::BTreeSet<&u64> = ids.iter().collect();
    assert_eq!(distinct.len(), ids.len(), "{ids:?}");
}

#[test]
fn what_is_no_chat_is_told() {
    let chat = Chat::new();
    let told = |template: &str| {
        let config = value!({ "chat_template": template });
        fs::write(chat.model.join("tokenizer_config.json"), config.to_string()).unwrap();
        fails(&chat.with(&["--chat", "--prompt", "x", "-n", "1"]))
    };
    let refused = told("\n{{ raise_exception('only\nof cats') }}");
    assert!(refused.contains("line 2 of the chat template: only of cats"), "{refused}");
    assert!(told("{% if %}").contains("line 1 of the chat template"));
    fs::remove_file(chat.model.join("tokenizer_config.json")).unwrap();
    let none = fails(&chat.with(&["--chat", "--prompt", "x", "-n", "1"]));
    assert!(none.contains("the model has no chat template"), "{none}");
    let json = fails(&chat.with(&["--chat", "--json"]));
    assert!(json.contains("--json tells of one reply"), "{json}");
    for (option, value) in [("--top-p", "0"), ("--min-p", "2"), ("--repetition-penalty", "0")] {
        let bad = fails(&chat.with(&["--prompt", "x", option, value]));
        assert!(bad.contains("must be"), "{bad}");
    }
    assert!(Path::new(chat.folder.path()).exists());
}
