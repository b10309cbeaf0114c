//! One axis of a plot: where a value lies on it, and where its ticks are.
//! Knows nothing of what the values mean.

/// Maps a range of values to a range of places.
#[derive(Clone, Copy, Debug)]
pub(super) struct Axis {
    /// The values at the two ends, lowest first.
    values: [f64; 2],
    /// The places of these two values, in the plot's units.
    places: [f64; 2],
    /// Whether the scale is logarithmic.
    logarithmic: bool,
}

impl Axis {
    /// Makes an axis that spans the values, with a little room at both ends. An end that is given in `ends`
    /// is used as it is. The scale is logarithmic if no end is given, all values are positive, and they
    /// differ by a factor of more than 8.
    pub(super) fn of(values: impl Iterator<Item = f64>, ends: [Option<f64>; 2], places: [f64; 2]) -> Self {
        let values: Vec<_> = values.filter(|value| value.is_finite()).collect();
        let least = values.iter().copied().fold(f64::INFINITY, f64::min);
        let most = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let (least, most) = if values.is_empty() { (0.0, 1.0) } else { (least, most) };
        let logarithmic = ends == [None, None] && least > 0.0 && most / least > 8.0;
        let span = if most > least { most - least } else { least.abs().max(1e-9) };
        let room = span * 0.1;
        let [low, high] = match logarithmic {
            true => [least / (most / least).powf(0.08), most * (most / least).powf(0.08)],
            // If no value is negative, there is no room below 0.
            false => [if least >= 0.0 { (least - room).max(0.0) } else { least - room }, most + room],
        };
        Self { values: [ends[0].unwrap_or(low), ends[1].unwrap_or(high)], places, logarithmic }
    }

    /// Returns the place of a value. A value outside the axis gets the place of the nearer end.
    pub(super) fn place(&self, value: f64) -> f64 {
        let scale = |value: f64| if self.logarithmic { value.ln() } else { value };
        let [low, high] = self.values.map(scale);
        let share = ((scale(value) - low) / (high - low)).clamp(0.0, 1.0);
        self.places[0] + share * (self.places[1] - self.places[0])
    }

    /// Returns the round values on the axis, about `count` of them.
    pub(super) fn ticks(&self, count: usize) -> Vec<f64> {
        let [low, high] = self.values;
        if self.logarithmic {
            let first = 10_f64.powf(low.log10().floor());
            let decades = std::iter::successors(Some(first), |decade| Some(decade * 10.0));
            let decades = decades.take_while(|decade| *decade <= high);
            let ticks = decades.flat_map(|decade| [1.0, 2.0, 5.0].map(|step| step * decade));
            return ticks.filter(|tick| (low..=high).contains(tick)).collect();
        }
        let step = round_up((high - low) / count as f64);
        let first = (low / step - 1e-9).ceil();
        let ticks = (0..=2 * count).map(|index| (first + index as f64) * step);
        ticks.take_while(|tick| *tick <= high + step * 1e-9).collect()
    }
}

/// Rounds up to 1, 2, 2.5 or 5 times a power of ten.
fn round_up(step: f64) -> f64 {
    let power = 10_f64.powf(step.log10().floor());
    let steps = [1.0, 2.0, 2.5, 5.0, 10.0].map(|factor| factor * power);
    steps.into_iter().find(|round| *round >= step * (1.0 - 1e-9)).unwrap_or(power * 10.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_lie_in_order_and_ticks_are_round() {
        let axis = Axis::of([1.9e6, 6.6e6].into_iter(), [None, None], [0.0, 100.0]);
        assert_eq!(axis.ticks(6), [2e6, 3e6, 4e6, 5e6, 6e6, 7e6]);
        assert!(axis.place(1.9e6) < axis.place(6.6e6));
        let share = Axis::of([0.2, 1.0].into_iter(), [Some(0.0), Some(1.0)], [100.0, 0.0]);
        assert_eq!([share.place(0.0), share.place(0.25), share.place(1.0)], [100.0, 75.0, 0.0]);
        assert_eq!(share.ticks(4), [0.0, 0.25, 0.5, 0.75, 1.0]);
    }

    #[test]
    fn what_differs_by_factors_is_logarithmic() {
        let axis = Axis::of([9.0, 9000.0].into_iter(), [None, None], [0.0, 1.0]);
        assert_eq!(axis.ticks(5), [10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0, 2000.0, 5000.0, 10000.0]);
    }

    #[test]
    fn one_value_or_none_has_an_axis_too() {
        for values in [vec![], vec![0.0], vec![5.0], vec![f64::NAN]] {
            let axis = Axis::of(values.into_iter(), [None, None], [0.0, 1.0]);
            assert!(axis.place(5.0).is_finite() && axis.ticks(4).len() < 20);
        }
    }
}
