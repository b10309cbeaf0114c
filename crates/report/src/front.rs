//! The Pareto front: the choices that no other choice beats in both respects.
//! Knows nothing of what they are.

/// Returns the places in `points` of those that no other beats, cheapest first.
///
/// Each point is (cost, gain): less cost is better, and more gain is. A point is beaten by one that is no worse in both
/// and better in one, so of equal points all stay.
pub(super) fn front(points: &[(f64, f64)]) -> Vec<usize> {
    let beats = |a: (f64, f64), b: (f64, f64)| a.0 <= b.0 && a.1 >= b.1 && a != b;
    let unbeaten = |index: &usize| !points.iter().any(|other| beats(*other, points[*index]));
    let mut front: Vec<_> = (0..points.len()).filter(unbeaten).collect();
    front.sort_by(|a, b| points[*a].0.total_cmp(&points[*b].0));
    front
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_front_has_what_nothing_beats() {
        //            beaten by 2    beaten by 1   cheapest    best       equal to 2
        let points = [(3.0, 0.5), (2.0, 0.4), (2.0, 0.6), (1.0, 0.1), (9.0, 1.0), (2.0, 0.6)];
        assert_eq!(front(&points), [3, 2, 5, 4]);
        assert_eq!(front(&[(1.0, 1.0)]), [0]);
        assert_eq!(front(&[]), [0; 0]);
    }
}
