//! What all of a run's memory goes to: told before anything is loaded, and kept to.

use anyhow::{Result, ensure};
use lnp_common::report::bytes;
use serde::Serialize;

/// What the program will take beside what is told of, bytes: its code as far as it runs, threads, small things.
pub const PROGRAM_BYTES_MORE: usize = 6 << 20;

/// Bytes by what they go to. All of them add up to the most memory that the process will hold.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct MemoryPlan {
    /// The program and its tokenizer.
    pub program: usize,
    /// The pack's index, predictors in it too.
    pub index: usize,
    /// Attention, embeddings, head, norms.
    pub model: usize,
    /// What tells which neurons are active: rows, or predictors that are not in the pack, and memory to compute them in.
    pub predictor: usize,
    /// Keys and values of the text.
    pub keys_and_values: usize,
    /// What a pass takes for a while.
    pub scratch: usize,
    /// What the FFN is computed in, and the engine's staging areas, cache and books.
    pub engine: usize,
}

impl MemoryPlan {
    /// Names, as in JSON, and bytes.
    pub fn parts(&self) -> [(&'static str, usize); 7] {
        [
            ("program", self.program),
            ("index", self.index),
            ("model", self.model),
            ("predictor", self.predictor),
            ("keys_and_values", self.keys_and_values),
            ("scratch", self.scratch),
            ("engine", self.engine),
        ]
    }

    /// All of it, bytes.
    pub fn total(&self) -> usize {
        self.parts().iter().map(|(_, bytes)| bytes).sum()
    }

    /// In words, without what there is none of.
    pub fn in_words(&self) -> String {
        let parts = self.parts().into_iter().filter(|(_, bytes)| *bytes > 0);
        let told = parts.map(|(name, count)| {
            let name = if name == "model" { "attention and embeddings" } else { name };
            format!("{} {}", name.replace('_', " "), bytes(count as f64))
        });
        told.collect::<Vec<_>>().join(", ")
    }

    /// What a limit leaves for the engine's arena, where all else is known and the arena needs at least so much.
    ///
    /// # Errors
    /// A limit that is too small, with what is needed at least and for what.
    pub fn left_for_arena(&self, limit: usize, least: usize) -> Result<usize> {
        let needed = Self { engine: self.engine + least, ..*self };
        ensure!(
            needed.total() <= limit,
            "--memory {limit} is too small: at least {} bytes are needed: {}",
            needed.total(),
            needed.in_words()
        );
        Ok(limit - self.total())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_add_up_and_limits_are_kept() {
        let plan = MemoryPlan {
            program: 30 << 20,
            index: 1 << 20,
            model: 5 << 20,
            engine: 1000,
            ..Default::default()
        };
        assert_eq!(plan.total(), (36 << 20) + 1000);
        assert_eq!(plan.left_for_arena((36 << 20) + 5000, 4000).unwrap(), 4000);
        let told = plan.left_for_arena((36 << 20) + 4999, 4000).unwrap_err().to_string();
        assert!(told.contains(&((36 << 20) + 5000).to_string()), "{told}");
        assert!(told.contains("attention and embeddings 5.0 MiB"), "{told}");
        assert!(!told.contains("keys"), "{told}");
    }
}
