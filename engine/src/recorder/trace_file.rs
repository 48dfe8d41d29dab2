//! The trace file of what was kept, byte for byte, made anew for any part of it: no buffer for a header is needed.

use core::fmt::{self, Write};

use super::{NONE, Recorder, row_bytes};

/// The data begin at a multiple of this.
const HEADER_ALIGN: u64 = 8;
/// The header is preceded by its length, a little-endian u64.
const PREFIX_BYTES: u64 = 8;

impl Recorder<'_> {
    /// Tokens that the trace has now.
    pub fn kept_tokens(&self) -> usize {
        self.kept_rows().count()
    }

    /// Copies a part of the trace file from byte `offset` on, as much as `part` takes or is left, and returns how many
    /// bytes that is. Nothing where no token was told of in all layers. A safetensors file: per layer the tensor `layer.{i}`,
    /// U8 `[tokens, ceil(neurons / 8)]`, bit k of byte j = neuron 8j + k, tokens as they came; and `counts.{i}`, U16
    /// `[neurons]`. Its metadata are those of every trace, and `entries` (keys that are none of those, texts in UTF-8).
    /// It is the same file until [`Recorder::take`] is called again.
    pub fn read(&self, entries: &[(&str, &str)], offset: u64, part: &mut [u8]) -> usize {
        let tokens = self.kept_tokens();
        if tokens == 0 {
            return 0;
        }
        let mut counted = Window { at: 0, from: 0, part: &mut [] };
        // Nothing but a `Window` can fail here, and that does not.
        let _ = self.header(&mut counted, entries, tokens);
        let header_bytes = counted.at.next_multiple_of(HEADER_ALIGN);
        let padding = header_bytes - counted.at;
        let mut window = Window { at: 0, from: offset, part };
        window.put(header_bytes.to_le_bytes().as_slice());
        let _ = self.header(&mut window, entries, tokens);
        (0..padding).for_each(|_| window.put(b" "));
        let row_bytes = row_bytes(self.neurons).max(1);
        let layer_bytes = row_bytes * self.config.kept_tokens as usize;
        for rows in self.rows.chunks_exact(layer_bytes.max(1)) {
            if window.passes((tokens * row_bytes) as u64) {
                continue;
            }
            for row in self.kept_rows() {
                window.put(rows.chunks_exact(row_bytes).nth(row).unwrap_or_default());
            }
        }
        for counts in self.counts.chunks_exact((self.neurons as usize).max(1)) {
            if !window.passes(2 * counts.len() as u64) {
                counts.iter().for_each(|count| window.put(count.to_le_bytes().as_slice()));
            }
        }
        window.at.min(window.end()).saturating_sub(offset) as usize
    }

    /// Bytes of the whole trace file; 0 where it has no token.
    pub fn bytes(&self, entries: &[(&str, &str)]) -> u64 {
        let tokens = self.kept_tokens();
        if tokens == 0 {
            return 0;
        }
        let mut counted = Window { at: 0, from: 0, part: &mut [] };
        let _ = self.header(&mut counted, entries, tokens);
        let (layers, neurons) = (u64::from(self.layers), u64::from(self.neurons));
        let of_layer = tokens as u64 * row_bytes(self.neurons) as u64 + 2 * neurons;
        PREFIX_BYTES + counted.at.next_multiple_of(HEADER_ALIGN) + layers * of_layer
    }

    /// Rows of whole tokens, by the tokens' numbers.
    fn kept_rows(&self) -> impl Iterator<Item = usize> {
        let used = self.order.iter().take(self.used).map(|row| *row as usize);
        used.filter(|row| {
            self.token_of_row.get(*row).is_some_and(|token| *token != NONE)
                && self.layers_of_row.get(*row) == Some(&self.layers)
        })
    }

    /// The header, without its padding.
    fn header(&self, out: &mut Window<'_>, entries: &[(&str, &str)], tokens: usize) -> fmt::Result {
        let (layers, neurons) = (self.layers, self.neurons);
        write!(out, r#"{{"__metadata__":{{"bitorder":"little","corpus":"seen""#)?;
        write!(out, r#","counted_tokens":"{}""#, self.counted_tokens)?;
        write!(out, r#","format":"ffn-activation-bits-v1","layers":"{layers}""#)?;
        write!(out, r#","neurons":"{neurons}","seen_tokens":"{}""#, self.seen_tokens())?;
        write!(out, r#","split":"seen","tokens":"{tokens}","window":"{tokens}""#)?;
        for (key, value) in entries {
            write!(out, r#","{}":"{}""#, Json(key), Json(value))?;
        }
        out.write_str("}")?;
        let row_bytes = row_bytes(neurons);
        let mut begin = 0;
        let mut tensor = |out: &mut Window<'_>, what: fmt::Arguments<'_>, bytes: u64| {
            let end = begin + bytes;
            write!(out, r#",{what},"data_offsets":[{begin},{end}]}}"#)?;
            begin = end;
            Ok(())
        };
        for layer in 0..layers {
            let bytes = tokens as u64 * row_bytes as u64;
            let what =
                format_args!(r#""layer.{layer}":{{"dtype":"U8","shape":[{tokens},{row_bytes}]"#);
            tensor(out, what, bytes)?;
        }
        for layer in 0..layers {
            let what = format_args!(r#""counts.{layer}":{{"dtype":"U16","shape":[{neurons}]"#);
            tensor(out, what, 2 * u64::from(neurons))?;
        }
        out.write_str("}")
    }
}

/// The part of a file that is asked for, while all of the file goes by.
struct Window<'w> {
    /// Where in the file we are.
    at: u64,
    /// Where the part begins.
    from: u64,
    part: &'w mut [u8],
}

impl Window<'_> {
    /// Where the part ends.
    fn end(&self) -> u64 {
        self.from.saturating_add(self.part.len() as u64)
    }

    /// These bytes go by.
    fn put(&mut self, bytes: &[u8]) {
        let (begin, end) = (self.at, self.at + bytes.len() as u64);
        self.at = end;
        let (first, last) = (begin.max(self.from), end.min(self.end()));
        if first >= last {
            return;
        }
        let from = bytes.get((first - begin) as usize..(last - begin) as usize);
        let to = self.part.get_mut((first - self.from) as usize..(last - self.from) as usize);
        if let (Some(from), Some(to)) = (from, to) {
            to.iter_mut().zip(from).for_each(|(to, from)| *to = *from);
        }
    }

    /// Whether all of so many bytes lie outside the part; they go by then.
    fn passes(&mut self, bytes: u64) -> bool {
        let end = self.at + bytes;
        let outside = end <= self.from || self.at >= self.end();
        if outside {
            self.at = end;
        }
        outside
    }
}

impl Write for Window<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.put(text.as_bytes());
        Ok(())
    }
}

/// A text within quotes in JSON.
struct Json<'t>(&'t str);

impl fmt::Display for Json<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|char| match char {
            '"' | '\\' => write!(f, "\\{char}"),
            '\0'..'\x20' => write!(f, "\\u{:04x}", u32::from(char)),
            _ => f.write_char(char),
        })
    }
}
