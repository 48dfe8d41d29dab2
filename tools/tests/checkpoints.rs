//! Model folders as they are found: what exporters write beside the rule is read as it is meant.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use lnp_model::{Checkpoint, DenseFfn, Model, Tokenizer, prompt_ids};
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use serde_json::{Value, json};
use tempfile::TempDir;

const TOKENS: [u32; 6] = [1, 9, 40, 4, 63, 10];

fn family(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/families").join(name)
}

/// A copy of a family's folder with other text for config.json, and its tensors as f32 under other names.
fn copy(name: &str, config: &str, renamed: impl Fn(&str) -> Option<String>) -> Result<TempDir> {
    let dir = TempDir::new()?;
    std::fs::write(dir.path().join("config.json"), config)?;
    let source = Checkpoint::open(&family(name))?;
    let mut tensors = BTreeMap::new();
    for old in source.names() {
        let Some(new) = renamed(old) else { continue };
        // in f64, which holds every value of the others
        let values = source.read_f32(old)?;
        let bytes = values.iter().flat_map(|v| f64::from(*v).to_le_bytes()).collect::<Vec<u8>>();
        tensors.insert(new, (source.shape(old)?.to_vec(), bytes));
    }
    let views = tensors.iter().map(|(name, (shape, bytes))| {
        (name.clone(), TensorView::new(Dtype::F64, shape.clone(), bytes).unwrap())
    });
    safetensors::serialize_to_file(views, None, &dir.path().join("model.safetensors"))?;
    Ok(dir)
}

fn config_text(name: &str) -> Result<String> {
    Ok(std::fs::read_to_string(family(name).join("config.json"))?)
}

fn config(name: &str) -> Result<Value> {
    Ok(serde_json::from_str(&config_text(name)?)?)
}

fn same(name: &str) -> Option<String> {
    Some(name.to_owned())
}

fn logits(dir: &Path) -> Result<Vec<f32>> {
    let model = Model::load(dir)?;
    let mut dense = DenseFfn::load(model.checkpoint(), model.config())?;
    model.forward(&mut model.new_state(), &TOKENS, &mut dense)
}

#[test]
fn json_of_python_behind_a_mark_and_weights_in_f64() -> Result<()> {
    let expected = logits(&family("opt"))?;
    let text = config_text("opt")?;
    let text =
        text.replacen('{', "\u{feff}{\n  \"init_std\": NaN, \"limit\": [-Infinity, Infinity],", 1);
    // the mark stands before everything
    let text = format!("\u{feff}{}", text.replace('\u{feff}', ""));
    assert_eq!(logits(copy("opt", &text, same)?.path())?, expected);
    let bad = text.replace("\"ffn_dim\": 48", "\"ffn_dim\": NaN");
    let told = format!("{:#}", logits(copy("opt", &bad, same)?.path()).err().context("no error")?);
    assert!(told.contains("key `ffn_dim` is \"NaN\", expected is a whole number"), "{told}");
    Ok(())
}

#[test]
fn the_type_in_any_form() -> Result<()> {
    let expected = logits(&family("opt"))?;
    for dtype in [json!({"dtype": "float32"}), json!({"torch_dtype": null}), json!({"dtype": 3})] {
        let mut config = config("opt")?;
        config.as_object_mut().context("no object")?.remove("dtype");
        config
            .as_object_mut()
            .context("no object")?
            .extend(dtype.as_object().cloned().unwrap_or_default());
        assert_eq!(logits(copy("opt", &config.to_string(), same)?.path())?, expected);
    }
    Ok(())
}

/// A tied model may come with either matrix, or both; one that is not tied needs its head.
#[test]
fn tied_heads() -> Result<()> {
    let (embedding, head) = ("model.embed_tokens.weight", "lm_head.weight");
    let expected = logits(&family("smollm2"))?;
    let text = config_text("smollm2")?;
    let moved = |name: &str| Some(if name == embedding { head } else { name }.to_owned());
    assert_eq!(logits(copy("smollm2", &text, moved)?.path())?, expected);
    let text = text.replace("\"tie_word_embeddings\": true", "\"tie_word_embeddings\": false");
    let told =
        format!("{:#}", logits(copy("smollm2", &text, same)?.path()).err().context("no error")?);
    assert!(told.contains("no tensor `lm_head.weight`"), "{told}");
    Ok(())
}

#[test]
fn how_a_text_begins_and_ends() -> Result<()> {
    let of = |config: Value, generation: Option<Value>| -> Result<(Option<u32>, Vec<u32>)> {
        let dir = copy("llama-3", &config.to_string(), same)?;
        if let Some(generation) = generation {
            std::fs::write(dir.path().join("generation_config.json"), generation.to_string())?;
        }
        let model = Model::load(dir.path())?;
        Ok((model.config().bos_token_id, model.config().eos_token_ids.clone()))
    };
    let with = |change: Value, absent: &[&str]| -> Result<Value> {
        let mut config = config("llama-3")?;
        let fields = config.as_object_mut().context("no object")?;
        absent.iter().for_each(|key| drop(fields.remove(*key)));
        fields.extend(change.as_object().cloned().unwrap_or_default());
        Ok(config)
    };
    let none = json!({});
    assert_eq!(of(with(none.clone(), &[])?, None)?, (Some(1), vec![2, 3]));
    // absent: as in transformers; null and -1: none
    let absent = with(none, &["bos_token_id", "eos_token_id"])?;
    assert_eq!(of(absent, None)?, (Some(1), vec![2]));
    let null = with(json!({"bos_token_id": null, "eos_token_id": -1}), &[])?;
    assert_eq!(of(null.clone(), None)?, (None, vec![]));
    let generation = json!({"bos_token_id": 5, "eos_token_id": [6, 7], "top_p": f64::MAX});
    assert_eq!(of(null, Some(generation))?, (Some(5), vec![6, 7]));
    Ok(())
}

/// A tokenizer of words, `<s>` being token 1; with `template` it puts `<t>`, token 2, first by itself.
fn write_tokenizer(dir: &Path, template: bool) -> Result<()> {
    let special = |id: u32, content: &str| {
        json!({"id": id, "content": content, "special": true, "single_word": false, "lstrip": false,
            "rstrip": false, "normalized": false})
    };
    let processor = json!({"type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": "<t>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {"<t>": {"id": "<t>", "ids": [2], "tokens": ["<t>"]}}});
    let processor = if template { processor } else { Value::Null };
    let tokenizer = json!({
        "version": "1.0", "truncation": null, "padding": null, "normalizer": null, "decoder": null,
        "added_tokens": [special(1, "<s>"), special(2, "<t>")],
        "pre_tokenizer": {"type": "Whitespace"}, "post_processor": processor,
        "model": {"type": "WordLevel", "unk_token": "?", "vocab": {"?": 0, "<s>": 1, "<t>": 2, "one": 3}},
    });
    Ok(std::fs::write(dir.join("tokenizer.json"), tokenizer.to_string())?)
}

#[test]
fn the_first_token_once() -> Result<()> {
    let dir = copy("llama-3", &config_text("llama-3")?, same)?;
    let model = Model::load(dir.path())?;
    let ids =
        |template: bool, config: Option<Value>, text: &str, no_bos: bool| -> Result<Vec<u32>> {
            write_tokenizer(dir.path(), template)?;
            let path = dir.path().join("tokenizer_config.json");
            match config {
                Some(config) => std::fs::write(path, config.to_string())?,
                None => drop(std::fs::remove_file(path)),
            }
            prompt_ids(dir.path(), model.config(), &Tokenizer::load(dir.path())?, text, no_bos)
        };
    // nobody says anything: the model's; not twice, and not where it is refused
    assert_eq!(ids(false, None, "one", false)?, [1, 3]);
    assert_eq!(ids(false, None, "<s> one", false)?, [1, 3]);
    assert_eq!(ids(false, None, "one", true)?, [3]);
    assert_eq!(ids(false, None, "<s>one", true)?, [1, 3]);
    // tokenizer.json's own
    assert_eq!(ids(true, None, "one", false)?, [2, 3]);
    // tokenizer_config.json goes before it
    let adds = |adds: bool| Some(json!({"add_bos_token": adds, "model_max_length": 1e30}));
    assert_eq!(ids(true, adds(true), "one", false)?, [1, 3]);
    assert_eq!(ids(true, adds(false), "one", false)?, [3]);
    for (class, expected) in [("GPT2TokenizerFast", &[3][..]), ("LlamaTokenizer", &[1, 3])] {
        let config = Some(json!({"tokenizer_class": class}));
        assert_eq!(ids(false, config, "one", false)?, expected, "{class}");
    }
    let told = ids(false, adds(false), "", false).err().context("no error")?.to_string();
    assert!(told.contains("an empty prompt"), "{told}");
    Ok(())
}
