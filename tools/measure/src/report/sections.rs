//! What a page says, in its order.

use anyhow::Result;
use lnp_common::report::{bytes, plain, thousands};

use super::Report;
use super::page::{Section, page};
use crate::replay::Row;
use crate::replay::table::base_of;

impl Report {
    /// The page.
    ///
    /// # Errors
    /// A picture cannot be drawn.
    pub fn html(&self) -> Result<String> {
        let sections = [
            self.of_packs(),
            self.of_time(),
            self.of_lengths()?,
            self.of_maps(),
            self.of_device()?,
            self.of_cache()?,
            self.of_memory()?,
        ];
        let mut sections: Vec<Section> = sections.into();
        sections.extend(self.of_predictors()?);
        let files: Vec<String> = self.packs.iter().map(|pack| plain(&pack.file)).collect();
        let title = format!("{}: what its order does", files.join(", "));
        let foot = [
            format!(
                "Simulated: the engine over a device that obeys the law {} ({}), {} of the trace with SHA-256 {}; caches are \
                 empty at the beginning. Nothing was read from a device.",
                self.law,
                plain(&self.law_source),
                tokens(self.tokens),
                self.trace_sha256
            ),
            format!("lnp {}", env!("CARGO_PKG_VERSION")),
        ];
        Ok(page(&title, &self.lead(), &sections, &foot))
    }

    /// What it comes to, in a few words.
    pub fn lead(&self) -> Vec<String> {
        let base = base_of(&self.rows);
        let own = self.best();
        let (base_us, own_us) = (base.io_us_per_token.mean, own.io_us_per_token.mean);
        let reads = |row: &Row| thousands(row.reads_per_token);
        let mut lead = vec![
            format!(
                "{}, tried on {} of {}.",
                plain(&self.model),
                tokens(self.tokens),
                plain(&self.trace_told)
            ),
            format!(
                "With {} a token takes {} us of reads ({} reads, {}), with {} {} us ({} reads, {}): {:.2} times as fast. \
                 The bound, all active bytes at full bandwidth, is {} us.",
                own.strategy,
                thousands(own_us),
                reads(own),
                bytes(own.bytes_read_per_token),
                base.strategy,
                thousands(base_us),
                reads(base),
                bytes(base.bytes_read_per_token),
                base_us / own_us.max(1e-9),
                thousands(base.bound_io_us_per_token),
            ),
        ];
        if self.same_trace {
            lead.push(
                "The order was made from this very trace: on other text it does less.".into(),
            );
        }
        lead
    }

    /// The fastest strategy on the first pack.
    fn best(&self) -> &Row {
        let order = self.packs.first().and_then(|pack| pack.description.provenance.get("order"));
        let own =
            self.rows.iter().filter(|row| Some(&row.order) == order && row.collapse != "whole");
        let us = |row: &Row| row.io_us_per_token.mean;
        own.min_by(|one, other| us(one).total_cmp(&us(other)))
            .unwrap_or_else(|| base_of(&self.rows))
    }

    fn of_packs(&self) -> Section {
        let tables =
            self.packs.iter().flat_map(|pack| [pack.facts(), pack.sections(), pack.layers()]);
        Section {
            id: "pack",
            heading: "What is in the pack".into(),
            words: vec!["A bundle is all that one neuron needs; bundles that fire together stand together, in links.".into()],
            tables: tables.collect(),
            ..Section::default()
        }
    }

    fn of_time(&self) -> Section {
        let bundle = bytes(base_of(&self.rows).bundle_bytes.into());
        Section {
            id: "time",
            heading: "I/O time by strategy".into(),
            words: vec![format!(
                "Of a token, bundles of {bundle}. dense reads everything as a stream; bundle reads what is active, as it \
                 lies in the model; random and frequency are other orders of the same bundles. collapse reads \
                 through holes shorter than the break-even gap; cache keeps 5 % of the bundles in memory. bound is \
                 every active byte at full bandwidth, with no cache. Speedup is over bundle."
            )],
            tables: vec![self.strategies()],
            ..Section::default()
        }
    }

    fn of_lengths(&self) -> Result<Section> {
        Ok(Section {
            id: "lengths",
            heading: "How long reads are".into(),
            words: vec![
                "Without a cache, holes read through where that is faster. A device does only so many reads a second: the \
                 further to the right, the fewer it needs."
                    .into(),
            ],
            figures: vec![self.lengths_figure()?],
            tables: vec![self.lengths_table()],
        })
    }

    fn of_maps(&self) -> Section {
        let order = self.packs.first().and_then(|pack| pack.description.provenance.get("order"));
        let order = order.map_or("its own", |order| plain_order(order));
        let figures = self.maps.as_ref().map_or(Vec::new(), |maps| maps.figures(order));
        let layer = self.maps.as_ref().map_or(0, |maps| maps.layer);
        Section {
            id: "together",
            heading: "Who fires with whom".into(),
            words: vec![format!(
                "Layer {layer}, slot by slot, on the text tried: the stronger the shade, the larger the share of the \
                 tokens in which both are active. What lies along the diagonal is read together."
            )],
            figures,
            ..Section::default()
        }
    }

    fn of_device(&self) -> Result<Section> {
        let gap = bytes(self.gap_bytes as f64);
        let held = "the law is the larger of the time of all reads and that of all bytes";
        let words = if self.law.law()?.combine() == lnp_engine::Combine::Sum {
            format!(
                "A hole shorter than {gap} is read through: reading it takes less time than one more read."
            )
        } else {
            format!(
                "Here {held}: up to {gap} long, the smallest holes are read through until both are equal."
            )
        };
        Ok(Section {
            id: "device",
            heading: "The device".into(),
            words: vec![format!("{} ({}).", self.law, plain(&self.law_source)), words],
            figures: vec![self.device_figure()?],
            ..Section::default()
        })
    }

    fn of_cache(&self) -> Result<Section> {
        Ok(Section {
            id: "cache",
            heading: "What caches hit".into(),
            words: vec![
                "5 % of the bundles in memory, from empty on, by the rule that says what stays. pinned keeps what was \
                 active most often in the profile; the others go by what was read lately."
                    .into(),
            ],
            figures: vec![self.hits_figure()?],
            tables: vec![self.hits_table()],
        })
    }

    fn of_memory(&self) -> Result<Section> {
        Ok(Section {
            id: "memory",
            heading: "What each byte of memory does".into(),
            words: vec![
                "Of the first pack, with a cache that pins: how much time for reads each size leaves of a token, and what one \
                 MiB more would save."
                    .into(),
            ],
            figures: vec![self.memory_figure()?],
            tables: vec![self.memory_table(), self.resident_table()],
        })
    }

    fn of_predictors(&self) -> Result<Option<Section>> {
        let Some(figure) = self.frontier_figure()? else { return Ok(None) };
        Ok(Some(Section {
            id: "predictors",
            heading: "What predictors find".into(),
            words: vec![
                "Predictors tell from few bytes which neurons will be active. At each operating point they name some that \
                 are not, which are read in vain, and miss some that are. Exactly would be 100 % at 1."
                    .into(),
            ],
            figures: vec![figure],
            tables: vec![self.frontier_table()],
        }))
    }
}

/// An order's name comes from a file.
fn plain_order(order: &str) -> &str {
    if order.chars().any(char::is_control) { "its own" } else { order }
}

fn tokens(count: usize) -> String {
    if count == 1 { "1 token".into() } else { format!("{} tokens", thousands(count as f64)) }
}
