//! Every `lnp` command line in the documents is one that this program takes.
#![allow(clippy::unwrap_used)]

use std::path::Path;

use clap::Parser;

use super::Cli;

/// The words of a command line: quotes keep blanks, what follows ` #` is for people.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quote) = (Vec::new(), String::new(), None);
    let mut begun = false;
    for c in line.chars() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (None, '"' | '\'') => (quote, begun) = (Some(c), true),
            (None, '#' | '|' | '>' | ';') if !begun => break,
            (None, ' ') => {
                if std::mem::take(&mut begun) {
                    words.push(std::mem::take(&mut word));
                }
            }
            (_, c) => {
                word.push(c);
                begun = true;
            }
        }
    }
    if begun {
        words.push(word);
    }
    words
}

/// The command lines in code of a document, continued lines joined, each with where it is.
fn commands(path: &Path) -> Vec<(String, String)> {
    let text = std::fs::read_to_string(path).unwrap();
    let (mut fenced, mut found, mut open): (bool, Vec<(String, String)>, bool) =
        (false, Vec::new(), false);
    for (number, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
            continue;
        }
        let code = fenced || line.starts_with("    ");
        let line = line.trim();
        if open {
            let (_, command) = found.last_mut().unwrap();
            command.push_str(line);
        } else if code && line.starts_with("lnp ") {
            found.push((format!("{}:{}", path.display(), number + 1), line.to_owned()));
        } else {
            continue;
        }
        let (_, command) = found.last_mut().unwrap();
        open = command.ends_with('\\');
        if open {
            command.pop();
        }
    }
    found
}

#[test]
fn documented_commands_are_taken() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut documents = vec![root.join("README.md"), root.join("benches/README.md")];
    let docs = std::fs::read_dir(root.join("docs")).unwrap().map(|entry| entry.unwrap().path());
    documents.extend(docs.filter(|path| path.extension().is_some_and(|end| end == "md")));
    let found: Vec<_> = documents.iter().flat_map(|path| commands(path)).collect();
    assert!(found.len() >= 20, "only {} commands found", found.len());
    let refused: Vec<String> = found
        .iter()
        .filter_map(|(place, command)| {
            let error = Cli::try_parse_from(words(command)).err()?;
            Some(format!("{place}: {command}\n{error}"))
        })
        .collect();
    assert!(refused.is_empty(), "{}", refused.join("\n"));
}

#[test]
fn words_of_a_command_line() {
    assert_eq!(
        words("lnp run  P --prompt \"a # b\" -n 3   # text"),
        ["lnp", "run", "P", "--prompt", "a # b", "-n", "3"]
    );
    assert_eq!(words("lnp inspect x > y"), ["lnp", "inspect", "x"]);
}
