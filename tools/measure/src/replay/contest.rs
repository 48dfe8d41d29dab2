//! The contest: every strategy on every pack, in turns.

use std::time::Instant;

use anyhow::Result;
use lnp_engine::DeviceLaw;
use lnp_engine::queue::TimedQueue;
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_xoshiro::Xoshiro256PlusPlus;

use super::calibrate::calibrate;
use super::contestant::Contestant;
use super::options::{CacheState, ReplayOptions};
use super::record::{Record, TURN_TOKENS};
use super::rows::Row;
use super::sets::ActiveSets;
use super::sustained;
use lnp_device::timeline::Timeline;

/// The rows of each contestant, the law that all obeyed, and timelines.
pub(super) type Competed = (Vec<Vec<Row>>, Option<DeviceLaw>, Vec<Timeline>);

/// Lets all contestants take turns; returns the rows of each, and the law that they obeyed on a real
/// device; and timelines, where the options ask for them. Turns are of a few tokens, or, on a real device and where the options say so, seconds long:
/// no law is fitted then, since single tokens say nothing.
pub(super) fn compete<'a, Q: TimedQueue<'a> + Send>(
    mut contestants: Vec<Contestant<'a, Q>>,
    sets: &ActiveSets,
    options: &ReplayOptions,
    simulated: bool,
    progress: &mut dyn FnMut(f64),
) -> Result<Competed> {
    let turn = options.turn.filter(|_| !simulated);
    let tokens = match turn {
        Some(turn) => {
            let begin = Instant::now();
            let now = || begin.elapsed();
            sustained::compete(&mut contestants, sets, options, turn, &now, progress)?
        }
        None => in_short_turns(&mut contestants, sets, options, simulated, progress)?,
    };
    for contestant in contestants.iter_mut().filter(|contestant| contestant.strategy.is_dense()) {
        contestant.count_all_tokens(sets, tokens);
    }
    // Cold and warm of each, one after the other. What adapts does not do the same in each repeat.
    let records: Vec<&Record> =
        contestants.iter().flat_map(|contestant| [&contestant.cold, &contestant.warm]).collect();
    let adapts = |at: usize| contestants[at / 2].strategy.adapt;
    let calibrated = if simulated || turn.is_some() { None } else { calibrate(&records, &adapts) };
    let of = |at: usize| calibrated.as_ref().and_then(|(_, rows)| rows[at]);
    let rows = contestants
        .iter()
        .enumerate()
        .map(|(at, contestant)| {
            contestant.rows(options, sets, simulated, [of(2 * at), of(2 * at + 1)])
        })
        .collect::<Result<_>>()?;
    let law = calibrated.as_ref().map(|(law, _)| *law);
    // Once more, so that recording is in no number.
    let timelines = match options.timeline_tokens {
        Some(tokens) => contestants
            .iter_mut()
            .map(|contestant| contestant.record_timeline(sets, tokens))
            .collect::<Result<_>>()?,
        None => Vec::new(),
    };
    Ok((rows, law, timelines))
}

/// Turns of [`TURN_TOKENS`]; returns the tokens that were replayed.
fn in_short_turns<'a, Q: TimedQueue<'a> + Send>(
    contestants: &mut [Contestant<'a, Q>],
    sets: &ActiveSets,
    options: &ReplayOptions,
    simulated: bool,
    progress: &mut dyn FnMut(f64),
) -> Result<usize> {
    // Simulated time is the same every time.
    let repeats = if simulated { 1 } else { options.repeats.max(1) };
    let states = options.caches.states();
    let blocks = sets.tokens.div_ceil(TURN_TOKENS);
    let all_turns = repeats * states.len() * blocks;
    let mut random = Xoshiro256PlusPlus::seed_from_u64(0);
    let mut turns: Vec<usize> = (0..contestants.len()).collect();
    let begin_time = Instant::now();
    let late = || options.time_max.is_some_and(|most| begin_time.elapsed() > most);
    let mut tokens = 0;
    for turn in 0..all_turns {
        let (pass, begin) = (turn / blocks, turn % blocks * TURN_TOKENS);
        let state = states[pass % states.len()];
        if begin == 0 && state == CacheState::Cold {
            contestants.iter_mut().for_each(|contestant| contestant.engine.clear_cache());
        }
        // A new order each time: a device that is slow for a while after heavy reads (dense)
        // would else always be so for the same successor.
        turns.shuffle(&mut random);
        for at in &turns {
            let contestant = &mut contestants[*at];
            if state == CacheState::Warm && contestant.strategy.cache.is_none() {
                continue;
            }
            for token in begin..(begin + TURN_TOKENS).min(contestant.tokens) {
                contestant.replay(sets, &options.law, token, state)?;
            }
        }
        tokens = tokens.max((begin + TURN_TOKENS).min(sets.tokens));
        progress((turn + 1) as f64 / all_turns as f64);
        if late() {
            break;
        }
    }
    Ok(tokens)
}
