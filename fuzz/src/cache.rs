//! Any sequence of a cache's operations, with any policy, against the naive model that the engine's
//! tests have.

use arbitrary::Arbitrary;
use lnp_engine::CachePolicy;

use crate::cache_model::{Operation, compare};
use crate::pick;

/// A cache and what is done to it.
#[derive(Arbitrary, Debug)]
pub struct Case {
    policy: u8,
    bundles: u8,
    cells: u8,
    steps: Vec<Step>,
}

#[derive(Arbitrary, Debug)]
enum Step {
    Ask(u8, u8),
    Hit(u8),
    Admit(u8, u8),
    /// A run of adjacent bundles, each asked for.
    Run {
        first: u8,
        bundles: u8,
    },
    /// The same few bundles, over and over.
    Again {
        first: u8,
        bundles: u8,
        times: u8,
    },
    /// A bundle that there need not be.
    Wild(u32),
    Clear,
    /// Counts for the first bundles; the others have none.
    Pin(Vec<Count>),
}

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Count {
    Small(u8),
    Large(u8),
    Any(u32),
}

impl Step {
    fn operations(&self, bundles: usize) -> Vec<Operation> {
        // Bundles that there are, but for Wild.
        let one = |bundle: u8| u32::from(bundle) % bundles.max(1) as u32;
        let some = |first: u8, count: u8| {
            (0..count).map(move |at| (u32::from(first) + u32::from(at)) % bundles.max(1) as u32)
        };
        match self {
            Self::Ask(bundle, run) => vec![Operation::Ask(one(*bundle), (*run).into())],
            Self::Hit(bundle) => vec![Operation::Hit(one(*bundle))],
            Self::Admit(bundle, run) => vec![Operation::Admit(one(*bundle), (*run).into())],
            Self::Run { first, bundles } => some(*first, *bundles % 32)
                .map(|bundle| Operation::Ask(bundle, u32::from(*bundles % 32)))
                .collect(),
            Self::Again { first, bundles, times } => (0..*times % 8)
                .flat_map(|_| some(*first, *bundles % 16))
                .map(|bundle| Operation::Ask(bundle, 1))
                .collect(),
            Self::Wild(bundle) => vec![Operation::Ask(*bundle, 1), Operation::Admit(*bundle, 1)],
            Self::Clear => vec![Operation::Clear],
            Self::Pin(counts) => {
                let mut all = vec![0; bundles];
                for (count, given) in all.iter_mut().zip(counts) {
                    *count = match given {
                        Count::Small(count) => u32::from(*count % 4),
                        Count::Large(less) => u32::MAX - u32::from(*less % 4),
                        Count::Any(count) => *count,
                    };
                }
                vec![Operation::Pin(all)]
            }
        }
    }
}

/// Does it, and compares after each step.
pub fn run(case: &Case) {
    let policy = pick(&CachePolicy::ALL, case.policy);
    let (bundles, cells) = (usize::from(case.bundles), usize::from(case.cells) % 100);
    let operations = case.steps.iter().flat_map(|step| step.operations(bundles));
    compare(policy, bundles, cells, operations.take(1000));
}
