//! Charts as SVG: lines over an axis that may be logarithmic, and bars.

use std::ops::Range;

use anyhow::{Result, anyhow};
use plotters::coord::Shift;
use plotters::coord::ranged1d::{KeyPointHint, NoDefaultFormatting, Ranged, ValueFormatter};
use plotters::prelude::*;

/// Size of a chart, pixels.
const SIZE: (u32, u32) = (900, 560);
const FONT: &str = "sans-serif";
/// Colours that can be told apart, also by most of those who see fewer (Okabe and Ito).
const COLOURS: [RGBColor; 7] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
    RGBColor(60, 60, 60),
];

/// How an axis is divided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scale {
    /// Evenly.
    Linear,
    /// By powers of two: sizes, depths.
    Log2,
    /// By powers of ten.
    Log10,
}

/// One axis.
#[derive(Debug, Clone, Copy)]
pub struct Axis<'a> {
    /// What is on it, with its unit.
    pub name: &'a str,
    /// How it is divided.
    pub scale: Scale,
    /// How its values are written.
    pub told: fn(f64) -> String,
}

/// One line of a chart.
#[derive(Debug, Clone, PartialEq)]
pub struct Line {
    /// Its name in the legend.
    pub name: String,
    /// Its points, in the order in which they are joined; on a logarithmic axis above 0.
    pub points: Vec<(f64, f64)>,
}

/// Lines over two axes, with a legend.
///
/// # Errors
/// No points that can be drawn.
pub fn lines(title: &str, (x, y): (&Axis<'_>, &Axis<'_>), lines: &[Line]) -> Result<String> {
    let drawable = |point: &(f64, f64)| can_stand(point.0, x.scale) && can_stand(point.1, y.scale);
    let kept: Vec<Line> = lines
        .iter()
        .map(|line| Line {
            name: line.name.clone(),
            points: line.points.iter().copied().filter(drawable).collect(),
        })
        .filter(|line| !line.points.is_empty())
        .collect();
    let all = || kept.iter().flat_map(|line| &line.points);
    let across = Divided::over(all().map(|point| point.0), x)
        .ok_or_else(|| anyhow!("chart '{title}': no points"))?;
    let up = Divided::over(all().map(|point| point.1), y)
        .ok_or_else(|| anyhow!("chart '{title}': no points"))?;
    let corner = emptiest_corner(all(), (&across, &up));
    drawn(|area| {
        let mut chart = ChartBuilder::on(area)
            .caption(title, (FONT, 20))
            .margin(14)
            .x_label_area_size(44)
            .y_label_area_size(76)
            .build_cartesian_2d(across, up)
            .map_err(trouble)?;
        let mut mesh = chart.configure_mesh();
        mesh.x_desc(x.name).y_desc(y.name).label_style((FONT, 13)).axis_desc_style((FONT, 15));
        mesh.light_line_style(WHITE).bold_line_style(BLACK.mix(0.12)).draw().map_err(trouble)?;
        for (at, line) in kept.iter().enumerate() {
            let style = COLOURS[at % COLOURS.len()].stroke_width(2);
            let series = LineSeries::new(line.points.iter().copied(), style).point_size(3);
            chart
                .draw_series(series)
                .map_err(trouble)?
                .label(&line.name)
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 20, y)], style));
        }
        chart
            .configure_series_labels()
            .position(corner)
            .background_style(WHITE.mix(0.85))
            .border_style(BLACK.mix(0.3))
            .label_font((FONT, 13))
            .draw()
            .map_err(trouble)
    })
}

/// One bar for each name, from 0 up.
///
/// # Errors
/// No bars, or one below 0.
pub fn bars(title: &str, y: &Axis<'_>, bars: &[(String, f64)]) -> Result<String> {
    let possible = |value: &f64| value.is_finite() && *value >= 0.0;
    if bars.is_empty() || !bars.iter().all(|(_, value)| possible(value)) {
        return Err(anyhow!("chart '{title}': bars must be of 0 or more"));
    }
    let heights = bars.iter().map(|(_, value)| *value).chain([0.0]);
    let linear = Axis { scale: Scale::Linear, ..*y };
    let up = Divided::over(heights, &linear).ok_or_else(|| anyhow!("chart '{title}': no bars"))?;
    drawn(|area| {
        let mut chart = ChartBuilder::on(area)
            .caption(title, (FONT, 20))
            .margin(14)
            .x_label_area_size(44)
            .y_label_area_size(76)
            .build_cartesian_2d((0..bars.len() - 1).into_segmented(), up)
            .map_err(trouble)?;
        let name = |value: &SegmentValue<usize>| match value {
            SegmentValue::CenterOf(at) => {
                bars.get(*at).map_or(String::new(), |(name, _)| name.clone())
            }
            _ => String::new(),
        };
        let mut mesh = chart.configure_mesh();
        mesh.disable_x_mesh().x_labels(bars.len()).x_label_formatter(&name).y_desc(y.name);
        mesh.label_style((FONT, 13)).axis_desc_style((FONT, 15)).light_line_style(WHITE);
        mesh.draw().map_err(trouble)?;
        let bar = |(at, (_, value)): (usize, &(String, f64))| {
            let corners = [(SegmentValue::Exact(at), 0.0), (SegmentValue::Exact(at + 1), *value)];
            let mut bar = Rectangle::new(corners, COLOURS[at % COLOURS.len()].filled());
            bar.set_margin(0, 0, 8, 8);
            bar
        };
        chart.draw_series(bars.iter().enumerate().map(bar)).map_err(trouble)?;
        Ok(())
    })
}

/// Where the fewest points lie under a legend.
fn emptiest_corner<'p>(
    points: impl Iterator<Item = &'p (f64, f64)>,
    (across, up): (&Divided, &Divided),
) -> SeriesLabelPosition {
    /// Of the chart's width and height.
    const LEGEND: (f64, f64) = (0.2, 0.35);
    let mut counts = [0; 4];
    for (x, y) in points {
        let (x, y) = (across.share(*x), up.share(*y));
        let (left, right) = (x < LEGEND.0, x > 1.0 - LEGEND.0);
        let (low, high) = (y < LEGEND.1, y > 1.0 - LEGEND.1);
        let under = [left && high, right && high, left && low, right && low];
        for (count, under) in counts.iter_mut().zip(under) {
            *count += u32::from(under);
        }
    }
    let corners = [
        SeriesLabelPosition::UpperLeft,
        SeriesLabelPosition::UpperRight,
        SeriesLabelPosition::LowerLeft,
        SeriesLabelPosition::LowerRight,
    ];
    let least = counts.iter().zip(corners).min_by_key(|(count, _)| **count);
    least.map_or(SeriesLabelPosition::UpperLeft, |(_, corner)| corner)
}

fn trouble(error: impl std::fmt::Display) -> anyhow::Error {
    anyhow!("a chart cannot be drawn: {error}")
}

/// The text of what is drawn on white.
fn drawn(draw: impl FnOnce(&DrawingArea<SVGBackend<'_>, Shift>) -> Result<()>) -> Result<String> {
    let mut text = String::new();
    {
        let area = SVGBackend::with_string(&mut text, SIZE).into_drawing_area();
        area.fill(&WHITE).map_err(trouble)?;
        draw(&area)?;
        area.present().map_err(trouble)?;
    }
    Ok(text)
}

fn can_stand(value: f64, scale: Scale) -> bool {
    value.is_finite() && (scale == Scale::Linear || value > 0.0)
}

/// An axis with its range.
struct Divided {
    low: f64,
    high: f64,
    scale: Scale,
    told: fn(f64) -> String,
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
        let (low, high) = match axis.scale {
            // From 0, or from the lowest below it.
            Scale::Linear => {
                let (low, high) = (low.min(0.0), high.max(0.0));
                (low, if high > low { high + 0.05 * (high - low) } else { low + 1.0 })
            }
            Scale::Log2 | Scale::Log10 => (low / 1.1, high * 1.1),
        };
        Some(Self { low, high, scale: axis.scale, told: axis.told })
    }

    /// How far along the axis a value lies: 0 at its begin, 1 at its end.
    fn share(&self, value: f64) -> f64 {
        let (low, high) = (self.along(self.low), self.along(self.high));
        (self.along(value) - low) / (high - low)
    }

    fn along(&self, value: f64) -> f64 {
        match self.scale {
            Scale::Linear => value,
            Scale::Log2 | Scale::Log10 => value.max(f64::MIN_POSITIVE).ln(),
        }
    }

    /// Values that get a label: at most so many.
    fn marks(&self, most: usize) -> Vec<f64> {
        let most = most.max(2);
        let steps: Vec<Vec<f64>> = match self.scale {
            Scale::Linear => {
                let exact = (self.high - self.low) / most as f64;
                let power = 10_f64.powf(exact.log10().floor());
                let step = [1.0, 2.0, 5.0, 10.0].map(|times| times * power);
                let step = step.into_iter().find(|step| *step >= exact).unwrap_or(exact);
                let first = (self.low / step).ceil() as i64;
                let last = (self.high / step).floor() as i64;
                return (first..=last).map(|number| number as f64 * step).collect();
            }
            Scale::Log2 => (1..=8).map(|step| self.powers(2.0, step, &[1.0])).collect(),
            Scale::Log10 => vec![
                self.powers(10.0, 1, &[1.0, 2.0, 5.0]),
                self.powers(10.0, 1, &[1.0]),
                self.powers(10.0, 2, &[1.0]),
                self.powers(10.0, 4, &[1.0]),
            ],
        };
        let fits = steps.iter().find(|marks| marks.len() <= most).or(steps.last());
        fits.cloned().unwrap_or_default()
    }

    /// Every `step`-th power of a base within the range, times each factor.
    fn powers(&self, base: f64, step: i32, factors: &[f64]) -> Vec<f64> {
        let first = self.low.log(base).floor() as i32;
        let last = self.high.log(base).ceil() as i32;
        (first..=last)
            .filter(|power| power.rem_euclid(step) == 0)
            .flat_map(|power| factors.iter().map(move |factor| factor * base.powi(power)))
            .filter(|value| (self.low..=self.high).contains(value))
            .collect()
    }
}

impl Ranged for Divided {
    type FormatOption = NoDefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, limit: (i32, i32)) -> i32 {
        limit.0 + (self.share(*value) * f64::from(limit.1 - limit.0)).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, hint: Hint) -> Vec<f64> {
        self.marks(hint.bold_points())
    }

    fn range(&self) -> Range<f64> {
        self.low..self.high
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

    fn marks(low: f64, high: f64, scale: Scale, most: usize) -> Vec<f64> {
        Divided::over([low, high].into_iter(), &axis(scale)).unwrap().marks(most)
    }

    #[test]
    fn marks_are_round() {
        assert_eq!(marks(0.0, 10.0, Scale::Linear, 5), [0.0, 5.0, 10.0]);
        assert_eq!(marks(1.0, 16.0, Scale::Log2, 10), [1.0, 2.0, 4.0, 8.0, 16.0]);
        assert_eq!(marks(1.0, 16.0, Scale::Log2, 3), [1.0, 4.0, 16.0]);
        assert_eq!(marks(1.0, 20.0, Scale::Log10, 10), [1.0, 2.0, 5.0, 10.0, 20.0]);
        assert_eq!(marks(1.0, 1e4, Scale::Log10, 6), [1.0, 10.0, 100.0, 1e3, 1e4]);
    }

    #[test]
    fn a_larger_value_lies_further_along() {
        for scale in [Scale::Linear, Scale::Log2, Scale::Log10] {
            let divided = Divided::over([1.0, 1000.0].into_iter(), &axis(scale)).unwrap();
            let places: Vec<i32> =
                [1.0, 3.0, 10.0, 100.0, 1000.0].map(|value| divided.map(&value, (0, 500))).into();
            assert!(places.windows(2).all(|pair| pair[0] < pair[1]), "{scale:?}: {places:?}");
            assert!(places[0] >= 0 && places[4] <= 500, "{scale:?}: {places:?}");
        }
    }

    #[test]
    fn lines_have_title_axes_and_legend() {
        let found = [
            Line { name: "depth 1".into(), points: vec![(4096.0, 10.0), (8192.0, 20.0)] },
            Line { name: "depth <32>".into(), points: vec![(4096.0, 300.0), (0.0, 1.0)] },
            Line { name: "nothing".into(), points: vec![(f64::NAN, 1.0)] },
        ];
        let (x, y) = (axis(Scale::Log2), axis(Scale::Log10));
        let text = lines("T over size", (&x, &y), &found).unwrap();
        assert!(text.starts_with("<svg") && text.trim_end().ends_with("</svg>"));
        for part in ["T over size", "what", "depth 1", "depth &lt;32&gt;", "4096"] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(!text.contains("nothing"));
        assert!(lines("empty", (&x, &y), &found[2..]).is_err());
    }

    #[test]
    fn bars_stand_on_zero() {
        let text = bars("cost", &axis(Scale::Linear), &[("a".into(), 1.0), ("b".into(), 2.0)]);
        let text = text.unwrap();
        assert!(text.contains("cost") && text.contains("a\n") && text.contains("<rect"));
        assert!(bars("one", &axis(Scale::Linear), &[("a".into(), 0.0)]).is_ok());
        assert!(bars("none", &axis(Scale::Linear), &[]).is_err());
        assert!(bars("less", &axis(Scale::Linear), &[("a".into(), -1.0)]).is_err());
    }
}
