//! How certain a share is: Wilson's score interval.
//! Knows nothing of what was counted.

/// The 97.5th percentile of the normal distribution: two-sided 95 %.
const Z: f64 = 1.959_963_984_540_054;

/// Returns the 95 % interval of `correct / total` as `[low, high]`, within 0 and 1. For a `total` of 0 it is
/// `[0, 1]`.
///
/// With `p = correct / total`, `n = total` and `z = 1.96`:
/// `(p + z²/2n ± z √(p(1-p)/n + z²/4n²)) / (1 + z²/n)` (Wilson 1927, JASA 22:209).
/// Unlike `p ± z √(p(1-p)/n)`, it does not shrink to a point at 0 and at 1: 5 of 5 is 57 % to 100 %.
pub fn wilson(correct: usize, total: usize) -> [f64; 2] {
    wilson_of_share(correct as f64, total as f64)
}

/// Returns the same for counts that need not be whole: of weighted queries, or of shares of samples.
pub(super) fn wilson_of_share(correct: f64, n: f64) -> [f64; 2] {
    if n <= 0.0 {
        return [0.0, 1.0];
    }
    let p = correct / n;
    let middle = p + Z * Z / (2.0 * n);
    let reach = Z * (p * (1.0 - p) / n + Z * Z / (4.0 * n * n)).sqrt();
    let scale = 1.0 + Z * Z / n;
    // If no answer is correct, the low end is exactly 0; if all are, the high end is exactly 1. Rounding must
    // not change that.
    let low = if correct <= 0.0 { 0.0 } else { (middle - reach) / scale };
    let high = if correct >= n { 1.0 } else { (middle + reach) / scale };
    [low, high]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rounded(correct: usize, total: usize) -> [f64; 2] {
        wilson(correct, total).map(|end| (end * 1e4).round() / 1e4)
    }

    /// Compares with `statsmodels.stats.proportion.proportion_confint(method="wilson")`.
    #[test]
    fn agrees_with_statsmodels() {
        assert_eq!(rounded(5, 5), [0.5655, 1.0]);
        assert_eq!(rounded(3, 5), [0.2307, 0.8824]);
        assert_eq!(rounded(0, 10), [0.0, 0.2775]);
        assert_eq!(rounded(36, 40), [0.7695, 0.9604]);
        assert_eq!(wilson(0, 0), [0.0, 1.0]);
    }
}
