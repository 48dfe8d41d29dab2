//! Files for the readers: bytes as they are, or valid files that were then edited.
//!
//! Decoded by hand, so that the tools' tests need nothing more to replay what was found.

#[path = "made_model.rs"]
mod made_model;
#[path = "made_predictors.rs"]
mod made_predictors;

pub use made_predictors::predictors;

use std::fmt::Write;

/// What a file is read as.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    Trace,
    Links,
    Profile,
    Law,
    Model,
    Gguf,
    Predictors,
    /// What was seen to be needed, to relink a pack by.
    Seen,
    /// The weights of a model folder within a pack.
    Resident,
}

/// What is to be read.
#[derive(Debug)]
pub struct Input {
    pub kind: Kind,
    /// The file; of a model folder, config.json.
    pub file: Vec<u8>,
    /// The weights of a model folder.
    pub weights: Vec<u8>,
    /// Layers and neurons of the pack that is relinked.
    pub size: [usize; 2],
    /// Whether it is valid for sure.
    pub valid: bool,
}

/// An input, taken from its front; zeros where it has ended.
pub struct Bytes<'a> {
    rest: &'a [u8],
}

impl<'a> Bytes<'a> {
    pub const fn new(rest: &'a [u8]) -> Self {
        Self { rest }
    }

    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.rest.split_first() else { return 0 };
        self.rest = rest;
        *first
    }

    fn word(&mut self) -> u16 {
        u16::from_le_bytes([self.byte(), self.byte()])
    }

    /// Makes up to sixteen changes, as long as there is input.
    fn edits(&mut self, mut edit: impl FnMut(&mut Self)) {
        for _ in 0..16 {
            if self.rest.is_empty() {
                break;
            }
            edit(self);
        }
    }

    /// 1 to `most`.
    fn count(&mut self, most: u8) -> usize {
        usize::from(self.byte() % most) + 1
    }
}

/// The first byte of a model folder.
const MODEL: u8 = 0xff;
/// The first byte of a GGUF file, which follows as it is: it has no checksum to get behind.
const GGUF: u8 = 0xfe;

/// The first bytes of predictors files: of a valid one that is then edited, and of a header that ends at a zero byte.
const PREDICTORS: u8 = 0xfd;
const PREDICTORS_FRAMED: u8 = 0xfc;
/// Of a trace that is valid but for edits, by which a pack is relinked.
const SEEN: u8 = 0xfb;
/// Of a model folder whose weights lie in a pack.
const RESIDENT: u8 = 0xfa;

impl Input {
    fn of(kind: Kind, file: Vec<u8>, valid: bool) -> Self {
        Self { kind, file, weights: Vec::new(), size: [0; 2], valid }
    }
}

/// Takes it from its front.
pub fn input(bytes: &mut Bytes<'_>) -> Input {
    let mode = bytes.byte();
    let any = |kind, file| Input::of(kind, file, false);
    match mode {
        MODEL => return made_model::input(bytes, Kind::Model),
        RESIDENT => return made_model::input(bytes, Kind::Resident),
        GGUF => return any(Kind::Gguf, bytes.rest.to_vec()),
        PREDICTORS_FRAMED => return any(Kind::Predictors, framed(bytes.rest)),
        PREDICTORS => {
            let mut made = predictors(bytes);
            let valid = bytes.rest.is_empty();
            bytes.edits(|bytes| made.edit(bytes));
            return Input::of(Kind::Predictors, made.bytes(), valid);
        }
        SEEN => return seen(bytes),
        _ => (),
    }
    match mode % 8 {
        0 => any(Kind::Trace, bytes.rest.to_vec()),
        1 => any(Kind::Links, bytes.rest.to_vec()),
        2 => any(Kind::Profile, bytes.rest.to_vec()),
        3 => any(Kind::Law, bytes.rest.to_vec()),
        // The length of the header is right, whatever it holds: it ends at a zero byte.
        4 => any(Kind::Trace, framed(bytes.rest)),
        5 => any(Kind::Links, framed(bytes.rest)),
        mode => {
            let kind = if mode == 6 { Kind::Trace } else { Kind::Links };
            let mut made = if mode == 6 { trace(bytes) } else { links(bytes) };
            let valid = bytes.rest.is_empty();
            bytes.edits(|bytes| made.edit(bytes));
            Input::of(kind, made.bytes(), valid)
        }
    }
}

fn framed(rest: &[u8]) -> Vec<u8> {
    let end = rest.iter().position(|byte| *byte == 0).unwrap_or(rest.len());
    let header = rest[..end].to_vec();
    Made { header, data: rest.get(end + 1..).unwrap_or_default().to_vec() }.bytes()
}

/// A safetensors file.
#[derive(Debug)]
pub struct Made {
    header: Vec<u8>,
    data: Vec<u8>,
}

/// A tensor's name, type, shape and bytes.
type Tensor = (String, &'static str, Vec<usize>, Vec<u8>);

impl Made {
    fn new(metadata: &[(&str, String)], tensors: Vec<Tensor>) -> Self {
        let quoted = |(key, value): &(&str, String)| {
            format!("\"{key}\":\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\""))
        };
        let metadata: Vec<String> = metadata.iter().map(quoted).collect();
        let mut header = format!("{{\"__metadata__\":{{{}}}", metadata.join(","));
        let mut data = Vec::new();
        for (name, dtype, shape, bytes) in tensors {
            let (begin, end) = (data.len(), data.len() + bytes.len());
            let tensor = format!(
                ",\"{name}\":{{\"dtype\":\"{dtype}\",\"shape\":{shape:?},\"data_offsets\":[{begin},{end}]}}"
            );
            header.push_str(&tensor);
            data.extend(bytes);
        }
        header.push('}');
        Self { header: header.into_bytes(), data }
    }

    /// The file.
    pub fn bytes(&self) -> Vec<u8> {
        [&(self.header.len() as u64).to_le_bytes(), &self.header[..], &self.data].concat()
    }

    /// Changes a number of the header, a byte of it, or the data.
    fn edit(&mut self, bytes: &mut Bytes<'_>) {
        match bytes.byte() % 6 {
            0..3 => edit_number(&mut self.header, bytes),
            3 => edit_byte(&mut self.header, bytes),
            4 => edit_byte(&mut self.data, bytes),
            _ => {
                let length = self.data.len() + 256 + usize::from(bytes.byte()) * 4;
                self.data.resize(length.saturating_sub(512), 0);
            }
        }
    }
}

/// One byte becomes another.
fn edit_byte(text: &mut [u8], bytes: &mut Bytes<'_>) {
    let (at, value) = (usize::from(bytes.word()), bytes.byte());
    let length = text.len().max(1);
    text.get_mut(at % length).into_iter().for_each(|byte| *byte = value);
}

/// One of the numbers of a text becomes another.
fn edit_number(text: &mut Vec<u8>, bytes: &mut Bytes<'_>) {
    let which = usize::from(bytes.word());
    let digit = |at: usize| text.get(at).is_some_and(u8::is_ascii_digit);
    let begins: Vec<usize> =
        (0..text.len()).filter(|at| digit(*at) && (*at == 0 || !digit(at - 1))).collect();
    if begins.is_empty() {
        return;
    }
    let begin = begins[which % begins.len()];
    let end = (begin..).find(|at| !digit(*at)).unwrap_or(text.len());
    let old = String::from_utf8_lossy(&text[begin..end]).parse().unwrap_or(0_u64);
    let new = match bytes.byte() % 16 {
        0 => "0".to_owned(),
        1 => "1".to_owned(),
        2 => u32::MAX.to_string(),
        3 => (u64::from(u32::MAX) + 1).to_string(),
        4 => u64::MAX.to_string(),
        5 => "18446744073709551616".to_owned(),
        6 => "-1".to_owned(),
        7 => "1e9".to_owned(),
        8 => String::new(),
        9 => (u64::MAX - old).to_string(),
        10 => (old.wrapping_mul(2)).to_string(),
        11 => (1_u64 << (bytes.byte() % 64)).to_string(),
        12 => bytes.word().to_string(),
        13 => format!("0{old}"),
        _ => old.wrapping_add_signed(i64::from(bytes.byte()) - 128).to_string(),
    };
    text.splice(begin..end, new.into_bytes());
}

/// A valid trace.
pub fn trace(bytes: &mut Bytes<'_>) -> Made {
    let size = [bytes.count(12), bytes.count(40), bytes.count(10)];
    trace_of(bytes, size)
}

/// What was seen: of one more token than are needed to learn from, or some fewer.
fn seen(bytes: &mut Bytes<'_>) -> Input {
    let size = [bytes.count(3), bytes.count(40)];
    let fewer = bytes.byte().saturating_sub(250);
    let mut made = trace_of(bytes, [size[0], size[1], 65 - usize::from(fewer)]);
    let valid = bytes.rest.is_empty() && fewer < 2;
    bytes.edits(|bytes| made.edit(bytes));
    Input { size, ..Input::of(Kind::Seen, made.bytes(), valid) }
}

fn trace_of(bytes: &mut Bytes<'_>, [layers, neurons, tokens]: [usize; 3]) -> Made {
    let (window, options) = (bytes.count(20), bytes.byte());
    let (with_ids, with_counts) = (options.is_multiple_of(2), options & 0x10 != 0);
    let bits = bytes.byte();
    let row = neurons.div_ceil(8);
    let layer = |number: usize| {
        let mut rows = Vec::new();
        for at in 0..tokens * row {
            let last = at % row == row - 1 && neurons % 8 != 0;
            let mask = if last { (1 << (neurons % 8)) - 1 } else { 0xff };
            rows.push(bits.wrapping_mul((at + number) as u8) & mask);
        }
        (format!("layer.{number}"), "U8", vec![tokens, row], rows)
    };
    let mut tensors: Vec<Tensor> = (0..layers).map(layer).collect();
    if with_ids {
        let ids = (0..tokens as u32).flat_map(u32::to_le_bytes).collect();
        tensors.insert(0, ("token_ids".to_owned(), "I32", vec![tokens], ids));
    }
    // As a recorder counts: of more tokens than it keeps.
    let counted_tokens = 3 * tokens;
    if with_counts {
        for layer in 0..layers {
            let count = |neuron| (neuron * usize::from(bits) + layer) % (counted_tokens + 1);
            let counts = (0..neurons).flat_map(|neuron| (count(neuron) as u16).to_le_bytes());
            tensors.push((format!("counts.{layer}"), "U16", vec![neurons], counts.collect()));
        }
    }
    let metadata = [
        ("active", "relu(fc1)>0".to_owned()),
        ("bitorder", "little".to_owned()),
        ("corpus", "c \"quoted\"".to_owned()),
        ("counted_tokens", counted_tokens.to_string()),
        ("format", "ffn-activation-bits-v1".to_owned()),
        ("layers", layers.to_string()),
        ("model", "m".to_owned()),
        ("neurons", neurons.to_string()),
        ("split", "test".to_owned()),
        ("tokens", tokens.to_string()),
        ("window", window.to_string()),
    ];
    Made::new(&metadata, tensors)
}

/// A valid links file.
pub fn links(bytes: &mut Bytes<'_>) -> Made {
    let (layers, neurons, placements) = (bytes.count(5), bytes.count(20), bytes.count(3));
    let (turn, link) = (usize::from(bytes.byte()), bytes.count(20));
    let words = |values: &[usize]| values.iter().flat_map(|v| (*v as u32).to_le_bytes()).collect();
    let mut tensors: Vec<Tensor> = Vec::new();
    for layer in 0..layers {
        let counts: Vec<usize> = (0..neurons).map(|neuron| neuron % 8).collect();
        tensors.push((format!("active_count.{layer}"), "U32", vec![neurons], words(&counts)));
        for placement in 0..placements {
            let mut name = format!("{layer}");
            if placement > 0 {
                let _ = write!(name, ".{placement}");
            }
            let mut order: Vec<usize> = (0..neurons).collect();
            order.rotate_left((turn + layer + placement) % neurons);
            let mut begins: Vec<usize> = (0..neurons).step_by(link).collect();
            begins.push(neurons);
            let length = begins.len();
            tensors.push((format!("link_begin.{name}"), "U32", vec![length], words(&begins)));
            tensors.push((format!("neuron_of_slot.{name}"), "U32", vec![neurons], words(&order)));
        }
    }
    let traces = format!("[{{\"file\":\"a.safetensors\",\"sha256\":\"{}\"}}]", "0f".repeat(32));
    let mut metadata = vec![
        ("corpora", "alpaca".to_owned()),
        ("format", "lnp-links-v1".to_owned()),
        ("layers", layers.to_string()),
        ("model", "m".to_owned()),
        ("neurons", neurons.to_string()),
        ("order", if turn.is_multiple_of(2) { "greedy" } else { "random" }.to_owned()),
        ("profile_tokens", "10".to_owned()),
        ("seed", "7".to_owned()),
        ("tool", "lnp 0".to_owned()),
        ("traces", traces),
    ];
    if placements > 1 {
        metadata.push(("placements", placements.to_string()));
    }
    Made::new(&metadata, tensors)
}
