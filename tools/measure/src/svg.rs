//! Charts as SVG: lines over axes that may be logarithmic, the legend beside them.

use std::ops::Range;

use anyhow::{Context, Result, anyhow};
use plotters::coord::combinators::{IntoLogRange, LogCoord};
use plotters::coord::ranged1d::{KeyPointHint, NoDefaultFormatting, Ranged, ValueFormatter};
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;

/// Size of a chart, pixels.
const SIZE: (u32, u32) = (1060, 580);
/// Size of one for a page, where a phone shows it at three quarters.
const BARE_SIZE: (u32, u32) = (480, 340);
/// What of a chart is the legend, to the right, and the note, below.
const LEGEND_WIDTH: u32 = 210;
const NOTE_HEIGHT: u32 = 26;
/// From one line of the legend to the next.
const LEGEND_STEP: i32 = 22;
const FONT: &str = "sans-serif";

/// How an axis is divided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scale {
    /// Evenly.
    Linear,
    /// By powers of two: sizes, depths.
    Log2,
    /// By powers of ten.
    Log10,
}

/// One axis.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Axis<'a> {
    /// What is on it, with its unit.
    pub name: &'a str,
    /// How it is divided.
    pub scale: Scale,
    /// How its values are written.
    pub told: fn(f64) -> String,
}

/// What a chart is of.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Chart<'a> {
    /// What it shows.
    pub title: &'a str,
    /// What it is of, in small letters below: device, file, date.
    pub note: &'a str,
    /// To the right.
    pub x: &'a Axis<'a>,
    /// Up.
    pub y: &'a Axis<'a>,
}

/// One line of a chart.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Line {
    /// Its name in the legend.
    pub name: String,
    /// Its colour, from [`crate::colours`].
    pub colour: RGBColor,
    /// Its points, in the order in which they are joined; on a logarithmic axis above 0.
    pub points: Vec<(f64, f64)>,
}

impl Chart<'_> {
    /// Lines over the two axes, with a legend.
    ///
    /// # Errors
    /// No points that can be drawn.
    pub(crate) fn lines(&self, lines: &[Line]) -> Result<String> {
        let kept = self.drawable(lines);
        let mut text = String::new();
        let area = SVGBackend::with_string(&mut text, SIZE).into_drawing_area();
        area.fill(&WHITE).map_err(trouble)?;
        let (upper, foot) = area.split_vertically(SIZE.1 - NOTE_HEIGHT);
        let (plot, side) = upper.split_horizontally(SIZE.0 - LEGEND_WIDTH);
        let grey = (FONT, 12).into_font().color(&BLACK.mix(0.6));
        foot.draw(&Text::new(self.note, (14, 4), grey)).map_err(trouble)?;
        self.draw(&plot, &kept, Some(self.title))?;
        for (line, at) in kept.iter().zip(0..) {
            // Beside the plot, where it covers no line.
            let middle = 60 + LEGEND_STEP * at;
            let style = line.colour.stroke_width(2);
            let dash = PathElement::new([(0, middle), (24, middle)], style);
            side.draw(&dash).map_err(trouble)?;
            let name = Text::new(line.name.as_str(), (32, middle - 6), (FONT, 13).into_font());
            side.draw(&name).map_err(trouble)?;
        }
        area.present().map_err(trouble)?;
        drop((plot, side, upper, foot, area));
        Ok(text)
    }

    /// The same for a page, small enough for a phone: title, note and legend stand beside it.
    ///
    /// # Errors
    /// As [`Chart::lines`].
    pub(crate) fn bare(&self, lines: &[Line]) -> Result<String> {
        let mut text = String::new();
        let area = SVGBackend::with_string(&mut text, BARE_SIZE).into_drawing_area();
        area.fill(&WHITE).map_err(trouble)?;
        self.draw(&area, &self.drawable(lines), None)?;
        area.present().map_err(trouble)?;
        drop(area);
        Ok(text)
    }

    /// What of the lines can stand on the axes.
    fn drawable(&self, lines: &[Line]) -> Vec<Line> {
        let (x, y) = (self.x.scale, self.y.scale);
        let drawable = |point: &(f64, f64)| can_stand(point.0, x) && can_stand(point.1, y);
        let kept = |line: &Line| Line {
            points: line.points.iter().copied().filter(drawable).collect(),
            ..line.clone()
        };
        lines.iter().map(kept).filter(|line| !line.points.is_empty()).collect()
    }

    fn draw(&self, plot: &Area<'_>, lines: &[Line], caption: Option<&str>) -> Result<()> {
        let Self { title, x, y, .. } = *self;
        let all = || lines.iter().flat_map(|line| &line.points);
        let no_points = || format!("chart '{title}': no points");
        let across = Divided::over(all().map(|point| point.0), x).with_context(no_points)?;
        let up = Divided::over(all().map(|point| point.1), y).with_context(no_points)?;
        let mut builder = ChartBuilder::on(plot);
        builder.margin(14).x_label_area_size(44);
        match caption {
            Some(caption) => builder.caption(caption, (FONT, 18)).y_label_area_size(76),
            None => builder.y_label_area_size(62),
        };
        let mut chart = builder.build_cartesian_2d(across, up).map_err(trouble)?;
        let mut mesh = chart.configure_mesh();
        mesh.x_desc(x.name).y_desc(y.name).label_style((FONT, 13)).axis_desc_style((FONT, 15));
        if caption.is_none() {
            // Numbers must not touch.
            mesh.x_labels(6).y_labels(6);
        }
        mesh.light_line_style(WHITE).bold_line_style(BLACK.mix(0.12)).draw().map_err(trouble)?;
        for line in lines {
            let style = line.colour.stroke_width(2);
            let series = LineSeries::new(line.points.iter().copied(), style).point_size(3);
            chart.draw_series(series).map_err(trouble)?;
        }
        Ok(())
    }
}

type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;

fn trouble(error: impl std::fmt::Display) -> anyhow::Error {
    anyhow!("a chart cannot be drawn: {error}")
}

fn can_stand(value: f64, scale: Scale) -> bool {
    value.is_finite() && (scale == Scale::Linear || value > 0.0)
}

/// An axis with its range: one of plotters' two kinds, so that a chart has one type whatever its axes.
struct Divided {
    kind: DividedKind,
    told: fn(f64) -> String,
}

enum DividedKind {
    Linear(RangedCoordf64),
    Log(LogCoord<f64>),
}

impl Divided {
    /// The range of values; none of no values.
    fn over(values: impl Iterator<Item = f64>, axis: &Axis<'_>) -> Option<Self> {
        let (low, high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |range, value| {
            (range.0.min(value), range.1.max(value))
        });
        if low > high {
            return None;
        }
        let log = |base| (low / 1.1..high * 1.1).log_scale().base(base).into();
        let kind = match axis.scale {
            // From 0, or from the lowest below it.
            Scale::Linear => {
                let (low, high) = (low.min(0.0), high.max(0.0));
                let high = if high > low { high + 0.05 * (high - low) } else { low + 1.0 };
                DividedKind::Linear((low..high).into())
            }
            Scale::Log2 => DividedKind::Log(log(2.0)),
            Scale::Log10 => DividedKind::Log(log(10.0)),
        };
        Some(Self { kind, told: axis.told })
    }
}

impl Ranged for Divided {
    type FormatOption = NoDefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, limit: (i32, i32)) -> i32 {
        match &self.kind {
            DividedKind::Linear(coord) => coord.map(value, limit),
            DividedKind::Log(coord) => coord.map(value, limit),
        }
    }

    fn key_points<Hint: KeyPointHint>(&self, hint: Hint) -> Vec<f64> {
        match &self.kind {
            DividedKind::Linear(coord) => coord.key_points(hint),
            DividedKind::Log(coord) => {
                let mut points = coord.key_points(hint);
                // plotters marks a power once as the end of those before it, and once as itself.
                points.dedup_by(|one, other| (*one / *other - 1.0).abs() < 1e-9);
                points
            }
        }
    }

    fn range(&self) -> Range<f64> {
        match &self.kind {
            DividedKind::Linear(coord) => coord.range(),
            DividedKind::Log(coord) => coord.range(),
        }
    }
}

impl ValueFormatter<f64> for Divided {
    fn format_ext(&self, value: &f64) -> String {
        (self.told)(*value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn axis(scale: Scale) -> Axis<'static> {
        Axis { name: "what", scale, told: |value| format!("{value}") }
    }

    fn line(name: &str, points: &[(f64, f64)]) -> Line {
        Line { name: name.into(), colour: RGBColor(1, 2, 3), points: points.into() }
    }

    #[test]
    fn a_larger_value_lies_further_along_and_marks_are_within() {
        for scale in [Scale::Linear, Scale::Log2, Scale::Log10] {
            let divided = Divided::over([1.0, 1000.0].into_iter(), &axis(scale)).unwrap();
            let places: Vec<i32> =
                [1.0, 3.0, 10.0, 100.0, 1000.0].map(|value| divided.map(&value, (0, 500))).into();
            assert!(places.windows(2).all(|pair| pair[0] < pair[1]), "{scale:?}: {places:?}");
            assert!(places[0] >= 0 && places[4] <= 500, "{scale:?}: {places:?}");
            let marks = divided.key_points(10);
            let within = |mark: &f64| (0..=500).contains(&divided.map(mark, (0, 500)));
            assert!(marks.len() > 1 && marks.iter().all(within), "{scale:?}: {marks:?}");
            assert!(marks.windows(2).all(|pair| pair[0] < pair[1]), "{scale:?}: {marks:?}");
        }
    }

    #[test]
    fn lines_have_title_axes_note_and_legend() {
        let found = [
            line("depth 1", &[(4096.0, 10.0), (8192.0, 20.0)]),
            line("depth <32>", &[(4096.0, 300.0), (0.0, 1.0)]),
            line("nothing", &[(f64::NAN, 1.0)]),
        ];
        let (x, y) = (axis(Scale::Log2), axis(Scale::Log10));
        let chart = Chart { title: "T over size", note: "of vda", x: &x, y: &y };
        let text = chart.lines(&found).unwrap();
        assert!(text.starts_with("<svg") && text.trim_end().ends_with("</svg>"));
        let parts =
            ["T over size", "of vda", "what", "depth 1", "depth &lt;32&gt;", "4096", "#010203"];
        for part in parts {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(!text.contains("nothing"));
        assert!(chart.lines(&found[2..]).is_err());
    }

    /// Lines end where the legend begins.
    #[test]
    fn the_legend_covers_no_line() {
        let (x, y) = (axis(Scale::Linear), axis(Scale::Linear));
        let chart = Chart { title: "T", note: "", x: &x, y: &y };
        let points: Vec<(f64, f64)> =
            (0..50).map(|at| (f64::from(at), f64::from(at % 7))).collect();
        let text = chart.lines(&[line("a", &points)]).unwrap();
        let number = |text: &str, key: &str| -> Option<f64> {
            text.split_once(key)?.1.split('"').next()?.parse().ok()
        };
        let plot_end = f64::from(SIZE.0 - LEGEND_WIDTH);
        let circles: Vec<f64> = text
            .lines()
            .filter(|line| line.starts_with("<circle"))
            .filter_map(|of| number(of, "cx=\""))
            .collect();
        assert_eq!(circles.len(), points.len());
        assert!(circles.iter().all(|x| *x < plot_end));
    }
}
