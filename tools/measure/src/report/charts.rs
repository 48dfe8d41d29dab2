//! The pictures of a page.

use anyhow::Result;
use lnp_common::report::bytes;
use lnp_engine::law::MIB;
use lnp_link::Order;
use plotters::style::RGBColor;

use super::page::{Figure, css};
use super::{Maps, Report};
use crate::colours;
use crate::study::matrix::Matrices;
use crate::study::pictures::MATRIX_SIDE;
use crate::svg::{Axis, Chart, Line, Scale};

/// Values a side of a map of so many neurons.
pub(super) fn map_side(neurons: usize) -> usize {
    MATRIX_SIDE.min(neurons)
}

/// Of an order, by its name.
pub(super) fn colour(order: &str) -> RGBColor {
    order.parse::<Order>().map_or(colours::of_number(3), colours::of_order)
}

const fn plain(name: &str, scale: Scale) -> Axis<'_> {
    // Steps of an axis are sums, which are off by their last bits.
    Axis { name, scale, told: |value| format!("{}", (value * 1e3).round() / 1e3) }
}

/// An order as pages call it.
pub(super) fn order_name(order: &str) -> String {
    if order == "identity" {
        "bundle (model order)".into()
    } else {
        lnp_common::report::plain(order)
    }
}

/// A chart with its words: what it shows, and each line's ends.
fn figure(title: &str, told: &str, x: &Axis<'_>, y: &Axis<'_>, lines: &[Line]) -> Result<Figure> {
    let svg = Chart { title, note: "", x, y }.bare(lines)?;
    let number = |axis: &Axis<'_>, value: f64| {
        let rounded =
            if value.abs() < 10.0 { (value * 100.0).round() / 100.0 } else { value.round() };
        (axis.told)(rounded)
    };
    let ends = |line: &Line| {
        let (first, last) = (line.points.first()?, line.points.last()?);
        Some(format!(
            " {}: from {} at {} to {} at {}.",
            line.name,
            number(y, first.1),
            number(x, first.0),
            number(y, last.1),
            number(x, last.0)
        ))
    };
    let told = format!(
        "{told} Across: {}. Up: {}.{}",
        x.name,
        y.name,
        lines.iter().filter_map(ends).collect::<String>()
    );
    let legend = lines.iter().map(|line| (line.name.clone(), css(line.colour))).collect();
    Ok(Figure { title: title.to_owned(), told, svg, legend, grey: false })
}

/// A size on an axis of sizes.
fn size(value: f64) -> String {
    bytes(value).replace(".0 ", " ")
}

impl Report {
    pub(super) fn lengths_figure(&self) -> Result<Figure> {
        let line = |of: &super::Lengths| Line {
            name: order_name(&of.order),
            colour: colour(&of.order),
            points: of.percents.clone(),
        };
        let lines: Vec<Line> = self.read_lengths.iter().map(line).collect();
        let x = plain("wanted bundles of a read: so many to twice as many", Scale::Log2);
        let y = plain("% of the wanted bundles", Scale::Linear);
        let told =
            "The share of the wanted bundles that comes in reads of each length, for each order.";
        figure("Length of reads", told, &x, &y, &lines)
    }

    /// What a read of each size takes by the law, as it was measured, and where a gap is worth a read.
    pub(super) fn device_figure(&self) -> Result<Figure> {
        let law = &self.law;
        let sizes: Vec<f64> = (0..=10).map(|at| f64::from(4096_u32 << at)).collect();
        // What a batch costs that is as long as the queue is deep comes to this, read by read.
        let by_law = |bytes: f64| match law.law() {
            Ok(law) => law.work_us(1000, (1000.0 * bytes) as u64) / 1000.0,
            Err(_) => 0.0,
        };
        let mib_s = |(bytes, us): (f64, f64)| (bytes, bytes / us.max(1e-9) * 1e6 / MIB);
        let points: Vec<_> = sizes.iter().map(|bytes| mib_s((*bytes, by_law(*bytes)))).collect();
        let most = points.iter().map(|point| point.1).fold(0.0, f64::max);
        let mut lines =
            vec![Line { name: "by the law".into(), colour: colours::of_number(0), points }];
        if !self.curve.is_empty() {
            let points = self.curve.iter().copied().map(mib_s).collect();
            lines.push(Line { name: "as measured".into(), colour: colours::of_number(1), points });
        }
        if self.gap_bytes > 0 {
            let gap = self.gap_bytes as f64;
            let name = format!("break-even gap, {}", size(gap));
            let points = vec![(gap, 0.0), (gap, most)];
            lines.push(Line { name, colour: colours::BOUND, points });
        }
        let x = Axis { name: "bytes of a read", scale: Scale::Log2, told: size };
        let y = plain("MiB/s", Scale::Linear);
        let told = "What the device gives by the length of its reads; a hole shorter than the break-even gap is read through.";
        figure("Throughput by the length of reads", told, &x, &y, &lines)
    }

    pub(super) fn hits_figure(&self) -> Result<Figure> {
        let line = |(at, of): (usize, &super::HitsOverTokens)| Line {
            name: of.policy.clone(),
            colour: colours::of_number(at),
            points: of.hit_rates.iter().map(|(to, rate)| (*to as f64, 100.0 * rate)).collect(),
        };
        let lines: Vec<Line> = self.hits.iter().enumerate().map(line).collect();
        let x = plain("tokens", Scale::Linear);
        let y = plain("% of the active bundles in the cache", Scale::Linear);
        let told = "What each cache hits, from empty on.";
        figure("Cache hits over tokens", told, &x, &y, &lines)
    }

    /// The time of a token by the memory that the cache has.
    pub(super) fn memory_figure(&self) -> Result<Figure> {
        let order = self.by_cache.first().map_or("", |row| &row.order);
        let point = |row: &crate::replay::Row| {
            (self.cache_bytes(row) / MIB, row.io_us_per_token.mean / 1e3)
        };
        let points = self.by_cache.iter().map(point).collect();
        let lines = [Line { name: order_name(order), colour: colour(order), points }];
        let x = plain("MiB of cache", Scale::Linear);
        let y = plain("I/O ms a token", Scale::Linear);
        let told = "How much time for reads is left of a token as the cache grows.";
        figure("I/O time by memory", told, &x, &y, &lines)
    }

    /// What is found of the active neurons by how much is read for it; none without predictors.
    pub(super) fn frontier_figure(&self) -> Result<Option<Figure>> {
        let lines: Vec<Line> = self
            .frontier()
            .into_iter()
            .enumerate()
            .map(|(at, (horizon, points))| Line {
                name: super::tables::horizon_name(horizon),
                colour: colours::of_number(at),
                points: points
                    .iter()
                    .map(|point| (point.reads_per_active, 100.0 * point.recall))
                    .collect(),
            })
            .collect();
        if lines.is_empty() {
            return Ok(None);
        }
        let x = plain("bundles read for each active one", Scale::Linear);
        let y = plain("% of the active ones that are read", Scale::Linear);
        let told = "What predictors find at each of their operating points, by what is read for it, mean over the layers.";
        figure("Predictors", told, &x, &y, &lines).map(Some)
    }
}

impl Maps {
    /// Before and after linking, on one scale.
    pub(super) fn figures(&self, order: &str) -> Vec<Figure> {
        let black = [&self.before, &self.after]
            .map(|roots| lnp_common::report::quantile(&mut roots.clone(), 0.99));
        let pictures = [
            ("in the model's order".to_owned(), self.before.clone()),
            (format!("in {} order", lnp_common::report::plain(order)), self.after.clone()),
        ];
        let matrices = Matrices {
            title: "",
            note: "",
            axis: "slot",
            most: self.neurons,
            side: map_side(self.neurons),
            scale: "",
            black: black.into_iter().fold(f64::MIN_POSITIVE, f64::max),
            told: &|root| format!("{:.2} %", 100.0 * root * root),
            matrices: &pictures,
        };
        let draw = |(at, (name, values)): (usize, &(String, Vec<f64>))| {
            let near = 100.0 * near_diagonal(values, map_side(self.neurons));
            Figure {
                title: format!("Active together, {name}"),
                told: format!(
                    "A map of layer {}: slots across and down, the stronger a shade, the more often two are active in the same tokens. Of all \
                     such pairs {near:.0} % lie within a tenth of the layer of each other.",
                    self.layer
                ),
                svg: matrices.draw_one(at),
                legend: matrices.shades().map(|(shade, told)| (told, shade)).collect(),
                grey: true,
            }
        };
        pictures.iter().enumerate().map(draw).collect()
    }
}

/// Of what is active together, the share within a tenth of the layer of the diagonal.
pub(super) fn near_diagonal(roots: &[f64], side: usize) -> f64 {
    let (mut near, mut all) = (0.0, 0.0);
    for (at, root) in roots.iter().enumerate() {
        let share = root * root;
        all += share;
        if (at / side).abs_diff(at % side) * 10 <= side {
            near += share;
        }
    }
    near / f64::max(all, f64::MIN_POSITIVE)
}
