//! What the index holds about one layer beside its order: the arrays of its side data.

use zerocopy::FromBytes;
use zerocopy::byteorder::{F32, LE};

use crate::codes::{Activation, SectionKind};
use crate::error::FormatError;
use crate::layout::{
    SIDE_DOWN_NORM, SIDE_NEURON_BIAS, SIDE_OUTPUT_BIAS, SIDE_UP_BIAS, SectionEntry, SideDataHeader,
    field_at,
};
use crate::sections::wrong_length;
use crate::shape::{Shape, THRESHOLD_RULE};

/// The arrays of a `side_data` section; each empty where a layer has none.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct SideData<'a> {
    pub(crate) neuron_bias: &'a [F32<LE>],
    pub(crate) output_bias: &'a [F32<LE>],
    pub(crate) up_bias: &'a [F32<LE>],
    pub(crate) down_norm: &'a [F32<LE>],
    pub(crate) norm_eps: f32,
    /// With its threshold, where it is not that of the model shape.
    pub(crate) activation: Option<(Activation, f32)>,
}

impl<'a> SideData<'a> {
    /// Cuts the section into its arrays; `None` where its length is not that of the arrays.
    pub(crate) fn split(bytes: &'a [u8], shape: &Shape) -> Option<Self> {
        let (header, rest) = SideDataHeader::ref_from_prefix(bytes).ok()?;
        let values = <[F32<LE>]>::ref_from_bytes(rest).ok()?;
        let length = |bit: u32, values: u32| {
            if header.arrays.get() & bit == 0 { 0 } else { values as usize }
        };
        let (neuron_bias, values) =
            values.split_at_checked(length(SIDE_NEURON_BIAS, shape.neurons))?;
        let (output_bias, values) =
            values.split_at_checked(length(SIDE_OUTPUT_BIAS, shape.hidden))?;
        let (up_bias, down_norm) = values.split_at_checked(length(SIDE_UP_BIAS, shape.neurons))?;
        let whole = down_norm.len() == length(SIDE_DOWN_NORM, shape.neurons);
        let norm_eps = header.norm_eps.get();
        let threshold = header.activation_threshold.get();
        let activation = Activation::from_code(header.activation.get()).map(|own| (own, threshold));
        whole.then_some(Self { neuron_bias, output_bias, up_bias, down_norm, norm_eps, activation })
    }

    /// Checks every rule of the section; `by_layer`: whether layers may have activations of their own.
    pub(crate) fn check(
        bytes: &'a [u8],
        shape: &Shape,
        entry: &SectionEntry,
        by_layer: bool,
    ) -> Result<(), FormatError> {
        let rule = "must be that of the arrays it names";
        let offset = entry.offset.get();
        let length = || wrong_length(SectionKind::SideData, entry, rule);
        let (header, _) = SideDataHeader::ref_from_prefix(bytes).map_err(|_| length())?;
        let arrays = header.arrays.get();
        let known = SIDE_NEURON_BIAS | SIDE_OUTPUT_BIAS | SIDE_UP_BIAS | SIDE_DOWN_NORM;
        let up_ok = arrays & SIDE_UP_BIAS == 0 || shape.parts == 3;
        if arrays & !known != 0 || !up_ok {
            return Err(FormatError::Field {
                field: "arrays",
                offset,
                rule: "must name known arrays only, up_bias of three parts only",
                found: arrays.into(),
            });
        }
        let eps = header.norm_eps.get();
        let has_norm = arrays & SIDE_DOWN_NORM != 0;
        let eps_ok = if has_norm { eps.is_finite() && eps >= 0.0 } else { eps.to_bits() == 0 };
        if !eps_ok {
            return Err(FormatError::Field {
                field: "norm_eps",
                offset: field_at(SideDataHeader::FIELDS, "norm_eps", offset),
                rule: "must be finite and not negative, 0 without down_norm",
                found: eps.to_bits().into(),
            });
        }
        check_activation(header, by_layer, offset)?;
        Self::split(bytes, shape).ok_or_else(length).map(|_| ())
    }
}

/// The layer's own activation, and its threshold.
fn check_activation(
    header: &SideDataHeader,
    by_layer: bool,
    offset: u64,
) -> Result<(), FormatError> {
    let (code, threshold) = (header.activation.get(), header.activation_threshold.get());
    let at = |name| field_at(SideDataHeader::FIELDS, name, offset);
    let activation = Activation::from_code(code);
    if code != 0 && (activation.is_none() || !by_layer) {
        return Err(FormatError::Field {
            field: "activation",
            offset: at("activation"),
            rule: "must be a known activation where the feature bit says so, else 0",
            found: code.into(),
        });
    }
    let threshold_ok = match activation {
        Some(activation) => activation.takes(threshold),
        None => threshold.to_bits() == 0,
    };
    if threshold_ok {
        return Ok(());
    }
    Err(FormatError::Field {
        field: "activation_threshold",
        offset: at("activation_threshold"),
        rule: THRESHOLD_RULE,
        found: threshold.to_bits().into(),
    })
}
