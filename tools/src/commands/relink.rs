//! `lnp relink`.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use super::byte_count::ByteCount;
use super::link::share;
use super::pack::write_with_progress;
use lnp_common::files::{check_room, check_target, check_targets};
use lnp_common::report::{bytes, print_json, progress, say, shown, thousands};
use lnp_device::LawText;
use lnp_link::relink::{KeptLayers, Relinked, Relinking};
use lnp_link::{Links, Objective, Profile};
use lnp_measure::profile::DeviceProfile;
use lnp_pack::relink::{Paced, PackBundles, held_layers, recipe};
use lnp_pack::{BundleSource, PackIndex};

/// Make a pack's order better for what its user needs: link it again from what was seen
///
/// Needs the pack and traces of what was active (`lnp run --record`), and no checkpoint: the weights are those of the
/// pack, bit for bit. The pack's own counts weigh as much as 32 to 512 tokens, whatever serves what was seen best. What a layer would gain is told by halves of what
/// was seen, each by an order made from the other; layers that gain too little stay as they are, and where nothing is
/// gained nothing is written. For work in the background there are `--rate` and `--resume`.
///
/// Example: lnp relink opt.lnp --seen monday.trace tuesday.trace -o better.lnp
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The pack
    #[arg(value_name = "PACK")]
    pack: PathBuf,
    /// Traces of what was seen, of `lnp run --record` or `lnp trace`
    #[arg(long, value_name = "FILE", required = true, num_args = 1..)]
    seen: Vec<PathBuf>,
    /// Link only those layers again whose time, by the law, falls by at least this share
    #[arg(long, value_name = "SHARE", default_value_t = 0.01, value_parser = share)]
    gain_min: f64,
    /// Share of the model's bundles that a cache pins, the most frequent: they are placed apart
    #[arg(long, value_name = "R", default_value_t = 0.1, value_parser = share)]
    pin: f64,
    /// Device profile with the law [default:
    /// a_us=9.64,b_mib_s=2034,combine=sum, fitted to published times of a OnePlus 12]
    #[arg(long, value_name = "FILE", conflicts_with = "law")]
    device: Option<PathBuf>,
    /// The law itself: a_us=9.64,b_mib_s=2034,combine=sum
    #[arg(long, value_name = "LAW")]
    law: Option<LawText>,
    /// Bytes that counting pairs may take, for all layers in the works together
    #[arg(long, value_name = "BYTES", default_value_t = ByteCount(1 << 30))]
    memory: ByteCount,
    /// Write at most so many bytes a second
    #[arg(long, value_name = "BYTES", value_parser = rate)]
    rate: Option<ByteCount>,
    /// Keep what is done of the work beside the output, in OUTPUT.orders and OUTPUT.part, until it ends, and go on from what
    /// an interrupted one has left there
    #[arg(long)]
    resume: bool,
    /// The pack to write
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// Print what is gained and what it costs as JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args) -> Result<()> {
    let law = match (&args.device, args.law) {
        (Some(device), _) => DeviceProfile::read(device)?.law,
        (None, law) => law.unwrap_or(LawText::ONEPLUS_12),
    };
    let given = args.seen.iter().chain(&args.device).chain([&args.pack]);
    let inputs: Vec<&Path> = given.map(PathBuf::as_path).collect();
    check_target(&args.output, &inputs)?;
    let index = PackIndex::open(&args.pack)?;
    let pack = index.pack()?;
    check_room(&args.output, index.file_bytes())?;
    let seen = Profile::open(&args.seen)?.with_memory(args.memory.0);
    let least = seen.memory_min();
    ensure!(
        args.memory.0 >= least,
        "--memory {}: at least {least} bytes ({}) are needed for layers of {} neurons",
        args.memory,
        bytes(least as f64),
        seen.neurons()
    );
    let held = held_layers(&pack).with_context(|| args.pack.display().to_string())?;
    let bundle_bytes = pack.shape().bundle_stride;
    let objective = Objective { law: law.law()?, bundle_bytes };
    let relinking = Relinking { objective, pin: args.pin, gain_min: args.gain_min };
    let bar = progress("linking again", held.len() as u64);
    let beside = |name: &str| {
        let mut path = args.output.clone().into_os_string();
        path.push(name);
        PathBuf::from(path)
    };
    let (orders, part) = (beside(".orders"), beside(".part"));
    let kept = if args.resume {
        check_targets(&[args.output.clone(), orders.clone(), part.clone()], &inputs)?;
        Some(KeptLayers::open(&orders, &part, work(&index, &seen, &relinking))?)
    } else {
        None
    };
    let relinked = relinking.relink(&held, &seen, kept.as_ref(), || bar.inc(1))?;
    bar.finish_and_clear();
    let mut told = Told {
        relinked: &relinked,
        seen_tokens: seen.tokens(),
        moved_bytes: relinked.moved() as u64 * pack.shape().region_bytes(pack.shape().neurons),
        file_bytes: index.file_bytes(),
    };
    if told.gain() > 0.0 {
        let recipe = recipe(&index, &relinked, &seen.sources, seen.tokens())?;
        let mut bundles = PackBundles::open(&index)?;
        let mut paced;
        let bundles: &mut dyn BundleSource = match args.rate {
            Some(rate) => {
                paced = Paced::new(&mut bundles, rate.0);
                &mut paced
            }
            None => &mut bundles,
        };
        let part = args.resume.then_some(part.as_path());
        let layout = write_with_progress(&args.output, part, &recipe, bundles)
            .with_context(|| args.pack.display().to_string())?;
        told.file_bytes = layout.bytes.file_bytes;
    }
    if args.resume {
        // The work is done; the pack, where there is one, has all that was kept.
        for path in [orders, part] {
            match std::fs::remove_file(&path) {
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    return Err(error).with_context(|| path.display().to_string());
                }
                _ => {}
            }
        }
    }
    if args.json {
        return print_json(&told.json(&args.output));
    }
    say(&told.words(&args.output));
    Ok(())
}

/// What the work is of: what is kept of one work serves no other.
fn work(index: &PackIndex, seen: &Profile, relinking: &Relinking) -> String {
    let traces: Vec<&str> = seen.sources.iter().map(|source| source.sha256.as_str()).collect();
    let (tool, pack, traces) = (Links::this_tool(), index.checksum(), traces.join(" "));
    format!("{tool} {pack:08x} {relinking:?} {traces}")
}

fn rate(text: &str) -> Result<ByteCount> {
    let rate: ByteCount = text.parse()?;
    ensure!(rate.0 > 0, "at that rate it never ends");
    Ok(rate)
}

/// What is gained, and for what.
struct Told<'a> {
    relinked: &'a Relinked,
    seen_tokens: u64,
    /// Of the regions whose order is new.
    moved_bytes: u64,
    file_bytes: u64,
}

impl Told<'_> {
    /// Share of a token's time.
    fn gain(&self) -> f64 {
        let cost = self.relinked.cost();
        if cost.before_us > 0.0 { 1.0 - cost.after_us / cost.before_us } else { 0.0 }
    }

    /// Bytes that are written for a per cent of a token's time; none where nothing is gained.
    fn bytes_per_percent(&self) -> Option<f64> {
        (self.gain() > 0.0).then(|| self.file_bytes as f64 / (100.0 * self.gain()))
    }

    fn json(&self, output: &Path) -> serde_json::Value {
        let cost = self.relinked.cost();
        let written = self.gain() > 0.0;
        serde_json::json!({
            "pack": written.then_some(output),
            "written": written,
            "seen_tokens": self.seen_tokens,
            "prior_tokens": self.relinked.prior_tokens,
            "predicted_us_per_token": {
                "before": cost.before_us, "counted": cost.counted_us, "after": cost.after_us,
            },
            "gain": self.gain(),
            "layers_linked": self.relinked.moved(),
            "moved_bytes": self.moved_bytes,
            "written_bytes": if written { self.file_bytes } else { 0 },
            "written_bytes_per_percent": self.bytes_per_percent(),
            "layers": self.relinked.layers.iter().map(|layer| serde_json::json!({
                "linked": layer.order.is_some(), "before_us": layer.cost.before_us,
                "counted_us": layer.cost.counted_us, "after_us": layer.cost.after_us,
            })).collect::<Vec<_>>(),
        })
    }

    fn words(&self, output: &Path) -> String {
        let cost = self.relinked.cost();
        let Some(per_percent) = self.bytes_per_percent() else {
            return format!(
                "nothing to gain: {} us a token by the law as it is, {} linked again; nothing is written\n",
                thousands(cost.before_us),
                thousands(cost.after_us)
            );
        };
        format!(
            "{}: from {} tokens seen and the pack's counts as of {}, {} of {} layers linked again\n\
             I/O of a token by the law, on halves not learnt from: {} us before, {} with the new hot set alone, {} now ({:+.1} %)\n\
             {} written, {} of them bundles in new places: {} for each per cent\n",
            shown(output),
            thousands(self.seen_tokens as f64),
            thousands(self.relinked.prior_tokens as f64),
            self.relinked.moved(),
            self.relinked.layers.len(),
            thousands(cost.before_us),
            thousands(cost.counted_us),
            thousands(cost.after_us),
            -100.0 * self.gain(),
            bytes(self.file_bytes as f64),
            bytes(self.moved_bytes as f64),
            bytes(per_percent),
        )
    }
}
