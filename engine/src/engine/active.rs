//! A token's active set.

use crate::error::EngineError;

/// Ids of a layer's active neurons: strictly ascending, each below the layer's number of neurons. Checked once,
/// when it is made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ActiveSet<'s> {
    neurons: &'s [u32],
}

impl<'s> ActiveSet<'s> {
    /// The set of these ids in a layer of so many neurons.
    ///
    /// # Errors
    /// [`EngineError::Active`]: the first id that does not ascend, or is too large.
    pub fn new(ids: &'s [u32], neurons: u32) -> Result<Self, EngineError> {
        let mut least = 0;
        for (position, neuron) in ids.iter().enumerate() {
            if *neuron < least || *neuron >= neurons {
                return Err(EngineError::Active { position, found: *neuron, neurons });
            }
            least = neuron + 1;
        }
        Ok(Self { neurons: ids })
    }

    /// The ids, ascending.
    pub const fn ids(self) -> &'s [u32] {
        self.neurons
    }

    /// Checks that a layer of so many neurons has them all: they ascend, so the last says it.
    pub(crate) fn within(self, neurons: u32) -> Result<(), EngineError> {
        match self.neurons.last() {
            Some(last) if *last >= neurons => {
                let position = self.neurons.len() - 1;
                Err(EngineError::Active { position, found: *last, neurons })
            }
            _ => Ok(()),
        }
    }
}
