//! `lnp report`.

use std::path::{Path, PathBuf};

use anyhow::Result;

use super::replay::warn_about_profiles;
use lnp_common::files::{check_target, write_text};
use lnp_common::report::{print, print_json, progress, shown};
use lnp_device::LawText;
use lnp_link::trace::TraceReader;
use lnp_measure::profile::DeviceProfile;
use lnp_measure::report::{Inputs, report};
use lnp_pack::PackIndex;

/// Make a page about a pack: what is in it and what its order does
///
/// Replays a trace on a simulated device, as `lnp replay --simulate` does, beside the model's order, a random one and that
/// by frequency, and writes one HTML file that needs no other: tables, pictures and words, for a screen, a
/// phone or paper. The same pack, trace and law give the same page.
///
/// Example: lnp report model.lnp --traces test.trace --device d.toml -o report.html
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The pack; further ones are compared with it
    #[arg(value_name = "PACK", required = true)]
    packs: Vec<PathBuf>,
    /// Trace whose active sets are replayed; not one that the order was made from
    #[arg(long, value_name = "FILE")]
    traces: PathBuf,
    /// Only the first N tokens
    #[arg(long, value_name = "N", default_value_t = 512, value_parser = clap::value_parser!(u32).range(1..))]
    tokens: u32,
    /// Device profile with the law and the curve [default:
    /// a_us=9.64,b_mib_s=2034,combine=sum, fitted to published times of a OnePlus 12]
    #[arg(long, value_name = "FILE", conflicts_with = "law")]
    device: Option<PathBuf>,
    /// The law itself: a_us=9.64,b_mib_s=2034,combine=sum
    #[arg(long, value_name = "LAW")]
    law: Option<LawText>,
    /// Reads in flight
    #[arg(long, value_name = "N", default_value_t = lnp_engine::limits::QUEUE_DEPTH_DEFAULT)]
    queue_depth: u32,
    /// The page
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// Print what the page says as JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args) -> Result<()> {
    let inputs = args.packs.iter().chain([&args.traces]).chain(&args.device);
    check_target(&args.output, &inputs.map(PathBuf::as_path).collect::<Vec<&Path>>())?;
    let trace = TraceReader::open(&args.traces)?;
    let packs: Vec<PackIndex> =
        args.packs.iter().map(|path| PackIndex::open(path)).collect::<Result<_>>()?;
    warn_about_profiles(&packs, &trace)?;
    let profile = args.device.as_deref().map(DeviceProfile::read).transpose()?;
    let (law, law_source) = match (&profile, &args.device, &args.law) {
        (Some(profile), Some(path), _) => {
            // Where it lies is nobody's business who reads the page.
            let name = path.file_name().unwrap_or_default();
            (profile.law, shown(Path::new(name)))
        }
        (.., Some(law)) => (*law, "--law".into()),
        _ => {
            let source = "fitted to published times of a OnePlus 12, UFS 4.0";
            (LawText::ONEPLUS_12, source.into())
        }
    };
    let inputs = Inputs {
        packs: &packs,
        trace: &trace,
        tokens: args.tokens as usize,
        law: law.law()?,
        law_source: &law_source,
        profile: profile.as_ref(),
        queue_depth: args.queue_depth,
    };
    let bar = progress("replaying", 1000);
    let made = report(&inputs, &mut |share| bar.set_position((share * 1000.0) as u64))?;
    bar.finish_and_clear();
    write_text(&args.output, &made.html()?)?;
    if args.json {
        return print_json(&made);
    }
    print(&format!("{}\nwritten: {}\n", made.lead().join("\n"), shown(&args.output)))
}
