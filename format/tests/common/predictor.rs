//! Predictor sections in memory, their numbers made up.

use lnp_format::layout::{
    OperatingPoint, PREDICTOR_REDUCE_BIAS, PREDICTOR_RELU_BETWEEN, PREDICTOR_STRENGTH_SCALES,
    PredictorHeader,
};
use lnp_format::{PredictorKind, PredictorNumbers, write};
use zerocopy::byteorder::{F32, U32};
use zerocopy::{FromZeros, IntoBytes};

/// What goes into a predictor's section.
#[derive(Clone, Copy)]
pub struct PredictorRecipe {
    pub kind: PredictorKind,
    pub numbers: PredictorNumbers,
    pub neurons: u32,
    pub hidden: u32,
    /// 0 of rows.
    pub rank: u32,
    pub points: u32,
    /// Whether each operating point has offsets of its own.
    pub by_neuron: bool,
    pub relu_between: bool,
    pub reduce_bias: bool,
    pub strength_scales: bool,
}

impl PredictorRecipe {
    pub fn low_rank(numbers: PredictorNumbers, neurons: u32, hidden: u32, rank: u32) -> Self {
        Self {
            kind: PredictorKind::LowRank,
            numbers,
            neurons,
            hidden,
            rank,
            points: 2,
            by_neuron: false,
            relu_between: false,
            reduce_bias: false,
            strength_scales: false,
        }
    }

    pub fn rows(numbers: PredictorNumbers, neurons: u32, hidden: u32) -> Self {
        let kind = PredictorKind::Rows;
        Self { kind, rank: 0, ..Self::low_rank(numbers, neurons, hidden, 0) }
    }

    /// The section's bytes.
    pub fn build(&self) -> Vec<u8> {
        let lists = if self.by_neuron { self.points } else { 1 };
        let mut header = write::predictor_header(
            (self.kind, self.numbers),
            (self.neurons, self.hidden, self.rank),
            (self.points, lists),
        );
        let flag = |set: bool, bit: u32| if set { bit } else { 0 };
        header.flags = U32::new(
            flag(self.relu_between, PREDICTOR_RELU_BETWEEN)
                | flag(self.reduce_bias, PREDICTOR_REDUCE_BIAS)
                | flag(self.strength_scales, PREDICTOR_STRENGTH_SCALES),
        );
        let mut bytes = header.as_bytes().to_vec();
        for point in 1..=self.points {
            let share = point as f32 / self.points as f32;
            let point = OperatingPoint {
                quality: F32::new(share),
                threshold: F32::new(0.5 - share),
                recall: F32::new(share * 0.875),
                reads_per_active: F32::new(1.0 + share),
                share_kept: F32::new(share),
                ..OperatingPoint::new_zeroed()
            };
            bytes.extend(point.as_bytes());
        }
        for at in 0..lists * self.neurons {
            // f16 of sixteenths below two
            bytes.extend((0x3800 + (at % 23) as u16 * 16).to_le_bytes());
        }
        if self.strength_scales {
            // f16 from a quarter to below one half
            (0..self.neurons)
                .for_each(|at| bytes.extend((0x3400 + (at % 64) as u16 * 16).to_le_bytes()));
        }
        if self.reduce_bias {
            (0..self.rank).for_each(|at| bytes.extend((at as f32 / 4.0).to_le_bytes()));
        }
        match self.kind {
            PredictorKind::Rows => self.rows_of(self.neurons, self.hidden, &mut bytes),
            PredictorKind::LowRank => {
                self.rows_of(self.rank, self.hidden, &mut bytes);
                self.rows_of(self.neurons, self.rank, &mut bytes);
            }
        }
        bytes
    }

    /// Rows of numbers between -2 and 2, whatever their type.
    fn rows_of(&self, rows: u32, columns: u32, out: &mut Vec<u8>) {
        for block in 0..rows * columns / 32 {
            let byte = |at: u32| (block * 37 + at * 11) as u8;
            match self.numbers {
                PredictorNumbers::F32 => {
                    (0..32).for_each(|at| {
                        out.extend((f32::from(byte(at)) / 64.0 - 2.0).to_le_bytes());
                    });
                }
                // f16 from 0.5 to below 1, of either sign
                PredictorNumbers::F16 => (0..32).for_each(|at| {
                    let sign = u16::from(byte(at) & 1) << 15;
                    out.extend((0x3800 | sign | u16::from(byte(at)) << 2).to_le_bytes());
                }),
                blocks => {
                    // the scale 2^-7
                    out.extend(0x2000_u16.to_le_bytes());
                    out.extend((2..blocks.row_bytes(32) as u32).map(byte));
                }
            }
        }
    }
}

/// Where the arrays behind a header begin, for tests that change them.
pub const POINTS_AT: usize = size_of::<PredictorHeader>();
