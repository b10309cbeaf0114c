//! The choice of experts, and the order in which their pairs of token and expert are computed.
//! Knows nothing of the experts' weights.

use std::ops::Range;

use crate::tensor::Buffer;

/// For each token, the numbers of its experts.
pub struct Choice {
    /// `[tokens, count]`
    experts: Vec<usize>,
    count: usize,
}

/// The pairs of token and expert, sorted by expert, so that a row of weights is unpacked once for all its tokens.
pub struct Routes {
    /// For each pair in this order: its place in `[tokens, count]`.
    order: Vec<usize>,
    count: usize,
    /// For each expert that has pairs: its number, and its pairs in this order.
    groups: Vec<(usize, Range<usize>)>,
}

/// Returns the places of the `count` largest numbers of each row, the largest first, and these numbers. Of equal numbers
/// the first counts as larger.
pub(crate) fn largest(rows: &[f32], dims: usize, count: usize) -> (Choice, Vec<f32>) {
    let (mut experts, mut numbers) = (Vec::new(), Vec::new());
    for row in rows.chunks_exact(dims) {
        let mut places: Vec<usize> = (0..dims).collect();
        places.sort_by(|a, b| row[*b].total_cmp(&row[*a]));
        places.truncate(count);
        numbers.extend(places.iter().map(|place| row[*place]));
        experts.extend(places);
    }
    (Choice { experts, count }, numbers)
}

impl Choice {
    /// Returns the numbers of each row at the places of the choice.
    pub(crate) fn at(&self, rows: &[f32], dims: usize) -> Vec<f32> {
        let choices = self.experts.chunks_exact(self.count.max(1));
        rows.chunks_exact(dims)
            .zip(choices)
            .flat_map(|(row, own)| own.iter().map(|place| row[*place]))
            .collect()
    }

    /// Returns the numbers of a vector at the places of the choice.
    pub(crate) fn picked(&self, numbers: &[f32]) -> Vec<f32> {
        self.experts.iter().map(|place| numbers[*place]).collect()
    }

    /// Returns how many experts a token has.
    pub(crate) fn count(&self) -> usize {
        self.count
    }
}

/// Sets the numbers of all but the best `kept` groups of each row to 0. A group is as good as the sum of its two largest
/// numbers; of equal groups the later counts as better, as in MLX, which drops the first of the worst.
pub(crate) fn keep_best_groups(rows: &mut [f32], dims: usize, groups: usize, kept: usize) {
    let size = dims / groups.max(1);
    for row in rows.chunks_exact_mut(dims) {
        let goodness = row.chunks_exact(size).map(|group| {
            let mut sorted = group.to_vec();
            sorted.sort_by(|a, b| b.total_cmp(a));
            sorted.iter().take(2).sum::<f32>()
        });
        let goodness: Vec<f32> = goodness.collect();
        let mut order: Vec<usize> = (0..groups).collect();
        order.sort_by(|a, b| goodness[*a].total_cmp(&goodness[*b]));
        for group in order.iter().take(groups - kept) {
            row[group * size..(group + 1) * size].fill(0.0);
        }
    }
}

impl Routes {
    pub(crate) fn new(choice: &Choice) -> Self {
        let Choice { experts, count } = choice;
        let mut order: Vec<usize> = (0..experts.len()).collect();
        order.sort_by_key(|pair| experts[*pair]);
        let mut groups: Vec<(usize, Range<usize>)> = Vec::new();
        for (index, pair) in order.iter().enumerate() {
            match groups.last_mut() {
                Some((expert, pairs)) if *expert == experts[*pair] => pairs.end = index + 1,
                _ => groups.push((experts[*pair], index..index + 1)),
            }
        }
        Self { order, count: *count, groups }
    }

    pub(crate) fn groups(&self) -> &[(usize, Range<usize>)] {
        &self.groups
    }

    /// Returns the row of its token for each pair.
    pub(crate) fn spread(&self, x: &[f32], dims: usize) -> Buffer {
        let mut rows = Buffer::new(self.order.len() * dims);
        for (pair, row) in self.order.iter().zip(rows.chunks_exact_mut(dims)) {
            row.copy_from_slice(&x[pair / self.count * dims..][..dims]);
        }
        rows
    }

    /// Adds to each pair's row the row of its expert, `[experts, dims]`.
    pub(crate) fn add_bias(&self, rows: &mut [f32], bias: &[f32], dims: usize) {
        for (expert, pairs) in &self.groups {
            let bias = &bias[expert * dims..][..dims];
            for row in rows[pairs.start * dims..pairs.end * dims].chunks_exact_mut(dims) {
                row.iter_mut().zip(bias).for_each(|(value, bias)| *value += bias);
            }
        }
    }

    /// Returns for each token the sum of its pairs' rows, each multiplied with its score, in the order of the scores.
    pub(crate) fn gather(&self, y: &[f32], scores: &[f32], dims: usize) -> Buffer {
        let mut places = vec![0; self.order.len()];
        for (place, pair) in self.order.iter().enumerate() {
            places[*pair] = place;
        }
        let mut sums = Buffer::new(self.order.len() / self.count * dims);
        sums.fill(0.0);
        for (token, sum) in sums.chunks_exact_mut(dims).enumerate() {
            for pair in token * self.count..(token + 1) * self.count {
                let row = &y[places[pair] * dims..][..dims];
                for (sum, value) in sum.iter_mut().zip(row) {
                    *sum = scores[pair].mul_add(*value, *sum);
                }
            }
        }
        sums
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_groups_are_kept() {
        let mut row = [0.5, 0.1, 0.1, 0.4, 0.3, 0.0, 0.1, 0.2, 0.2];
        keep_best_groups(&mut row, 9, 3, 2);
        assert_eq!(row, [0.5, 0.1, 0.1, 0.4, 0.3, 0.0, 0.0, 0.0, 0.0]);
    }

    #[test]
    fn pairs_come_back_to_their_tokens() {
        let (choice, scores) = largest(&[0.1, 0.7, 0.2, 0.5, 0.5, 0.0], 3, 2);
        assert_eq!(
            (choice.experts.as_slice(), scores.as_slice()),
            ([1, 2, 0, 1].as_slice(), [0.7, 0.2, 0.5, 0.5].as_slice())
        );
        let routes = Routes::new(&choice);
        assert_eq!(routes.groups(), [(0, 0..1), (1, 1..3), (2, 3..4)]);
        let rows = routes.spread(&[1.0, 10.0], 1);
        assert_eq!(*rows, [10.0, 1.0, 10.0, 1.0]);
        let sums = routes.gather(&rows, &[0.5, 0.25, 0.5, 0.5], 1);
        assert_eq!(*sums, [0.75, 10.0]);
    }
}
