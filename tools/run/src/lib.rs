//! A model joined to a pack through the engine: [`mod@record`] runs a model and writes down which neurons
//! are active; [`compute`] opens a pack to compute a model's FFN from ([`fit`] divides the memory,
//! [`check`] sees that the two belong together) and [`SparseFfn`] is that FFN; [`write_recorded`] writes what it was asked for.
//!
//! ```no_run
//! use lnp_engine::engine::Alone;
//! use lnp_model::{ExactPredictor, Model, Sampler, Tokenizer, generate};
//! use lnp_pack::PackIndex;
//! use lnp_run::{ComputeOptions, ComputePack, SparseFfn};
//!
//! let dir = std::path::Path::new("opt-relu");
//! let (index, model) = (PackIndex::open("model.lnp".as_ref())?, Model::load(dir)?);
//! let predictor = ExactPredictor::load(model.checkpoint(), model.config())?;
//! let mut pack = ComputePack::open(&index, model.config(), ComputeOptions::default())?;
//! let (mut engine, ffn) = pack.engine(&model)?;
//! let tokenizer = Tokenizer::load(dir)?;
//! let (prompt, mut greedy) = (tokenizer.encode("Once upon a time")?, Sampler::new(0.0, 0)?);
//! engine.session(|session| {
//!     let mut sparse = SparseFfn::new(session, ffn, &predictor, &Alone);
//!     let text = generate(&model, &mut sparse, &prompt, 20, &mut greedy, &mut |_token| Ok(true))?;
//!     println!("{}: {} reads", tokenizer.decode(&text.tokens, true)?, sparse.stats().reads);
//!     Ok::<(), anyhow::Error>(())
//! })?;
//! # Ok::<(), anyhow::Error>(())
//! ```
#![forbid(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::print_stdout, clippy::print_stderr))]

pub mod ahead;
pub mod check;
pub mod compute;
pub mod counting;
pub mod fit;
pub mod judge;
mod leaving;
mod memory;
pub mod predict;
pub mod record;
mod recorded;
mod sparse;
pub mod stored;

pub use ahead::{AheadChoice, ReadAhead};
pub use compute::{ComputeOptions, ComputePack};
pub use leaving::Leaving;
pub use memory::{MemoryPlan, PROGRAM_BYTES_MORE};
pub use predict::{Every, ExactAndAhead, Needed, Predict};
pub use record::{Further, PredictedBy, record, record_with};
pub use recorded::write_recorded;
pub use sparse::{Alone, SparseFfn};
