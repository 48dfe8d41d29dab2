//! The main job on the real models: checkpoint -> pack -> engine on a disk -> text, against what
//! transformers computed; and the same bits whatever the path the bytes took.

mod common;

use std::path::Path;

use common::{CORPORA, MODELS, disk_folder, models};
use lnp_device::{Threads, open_direct};
use lnp_engine::ffn::Ffn;
use lnp_engine::limits::BATCH_TOKENS_MAX;
use lnp_engine::sys::{BackEndChoice, cpu};
use lnp_engine::{Collapse, Combine, Config, DeviceLaw, FetchStats, open_engine, required_bytes};
use lnp_format::Dtype;
use lnp_kernels::CpuFeatures;
use lnp_link::trace::TraceReader;
use lnp_link::{LayerActivity, Links, Order, TraceSource, link_layers};
use lnp_model::{ExactPredictor, Model, Sampler, generate};
use lnp_pack::recipe::ModelSize;
use lnp_pack::verify::verify_file;
use lnp_pack::{CheckpointBundles, PackIndex, Recipe, write_pack};
use lnp_run::SparseFfn;
use lnp_run::fit::{ffn_memory, fit_memory};
use safetensors::SafeTensors;

/// The 32 tokens that `reference.json` holds for each prompt.
const TOKENS: usize = 32;

struct Reference {
    prompts: Vec<(Vec<u32>, Vec<u32>)>,
    logits: Vec<Vec<f32>>,
}

impl Reference {
    fn read(dir: &Path) -> Self {
        let text = std::fs::read_to_string(dir.join("reference/reference.json")).unwrap();
        let json: serde_json::Value = serde_json::from_str(&text).unwrap();
        let ids = |value: &serde_json::Value| -> Vec<u32> {
            value.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
        };
        let prompts: Vec<_> = json["prompts"]
            .as_array()
            .unwrap()
            .iter()
            .map(|prompt| (ids(&prompt["prompt_ids"]), ids(&prompt["greedy_ids"])))
            .collect();
        let bytes = std::fs::read(dir.join("reference/reference.safetensors")).unwrap();
        let tensors = SafeTensors::deserialize(&bytes).unwrap();
        let logits = (0..prompts.len())
            .map(|prompt| {
                let tensor = tensors.tensor(&format!("logits.{prompt}")).unwrap();
                let values = tensor.data().as_chunks().0;
                values.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
            })
            .collect();
        Self { prompts, logits }
    }
}

fn link(dir: &Path, corpus: &str, order: Order) -> Links {
    link_first(dir, corpus, order, usize::MAX)
}

/// By the first so many tokens of the profile.
fn link_first(dir: &Path, corpus: &str, order: Order, tokens: usize) -> Links {
    let path = dir.join(format!("traces/{corpus}.profile.safetensors"));
    let trace = TraceReader::open(&path).unwrap();
    let tokens = tokens.min(trace.tokens());
    let activity = |layer| {
        let bits = trace.layer_bits(layer)?;
        let some = &bits[..tokens * trace.neurons().div_ceil(8)];
        LayerActivity::from_bits(trace.neurons(), &[(some, tokens)])
    };
    Links {
        order,
        neurons: trace.neurons(),
        profile_tokens: tokens as u64,
        corpora: vec![corpus.to_owned()],
        model: trace.model().unwrap().to_owned(),
        traces: vec![TraceSource::of_file(&path).unwrap()],
        tool: Links::this_tool(),
        notes: Default::default(),
        layers: link_layers(order, trace.layers(), activity, |_| ()).unwrap(),
    }
}

fn pack(model: &Model, links: Option<&Links>, dtype: Dtype, path: &Path) {
    let (checkpoint, config) = (model.checkpoint(), model.config());
    let recipe = Recipe::for_checkpoint(checkpoint, config, links, dtype).unwrap();
    let mut bundles = CheckpointBundles::new(checkpoint, config, dtype).unwrap();
    write_pack(path, &recipe, &mut bundles, &mut |_| ()).unwrap();
}

/// How the bytes come.
#[derive(Clone, Copy, Debug)]
struct Way {
    collapse: Collapse,
    cache_ratio: f64,
    memory: Option<usize>,
    back_end: BackEndChoice,
    queue_depth: u32,
    features: CpuFeatures,
    batch: usize,
    threads: usize,
}

impl Way {
    fn usual() -> Self {
        Self {
            collapse: Collapse::Gap { bytes: 16 << 10 },
            cache_ratio: 0.05,
            memory: None,
            back_end: BackEndChoice::Auto,
            queue_depth: 32,
            features: cpu::detect(),
            batch: BATCH_TOKENS_MAX,
            threads: 2,
        }
    }
}

/// Generates from a pack; returns the tokens, the logits after the prompt and what was fetched.
fn run(
    model: &Model,
    predictor: &ExactPredictor,
    path: &Path,
    way: Way,
    prompt: &[u32],
    tokens: usize,
) -> (Vec<u32>, Vec<f32>, FetchStats) {
    let index = PackIndex::open(path).unwrap();
    let pack = index.pack().unwrap();
    Recipe::check_pack(&pack, model.config()).unwrap();
    let mut ffn_memory = ffn_memory(&pack, way.features, way.batch).unwrap();
    let ffn = Ffn::new(pack.shape(), way.features, way.batch, &mut ffn_memory).unwrap();
    let base = Config {
        collapse: way.collapse,
        queue_depth: way.queue_depth,
        verify_reads: true,
        ..Config::new(&pack)
    };
    let config = fit_memory(&pack, base, way.memory, way.cache_ratio).unwrap();
    let file = open_direct(path, true).unwrap();
    let mut memory = vec![0; required_bytes(&config, &pack).unwrap()];
    let mut engine = open_engine(&file, pack, &config, &mut memory, way.back_end).unwrap();
    let threads = Threads::new(Some(way.threads)).unwrap();
    threads.run(|| {
        engine.session(|session| {
            let mut sparse = SparseFfn::new(session, ffn, predictor, &threads);
            let (greedy, go_on) = (&mut Sampler::greedy(), &mut |_| Ok(true));
            let found = generate(model, &mut sparse, prompt, tokens, greedy, go_on).unwrap();
            (found.tokens, found.prompt_logits, *sparse.stats())
        })
    })
}

/// Largest difference over the largest value.
fn relative_error(found: &[f32], expected: &[f32]) -> f32 {
    let most = |values: &mut dyn Iterator<Item = f32>| values.fold(0.0, f32::max);
    let difference = most(&mut found.iter().zip(expected).map(|(a, b)| (a - b).abs()));
    difference / most(&mut expected.iter().map(|value| value.abs()))
}

#[test]
fn packs_speak_like_the_reference() {
    let Some(models) = models() else { return };
    let folder = disk_folder();
    for name in MODELS {
        let dir = models.join(name);
        let reference = Reference::read(&dir);
        assert_eq!(reference.prompts.len(), 8);
        let model = Model::load(&dir).unwrap();
        let predictor = ExactPredictor::load(model.checkpoint(), model.config()).unwrap();
        let links = link(&dir, "alpaca", Order::Greedy);
        // How far logits may be off, of the largest: for what keeps the checkpoint's weights, rounding
        // in sums; for the others, what rounding the weights and the inputs to bytes does to them.
        for (dtype, links, most) in [
            (Dtype::F32, None, 1e-3),
            (Dtype::F16, Some(&links), 1e-3),
            (Dtype::Bf16, Some(&links), 0.005),
            (Dtype::Q8_0, Some(&links), 0.02),
            (Dtype::Q4_0, Some(&links), 0.15),
        ] {
            let path = folder.path().join(format!("{name}-{dtype}.lnp"));
            pack(&model, links, dtype, &path);
            let verified = verify_file(&path, Some(model.checkpoint()), &mut |_| ()).unwrap();
            let bundles = (model.config().layers * model.config().neurons) as u64;
            assert_eq!(verified.bundles_equal_to_model, Some(bundles));
            let (mut worst, mut equal) = (0.0_f32, 0);
            for ((prompt, expected), logits) in reference.prompts.iter().zip(&reference.logits) {
                let way = Way::usual();
                let (ids, found, _) = run(&model, &predictor, &path, way, prompt, TOKENS);
                let error = relative_error(&found, logits);
                assert!(error <= most, "{name} {dtype}: logits off by {error}");
                let same = ids.iter().zip(expected).filter(|(found, expected)| found == expected);
                equal += same.count();
                if matches!(dtype, Dtype::F32 | Dtype::F16) {
                    assert_eq!(ids, *expected, "{name} {dtype}, prompt {prompt:?}");
                }
                assert_eq!(ids.len(), TOKENS);
                worst = worst.max(error);
            }
            let all = reference.prompts.len() * TOKENS;
            println!("{name} {dtype}: {equal} of {all} tokens equal; logits within {worst:e}");
        }
    }
}

#[test]
fn the_same_bits_whatever_the_path() {
    let Some(models) = models() else { return };
    let folder = disk_folder();
    let max = DeviceLaw::new(30.0, 50.0, 950.0, Combine::Max).unwrap();
    let sum = DeviceLaw::new(30.0, 9.64, 2034.0, Combine::Sum).unwrap();
    for name in MODELS {
        let dir = models.join(name);
        let prompt = Reference::read(&dir).prompts.swap_remove(1).0;
        let model = Model::load(&dir).unwrap();
        let predictor = ExactPredictor::load(model.checkpoint(), model.config()).unwrap();
        // How good the orders are is not asked here.
        let links = Order::ALL.map(|order| (order, link_first(&dir, "gsm8k", order, 2048)));
        for dtype in [Dtype::F32, Dtype::F16, Dtype::Q8_0] {
            for features in [CpuFeatures::NONE, cpu::detect()] {
                let mut bits: Vec<(Vec<u32>, Vec<u32>)> = Vec::new();
                let mut note = |way: Way, path: &Path| {
                    let (ids, logits, stats) = run(&model, &predictor, path, way, &prompt, 4);
                    bits.push((ids, logits.iter().map(|logit| logit.to_bits()).collect()));
                    stats
                };
                let base = Way { features, ..Way::usual() };
                // No type changes what an order is: all of them with one, some with the others.
                let whole = dtype == Dtype::F32 && features != CpuFeatures::NONE;
                let step = if whole { 1 } else { 3 };
                for (order, links) in links.iter().step_by(step) {
                    let path = folder.path().join(format!("{name}-{dtype}-{order}.lnp"));
                    if !path.exists() {
                        pack(&model, Some(links), dtype, &path);
                    }
                    note(base, &path);
                }
                if features == CpuFeatures::NONE || dtype == Dtype::Q8_0 {
                    // the rest is about reading, which no tier and no type changes
                    assert!(bits.iter().all(|found| *found == bits[0]));
                    continue;
                }
                let path = folder.path().join(format!("{name}-{dtype}-greedy.lnp"));
                for collapse in [
                    Collapse::Off,
                    Collapse::Gap { bytes: 1 << 20 },
                    Collapse::Law(sum),
                    Collapse::Law(max),
                    Collapse::Whole,
                ] {
                    note(Way { collapse, ..base }, &path);
                }
                for cache_ratio in [0.0, 0.01, 0.2, 1.0] {
                    let stats = note(Way { cache_ratio, ..base }, &path);
                    assert_eq!(cache_ratio == 0.0, stats.hits == 0);
                }
                for (back_end, queue_depth) in [
                    (BackEndChoice::Pread, 32),
                    (BackEndChoice::Auto, 1),
                    (BackEndChoice::Auto, 256),
                ] {
                    note(Way { back_end, queue_depth, ..base }, &path);
                }
                for batch in [1, 3, 8] {
                    note(Way { batch, ..base }, &path);
                }
                for threads in [1, 3] {
                    note(Way { threads, ..base }, &path);
                }
                // so little memory that every layer takes many rounds
                let stats = note(Way { memory: Some(400 << 10), cache_ratio: 0.0, ..base }, &path);
                let batches = prompt.len().div_ceil(BATCH_TOKENS_MAX) + 3;
                let fetches = (batches * model.config().layers) as u64;
                assert!(stats.rounds > 3 * fetches, "{} rounds of {fetches}", stats.rounds);
                assert!(
                    bits.iter().all(|found| *found == bits[0]),
                    "{name} {dtype}: not the same bits"
                );
            }
        }
    }
}

#[test]
fn the_same_inputs_give_the_same_bytes() {
    let Some(models) = models() else { return };
    let folder = disk_folder();
    let dir = models.join(MODELS[0]);
    let model = Model::load(&dir).unwrap();
    let bytes: Vec<Vec<u8>> = (0..2)
        .map(|number| {
            let links = link(&dir, "wikitext2", Order::Greedy);
            let path = folder.path().join(format!("{number}.lnp"));
            pack(&model, Some(&links), Dtype::F16, &path);
            std::fs::read(path).unwrap()
        })
        .collect();
    assert!(bytes[0] == bytes[1]);
}

#[test]
fn verify_finds_weights_that_are_not_the_models() {
    let Some(models) = models() else { return };
    let folder = disk_folder();
    let dir = models.join(MODELS[0]);
    let model = Model::load(&dir).unwrap();
    let path = folder.path().join("pack.lnp");
    pack(&model, None, Dtype::F16, &path);
    let other = Model::load(&models.join(MODELS[1])).unwrap();
    let other = verify_file(&path, Some(other.checkpoint()), &mut |_| ());
    assert!(format!("{:#}", other.unwrap_err()).contains("do not belong together"));

    // the same model with one weight changed, packed and sealed as if it were the real one
    let (checkpoint, config) = (model.checkpoint(), model.config());
    let recipe = Recipe::for_checkpoint(checkpoint, config, None, Dtype::F16).unwrap();
    struct Tampered<'a>(CheckpointBundles<'a>);
    impl lnp_pack::BundleSource for Tampered<'_> {
        fn load_layer(&mut self, layer: u32) -> anyhow::Result<()> {
            self.0.load_layer(layer)
        }
        fn bundle(&mut self, neuron: u32, out: &mut [u8]) -> anyhow::Result<()> {
            self.0.bundle(neuron, out)?;
            out[100] ^= u8::from(neuron == 77);
            Ok(())
        }
    }
    let mut bundles = Tampered(CheckpointBundles::new(checkpoint, config, Dtype::F16).unwrap());
    write_pack(&path, &recipe, &mut bundles, &mut |_| ()).unwrap();
    assert!(verify_file(&path, None, &mut |_| ()).is_ok());
    let error = format!("{:#}", verify_file(&path, Some(checkpoint), &mut |_| ()).unwrap_err());
    assert!(error.contains("layer 0, slot 77"), "{error}");
}

/// What a replay counts, counted again from the traces alone, for every corpus and order.
#[test]
fn replay_counts_what_the_traces_say() {
    use lnp_measure::replay::{ActiveSets, Caches, ReplayOptions, Rules, Target, replay};
    let Some(models) = models() else { return };
    let law = DeviceLaw::new(0.0, 9.64, 2034.0, Combine::Sum).unwrap();
    for name in MODELS {
        let dir = models.join(name);
        let mut ratios = Vec::new();
        for corpus in CORPORA {
            let test = TraceReader::open(&dir.join(format!("traces/{corpus}.test.safetensors")));
            let test = test.unwrap();
            let sets = ActiveSets::of_trace(&test, usize::MAX).unwrap();
            let mut runs_by_order = Vec::new();
            for order in [Order::Identity, Order::Frequency, Order::Greedy] {
                let links = link(&dir, corpus, order);
                let bundle_bytes = 1536;
                let model = ModelSize::of_links(&links);
                let recipe =
                    Recipe::for_placeholders(Some(&links), model, bundle_bytes, 1).unwrap();
                let layout = recipe.layout().unwrap();
                let index =
                    PackIndex::in_memory(Default::default(), layout.index, layout.bytes.file_bytes);
                let options = ReplayOptions {
                    law,
                    caches: Caches::default_of(0.0),
                    rules: Rules::default(),
                    queue_depth: 32,
                    repeats: 1,
                    turn: None,
                    time_max: None,
                    timeline_tokens: None,
                };
                let rows = replay(&[index], &sets, &Target::Simulated, &options, &mut |_| ())
                    .unwrap()
                    .rows;
                let row = rows.iter().find(|row| row.collapse == "off").unwrap();
                let counted = count(&links, &test, u64::from(bundle_bytes));
                let tokens = test.tokens() as f64;
                let close = |found: f64, expected: f64| {
                    assert!((found - expected).abs() < 1e-9 * expected, "{found} {expected}");
                };
                close(row.active_bundles_per_token, counted.active as f64 / tokens);
                close(row.runs_per_token, counted.runs as f64 / tokens);
                close(row.bundles_per_run, counted.active as f64 / counted.runs as f64);
                close(row.reads_per_token, counted.reads as f64 / tokens);
                close(row.bytes_read_per_token, counted.bytes as f64 / tokens);
                // the simulated clock counts whole nanoseconds
                let (told, simulated) = (row.predicted_io_us_per_token, row.io_us_per_token.mean);
                assert!((told / simulated - 1.0).abs() < 1e-5, "{told} {simulated}");
                runs_by_order.push(counted.runs as f64);
            }
            ratios.push(runs_by_order[0] / runs_by_order[2]);
        }
        let mean = ratios.iter().sum::<f64>() / ratios.len() as f64;
        println!("{name}: {ratios:.2?} times fewer runs than model order, {mean:.2} in the mean");
        if name == "opt-relu-small" {
            assert!(ratios.iter().all(|ratio| *ratio >= 1.9) && mean >= 2.1);
        }
    }
}

#[derive(Default)]
struct Counted {
    active: u64,
    runs: u64,
    reads: u64,
    bytes: u64,
}

/// Counts runs and block-rounded reads from bits and placement, with sets and nothing of the engine.
fn count(links: &Links, trace: &TraceReader, stride: u64) -> Counted {
    const BLOCK: u64 = 4096;
    let mut counted = Counted::default();
    for (layer, placed) in links.layers.iter().enumerate() {
        let bits = trace.layer_bits(layer).unwrap();
        let row_bytes = trace.neurons().div_ceil(8);
        for row in bits.chunks_exact(row_bytes) {
            let is_active = |slot: usize| {
                let neuron = placed.neuron_of_slot[slot] as usize;
                row[neuron / 8] >> (neuron % 8) & 1 == 1
            };
            // First and last block of the read under way.
            let mut read: Option<(u64, u64)> = None;
            for slot in (0..trace.neurons()).filter(|slot| is_active(*slot)) {
                counted.active += 1;
                counted.runs += u64::from(slot == 0 || !is_active(slot - 1));
                let begin = slot as u64 * stride;
                let (first, last) = (begin / BLOCK, (begin + stride - 1) / BLOCK);
                // Touching blocks are one read, cut before the bundle that would make it longer
                // than 256 blocks.
                let grown = read.filter(|(from, to)| first <= to + 1 && last < from + 256);
                match (grown, &mut read) {
                    (Some(_), Some((_, to))) => {
                        counted.bytes += BLOCK * (last - *to);
                        *to = last;
                    }
                    _ => {
                        counted.reads += 1;
                        counted.bytes += BLOCK * (last + 1 - first);
                        read = Some((first, last));
                    }
                }
            }
        }
    }
    counted
}
