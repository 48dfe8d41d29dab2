//! Turns that are seconds long, for a device that does not keep up its bursts.
//!
//! A device under a limit of reads or bytes a second lets a tenth of a second's worth pass at full speed and
//! then nothing until the next. In turns of a few tokens one strategy spends what another pays for, and most
//! tokens are measured within a burst. So here a contestant replays all of its tokens, again and
//! again, for seconds; the begin of the turn is not counted, and what counts is the time of whole passes,
//! begin to end: while the engine plans the next token, such a device makes good for the last one.

use std::time::Duration;

use anyhow::Result;
use lnp_engine::queue::ReadQueue;
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_xoshiro::Xoshiro256PlusPlus;

use super::contest::Contestant;
use super::strategy::CacheState;
use super::{ActiveSets, ReplayOptions};

/// Turns of this length are twenty of the bursts that Linux's limit lets through.
pub const TURN: Duration = Duration::from_secs(2);
/// The begin of a turn, which is not counted: what the turn before had left, or left to pay.
const LEAD_IN: Duration = Duration::from_millis(200);

/// Lets all contestants take turns of `turn` or longer, in a new random order each time: `repeats` turns
/// each, and where caches are shown warm as many of those. `now` is the time since some fixed moment.
pub(super) fn compete<'a, Q: ReadQueue<'a> + Send>(
    contestants: &mut [Contestant<'a, Q>],
    sets: &ActiveSets,
    options: &ReplayOptions,
    turn: Duration,
    now: &dyn Fn() -> Duration,
    progress: &mut dyn FnMut(f64),
) -> Result<()> {
    let mut random = Xoshiro256PlusPlus::seed_from_u64(0);
    let mut order: Vec<usize> = (0..contestants.len()).collect();
    let (repeats, states) = (options.repeats.max(1), options.caches.states());
    let all = (repeats * states.len() * order.len()) as f64;
    let mut done = 0.0;
    for _ in 0..repeats {
        for state in states {
            order.shuffle(&mut random);
            for at in &order {
                contestants[*at].sustain(sets, options, *state, turn, now)?;
                done += 1.0;
                progress(done / all);
            }
        }
    }
    Ok(())
}

impl<'a, Q: ReadQueue<'a> + Send> Contestant<'a, Q> {
    /// One turn: the lead-in, then whole passes over the tokens until `turn` is over, at least one. A cold
    /// cache is emptied before each pass; a warm one has seen all tokens by the end of the lead-in.
    fn sustain(
        &mut self,
        sets: &ActiveSets,
        options: &ReplayOptions,
        state: CacheState,
        turn: Duration,
        now: &dyn Fn() -> Duration,
    ) -> Result<()> {
        if state == CacheState::Warm && self.strategy.cache.is_none() {
            return Ok(());
        }
        let begin = now();
        for token in (0..self.tokens).cycle() {
            self.read(sets, token, |_, _| ())?;
            let pass_ended = token + 1 == self.tokens;
            if now() - begin >= LEAD_IN && (state == CacheState::Cold || pass_ended) {
                break;
            }
        }
        let (begin, mut passes) = (now(), 0);
        while passes == 0 || now() - begin < turn {
            if state == CacheState::Cold {
                self.engine.clear_cache();
            }
            for token in 0..self.tokens {
                self.replay(sets, &options.law, token, state)?;
            }
            passes += 1;
        }
        let us = (now() - begin).as_secs_f64() * 1e6;
        let us_per_token = us / (passes * self.tokens) as f64;
        self.record(state).turns_us.push(us_per_token);
        Ok(())
    }
}

#[cfg(test)]
#[path = "sustained_tests.rs"]
mod tests;
