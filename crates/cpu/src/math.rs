//! The functions of one number that models need: our own, so that every processor gives the same bits.
//! Knows nothing of tensors. Each function is made of sums, products and fused products alone, so that the compiler
//! can make vectors of it.

use std::f32::consts::LOG2_E;

/// Between these numbers `e^x` is a normal float32.
const LOWEST: f32 = -87.3;
const HIGHEST: f32 = 88.3;

/// Added to a number, it leaves the number's integer part in the lowest bits of the sum.
const TO_INTEGER: f32 = 12_582_912.0;

/// `ln 2`, in a part of few bits and the rest.
const LN_2_HIGH: f32 = 0.693_359_4;
const LN_2_LOW: f32 = -2.121_944_4e-4;

/// Returns `e^x` with an error of about one unit in the last place. Below -87.3 it is 0, and above 88.3 it stays
/// finite.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    let inside = if x > LOWEST { x } else { LOWEST };
    let inside = if inside < HIGHEST { inside } else { HIGHEST };
    // x = n ln 2 + r, where |r| is at most half of ln 2.
    let shifted = inside.mul_add(LOG2_E, TO_INTEGER);
    let n = shifted - TO_INTEGER;
    let r = n.mul_add(-LN_2_LOW, n.mul_add(-LN_2_HIGH, inside));
    // The polynomial of Cephes' `expf`.
    let p = 1.987_569_1e-4_f32
        .mul_add(r, 1.398_2e-3)
        .mul_add(r, 8.333_452e-3)
        .mul_add(r, 4.166_579_6e-2)
        .mul_add(r, 1.666_666_5e-1)
        .mul_add(r, 0.5);
    let value = p.mul_add(r * r, r) + 1.0;
    let power = f32::from_bits((shifted.to_bits() << 23).wrapping_add(1.0_f32.to_bits()));
    if x > LOWEST { value * power } else { 0.0 }
}

/// Returns `x / (1 + e^-x)`.
#[inline(always)]
pub(crate) fn silu(x: f32) -> f32 {
    x / (1.0 + exp(-x))
}

/// Returns the approximation of GELU with a tanh: `x / 2 (1 + tanh(√(2/π) (x + 0.044715 x³)))`.
#[inline(always)]
pub(crate) fn gelu(x: f32) -> f32 {
    // tanh(z) is 1 - 2 / (e^2z + 1), so half of 1 + tanh(z) is 1 - 1 / (e^2z + 1).
    const TWICE_ROOT: f32 = 1.595_769_2;
    let z = TWICE_ROOT * (0.044_715 * x * x).mul_add(x, x);
    x - x / (exp(z) + 1.0)
}

/// Returns `1 / (1 + e^-x)`.
#[inline(always)]
pub(crate) fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// Returns the hyperbolic tangent, with an absolute error of about 1e-7.
#[inline(always)]
pub(crate) fn tanh(x: f32) -> f32 {
    1.0 - 2.0 / (exp(2.0 * x) + 1.0)
}

/// Returns the nearest float32.
#[inline(always)]
pub(crate) fn rounded(value: f64) -> f32 {
    #[expect(clippy::cast_possible_truncation, reason = "rounding is what is wanted")]
    let rounded = value as f32;
    rounded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_powers_of_e_are_right() {
        let mut worst = 0.0_f64;
        for step in -870_000..880_000 {
            let x = step as f32 / 10_000.0;
            let right = f64::from(x).exp();
            worst = worst.max((f64::from(exp(x)) - right).abs() / right);
        }
        assert!(worst < 1.2e-7, "{worst}");
        assert_eq!([exp(0.0), exp(f32::NEG_INFINITY), exp(-100.0)], [1.0, 0.0, 0.0]);
        assert!(exp(1000.0).is_finite());
    }

    #[test]
    fn the_activations_are_right() {
        for step in -4000..4000 {
            let x = step as f32 / 200.0;
            let wide = f64::from(x);
            let right = wide / (1.0 + (-wide).exp());
            assert!((f64::from(silu(x)) - right).abs() < 3e-7 * (1.0 + wide.abs()), "{x}");
            let inner = (2.0 / std::f64::consts::PI).sqrt() * (wide + 0.044_715 * wide.powi(3));
            let right = wide / 2.0 * (1.0 + inner.tanh());
            assert!((f64::from(gelu(x)) - right).abs() < 3e-7 * (1.0 + wide.abs()), "{x}");
            assert!((f64::from(tanh(x)) - wide.tanh()).abs() < 3e-7, "{x}");
            assert!((f64::from(sigmoid(x)) - 1.0 / (1.0 + (-wide).exp())).abs() < 3e-7, "{x}");
        }
    }
}
