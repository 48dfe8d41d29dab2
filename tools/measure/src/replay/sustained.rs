//! Turns that are seconds long, for a device that does not keep up its bursts.
//!
//! A device under a limit of reads or bytes a second lets a tenth of a second's worth pass at full speed and
//! then nothing until the next. In turns of a few tokens one strategy spends what another pays for, and most
//! tokens are measured within a burst. So here a contestant replays all of its tokens, again and
//! again, for seconds; the begin of the turn is not counted, and what counts is the time of whole passes,
//! begin to end: while the engine plans the next token, such a device makes good for the last one.

use std::time::Duration;

use anyhow::Result;
use lnp_engine::queue::TimedQueue;
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_xoshiro::Xoshiro256PlusPlus;

use super::contestant::Contestant;
use super::options::{CacheState, ReplayOptions};
use super::record::LongTurn;
use super::sets::ActiveSets;

/// Turns of this length are twenty of the bursts that Linux's limit lets through.
pub const TURN: Duration = Duration::from_secs(2);
/// No further round of turns is begun that would end later; the first is always measured.
pub const TIME_MAX: Duration = Duration::from_secs(20);
/// The begin of a turn, which is not counted: what the turn before had left, or left to pay.
const LEAD_IN: Duration = Duration::from_millis(200);

/// Lets all contestants take turns of `turn` or longer, in a new random order each time: `repeats` turns
/// each, and where caches are shown warm as many of those, as far as the options' time allows. `now` is
/// the time since some fixed moment. Returns the tokens that were replayed.
pub(super) fn compete<'a, Q: TimedQueue<'a> + Send>(
    contestants: &mut [Contestant<'a, Q>],
    sets: &ActiveSets,
    options: &ReplayOptions,
    turn: Duration,
    now: &dyn Fn() -> Duration,
    progress: &mut dyn FnMut(f64),
) -> Result<usize> {
    let begin = now();
    let tokens = fit(contestants, sets, turn, now)?;
    let mut random = Xoshiro256PlusPlus::seed_from_u64(0);
    let mut order: Vec<usize> = (0..contestants.len()).collect();
    let (repeats, states) = (options.repeats.max(1), options.caches.states());
    let all = (repeats * states.len() * order.len()) as f64;
    let mut done = 0.0;
    for round in 1..=repeats as u32 {
        for state in states {
            order.shuffle(&mut random);
            for at in &order {
                contestants[*at].sustain(sets, options, *state, turn, now)?;
                done += 1.0;
                progress(done / all);
            }
        }
        let elapsed = now() - begin;
        if options.time_max.is_some_and(|most| elapsed + elapsed / round > most) {
            progress(1.0);
            break;
        }
    }
    Ok(tokens)
}

/// Leaves all contestants as many tokens as the slowest reads in a turn, so that no pass is longer than
/// a turn; returns how many that are. Their speed is that of their first tokens, cold.
fn fit<'a, Q: TimedQueue<'a> + Send>(
    contestants: &mut [Contestant<'a, Q>],
    sets: &ActiveSets,
    turn: Duration,
    now: &dyn Fn() -> Duration,
) -> Result<usize> {
    let mut fitting = sets.tokens;
    for contestant in contestants.iter_mut() {
        contestant.engine.clear_cache();
        let (begin, mut read) = (now(), 0);
        while read < contestant.tokens && now() - begin < LEAD_IN {
            contestant.read(sets, read, |_, _| ())?;
            read += 1;
        }
        let in_a_turn = read as f64 * turn.as_secs_f64() / (now() - begin).as_secs_f64();
        // Of no time at all there is no limit.
        fitting = fitting.min(in_a_turn as usize).max(1);
    }
    for contestant in contestants.iter_mut() {
        contestant.tokens = contestant.tokens.min(fitting);
    }
    Ok(fitting)
}

impl<'a, Q: TimedQueue<'a> + Send> Contestant<'a, Q> {
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
        let begin = now();
        let (mut last, mut passes, mut tokens_us) = (begin, 0, Vec::new());
        while passes == 0 || now() - begin < turn {
            if state == CacheState::Cold {
                self.engine.clear_cache();
            }
            for token in 0..self.tokens {
                self.replay(sets, &options.law, token, state)?;
                let end = now();
                tokens_us.push((end - last).as_secs_f64() * 1e6);
                last = end;
            }
            passes += 1;
        }
        self.record(state).turns.push(LongTurn { tokens_us });
        Ok(())
    }
}

#[cfg(test)]
#[path = "sustained_tests.rs"]
mod tests;
