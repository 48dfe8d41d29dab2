//! What is said of a run when it is over.

use std::collections::BTreeMap;

use anyhow::Result;
use lnp_common::report::{bytes, print_json, say};
use lnp_device::peak_memory_bytes;
use lnp_engine::engine::LeftOut;
use lnp_engine::sys::BackEnd;
use lnp_engine::{Config, FetchStats};
use lnp_model::{Generated, Times};
use lnp_run::{Alone, MemoryPlan};

use super::Args;
use super::stream::{End, Told};

/// What memory went to.
pub(super) struct Memory {
    /// As it was told before anything was loaded.
    pub(super) plan: MemoryPlan,
    /// What was held, bytes: attention, embeddings, norms.
    pub(super) model: usize,
    /// What tells which neurons are active.
    pub(super) predictor: usize,
    /// Of the engine.
    pub(super) arena: usize,
    /// Of it, what reads go to; the rest is cache.
    pub(super) staging: usize,
    /// Keys and values.
    pub(super) state: usize,
}

impl Memory {
    fn in_words(&self) -> String {
        let of = |count: usize| bytes(count as f64);
        format!(
            "peak memory {} of {} told: {}; of the engine's, {} are staging",
            bytes(peak_memory_bytes() as f64),
            of(self.plan.total()),
            self.plan.in_words(),
            of(self.staging),
        )
    }

    fn json(&self) -> serde_json::Value {
        let mut told: BTreeMap<_, _> = self.plan.parts().into_iter().collect();
        told.insert("total", self.plan.total());
        serde_json::json!(told)
    }
}

/// What was made: of a dialogue, of all replies together.
#[derive(Default)]
pub(super) struct Made {
    /// Of the last text that the model was given.
    prompt_ids: Vec<u32>,
    tokens: Vec<u32>,
    /// Tokens that went through the model.
    fed: usize,
    /// Bytes of keys and values.
    pub(super) state_bytes: usize,
    text: String,
    end: Option<End>,
    /// Where the time of the tokens after each first one went.
    times: Times,
    /// From each prompt to its first token, all added up.
    prompt_s: f64,
    seconds: f64,
    /// When each token was there, seconds of those.
    tokens_at_s: Vec<f64>,
    replies: usize,
}

impl Made {
    /// Takes one more reply.
    pub(super) fn add(&mut self, prompt_ids: Vec<u32>, generated: Generated, told: Told) {
        self.prompt_ids = prompt_ids;
        self.tokens.extend(&generated.tokens);
        self.fed += generated.fed;
        self.state_bytes = generated.state_bytes;
        self.text += &told.text;
        self.end = Some(told.end);
        self.prompt_s += told.tokens_at_s.first().copied().unwrap_or(told.seconds);
        self.tokens_at_s.extend(told.tokens_at_s.iter().map(|at| at + self.seconds));
        self.seconds += told.seconds;
        self.times += generated.times;
        self.replies += 1;
    }
}

/// What came of a run.
pub(super) struct Summary<'a> {
    pub(super) args: &'a Args,
    pub(super) made: Made,
    pub(super) stats: FetchStats,
    pub(super) active_bundles: u64,
    /// The same of the tokens after a prompt, which share no reads.
    pub(super) generated: Alone,
    /// Of each layer, how many layers ahead it was read at last; empty where there was no reading ahead.
    pub(super) ahead: Vec<usize>,
    /// Where bundles may be left out.
    pub(super) left_out: Option<LeftOut>,
    /// Who tells which neurons are active.
    pub(super) told_active: String,
    /// Share of the active neurons that are told, by the profile that predictors were made from.
    pub(super) recall: f64,
    pub(super) predictor_bytes_share: f64,
    pub(super) kernels: String,
    pub(super) threads: usize,
    pub(super) loaded_s: f64,
    /// What was read.
    pub(super) strategy: &'static str,
    /// Whether attention, embeddings and head are the pack's.
    pub(super) resident: bool,
    /// Whether the weights are made up.
    pub(super) synthetic: bool,
    pub(super) memory: Memory,
}

impl Summary<'_> {
    /// Tokens that went through the model.
    fn fed(&self) -> f64 {
        self.made.fed.max(1) as f64
    }

    /// Of the tokens after the first; none where there are none.
    fn tokens_per_s(&self) -> Option<f64> {
        let Made { tokens, replies, seconds, prompt_s, .. } = &self.made;
        let after_first = tokens.len().checked_sub(*replies).filter(|count| *count > 0)?;
        Some(after_first as f64 / (seconds - prompt_s).max(1e-9))
    }

    /// Microseconds of a token after the first, by what they went to and in all; none where there are none.
    fn us_per_token(&self) -> Option<Vec<(&'static str, f64)>> {
        let whole = 1e6 / self.tokens_per_s()?;
        let count = (self.made.tokens.len() - self.made.replies) as f64;
        let parts =
            self.made.times.parts().map(|(name, part)| (name, part.as_secs_f64() * 1e6 / count));
        let told: f64 = parts.iter().map(|(_, us)| us).sum();
        Some(parts.into_iter().chain([("rest", whole - told), ("total", whole)]).collect())
    }

    /// The same in words.
    fn told_times(&self) -> String {
        let Some(parts) = self.us_per_token() else { return String::new() };
        let told = parts.iter().filter(|(name, us)| *name != "total" && *us >= 0.5);
        let told: Vec<String> = told.map(|(name, us)| format!("{name} {us:.0}")).collect();
        format!("; us per token: {}", told.join(", "))
    }

    /// Bundles fetched for each whose coefficient was not 0.
    fn reads_per_active(&self) -> f64 {
        let useful = self.stats.active - self.stats.in_vain;
        self.stats.active as f64 / useful.max(1) as f64
    }

    fn per_token(&self, count: u64) -> f64 {
        count as f64 / self.fed()
    }

    /// What was read ahead, where anything was.
    fn told_ahead(&self) -> String {
        let layers = self.ahead.iter().filter(|horizon| **horizon > 0).count();
        if self.stats.ahead_reads == 0 {
            return String::new();
        }
        format!(
            "; {layers} of {} layers read ahead, {:.1} reads per token",
            self.ahead.len(),
            self.per_token(self.stats.ahead_reads)
        )
    }

    /// What was left out, where anything may be.
    fn told_left_out(&self) -> String {
        let Some(left_out) = self.left_out.filter(|left_out| left_out.sets > 0) else {
            return String::new();
        };
        format!(
            "; left out {:.1} bundles of a layer and token, {:.2} % of the squared strength as estimated",
            left_out.bundles as f64 / left_out.sets as f64,
            100.0 * left_out.lost_share(),
        )
    }

    /// What tokens after the prompt took, each; none where none went through the model.
    fn generated(&self) -> Option<serde_json::Value> {
        let Alone { tokens, active_bundles, stats } = &self.generated;
        let per_token = |count: u64| count as f64 / *tokens as f64;
        (*tokens > 0).then(|| {
            serde_json::json!({
                "tokens": tokens,
                "active_bundles_per_token": per_token(*active_bundles),
                "reads_per_token": per_token(stats.reads + stats.ahead_reads),
                "bytes_read_per_token": per_token(stats.bytes_read + stats.ahead_bytes),
                "useful_bytes_per_token": per_token(stats.useful_bytes),
                "ahead_reads_per_token": per_token(stats.ahead_reads),
                "ahead_bytes_per_token": per_token(stats.ahead_bytes),
                "ahead_used_bundles_per_token": per_token(stats.prefetched),
                "hit_rate": stats.hits as f64 / stats.active.max(1) as f64,
                "io_us_per_token": per_token(stats.io_ns) / 1e3,
            })
        })
    }

    fn hit_rate(&self) -> f64 {
        self.stats.hits as f64 / self.stats.active.max(1) as f64
    }

    pub(super) fn print(&self) {
        let count = self.made.tokens.len();
        let end = match self.made.end.unwrap_or(End::Length) {
            End::Eos => ", the last of them end of text",
            End::Stop => ", up to a --stop",
            End::Length => "",
        };
        let rate =
            self.tokens_per_s().map_or(String::new(), |rate| format!("{rate:.1} tokens/s, "));
        say(&format!(
            "{rate}{count} tokens{end} after a prompt of {}; per token {:.0} active bundles, {:.1} \
             reads, {}, I/O {:.0} us; {:.1} % hits; kernels {} on {} {}; active sets {}, {:.3} \
             fetched for each that was active{}{}{}; {}\n",
            self.made.prompt_ids.len(),
            self.active_bundles as f64 / self.fed(),
            self.per_token(self.stats.reads + self.stats.ahead_reads),
            bytes(self.per_token(self.stats.bytes_read + self.stats.ahead_bytes)),
            self.stats.io_ns as f64 / 1e3 / self.fed(),
            100.0 * self.hit_rate(),
            self.kernels,
            self.threads,
            if self.threads == 1 { "thread" } else { "threads" },
            self.told_active,
            self.reads_per_active(),
            self.told_ahead(),
            self.told_left_out(),
            self.told_times(),
            self.memory.in_words(),
        ));
    }

    pub(super) fn print_json(&self, engine: &serde_json::Value) -> Result<()> {
        print_json(&serde_json::json!({
            "prompt_ids": self.made.prompt_ids, "token_ids": self.made.tokens, "text": self.made.text,
            "finish_reason": self.made.end.unwrap_or(End::Length).name(),
            "pack": self.args.pack, "model": self.args.model.path, "synthetic": self.synthetic,
            "load_s": self.loaded_s, "prompt_s": self.made.prompt_s, "total_s": self.made.seconds,
            "tokens_per_s": self.tokens_per_s(), "tokens_at_s": self.made.tokens_at_s,
            "us_per_token": self.us_per_token().map(|parts| parts.into_iter().collect::<BTreeMap<_, _>>()),
            "active_bundles_per_token": self.active_bundles as f64 / self.fed(),
            "reads_per_token": self.per_token(self.stats.reads + self.stats.ahead_reads),
            "bytes_read_per_token": self.per_token(self.stats.bytes_read + self.stats.ahead_bytes),
            "generated": self.generated(),
            "ahead": {
                "layers": self.ahead,
                "reads_per_token": self.per_token(self.stats.ahead_reads),
                "bytes_read_per_token": self.per_token(self.stats.ahead_bytes),
                "used_bundles_per_token": self.per_token(self.stats.prefetched),
            },
            "left_out": self.left_out.map(|left_out| serde_json::json!({
                "share": self.args.leave_out, "lost_share": left_out.lost_share(),
                "bundles_per_set": left_out.bundles as f64 / left_out.sets.max(1) as f64,
            })),
            "useful_bytes_per_token": self.stats.useful_bytes as f64 / self.fed(),
            "io_us_per_token": { "mean": self.stats.io_ns as f64 / 1e3 / self.fed() },
            "reads_per_active": self.reads_per_active(), "recall": self.recall,
            "predictor_bytes_share": self.predictor_bytes_share,
            "hit_rate": self.hit_rate(), "threads": self.threads, "dense_dtype": self.args.dense.name(),
            "peak_memory_bytes": peak_memory_bytes(), "memory_told_bytes": self.memory.json(),
            "memory_limit_bytes": self.args.memory.map(|limit| limit.0),
            "strategy": self.strategy, "resident": self.resident, "kv_dtype": self.args.kv_dtype.name(),
            "engine": engine,
        }))
    }
}

pub(super) fn engine_facts(
    config: &Config,
    kernel_tier: &str,
    back_end: &BackEnd,
    (memory, told_active): (&Memory, &str),
) -> serde_json::Value {
    serde_json::json!({
        "back_end": back_end.name(), "reads_through": back_end.to_string(), "kernel_tier": kernel_tier,
        "collapse": config.collapse.name(), "cache_bundles": config.cache_bundles,
        "staging_bytes": config.staging_bytes, "queue_depth": config.queue_depth,
        "active_set": told_active,
        "predictor_resident_bytes": memory.predictor, "model_resident_bytes": memory.model,
        "arena_bytes": memory.arena, "attention_state_bytes": memory.state,
    })
}
