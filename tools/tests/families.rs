//! Every family and variant against Hugging Face transformers: the tiny models in `families/`, which
//! `families/make.py` made, with what it computed for them in f32.

mod common;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use common::disk_folder;
use lnp_engine::FetchStats;
use lnp_engine::engine::Alone;
use lnp_format::Dtype;
use lnp_link::trace::active;
use lnp_model::{
    Checkpoint, DenseFfn, DenseNumbers, DenseOptions, DenseType, ExactPredictor, FeedForward,
    KvOptions, KvType, Model, ModelConfig, PIECE_TOKENS, Sampler, generate,
};
use lnp_pack::verify::verify_file;
use lnp_pack::{CheckpointBundles, PackIndex, Recipe, write_pack};
use lnp_run::{ComputeOptions, ComputePack, SparseFfn};
use serde::Deserialize;

/// How far a logit may be off, by the largest of its prompt.
const LOGIT_ERROR_MAX: f32 = 1e-4;

#[derive(Deserialize)]
struct Reference {
    prompts: Vec<Prompt>,
}

#[derive(Deserialize)]
struct Prompt {
    prompt_ids: Vec<u32>,
    greedy_ids: Vec<u32>,
}

/// A model with what transformers says of it.
struct Known {
    name: String,
    model: Model,
    prompts: Vec<Prompt>,
    tensors: Checkpoint,
}

impl Known {
    fn load(dir: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(dir.join("reference/reference.json"))?;
        let Reference { prompts } = serde_json::from_str(&text)?;
        let name = dir.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let tensors = Checkpoint::open(&dir.join("reference"))?;
        Ok(Self { name, model: Model::load(dir)?, prompts, tensors })
    }

    fn config(&self) -> &ModelConfig {
        self.model.config()
    }

    fn dense(&self) -> Result<DenseFfn> {
        DenseFfn::load(self.model.checkpoint(), self.config())
    }

    /// Whether the activation leaves neurons at zero.
    fn is_sparse(&self) -> bool {
        self.config().has_zeros()
    }

    /// Feeds the prompts and goes on greedily, all with this FFN.
    fn check(&self, ffn: &mut dyn FeedForward) -> Result<()> {
        for (number, prompt) in self.prompts.iter().enumerate() {
            let context = || format!("prompt {number}");
            let count = prompt.greedy_ids.len();
            let mut greedy = Sampler::new(0.0, 0)?;
            let found =
                generate(&self.model, ffn, &prompt.prompt_ids, count, &mut greedy, &mut |_| {
                    Ok(true)
                })
                .with_context(context)?;
            let expected = self.tensors.read_f32(&format!("logits.{number}"))?;
            let off = off(&found.prompt_logits, &expected);
            assert!(off <= LOGIT_ERROR_MAX, "{}: prompt {number}: off by {off:e}", self.name);
            assert_eq!(found.tokens, prompt.greedy_ids, "{}: prompt {number}", self.name);
        }
        Ok(())
    }

    /// The same with the FFN from a pack, for one token, eight, and a whole piece of a prompt at a time.
    fn check_pack(&self, path: &Path) -> Result<()> {
        let index = PackIndex::open(path)?;
        let predictor = ExactPredictor::load(self.model.checkpoint(), self.config())?;
        for batch in [1, 8, PIECE_TOKENS] {
            let options = ComputeOptions { buffered: true, batch, ..ComputeOptions::default() };
            let mut pack = ComputePack::open(&index, self.model.config(), options)?;
            let (mut engine, ffn) = pack.engine(&self.model)?;
            engine.session(|session| {
                let mut sparse = SparseFfn::new(session, ffn, &predictor, &Alone);
                self.check(&mut sparse)?;
                assert_ne!(*sparse.stats(), FetchStats::default(), "{}", self.name);
                Ok::<(), anyhow::Error>(())
            })?;
        }
        Ok(())
    }
}

/// The folders with models, in order of their names.
fn folders() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/families");
    let entries = std::fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path());
    let mut folders: Vec<PathBuf> =
        entries.filter(|path| path.join("reference").is_dir()).collect();
    folders.sort();
    assert!(folders.len() >= 30, "families are missing: {}", folders.len());
    folders
}

fn each(test: impl Fn(&Known) -> Result<()>) -> Result<()> {
    for dir in folders() {
        let context = || dir.display().to_string();
        test(&Known::load(&dir).with_context(context)?).with_context(context)?;
    }
    Ok(())
}

/// Largest difference, by the largest expected value.
fn off(found: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(found.len(), expected.len());
    assert!(found.iter().all(|value| value.is_finite()));
    let largest = expected.iter().fold(0.0, |most: f32, value| most.max(value.abs()));
    let pairs = found.iter().zip(expected);
    pairs.fold(0.0, |most: f32, (a, b)| most.max((a - b).abs())) / largest
}

/// The FFN in memory: logits after a short prompt and one of more than a piece, and tokens to the very
/// end of the context, past windows that slide.
#[test]
fn logits_and_tokens() -> Result<()> {
    each(|known| {
        let most = known.prompts.iter().map(|prompt| prompt.prompt_ids.len()).max();
        assert!(most > Some(PIECE_TOKENS), "{}: no long prompt", known.name);
        known.check(&mut known.dense()?)
    })
}

/// A long prompt fed one by one, in pieces of any size, or at once.
#[test]
fn pieces_of_any_size() -> Result<()> {
    each(|known| {
        let mut dense = known.dense()?;
        let (ids, expected) = (&known.prompts[1].prompt_ids, known.tensors.read_f32("logits.1")?);
        for size in [1, 19, ids.len()] {
            let (mut state, mut logits) = (known.model.new_state(), Vec::new());
            for piece in ids.chunks(size) {
                logits = known.model.forward(&mut state, piece, &mut dense)?;
            }
            let off = off(&logits, &expected);
            assert!(off <= LOGIT_ERROR_MAX, "{}: pieces of {size}: off by {off:e}", known.name);
        }
        Ok(())
    })
}

/// What weights, keys and values take is told before anything is loaded, whatever the types; keys and values in f16 and
/// embeddings on flash make little or no difference.
#[test]
fn memory_is_told_before_loading() -> Result<()> {
    /// How far a logit may be off with keys and values in f16.
    const F16_ERROR_MAX: f32 = 2e-2;
    each(|known| {
        let (checkpoint, config) = (known.model.checkpoint(), known.config());
        let types = DenseType::ALL.map(DenseNumbers::Of);
        for numbers in [&types[..], &[DenseNumbers::Lossless, DenseNumbers::Stored]].concat() {
            let options = DenseOptions { numbers, ..DenseOptions::default() };
            let needed = Model::bytes_needed(checkpoint, options)?;
            let held = Model::held(checkpoint.clone(), options)?.resident_bytes();
            assert_eq!(needed, held, "{} {numbers:?}", known.name);
        }
        if known.is_sparse() {
            let held = ExactPredictor::load(checkpoint, config)?.resident_bytes();
            assert_eq!(ExactPredictor::bytes_needed(checkpoint, config)?, held, "{}", known.name);
        }
        let (ids, mut dense) = (&known.prompts[1].prompt_ids, known.dense()?);
        let kv = KvOptions { dtype: KvType::F16, tokens: ids.len() };
        let mut state = known.model.new_state_with(kv);
        let logits = known.model.forward(&mut state, ids, &mut dense)?;
        let off = off(&logits, &known.tensors.read_f32("logits.1")?);
        assert!(off <= F16_ERROR_MAX, "{}: off by {off:e}", known.name);
        assert_eq!(state.bytes(), config.kv_bytes(kv), "{}", known.name);

        let on_flash = DenseOptions { embeddings_on_flash: true, ..DenseOptions::default() };
        match Model::held(checkpoint.clone(), on_flash) {
            Err(error) => {
                assert!(config.tie_word_embeddings, "{}: {error:#}", known.name);
                assert!(error.to_string().contains("cannot stay on flash"), "{error:#}");
            }
            Ok(model) => {
                assert!(model.resident_bytes() < known.model.resident_bytes());
                let logits =
                    |model: &Model| model.forward(&mut model.new_state(), ids, &mut known.dense()?);
                assert_eq!(logits(&model)?, logits(&known.model)?, "{}", known.name);
            }
        }
        Ok(())
    })
}

/// Which neurons are active, by the recorded trace and by the predictor; where none is inactive, both say
/// what is missing.
#[test]
fn active_sets() -> Result<()> {
    each(|known| {
        let (config, mut dense) = (known.config(), known.dense()?);
        if !known.is_sparse() {
            let ids = &known.prompts[0].prompt_ids;
            let traced = dense.record(&known.model, ids, ids.len(), &mut |_| ()).err();
            let predicted = ExactPredictor::load(known.model.checkpoint(), config).err();
            for error in [traced, predicted] {
                let told = format!("{:#}", error.context("no error")?);
                assert!(told.contains("needs thresholds"), "{}: {told}", known.name);
            }
            return Ok(());
        }
        let predictor = ExactPredictor::load(known.model.checkpoint(), config)?;
        let row_bytes = config.neurons.div_ceil(8);
        for (number, prompt) in known.prompts.iter().enumerate() {
            let ids = &prompt.prompt_ids;
            let traced = dense.record(&known.model, ids, config.max_positions, &mut |_| ())?;
            let mut seen = Seen { predictor: &predictor, dense: known.dense()?, last: Vec::new() };
            known.model.forward_hidden(&mut known.model.new_state(), ids, &mut seen)?;
            let (_, expected) = known.tensors.read_raw(&format!("active.{number}"))?;
            let (mut set, mut differ) = (0, 0);
            for (layer, expected) in expected.chunks(row_bytes).enumerate() {
                let row = &traced[layer][(ids.len() - 1) * row_bytes..];
                let pairs = || row.iter().zip(expected);
                differ += pairs().map(|(a, b)| (a ^ b).count_ones()).sum::<u32>();
                set += row.iter().map(|byte| byte.count_ones()).sum::<u32>();
                let ids: Vec<u32> = active(row, config.neurons, 0).collect();
                assert_eq!(seen.last[layer], ids, "{}: layer {layer}", known.name);
            }
            let all = (config.layers * config.neurons) as u32;
            assert!(differ <= 1, "{}: {differ} of {all} bits differ", known.name);
            assert!((all / 10..all).contains(&set), "{}: {set} of {all} active", known.name);
        }
        Ok(())
    })
}

/// What traces say of their bits.
#[test]
fn rules_in_words() -> Result<()> {
    for (name, expected) in [
        ("opt", "relu(fc1)>0"),
        ("sparselm", "relu(gate_proj)>0"),
        ("prosparse", "fatrelu_0.25(gate_proj)>0"),
        ("nemotron", "relu2(up_proj)>0"),
        ("falcon-relu", "relu(dense_h_to_4h)>0"),
        ("bamboo", "relu(gate_proj)>0 & relu(up_proj)>0"),
        ("gemma3n", "gaussian_topk(gate_proj)>0 in 3 of 5 layers, all in the others"),
    ] {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/families").join(name);
        assert_eq!(Known::load(&dir)?.config().active_rule(), expected, "{name}");
    }
    Ok(())
}

/// Keeps the predicted sets of the last token.
struct Seen<'p> {
    predictor: &'p ExactPredictor,
    dense: DenseFfn,
    last: Vec<Vec<u32>>,
}

impl FeedForward for Seen<'_> {
    fn forward(&mut self, layer: usize, x: &[f32], y: &mut [f32]) -> Result<()> {
        let mut sets = Vec::new();
        self.predictor.active(layer, x, &mut sets)?;
        self.last.extend(sets.pop());
        self.dense.forward(layer, x, y)
    }
}

/// The FFN from a pack of f32, through engine and kernels, alone and in batches; and packs of every type,
/// which verify against the model. A model that no pack can hold is refused by name.
#[test]
fn from_packs() -> Result<()> {
    let folder = disk_folder();
    let mut packed = 0;
    for dir in folders() {
        let known = Known::load(&dir)?;
        let (checkpoint, config) = (known.model.checkpoint(), known.config());
        let refused = (!known.is_sparse()).then_some("needs thresholds");
        if let Some(why) = refused {
            let recipe = Recipe::for_checkpoint(checkpoint, config, None, Dtype::F32);
            let told = format!("{:#}", recipe.err().context("no error")?);
            assert!(told.contains(why), "{}: {told}", known.name);
            continue;
        }
        for dtype in [Dtype::F32, Dtype::F16, Dtype::Bf16, Dtype::Q8_0, Dtype::Q4_0] {
            let path = folder.path().join(format!("{}.{dtype}.lnp", known.name));
            let recipe = Recipe::for_checkpoint(checkpoint, config, None, dtype)?;
            let mut bundles = CheckpointBundles::new(checkpoint, config, dtype)?;
            write_pack(&path, &recipe, &mut bundles, &mut |_| ())?;
            let verified = verify_file(&path, Some(checkpoint), &mut |_| ())?;
            let bundles = (config.layers * config.neurons) as u64;
            assert_eq!(verified.bundles_equal_to_model, Some(bundles), "{}: {dtype}", known.name);
            if dtype == Dtype::F32 {
                known.check_pack(&path)?;
            }
        }
        packed += 1;
    }
    assert!(packed >= 12, "{packed} packs");
    Ok(())
}
