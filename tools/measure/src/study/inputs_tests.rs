//! What a trace's text is called.

use lnp_link::trace::{TraceData, write_trace};

use super::*;

fn source(text: &str) -> Source {
    text.parse().unwrap()
}

#[test]
fn a_file_may_come_with_a_name() {
    let plain = |path: &str| Source { path: path.into(), name: None };
    assert_eq!(source("a.trace"), plain("a.trace"));
    assert_eq!(source("=a.trace"), plain("=a.trace"));
    assert_eq!(source("novels="), plain("novels="));
    assert_eq!(source("./novels=a.trace"), plain("./novels=a.trace"));
    let named = Source { path: "x/b=c.trace".into(), name: Some("novels".into()) };
    assert_eq!(source("novels=x/b=c.trace"), named);
}

#[test]
fn the_name_comes_first_then_the_trace_then_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let corpus = |name: Option<&str>, file: &str, corpus: &str, split: &str| {
        let path = folder.path().join(file);
        let data = TraceData {
            model: "m".into(),
            corpus: corpus.into(),
            split: split.into(),
            active: "made up".into(),
            neurons: 8,
            tokens: 1,
            window: 1,
            token_ids: None,
            inputs: None,
            predicted: None,
            synthetic: None,
            layers: vec![vec![1]],
        };
        write_trace(&path, &data).unwrap();
        let trace = TraceReader::open(&path).unwrap();
        Corpus::of(&Source { path, name: name.map(str::to_owned) }, &trace)
    };
    let known = |name: &str| Corpus { name: name.into(), known: true };
    let alpaca = "alpaca.profile.safetensors";
    assert_eq!(corpus(Some("a,b"), alpaca, "wiki", "profile"), known("a b"));
    assert_eq!(corpus(None, alpaca, "wiki", "profile"), known("wiki"));
    // What `lnp trace --text profile.txt` records is the split, not the text.
    assert_eq!(corpus(None, alpaca, "profile", "profile"), known("alpaca"));
    assert_eq!(corpus(None, alpaca, "", "profile"), known("alpaca"));
    assert_eq!(corpus(None, "gsm8k.held.trace", "held", "held"), known("gsm8k"));
    for (file, recorded) in [("profile.trace", "profile"), ("test.trace.safetensors", "test")] {
        let found = corpus(None, file, recorded, recorded);
        assert_eq!(found, Corpus { name: file.into(), known: false });
    }
}
