//! Predictors in the index: which neurons of a layer will be active, told from few bytes.
//!
//! Here are only their bytes; what they compute is section 9.2 of the specification, and the engine's to do.

use zerocopy::FromBytes;
use zerocopy::byteorder::{F32, LE, U16};

use crate::checksum::check_zero;
use crate::codes::{PredictorKind, PredictorNumbers, SectionKind};
use crate::error::FormatError;
use crate::layout::{
    OperatingPoint, PREDICTOR_REDUCE_BIAS, PREDICTOR_RELU_BETWEEN, PREDICTOR_STRENGTH_SCALES,
    PredictorHeader, field_at,
};
use crate::limits;
use crate::shape::Shape;

/// A predictor of one layer at one horizon: views into the index.
#[derive(Clone, Copy, Debug)]
pub struct Predictor<'a> {
    numbers: PredictorNumbers,
    relu_between: bool,
    points: &'a [OperatingPoint],
    /// One list after the other.
    offsets: &'a [U16<LE>],
    strength_scales: &'a [U16<LE>],
    neurons: u32,
    body: PredictorBody<'a>,
}

/// What scores are computed from: rows of [`Predictor::numbers`], one after the other.
#[derive(Clone, Copy, Debug)]
pub enum PredictorBody<'a> {
    /// Two matrices, one applied after the other.
    LowRank {
        /// Rows of `reduce`, columns of `expand`.
        rank: u32,
        /// `rank` rows of `hidden` numbers.
        reduce: &'a [u8],
        /// `neurons` rows of `rank` numbers, by neuron id.
        expand: &'a [u8],
        /// Added to what `reduce` gives: `rank` values, or none.
        reduce_bias: &'a [F32<LE>],
    },
    /// `neurons` rows of `hidden` numbers, by neuron id.
    Rows(&'a [u8]),
}

impl<'a> Predictor<'a> {
    /// How the numbers of the matrices are stored.
    pub const fn numbers(&self) -> PredictorNumbers {
        self.numbers
    }

    /// Whether what is below zero between the two matrices becomes zero.
    pub const fn relu_between(&self) -> bool {
        self.relu_between
    }

    /// The matrices.
    pub const fn body(&self) -> PredictorBody<'a> {
        self.body
    }

    /// The rank of a low-rank one, else 0.
    pub const fn rank(&self) -> u32 {
        match self.body {
            PredictorBody::LowRank { rank, .. } => rank,
            PredictorBody::Rows(_) => 0,
        }
    }

    /// The operating points, by ascending quality; at least one.
    pub const fn points(&self) -> &'a [OperatingPoint] {
        self.points
    }

    /// What is added to the scores at an operating point: f16 bits by neuron id; none where there is no such
    /// point.
    pub fn offsets(&self, point: usize) -> &'a [U16<LE>] {
        let neurons = self.neurons as usize;
        let list = if self.offsets.len() == neurons { 0 } else { point };
        let begin = list.saturating_mul(neurons);
        self.offsets.get(begin..begin.saturating_add(neurons)).unwrap_or_default()
    }

    /// What makes a score an estimate of a neuron's strength: f16 bits by neuron id; none where the predictor
    /// tells no strengths.
    pub const fn strength_scales(&self) -> &'a [U16<LE>] {
        self.strength_scales
    }

    /// Whether each operating point has offsets of its own.
    pub fn by_neuron(&self) -> bool {
        self.offsets.len() > self.neurons as usize
    }

    /// The first operating point whose quality is not below this, or the last.
    pub fn point_of(&self, quality: f32) -> usize {
        let last = self.points.len().saturating_sub(1);
        self.points.iter().position(|point| point.quality.get() >= quality).unwrap_or(last)
    }

    /// Bytes of the matrices, of what is added at one operating point, and of what tells strengths.
    pub const fn bytes(&self) -> u64 {
        let matrices = match self.body {
            PredictorBody::LowRank { reduce, expand, reduce_bias, .. } => {
                reduce.len() + expand.len() + size_of_val(reduce_bias)
            }
            PredictorBody::Rows(rows) => rows.len(),
        };
        let scales = size_of_val(self.strength_scales);
        (matrices + scales) as u64 + 2 * self.neurons as u64
    }

    /// The predictor of a section that stands by itself, for layers of this shape; `None` of a kind that is not known
    /// here.
    ///
    /// # Errors
    /// The first rule that it breaks.
    pub fn of_section(bytes: &'a [u8], shape: &Shape) -> Result<Option<Self>, FormatError> {
        Self::check(bytes, shape, 0)?;
        Ok(Self::split(bytes))
    }

    /// Cuts the section into its arrays; `None` where the kind is one that is not known here, or the length is
    /// not that of the arrays.
    pub(crate) fn split(bytes: &'a [u8]) -> Option<Self> {
        let (header, rest) = PredictorHeader::ref_from_prefix(bytes).ok()?;
        let known = Known::of(header)?;
        let lengths = known.lengths(header)?;
        let (points, rest) = cut(rest, lengths.points)?;
        let (offsets, rest) = cut(rest, lengths.offsets)?;
        let (scales, rest) = cut(rest, lengths.strength_scales)?;
        let (reduce_bias, rest) = cut(rest, lengths.reduce_bias)?;
        let (reduce, second) = cut(rest, lengths.reduce)?;
        if second.len() as u64 != lengths.by_neuron {
            return None;
        }
        let body = match known.kind {
            PredictorKind::Rows => PredictorBody::Rows(second),
            PredictorKind::LowRank => PredictorBody::LowRank {
                rank: header.rank.get(),
                reduce,
                expand: second,
                reduce_bias: <[F32<LE>]>::ref_from_bytes(reduce_bias).ok()?,
            },
        };
        Some(Self {
            numbers: known.numbers,
            relu_between: header.flags.get() & PREDICTOR_RELU_BETWEEN != 0,
            points: <[OperatingPoint]>::ref_from_bytes(points).ok()?,
            offsets: <[U16<LE>]>::ref_from_bytes(offsets).ok()?,
            strength_scales: <[U16<LE>]>::ref_from_bytes(scales).ok()?,
            neurons: header.neurons.get(),
            body,
        })
    }

    /// Every rule about what a section at `offset` holds. One of an unknown kind keeps them all.
    pub(crate) fn check(bytes: &'a [u8], shape: &Shape, offset: u64) -> Result<(), FormatError> {
        let (field, found) = (SectionKind::Predictor.name(), bytes.len() as u64);
        let length = |rule| FormatError::Field { field, offset, rule, found };
        let (header, _) = PredictorHeader::ref_from_prefix(bytes)
            .map_err(|_| length("must be at least that of its header"))?;
        let Some(known) = Known::of(header) else { return Ok(()) };
        known.check_header(header, shape, offset)?;
        let predictor =
            Self::split(bytes).ok_or_else(|| length("must be that of its header and arrays"))?;
        let mut at = offset + size_of::<PredictorHeader>() as u64;
        let mut above = f32::NEG_INFINITY;
        for point in predictor.points {
            check_point(point, above, at)?;
            above = point.quality.get();
            at += size_of::<OperatingPoint>() as u64;
        }
        Ok(())
    }
}

/// The words of a header that this version knows all of.
#[derive(Clone, Copy)]
struct Known {
    kind: PredictorKind,
    numbers: PredictorNumbers,
}

/// Bytes of the arrays, in their order.
struct Lengths {
    points: u64,
    offsets: u64,
    strength_scales: u64,
    reduce_bias: u64,
    reduce: u64,
    /// `expand`, or `rows`.
    by_neuron: u64,
}

impl Known {
    fn of(header: &PredictorHeader) -> Option<Self> {
        let flags = PREDICTOR_RELU_BETWEEN | PREDICTOR_REDUCE_BIAS | PREDICTOR_STRENGTH_SCALES;
        let known = header.flags.get() & !flags == 0;
        let kind = PredictorKind::from_code(header.kind.get())?;
        let numbers = PredictorNumbers::from_code(header.numbers.get())?;
        known.then_some(Self { kind, numbers })
    }

    /// `None` beyond 64 bits.
    fn lengths(self, header: &PredictorHeader) -> Option<Lengths> {
        let [neurons, hidden, rank] =
            [header.neurons, header.hidden, header.rank].map(|field| u64::from(field.get()));
        let [points, offsets] = [header.points, header.offsets].map(|field| u64::from(field.get()));
        let row = |columns| self.numbers.row_bytes(columns);
        let columns = if self.kind == PredictorKind::LowRank { rank } else { hidden };
        let has = |flag| header.flags.get() & flag != 0;
        Some(Lengths {
            points: points.checked_mul(size_of::<OperatingPoint>() as u64)?,
            offsets: offsets.checked_mul(neurons.checked_mul(2)?)?,
            strength_scales: if has(PREDICTOR_STRENGTH_SCALES) { 2 * neurons } else { 0 },
            reduce_bias: if has(PREDICTOR_REDUCE_BIAS) { 4 * rank } else { 0 },
            // no rows where there is no rank
            reduce: rank.checked_mul(row(hidden))?,
            by_neuron: neurons.checked_mul(row(columns))?,
        })
    }

    fn check_header(
        self,
        header: &PredictorHeader,
        shape: &Shape,
        offset: u64,
    ) -> Result<(), FormatError> {
        let rank = header.rank.get();
        let rank_ok = match self.kind {
            PredictorKind::LowRank => {
                (1..=limits::HIDDEN_MAX).contains(&rank)
                    && rank.is_multiple_of(limits::HIDDEN_MULTIPLE)
            }
            PredictorKind::Rows => rank == 0,
        };
        let of_low_rank = PREDICTOR_RELU_BETWEEN | PREDICTOR_REDUCE_BIAS;
        let flags_ok = self.kind == PredictorKind::LowRank || header.flags.get() & of_low_rank == 0;
        let points = header.points.get();
        let offsets = header.offsets.get();
        let (neurons, hidden) = (header.neurons.get(), header.hidden.get());
        let of_shape = "must be that of the model shape";
        for (ok, field, rule, found) in [
            (neurons == shape.neurons, "neurons", of_shape, neurons),
            (hidden == shape.hidden, "hidden", of_shape, hidden),
            (rank_ok, "rank", "must be a multiple of 32 above 0; 0 of rows", rank),
            (flags_ok, "flags", "must be strength_scales or 0 of rows", header.flags.get()),
            ((1..=limits::POINTS_MAX).contains(&points), "points", "must be 1 to 64", points),
            (offsets == 1 || offsets == points, "offsets", "must be 1 or points", offsets),
        ] {
            if !ok {
                let offset = field_at(PredictorHeader::FIELDS, field, offset);
                return Err(FormatError::Field { field, offset, rule, found: found.into() });
            }
        }
        let reserved_at = field_at(PredictorHeader::FIELDS, "reserved", offset);
        check_zero("predictor_header.reserved", reserved_at, &header.reserved)
    }
}

/// A point at `offset` of the file, after one of quality `above`.
fn check_point(point: &OperatingPoint, above: f32, offset: u64) -> Result<(), FormatError> {
    let share = |value: f32| (0.0..=1.0).contains(&value);
    let reads = point.reads_per_active.get();
    let (quality, threshold) = (point.quality.get(), point.threshold.get());
    let (recall, kept) = (point.recall.get(), point.share_kept.get());
    for (ok, field, rule, found) in [
        (share(quality), "quality", "must be 0 to 1", quality),
        (quality > above, "quality", "must ascend from point to point", quality),
        (threshold.is_finite(), "threshold", "must be finite", threshold),
        (share(recall), "recall", "must be 0 to 1", recall),
        (
            reads.is_finite() && reads >= 0.0,
            "reads_per_active",
            "must be finite, not negative",
            reads,
        ),
        (share(kept), "share_kept", "must be 0 to 1", kept),
    ] {
        if !ok {
            let offset = field_at(OperatingPoint::FIELDS, field, offset);
            let found = found.to_bits().into();
            return Err(FormatError::Field { field, offset, rule, found });
        }
    }
    let reserved_at = field_at(OperatingPoint::FIELDS, "reserved", offset);
    check_zero("operating_point.reserved", reserved_at, &point.reserved)
}

fn cut(bytes: &[u8], length: u64) -> Option<(&[u8], &[u8])> {
    bytes.split_at_checked(usize::try_from(length).ok()?)
}
