//! The function between up (or gate) and down.

/// An activation function. NaN goes through: a NaN input gives a NaN output.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Activation {
    /// `max(0, v)`.
    Relu,
    /// `v` where `v > threshold`, else 0 (ProSparse).
    Fatrelu {
        /// At most this much is cut to zero.
        threshold: f32,
    },
    /// `max(0, v)^2`.
    Relu2,
    /// `v / (1 + exp(-v))`.
    Silu,
    /// `v / 2 * (1 + erf(v / sqrt 2))`.
    Gelu,
}

impl Activation {
    /// The function's value.
    pub fn apply(self, v: f32) -> f32 {
        match self {
            Self::Relu => cut(v, 0.0),
            Self::Fatrelu { threshold } => cut(v, threshold),
            Self::Relu2 => {
                let v = cut(v, 0.0);
                v * v
            }
            Self::Silu => v / (1.0 + libm::expf(-v)),
            // By the complement: 1 + erf would cancel where v is negative.
            Self::Gelu => 0.5 * v * libm::erfcf(-v * core::f32::consts::FRAC_1_SQRT_2),
        }
    }
}

/// `v` above the threshold, else 0; written so that NaN is not cut.
fn cut(v: f32, threshold: f32) -> f32 {
    if v <= threshold { 0.0 } else { v }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_against_the_definitions_in_f64() {
        for step in -80..=80_i16 {
            let v = f32::from(step) / 10.0;
            let wide = f64::from(v);
            let silu = wide / (1.0 + libm::exp(-wide));
            let gelu = 0.5 * wide * libm::erfc(-wide / libm::sqrt(2.0));
            assert_eq!(Activation::Relu.apply(v), v.max(0.0));
            assert_eq!(Activation::Relu2.apply(v), v.max(0.0) * v.max(0.0));
            let fatrelu = Activation::Fatrelu { threshold: 0.5 }.apply(v);
            assert_eq!(fatrelu, if v > 0.5 { v } else { 0.0 });
            assert!((f64::from(Activation::Silu.apply(v)) - silu).abs() < 1e-5);
            let found = f64::from(Activation::Gelu.apply(v));
            assert!((found - gelu).abs() <= 1e-5 * gelu.abs(), "{v}: {found} against {gelu}");
        }
        assert!(Activation::Relu.apply(f32::NAN).is_nan());
    }
}
