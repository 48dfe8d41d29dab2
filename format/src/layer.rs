//! What the index holds about one layer: the arrays of its link index and of its side data.

use core::cmp::Ordering;

use zerocopy::FromBytes;
use zerocopy::byteorder::{F32, LE, U32};

use crate::checksum::check_zero;
use crate::codes::{Activation, SectionKind};
use crate::error::FormatError;
use crate::layout::{
    LinkIndexHeader, SIDE_DOWN_NORM, SIDE_NEURON_BIAS, SIDE_OUTPUT_BIAS, SIDE_UP_BIAS,
    SectionEntry, SideDataHeader, field_at,
};
use crate::sections::wrong_length;
use crate::shape::{Shape, THRESHOLD_RULE};

/// The arrays of a `link_index` section.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LinkIndex<'a> {
    pub(crate) header: &'a LinkIndexHeader,
    pub(crate) slot_of_neuron: &'a [U32<LE>],
    pub(crate) neuron_of_slot: &'a [U32<LE>],
    pub(crate) link_begin: &'a [U32<LE>],
    pub(crate) active_count: &'a [U32<LE>],
}

impl<'a> LinkIndex<'a> {
    /// Cuts the section into its arrays; `None` where its length is not that of the arrays.
    pub(crate) fn split(bytes: &'a [u8]) -> Option<Self> {
        let (header, rest) = LinkIndexHeader::ref_from_prefix(bytes).ok()?;
        let words = <[U32<LE>]>::ref_from_bytes(rest).ok()?;
        let neurons = usize::try_from(header.neurons.get()).ok()?;
        let links = usize::try_from(header.links.get()).ok()?;
        let (slot_of_neuron, words) = words.split_at_checked(neurons)?;
        let (neuron_of_slot, words) = words.split_at_checked(neurons)?;
        let (link_begin, words) = words.split_at_checked(links.checked_add(1)?)?;
        (words.len() == neurons).then_some(Self {
            header,
            slot_of_neuron,
            neuron_of_slot,
            link_begin,
            active_count: words,
        })
    }

    pub(crate) fn check(&self, neurons: u32, offset: u64) -> Result<(), FormatError> {
        let broken = |field, words_before: usize, rule, found: u32| FormatError::Field {
            field,
            offset: offset + size_of::<LinkIndexHeader>() as u64 + 4 * words_before as u64,
            rule,
            found: found.into(),
        };
        if self.header.neurons.get() != neurons {
            return Err(FormatError::Field {
                field: "neurons",
                offset,
                rule: "must be that of the model shape",
                found: self.header.neurons.get().into(),
            });
        }
        let reserved_at = field_at(LinkIndexHeader::FIELDS, "reserved", offset);
        check_zero("link_index_header.reserved", reserved_at, &self.header.reserved)?;
        let n = self.slot_of_neuron.len();
        // Each array being the other's inverse is what makes both permutations.
        for (slot, neuron) in self.neuron_of_slot.iter().enumerate() {
            let back =
                usize::try_from(neuron.get()).ok().and_then(|id| self.slot_of_neuron.get(id));
            if back.map(|back| back.get() as usize) != Some(slot) {
                let rule = "must name each neuron once and be the inverse of slot_of_neuron";
                return Err(broken("neuron_of_slot", n + slot, rule, neuron.get()));
            }
        }
        let mut expected = Ordering::Equal; // the first link begins at slot 0, later ones after it
        let mut previous = 0;
        for (link, begin) in self.link_begin.iter().enumerate() {
            if begin.get().cmp(&previous) != expected {
                let rule = "must begin with 0 and ascend";
                return Err(broken("link_begin", 2 * n + link, rule, begin.get()));
            }
            previous = begin.get();
            expected = Ordering::Greater;
        }
        if previous != neurons {
            let rule = "must end with the number of neurons";
            return Err(broken("link_begin", 2 * n + self.link_begin.len() - 1, rule, previous));
        }
        let tokens = self.header.profile_tokens.get();
        for (slot, count) in self.active_count.iter().enumerate() {
            if u64::from(count.get()) > tokens {
                let rule = "must be at most profile_tokens";
                let before = 2 * n + self.link_begin.len() + slot;
                return Err(broken("active_count", before, rule, count.get()));
            }
        }
        Ok(())
    }
}

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
