//! Leaving out what predictors name and is not worth its device time: lossy, off unless asked for.

use anyhow::{Result, bail};
use lnp_engine::engine::{LeaveOut, LeftOut, Session};
use lnp_engine::queue::TimedQueue;
use lnp_engine::{Collapse, Combine, DeviceLaw};
use lnp_format::Shape;

use crate::predict::Needed;

/// Bandwidth that a gap is turned into a law by: only their product counts.
const ANY_MIB_S: f64 = 1024.0;

/// What a share of strength is left out by.
pub struct Leaving<'m> {
    by: LeaveOut<'m>,
    each: bool,
}

impl<'m> Leaving<'m> {
    /// For packs of this shape: of the squared strength of a layer's neurons `share` may be lost, by the price of reads that
    /// `collapse` has. `memory` is of [`Leaving::memory`]. Of tokens that come several at a time, as those of a prompt
    /// do, nothing is left out unless `each` says so: they share their reads.
    ///
    /// # Errors
    /// A collapse that gives reads no price.
    pub fn new(
        shape: &Shape,
        collapse: &Collapse,
        share: f64,
        each: bool,
        memory: &'m mut [u8],
    ) -> Result<Self> {
        let by = LeaveOut::new(shape, law_of(collapse)?, share, memory)?;
        Ok(Self { by, each })
    }

    /// Memory for it.
    pub fn memory(shape: &Shape) -> Vec<u8> {
        vec![0; LeaveOut::required_bytes(shape)]
    }

    /// What was left out so far.
    pub fn left_out(&self) -> LeftOut {
        self.by.left_out()
    }

    /// Shortens the sets, by their strengths.
    ///
    /// # Errors
    /// As [`Session::leave_out`].
    pub(crate) fn shorten<'a, Q: TimedQueue<'a>>(
        &mut self,
        session: &Session<'_, 'a, Q>,
        layer: usize,
        Needed { sets, strengths, .. }: &mut Needed,
    ) -> Result<()> {
        if sets.len() > 1 && !self.each {
            return Ok(());
        }
        for (set, strengths) in sets.iter_mut().zip(&*strengths) {
            let kept = session.leave_out(layer as u32, set, strengths, &mut self.by)?;
            set.truncate(kept);
        }
        Ok(())
    }
}

/// The law that has the same price of a read, in bytes.
fn law_of(collapse: &Collapse) -> Result<DeviceLaw> {
    let gap = match collapse {
        Collapse::Law(law) => return Ok(*law),
        Collapse::Gap { bytes } => *bytes as f64,
        Collapse::Off => 0.0,
        Collapse::Curve(_) | Collapse::Whole => {
            bail!("--leave-out: a curve has no price of a read; use the law of --device, or --gap")
        }
    };
    let read_us = gap / (ANY_MIB_S * f64::from(1 << 20)) * 1e6;
    Ok(DeviceLaw::new(0.0, read_us, ANY_MIB_S, Combine::Sum)?)
}
