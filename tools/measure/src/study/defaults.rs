//! Would an order do as the default: is it ever slower than `frequency` or the dense stream?

use serde::Serialize;

use super::cells::{At, Grid};
use super::inputs::Relation;
use super::judge::Judge;
use super::layouts::Kind;
use super::summary::{Worst, told};

/// A cell in which an order is slower than a baseline.
#[derive(Debug, Clone, Serialize)]
pub struct Loss {
    /// The baseline: `frequency` or `dense`.
    pub baseline: &'static str,
    /// The cell, in words, and the order's time over the baseline's.
    pub at: Worst,
    /// What the ratio is at least in 95 % of the resamples; none against dense.
    pub p5: Option<f64>,
}

/// An order's losses over some cells.
#[derive(Debug, Clone, Serialize)]
pub struct Candidate {
    /// The order; `for the nearest size` takes for each bundle size the one made for the size nearest.
    pub order: String,
    /// `matched or mixed` profiles, `mismatched` ones, or `unknown` where nothing says which text a
    /// profile or a test is of.
    pub relation: &'static str,
    /// `none`, `pinned` or `dynamic`.
    pub cache: &'static str,
    /// Cells.
    pub cells: usize,
    /// Largest of its times over those of `frequency`; of a candidate with cells.
    pub worst_to_frequency: Option<Worst>,
    /// The same over the dense stream's.
    pub worst_to_dense: Option<Worst>,
    /// All cells in which it is slower.
    pub losses: Vec<Loss>,
}

/// An order, and which kind it is for each bundle size.
struct Choice {
    name: String,
    kind_of_bundle: Vec<usize>,
}

/// Groups of relations, for which candidates are told apart.
const RELATIONS: [&str; 3] = [ORDINARY, "mismatched", "unknown"];
/// The profiles that a default would be made from.
pub(super) const ORDINARY: &str = "matched or mixed";

fn group(relation: Relation) -> &'static str {
    match relation {
        Relation::Matched | Relation::Mixed => ORDINARY,
        Relation::Mismatched => "mismatched",
        Relation::Unknown => "unknown",
    }
}

/// All orders as candidates.
pub fn candidates(judge: &Judge<'_>) -> Vec<Candidate> {
    let mut found = Vec::new();
    for choice in choices(judge.grid) {
        for relation in RELATIONS {
            for cache in ["none", "pinned", "dynamic"] {
                let candidate = candidate(judge, &choice, relation, cache);
                found.extend((candidate.cells > 0).then_some(candidate));
            }
        }
    }
    found
}

fn choices(grid: &Grid) -> Vec<Choice> {
    let (kinds, bundles) = (&grid.settings.kinds, &grid.settings.bundle_bytes);
    let mut choices: Vec<Choice> = Vec::new();
    for (at, kind) in kinds.iter().enumerate() {
        choices.push(Choice { name: kind.name(), kind_of_bundle: vec![at; bundles.len()] });
        let Some(made_for) = kind.made_for else { continue };
        // Once for all sizes that an order is made for: after the last of them.
        let same = |other: &&(usize, &Kind)| {
            (other.1.order, other.1.pin) == (kind.order, kind.pin) && other.1.made_for.is_some()
        };
        let all: Vec<(usize, &Kind)> = kinds.iter().enumerate().collect();
        let sizes: Vec<&(usize, &Kind)> = all.iter().filter(same).collect();
        let is_last = sizes.last().is_some_and(|last| last.1.made_for == Some(made_for));
        if sizes.len() < 2 || !is_last {
            continue;
        }
        let nearest = |bytes: &u32| {
            let apart = |size: u32| (f64::from(size) / f64::from(*bytes)).ln().abs();
            let by_size = |one: &&&(usize, &Kind), other: &&&(usize, &Kind)| {
                apart(one.1.made_for.unwrap_or(1)).total_cmp(&apart(other.1.made_for.unwrap_or(1)))
            };
            sizes.iter().min_by(by_size).map_or(at, |nearest| nearest.0)
        };
        let name = Kind { made_for: None, ..*kind }.name() + ", for the nearest size";
        choices.push(Choice { name, kind_of_bundle: bundles.iter().map(nearest).collect() });
    }
    choices
}

fn candidate(
    judge: &Judge<'_>,
    choice: &Choice,
    relation: &'static str,
    cache: &'static str,
) -> Candidate {
    let grid = judge.grid;
    let mut found = Candidate {
        order: choice.name.clone(),
        relation,
        cache,
        cells: 0,
        worst_to_frequency: None,
        worst_to_dense: None,
        losses: Vec::new(),
    };
    let wanted = |at: &At| {
        choice.kind_of_bundle[at.bundle] == at.kind
            && grid.settings.caches[at.cache].group() == cache
            && group(grid.learned[at.profile].relation(&grid.tests[at.test])) == relation
    };
    for at in grid.places().filter(wanted) {
        found.cells += 1;
        let ratios = [
            ("frequency", judge.to_frequency(at), &mut found.worst_to_frequency),
            ("dense", judge.to_dense(at), &mut found.worst_to_dense),
        ];
        for (baseline, ratio, worst) in ratios {
            let here = Worst { ratio, cell: told(grid, at) };
            if ratio > 1.0 {
                let p5 = (baseline == "frequency").then(|| judge.order(at).to_frequency.p5);
                found.losses.push(Loss { baseline, at: here.clone(), p5 });
            }
            if worst.as_ref().is_none_or(|worst| ratio > worst.ratio) {
                *worst = Some(here);
            }
        }
    }
    found
}
