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
    /// `max(0, v)`, of the up part as well where there is a gate (TurboSparse).
    Drelu,
    /// `v / 2 * (1 + tanh(sqrt(2 / pi) * (v + 0.044715 v^3)))`.
    GeluTanh,
    /// The same of `max(0, v)`, where `v` is what the product is above its token's cutoff
    /// ([`crate::Input::cut`]; Gemma 3n).
    GaussianTopk,
}

impl Activation {
    /// The function's value.
    pub fn apply(self, v: f32) -> f32 {
        match self {
            Self::Relu | Self::Drelu => cut(v, 0.0),
            Self::Fatrelu { threshold } => cut(v, threshold),
            Self::Relu2 => {
                let v = cut(v, 0.0);
                v * v
            }
            Self::Silu => v / (1.0 + libm::expf(-v)),
            // By the complement: 1 + erf would cancel where v is negative.
            Self::Gelu => 0.5 * v * libm::erfcf(-v * core::f32::consts::FRAC_1_SQRT_2),
            Self::GeluTanh => gelu_tanh(v),
            Self::GaussianTopk => gelu_tanh(cut(v, 0.0)),
        }
    }

    /// What an activated gate is multiplied with, of the product with the up part.
    pub fn apply_up(self, v: f32) -> f32 {
        if matches!(self, Self::Drelu) { cut(v, 0.0) } else { v }
    }
}

/// By `(1 + tanh u) / 2 = 1 / (1 + exp -2u)`, which does not cancel where v is negative; in f64, for the
/// exponential makes much of an error in u.
fn gelu_tanh(v: f32) -> f32 {
    let v = f64::from(v);
    let u = core::f64::consts::FRAC_2_SQRT_PI
        * core::f64::consts::FRAC_1_SQRT_2
        * (v + 0.044715 * v * v * v);
    (v / (1.0 + libm::exp(-2.0 * u))) as f32
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
            let inner =
                libm::sqrt(2.0 / core::f64::consts::PI) * (wide + 0.044715 * wide * wide * wide);
            let tanh = 0.5 * wide * (1.0 + libm::tanh(inner));
            assert!((f64::from(Activation::GeluTanh.apply(v)) - tanh).abs() < 1e-6);
            let left = Activation::GaussianTopk.apply(v);
            assert!((f64::from(left) - if v > 0.0 { tanh } else { 0.0 }).abs() < 1e-6);
            assert_eq!(left == 0.0, v <= 0.0);
            assert_eq!(Activation::Drelu.apply(v), v.max(0.0));
            assert_eq!(Activation::Drelu.apply_up(v), v.max(0.0));
            assert_eq!(Activation::Relu2.apply_up(v), v);
            let found = f64::from(Activation::Gelu.apply(v));
            assert!((found - gelu).abs() <= 1e-5 * gelu.abs(), "{v}: {found} against {gelu}");
        }
        assert!(Activation::Relu.apply(f32::NAN).is_nan());
    }
}
