//! The Pareto front: the points that no other point dominates.
//! Knows nothing of what the points are.

/// Returns the indices of the points that no other point dominates, cheapest first.
///
/// Each point is `(cost, gain)`: a lower cost and a higher gain are better. A point is dominated by one that
/// is no worse in both and better in at least one. So equal points do not dominate each other, and all of
/// them stay.
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
