//! The FFN: joins the engine to the kernels.

use lnp_format::{self as format, Shape};
use lnp_kernels::{Activation, CpuFeatures, Dtype, Kernel, KernelError, KernelShape, Tier};

use crate::engine::{Alone, Engine, FetchStats, Session, Workers};
use crate::error::EngineError;
use crate::queue::ReadQueue;

/// The sparse FFN of a pack's layers.
#[derive(Clone, Copy, Debug)]
pub struct Ffn {
    kernel: Kernel,
}

impl Ffn {
    /// Chooses the kernel for a pack's shape.
    ///
    /// # Errors
    /// [`EngineError::NotComputable`] for placeholders and for types without kernels yet.
    pub fn new(shape: &Shape, features: CpuFeatures) -> Result<Self, EngineError> {
        let dtype = match shape.dtype {
            format::Dtype::F32 => Dtype::F32,
            format::Dtype::F16 => Dtype::F16,
            other => return Err(EngineError::NotComputable { dtype: other.name() }),
        };
        let activation = match shape.activation {
            format::Activation::Relu => Activation::Relu,
            format::Activation::Fatrelu => {
                Activation::Fatrelu { threshold: shape.activation_threshold }
            }
            format::Activation::Relu2 => Activation::Relu2,
            format::Activation::Silu => Activation::Silu,
            format::Activation::Gelu => Activation::Gelu,
        };
        let shape = KernelShape {
            hidden: shape.hidden as usize,
            parts: shape.parts as usize,
            dtype,
            activation,
        };
        Ok(Self { kernel: Kernel::new(shape, features)? })
    }

    /// The kernels' tier.
    pub const fn tier(&self) -> Tier {
        self.kernel.tier()
    }

    /// Computes a layer's output `y` for the hidden state `x` (`hidden` values each) over the
    /// active neurons (ids strictly ascending): the output bias, then each neuron's share in
    /// ascending id, so that the bits do not depend on order, cache, back end or collapse.
    ///
    /// # Errors
    /// As [`Engine::fetch`]; [`EngineError::Kernel`] where `x` or `y` has the wrong length.
    pub fn forward<'a, Q: ReadQueue<'a> + Send>(
        &self,
        engine: &mut Engine<'a, Q>,
        layer: u32,
        x: &[f32],
        active: &[u32],
        y: &mut [f32],
    ) -> Result<FetchStats, EngineError> {
        engine.session(|session| self.forward_in(session, &Alone, layer, x, active, y))
    }

    /// The same within a session, with `workers` computing while this thread reads: they take the
    /// dot products of what has arrived, this thread adds up, so that the bits are the same for any
    /// number of them.
    ///
    /// # Errors
    /// As [`Ffn::forward`].
    pub fn forward_in<'a, Q: ReadQueue<'a> + Send>(
        &self,
        session: &mut Session<'_, 'a, Q>,
        workers: &dyn Workers,
        layer: u32,
        x: &[f32],
        active: &[u32],
        y: &mut [f32],
    ) -> Result<FetchStats, EngineError> {
        let pack = *session.engine().pack();
        let (expected, layers) = (self.kernel.shape().hidden, pack.shape().layers);
        for (what, found) in [("hidden state", x.len()), ("output", y.len())] {
            if found != expected {
                return Err(KernelError::Length { what, expected, found }.into());
            }
        }
        let view = pack.layer(layer).ok_or(EngineError::Layer { found: layer, layers })?;
        let neuron_bias = view.neuron_bias();
        y.fill(0.0);
        for (y, bias) in y.iter_mut().zip(view.output_bias()) {
            *y = bias.get();
        }
        let arrive = |neuron: u32, bundle: &[u8]| {
            let bias = neuron_bias.get(neuron as usize).map_or(0.0, |bias| bias.get());
            Ok(self.kernel.coefficient(x, bundle, bias)?)
        };
        let mut finish =
            |_, coefficient, bundle: &[u8]| Ok(self.kernel.accumulate(coefficient, bundle, y)?);
        session.fetch(workers, layer, active, arrive, &mut finish)
    }
}
