//! `lnp demo`: the whole way, on a small model that the binary carries.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lnp_engine::ffn::Ffn;
use lnp_engine::limits::BATCH_TOKENS_MAX;
use lnp_engine::sys::{DirectFile, ReadOptions, cpu};
use lnp_engine::{Collapse, Config, DeviceLaw, open_engine, required_bytes};
use lnp_format::Dtype;

use super::{link, trace};
use lnp_common::files::check_room_of_all;
use lnp_common::interrupt::Temporary;
use lnp_common::report::{bytes, print, print_json, progress, say, thousands};
use lnp_device::Threads;
use lnp_device::memory;
use lnp_device::{LawText, open_direct};
use lnp_link::Links;
use lnp_link::trace::{TraceReader, write_trace};
use lnp_link::{Order, stats::LinkStatistics};
use lnp_measure::probe::{ProbeOptions, probe, table::law_line};
use lnp_measure::profile::DeviceProfile;
use lnp_measure::replay::{ActiveSets, Caches, ReplayOptions, Rules, Target, replay, table};
use lnp_model::{ExactPredictor, Model, Sampler, Tokenizer, generate, prompt_ids};
use lnp_pack::recipe::ModelSize;
use lnp_pack::verify::verify_file;
use lnp_pack::{CheckpointBundles, PackIndex, PlaceholderBundles, Recipe, write_pack};
use lnp_run::Further;
use lnp_run::SparseFfn;
use lnp_run::fit::{ffn_memory, fit_memory};

/// Trace, link, pack, verify, generate and replay, on a small model inside the binary
///
/// Takes under a minute and about 1 GiB of disk, and cleans up after itself.
///
/// Example: lnp demo
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Folder to work in, on the disk to be measured [default: the temporary folder, or the
    /// current one where that has no direct reads]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Go on through the page cache where the file system refuses direct reads
    #[arg(long)]
    buffered: bool,
    /// Keep the files: model, traces, links, packs and device profile, 1.6 GiB
    #[arg(long)]
    keep: bool,
    /// Print the replay's rows as JSON
    #[arg(long)]
    json: bool,
}

/// The demo model and its texts.
const FILES: [(&str, &[u8]); 5] = [
    ("config.json", include_bytes!("../../demo/config.json")),
    ("model.safetensors", include_bytes!("../../demo/model.safetensors")),
    ("tokenizer.json", include_bytes!("../../demo/tokenizer.json")),
    ("profile.txt", include_bytes!("../../demo/text/profile.txt")),
    ("test.txt", include_bytes!("../../demo/text/test.txt")),
];
const PROMPT: &str = "ROMEO:\n";
const GENERATED_TOKENS: usize = 48;
/// Sizes of the placeholder bundles: those of OPT-350M and OPT-6.7B in f16, bytes.
const PLACEHOLDER_BYTES: [u32; 2] = [4 << 10, 16 << 10];
/// A placeholder pack is tiled to at least this, to be larger than a device's own memory, bytes.
const PACK_BYTES: u64 = 256 << 20;
/// Placeholder packs of one size: an order each.
const ORDERS: [Order; 3] = [Order::Identity, Order::Frequency, Order::Greedy];
/// What all files take at once, about: packs of one size, or of all where they are kept.
const DEMO_BYTES: u64 = 4 * PACK_BYTES;
const KEPT_BYTES: u64 = PACK_BYTES * (ORDERS.len() * PLACEHOLDER_BYTES.len() + 1) as u64;
const REPLAY_TOKENS: usize = 96;
const REPEATS: usize = 3;
/// A slow device replays fewer tokens rather than longer.
const REPLAY_TIME_MAX: Duration = Duration::from_secs(10);
const PROBE_TIME: Duration = Duration::from_secs(3);
const CACHE_RATIO: f64 = 0.05;

pub(super) fn run(args: &Args) -> Result<()> {
    let begin = Instant::now();
    let folder = work_folder(args)?;
    let dir = folder.path().to_owned();
    let _removed_on_interrupt = (!args.keep).then(|| Temporary::new(&dir));
    let demo = Demo { args, dir: &dir };
    let result = demo.run();
    if args.keep {
        let kept = folder.keep();
        if result.is_ok() {
            demo.say(&next_commands(&kept, args.buffered))?;
        } else {
            demo.say(&format!("kept: {}\n", kept.display()))?;
        }
    }
    result?;
    demo.say(&format!(
        "{:.0} s in all{}. Next: lnp trace --help, or docs/ for what the columns mean.\n",
        begin.elapsed().as_secs_f64(),
        if args.keep { "" } else { "; the files are gone" }
    ))
}

/// A folder of our own on a disk with direct reads, where there is one.
fn work_folder(args: &Args) -> Result<tempfile::TempDir> {
    let temporary = std::env::temp_dir();
    let places = match &args.dir {
        Some(dir) => vec![dir.clone()],
        None => vec![temporary.clone(), PathBuf::from(".")],
    };
    let mut reason = None;
    for place in &places {
        match try_folder(place, args) {
            Ok(folder) => return Ok(folder),
            // The first place is the one that was meant.
            Err(error) => reason = reason.or(Some(error)),
        }
    }
    Err(reason.context("no place to work in")?)
}

/// A folder of our own in a place, if it has room and direct reads there are possible or not needed.
fn try_folder(place: &Path, args: &Args) -> Result<tempfile::TempDir> {
    let folder = tempfile::Builder::new().prefix("lnp-demo-").tempdir_in(place);
    let folder = folder.with_context(|| {
        format!("{}: no folder can be made here; name another with --dir", place.display())
    })?;
    let trial = folder.path().join("trial");
    std::fs::write(&trial, [0; 4096])
        .with_context(|| format!("{}: cannot write", trial.display()))?;
    let direct = open_direct(&trial, false).is_ok();
    std::fs::remove_file(&trial)?;
    ensure!(
        direct || args.buffered,
        "{}: the file system refuses direct reads (O_DIRECT): name a folder on a disk with --dir, or \
         say --buffered",
        place.display()
    );
    check_room_of_all(&trial, if args.keep { KEPT_BYTES } else { DEMO_BYTES })?;
    Ok(folder)
}

/// What can be done with the files that were kept: lines for a shell.
fn next_commands(folder: &Path, buffered: bool) -> String {
    let buffered = if buffered { " --buffered" } else { "" };
    let bundle_bytes = PLACEHOLDER_BYTES[0];
    let quoted = folder.display().to_string().replace('\'', r"'\''");
    format!(
        "kept: {}. To go on:\n\n\
         \x20   cd '{quoted}'\n\
         \x20   lnp inspect {PACK}\n\
         \x20   lnp run {PACK} --model model --prompt 'JULIET:' -n 40{buffered}\n\
         \x20   lnp perplexity {PACK} --model model --tokens {} --limit 256{buffered}\n\
         \x20   lnp replay {} {} --traces {} --device {PROFILE} --tokens 16{buffered}\n\
         \x20   lnp pack --model model --links {LINKS} --dtype q8_0 -o q8_0.lnp\n\n",
        folder.display(),
        trace_name("test"),
        placeholder_name(Order::Identity, bundle_bytes),
        placeholder_name(Order::Greedy, bundle_bytes),
        trace_name("test"),
    )
}

/// Names of the files, within the folder.
const PACK: &str = "demo.lnp";
const LINKS: &str = "demo.links.safetensors";
const PROFILE: &str = "device.toml";

fn trace_name(split: &str) -> String {
    format!("{split}.trace.safetensors")
}

fn placeholder_name(order: Order, bundle_bytes: u32) -> String {
    format!("{order}-{bundle_bytes}.lnp")
}

struct Demo<'a> {
    args: &'a Args,
    dir: &'a Path,
}

impl Demo<'_> {
    /// The story goes to stdout, or to stderr where stdout is for JSON.
    fn say(&self, text: &str) -> Result<()> {
        if self.args.json {
            say(text);
            return Ok(());
        }
        print(text)
    }

    fn run(&self) -> Result<()> {
        std::fs::create_dir(self.model_dir())?;
        for (name, contents) in FILES {
            let path = self.model_dir().join(name);
            std::fs::write(&path, contents)
                .with_context(|| format!("{}: cannot write", path.display()))?;
        }
        let model = Model::load(&self.model_dir())?;
        let config = model.config();
        self.say(&format!(
            "lnp demo: a ReLU language model, {} layers of {} FFN neurons, hidden size {}\n\n",
            config.layers, config.neurons, config.hidden
        ))?;
        let profile = self.trace(&model, "profile")?;
        let test = self.trace(&model, "test")?;
        let greedy = self.link(&profile)?;
        let pack = self.pack(&model, &greedy)?;
        self.generate(&model, &pack)?;
        if !self.args.keep {
            std::fs::remove_file(&pack)?;
        }
        self.replay_all(&model, &profile, &test)
    }

    fn model_dir(&self) -> PathBuf {
        self.dir.join("model")
    }

    fn trace(&self, model: &Model, split: &str) -> Result<PathBuf> {
        let text = self.model_dir().join(format!("{split}.txt"));
        let ids = trace::tokenize(&self.model_dir(), &text)?;
        let window = model.config().max_positions.min(256);
        let mut data = trace::trace_tokens(model, &ids, window, Further::default(), "demo".into())?;
        data.split = split.to_owned();
        let path = self.dir.join(trace_name(split));
        write_trace(&path, &data)?;
        let ones = |layer: &Vec<u8>| layer.iter().map(|b| u64::from(b.count_ones())).sum::<u64>();
        let active: u64 = data.layers.iter().map(ones).sum();
        let possible = data.tokens * data.neurons * data.layers.len();
        self.say(&format!(
            "trace     {split}.txt: {} tokens, {:.1} % of the neurons active per token\n",
            thousands(data.tokens as f64),
            100.0 * active as f64 / possible as f64
        ))?;
        Ok(path)
    }

    fn link(&self, profile: &Path) -> Result<Links> {
        let links = link::link_traces(&[profile.to_owned()], Order::Greedy)?;
        if self.args.keep {
            links.write(&self.dir.join(LINKS))?;
        }
        let longest = links.layers.iter().map(|layer| LinkStatistics::of(layer).longest).max();
        self.say(&format!(
            "link      profile.txt's co-activation: neurons that fire together now lie together \
             (longest link: {} neurons)\n",
            longest.unwrap_or(0)
        ))?;
        Ok(links)
    }

    fn pack(&self, model: &Model, links: &Links) -> Result<PathBuf> {
        let path = self.dir.join(PACK);
        let (checkpoint, config) = (model.checkpoint(), model.config());
        let recipe = Recipe::for_checkpoint(checkpoint, config, Some(links), Dtype::F16)?;
        let mut bundles = CheckpointBundles::new(checkpoint, config, Dtype::F16)?;
        let layout = write_pack(&path, &recipe, &mut bundles, &mut |_| {})?;
        let verified = verify_file(&path, Some(checkpoint), &mut |_| {})?;
        self.say(&format!(
            "pack      {PACK}: {}, {} bundles of {} bytes\n\
             verify    every checksum and pad byte sound, every bundle equal to the model's weights\n",
            bytes(layout.bytes.file_bytes as f64),
            thousands(verified.bundles as f64),
            recipe.shape.bundle_stride
        ))?;
        Ok(path)
    }

    fn generate(&self, model: &Model, path: &Path) -> Result<()> {
        let index = PackIndex::open(path)?;
        let pack = index.pack()?;
        let collapse = Collapse::Gap { bytes: LawText::ONEPLUS_12.law()?.gap_bytes() };
        let base = Config { collapse, ..Config::new(&pack) };
        let config = fit_memory(&pack, base, None, CACHE_RATIO)?;
        let file = open_direct(path, self.args.buffered)?;
        let mut memory = memory::arena(required_bytes(&config, &pack)?)?;
        let mut engine = open_engine(&file, pack, &config, &mut memory, ReadOptions::default())?;
        let mut ffn_memory = ffn_memory(&pack, cpu::detect(), BATCH_TOKENS_MAX)?;
        let ffn = Ffn::new(pack.shape(), cpu::detect(), BATCH_TOKENS_MAX, &mut ffn_memory)?;
        let predictor = ExactPredictor::load(model.checkpoint(), model.config())?;
        let tokenizer = Tokenizer::load(&self.model_dir())?;
        let prompt_ids = prompt_ids(&self.model_dir(), model.config(), &tokenizer, PROMPT, false)?;
        let back_end = engine.queue().back_end().name();
        let threads = Threads::new(None)?;
        let begin = Instant::now();
        let (generated, stats) = threads.run(|| {
            engine.session(|session| {
                let mut sparse = SparseFfn::new(session, ffn, &predictor, &threads);
                let (count, greedy) = (GENERATED_TOKENS, &mut Sampler::greedy());
                let go_on = &mut |_| Ok(true);
                let made = generate(model, &mut sparse, &prompt_ids, count, greedy, go_on)?;
                anyhow::Ok((made, *sparse.stats()))
            })
        })?;
        let seconds = begin.elapsed().as_secs_f64();
        let fed = generated.fed as f64;
        let text = tokenizer.decode(&generated.tokens, false)?;
        self.say(&format!(
            "run       {:.0} tokens/s, FFN weights from flash ({back_end}): {:.0} reads and {} per \
             token, {:.0} % hits\n\n    {}\n\n",
            fed / seconds,
            stats.reads as f64 / fed,
            bytes(stats.bytes_read as f64 / fed),
            100.0 * stats.hits as f64 / stats.active.max(1) as f64,
            format!("{PROMPT}{text}").replace('\n', "\n    ")
        ))
    }

    /// Placeholder packs of every order and size, and the comparison.
    fn replay_all(&self, model: &Model, profile: &Path, test: &Path) -> Result<()> {
        let trace = TraceReader::open(test)?;
        let sets = ActiveSets::of_trace(&trace, REPLAY_TOKENS)?;
        let mut rows = Vec::new();
        for bundle_bytes in PLACEHOLDER_BYTES {
            let packs = self.placeholder_packs(model, profile, bundle_bytes)?;
            let files: Vec<DirectFile> = packs
                .iter()
                .map(|pack| open_direct(pack.path(), self.args.buffered))
                .collect::<Result<_>>()?;
            let law = self.probe(packs.first().context("no packs")?.path())?;
            self.say(&format!(
                "replay    the {} active sets of test.txt's first tokens over bundles of {}, as in a \
                 model of {}\n\n",
                sets.tokens(),
                bytes(bundle_bytes.into()),
                if bundle_bytes == PLACEHOLDER_BYTES[0] { "350 M parameters" } else { "6.7 B parameters" },
            ))?;
            let options = ReplayOptions {
                law,
                caches: Caches::default_of(CACHE_RATIO),
                rules: Rules::default(),
                queue_depth: lnp_engine::limits::QUEUE_DEPTH_DEFAULT,
                repeats: REPEATS,
                turn: None,
                time_max: Some(REPLAY_TIME_MAX),
                timeline_tokens: None,
            };
            let bar = progress("replaying", 1000);
            let target = Target::Device(&files, ReadOptions::default());
            let mut told = |share: f64| bar.set_position((share * 1000.0) as u64);
            let found = replay(&packs, &sets, &target, &options, &mut told)?.rows;
            bar.finish_and_clear();
            let replayed = found.iter().map(|row| row.tokens).max().unwrap_or(0);
            if replayed < sets.tokens() {
                self.say(&format!("a slow device: only {replayed} of them were replayed\n\n"))?;
            }
            self.say(&(table::render(&found) + "\n" + &table::chart(&found) + "\n"))?;
            rows.extend(found);
            for pack in packs.iter().filter(|_| !self.args.keep) {
                std::fs::remove_file(pack.path())?;
            }
        }
        self.say(table::BOUND_NOTE)?;
        self.say(
            "Placeholder bundles: their sizes and active sets count, not their weights. The order was \
             learned\nfrom profile.txt and tested on test.txt. Direct reads, cache cold at the start.\n",
        )?;
        if self.args.json {
            return print_json(&serde_json::json!({
                "machine": lnp_device::Machine::here(), "rows": rows,
            }));
        }
        Ok(())
    }

    fn placeholder_packs(
        &self,
        model: &Model,
        profile: &Path,
        bundle_bytes: u32,
    ) -> Result<Vec<PackIndex>> {
        let config = model.config();
        let copy_bytes = (config.layers * config.neurons) as u64 * u64::from(bundle_bytes);
        let copies = PACK_BYTES.div_ceil(copy_bytes) as u32;
        let bar = progress("packing", ORDERS.len() as u64);
        let packs = ORDERS
            .into_iter()
            .map(|order| {
                let links = link::link_traces(&[profile.to_owned()], order)?;
                let path = self.dir.join(placeholder_name(order, bundle_bytes));
                let recipe = Recipe::for_placeholders(
                    Some(&links),
                    ModelSize::of_config(config),
                    bundle_bytes,
                    copies,
                )?;
                write_pack(&path, &recipe, &mut PlaceholderBundles::default(), &mut |_| {})?;
                bar.inc(1);
                PackIndex::open(&path)
            })
            .collect();
        bar.finish_and_clear();
        packs
    }

    fn probe(&self, path: &Path) -> Result<DeviceLaw> {
        let options = ProbeOptions {
            time: PROBE_TIME,
            queue_depth: lnp_engine::limits::QUEUE_DEPTH_DEFAULT,
            read: ReadOptions::default(),
            buffered: self.args.buffered,
            seed: 1,
        };
        let bar = progress("probing", 1000);
        let probed = probe(path, &options, &mut |share| {
            bar.set_position((share * 1000.0) as u64);
            true
        })?;
        bar.finish_and_clear();
        let mut profile = DeviceProfile::of_law(LawText::from(&probed.law));
        profile.fit = Some(probed.fit);
        if self.args.keep {
            profile.write(&self.dir.join(PROFILE))?;
        }
        self.say(&format!("probe     {}", law_line(&profile)))?;
        Ok(probed.law)
    }
}
