//! The kernel of one model: its shape checked once, its tier chosen once.

use crate::activation::Activation;
use crate::arch::{Ahead, CpuFeatures, Ops, Tier};
use crate::dtype::{BLOCK, Dtype};
use crate::error::KernelError;
use crate::input::Input;

/// Largest hidden size: keeps the bytes of a bundle within 32 bits.
pub const HIDDEN_MAX: usize = 1 << 24;
/// Most tokens of a batch.
pub const TOKENS_MAX: usize = 8;

/// What the bundles of a model look like.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct KernelShape {
    /// Weights of one part; a multiple of 32.
    pub hidden: usize,
    /// 2 (up, down) or 3 (gate, up, down).
    pub parts: usize,
    /// Number type of the weights.
    pub dtype: Dtype,
    /// The function between up (or gate) and down.
    pub activation: Activation,
}

/// What is added to the products of a neuron.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Bias {
    /// To that with the first part, gate or up, before the activation.
    pub first: f32,
    /// To that with the up part, of three parts.
    pub up: f32,
}

impl From<f32> for Bias {
    fn from(first: f32) -> Self {
        Self { first, up: 0.0 }
    }
}

/// The FFN of one neuron at a time, over bundle bytes.
#[derive(Clone, Copy, Debug)]
pub struct Kernel {
    shape: KernelShape,
    ops: Ops,
}

impl Kernel {
    /// Checks the shape and chooses the best tier of `features` that has code for its number type.
    ///
    /// # Errors
    /// [`KernelError::Hidden`], [`KernelError::Parts`].
    pub fn new(shape: KernelShape, features: CpuFeatures) -> Result<Self, KernelError> {
        if shape.hidden == 0 || shape.hidden > HIDDEN_MAX || !shape.hidden.is_multiple_of(BLOCK) {
            return Err(KernelError::Hidden { found: shape.hidden });
        }
        if !matches!(shape.parts, 2 | 3) {
            return Err(KernelError::Parts { found: shape.parts });
        }
        Ok(Self { shape, ops: Ops::select(shape.dtype, features) })
    }

    /// The tier in use.
    pub const fn tier(&self) -> Tier {
        self.ops.tier()
    }

    /// The same with another activation.
    pub const fn with_activation(self, activation: Activation) -> Self {
        Self { shape: KernelShape { activation, ..self.shape }, ..self }
    }

    /// The shape of the bundles.
    pub const fn shape(&self) -> &KernelShape {
        &self.shape
    }

    /// Bytes of one bundle.
    pub const fn bundle_bytes(&self) -> usize {
        self.shape.parts * self.part_bytes()
    }

    const fn part_bytes(&self) -> usize {
        self.shape.dtype.part_bytes(self.shape.hidden)
    }

    /// Bytes that [`Kernel::prepare`] needs for one hidden state; 0 where the tier takes it as it is.
    pub const fn input_bytes(&self) -> usize {
        self.ops.form().bytes(self.shape.hidden)
    }

    /// Brings the hidden state `x` (`hidden` values) into the form that this tier computes with, in
    /// the first [`Kernel::input_bytes`] bytes of `memory`.
    ///
    /// # Errors
    /// [`KernelError::Length`].
    pub fn prepare<'a>(
        &self,
        x: &'a [f32],
        memory: &'a mut [u8],
    ) -> Result<Input<'a>, KernelError> {
        check("hidden state", self.shape.hidden, x.len())?;
        let (expected, found) = (self.input_bytes(), memory.len());
        let too_short = KernelError::Length { what: "memory for the input", expected, found };
        self.ops.prepare(x, memory).ok_or(too_short)
    }

    /// What [`Kernel::prepare`] made of `x` in `memory` before: for those who keep the memory of many, and not what
    /// borrows it.
    ///
    /// # Errors
    /// [`KernelError::Length`].
    pub fn prepared<'a>(&self, x: &'a [f32], memory: &'a [u8]) -> Result<Input<'a>, KernelError> {
        check("hidden state", self.shape.hidden, x.len())?;
        let (expected, found) = (self.input_bytes(), memory.len());
        let too_short = KernelError::Length { what: "memory for the input", expected, found };
        let prepared = memory.get(..expected).ok_or(too_short)?;
        Ok(Input { values: x, form: self.ops.form(), prepared, cutoff: 0.0 })
    }

    /// How much of its down column a neuron adds for a hidden state.
    ///
    /// `bias` is what is added to the products; 0 where the model has none. Where the activation gives
    /// 0 the coefficient is 0, whatever the up part of a gated FFN holds: it is not read then.
    ///
    /// `later` is a bundle that comes about 12 KiB of bundles after this one: the beginning of its parts
    /// is fetched from memory meanwhile. A hint; empty if nobody knows.
    ///
    /// # Errors
    /// [`KernelError::Length`], [`KernelError::Input`].
    pub fn coefficient(
        &self,
        x: &Input<'_>,
        bundle: &[u8],
        bias: impl Into<Bias>,
        later: &[u8],
    ) -> Result<f32, KernelError> {
        let bias = bias.into();
        self.check(x, bundle)?;
        let ahead = Ahead::new(self.before_down(bundle), self.before_down(later));
        let (first, rest) = bundle.split_at(self.part_bytes());
        let product = self.ops.dot(x, first, ahead) + bias.first;
        let activated = self.shape.activation.apply(product - x.cutoff);
        if self.shape.parts == 2 || activated == 0.0 {
            return Ok(activated);
        }
        let (up, _) = rest.split_at(self.part_bytes());
        Ok(activated * self.shape.activation.apply_up(self.ops.dot(x, up, ahead) + bias.up))
    }

    /// [`Kernel::coefficient`] for up to [`TOKENS_MAX`] hidden states, one into each place of `out`:
    /// the same bits, but the bundle comes from memory only once. (On `neon_i8mm` a pair of tokens
    /// reads the up part whatever the gate gives.)
    ///
    /// # Errors
    /// As [`Kernel::coefficient`]; [`KernelError::Length`] where `out` has another length than `xs`.
    pub fn coefficients(
        &self,
        xs: &[Input<'_>],
        bundle: &[u8],
        bias: impl Into<Bias>,
        later: &[u8],
        out: &mut [f32],
    ) -> Result<(), KernelError> {
        let bias = bias.into();
        check("coefficients", xs.len(), out.len())?;
        let (pairs, rest) = xs.as_chunks::<2>();
        let (pairs_out, rest_out) = out.as_chunks_mut::<2>();
        for (pair, out) in pairs.iter().zip(pairs_out) {
            *out = self.coefficient_pair(pair, bundle, bias, later)?;
        }
        for (x, out) in rest.iter().zip(rest_out) {
            *out = self.coefficient(x, bundle, bias, later)?;
        }
        Ok(())
    }

    fn coefficient_pair(
        &self,
        xs: &[Input<'_>; 2],
        bundle: &[u8],
        bias: Bias,
        later: &[u8],
    ) -> Result<[f32; 2], KernelError> {
        let [first, second] = xs;
        self.check(first, bundle)?;
        self.check(second, bundle)?;
        let ahead = Ahead::new(self.before_down(bundle), self.before_down(later));
        let (gate, rest) = bundle.split_at(self.part_bytes());
        if self.shape.parts == 3
            && let (up, _) = rest.split_at(self.part_bytes())
            && let Some([gates, ups]) = self.ops.dot_pair([first, second], [gate, up], ahead)
        {
            let coefficient = |gate: f32, up: f32, cutoff: f32| {
                let activated = self.shape.activation.apply(gate + bias.first - cutoff);
                if activated == 0.0 {
                    return activated;
                }
                activated * self.shape.activation.apply_up(up + bias.up)
            };
            return Ok([
                coefficient(gates[0], ups[0], first.cutoff),
                coefficient(gates[1], ups[1], second.cutoff),
            ]);
        }
        let one = |x| self.coefficient(x, bundle, bias, later);
        Ok([one(first)?, one(second)?])
    }

    /// Adds `coefficient` times the bundle's down column to `y` (`hidden` values). A coefficient of
    /// 0 adds nothing, whatever the column holds. `later` as for [`Kernel::coefficient`].
    ///
    /// # Errors
    /// [`KernelError::Length`].
    pub fn accumulate(
        &self,
        coefficient: f32,
        bundle: &[u8],
        later: &[u8],
        y: &mut [f32],
    ) -> Result<(), KernelError> {
        check("output", self.shape.hidden, y.len())?;
        check("bundle", self.bundle_bytes(), bundle.len())?;
        if coefficient != 0.0 {
            let down = self.down(bundle);
            self.ops.add_scaled(coefficient, down, y, Ahead::new(down, self.down(later)));
        }
        Ok(())
    }

    /// The parts that a coefficient is computed from; nothing of what is no bundle.
    fn before_down<'b>(&self, bundle: &'b [u8]) -> &'b [u8] {
        bundle.get(..self.bundle_bytes() - self.part_bytes()).unwrap_or_default()
    }

    /// The part that is added; nothing of what is no bundle.
    fn down<'b>(&self, bundle: &'b [u8]) -> &'b [u8] {
        bundle.get(self.bundle_bytes() - self.part_bytes()..).unwrap_or_default()
    }

    fn check(&self, x: &Input<'_>, bundle: &[u8]) -> Result<(), KernelError> {
        check("hidden state", self.shape.hidden, x.values.len())?;
        check("bundle", self.bundle_bytes(), bundle.len())?;
        if x.form == self.ops.form() { Ok(()) } else { Err(KernelError::Input) }
    }
}

pub(crate) fn check(what: &'static str, expected: usize, found: usize) -> Result<(), KernelError> {
    if expected == found { Ok(()) } else { Err(KernelError::Length { what, expected, found }) }
}
