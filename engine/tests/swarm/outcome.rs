//! What came of the swarm, and who looks after seeds that hang.

use std::sync::mpsc;
use std::time::Duration;

use lnp_engine::EngineError;
use lnp_engine::queue::ReadFailure;
use lnp_engine::queue::simulated::FaultCounts;

/// A seed that takes longer hangs.
const SEED_SECONDS_MAX: u64 = 120;

/// What came of one or more seeds.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) fetches: u64,
    pub(crate) bundles: u64,
    pub(crate) errors: u64,
    pub(crate) damage_found: u64,
    /// Bundles with the one wrong bit that the device put there, with nobody checking.
    pub(crate) damage_unseen: u64,
    pub(crate) prefetches: u64,
    pub(crate) prefetched: u64,
    pub(crate) hits: u64,
    pub(crate) outputs: u64,
    /// Outputs of what predictors named, and sets of theirs that were prefetched.
    pub(crate) predicted: u64,
    pub(crate) predicted_ahead: u64,
    pub(crate) recoveries: u64,
    pub(crate) rounds: u64,
    pub(crate) faults: FaultCounts,
    /// Of all that was seen, and of all virtual times.
    pub(crate) digest: u64,
}

impl Outcome {
    pub(crate) fn add(&mut self, other: &Self) {
        self.fetches += other.fetches;
        self.bundles += other.bundles;
        self.errors += other.errors;
        self.damage_found += other.damage_found;
        self.damage_unseen += other.damage_unseen;
        self.prefetches += other.prefetches;
        self.prefetched += other.prefetched;
        self.hits += other.hits;
        self.outputs += other.outputs;
        self.predicted += other.predicted;
        self.predicted_ahead += other.predicted_ahead;
        self.recoveries += other.recoveries;
        self.rounds += other.rounds;
        self.faults.add(&other.faults);
    }

    /// Some fault of the device, of the right kind and just now, explains an error.
    pub(crate) fn explained(
        &mut self,
        error: &EngineError,
        (before, after): (&FaultCounts, &FaultCounts),
        verify: bool,
    ) {
        let happened = match error {
            EngineError::BundleDamaged { .. } => {
                self.damage_found += 1;
                verify && after.flipped > 0
            }
            EngineError::Read(error) => match error.failure {
                ReadFailure::System { errno: 5 } => after.eio > before.eio,
                ReadFailure::System { errno: 16 } => after.refused > before.refused,
                ReadFailure::System { errno: 19 } => after.gone > before.gone,
                ReadFailure::System { errno: 4 | 11 } => after.worn_out > before.worn_out,
                ReadFailure::Short { .. } => {
                    after.end > before.end || after.worn_out > before.worn_out
                }
                _ => false,
            },
            _ => false,
        };
        assert!(happened, "{error:?} is not explained by {before:?} -> {after:?}");
    }

    /// Each kind of thing has happened: a swarm without it would try less than it says.
    pub(crate) fn assert_all_kinds(&self) {
        let faults = &self.faults;
        for (name, count) in [
            ("fetches of which none are right", self.bundles),
            ("errors", self.errors),
            ("damage", self.damage_found.min(self.damage_unseen)),
            ("prefetched bundles", self.prefetched),
            ("hits", self.hits),
            ("outputs", self.outputs),
            ("predictions", self.predicted.min(self.predicted_ahead)),
            ("reads gone with the device", faults.gone),
            ("reads given up", faults.worn_out),
            ("short reads", faults.short.min(faults.end)),
            ("interrupted reads", faults.eagain.min(faults.eintr)),
            ("refused and failed reads", faults.refused.min(faults.eio)),
            ("delayed reads", faults.delayed),
        ] {
            assert!(count > 100, "the swarm tries hardly any {name}: {count}");
        }
    }
}

/// Ends the process where it lives too long.
pub(crate) struct Watch {
    _alive: mpsc::Sender<()>,
}

impl Watch {
    pub(crate) fn begin(seed: u64) -> Self {
        let (alive, ended) = mpsc::channel::<()>();
        std::thread::spawn(move || {
            let limit = Duration::from_secs(SEED_SECONDS_MAX);
            if ended.recv_timeout(limit) == Err(mpsc::RecvTimeoutError::Timeout) {
                eprintln!("LNP_SWARM_SEED={seed} hangs");
                std::process::abort();
            }
        });
        Self { _alive: alive }
    }
}
