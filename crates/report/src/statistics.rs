//! Means, quantiles and their errors.
//! Knows nothing of what was measured.

/// A figure and its standard error.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Estimate {
    pub(crate) value: f64,
    pub(crate) error: f64,
}

/// Returns the mean. Its standard error is the sample standard deviation over the square root of the sample size. Sums
/// are in the order of the values.
pub(crate) fn mean(values: &[f64]) -> Estimate {
    let count = values.len().max(1) as f64;
    let value = values.iter().sum::<f64>() / count;
    let squares: f64 = values.iter().map(|one| (one - value).powi(2)).sum();
    Estimate { value, error: (squares / (count - 1.0).max(1.0) / count).sqrt() }
}

/// Returns the share of `hits` in `total`. Its standard error is `√(p (1 - p) / (n - 1))`.
pub(crate) fn share(hits: usize, total: usize) -> Estimate {
    let count = total.max(1) as f64;
    let value = hits as f64 / count;
    Estimate { value, error: (value * (1.0 - value) / (count - 1.0).max(1.0)).sqrt() }
}

/// Returns the quantile of `sorted` at `fraction`, between 0 and 1.
///
/// Between two values it is interpolated, as in llama.cpp. How many values are below the true quantile is binomial, with
/// the standard deviation `√(n f (1 - f))`. The error is half the distance between the values that lie so many places
/// below and above (David and Nagaraja 2003, *Order Statistics*, 7.1).
pub(crate) fn quantile(sorted: &[f64], fraction: f64) -> Estimate {
    let reach = (fraction * (1.0 - fraction) / sorted.len().max(1) as f64).sqrt();
    let between = at(sorted, (fraction + reach).min(1.0)) - at(sorted, (fraction - reach).max(0.0));
    Estimate { value: at(sorted, fraction), error: between / 2.0 }
}

/// Returns the largest value. Its error is the jackknife's, `(n - 1) / n` times the distance to the second largest (Efron
/// 1982, *The Jackknife, the Bootstrap and Other Resampling Plans*, 3).
pub(crate) fn largest(sorted: &[f64]) -> Estimate {
    let count = sorted.len().max(1) as f64;
    let value = sorted.last().copied().unwrap_or_default();
    let second = sorted.iter().rev().nth(1).copied().unwrap_or(value);
    Estimate { value, error: (value - second) * (count - 1.0) / count }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a place is small and not negative"
)]
fn at(sorted: &[f64], fraction: f64) -> f64 {
    let place = fraction * sorted.len().saturating_sub(1) as f64;
    let low = place.floor();
    let value = |place: f64| sorted.get(place as usize).copied();
    let Some(below) = value(low) else { return 0.0 };
    below + (value(low + 1.0).unwrap_or(below) - below) * (place - low)
}

/// Returns the median; 0 for no values.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    at(&values, 0.5)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_error_of_a_mean_is_that_of_statistics() {
        // statistics.stdev([1, 2, 4]) / sqrt(3) is 0.881917…
        let Estimate { value, error } = mean(&[1.0, 2.0, 4.0]);
        assert!((value - 7.0 / 3.0).abs() < 1e-12 && (error - 0.881_917_103_688_196_8).abs() < 1e-12);
        assert_eq!(mean(&[5.0]), Estimate { value: 5.0, error: 0.0 });
    }

    /// Compares with `numpy.quantile`, which interpolates too.
    #[test]
    fn quantiles_are_those_of_numpy() {
        let values: Vec<f64> = (0..1000).map(|index| f64::from(index) / 10.0).collect();
        assert!((quantile(&values, 0.99).value - 98.901).abs() < 1e-9);
        assert!((quantile(&values, 0.5).value - 49.95).abs() < 1e-9);
        assert_eq!([median(vec![3.0, 1.0, 2.0]), median(vec![4.0, 1.0]), median(vec![])], [2.0, 2.5, 0.0]);
        // √(0.5 · 0.5 / 1000) of the range from 0 to 99.9.
        assert!((quantile(&values, 0.5).error - 0.015_811_388 * 99.9).abs() < 1e-6);
        assert_eq!(quantile(&[], 0.5), Estimate { value: 0.0, error: 0.0 });
    }

    #[test]
    fn the_error_of_the_largest_is_the_jackknife() {
        assert_eq!(largest(&[1.0, 2.0, 6.0, 10.0]), Estimate { value: 10.0, error: 3.0 });
        assert_eq!(largest(&[7.0]), Estimate { value: 7.0, error: 0.0 });
    }

    /// Over many samples, the error is the standard deviation of the quantile.
    #[test]
    fn the_error_of_a_quantile_is_what_samples_vary_by() {
        let mut state = 1_u64;
        let mut random = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 11) as f64 / (1_u64 << 53) as f64
        };
        let mut sample = || {
            let mut values: Vec<f64> = (0..2000).map(|_| -(1.0 - random()).ln()).collect();
            values.sort_by(f64::total_cmp);
            quantile(&values, 0.9)
        };
        let samples: Vec<_> = (0..300).map(|_| sample()).collect();
        let values: Vec<_> = samples.iter().map(|sample| sample.value).collect();
        let deviation = mean(&values).error * 300_f64.sqrt();
        let stated = samples.iter().map(|sample| sample.error).sum::<f64>() / 300.0;
        assert!((stated / deviation - 1.0).abs() < 0.15, "{stated} {deviation}");
    }
}
