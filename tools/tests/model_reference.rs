//! The models of the shared folder against what transformers computed for them in f32.
//!
//! The folder is `LNP_MODELS`, or `shared/models` beside the checkout; without it these tests say
//! `skipped:` and pass.

mod common;

use std::path::Path;

use anyhow::{Context, Result};
use common::models;
use lnp_link::trace::{TraceReader, active};
use lnp_model::checkpoint::StoredType;
use lnp_model::{Checkpoint, DenseFfn, ExactPredictor, FeedForward, Model, Tokenizer};
use lnp_run::record;
use serde::Deserialize;

const MODELS: [&str; 3] = ["opt-relu-small", "llama-relu-small", "demo"];
const LOGITS_ERROR_MAX: f32 = 1e-3;
const EQUAL_BITS_MIN: f64 = 0.999;
const TRACED_TOKENS: usize = 1024;

#[derive(Deserialize)]
struct Reference {
    prompts: Vec<Prompt>,
}

#[derive(Deserialize)]
struct Prompt {
    prompt: String,
    prompt_ids: Vec<u32>,
    greedy_ids: Vec<u32>,
    greedy_text: String,
}

fn each_model(test: impl Fn(&str, &Path, &Reference) -> Result<()>) -> Result<()> {
    let Some(models) = models() else { return Ok(()) };
    for name in MODELS {
        let dir = models.join(name);
        let text = std::fs::read_to_string(dir.join("reference/reference.json"))?;
        test(name, &dir, &serde_json::from_str(&text)?).context(name)?;
    }
    Ok(())
}

fn load(dir: &Path) -> Result<(Model, DenseFfn)> {
    let model = Model::load(dir)?;
    let dense = DenseFfn::load(model.checkpoint(), model.config())?;
    Ok((model, dense))
}

/// The reference tensors are a safetensors folder like any other.
fn reference_tensors(dir: &Path) -> Result<Checkpoint> {
    Checkpoint::open(&dir.join("reference"))
}

/// Largest difference, relative to the largest expected value.
fn error(found: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(found.len(), expected.len());
    let norm = expected.iter().fold(0.0f32, |max, value| max.max(value.abs()));
    let worst = found.iter().zip(expected).fold(0.0f32, |max, (f, e)| max.max((f - e).abs()));
    assert!(found.iter().all(|value| value.is_finite()));
    worst / norm
}

fn argmax(logits: &[f32]) -> u32 {
    let mut best = 0;
    for (id, logit) in logits.iter().enumerate() {
        if *logit > logits[best] {
            best = id;
        }
    }
    best as u32
}

fn differing_bits(a: &[u8], b: &[u8]) -> u32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a ^ b).count_ones()).sum()
}

#[test]
fn logits_and_greedy_tokens() -> Result<()> {
    each_model(|name, dir, reference| {
        let (model, mut dense) = load(dir)?;
        let expected = reference_tensors(dir)?;
        let mut worst = 0.0f32;
        let mut greedy = 0;
        for (index, prompt) in reference.prompts.iter().enumerate() {
            let mut state = model.new_state();
            let mut logits = model.forward(&mut state, &prompt.prompt_ids, &mut dense)?;
            let error = error(&logits, &expected.read_f32(&format!("logits.{index}"))?);
            assert!(error <= LOGITS_ERROR_MAX, "{name}: prompt {index}: error {error:e}");
            worst = worst.max(error);
            let mut ids = Vec::new();
            while ids.len() < prompt.greedy_ids.len() {
                let id = argmax(&logits);
                ids.push(id);
                logits = model.forward(&mut state, &[id], &mut dense)?;
            }
            assert_eq!(ids, prompt.greedy_ids, "{name}: prompt {index}");
            assert_eq!(state.position(), prompt.prompt_ids.len() + ids.len());
            greedy += ids.len();
        }
        println!(
            "{name}: largest relative error of the logits {worst:e}, {greedy} greedy tokens equal"
        );
        println!(
            "{name}: {} bytes dense parts, {} FFN",
            model.resident_bytes(),
            dense.resident_bytes()
        );
        Ok(())
    })
}

#[test]
fn a_prompt_fed_token_by_token_gives_the_same() -> Result<()> {
    each_model(|name, dir, reference| {
        let (model, mut dense) = load(dir)?;
        let mut worst = 0.0f32;
        for prompt in &reference.prompts {
            let whole = model.forward(&mut model.new_state(), &prompt.prompt_ids, &mut dense)?;
            for chunk in [1, 5] {
                let mut state = model.new_state();
                let mut logits = Vec::new();
                for tokens in prompt.prompt_ids.chunks(chunk) {
                    logits = model.forward(&mut state, tokens, &mut dense)?;
                }
                worst = worst.max(error(&logits, &whole));
            }
            // The same calls give the same bits.
            let again = model.forward(&mut model.new_state(), &prompt.prompt_ids, &mut dense)?;
            assert_eq!(again, whole);
        }
        println!("{name}: whole and in pieces differ by at most {worst:e}");
        assert!(worst < 1e-4);
        Ok(())
    })
}

/// Runs the dense FFN, and the predictor on the same inputs.
struct Both {
    dense: DenseFfn,
    predictor: ExactPredictor,
    /// Per layer, the active set of the last token.
    last: Vec<Vec<u32>>,
}

impl FeedForward for Both {
    fn forward(&mut self, layer: usize, x: &[f32], y: &mut [f32]) -> Result<()> {
        let mut sets = Vec::new();
        self.predictor.active(layer, x, &mut sets)?;
        self.last.push(sets.pop().context("no token")?);
        self.dense.forward(layer, x, y)
    }
}

#[test]
fn active_sets_at_the_last_position() -> Result<()> {
    each_model(|name, dir, reference| {
        let model = Model::load(dir)?;
        let (checkpoint, config) = (model.checkpoint(), model.config());
        let dense = DenseFfn::load(checkpoint, config)?;
        let predictor = ExactPredictor::load(checkpoint, config)?;
        let mut both = Both { dense, predictor, last: Vec::new() };
        let expected = reference_tensors(dir)?;
        let row_bytes = config.neurons.div_ceil(8);
        let (mut bits, mut differing, mut compared) = (0, 0, 0);
        for (index, prompt) in reference.prompts.iter().enumerate() {
            both.last.clear();
            both.dense.start_recording();
            model.forward_hidden(&mut model.new_state(), &prompt.prompt_ids, &mut both)?;
            let recorded = both.dense.take_recording();
            let mut rows = Vec::new();
            for (layer, recorded) in recorded.iter().enumerate() {
                let row = &recorded[recorded.len() - row_bytes..];
                let ids: Vec<u32> = active(row, config.neurons, 0).collect();
                assert_eq!(both.last[layer], ids, "{name}: predictor and FFN, layer {layer}");
                rows.extend_from_slice(row);
            }
            let tensor = format!("active.{index}");
            if expected.contains(&tensor) {
                let (dtype, expected) = expected.read_raw(&tensor)?;
                assert_eq!(dtype, StoredType::Other("U8"));
                differing += differing_bits(&rows, &expected);
                bits += rows.len() * 8;
                compared += 1;
            }
        }
        let prompts = reference.prompts.len();
        println!("{name}: predictor equal to FFN on {prompts} prompts");
        if compared == 0 {
            println!("{name}: its reference has no active sets to compare");
            return Ok(());
        }
        let equal = 1.0 - f64::from(differing) / bits as f64;
        println!(
            "{name}: active sets: {differing} of {bits} bits differ, {:.4} % equal",
            equal * 100.0
        );
        assert!(equal >= EQUAL_BITS_MIN);
        Ok(())
    })
}

#[test]
fn trace_equals_the_recorded_one() -> Result<()> {
    each_model(|name, dir, _| {
        let path = dir.join("traces/alpaca.test.safetensors");
        if !path.exists() {
            println!("{name}: comes without traces to compare");
            return Ok(());
        }
        let (model, mut dense) = load(dir)?;
        let reader = TraceReader::open(&path)?;
        let ids = reader.token_ids()?.context("no token ids")?;
        let mut seen = Vec::new();
        let data =
            record(&model, &mut dense, &ids[..TRACED_TOKENS], reader.window(), &mut |done| {
                seen.push(done);
            })?;
        assert_eq!(seen.last(), Some(&TRACED_TOKENS));
        assert_eq!(reader.metadata()["active"], data.active);
        assert_eq!(reader.model(), Some(data.model.as_str()));
        assert_eq!((reader.layers(), reader.neurons()), (data.layers.len(), data.neurons));
        let (mut bits, mut differing, mut set) = (0, 0, 0);
        for (layer, found) in data.layers.iter().enumerate() {
            let expected = &reader.layer_bits(layer)?[..found.len()];
            let layer_differing = differing_bits(found, expected);
            let equal = 1.0 - f64::from(layer_differing) / (found.len() * 8) as f64;
            println!(
                "{name}: trace, layer {layer}: {layer_differing} bits differ, {:.4} % equal",
                equal * 100.0
            );
            assert!(equal >= EQUAL_BITS_MIN);
            differing += layer_differing;
            set += found.iter().map(|byte| byte.count_ones()).sum::<u32>();
            bits += found.len() * 8;
        }
        let equal = 1.0 - f64::from(differing) / bits as f64;
        println!("{name}: trace: {differing} of {bits} bits differ, {:.4} % equal", equal * 100.0);
        // Sparse, and not empty: equality of nothing would prove nothing.
        let share = f64::from(set) / bits as f64;
        println!("{name}: trace: {:.2} % of neurons active", share * 100.0);
        assert!((0.02..0.5).contains(&share));
        Ok(())
    })
}

#[test]
fn text_to_ids_and_back() -> Result<()> {
    each_model(|name, dir, reference| {
        let tokenizer = Tokenizer::load(dir)?;
        for (index, prompt) in reference.prompts.iter().enumerate() {
            let ids = &prompt.prompt_ids[1..];
            assert_eq!(tokenizer.encode(&prompt.prompt)?, ids, "{name}: prompt {index}");
            assert_eq!(tokenizer.decode(ids, false)?, prompt.prompt, "{name}: prompt {index}");
            let text = tokenizer.decode(&prompt.greedy_ids, false)?;
            assert_eq!(text, prompt.greedy_text, "{name}: prompt {index}");
            // As a stream, special tokens kept and left out.
            for skip_special in [false, true] {
                let mut decoder = tokenizer.decoder(skip_special);
                let mut streamed = String::new();
                for &id in &prompt.greedy_ids {
                    streamed += &decoder.push(id)?;
                }
                streamed += &decoder.finish()?;
                assert_eq!(streamed, tokenizer.decode(&prompt.greedy_ids, skip_special)?);
            }
        }
        Ok(())
    })
}

#[test]
fn a_stream_never_splits_a_character() -> Result<()> {
    each_model(|_, dir, _| {
        let tokenizer = Tokenizer::load(dir)?;
        let text = "naïve “quotes” — 日本語 🦀🦀 ∑ end";
        let ids = tokenizer.encode(text)?;
        let mut decoder = tokenizer.decoder(true);
        let mut streamed = String::new();
        for &id in &ids {
            let piece = decoder.push(id)?;
            assert!(!piece.contains('\u{fffd}'), "{piece:?}");
            streamed += &piece;
            assert!(text.starts_with(&streamed), "{streamed:?}");
        }
        // All of it is out before the end is announced.
        assert_eq!(streamed, text);
        assert_eq!(decoder.finish()?, "");
        // A stream that is cut off within a character says so only at its end.
        let crab = tokenizer.encode("🦀")?;
        let mut decoder = tokenizer.decoder(true);
        for &id in &crab[..crab.len() - 1] {
            assert_eq!(decoder.push(id)?, "");
        }
        if crab.len() > 1 {
            assert!(decoder.finish()?.contains('\u{fffd}'));
        }
        Ok(())
    })
}

#[test]
fn limits_are_errors_and_leave_the_state() -> Result<()> {
    each_model(|_, dir, _| {
        let (model, mut dense) = load(dir)?;
        let limit = model.config().max_positions;
        let mut state = model.new_state();
        let text = vec![5; limit - 1];
        model.forward_hidden(&mut state, &text, &mut dense)?;
        let before = model.forward(&mut state, &[7], &mut dense)?;
        let error = model.forward(&mut state, &[7], &mut dense).unwrap_err().to_string();
        assert!(error.contains(&limit.to_string()), "{error}");
        assert_eq!(state.position(), limit);
        let vocab = model.config().vocab as u32;
        let error = model.forward(&mut model.new_state(), &[vocab], &mut dense).unwrap_err();
        assert!(error.to_string().contains("vocabulary"), "{error}");
        assert!(model.forward(&mut model.new_state(), &[], &mut dense).is_err());
        // A failed pass can be repeated: fail in the middle, then go on.
        let mut state = model.new_state();
        model.forward_hidden(&mut state, &text, &mut dense)?;
        assert!(model.forward(&mut state, &[9], &mut Failing { dense: &mut dense }).is_err());
        assert_eq!(state.position(), limit - 1);
        assert_eq!(model.forward(&mut state, &[7], &mut dense)?, before);
        Ok(())
    })
}

/// Fails in layer 2.
struct Failing<'a> {
    dense: &'a mut DenseFfn,
}

impl FeedForward for Failing<'_> {
    fn forward(&mut self, layer: usize, x: &[f32], y: &mut [f32]) -> Result<()> {
        anyhow::ensure!(layer != 2, "layer 2 fails");
        self.dense.forward(layer, x, y)
    }
}
