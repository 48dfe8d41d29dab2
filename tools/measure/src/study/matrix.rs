//! Pictures of a matrix in shades of grey, as SVG: one path of dashes a shade, so that the file stays small.

use std::fmt::Write as _;

/// Shades besides white.
const SHADES: usize = 8;
/// Pixels of a value's side.
const SIDE: usize = 4;
/// Pixels to the left of each picture, for the numbers of its axis; above it, for titles; below it, for
/// its other axis and the note; and to the right of all, for the scale.
const LEFT: usize = 64;
const HEAD: usize = 56;
const FOOT: usize = 76;
const SCALE_WIDTH: usize = 150;

/// Square matrices side by side, row by row: 0 is white and `black` or more is black.
pub struct Matrices<'a> {
    /// What they show.
    pub title: &'a str,
    /// What they are of, in small letters below.
    pub note: &'a str,
    /// What is on both axes, from 0 to `most`.
    pub axis: &'a str,
    /// Where both axes end.
    pub most: usize,
    /// Values a side.
    pub side: usize,
    /// What is the scale of.
    pub scale: &'a str,
    /// The value that is black.
    pub black: f64,
    /// How a value is written beside the scale.
    pub told: &'a dyn Fn(f64) -> String,
    /// Each with its title.
    pub matrices: &'a [(String, Vec<f64>)],
}

impl Matrices<'_> {
    /// The picture.
    pub fn draw(&self) -> String {
        let picture = self.side * SIDE;
        let scale_x = self.matrices.len() * (picture + LEFT) + 28;
        let (width, height) = (scale_x + SCALE_WIDTH, HEAD + picture + FOOT);
        let mut out = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" \
             width=\"{width}\" height=\"{height}\" font-family=\"sans-serif\" font-size=\"12\">\n\
             <rect width=\"{width}\" height=\"{height}\" fill=\"white\"/>\n\
             <text x=\"{LEFT}\" y=\"22\" font-size=\"16\">{}</text>\n",
            escaped(self.title)
        );
        for (at, (name, values)) in self.matrices.iter().enumerate() {
            self.matrix(&mut out, LEFT + at * (picture + LEFT), name, values);
        }
        self.scale(&mut out, scale_x);
        let note_y = height - 12;
        // Writing to a string does not fail.
        let _ = writeln!(
            out,
            "<text x=\"14\" y=\"{note_y}\" fill=\"#666\">{}</text>",
            escaped(self.note)
        );
        out + "</svg>\n"
    }

    /// One of the pictures alone, without title, scale and note: they stand beside it.
    pub(crate) fn draw_one(&self, at: usize) -> String {
        let picture = self.side * SIDE;
        let (width, height, top) = (LEFT + picture + 12, picture + 28, HEAD - 6);
        let mut out = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 {top} {width} {height}\" font-family=\"sans-serif\" \
             font-size=\"13\">\n<rect y=\"{top}\" width=\"{width}\" height=\"{height}\" fill=\"white\"/>\n"
        );
        if let Some((_, values)) = self.matrices.get(at) {
            self.matrix(&mut out, LEFT, "", values);
        }
        out + "</svg>\n"
    }

    /// The shades from white on, each with what it stands for.
    pub(crate) fn shades(&self) -> impl Iterator<Item = (String, String)> + '_ {
        (0..=SHADES)
            .map(|shade| (grey(shade), (self.told)(self.black * shade as f64 / SHADES as f64)))
    }

    fn matrix(&self, out: &mut String, x: usize, name: &str, values: &[f64]) {
        let (picture, most) = (self.side * SIDE, self.most);
        let (right, bottom) = (x + picture, HEAD + picture);
        let (middle_x, middle_y) = (x + picture / 2, HEAD + picture / 2);
        let axis = escaped(self.axis);
        let _ = writeln!(
            out,
            "<text x=\"{x}\" y=\"46\" font-size=\"13\">{}</text>\n\
             <rect x=\"{x}\" y=\"{HEAD}\" width=\"{picture}\" height=\"{picture}\" fill=\"none\" stroke=\"#999\"/>\n\
             <g text-anchor=\"middle\"><text x=\"{x}\" y=\"{}\">0</text>\
             <text x=\"{middle_x}\" y=\"{}\">{axis}</text><text x=\"{right}\" y=\"{}\">{most}</text>\
             <text transform=\"translate({} {middle_y}) rotate(-90)\">{axis}</text></g>\n\
             <g text-anchor=\"end\"><text x=\"{}\" y=\"{}\">0</text><text x=\"{}\" y=\"{bottom}\">{most}</text></g>\n\
             <g transform=\"translate({x} {HEAD}) scale({SIDE}) translate(0 .5)\" shape-rendering=\"crispEdges\">",
            escaped(name),
            bottom + 16,
            bottom + 16,
            bottom + 16,
            x - 10,
            x - 6,
            HEAD + 10,
            x - 6,
        );
        for shade in 1..=SHADES {
            let path = self.path(values, shade);
            if !path.is_empty() {
                let _ = writeln!(out, "<path stroke=\"{}\" d=\"{path}\"/>", grey(shade));
            }
        }
        out.push_str("</g>\n");
    }

    /// A box of each shade, with the value that it stands for; the darkest is that and more.
    fn scale(&self, out: &mut String, x: usize) {
        let _ = writeln!(out, "<text x=\"{x}\" y=\"46\">{}</text>", escaped(self.scale));
        for shade in (0..=SHADES).rev() {
            let y = HEAD + (SHADES - shade) * 22;
            let value = (self.told)(self.black * shade as f64 / SHADES as f64);
            let more = if shade == SHADES { " and more" } else { "" };
            let _ = writeln!(
                out,
                "<rect x=\"{x}\" y=\"{y}\" width=\"22\" height=\"22\" fill=\"{}\" stroke=\"#999\"/>\
                 <text x=\"{}\" y=\"{}\">{}{more}</text>",
                grey(shade),
                x + 30,
                y + 15,
                escaped(&value)
            );
        }
    }

    /// The stretches of one shade.
    fn path(&self, values: &[f64], shade: usize) -> String {
        let shade_of =
            |value: f64| ((value / self.black).clamp(0.0, 1.0) * SHADES as f64).round() as usize;
        let mut out = String::new();
        for (y, row) in values.chunks(self.side).enumerate() {
            let mut x = 0;
            for stretch in row.chunk_by(|one, next| shade_of(*one) == shade_of(*next)) {
                if shade_of(stretch[0]) == shade {
                    let _ = write!(out, "M{x} {y}h{}", stretch.len());
                }
                x += stretch.len();
            }
        }
        out
    }
}

fn grey(shade: usize) -> String {
    let grey = 255 - 255 * shade / SHADES;
    format!("#{grey:02x}{grey:02x}{grey:02x}")
}

pub(crate) fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
