//! Any sequence of what a recorder may be told, right or wrong, beside a list of all of it.

use arbitrary::Arbitrary;
use lnp_engine::recorder::{Recorder, RecorderConfig};

use crate::packs::Recipe;

/// A recorder and what it is told.
#[derive(Arbitrary, Debug)]
pub struct Case {
    layers: u8,
    neurons: u8,
    kept: u8,
    more: u8,
    seed: u8,
    steps: Vec<Step>,
}

#[derive(Arbitrary, Debug)]
enum Step {
    /// Whole passes of so many tokens, all layers.
    Passes { passes: u8, tokens: u8, sets: u8 },
    /// One layer, whichever; the sets as bits, a byte of neurons each.
    Layer(u8, Vec<u8>),
    /// Ids as they are.
    Wild(u8, Vec<u8>),
    /// The file, in parts of so many bytes.
    Read(u8),
}

/// The sets of a token, by layer.
type Token = Vec<Option<Vec<u32>>>;

/// All that was told.
struct Told {
    layers: u32,
    /// Tokens of passes that are over, told in all layers.
    whole: Vec<Token>,
    pass: Vec<Token>,
    next_layer: u32,
    /// Whether every pass was whole: then nothing is lost.
    all_whole: bool,
    counts: Vec<Vec<u32>>,
    counted: u64,
}

impl Told {
    /// The tokens that are whole now.
    fn whole_now(&self) -> Vec<&Token> {
        let pass = self.pass.iter().filter(|token| token.iter().all(Option::is_some));
        self.whole.iter().chain(pass).collect()
    }

    fn take(&mut self, layer: u32, sets: &[Vec<u32>], span: u64) {
        if layer < self.next_layer || self.pass.len() != sets.len() {
            let pass = std::mem::take(&mut self.pass);
            let is_whole = |token: &Token| token.iter().all(Option::is_some);
            self.all_whole &= pass.iter().all(is_whole);
            self.whole.extend(pass.into_iter().filter(is_whole));
            self.pass = vec![vec![None; self.layers as usize]; sets.len()];
            while self.counted > 0 && self.counted + sets.len() as u64 > 2 * span {
                self.counted /= 2;
                self.counts.iter_mut().flatten().for_each(|count| *count /= 2);
            }
            self.counted += sets.len() as u64;
        }
        for (token, set) in self.pass.iter_mut().zip(sets) {
            token[layer as usize] = Some(set.clone());
            set.iter().for_each(|neuron| self.counts[layer as usize][*neuron as usize] += 1);
        }
        self.next_layer = layer + 1;
    }
}

/// Tells it, and compares after each step.
pub fn run(case: &Case) {
    let (layers, neurons) = (u32::from(case.layers % 4) + 1, u32::from(case.neurons % 40) + 1);
    let kept_tokens = u32::from(case.kept % 12) + 1;
    let span_tokens = kept_tokens + u32::from(case.more % 30);
    let config = RecorderConfig { kept_tokens, span_tokens, seed: case.seed.into() };
    let shape = Recipe::small(layers, neurons).shape;
    let mut memory = vec![0x5a; Recorder::required_bytes(&shape, &config).expect("valid")];
    let mut recorder = Recorder::new(&shape, &config, &mut memory).expect("enough memory");
    let counts = vec![vec![0; neurons as usize]; layers as usize];
    let mut told = Told {
        layers,
        whole: Vec::new(),
        pass: Vec::new(),
        next_layer: 0,
        all_whole: true,
        counts,
        counted: 0,
    };
    let drawn = |bits: u8, layer: u32| -> Vec<u32> {
        (0..neurons)
            .filter(|neuron| bits.rotate_left(layer + neuron / 8) >> (neuron % 8) & 1 == 1)
            .collect()
    };
    for step in case.steps.iter().take(100) {
        match step {
            Step::Passes { passes, tokens, sets } => {
                for pass in 0..passes % 20 {
                    for layer in 0..layers {
                        let of =
                            |token| drawn(sets.wrapping_mul(pass + 1).wrapping_add(token), layer);
                        let sets: Vec<Vec<u32>> = (0..tokens % 5).map(of).collect();
                        recorder.take(layer, &sets).expect("a valid pass");
                        told.take(layer, &sets, span_tokens.into());
                    }
                }
            }
            Step::Layer(layer, sets) => {
                let layer = u32::from(*layer) % layers;
                let sets: Vec<Vec<u32>> =
                    sets.iter().take(9).map(|bits| drawn(*bits, layer)).collect();
                recorder.take(layer, &sets).expect("a valid layer");
                told.take(layer, &sets, span_tokens.into());
            }
            Step::Wild(layer, ids) => {
                let (layer, set): (u32, Vec<u32>) =
                    ((*layer).into(), ids.iter().map(|id| (*id).into()).collect());
                let right = layer < layers
                    && set.is_sorted_by(|a, b| a < b)
                    && set.last().is_none_or(|last| *last < neurons);
                assert_eq!(recorder.take(layer, &[&set]).is_ok(), right);
                if right {
                    told.take(layer, &[set], span_tokens.into());
                }
            }
            Step::Read(bytes) => check(&recorder, &told, &config, neurons, usize::from(*bytes) + 1),
        }
    }
    check(&recorder, &told, &config, neurons, 4096);
}

/// What is taken out is whole tokens, as they came, and counts of all.
fn check(
    recorder: &Recorder<'_>,
    told: &Told,
    config: &RecorderConfig,
    neurons: u32,
    part_bytes: usize,
) {
    let whole = told.whole_now();
    assert_eq!(recorder.seen_tokens(), whole.len() as u64);
    assert_eq!(recorder.counted_tokens(), told.counted);
    for (layer, counts) in (0..).zip(&told.counts) {
        assert!(
            recorder.counts(layer).iter().map(|count| u32::from(*count)).eq(counts.iter().copied())
        );
    }
    let (kept, most) = (recorder.kept_tokens(), config.kept_tokens as usize);
    let pass_is_whole = told.pass.iter().all(|token| token.iter().all(Option::is_some));
    assert!(kept <= whole.len().min(most));
    assert!(kept == whole.len().min(most) || !told.all_whole || !pass_is_whole);

    let entries = [("model", "\"\\\n")];
    let (mut file, mut part) = (Vec::new(), vec![0; part_bytes]);
    loop {
        let copied = recorder.read(&entries, file.len() as u64, &mut part);
        file.extend(&part[..copied]);
        if copied < part_bytes {
            break;
        }
    }
    assert_eq!(file.len() as u64, recorder.bytes(&entries));
    if kept == 0 {
        assert!(file.is_empty());
        return;
    }
    let header = u64::from_le_bytes(*file.first_chunk().expect("a header's length")) as usize;
    let row_bytes = neurons.div_ceil(8) as usize;
    let data = &file[8 + header..];
    assert_eq!(data.len(), told.layers as usize * (kept * row_bytes + 2 * neurons as usize));
    let mut rest = whole.into_iter();
    for token in 0..kept {
        let row = |layer: usize| &data[(layer * kept + token) * row_bytes..][..row_bytes];
        let found = rest.any(|whole| {
            whole.iter().enumerate().all(|(layer, set)| {
                let set = set.as_deref().unwrap_or_default();
                let active = |neuron: u32| row(layer)[neuron as usize / 8] >> (neuron % 8) & 1 == 1;
                (0..neurons).filter(|neuron| active(*neuron)).eq(set.iter().copied())
            })
        });
        assert!(found, "row {token} is no whole token, or out of order");
    }
}
