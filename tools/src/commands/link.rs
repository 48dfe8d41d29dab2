//! `lnp link`.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Result, bail, ensure};

use super::byte_count::{ByteCount, above_0};
use lnp_common::files::{check_room, check_target};
use lnp_common::report::{bytes, plain, print_json, progress, say, shown, table, thousands};
use lnp_device::LawText;
use lnp_engine::CachePolicy;
use lnp_link::LAYER_STEPS;
use lnp_link::PIN_DEFAULT;
use lnp_link::UnknownOrder;
use lnp_link::choose::{Candidate, chosen_by, compare, contenders};
use lnp_link::missed::{self, CacheAhead, ROUNDS_MAX};
use lnp_link::profile::FOLDS;
use lnp_link::trace::SYNTHETIC;
use lnp_link::{Linking, Links, Objective, Order, Profile, stats::LinkStatistics};
use lnp_measure::profile::DeviceProfile;
use lnp_measure::replay::options::policy_named;

/// Learn from traces in which order to lay out each layer's neurons
///
/// identity: as in the model; random; frequency: the most frequent first; greedy: chains of neurons
/// that fire together, as published; jaccard: the same, corrected for how often each fires at all;
/// refined: jaccard or frequency, whichever is cheaper, improved in the device's own time; bisect:
/// recursive halves that rarely fire together; miss: greedy for what a pinned hot set leaves to be
/// read; copies:F: refined, and some bundles stand in several slots, for F times the flash;
/// replicas:K: K placements of each layer, each for a cluster of tokens, for K times the flash;
/// best: the cheapest of the single ones in a cross-validation on the traces.
///
/// Example: lnp link --traces profile.trace.safetensors -o links.safetensors
/// Example: lnp link --traces a.trace b.trace --order best --pin 0.1 --device d.toml -o best.links
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub(super) struct Args {
    /// Traces to learn from; several are taken together
    #[arg(long, value_name = "FILE", required = true, num_args = 1..)]
    traces: Vec<PathBuf>,
    /// identity, random, frequency, greedy, jaccard, refined, bisect, miss, copies:F, replicas:K or
    /// best
    #[arg(long, value_name = "NAME", default_value = "refined")]
    order: OrderName,
    /// Flash that copies of bundles may take, in times of what the bundles take once: the same as
    /// --order copies:F; 1 for none
    #[arg(long, value_name = "F", value_parser = flash)]
    flash: Option<Order>,
    /// Seed of the random order
    #[arg(long, default_value_t = Order::SEED_DEFAULT)]
    seed: u64,
    /// Share of the model's bundles that a cache pins, the most frequent: they are placed apart, and
    /// the order is made for what is left [default: 0.1 for refined, miss, copies,
    /// replicas and best, else 0]
    #[arg(long, value_name = "R", value_parser = share)]
    pin: Option<f64>,
    /// Device profile with the law that refined, copies, replicas and best go by [default:
    /// a_us=9.64,b_mib_s=2034,combine=sum, fitted to published times of a OnePlus 12]
    #[arg(long, value_name = "FILE", conflicts_with = "law")]
    device: Option<PathBuf>,
    /// The law itself: a_us=9.64,b_mib_s=2034,combine=sum
    #[arg(long, value_name = "LAW")]
    law: Option<LawText>,
    /// Bytes of a bundle, for refined, copies, replicas and best
    #[arg(long, value_name = "BYTES", default_value_t = ByteCount(Objective::BUNDLE_BYTES_DEFAULT.into()),
          value_parser = above_0)]
    bundle_bytes: ByteCount,
    /// Bytes that counting pairs may take, for all layers in the works together; traces are read a
    /// layer at a time on top. With less, pairs are counted in strips: slower, the same result. The
    /// error names the least that is possible
    #[arg(long, value_name = "BYTES", default_value_t = MEMORY_DEFAULT)]
    memory: ByteCount,
    /// Make the order for what a cache of this share of the bundles leaves to be read: link, take the traces
    /// through the cache, link what was missed, and again while that gains on traces held out. An order of one
    /// placement
    #[arg(long, value_name = "R", value_parser = above_0_share)]
    cache_ratio: Option<f64>,
    /// What that cache keeps, as in `lnp replay --cache-policies` [default: decayed-frequency]
    #[arg(long, value_name = "NAME", requires = "cache_ratio", value_parser = policy_named)]
    cache_policy: Option<CachePolicy>,
    /// The links file to write
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// Print link statistics as JSON
    #[arg(long)]
    json: bool,
}

/// An order, or the best of them.
#[derive(Debug, Clone, Copy, PartialEq)]
enum OrderName {
    One(Order),
    Best,
}

impl FromStr for OrderName {
    type Err = UnknownOrder;

    fn from_str(name: &str) -> Result<Self, UnknownOrder> {
        if name == "best" { Ok(Self::Best) } else { name.parse().map(Self::One) }
    }
}

/// The order for so much flash.
fn flash(text: &str) -> Result<Order, String> {
    let flash: f64 = text.parse().map_err(|_| "must be a number".to_owned())?;
    let order = if flash == 1.0 { Some(Order::Refined) } else { Order::copies(flash) };
    order.ok_or_else(|| "must be 1, or 1.01 to 8".into())
}

/// A share of an option: 0 to 1.
pub(super) fn share(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(share) if (0.0..=1.0).contains(&share) => Ok(share),
        _ => Err("must be a share from 0 to 1".into()),
    }
}

/// A share of which there is something.
fn above_0_share(text: &str) -> Result<f64, String> {
    share(text)
        .ok()
        .filter(|share| *share > 0.0)
        .ok_or("must be a share above 0 and at most 1".into())
}

/// Bytes for counts of pairs: the whole matrices of two layers of 16,384 neurons, and their pairs.
const MEMORY_DEFAULT: ByteCount = ByteCount(2 << 30);

pub(super) fn run(args: &Args) -> Result<()> {
    let law = match (&args.device, args.law) {
        (Some(device), _) => DeviceProfile::read(device)?.law,
        (None, law) => law.unwrap_or(LawText::ONEPLUS_12),
    };
    let order = match (args.order, args.flash) {
        (order, None) => order,
        (OrderName::One(Order::Refined), Some(order)) => OrderName::One(order),
        (_, Some(_)) => bail!("--flash goes with the order refined: leave --order away"),
    };
    let objective = Objective { law: law.law()?, bundle_bytes: args.bundle_bytes.saturating_u32() };
    let inputs: Vec<&Path> = args.traces.iter().chain(&args.device).map(PathBuf::as_path).collect();
    check_target(&args.output, &inputs)?;
    let pin = args.pin.unwrap_or(match order {
        OrderName::One(order) => order.pin_default(),
        OrderName::Best => PIN_DEFAULT,
    });
    let profile = Profile::open(&args.traces)?.with_memory(args.memory.0);
    let counts_pairs = match order {
        OrderName::One(order) => order.counts_pairs(),
        OrderName::Best => true,
    };
    let least = profile.memory_min();
    ensure!(
        args.memory.0 >= least || !counts_pairs,
        "--memory {}: at least {least} bytes ({}) are needed for layers of {} neurons",
        args.memory,
        bytes(least as f64),
        profile.neurons()
    );
    let flash = match order {
        OrderName::One(order) => order.flash(),
        OrderName::Best => 1.0,
    };
    let links_bytes = Links::file_bytes(profile.layers(), profile.neurons(), flash);
    check_room(&args.output, links_bytes)?;
    let linking = match order {
        OrderName::One(Order::Random { .. }) => {
            Linking { order: Order::Random { seed: args.seed }, objective, pin }
        }
        OrderName::One(order) => Linking { order, objective, pin },
        OrderName::Best => best(&profile, objective, pin)?,
    };
    let mut links = match args.cache_ratio {
        Some(ratio) => {
            let policy = args.cache_policy.unwrap_or_default();
            link_for_cache(&profile, &linking, CacheAhead { policy, ratio })?
        }
        None => link_profile(&profile, &linking)?,
    };
    if order == OrderName::Best {
        links.notes.extend([chosen_by(pin)]);
    }
    links.write(&args.output)?;
    summarise(&links, &args.output, args.json)
}

/// The cheapest order on parts of the profile that it was not made from; the table goes to stderr.
fn best(profile: &Profile, objective: Objective, cache: f64) -> Result<Linking> {
    let contenders = contenders(objective, cache);
    let layers = (contenders.len() * FOLDS * profile.layers()) as u64;
    let bar = progress("comparing", layers * LAYER_STEPS);
    let candidates = compare(profile, &contenders, cache, &|steps| bar.inc(steps))?;
    bar.finish_and_clear();
    let row = |candidate: &Candidate| {
        let (linking, price) = (candidate.linking, candidate.price);
        let per_token = |total: u64| total as f64 / price.tokens.max(1) as f64;
        vec![
            linking.order.to_string(),
            if linking.pin > 0.0 { "apart".into() } else { "among the others".into() },
            thousands(per_token(price.reads)),
            thousands(per_token(price.bytes) / 1024.0),
            thousands(price.us_per_token()),
        ]
    };
    let rows: Vec<Vec<String>> = candidates.iter().map(row).collect();
    say(&table(&["order", "pinned", "reads", "KiB", "us per token"], &rows, 2));
    ensure!(!candidates.is_empty(), "no order to choose from");
    Ok(candidates[0].linking)
}

/// Links traces of one model by an order, nothing pinned.
pub(super) fn link_traces(paths: &[PathBuf], order: Order) -> Result<Links> {
    let linking = Linking { order, objective: Objective::phone()?, pin: 0.0 };
    link_profile(&Profile::open(paths)?, &linking)
}

/// Links a profile, layers in parallel, with a progress bar.
fn link_profile(profile: &Profile, linking: &Linking) -> Result<Links> {
    let bar = progress("linking", profile.layers() as u64 * LAYER_STEPS);
    let links = linking.links(profile, |steps| bar.inc(steps))?;
    bar.finish_and_clear();
    Ok(links)
}

/// Links a profile for what a cache leaves, and says what that gained on windows held out.
fn link_for_cache(profile: &Profile, linking: &Linking, cache: CacheAhead) -> Result<Links> {
    let most = (2 * (1 + ROUNDS_MAX) * profile.layers()) as u64;
    let bar = progress("linking", most * LAYER_STEPS);
    let (links, us) = cache.links(linking, profile, &|steps| bar.inc(steps))?;
    bar.finish_and_clear();
    let rounds = missed::rounds(&us);
    let saved = 100.0 * (1.0 - us[rounds] / us[0].max(f64::MIN_POSITIVE));
    say(&match rounds {
        0 => {
            "made from what is missed the order is not faster on windows held out: left as it was\n"
                .to_owned()
        }
        _ => format!(
            "made from what is missed, {rounds} times: {saved:.1} % less device time on windows held out\n"
        ),
    });
    Ok(links)
}

fn summarise(links: &Links, output: &Path, json: bool) -> Result<()> {
    let statistics: Vec<LinkStatistics> = links.layers.iter().map(LinkStatistics::of).collect();
    if json {
        let layers: Vec<_> = statistics
            .iter()
            .map(|s| {
                serde_json::json!({
                    "links": s.links, "longest": s.longest, "median": s.median, "mean": s.mean,
                    "singles": s.singles,
                })
            })
            .collect();
        return print_json(&serde_json::json!({
            "links": output, "order": links.order.to_string(), "placements": links.placements(), "flash": links.flash(), "model": links.model,
            "corpora": links.corpora, "profile_tokens": links.profile_tokens,
            "neurons": links.neurons, "synthetic": links.notes.contains_key(SYNTHETIC),
            "layers": layers,
        }));
    }
    let rows: Vec<Vec<String>> = statistics
        .iter()
        .enumerate()
        .map(|(layer, s)| {
            vec![
                layer.to_string(),
                thousands(s.links as f64),
                thousands(s.longest.into()),
                format!("{:.1}", s.mean),
                thousands(s.singles as f64),
            ]
        })
        .collect();
    say(&table(&["layer", "links", "longest", "mean", "single neurons"], &rows, 0));
    say(&format!(
        "{}: {} order from {} tokens of {}\n",
        shown(output),
        links.order,
        thousands(links.profile_tokens as f64),
        plain(&links.corpora.join(", "))
    ));
    let flash = links.flash();
    if links.placements() > 1 {
        say(&format!(
            "a pack of it takes {flash:.2} times the flash; the engine reads each token from the cheapest placement\n"
        ));
    } else if flash > 1.0 {
        say(&format!(
            "a pack of it takes {flash:.2} times the flash; the engine reads each bundle from its cheapest slot\n"
        ));
    }
    Ok(())
}
