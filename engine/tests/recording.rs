//! What a recorder keeps, beside a naive list of all that it was told.

#[path = "../../format/tests/common/mod.rs"]
mod common;
mod support;

use std::collections::BTreeMap;

use common::Recipe;
use lnp_engine::EngineError;
use lnp_engine::recorder::{Recorder, RecorderConfig};
use lnp_format::Shape;
use support::Dice;

const LAYERS: u32 = 3;
/// No multiple of 8; the first 16 say a token's number.
const NEURONS: u32 = 45;
const ROW_BYTES: usize = 6;

fn shape() -> Shape {
    Recipe::small(LAYERS, NEURONS).shape
}

/// The set of a token in a layer, from which both can be told.
fn set(token: u64, layer: u32) -> Vec<u32> {
    let number = (0..16).filter(|bit| token >> bit & 1 == 1);
    let others =
        (16..NEURONS).filter(|neuron| (token + u64::from(neuron * 7 + layer)).is_multiple_of(5));
    number.chain(others).collect()
}

fn sets(tokens: std::ops::Range<u64>, layer: u32) -> Vec<Vec<u32>> {
    tokens.map(|token| set(token, layer)).collect()
}

fn bits(set: &[u32]) -> Vec<u8> {
    let mut row = vec![0; ROW_BYTES];
    set.iter().for_each(|neuron| row[*neuron as usize / 8] |= 1 << (neuron % 8));
    row
}

/// The whole file, taken out in parts of all sizes.
fn file(recorder: &Recorder<'_>, dice: &mut Dice) -> Vec<u8> {
    let entries = [("model", "a \"b\" \\ \n"), ("active", "of a test")];
    let mut whole = vec![0; recorder.bytes(&entries) as usize];
    assert_eq!(recorder.read(&entries, 0, &mut whole), whole.len());
    let mut parts: Vec<u8> = Vec::new();
    loop {
        let mut part = vec![0; dice.among(1, 300) as usize];
        let copied = recorder.read(&entries, parts.len() as u64, &mut part);
        parts.extend(&part[..copied]);
        if copied < part.len() {
            break;
        }
    }
    assert!(parts == whole);
    assert_eq!(recorder.read(&entries, u64::MAX, &mut [0; 9]), 0);
    whole
}

/// The numbers of the tokens in a file; each row is the whole token's, the same in all layers.
fn tokens_of(file: &[u8]) -> Vec<u64> {
    let header = u64::from_le_bytes(file[..8].try_into().unwrap()) as usize;
    assert!(header.is_multiple_of(8));
    let data = &file[8 + header..];
    let of_counts = 2 * (LAYERS * NEURONS) as usize;
    let rows = data.len() - of_counts;
    let tokens = rows / LAYERS as usize / ROW_BYTES;
    let rows: Vec<&[u8]> = data[..rows].chunks(ROW_BYTES).collect();
    let numbers: Vec<u64> =
        rows[..tokens].iter().map(|row| u16::from_le_bytes([row[0], row[1]]).into()).collect();
    for layer in 0..LAYERS {
        for (row, number) in rows[layer as usize * tokens..].iter().zip(&numbers) {
            assert_eq!(*row, bits(&set(*number, layer)), "token {number} in layer {layer}");
        }
    }
    assert!(numbers.is_sorted_by(|a, b| a < b));
    numbers
}

/// Tells a recorder so many tokens, one by one or several at a time.
fn tell(recorder: &mut Recorder<'_>, tokens: u64, mut most: impl FnMut() -> u64) {
    let mut told = 0;
    while told < tokens {
        let end = tokens.min(told + most());
        for layer in 0..LAYERS {
            recorder.take(layer, &sets(told..end, layer)).unwrap();
        }
        told = end;
    }
}

fn recorded<R>(config: RecorderConfig, body: impl FnOnce(&mut Recorder<'_>) -> R) -> R {
    let bytes = Recorder::required_bytes(&shape(), &config).unwrap();
    let mut memory = vec![0xa5; bytes];
    body(&mut Recorder::new(&shape(), &config, &mut memory).unwrap())
}

#[test]
fn as_many_as_there_is_room_for_are_all_kept() {
    let dice = &mut Dice::new(1);
    for tokens in [1, 2, 39, 40] {
        recorded(RecorderConfig::new(40), |recorder| {
            assert_eq!(recorder.bytes(&[]), 0);
            assert_eq!(recorder.read(&[], 0, &mut [0; 9]), 0);
            tell(recorder, tokens, || 1);
            assert_eq!(tokens_of(&file(recorder, dice)), (0..tokens).collect::<Vec<_>>());
            assert_eq!((recorder.kept_tokens() as u64, recorder.seen_tokens()), (tokens, tokens));
        });
    }
}

#[test]
fn batches_and_passes_that_fail_keep_the_same_tokens() {
    let dice = &mut Dice::new(2);
    for seed in 0..40 {
        let config = RecorderConfig { kept_tokens: dice.among(1, 60), span_tokens: 200, seed };
        let tokens = u64::from(dice.below(1000)) + 1;
        let expected = recorded(config, |recorder| {
            tell(recorder, tokens, || 1);
            tokens_of(&file(recorder, &mut Dice::new(3)))
        });
        assert_eq!(expected.len() as u64, tokens.min(config.kept_tokens.into()));
        recorded(config, |recorder| {
            let mut told = 0;
            while told < tokens {
                let end = tokens.min(told + u64::from(dice.among(1, 30)));
                let fails = dice.one_in(4);
                let layers = if fails { dice.below(LAYERS) } else { LAYERS };
                for layer in 0..layers {
                    recorder.take(layer, &sets(told..end, layer)).unwrap();
                }
                if fails && dice.one_in(2) {
                    // wrong calls change nothing
                    assert!(matches!(
                        recorder.take(LAYERS, &[[0]]),
                        Err(EngineError::Layer { found: LAYERS, layers: LAYERS })
                    ));
                    for wrong in [[3, 3], [3, 2], [3, NEURONS]] {
                        let result = recorder.take(layers, &[&[0, 1][..], &wrong]);
                        assert!(matches!(result, Err(EngineError::Active { position: 1, .. })));
                    }
                }
                told = if fails { told } else { end };
                assert_eq!(recorder.seen_tokens(), told);
            }
            let file = file(recorder, dice);
            assert_eq!(tokens_of(&file), expected);
        });
    }
}

#[test]
fn what_is_in_the_middle_of_a_token_is_not_taken_out() {
    recorded(RecorderConfig::new(8), |recorder| {
        tell(recorder, 5, || 1);
        recorder.take(0, &[set(5, 0)]).unwrap();
        recorder.take(1, &[set(5, 1)]).unwrap();
        assert_eq!(tokens_of(&file(recorder, &mut Dice::new(4))), [0, 1, 2, 3, 4]);
        recorder.take(2, &[set(5, 2)]).unwrap();
        assert_eq!(recorder.kept_tokens(), 6);
        // A layer that is missing: not a whole token.
        recorder.take(0, &[set(6, 0)]).unwrap();
        recorder.take(2, &[set(6, 2)]).unwrap();
        recorder.take(0, &[set(6, 0)]).unwrap();
        assert_eq!((recorder.kept_tokens(), recorder.seen_tokens()), (6, 6));
    });
}

#[test]
fn the_sample_is_uniform_first_and_fades_by_the_span_later() {
    let dice = &mut Dice::new(5);
    let share = |tokens: u64, of: std::ops::Range<u64>, dice: &mut Dice| {
        let (mut inside, mut all) = (0, 0);
        for seed in 0..40 {
            let config = RecorderConfig { kept_tokens: 50, span_tokens: 500, seed };
            let kept = recorded(config, |recorder| {
                tell(recorder, tokens, || 7);
                tokens_of(&file(recorder, dice))
            });
            assert_eq!(kept.len(), 50);
            all += kept.len();
            inside += kept.iter().filter(|token| of.contains(token)).count();
        }
        inside as f64 / all as f64
    };
    // 2,000 draws: three deviations are 0.03.
    assert!((share(480, 0..160, dice) - 1.0 / 3.0).abs() < 0.04);
    assert!((share(480, 320..480, dice) - 1.0 / 3.0).abs() < 0.04);
    // The last 500 of many: 1 - 1/e.
    assert!((share(4000, 3500..4000, dice) - 0.632).abs() < 0.04);
    assert!((share(4000, 0..3000, dice) - 0.135).abs() < 0.03);
}

#[test]
fn counts_are_those_of_all_tokens_halved_now_and_then() {
    let dice = &mut Dice::new(6);
    let config = RecorderConfig { kept_tokens: 3, span_tokens: 50, seed: 1 };
    recorded(config, |recorder| {
        let mut naive: BTreeMap<(u32, u32), u16> = BTreeMap::new();
        let mut counted = 0;
        for token in 0..1000 {
            if counted == 100 {
                counted = 50;
                naive.values_mut().for_each(|count| *count /= 2);
            }
            counted += 1;
            for layer in 0..LAYERS {
                let set: Vec<u32> = (0..NEURONS).filter(|_| dice.one_in(3)).collect();
                recorder.take(layer, &[&set]).unwrap();
                set.iter().for_each(|neuron| *naive.entry((layer, *neuron)).or_default() += 1);
            }
            assert_eq!(recorder.counted_tokens(), counted, "token {token}");
            for layer in 0..LAYERS {
                let expected = |neuron| naive.get(&(layer, neuron)).copied().unwrap_or(0);
                assert!((0..NEURONS).map(expected).eq(recorder.counts(layer).iter().copied()));
            }
        }
        // A prompt that is longer than all that counts may be of.
        let (long, before) = (vec![[0]; 70_000], recorder.counts(0)[0]);
        (0..LAYERS).for_each(|layer| recorder.take(layer, &long).unwrap());
        assert_eq!((recorder.counts(0)[0], recorder.counted_tokens()), (u16::MAX, 70_000));
        assert!(before > 0 && recorder.counts(0)[1..].iter().all(|count| *count == 0));
        // They are the file's end.
        let mut file = vec![0; recorder.bytes(&[]) as usize];
        recorder.read(&[], 0, &mut file);
        let told = (0..LAYERS).flat_map(|layer| recorder.counts(layer).iter());
        let bytes: Vec<u8> = told.flat_map(|count| count.to_le_bytes()).collect();
        assert!(file.ends_with(&bytes));
        assert!(recorder.counts(LAYERS).is_empty());
    });
}

/// The file of three tokens of five, byte for byte. `LNP_BLESS=1` writes it instead.
#[test]
fn the_golden_file() {
    let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/recorded.trace");
    let config = RecorderConfig { kept_tokens: 3, span_tokens: 100, seed: 7 };
    let file = recorded(config, |recorder| {
        tell(recorder, 5, || 2);
        file(recorder, &mut Dice::new(8))
    });
    if std::env::var_os("LNP_BLESS").is_some() {
        std::fs::write(golden, &file).unwrap();
    }
    assert!(std::fs::read(golden).unwrap() == file, "{golden} is not what is written");
}

#[test]
fn settings_and_memory_that_do_not_do_are_errors() {
    let refused = |kept_tokens, span_tokens, field| {
        let config = RecorderConfig { kept_tokens, span_tokens, seed: 0 };
        let error = Recorder::required_bytes(&shape(), &config).unwrap_err();
        assert!(matches!(error, EngineError::Config { field: found, .. } if found == field));
    };
    refused(0, 10, "kept_tokens");
    refused(32_768, 40_000, "kept_tokens");
    refused(10, 9, "span_tokens");
    refused(10, 32_768, "span_tokens");
    let config = RecorderConfig::new(32_767);
    let bytes = Recorder::required_bytes(&shape(), &config).unwrap();
    let mut memory = vec![0; bytes + 64];
    for offset in 0..64 {
        assert!(Recorder::new(&shape(), &config, &mut memory[offset..][..bytes]).is_ok());
    }
    let short = Recorder::new(&shape(), &config, &mut memory[..bytes - 1]).unwrap_err();
    assert_eq!(short, EngineError::ArenaTooSmall { expected: bytes, found: bytes - 1 });
}
