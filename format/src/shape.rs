//! The model shape: what the bundles of a pack are.

use zerocopy::FromZeros;
use zerocopy::byteorder::{F32, U32};

use crate::codes::{Activation, Dtype};
use crate::error::FormatError;
use crate::layout::{ModelShape, field_at};
use crate::limits;

/// What [`Activation::takes`] asks.
pub(crate) const THRESHOLD_RULE: &str =
    "must be finite with gaussian_topk, and not negative with fatrelu, else zero";

impl Activation {
    /// Whether this is a threshold that may stand beside it.
    pub(crate) fn takes(self, threshold: f32) -> bool {
        match self {
            Self::Fatrelu => threshold.is_finite() && threshold >= 0.0,
            Self::GaussianTopk => threshold.is_finite(),
            _ => threshold.to_bits() == 0,
        }
    }
}

/// The validated model shape.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shape {
    /// Layers of the pack.
    pub layers: u32,
    /// Neurons (bundles) of each layer.
    pub neurons: u32,
    /// Hidden size: weights of one part.
    pub hidden: u32,
    /// Parts of a bundle: 2 (up, down) or 3 (gate, up, down).
    pub parts: u32,
    /// The function between up (or gate) and down.
    pub activation: Activation,
    /// Threshold of [`Activation::Fatrelu`], how many standard deviations of [`Activation::GaussianTopk`], else 0.
    pub activation_threshold: f32,
    /// Number type of the weights.
    pub dtype: Dtype,
    /// Bytes from one bundle to the next; the exact size of a bundle.
    pub bundle_stride: u32,
    /// Most slots of a placement of a layer: [`Shape::neurons`], or more where neurons have copies.
    pub slots: u32,
}

impl Shape {
    /// Bytes of one part; 0 for a placeholder.
    pub const fn part_bytes(&self) -> u32 {
        self.dtype.part_bytes(self.hidden)
    }

    /// Bytes of the bundle region of a placement of so many slots.
    pub const fn region_bytes(&self, slots: u32) -> u64 {
        slots as u64 * self.bundle_stride as u64
    }

    /// Whether a placement may have more slots than neurons.
    pub const fn has_copies(&self) -> bool {
        self.slots > self.neurons
    }

    /// Bundles of the pack, one placement of each layer.
    pub const fn bundles(&self) -> u64 {
        self.layers as u64 * self.neurons as u64
    }

    /// Checks every rule of the section and gives the shape; `offset` is the section's.
    ///
    /// # Errors
    /// The first rule that is broken.
    pub fn from_disk(disk: &ModelShape, offset: u64) -> Result<Self, FormatError> {
        let at = |name: &str| field_at(ModelShape::FIELDS, name, offset);
        let activation =
            Activation::from_code(disk.activation.get()).ok_or(FormatError::Field {
                field: "activation",
                offset: at("activation"),
                rule: "not a known activation",
                found: disk.activation.get().into(),
            })?;
        let dtype = Dtype::from_code(disk.dtype.get()).ok_or(FormatError::Field {
            field: "dtype",
            offset: at("dtype"),
            rule: "not a known dtype",
            found: disk.dtype.get().into(),
        })?;
        let shape = Self {
            layers: disk.layers.get(),
            neurons: disk.neurons.get(),
            hidden: disk.hidden.get(),
            parts: disk.parts.get(),
            activation,
            activation_threshold: disk.activation_threshold.get(),
            dtype,
            bundle_stride: disk.bundle_stride.get(),
            slots: match disk.slots.get() {
                0 => disk.neurons.get(),
                slots => slots,
            },
        };
        shape.check(offset)?;
        if disk.part_bytes.get() != shape.part_bytes() {
            return Err(FormatError::Field {
                field: "part_bytes",
                offset: at("part_bytes"),
                rule: "must be what dtype and hidden make it",
                found: disk.part_bytes.get().into(),
            });
        }
        crate::checksum::check_zero("model_shape.reserved", at("reserved"), &disk.reserved)?;
        Ok(shape)
    }

    /// Checks the rules that hold for any shape, read or about to be written.
    ///
    /// # Errors
    /// [`FormatError::Field`] for the first one broken.
    pub fn check(&self, offset: u64) -> Result<(), FormatError> {
        let within = |value: u32, most: u32| (1..=most).contains(&value);
        let stride = self.bundle_stride;
        let stride_ok = self.dtype == Dtype::Placeholder
            || u64::from(stride) == u64::from(self.parts) * u64::from(self.part_bytes());
        let threshold = self.activation_threshold;
        let threshold_ok = self.activation.takes(threshold);
        let bundles_ok = self.bundles() <= limits::BUNDLES_MAX;
        let slots_ok = (self.neurons..=limits::NEURONS_MAX).contains(&self.slots)
            && u64::from(self.layers) * u64::from(self.slots) <= limits::BUNDLES_MAX;
        let multiple_ok = self.hidden.is_multiple_of(limits::HIDDEN_MULTIPLE);
        let rules = [
            (within(self.layers, limits::LAYERS_MAX), "layers", "must be 1 to 65,536"),
            (within(self.neurons, limits::NEURONS_MAX), "neurons", "must be 1 to 16,777,216"),
            (bundles_ok, "neurons", "layers times neurons must be at most 2^31"),
            (within(self.hidden, limits::HIDDEN_MAX), "hidden", "must be 1 to 1,048,576"),
            (multiple_ok, "hidden", "must be a multiple of 32"),
            (matches!(self.parts, 2 | 3), "parts", "must be 2 or 3"),
            (threshold_ok, "activation_threshold", THRESHOLD_RULE),
            (stride_ok, "bundle_stride", "must be parts times part_bytes"),
            (within(stride, limits::BUNDLE_STRIDE_MAX), "bundle_stride", "must be 1 to 67,108,864"),
            (slots_ok, "slots", "must be neurons to 16,777,216, times layers at most 2^31"),
        ];
        let Some((_, field, rule)) = rules.into_iter().find(|(ok, _, _)| !ok) else {
            return Ok(());
        };
        let found = match field {
            "layers" => self.layers,
            "neurons" => self.neurons,
            "hidden" => self.hidden,
            "parts" => self.parts,
            "bundle_stride" => stride,
            "slots" => self.slots,
            _ => threshold.to_bits(),
        };
        let offset = field_at(ModelShape::FIELDS, field, offset);
        Err(FormatError::Field { field, offset, rule, found: found.into() })
    }

    /// The section as it lies on disk.
    pub fn to_disk(&self) -> ModelShape {
        ModelShape {
            layers: U32::new(self.layers),
            neurons: U32::new(self.neurons),
            hidden: U32::new(self.hidden),
            parts: U32::new(self.parts),
            activation: U32::new(self.activation.code()),
            activation_threshold: F32::new(self.activation_threshold),
            dtype: U32::new(self.dtype.code()),
            part_bytes: U32::new(self.part_bytes()),
            bundle_stride: U32::new(self.bundle_stride),
            slots: U32::new(if self.has_copies() { self.slots } else { 0 }),
            ..ModelShape::new_zeroed()
        }
    }
}
