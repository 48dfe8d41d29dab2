//! Where the time of a token goes.

use std::ops::{Add, AddAssign, Sub};
use std::time::{Duration, Instant};

/// Time by what it went to; those of several tokens add up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Times {
    /// Embeddings, norms, attention.
    pub attention: Duration,
    /// Telling which neurons are active.
    pub prediction: Duration,
    /// Waiting for reads, with nothing to compute meanwhile.
    pub waiting: Duration,
    /// The rest of the FFN: planning, submitting reads, computing.
    pub ffn: Duration,
    /// Last norm and head.
    pub head: Duration,
    /// Choosing the token.
    pub sampling: Duration,
    /// Its text, and printing it.
    pub text: Duration,
}

impl Times {
    /// All parts with their names, in the order of the way through the model.
    pub fn parts(&self) -> [(&'static str, Duration); 7] {
        [
            ("attention", self.attention),
            ("prediction", self.prediction),
            ("waiting", self.waiting),
            ("ffn", self.ffn),
            ("head", self.head),
            ("sampling", self.sampling),
            ("text", self.text),
        ]
    }

    /// What is told.
    pub fn total(&self) -> Duration {
        self.parts().into_iter().map(|(_, part)| part).sum()
    }

    fn each(self, other: Self, of: fn(Duration, Duration) -> Duration) -> Self {
        Self {
            attention: of(self.attention, other.attention),
            prediction: of(self.prediction, other.prediction),
            waiting: of(self.waiting, other.waiting),
            ffn: of(self.ffn, other.ffn),
            head: of(self.head, other.head),
            sampling: of(self.sampling, other.sampling),
            text: of(self.text, other.text),
        }
    }
}

impl Add for Times {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        self.each(other, Add::add)
    }
}

impl AddAssign for Times {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl Sub for Times {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        self.each(other, Duration::saturating_sub)
    }
}

/// Runs `body` and adds its time to `to`.
pub(crate) fn timed<T>(to: &mut Duration, body: impl FnOnce() -> T) -> T {
    let begin = Instant::now();
    let made = body();
    *to += begin.elapsed();
    made
}
