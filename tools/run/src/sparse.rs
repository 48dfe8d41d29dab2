//! The FFN of a model, joined to the engine that reads its bundles.

use std::time::{Duration, Instant};

use anyhow::Result;
use lnp_engine::FetchStats;
use lnp_engine::engine::{Session, Workers};
use lnp_engine::ffn::Ffn;
use lnp_engine::queue::TimedQueue;
use lnp_engine::recorder::Recorder;
use lnp_model::{FeedForward, Times};

use crate::ahead::ReadAhead;
use crate::leaving::Leaving;
use crate::predict::{Needed, Predict};
use lnp_device::timeline::Timeline;

/// What was fetched for tokens that came one by one, as those do that are generated.
#[derive(Debug, Clone, Copy, Default)]
pub struct Alone {
    /// How many came.
    pub tokens: u64,
    /// The sum of the sizes of the sets that were asked for.
    pub active_bundles: u64,
    /// What was fetched.
    pub stats: FetchStats,
}

/// The FFN of a model, sparse, from a pack: asks which neurons are active, fetches their bundles and computes from
/// them, all in one session.
pub struct SparseFfn<'e, 's, 'a, Q: TimedQueue<'a>> {
    session: &'e mut Session<'s, 'a, Q>,
    ffn: Ffn<'e>,
    predictor: &'e dyn Predict,
    workers: &'e dyn Workers,
    needed: Needed,
    /// The layer whose first tokens are being read already.
    begun: Option<usize>,
    ahead: Option<ReadAhead>,
    leaving: Option<Leaving<'e>>,
    recorder: Option<Recorder<'e>>,
    timeline: Option<Timeline>,
    stats: FetchStats,
    active_bundles: u64,
    alone: Alone,
    /// What telling the active sets took.
    prediction: Duration,
}

impl<'e, 's, 'a, Q: TimedQueue<'a> + Send> SparseFfn<'e, 's, 'a, Q> {
    /// Joins engine, kernels and predictor; `workers` compute while this thread reads.
    pub fn new(
        session: &'e mut Session<'s, 'a, Q>,
        ffn: Ffn<'e>,
        predictor: &'e dyn Predict,
        workers: &'e dyn Workers,
    ) -> Self {
        let stats = FetchStats::default();
        Self {
            session,
            ffn,
            predictor,
            workers,
            needed: Needed::default(),
            begun: None,
            ahead: None,
            leaving: None,
            recorder: None,
            timeline: None,
            stats,
            active_bundles: 0,
            alone: Alone::default(),
            prediction: Duration::ZERO,
        }
    }

    /// The same, reading layers ahead.
    pub fn reading_ahead(self, ahead: ReadAhead) -> Self {
        Self { ahead: Some(ahead), ..self }
    }

    /// The same, leaving out what is not worth its device time.
    pub fn leaving_out(self, leaving: Leaving<'e>) -> Self {
        Self { leaving: Some(leaving), ..self }
    }

    /// The same, recording which neurons are active.
    pub fn recording(self, recorder: Option<Recorder<'e>>) -> Self {
        Self { recorder, ..self }
    }

    /// What was recorded so far, where anything is.
    pub fn recorder(&self) -> Option<&Recorder<'e>> {
        self.recorder.as_ref()
    }

    /// The same, recording the first passes: a prompt is one, and each token after it.
    pub fn timed(self, passes: Option<usize>) -> Self {
        let timeline = passes.map(|passes| {
            Timeline::new("lnp run", Some("attention"), passes, self.session.engine())
        });
        Self { timeline, ..self }
    }

    /// What was recorded, where that was asked for; recording is over then.
    pub fn timeline(&mut self) -> Option<Timeline> {
        let mut timeline = self.timeline.take()?;
        timeline.ends(self.session.read_log());
        Some(timeline)
    }

    /// What is left out, where anything is.
    pub fn leaving(&self) -> Option<&Leaving<'e>> {
        self.leaving.as_ref()
    }

    /// How layers are read ahead, where they are.
    pub fn ahead(&self) -> Option<&ReadAhead> {
        self.ahead.as_ref()
    }

    /// What was fetched so far; what several tokens of a prompt have in common counts once.
    pub fn stats(&self) -> &FetchStats {
        &self.stats
    }

    /// Of these, what was fetched for tokens that came one by one.
    pub fn alone(&self) -> &Alone {
        &self.alone
    }

    /// The sum of the sizes of all sets that were asked for so far.
    pub fn active_bundles(&self) -> u64 {
        self.active_bundles
    }
}

impl<'a, Q: TimedQueue<'a> + Send> FeedForward for SparseFfn<'_, '_, 'a, Q> {
    fn begin(&mut self, layer: usize, x: &[f32]) -> Result<()> {
        self.note_begin(layer);
        let begin = Instant::now();
        self.predictor.active(layer, x, &mut self.needed)?;
        self.prediction += begin.elapsed();
        if let Some(recorder) = &mut self.recorder {
            recorder.take(layer as u32, &self.needed.sets)?;
        }
        mark(&mut self.timeline, self.session, "predict");
        if let Some(leaving) = &mut self.leaving {
            leaving.shorten(self.session, layer, &mut self.needed)?;
        }
        let sets = &self.needed.sets;
        self.active_bundles += sets.iter().map(|active| active.len() as u64).sum::<u64>();
        let first = sets.len().min(self.ffn.tokens_max());
        // Tokens of a prompt share their reads; those that are generated come one by one.
        let mut ahead = self.ahead.as_mut().filter(|_| sets.len() == 1);
        if let Some(ahead) = &mut ahead {
            ahead.begins(self.session, self.predictor, layer, sets.first());
        }
        begin_batch(&mut self.ffn, self.session, layer, &sets[..first])?;
        self.begun = Some(layer);
        mark(&mut self.timeline, self.session, "plan and submit");
        if let Some(timeline) = &mut self.timeline {
            timeline.asked(self.session.engine(), layer as u32, ids(&sets[..first]));
        }
        if let Some(ahead) = ahead {
            ahead.begun(self.session, self.predictor, layer, x)?;
            mark(&mut self.timeline, self.session, "predict later layers");
        }
        Ok(())
    }

    fn forward(&mut self, layer: usize, x: &[f32], y: &mut [f32]) -> Result<()> {
        if self.begun.take() != Some(layer) {
            self.begin(layer, x)?;
            self.begun = None;
        } else {
            mark(&mut self.timeline, self.session, "attention beside");
        }
        let Needed { sets, cutoffs, .. } = &self.needed;
        let hidden = x.len() / sets.len().max(1);
        let tokens = self.ffn.tokens_max();
        let batches = x.chunks(tokens * hidden).zip(y.chunks_mut(tokens * hidden));
        for (number, ((x, y), active)) in batches.zip(sets.chunks(tokens)).enumerate() {
            if number > 0 {
                begin_batch(&mut self.ffn, self.session, layer, active)?;
                mark(&mut self.timeline, self.session, "plan and submit");
                if let Some(timeline) = &mut self.timeline {
                    timeline.asked(self.session.engine(), layer as u32, ids(active));
                }
            }
            if let Some(cutoffs) = cutoffs.chunks(tokens).nth(number) {
                self.ffn.cut(cutoffs)?;
            }
            let stats = self.ffn.finish(self.session, self.workers, layer as u32, x, y)?;
            self.stats.add(&stats);
            if let [active] = &sets[..] {
                self.alone.tokens += u64::from(layer == 0);
                self.alone.active_bundles += active.len() as u64;
                self.alone.stats.add(&stats);
            }
            mark(&mut self.timeline, self.session, "read and compute");
            if let (Some(ahead), 1) = (&mut self.ahead, sets.len()) {
                ahead.finished(self.session, layer, &stats)?;
                mark(&mut self.timeline, self.session, "submit later layers");
            }
            if let Some(timeline) = &mut self.timeline {
                timeline.fetched(&stats, self.session.read_log());
            }
        }
        if let Some(timeline) = &mut self.timeline {
            timeline.layer_ends(self.session.engine().queue().now_ns());
        }
        Ok(())
    }

    fn go_on(&mut self) -> Result<()> {
        if let Some(ahead) = &mut self.ahead {
            ahead.goes_on();
        }
        self.session.go_on();
        Ok(())
    }

    fn times(&self) -> Times {
        let waiting = Duration::from_nanos(self.stats.wait_ns);
        Times { prediction: self.prediction, waiting, ..Times::default() }
    }
}

impl<'a, Q: TimedQueue<'a> + Send> SparseFfn<'_, '_, 'a, Q> {
    /// Notes that a layer begins, and with the first one a token, or a prompt.
    fn note_begin(&mut self, layer: usize) {
        let Some(timeline) = &mut self.timeline else { return };
        let now_ns = self.session.engine().queue().now_ns();
        if layer == 0 {
            timeline.pass_begins(now_ns, self.session.read_log());
        }
        timeline.layer_begins(layer as u32, now_ns);
    }
}

/// Notes what was done since the mark before, where anything is recorded.
fn mark<'a, Q: TimedQueue<'a>>(
    timeline: &mut Option<Timeline>,
    session: &Session<'_, 'a, Q>,
    name: &str,
) {
    if let Some(timeline) = timeline {
        timeline.mark(name, session.engine().queue().now_ns());
    }
}

fn ids(sets: &[Vec<u32>]) -> impl Iterator<Item = &[u32]> {
    sets.iter().map(Vec::as_slice)
}

/// Begins a layer for a batch.
fn begin_batch<'a, Q: TimedQueue<'a>>(
    ffn: &mut Ffn<'_>,
    session: &mut Session<'_, 'a, Q>,
    layer: usize,
    active: &[Vec<u32>],
) -> Result<()> {
    let layer = layer as u32;
    // A single token, which comes most often, needs no list.
    match active {
        [active] => ffn.begin(session, layer, &[active])?,
        _ => {
            let active: Vec<&[u32]> = active.iter().map(Vec::as_slice).collect();
            ffn.begin(session, layer, &active)?;
        }
    }
    Ok(())
}
