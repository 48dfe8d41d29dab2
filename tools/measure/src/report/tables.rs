//! The tables of a page.

use std::collections::{BTreeMap, BTreeSet};

use lnp_common::report::{bytes, thousands};

use super::page::{Table, css, heads};
use super::{PackFacts, Report, charts};
use crate::colours;
use crate::replay::Row;
use crate::replay::table::{base_of, name_of, speedup};

/// An operating point of all layers' predictors of a horizon: means.
#[derive(Debug, Clone, Copy)]
pub(super) struct FrontierPoint {
    pub(super) recall: f64,
    pub(super) reads_per_active: f64,
}

pub(super) fn horizon_name(horizon: u32) -> String {
    match horizon {
        0 => "of the layer itself".into(),
        1 => "a layer ahead".into(),
        layers => format!("{layers} layers ahead"),
    }
}

impl PackFacts {
    pub(super) fn facts(&self) -> Table {
        let pack = &self.description;
        let shape = &pack.shape;
        let whole = |count: u32| thousands(count.into());
        let value = |key: &str| pack.provenance.get(key).cloned();
        let mut rows = vec![
            vec!["order".into(), value("order").unwrap_or_default()],
            vec!["layers".into(), whole(shape.layers)],
            vec!["neurons of a layer".into(), whole(shape.neurons)],
            vec!["hidden size".into(), whole(shape.hidden)],
            vec!["parts of a bundle".into(), whole(shape.parts)],
            vec!["bytes of a bundle".into(), whole(shape.bundle_stride)],
            vec!["activation".into(), shape.activation.into()],
            vec!["numbers".into(), shape.dtype.into()],
            vec!["placements of a layer".into(), whole(pack.placements)],
        ];
        rows.extend(value("model").map(|model| vec!["model".into(), model]));
        rows.extend(value("corpora").map(|corpora| vec!["profile".into(), corpora]));
        Table { caption: self.file.clone(), head: heads(&["", ""]), rows, ..Table::default() }
    }

    /// Where its bytes are.
    pub(super) fn sections(&self) -> Table {
        let mut by_kind: BTreeMap<&str, (usize, u64)> = BTreeMap::new();
        for section in &self.description.sections {
            let (count, sum) = by_kind.entry(&section.kind).or_default();
            (*count, *sum) = (*count + 1, *sum + section.bytes);
        }
        let all = self.description.file_bytes.max(1) as f64;
        let mut kinds: Vec<_> = by_kind.into_iter().collect();
        kinds.sort_by_key(|(kind, (_, sum))| (std::cmp::Reverse(*sum), *kind));
        let row = |(kind, (count, sum)): &(&str, (usize, u64))| {
            vec![
                (*kind).to_owned(),
                count.to_string(),
                bytes(*sum as f64),
                format!("{:.2} %", 100.0 * *sum as f64 / all),
            ]
        };
        let bar =
            |(_, (_, sum)): &(&str, (usize, u64))| (*sum as f64 / all, css(colours::of_number(0)));
        Table {
            caption: format!("Where the bytes of {} are: {}", self.file, bytes(all)),
            head: heads(&["section", "number", "bytes", "share"]),
            rows: kinds.iter().map(row).collect(),
            bars: kinds.iter().map(bar).collect(),
            folded: false,
        }
    }

    pub(super) fn layers(&self) -> Table {
        let neurons = f64::from(self.description.shape.neurons);
        let row = |layer: &lnp_pack::inspect::LayerDescription| {
            let possible = layer.profile_tokens as f64 * neurons;
            vec![
                layer.layer.to_string(),
                thousands(layer.links.into()),
                thousands(layer.longest_link.into()),
                thousands(layer.single_links.into()),
                format!("{:.2} %", 100.0 * layer.profile_active as f64 / possible.max(1.0)),
                thousands(layer.never_active.into()),
            ]
        };
        Table {
            caption: format!("Layer by layer: {}", self.file),
            head: heads(&["layer", "links", "longest", "of one neuron", "active", "never active"]),
            rows: self.description.layers.iter().map(row).collect(),
            folded: true,
            ..Table::default()
        }
    }
}

impl Report {
    /// Every strategy, and the bound, with a bar for its time.
    pub(super) fn strategies(&self) -> Table {
        let base = base_of(&self.rows);
        let longest = self.rows.iter().map(|row| row.io_us_per_token.mean).fold(0.0, f64::max);
        let row = |row: &Row| {
            let runs = row.collapse != "whole" && row.runs_per_token > 0.0;
            vec![
                name_of(row, &self.rows),
                thousands(row.io_us_per_token.mean),
                speedup(base.io_us_per_token.mean, row.io_us_per_token.mean),
                thousands(row.reads_per_token),
                if runs { format!("{:.2}", row.bundles_per_run) } else { "-".into() },
                bytes(row.bytes_read_per_token),
                format!("{:.1} %", 100.0 * row.hit_rate),
            ]
        };
        let bar = |row: &Row| {
            let dense = row.collapse == "whole";
            let colour = if dense { colours::DENSE } else { charts::colour(&row.order) };
            (row.io_us_per_token.mean / longest.max(1e-9), css(colour))
        };
        let bound = base.bound_io_us_per_token;
        let mut rows: Vec<Vec<String>> = self.rows.iter().map(row).collect();
        let active = base.active_bundles_per_token * f64::from(base.bundle_bytes);
        let told = [thousands(bound), speedup(base.io_us_per_token.mean, bound)];
        let mut last = vec!["bound".to_owned()];
        last.extend(told.into_iter().chain(["-".into(), "-".into(), bytes(active), "-".into()]));
        rows.push(last);
        let mut bars: Vec<(f64, String)> = self.rows.iter().map(bar).collect();
        bars.push((bound / longest.max(1e-9), css(colours::BOUND)));
        Table {
            caption: "A token, simulated".into(),
            head: heads(&[
                "strategy",
                "I/O us",
                "speedup",
                "reads",
                "bundles a run",
                "read",
                "hits",
            ]),
            rows,
            bars,
            folded: false,
        }
    }

    pub(super) fn lengths_table(&self) -> Table {
        let lengths: BTreeSet<u64> = self
            .read_lengths
            .iter()
            .flat_map(|of| &of.percents)
            .map(|point| point.0 as u64)
            .collect();
        let row = |least: u64| {
            let share = |of: &super::Lengths| {
                let found = of.percents.iter().find(|point| point.0 as u64 == least);
                found.map_or("-".into(), |point| format!("{:.1} %", point.1))
            };
            let shares = self.read_lengths.iter().map(share);
            std::iter::once(format!("{least} to {}", 2 * least - 1)).chain(shares).collect()
        };
        let names = self.read_lengths.iter().map(|of| charts::order_name(&of.order));
        let head = std::iter::once("bundles of a read".to_owned()).chain(names).collect();
        let (caption, rows) = ("Length of reads in numbers".into(), lengths.into_iter().map(row));
        Table { caption, head, rows: rows.collect(), folded: true, ..Table::default() }
    }

    pub(super) fn hits_table(&self) -> Table {
        let part = |rates: &[(usize, f64)]| {
            let sum: f64 = rates.iter().map(|(_, rate)| rate).sum();
            format!("{:.1} %", 100.0 * sum / rates.len().max(1) as f64)
        };
        let row = |of: &super::HitsOverTokens| {
            let half = of.hit_rates.len() / 2;
            vec![of.policy.clone(), part(&of.hit_rates[..half]), part(&of.hit_rates[half..])]
        };
        Table {
            caption: "Cache hits in numbers".into(),
            head: heads(&["policy", "first half", "second half"]),
            rows: self.hits.iter().map(row).collect(),
            folded: true,
            ..Table::default()
        }
    }

    /// Bytes that the cache of a row holds.
    pub(super) fn cache_bytes(&self, row: &Row) -> f64 {
        let bundles = self.packs.first().map_or(0.0, |pack| {
            let shape = &pack.description.shape;
            f64::from(shape.layers) * f64::from(shape.neurons)
        });
        (bundles * row.cache_ratio).round() * f64::from(row.bundle_bytes)
    }

    /// What the cache's memory buys: each size, and what it saves over the one before.
    pub(super) fn memory_table(&self) -> Table {
        let mut before: Option<&Row> = None;
        let mut rows = Vec::new();
        for row in &self.by_cache {
            let (us, size) = (row.io_us_per_token.mean, self.cache_bytes(row));
            let saved = before.map_or("-".into(), |before| {
                let mib = (size - self.cache_bytes(before)) / lnp_engine::law::MIB;
                format!("{:.1}", (before.io_us_per_token.mean - us) / mib.max(1e-9))
            });
            rows.push(vec![
                format!("{} %", (row.cache_ratio * 1e4).round() / 1e2),
                bytes(size),
                format!("{:.1} %", 100.0 * row.hit_rate),
                thousands(us),
                saved,
            ]);
            before = Some(row);
        }
        Table {
            caption: "What a cache is worth".into(),
            head: heads(&[
                "of the bundles",
                "memory",
                "hits",
                "I/O us a token",
                "us saved by each MiB more",
            ]),
            rows,
            ..Table::default()
        }
    }

    /// What has to be in memory whatever is cached.
    pub(super) fn resident_table(&self) -> Table {
        let mut rows = Vec::new();
        for pack in &self.packs {
            let predictors: u64 = pack.description.predictors.iter().map(|of| of.bytes).sum();
            let index = pack.index_bytes as f64;
            rows.push(vec![
                pack.file.clone(),
                bytes(index),
                bytes(predictors as f64),
                bytes(pack.description.file_bytes as f64),
            ]);
        }
        Table {
            caption: "What else is in memory".into(),
            head: heads(&["pack", "index", "predictors", "of a file of"]),
            rows,
            ..Table::default()
        }
    }

    /// By horizon, the operating points of the first pack's predictors, mean over the layers.
    pub(super) fn frontier(&self) -> Vec<(u32, Vec<FrontierPoint>)> {
        let predictors = self.packs.first().map_or(&[][..], |pack| &pack.description.predictors);
        let horizons: BTreeSet<u32> = predictors.iter().map(|of| of.horizon).collect();
        let of_horizon = |horizon: u32| {
            let such = || predictors.iter().filter(move |of| of.horizon == horizon);
            let points = such().map(|of| of.points.len()).min().unwrap_or(0);
            let count = such().count().max(1) as f64;
            let mean = |at: usize| FrontierPoint {
                recall: such().map(|of| of.points[at].recall).sum::<f64>() / count,
                reads_per_active: such().map(|of| of.points[at].reads_per_active).sum::<f64>()
                    / count,
            };
            (horizon, (0..points).map(mean).collect())
        };
        horizons.into_iter().map(of_horizon).collect()
    }

    pub(super) fn frontier_table(&self) -> Table {
        let rows = self.frontier().into_iter().flat_map(|(horizon, points)| {
            points.into_iter().map(move |point| {
                vec![
                    horizon_name(horizon),
                    format!("{:.2} %", 100.0 * point.recall),
                    format!("{:.3}", point.reads_per_active),
                ]
            })
        });
        Table {
            caption: "Predictors in numbers".into(),
            head: heads(&["predictors", "found of the active", "read for each active"]),
            rows: rows.collect(),
            folded: true,
            ..Table::default()
        }
    }
}
