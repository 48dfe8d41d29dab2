//! Traces, links files, device profiles, laws, predictors files, model folders, packs' resident sections and GGUF files
//! from strangers: an error or a value, nothing else.
//!
//! Also a test of the tools, which replays what is committed (`tools/tests/readers.rs`).
#![allow(unreachable_pub)] // a module of a test, and of the target

#[path = "made.rs"]
mod made;

use std::cell::RefCell;
use std::fs::File;
use std::io::Cursor;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use lnp_device::LawText;
use lnp_format::{Activation, Dtype, Pack, Predictor, Shape};
use lnp_link::relink::{HeldLayer, Relinking};
use lnp_link::trace::{TraceReader, active};
use lnp_link::{Links, Objective, Profile};
use lnp_measure::profile::DeviceProfile;
use lnp_model::gguf::inspect::describe;
use lnp_model::{Checkpoint, DenseFfn, Model, Tokenizer};
use lnp_pack::Recipe;
use lnp_predict::Predictors;
use made::{Bytes, Input, Kind};

/// The first byte says what the rest is.
pub fn run(data: &[u8]) {
    let Input { kind, file, weights, size, valid } = made::input(&mut Bytes::new(data));
    let found = match kind {
        Kind::Trace => trace(&file),
        Kind::Links => links(&file),
        Kind::Profile => profile(&file),
        Kind::Law => law(&file),
        Kind::Model => model(&file, &weights),
        Kind::Gguf => with_file(&file, |path| gguf(&path)),
        Kind::Predictors => predictors(&file),
        Kind::Seen => with_file(&file, |path| seen(path, size)),
        Kind::Resident => resident(&file, &weights),
    };
    if let Err(told) = &found {
        assert!(!told.is_empty());
    }
    assert!(found.is_ok() || !valid, "{found:?}");
}

thread_local! {
    /// A file without a name: nothing is left behind, however the process ends.
    static FILE: RefCell<Option<File>> = const { RefCell::new(None) };
}

/// Calls with the path of a file that holds `content`.
fn with_file<T>(content: &[u8], read: impl FnOnce(PathBuf) -> T) -> T {
    FILE.with_borrow_mut(|slot| {
        let file = slot.get_or_insert_with(|| {
            tempfile::tempfile().expect("the temporary folder can be written")
        });
        file.set_len(0).expect("it is ours");
        file.write_all_at(content, 0).expect("there is room");
        read(PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd())))
    })
}

fn told(error: impl std::fmt::Display) -> String {
    format!("{error:#}")
}

fn trace(file: &[u8]) -> Result<(), String> {
    with_file(file, |path| {
        let reader = TraceReader::open(&path).map_err(told)?;
        let (layers, neurons, tokens) = (reader.layers(), reader.neurons(), reader.tokens());
        assert!(layers > 0 && neurons > 0 && tokens > 0 && reader.window() > 0);
        // The bits are in the file: no size is larger than it.
        let row = neurons.div_ceil(8);
        assert!(row.checked_mul(tokens).is_some_and(|bytes| bytes <= file.len()));
        assert!(layers <= file.len());
        assert!(reader.layer_bits(layers).is_err());
        for layer in 0..layers {
            let bits = reader.layer_bits(layer).map_err(told)?;
            assert_eq!(bits.len(), row * tokens);
            for token in [0, tokens / 2, tokens - 1, tokens] {
                let ids: Vec<u32> = active(&bits, neurons, token).collect();
                assert!(ids.windows(2).all(|pair| pair[0] < pair[1]));
                assert!(ids.iter().all(|id| (*id as usize) < neurons));
                assert!(token < tokens || ids.is_empty());
            }
            if let Some((counts, of)) = reader.counted(layer).map_err(told)? {
                assert_eq!(counts.len(), neurons);
                assert!(counts.iter().all(|count| u64::from(*count) <= of));
            }
        }
        if let Some(ids) = reader.token_ids().map_err(told)? {
            assert_eq!(ids.len(), tokens);
        }
        assert_eq!(reader.model(), reader.metadata().get("model").map(String::as_str));
        assert_eq!(reader.sha256_hex().map_err(told)?.len(), 64);
        Ok(())
    })
}

fn links(file: &[u8]) -> Result<(), String> {
    let read = |file: &[u8]| Links::read_from(&mut Cursor::new(file), file.len() as u64);
    let links = read(file).map_err(told)?;
    assert!(links.check().is_ok());
    for layer in &links.layers {
        assert_eq!(layer.neurons(), links.neurons);
        for placed in layer.slots_of_neurons().expect("they were checked") {
            // Each slot is that of one neuron.
            let mut slots: Vec<u32> =
                (0..links.neurons as u32).flat_map(|id| placed.of(id)).collect();
            slots.sort_unstable();
            assert_eq!(slots, (0..placed.slots() as u32).collect::<Vec<u32>>());
        }
    }
    let mut again = Vec::new();
    links.write_to(&mut again).expect("what was read can be written");
    assert_eq!(read(&again).map_err(told)?, links);
    Ok(())
}

fn profile(file: &[u8]) -> Result<(), String> {
    let profile = with_file(file, |path| DeviceProfile::read(&path)).map_err(told)?;
    assert!(profile.law.law().is_ok());
    let depths = profile.curves.iter().map(|curve| curve.depth);
    for depth in depths.chain([0, 1, 32]) {
        if let Err(error) = profile.curve(depth) {
            assert!(!told(error).is_empty());
        }
    }
    // As text: a profile may hold NaN, which is not equal to itself.
    let text = toml::to_string_pretty(&profile).map_err(told)?;
    let again: DeviceProfile = toml::from_str(&text).map_err(told)?;
    assert_eq!(toml::to_string_pretty(&again).map_err(told)?, text);
    Ok(())
}

fn law(file: &[u8]) -> Result<(), String> {
    let law: LawText = String::from_utf8_lossy(file).parse().map_err(told)?;
    assert!(law.law().is_ok());
    assert_eq!(law.to_string().parse::<LawText>().map_err(told)?, law);
    Ok(())
}

/// A model folder: it is loaded, its pack laid out, and one token fed.
fn model(config: &[u8], weights: &[u8]) -> Result<(), String> {
    let folder = tempfile::tempdir().expect("the temporary folder can be written");
    for (name, content) in [("config.json", config), ("model.safetensors", weights)] {
        std::fs::write(folder.path().join(name), content).expect("there is room");
    }
    loaded(&Model::load(folder.path()).map_err(told)?)
}

/// A GGUF file: described, its tokenizer built; loaded as a model folder is.
fn gguf(path: &Path) -> Result<(), String> {
    if describe(path).map_err(told)?.is_none() {
        return Ok(());
    }
    if let Ok(tokenizer) = Tokenizer::load(path) {
        let ids = tokenizer.encode("A text, of 1 line.\n").map_err(told)?;
        tokenizer.decode(&ids, true).map_err(told)?;
    }
    loaded(&Model::load(path).map_err(told)?)
}

/// A pack that holds the weights between other bytes, and a folder that says all else: the model is loaded.
fn resident(config: &[u8], weights: &[u8]) -> Result<(), String> {
    const BEGIN: usize = 512;
    let folder = tempfile::tempdir().expect("the temporary folder can be written");
    std::fs::write(folder.path().join("config.json"), config).expect("there is room");
    let pack = [&[0xff; BEGIN], weights, &[0xff; 64]].concat();
    with_file(&pack, |path| {
        let (begin, bytes) = (BEGIN as u64, weights.len() as u64);
        let checkpoint = Checkpoint::of_pack(folder.path(), &path, begin, bytes).map_err(told)?;
        let model = Model::of(checkpoint).map_err(told)?;
        assert!(!model.checkpoint().has_ffn());
        let state = model.new_state();
        assert_eq!(state.position(), 0);
        Ok(())
    })
}

/// Predictors compute, become sections of a pack, and are the same when they are written.
fn predictors(file: &[u8]) -> Result<(), String> {
    let read = with_file(file, |path| Predictors::read(&path)).map_err(told)?;
    let input: Vec<f32> = (0..read.hidden).map(|at| at as f32 - 3.0).collect();
    for predictor in &read.predictors {
        assert!(predictor.layer < read.layers && predictor.horizon <= predictor.layer);
        for point in 0..predictor.points().len() {
            let mut named = Vec::new();
            predictor.active(&input, point, &mut named).map_err(told)?;
            for ids in named {
                assert!(ids.is_sorted_by(|a, b| a < b));
                assert!(ids.iter().all(|id| (*id as usize) < read.neurons));
            }
        }
    }
    // What goes into a pack is what its reader takes, of a model that a pack can be of.
    let shape = Shape {
        layers: read.layers as u32,
        neurons: read.neurons as u32,
        hidden: read.hidden as u32,
        parts: 2,
        activation: Activation::Relu,
        activation_threshold: 0.0,
        dtype: Dtype::Placeholder,
        bundle_stride: 64,
        slots: read.neurons as u32,
    };
    if let (Ok(sections), Ok(())) = (read.sections(), shape.check(0)) {
        assert_eq!(sections.len(), read.predictors.len());
        for section in sections {
            let found = Predictor::of_section(&section.bytes, &shape);
            assert!(matches!(found, Ok(Some(_))), "{found:?}");
        }
    }
    let (mut once, mut again) = (Vec::new(), Vec::new());
    read.write_to(&mut once).expect("what was read can be written");
    let reread = with_file(&once, |path| Predictors::read(&path)).map_err(told)?;
    reread.write_to(&mut again).expect("what was read can be written");
    assert!(once == again);
    Ok(())
}

/// A pack of these layers and neurons is relinked by a trace.
fn seen(path: PathBuf, [layers, neurons]: [usize; 2]) -> Result<(), String> {
    let seen = Profile::open(&[path]).map_err(told)?;
    let held = |layer: usize| {
        let mut neuron_of_slot: Vec<u32> = (0..neurons as u32).collect();
        neuron_of_slot.rotate_left(layer % neurons);
        let active_count = (0..neurons as u32).map(|neuron| neuron % 8).collect();
        HeldLayer { neuron_of_slot, active_count, profile_tokens: 8 }
    };
    let held: Vec<HeldLayer> = (0..layers).map(held).collect();
    let objective = Objective::phone().expect("a law of a device");
    let relinking = Relinking { objective, pin: 0.1, gain_min: 0.01 };
    let relinked = relinking.relink(&held, &seen, None, || ()).map_err(told)?;
    assert_eq!(relinked.layers.len(), layers);
    for layer in &relinked.layers {
        assert_eq!(layer.active_count.len(), neurons);
        assert!(
            layer.active_count.iter().all(|count| u64::from(*count) <= relinked.profile_tokens)
        );
        let Some((order, begins)) = &layer.order else { continue };
        let mut sorted = order.clone();
        sorted.sort_unstable();
        assert!(sorted.iter().copied().eq(0..neurons as u32));
        assert!(begins.is_sorted_by(|a, b| a < b));
        assert_eq!((begins.first(), begins.last()), (Some(&0), Some(&(neurons as u32))));
    }
    Ok(())
}

fn loaded(model: &Model) -> Result<(), String> {
    let (checkpoint, config) = (model.checkpoint(), model.config());
    let recipe = Recipe::for_checkpoint(checkpoint, config, None, Dtype::F16).map_err(told)?;
    let layout = recipe.layout().map_err(told)?;
    let pack = Pack::parse(&layout.index, layout.bytes.file_bytes).expect("a valid index");
    assert_eq!(pack.shape().layers as usize, config.layers);
    let mut dense = DenseFfn::load(checkpoint, config).map_err(told)?;
    let logits = model.forward(&mut model.new_state(), &[0], &mut dense).map_err(told)?;
    assert_eq!(logits.len(), config.vocab);
    Ok(())
}
