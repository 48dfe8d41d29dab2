//! A norm over coefficients.

/// One over the root of the mean square of `count` values, whose squares add up to `squares`, with `eps` added to the mean;
/// 0 where all that is 0, as nothing is left to scale then.
pub fn inverse_rms(squares: f64, count: u32, eps: f32) -> f64 {
    let mean = squares / f64::from(count.max(1)) + f64::from(eps);
    if mean > 0.0 { 1.0 / libm::sqrt(mean) } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_hand() {
        assert_eq!(inverse_rms(36.0, 4, 0.0), 1.0 / 3.0);
        assert_eq!(inverse_rms(30.0, 4, 1.5), 1.0 / 3.0);
        assert_eq!((inverse_rms(0.0, 4, 0.25), inverse_rms(0.0, 0, 0.0)), (2.0, 0.0));
    }
}
