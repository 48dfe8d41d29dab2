//! A page of sections as one HTML file: no script, no font and no picture from elsewhere, light and dark as the reader's
//! screen is, narrow enough for a phone, and fit to be printed. Every picture has its words and its numbers.

use std::fmt::Write as _;

use plotters::style::RGBColor;

use crate::study::matrix::escaped;

/// What stands under one heading.
#[derive(Debug, Default)]
pub(super) struct Section {
    /// For links within the page; letters only.
    pub(super) id: &'static str,
    pub(super) heading: String,
    /// Paragraphs.
    pub(super) words: Vec<String>,
    pub(super) figures: Vec<Figure>,
    pub(super) tables: Vec<Table>,
}

/// A picture.
#[derive(Debug)]
pub(super) struct Figure {
    pub(super) title: String,
    /// What it shows, for those who do not see it.
    pub(super) told: String,
    /// The picture as SVG, whatever its first line is.
    pub(super) svg: String,
    /// Name and colour of each line.
    pub(super) legend: Vec<(String, String)>,
    /// Whether it is in shades of grey, which turn about on a dark screen.
    pub(super) grey: bool,
}

/// A table.
#[derive(Debug, Default)]
pub(super) struct Table {
    pub(super) caption: String,
    pub(super) head: Vec<String>,
    pub(super) rows: Vec<Vec<String>>,
    /// Of each row the length of its bar, 0 to 1, and its colour; empty for none.
    pub(super) bars: Vec<(f64, String)>,
    /// Whether it is shown only when it is asked for: the numbers of a picture.
    pub(super) folded: bool,
}

/// Names of columns.
pub(super) fn heads(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

/// A colour as CSS.
pub(super) fn css(RGBColor(red, green, blue): RGBColor) -> String {
    format!("#{red:02X}{green:02X}{blue:02X}")
}

/// The page.
pub(super) fn page(title: &str, lead: &[String], sections: &[Section], foot: &[String]) -> String {
    let mut out =
        String::from("<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n");
    out += "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n";
    out += "<meta name=\"color-scheme\" content=\"light dark\">\n<link rel=\"icon\" href=\"data:,\">\n";
    let _ = writeln!(out, "<title>{}</title>", escaped(title));
    let _ = writeln!(out, "<style>\n{}</style>\n</head>\n<body>\n<main>", include_str!("page.css"));
    let _ = writeln!(out, "<h1>{}</h1>", escaped(title));
    paragraphs(&mut out, lead, "lead");
    out += "<nav aria-label=\"Contents\"><ul>\n";
    for Section { id, heading, .. } in sections {
        let _ = writeln!(out, "<li><a href=\"#{id}\">{}</a></li>", escaped(heading));
    }
    out += "</ul></nav>\n";
    sections.iter().for_each(|section| section.render(&mut out));
    out += "<footer>\n";
    paragraphs(&mut out, foot, "foot");
    out + "</footer>\n</main>\n</body>\n</html>\n"
}

fn paragraphs(out: &mut String, words: &[String], class: &str) {
    for words in words {
        let _ = writeln!(out, "<p class=\"{class}\">{}</p>", escaped(words));
    }
}

impl Section {
    fn render(&self, out: &mut String) {
        let Self { id, heading, .. } = self;
        let _ = writeln!(out, "<section id=\"{id}\" aria-labelledby=\"{id}-heading\">");
        let _ = writeln!(out, "<h2 id=\"{id}-heading\">{}</h2>", escaped(heading));
        paragraphs(out, &self.words, "words");
        if !self.figures.is_empty() {
            out.push_str("<div class=\"figures\">\n");
            for (at, figure) in self.figures.iter().enumerate() {
                figure.render(out, &format!("{id}-{at}"));
            }
            out.push_str("</div>\n");
        }
        self.tables.iter().for_each(|table| table.render(out));
        out.push_str("</section>\n");
    }
}

impl Figure {
    fn render(&self, out: &mut String, id: &str) {
        let class = if self.grey { " class=\"grey\"" } else { "" };
        let _ = writeln!(out, "<figure{class}>\n<figcaption>{}</figcaption>", escaped(&self.title));
        let (title, told) = (escaped(&self.title), escaped(&self.told));
        // Its own size would keep it from fitting the page.
        let (head, body) = self.svg.split_once('>').unwrap_or(("", ""));
        let view = head.split_once("viewBox=\"").and_then(|(_, rest)| rest.split_once('"'));
        let _ = write!(
            out,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"{}\" font-family=\"sans-serif\" font-size=\"13\" role=\"img\" \
             aria-labelledby=\"{id}-title {id}-told\">\n<title id=\"{id}-title\">{title}</title>\n\
             <desc id=\"{id}-told\">{told}</desc>{body}",
            view.map_or("", |(view, _)| view)
        );
        if !self.legend.is_empty() {
            out.push_str("<ul class=\"legend\">\n");
            for (name, colour) in &self.legend {
                let _ = writeln!(
                    out,
                    "<li><svg class=\"key\" viewBox=\"0 0 24 12\" aria-hidden=\"true\"><path d=\"M0 6h24\" stroke=\"{colour}\" \
                     stroke-width=\"{}\"/></svg>{}</li>",
                    if self.grey { 12 } else { 3 },
                    escaped(name)
                );
            }
            out.push_str("</ul>\n");
        }
        out.push_str("</figure>\n");
    }
}

impl Table {
    fn render(&self, out: &mut String) {
        let caption = escaped(&self.caption);
        if self.folded {
            let _ = writeln!(out, "<details>\n<summary>{caption}</summary>");
        }
        // A region that is scrolled must be reachable by keys.
        let _ = writeln!(
            out,
            "<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"{caption}\">\n<table>"
        );
        if !self.folded {
            let _ = writeln!(out, "<caption>{caption}</caption>");
        }
        let cells = |cells: &mut dyn Iterator<Item = String>| {
            cells.fold(String::new(), |line, cell| line + &cell)
        };
        let bar_head = if self.bars.is_empty() { "" } else { "<td></td>" };
        let head = cells(
            &mut self.head.iter().map(|name| format!("<th scope=\"col\">{}</th>", escaped(name))),
        );
        let head = head.replacen("</th>", &format!("</th>{bar_head}"), 1);
        let _ = writeln!(out, "<thead><tr>{head}</tr></thead>\n<tbody>");
        for (at, row) in self.rows.iter().enumerate() {
            let bar = self.bars.get(at).map_or(String::new(), |(length, colour)| {
                format!(
                    "<td class=\"bar\"><svg viewBox=\"0 0 100 10\" preserveAspectRatio=\"none\" aria-hidden=\"true\">\
                     <rect width=\"{:.2}\" height=\"10\" fill=\"{colour}\"/></svg></td>",
                    100.0 * length.clamp(0.0, 1.0)
                )
            });
            let line = cells(&mut row.iter().enumerate().map(|(column, cell)| match column {
                // Beside the name, where a narrow screen shows it too.
                0 => format!("<th scope=\"row\">{}</th>{bar}", escaped(cell)),
                _ => format!("<td>{}</td>", escaped(cell)),
            }));
            let _ = writeln!(out, "<tr>{line}</tr>");
        }
        out.push_str("</tbody>\n</table>\n</div>\n");
        if self.folded {
            out.push_str("</details>\n");
        }
    }
}
