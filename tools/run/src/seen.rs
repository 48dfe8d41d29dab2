//! What a run was seen to need: the active sets of its tokens, kept until they are written as a trace.

use lnp_link::trace::TraceData;
use lnp_model::Model;

/// The active sets of all tokens so far, as bits by layer.
#[derive(Debug, Clone)]
pub struct Seen {
    row_bytes: usize,
    layers: Vec<Vec<u8>>,
}

impl Seen {
    /// Nothing yet, of a model of so many layers and neurons.
    pub fn new(layers: usize, neurons: usize) -> Self {
        Self { row_bytes: neurons.div_ceil(8), layers: vec![Vec::new(); layers] }
    }

    /// Most bytes that so many tokens take; growing may need as much again for a while, of one layer.
    pub fn bytes(layers: usize, neurons: usize, tokens: usize) -> usize {
        neurons.div_ceil(8).saturating_mul(2 * tokens).saturating_mul(layers)
    }

    /// Takes the sets of some tokens, one after the other, in a layer.
    pub(crate) fn take(&mut self, layer: usize, sets: &[Vec<u32>]) {
        let Some(rows) = self.layers.get_mut(layer) else { return };
        for set in sets {
            let begin = rows.len();
            rows.resize(begin + self.row_bytes, 0);
            for id in set {
                if let Some(byte) = rows.get_mut(begin + *id as usize / 8) {
                    *byte |= 1 << (id % 8);
                }
            }
        }
    }

    /// The trace: of one window, without the tokens' ids, which say what was written. `told` is what told the sets.
    pub fn trace(self, model: &Model, told: &str) -> TraceData {
        let tokens = self.layers.first().map_or(0, |rows| rows.len() / self.row_bytes);
        TraceData {
            model: model.checkpoint().name(),
            corpus: "seen".into(),
            split: "seen".into(),
            active: format!("{}, told by {told}", model.config().active_rule()),
            neurons: model.config().neurons,
            tokens,
            window: tokens,
            token_ids: None,
            inputs: None,
            predicted: None,
            synthetic: model.checkpoint().synthetic().map(str::to_owned),
            layers: self.layers,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_token_is_a_row_of_bits() {
        let mut seen = Seen::new(2, 12);
        seen.take(0, &[vec![0, 9, 11], vec![]]);
        seen.take(1, &[vec![3]]);
        seen.take(0, &[vec![8]]);
        seen.take(7, &[vec![8]]);
        assert_eq!(seen.layers, [vec![1, 0b1010, 0, 0, 0, 1], vec![8, 0]]);
        assert_eq!(Seen::bytes(2, 12, 5), 40);
    }
}
