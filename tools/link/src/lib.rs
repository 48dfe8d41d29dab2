//! Linking: which neurons fire together, and in which order the neurons of a layer lie in the pack.
//!
//! Reading order, bottom up: [`trace`] is the file format of what was active ([`inputs`], of what the FFN
//! got; `counted`, of more tokens than a sample; [`synth`] makes up such files of larger models); [`profile`] opens those to learn from; `coactivation` counts how often
//! neurons are active, alone and in pairs (`rows` of bits; `counts`, on `bits` in vectors); `pairs`
//! hands the pairs out by descending count in bounded memory; `greedy` joins them into chains; [`price`]
//! says what an order costs on a device, [`floor`] what none can go below, `refine` improves one in that cost (`holes` counts it),
//! `replicas` makes several, `copies` lets bundles stand in several slots of one; [`relink`] makes that of a pack anew from what its user needed; [`hot`] is what a cache pins; `orders` is the menu of orders, and `linking`
//! makes one of every layer, [`missed`] from what a cache leaves; [`choose`] picks the cheapest by cross-validation; `file` writes and `read`
//! reads the links file, `placement` is what is in it, `slots` where each neuron stands; [`stats`] counts runs independently of all of
//! them; `baselines` are orders that lose.
//!
//! Words: a *slot* is a place in the pack's layer, a *link* a stretch of slots whose neurons were
//! chained together, a *run* a stretch of adjacent slots that are all active for one token.
//!
//! ```
//! use lnp_link::{LayerActivity, Order, link_layer};
//!
//! // Four neurons, three tokens: 0 and 2 fire together, so do 1 and 3.
//! let activity = LayerActivity::from_bits(4, &[(&[0b0101, 0b1010, 0b0101], 3)])?;
//! let links = link_layer(Order::Greedy, 0, &activity)?;
//! assert_eq!(links.neuron_of_slot, [0, 2, 1, 3]);
//! # Ok::<(), anyhow::Error>(())
//! ```
#![forbid(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::print_stdout, clippy::print_stderr))]

mod baselines;
mod bits;
pub mod choose;
mod coactivation;
mod copies;
mod counted;
mod counts;
mod file;
pub mod floor;
mod greedy;
mod holes;
pub mod hot;
pub mod inputs;
mod linking;
pub mod missed;
mod orders;
mod pairs;
mod placement;
pub mod predicted;
pub mod price;
pub mod profile;
mod read;
mod refine;
pub mod relink;
mod replicas;
mod rows;
mod slots;
pub mod stats;
pub mod synth;
#[cfg(test)]
pub(crate) mod testing;
pub mod trace;

pub use coactivation::LayerActivity;
pub use file::{Links, TraceSource};
pub use linking::{LAYER_STEPS, Linking, link_layer, link_layers, refined_order};
pub use orders::{Order, PIN_DEFAULT, UnknownOrder};
pub use placement::{LayerLinks, Placement, next_slots, slot_of_neuron};
pub use price::{Objective, Price};
pub use profile::{Part, Profile};
pub use slots::Slots;

/// Most neurons a layer may have (64 times the largest FFN layer of the models we know of).
pub const NEURONS_MAX: usize = 1 << 20;

/// Most layers a model may have.
pub const LAYERS_MAX: usize = 1 << 12;
