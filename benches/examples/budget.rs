//! What leaving bundles out costs and saves: perplexity, and device time of a token by the law of a OnePlus 12, where
//! what is left out is chosen by strength alone or by strength and device time (`lnp_engine::budget`).
//!
//! The FFN is in memory; what is not kept is set to zero. The cache is a pinned one, of the bundles that are active most
//! often in the profile. A row of csv for each choice, on standard output; `benches/budget` runs it and makes the table.
//!
//!     cargo run --release -p lnp-benches --example budget -- MODEL WORK THREADS TOKENS [RULE]
//!
//! With a RULE only what is chosen by rules of which that is a part, beside exact reading.
//! WORK is a folder with what `benches/budget` makes: `BYTES.PIN.links`, `frequency.links`, `predictors`.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use candle_core::{Device, Tensor};
use lnp_device::LawText;
use lnp_engine::budget::{Misses, Pace, at_price, scratch_len, within};
use lnp_engine::law::DeviceLaw;
use lnp_engine::plan::{self, Collapse, Extent, Geometry};
use lnp_link::Links;
use lnp_link::hot::{hot_bundles, hot_sets};
use lnp_link::trace::TraceReader;
use lnp_model::activity::down_norms;
use lnp_model::perplexity::{Windows, loss};
use lnp_model::{DenseFfn, FeedForward, Model};
use lnp_predict::Predictors;

const CORPORA: [&str; 3] = ["alpaca", "wikitext2", "gsm8k"];
const STRIDES: [u32; 2] = [4096, 16384];
const PINS: [f64; 2] = [0.0, 0.1];
/// Shares of the squares of strength that may be lost.
const SHARES: [f64; 5] = [0.002, 0.005, 0.01, 0.025, 0.05];
/// What all strength of a layer is worth, microseconds.
const PRICES_US: [f64; 2] = [12_000.0, 5_000.0];
const QUALITIES: [f64; 3] = [0.95, 0.9, 0.8];
/// The predictors' set that is chosen from.
const QUALITY: f64 = 0.999;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Rule {
    /// What is active, or predicted.
    All,
    /// The weakest, until the share is lost.
    Share(f64),
    /// As the predictor says at a quality, no strength asked.
    Quality(f64),
    /// `budget::within`.
    Within(f64),
    /// `budget::Pace`.
    Pace(f64),
    /// `budget::at_price`.
    Price(f64),
}

impl Rule {
    fn name(self) -> (&'static str, f64) {
        match self {
            Self::All => ("all", 0.0),
            Self::Share(share) => ("weakest to a share", share),
            Self::Quality(quality) => ("quality", quality),
            Self::Within(share) => ("budget to a share", share),
            Self::Pace(share) => ("budget at a pace", share),
            Self::Price(us) => ("budget at a price", us),
        }
    }

    /// Whether it looks at where bundles lie.
    fn by_place(self) -> bool {
        matches!(self, Self::Within(_) | Self::Pace(_) | Self::Price(_))
    }
}

/// Where strengths come from.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Strength {
    /// The coefficient itself, times the norm of the down column: what no one knows before reading.
    Oracle,
    /// As predictors estimate it: the score, clipped at 0, times the neuron's scale.
    Predicted,
}

impl Strength {
    fn name(self) -> &'static str {
        match self {
            Self::Oracle => "oracle",
            Self::Predicted => "predicted",
        }
    }
}

/// One pass over a text.
#[derive(Clone, Copy, Debug)]
struct Job {
    corpus: usize,
    pin: usize,
    strength: Strength,
    rule: Rule,
    /// The place it is chosen for; what does not look at it is priced in all.
    place: Option<usize>,
}

/// Where bundles lie: an order and a bundle size, for one cache.
struct Place {
    order: &'static str,
    stride: u32,
    /// By layer and neuron, the slot.
    slots: Vec<Vec<u32>>,
}

/// What all passes share.
struct Bench {
    law: DeviceLaw,
    neurons: usize,
    /// By pin: places, and what is cached.
    places: [Vec<Place>; 2],
    hot: [Vec<Vec<bool>>; 2],
    /// Norms of the down columns, by layer.
    norms: Vec<Vec<f32>>,
    /// Up rows of a gated FFN.
    ups: Option<Vec<Tensor>>,
    predictors: Predictors,
}

/// An FFN in memory, of which a rule keeps some.
struct Choosing<'a> {
    dense: &'a mut DenseFfn,
    decided: Decided<'a>,
}

/// What was decided so far, and by which rule.
struct Decided<'a> {
    bench: &'a Bench,
    job: Job,
    /// Tokens times layers.
    steps: u64,
    active: u64,
    read: u64,
    lost: f64,
    choosing: Duration,
    /// Device time by place, microseconds.
    times_us: Vec<f64>,
    chooser: Chooser,
}

/// Memory that is used again for each token.
#[derive(Default)]
struct Chooser {
    extents: Vec<Extent>,
    scratch: Vec<u64>,
    keep: Vec<bool>,
    /// By layer.
    paces: Vec<Pace>,
}

fn geometry(stride: u32, neurons: usize) -> Geometry {
    let read_bytes_max = lnp_engine::limits::READ_BYTES_DEFAULT;
    Geometry { bundle_stride: stride, block_bytes: 4096, slots: neurons as u32, read_bytes_max }
}

impl Chooser {
    fn for_layers_of(neurons: usize, layers: usize) -> Self {
        Self {
            extents: vec![Extent::default(); neurons],
            scratch: vec![0; scratch_len(neurons)],
            keep: vec![true; neurons],
            paces: vec![Pace::default(); layers],
        }
    }

    /// Of (slot, strength, neuron), ascending by slot where the rule asks for it, keeps those that are to be read.
    fn choose(
        &mut self,
        (rule, layer): (Rule, usize),
        missing: &mut Vec<(u32, f32, u32)>,
        others: f64,
        (law, geometry): (&DeviceLaw, &Geometry),
    ) {
        let square = |strength: f32| f64::from(strength).powi(2);
        let total = others + missing.iter().map(|(_, strength, _)| square(*strength)).sum::<f64>();
        match rule {
            Rule::All | Rule::Quality(_) => {}
            Rule::Share(share) => {
                missing.sort_by(|a, b| b.1.total_cmp(&a.1));
                let mut lost = 0.0;
                while let Some((_, strength, _)) = missing.last() {
                    lost += square(*strength);
                    if lost > share * total {
                        break;
                    }
                    missing.pop();
                }
            }
            Rule::Within(_) | Rule::Pace(_) | Rule::Price(_) => {
                let slots: Vec<u32> = missing.iter().map(|(slot, ..)| *slot).collect();
                let strengths: Vec<f32> =
                    missing.iter().map(|(_, strength, _)| *strength).collect();
                let misses = Misses { slots: &slots, strengths: &strengths, others };
                let (keep, scratch) = (&mut self.keep[..], &mut self.scratch[..]);
                match rule {
                    Rule::Price(us) => at_price(&misses, geometry, law, us, keep, scratch),
                    Rule::Pace(share) => {
                        self.paces[layer].choose(&misses, geometry, law, share, keep, scratch)
                    }
                    Rule::Within(share) => within(&misses, geometry, law, share, keep, scratch),
                    Rule::All | Rule::Share(_) | Rule::Quality(_) => return,
                };
                let mut keep = self.keep.iter();
                missing.retain(|_| keep.next().is_some_and(|keep| *keep));
            }
        }
    }

    fn time_us(&mut self, slots: &mut [u32], law: &DeviceLaw, geometry: &Geometry) -> f64 {
        slots.sort_unstable();
        let (extents, scratch) = (&mut self.extents, &mut self.scratch);
        let plan = plan::plan(slots, geometry, &Collapse::Law(*law), extents, scratch);
        law.time_us(plan.reads, plan.bytes)
    }
}

impl Decided<'_> {
    /// Strengths of a layer's neurons for all tokens of `x`, from the activations or predicted, and what is wanted.
    fn strengths(&self, layer: usize, x: &[f32], activations: &[f32]) -> Result<Vec<Option<f32>>> {
        let Bench { norms, ups, predictors, neurons, .. } = self.bench;
        if self.job.strength != Strength::Oracle {
            let predictor = predictors.of(layer, 0)?;
            let quality =
                if let Rule::Quality(quality) = self.job.rule { quality } else { QUALITY };
            let point = predictor.point_of(quality);
            let (scores, threshold) = (predictor.scores(x, point)?, predictor.threshold(point)?);
            let scales = predictor.strength_scales().context("predictors without strengths")?;
            let strength = |(neuron, score): (usize, &f32)| {
                (*score > threshold).then(|| score.max(0.0) * scales[neuron % neurons])
            };
            return Ok(scores.iter().enumerate().map(strength).collect());
        }
        let strength = |(value, norm): (&f32, &f32)| (*value > 0.0).then(|| value * norm);
        let mut strengths: Vec<_> =
            activations.iter().zip(norms[layer].iter().cycle()).map(strength).collect();
        if let Some(ups) = ups {
            for (strength, up) in strengths.iter_mut().zip(products(x, &ups[layer])?) {
                *strength = strength.map(|strength| strength * up.abs());
            }
        }
        Ok(strengths)
    }

    /// Chooses for one token: sets the rest of its activations to zero.
    fn token(&mut self, layer: usize, activations: &mut [f32], strengths: &[Option<f32>]) {
        let (bench, job) = (self.bench, self.job);
        let (hot, places) = (&bench.hot[job.pin][layer], &bench.places[job.pin]);
        let chosen_for = &places[job.place.unwrap_or(0)];
        let (mut missing, mut others) = (Vec::new(), 0.0);
        let mut kept = vec![false; bench.neurons];
        for (neuron, strength) in strengths.iter().enumerate() {
            let Some(strength) = *strength else { continue };
            if hot[neuron] {
                kept[neuron] = true;
                others += f64::from(strength).powi(2);
            } else {
                missing.push((chosen_for.slots[layer][neuron], strength, neuron as u32));
            }
        }
        missing.sort_unstable_by_key(|(slot, ..)| *slot);
        let total = others + missing.iter().map(|(_, s, _)| f64::from(*s).powi(2)).sum::<f64>();
        let geometry_of = |place: &Place| geometry(place.stride, bench.neurons);
        let by = (&bench.law, &geometry_of(chosen_for));
        let begin = Instant::now();
        self.chooser.choose((job.rule, layer), &mut missing, others, by);
        self.choosing += begin.elapsed();
        let left = others + missing.iter().map(|(_, s, _)| f64::from(*s).powi(2)).sum::<f64>();
        self.lost += if total > 0.0 { 1.0 - left / total } else { 0.0 };
        self.read += missing.len() as u64;
        self.steps += 1;
        for (number, place) in places.iter().enumerate() {
            if job.place.is_none_or(|only| only == number) {
                let slot = |(_, _, neuron): &(u32, f32, u32)| place.slots[layer][*neuron as usize];
                let mut slots: Vec<u32> = missing.iter().map(slot).collect();
                let us = self.chooser.time_us(&mut slots, &bench.law, &geometry_of(place));
                self.times_us[number] += us;
            }
        }
        missing.iter().for_each(|(_, _, neuron)| kept[*neuron as usize] = true);
        for (activation, kept) in activations.iter_mut().zip(kept) {
            self.active += u64::from(*activation > 0.0);
            if !kept {
                *activation = 0.0;
            }
        }
    }
}

impl FeedForward for Choosing<'_> {
    fn forward(&mut self, layer: usize, x: &[f32], y: &mut [f32]) -> Result<()> {
        let Self { dense, decided } = self;
        let mut told = Ok(());
        dense.forward_chosen(layer, x, y, &mut |activations| {
            told = decided.strengths(layer, x, activations).map(|strengths| {
                let neurons = decided.bench.neurons;
                let tokens = activations.chunks_mut(neurons).zip(strengths.chunks(neurons));
                tokens.for_each(|(some, strengths)| decided.token(layer, some, strengths));
            });
        })?;
        told
    }
}

/// Rows times each token of `x`, row-major `[tokens][rows]`.
fn products(x: &[f32], rows: &Tensor) -> Result<Vec<f32>> {
    let hidden = rows.dim(1)?;
    let x = Tensor::from_slice(x, (x.len() / hidden, hidden), &Device::Cpu)?;
    Ok(x.matmul(&rows.t()?)?.flatten_all()?.to_vec1::<f32>()?)
}

impl Bench {
    fn load(model: &Model, work: &Path) -> Result<Self> {
        let config = model.config();
        let (layers, neurons, hidden) = (config.layers, config.neurons, config.hidden);
        let frequency = Links::read(&work.join("frequency.links"))?;
        let counts: Vec<Vec<u32>> =
            frequency.layers.iter().map(|layer| layer.active_count.clone()).collect();
        let slots = |links: &Links| -> Result<Vec<Vec<u32>>> {
            links.layers.iter().map(|layer| layer.slot_of_neuron()).collect()
        };
        let mut places = [Vec::new(), Vec::new()];
        for (pin, places) in PINS.iter().zip(&mut places) {
            for stride in STRIDES {
                let linked = Links::read(&work.join(format!("{stride}.{pin}.links")))?;
                places.push(Place { order: "linked", stride, slots: slots(&linked)? });
                places.push(Place { order: "frequency", stride, slots: slots(&frequency)? });
            }
        }
        let hot = PINS.map(|pin| hot_sets(&counts, hot_bundles(layers, neurons, pin)));
        let (mut norms, mut ups) = (Vec::new(), Vec::new());
        for layer in 0..layers {
            let names = config.ffn_tensors(layer);
            norms.push(down_norms(model.checkpoint(), config, layer)?);
            if names.gate.is_some() {
                let up = model.checkpoint().read_f32(&names.up)?;
                ups.push(Tensor::from_vec(up, (neurons, hidden), &Device::Cpu)?);
            }
        }
        let law = LawText::ONEPLUS_12.law()?;
        let predictors = Predictors::read(&work.join("predictors"))?;
        let ups = Some(ups).filter(|ups| !ups.is_empty());
        Ok(Self { law, neurons, places, hot, norms, ups, predictors })
    }

    /// All passes over all texts, those of one kind together.
    fn jobs(&self) -> Vec<Job> {
        let mut kinds = Vec::new();
        for pin in 0..PINS.len() {
            kinds.push((pin, Strength::Oracle, Rule::All));
            kinds.extend(QUALITIES.map(|at| (pin, Strength::Predicted, Rule::Quality(at))));
            for strength in [Strength::Oracle, Strength::Predicted] {
                kinds.extend(SHARES.map(|share| (pin, strength, Rule::Within(share))));
                kinds.extend(SHARES.map(|share| (pin, strength, Rule::Share(share))));
            }
            kinds.extend(SHARES.map(|share| (pin, Strength::Predicted, Rule::Pace(share))));
            if pin == 0 {
                kinds.extend(PRICES_US.map(|us| (pin, Strength::Predicted, Rule::Price(us))));
            }
        }
        let mut jobs = Vec::new();
        for (pin, strength, rule) in kinds {
            let linked =
                (0..self.places[pin].len()).filter(|at| self.places[pin][*at].order == "linked");
            let places: Vec<Option<usize>> =
                if rule.by_place() { linked.map(Some).collect() } else { vec![None] };
            for place in places {
                jobs.extend((0..CORPORA.len()).map(|corpus| Job {
                    corpus,
                    pin,
                    strength,
                    rule,
                    place,
                }));
            }
        }
        jobs
    }
}

/// What a pass came to, as lines of csv.
fn pass(
    bench: &Bench,
    model: &Model,
    dense: &mut DenseFfn,
    windows: &[Windows],
    job: Job,
) -> Result<String> {
    let chooser = Chooser::for_layers_of(bench.neurons, bench.norms.len());
    let times_us = vec![0.0; bench.places[job.pin].len()];
    let decided = Decided {
        bench,
        job,
        steps: 0,
        active: 0,
        read: 0,
        lost: 0.0,
        choosing: Duration::ZERO,
        times_us,
        chooser,
    };
    let mut ffn = Choosing { dense, decided };
    let found = loss(model, &mut ffn, &windows[job.corpus], &mut |_| ())?;
    let ffn = ffn.decided;
    let tokens = windows[job.corpus].tokens() as f64;
    let (rule, setting) = job.rule.name();
    let strength = job.strength.name();
    let mut lines = String::new();
    for (place, us) in bench.places[job.pin].iter().zip(&ffn.times_us).filter(|(_, us)| **us > 0.0)
    {
        lines += &format!(
            "{},{},{tokens},{},{},{},\"{strength}\",{rule},{setting},{:.8},{},{:.4},{:.2},{:.2},{:.6},{:.1}\n",
            model.checkpoint().name(),
            CORPORA[job.corpus],
            place.order,
            place.stride,
            PINS[job.pin],
            found.nats,
            found.predicted,
            us / tokens,
            ffn.read as f64 / tokens,
            ffn.active as f64 / tokens,
            ffn.lost / ffn.steps as f64,
            ffn.choosing.as_secs_f64() * 1e6 / tokens,
        );
    }
    Ok(lines)
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [dir, work, threads, tokens, rule @ ..] = &arguments[..] else {
        anyhow::bail!("usage: budget MODEL WORK THREADS TOKENS [RULE]");
    };
    let (dir, threads, tokens) = (Path::new(dir), threads.parse::<usize>()?, tokens.parse()?);
    let model = Model::load(dir)?;
    let bench = Bench::load(&model, Path::new(work))?;
    let text = |corpus: &str| {
        let path = dir.join(format!("traces/{corpus}.test.safetensors"));
        let trace = TraceReader::open(&path)?;
        let mut ids = trace.token_ids()?.context("a trace without token ids")?;
        ids.truncate(tokens);
        Windows::new(&model, ids, trace.window())
    };
    let windows = CORPORA.into_iter().map(text).collect::<Result<Vec<_>>>()?;
    let mut jobs = bench.jobs();
    let wanted = |job: &Job| rule.iter().all(|rule| job.rule.name().0.contains(rule.as_str()));
    jobs.retain(|job| job.rule == Rule::All || wanted(job));
    let (next, done) = (AtomicUsize::new(0), Mutex::new(BTreeMap::new()));
    let work = || -> Result<()> {
        let model = Model::load(dir)?;
        let mut dense = DenseFfn::load(model.checkpoint(), model.config())?;
        while let Some(job) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
            let at = next.load(Ordering::Relaxed);
            let lines = pass(&bench, &model, &mut dense, &windows, *job)?;
            eprint!("{at} of {}: {lines}", jobs.len());
            let number = jobs.iter().position(|other| std::ptr::eq(other, job)).unwrap_or(0);
            done.lock().unwrap_or_else(|e| e.into_inner()).insert(number, lines);
        }
        Ok(())
    };
    std::thread::scope(|scope| -> Result<()> {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        for thread in threads {
            thread.join().map_err(|_| anyhow::anyhow!("a thread ended early"))??;
        }
        Ok(())
    })?;
    println!(
        "model,corpus,tokens,order,bundle_bytes,cache,strength,rule,setting,nats,predicted,us_per_token,read_per_token,active_per_token,lost_share,choosing_us_per_token"
    );
    done.lock().unwrap_or_else(|e| e.into_inner()).values().for_each(|lines| print!("{lines}"));
    Ok(())
}
