//! A timeline in the trace event format of Chrome, which Perfetto reads too.

use serde_json::{Value, json};

use super::{ReadSpan, Span, Timeline};

/// The thread that computes; reads follow, each place in the queue a thread of its own.
const COMPUTING: usize = 1;
const FIRST_LANE: usize = 2;

/// Timelines as one JSON object, each a process of its own that begins at 0.
pub fn trace_events(timelines: &[Timeline]) -> Value {
    let mut events = Vec::new();
    for (number, timeline) in timelines.iter().enumerate() {
        timeline.events(number + 1, &mut events);
    }
    json!({
        "displayTimeUnit": "ns",
        "otherData": { "made_by": "lnp", "read_lanes": "places in the queue, of no meaning beyond that" },
        "traceEvents": events,
    })
}

impl Timeline {
    fn events(&self, pid: usize, events: &mut Vec<Value>) {
        let spans = self.spans.iter().map(|span| span.begin_ns);
        let reads = self.reads.iter().map(|read| read.note.submitted_ns);
        let origin_ns = spans.chain(reads).min().unwrap_or(0);
        events.push(named(pid, 0, "process_name", &self.name));
        events.push(named(pid, COMPUTING, "thread_name", "computing"));
        let mut lanes: Vec<u64> = Vec::new();
        let mut reads: Vec<&ReadSpan> = self.reads.iter().collect();
        reads.sort_by_key(|read| read.note.submitted_ns);
        let mut of_reads = Vec::new();
        for read in reads {
            let free = lanes.iter().position(|end_ns| *end_ns <= read.note.submitted_ns);
            let lane = free.unwrap_or(lanes.len());
            if lane == lanes.len() {
                lanes.push(0);
                let name = format!("reads {}", lane + 1);
                events.push(named(pid, FIRST_LANE + lane, "thread_name", &name));
            }
            lanes[lane] = read.note.arrived_ns;
            of_reads.push(self.read_event(read, pid, FIRST_LANE + lane, origin_ns));
        }
        events.extend(self.spans.iter().map(|span| span_event(span, pid, origin_ns)));
        events.extend(of_reads);
    }

    fn read_event(&self, read: &ReadSpan, pid: usize, tid: usize, origin_ns: u64) -> Value {
        let note = &read.note;
        let used = u64::from(read.bundles) * self.stride;
        let (begin_ns, end_ns) = (note.submitted_ns, note.arrived_ns);
        let ahead = if note.is_ahead() { ", ahead" } else { "" };
        let args = json!({
            "layer": read.layer, "offset": note.file_offset, "bytes": note.bytes,
            "gap_bytes": u64::from(note.bytes).saturating_sub(used), "bundles": read.bundles,
            "read_ahead": note.is_ahead(),
        });
        let name = format!("layer {}{ahead}", read.layer);
        complete(&name, "read", (pid, tid), (begin_ns, end_ns, origin_ns), &args)
    }
}

fn span_event(span: &Span, pid: usize, origin_ns: u64) -> Value {
    let args = span.layer.as_ref().map_or(json!({}), |(layer, stats)| {
        json!({
            "layer": layer, "active": stats.active, "cached": stats.hits, "read_ahead": stats.prefetched,
            "reads": stats.reads, "bytes": stats.bytes_read, "ahead_reads": stats.ahead_reads,
            "ahead_bytes": stats.ahead_bytes, "useful_bytes": stats.useful_bytes,
            "wait_us": us(stats.wait_ns), "io_us": us(stats.io_ns),
        })
    });
    let times = (span.begin_ns, span.end_ns, origin_ns);
    complete(&span.name, "computing", (pid, COMPUTING), times, &args)
}

fn complete(
    name: &str,
    category: &str,
    (pid, tid): (usize, usize),
    (begin_ns, end_ns, origin_ns): (u64, u64, u64),
    args: &Value,
) -> Value {
    json!({
        "name": name, "cat": category, "ph": "X", "pid": pid, "tid": tid, "ts": us(begin_ns - origin_ns),
        "dur": us(end_ns.saturating_sub(begin_ns)), "args": args,
    })
}

fn named(pid: usize, tid: usize, what: &str, name: &str) -> Value {
    json!({ "name": what, "ph": "M", "pid": pid, "tid": tid, "args": { "name": name } })
}

fn us(ns: u64) -> f64 {
    ns as f64 / 1e3
}
