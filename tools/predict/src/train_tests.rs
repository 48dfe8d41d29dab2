use super::*;

const HIDDEN: usize = 12;
const NEURONS: usize = 40;
const RANK: usize = 4;
const ROWS: usize = 300;

fn random(seed: u64, count: usize) -> Vec<f32> {
    let mut random = Xoshiro256PlusPlus::seed_from_u64(seed);
    (0..count).map(|_| random.random::<f32>() - 0.5).collect()
}

/// Row-major a b', in double precision.
fn times(a: &[f32], b: &[f32], inner: usize) -> Vec<f64> {
    let dot = |a: &[f32], b: &[f32]| -> f64 {
        a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
    };
    a.chunks(inner).flat_map(|a| b.chunks(inner).map(move |b| dot(a, b))).collect()
}

fn naive_scores(factors: &Factors, inputs: &[f32]) -> Vec<f64> {
    let inner: Vec<f32> =
        times(inputs, &factors.reduce, HIDDEN).iter().map(|value| *value as f32).collect();
    let mut scores = times(&inner, &factors.expand, RANK);
    for token in scores.chunks_mut(NEURONS) {
        token.iter_mut().zip(&factors.level).for_each(|(score, level)| *score += f64::from(*level));
    }
    scores
}

fn naive_loss(logits: &[f64], active: &[bool], off: f64) -> f64 {
    let pair = |(z, active): (&f64, &bool)| {
        let probability = 1.0 / (1.0 + (-z).exp());
        if *active { -probability.ln() } else { -off * (1.0 - probability).ln() }
    };
    logits.iter().zip(active).map(pair).sum::<f64>() / logits.len() as f64
}

/// Which neurons are active is decided by a map of twice the rank; the start sees half of it.
fn lesson() -> (Factors, Lesson) {
    let inputs = random(1, ROWS * HIDDEN);
    let (first, second) = (random(2, 2 * RANK * HIDDEN), random(3, NEURONS * 2 * RANK));
    let inner: Vec<f32> = times(&inputs, &first, HIDDEN).iter().map(|v| *v as f32).collect();
    let scores = times(&inner, &second, 2 * RANK);
    let active = scores.iter().map(|score| *score > 0.3).collect();
    let expand = second.chunks(2 * RANK).flat_map(|row| &row[..RANK]).copied().collect();
    let reduce = first[..RANK * HIDDEN].to_vec();
    let start = Factors { reduce, expand, level: vec![-0.3; NEURONS] };
    (start, Lesson { inputs, hidden: HIDDEN, active })
}

#[test]
fn the_loss_is_that_of_books() {
    let logits = [-30.0f32, -2.0, -0.5, 0.0, 0.25, 3.0, 20.0, 7.0];
    let active = [false, true, false, true, false, true, true, false];
    let bits: Vec<f32> = active.iter().map(|bit| f32::from(u8::from(*bit))).collect();
    let tensor = |values: &[f32]| Tensor::from_slice(values, (2, 4), &Device::Cpu).unwrap();
    let found = loss(&tensor(&logits), &tensor(&bits), 0.07).unwrap().to_scalar::<f32>().unwrap();
    let doubles: Vec<f64> = logits.iter().map(|value| f64::from(*value)).collect();
    let expected = naive_loss(&doubles, &active, 0.07);
    assert!((f64::from(found) - expected).abs() < 1e-6, "{found} {expected}");
}

/// The loss at the best scale falls; the scores stay in their scale; the same seed gives the same bits.
#[test]
fn refining_lowers_the_loss() {
    let (start, lesson) = lesson();
    let told = std::cell::Cell::new(0);
    let refined = refine(&start, &lesson, 120, &|| told.set(told.get() + 1)).unwrap();
    assert_eq!(told.get(), 120);
    assert_eq!(refined, refine(&start, &lesson, 120, &|| ()).unwrap());
    let active = lesson.active.iter().filter(|bit| **bit).count();
    let off = active as f64 / lesson.active.len() as f64 + WEIGHT_LEAST;
    let least = |factors: &Factors| {
        let scores = naive_scores(factors, &lesson.inputs);
        let at = |power: i32| {
            let scale = 2f64.powi(power);
            let logits: Vec<f64> = scores.iter().map(|score| score * scale).collect();
            naive_loss(&logits, &lesson.active, off)
        };
        (-2..8).map(at).min_by(f64::total_cmp).unwrap()
    };
    let (before, after) = (least(&start), least(&refined));
    assert!(after < 0.95 * before, "{before} {after}");
    let size = |values: &[f32]| values.iter().map(|value| value * value).sum::<f32>();
    let over = size(&refined.expand) / size(&start.expand);
    assert!((0.5..2.0).contains(&over), "{over}");
}

/// No step leaves it as it is, but for rounding.
#[test]
fn no_step_changes_nothing() {
    let (start, lesson) = lesson();
    let same = refine(&start, &lesson, 0, &|| ()).unwrap();
    assert_eq!(same.reduce, start.reduce);
    let near = |a: &[f32], b: &[f32]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-6);
    assert!(near(&same.expand, &start.expand) && near(&same.level, &start.level));
}
