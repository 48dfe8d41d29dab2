//! Pictures of a matrix in shades of grey, as SVG: one path of dashes a shade, so that the file stays small.

use std::fmt::Write as _;

/// Shades besides white.
const SHADES: usize = 8;
/// Pixels of a value's side.
const SIDE: usize = 4;
/// Pixels around the pictures, and above them for the titles.
const MARGIN: usize = 20;
const HEAD: usize = 48;

/// Square matrices side by side, each with its title: row by row, 0 is white and 1 black. All are of
/// `side` values a side.
pub fn matrices(title: &str, side: usize, matrices: &[(String, Vec<f64>)]) -> String {
    let picture = side * SIDE;
    let width = MARGIN + matrices.len() * (picture + MARGIN);
    let height = HEAD + picture + MARGIN;
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" \
         width=\"{width}\" height=\"{height}\" font-family=\"sans-serif\">\n\
         <rect width=\"{width}\" height=\"{height}\" fill=\"white\"/>\n\
         <text x=\"{MARGIN}\" y=\"20\" font-size=\"15\">{}</text>\n",
        escaped(title)
    );
    for (at, (name, values)) in matrices.iter().enumerate() {
        let x = MARGIN + at * (picture + MARGIN);
        // Writing to a string does not fail.
        let _ = writeln!(
            out,
            "<text x=\"{x}\" y=\"40\" font-size=\"13\">{}</text>\n\
             <rect x=\"{x}\" y=\"{HEAD}\" width=\"{picture}\" height=\"{picture}\" fill=\"none\" stroke=\"#999\"/>\n\
             <g transform=\"translate({x} {HEAD}) scale({SIDE}) translate(0 .5)\" shape-rendering=\"crispEdges\">",
            escaped(name)
        );
        for shade in 1..=SHADES {
            let path = path(side, values, shade);
            if !path.is_empty() {
                let grey = 255 - 255 * shade / SHADES;
                let _ = writeln!(
                    out,
                    "<path stroke=\"#{grey:02x}{grey:02x}{grey:02x}\" d=\"{path}\"/>"
                );
            }
        }
        out.push_str("</g>\n");
    }
    out + "</svg>\n"
}

/// The stretches of one shade.
fn path(side: usize, values: &[f64], shade: usize) -> String {
    let shade_of = |value: f64| (value.clamp(0.0, 1.0) * SHADES as f64).round() as usize;
    let mut out = String::new();
    for (y, row) in values.chunks(side).enumerate() {
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

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
