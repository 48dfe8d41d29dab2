//! What a replay prints: tables, or JSON.

use anyhow::{Result, ensure};
use lnp_common::report::{plain, print, print_json};
use lnp_device::{LawText, Machine};
use lnp_engine::DeviceLaw;
use lnp_engine::sys::DirectFile;
use lnp_link::trace::TraceReader;
use lnp_measure::replay::{
    Replayed,
    lookahead::{self, AheadRow},
    overlap::{self, OverlapRow},
    table,
};

use super::turns::Turns;
use super::{Args, caches};

/// What came of it, and of what.
pub(super) struct Report<'a> {
    pub(super) args: &'a Args,
    pub(super) trace: &'a TraceReader,
    pub(super) replayed: &'a Replayed,
    pub(super) overlapped: &'a [OverlapRow],
    pub(super) ahead: &'a [AheadRow],
    pub(super) law: &'a DeviceLaw,
    pub(super) law_source: &'a str,
    pub(super) turns: &'a Turns,
    pub(super) file: Option<&'a DirectFile>,
}

impl Report<'_> {
    pub(super) fn print(&self) -> Result<()> {
        ensure!(!self.replayed.rows.is_empty(), "nothing was replayed");
        if self.args.json {
            print_json(&self.json()?)
        } else {
            print(&(self.head() + &self.tables()))
        }
    }

    fn json(&self) -> Result<serde_json::Value> {
        let Self { args, trace, law, file, .. } = self;
        Ok(serde_json::json!({
            "machine": Machine::here(),
            "device": {
                "law": LawText::from(*law), "law_source": self.law_source, "gap_bytes": law.gap_bytes(),
                "simulated": args.simulate, "queue_depth": args.queue_depth,
                "turn_s": self.turns.seconds().map(|turn| turn.as_secs_f64()),
                "turns": if args.simulate { None } else { Some(self.turns.json()) },
                "direct": file.map(DirectFile::is_direct),
                "calibrated_law": self.replayed.calibrated_law.as_ref().map(LawText::from),
                "align_bytes": file.map(DirectFile::align),
                "cache_state": if args.warm {
                    "cold at the start of each repeat; rows with `warm`: replayed again after that"
                } else {
                    "cold at the start of each repeat"
                },
            },
            "trace": {
                "file": args.traces, "sha256": trace.sha256_hex()?, "model": trace.model(),
                "corpus": trace.corpus(), "split": trace.split(), "tokens": trace.tokens(),
                "window": trace.window(), "layers": trace.layers(), "neurons": trace.neurons(),
                "synthetic": trace.is_synthetic(),
                "predictors_sha256": trace.predictors().map(|(sha256, _)| sha256),
                "quality": trace.predictors().map(|(_, quality)| quality),
            },
            "rows": self.replayed.rows,
            "overlap": self.overlapped,
            "ahead": self.ahead,
        }))
    }

    fn head(&self) -> String {
        let rows = &self.replayed.rows;
        let device = match (self.args.simulate, self.file.map(DirectFile::is_direct)) {
            (true, _) => "SIMULATED device",
            (_, Some(true)) => "direct reads",
            _ => "BUFFERED reads (page cache!)",
        };
        let turns = self.turns.seconds();
        let turns =
            turns.map_or(String::new(), |turn| format!(", turns of {} s", turn.as_secs_f64()));
        let placeholder = rows.iter().any(|row| row.dtype == "placeholder");
        format!(
            "{} of {}, {} tokens{turns}; {device}, queue depth {}, {}\nlaw: {} ({}){}\n\n",
            plain(self.trace.corpus().unwrap_or("unknown corpus")),
            plain(self.trace.model().unwrap_or("unknown model")),
            rows.iter().map(|row| row.tokens).max().unwrap_or(0),
            self.args.queue_depth,
            told_of_caches(self.args),
            told_of_law(self.law),
            self.law_source,
            if placeholder {
                "\nplaceholder bundles: sizes and active sets count, not weights"
            } else {
                ""
            },
        )
    }

    fn tables(&self) -> String {
        let rows = &self.replayed.rows;
        let mut out = table::render(rows) + table::BOUND_NOTE + &table::predicted(rows);
        out += &table::sustained(rows);
        let calibrated = table::calibrated(rows);
        if let Some(law) = self.replayed.calibrated_law.as_ref().filter(|_| !calibrated.is_empty())
        {
            out += "\nthe law that the device obeyed meanwhile: ";
            out += &(told_of_law(law) + "\n" + &calibrated);
        }
        if !self.overlapped.is_empty() {
            out += "\nreading and computing at the same time, per token:\n";
            out += &overlap::render(self.overlapped);
        }
        if let (false, Some(us)) = (self.ahead.is_empty(), self.args.compute_us) {
            out += &format!("\nreading layers ahead, {us} us computed before each, per token:\n");
            out += &lookahead::render(self.ahead);
        }
        out
    }
}

fn told_of_law(law: &DeviceLaw) -> String {
    let text = LawText::from(law);
    format!(
        "t0 {:.0} us, a {:.2} us, B {:.0} MiB/s, {}",
        text.t0_us,
        text.a_us,
        text.b_mib_s,
        law.combine().name()
    )
}

/// What is cached and how, for the line above the table.
fn told_of_caches(args: &Args) -> String {
    let caches = caches(args);
    let policies: Vec<&str> = caches.policies.iter().map(|policy| policy.name()).collect();
    let percent = |ratio: &f64| format!("{}", (ratio * 1e8).round() / 1e6);
    let percents: Vec<String> = caches.ratios.iter().map(percent).collect();
    let state = if args.warm { "cold and warm" } else { "cold" };
    format!("cache {} {} % {state} at start", policies.join(", "), percents.join("/"))
}
