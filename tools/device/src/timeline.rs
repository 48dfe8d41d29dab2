//! What some tokens are made of, moment by moment: every read with its submission and its arrival, and what was done
//! meanwhile; as trace events for Perfetto or chrome://tracing ([`trace_events`]).
//!
//! The engine tells of each read when and where ([`lnp_engine::queue::ReadLog`]); which layer that is, and how much of it
//! somebody asked for, is found out here, while the layer's sets are at hand.

mod events;

use lnp_engine::engine::Whereabouts;
use lnp_engine::queue::{ReadLog, ReadNote, TimedQueue};
use lnp_engine::{Engine, FetchStats};

pub use events::trace_events;

/// Tokens that are shown where nothing else is said.
pub const TIMELINE_TOKENS_USUAL: usize = 8;
/// Reads that are noted between two layers' ends: more than the largest layers known have neurons.
const NOTES: usize = 1 << 16;

/// Memory for the reads that the engine notes.
pub fn notes() -> Vec<ReadNote> {
    vec![ReadNote::default(); NOTES]
}

/// A read, settled once the layer that it was for has been computed.
#[derive(Debug, Clone, Copy)]
struct ReadSpan {
    note: ReadNote,
    layer: u32,
    /// Bundles in it that were active, and came from it.
    bundles: u32,
    settled: bool,
}

/// Something that took its time on the computing thread.
#[derive(Debug, Clone)]
struct Span {
    name: String,
    begin_ns: u64,
    end_ns: u64,
    /// Of a layer.
    layer: Option<(u32, FetchStats)>,
}

/// Where the bundles of a placement of a layer lie.
#[derive(Debug, Clone, Copy)]
struct Region {
    begin: u64,
    layer: u32,
}

/// A timeline as it is recorded: of the first passes through all layers. A prompt is one pass, whose tokens share their
/// reads; each token after it is one.
#[derive(Debug)]
pub struct Timeline {
    name: String,
    /// What is done between two layers, where that is known.
    between: Option<&'static str>,
    passes_max: usize,
    passes: usize,
    stride: u64,
    regions: Vec<Region>,
    spans: Vec<Span>,
    reads: Vec<ReadSpan>,
    /// First bytes of the bundles that are asked for: those that are read now, and those that were read ahead.
    asked: [Vec<u64>; 2],
    /// When the pass began, and its tokens, as far as the first layer was asked for.
    pass_ns: u64,
    pass_tokens: usize,
    /// Its layers that are over.
    layers: usize,
    /// The layer under way, when it began, and what was fetched of it by now.
    layer: (u32, u64, FetchStats),
    mark_ns: u64,
    lost: u64,
}

impl Timeline {
    /// A timeline called `name` of the first `passes` passes through the engine's pack.
    pub fn new<'a, Q: TimedQueue<'a>>(
        name: impl Into<String>,
        between: Option<&'static str>,
        passes: usize,
        engine: &Engine<'a, Q>,
    ) -> Self {
        let pack = engine.pack();
        let placed = |layer| (0..pack.placements()).map(move |placement| (layer, placement));
        let of = |(layer, placement)| {
            Some(Region { begin: pack.placement(layer, placement)?.region_offset(), layer })
        };
        let mut regions: Vec<Region> =
            (0..pack.shape().layers).flat_map(placed).filter_map(of).collect();
        regions.sort_by_key(|region| region.begin);
        Self {
            name: name.into(),
            between,
            passes_max: passes,
            passes: 0,
            stride: pack.shape().bundle_stride.into(),
            regions,
            spans: Vec::new(),
            reads: Vec::new(),
            asked: [Vec::new(), Vec::new()],
            pass_ns: 0,
            pass_tokens: 0,
            layers: 0,
            layer: (0, 0, FetchStats::default()),
            mark_ns: 0,
            lost: 0,
        }
    }

    /// Whether what happens now is recorded.
    fn is_on(&self) -> bool {
        self.passes <= self.passes_max
    }

    /// Told when a pass begins, before its first layer does.
    pub fn pass_begins(&mut self, now_ns: u64, log: Option<&mut ReadLog<'_>>) {
        self.pass_ends();
        self.passes += 1;
        (self.pass_ns, self.mark_ns) = (now_ns, now_ns);
        (self.pass_tokens, self.layers) = (0, 0);
        // What was read ahead and not asked for by now never will be.
        self.reads.iter_mut().for_each(|read| read.settled = true);
        if let Some(log) = log {
            log.switch(self.is_on());
            self.take(log);
        }
    }

    /// Told when a layer begins.
    pub fn layer_begins(&mut self, layer: u32, now_ns: u64) {
        if let Some(name) = self.between {
            self.mark(name, now_ns);
        }
        self.layer = (layer, now_ns, FetchStats::default());
        self.mark_ns = now_ns;
    }

    /// Told when a part of a layer's work is over: it lasted from the mark before until now.
    pub fn mark(&mut self, name: &str, now_ns: u64) {
        if self.is_on() && now_ns > self.mark_ns {
            self.span(name.into(), self.mark_ns, now_ns, None);
        }
        self.mark_ns = now_ns;
    }

    /// Told when a layer was begun: which sets were asked for.
    pub fn asked<'s, 'a, Q: TimedQueue<'a>>(
        &mut self,
        engine: &Engine<'a, Q>,
        layer: u32,
        sets: impl IntoIterator<Item = &'s [u32]>,
    ) {
        if !self.is_on() {
            return;
        }
        let mut ids = Vec::new();
        for set in sets {
            self.pass_tokens += usize::from(self.layers == 0);
            ids.extend_from_slice(set);
        }
        ids.sort_unstable();
        ids.dedup();
        let (pack, stride) = (engine.pack(), self.stride);
        for id in ids {
            let ahead = match engine.whereabouts(layer, id) {
                Whereabouts::Cached => continue,
                Whereabouts::Device => 0,
                Whereabouts::Prefetched => 1,
            };
            // Only one of its slots is read: no read is found for the others.
            let views = (0..pack.placements()).filter_map(|at| pack.placement(layer, at));
            let offsets = views.flat_map(|view| {
                let offset_of = move |slot| view.region_offset() + u64::from(slot) * stride;
                view.slots_of(id).map(offset_of)
            });
            self.asked[ahead].extend(offsets);
        }
        // What this took is of recording, not of what is recorded.
        self.mark_ns = engine.queue().now_ns();
    }

    /// Told when what was asked for is computed, of all tokens or of a part of them.
    pub fn fetched(&mut self, stats: &FetchStats, log: Option<&mut ReadLog<'_>>) {
        let (layer, _, sum) = &mut self.layer;
        let layer = *layer;
        sum.add(stats);
        if !self.is_on() {
            return;
        }
        if let Some(log) = log {
            self.take(log);
        }
        self.asked.iter_mut().for_each(|offsets| offsets.sort_unstable());
        let (asked, stride, begin_ns) = (&self.asked, self.stride, self.pass_ns);
        for read in self.reads.iter_mut().rev().filter(|read| read.layer == layer && !read.settled)
        {
            let note = &read.note;
            // What an earlier pass gave up came later.
            if note.submitted_ns >= begin_ns {
                let offsets = &asked[usize::from(note.is_ahead())];
                let end = note.file_offset + u64::from(note.bytes);
                let first = offsets.partition_point(|offset| *offset < note.file_offset);
                let last = offsets.partition_point(|offset| *offset + stride <= end);
                read.bundles += last.saturating_sub(first) as u32;
            }
            read.settled = true;
        }
        self.asked.iter_mut().for_each(Vec::clear);
    }

    /// Told when a layer is computed.
    pub fn layer_ends(&mut self, now_ns: u64) {
        self.mark_ns = now_ns;
        self.layers += 1;
        let (layer, begin_ns, stats) = self.layer;
        if self.is_on() {
            self.span(format!("layer {layer}"), begin_ns, now_ns, Some((layer, stats)));
        }
    }

    /// Told when all is over.
    pub fn ends(&mut self, log: Option<&mut ReadLog<'_>>) {
        self.pass_ends();
        if let Some(log) = log {
            log.switch(false);
            self.take(log);
            self.lost = log.lost();
        }
        self.passes = self.passes.max(self.passes_max + 1);
    }

    /// Reads that there was no room to note; 0 but for packs larger than any that is known.
    pub const fn lost(&self) -> u64 {
        self.lost
    }

    fn pass_ends(&mut self) {
        if self.passes > 0 && self.is_on() {
            let name = match self.pass_tokens {
                0 | 1 => format!("token {}", self.passes),
                tokens => format!("prompt, {tokens} tokens"),
            };
            self.span(name, self.pass_ns, self.mark_ns, None);
        }
    }

    fn span(&mut self, name: String, begin_ns: u64, end_ns: u64, layer: Option<(u32, FetchStats)>) {
        self.spans.push(Span { name, begin_ns, end_ns, layer });
    }

    /// Takes over what has arrived.
    fn take(&mut self, log: &mut ReadLog<'_>) {
        let (regions, reads) = (&self.regions, &mut self.reads);
        log.take(|note| {
            let at = regions.partition_point(|region| region.begin <= note.file_offset);
            let layer = at.checked_sub(1).map_or(0, |at| regions[at].layer);
            reads.push(ReadSpan { note: *note, layer, bundles: 0, settled: false });
        });
    }
}
