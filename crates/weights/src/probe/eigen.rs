//! The first eigenvectors of the second moments of some rows, by orthogonal iteration (Golub and Van Loan,
//! "Matrix Computations", section 8.2.4).
//! Knows nothing of layers. Every sum is float64 in a fixed order, so every machine gives the same bits.
//!
//! There are fewer rows than columns, so the products of the rows with each other are iterated on. They have the
//! same eigenvalues as the products of the columns, and `transpose(rows) @ q` is the eigenvector of these.

/// How many vectors more than asked for are iterated on. The more there are, the sooner the first ones settle.
const SPARE: usize = 8;

/// How often all vectors are multiplied. The directions that stand out settle within a few times.
const ITERATIONS: usize = 30;

/// How many partial sums a dot product keeps side by side.
const LANES: usize = 8;

/// Returns the first `count` eigenvectors, `[count, columns]`, and their eigenvalues, the largest first. If the
/// rows span fewer dimensions, the others are zero.
pub(super) fn first_eigenvectors(rows: &[f64], columns: usize, count: usize) -> (Vec<f64>, Vec<f64>) {
    let size = rows.len() / columns;
    let products = products(rows, columns);
    let mut basis: Vec<Vec<f64>> = (0..(count + SPARE).min(size)).map(|number| start(number, size)).collect();
    for _ in 0..ITERATIONS {
        basis = basis.iter().map(|vector| multiply(&products, vector)).collect();
        orthonormalize(&mut basis);
    }
    let (mut vectors, mut values) = (Vec::with_capacity(count * columns), Vec::with_capacity(count));
    for number in 0..count {
        let own = basis.get(number).map_or_else(|| vec![0.0; size], Clone::clone);
        let value = dot(&own, &multiply(&products, &own)) / size as f64;
        let mut vector = vec![0.0; columns];
        for (factor, row) in own.iter().zip(rows.chunks_exact(columns)) {
            vector.iter_mut().zip(row).for_each(|(sum, value)| *sum += factor * value);
        }
        normalize(&mut vector);
        vectors.extend(vector);
        values.push(value.max(0.0));
    }
    (vectors, values)
}

/// Returns the products of all rows with each other.
fn products(rows: &[f64], columns: usize) -> Vec<Vec<f64>> {
    let size = rows.len() / columns;
    let mut products = vec![vec![0.0; size]; size];
    for (first, a) in rows.chunks_exact(columns).enumerate() {
        for (second, b) in rows.chunks_exact(columns).enumerate().take(first + 1) {
            let product = dot(a, b);
            products[first][second] = product;
            products[second][first] = product;
        }
    }
    products
}

/// Returns numbers between -1 and 1 without a pattern, to start from.
fn start(number: usize, size: usize) -> Vec<f64> {
    let mut state = number as u64;
    let next = || {
        // Knuth's MMIX.
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 11) as f64 / (1u64 << 52) as f64 - 1.0
    };
    std::iter::repeat_with(next).take(size).collect()
}

fn multiply(matrix: &[Vec<f64>], vector: &[f64]) -> Vec<f64> {
    matrix.iter().map(|row| dot(row, vector)).collect()
}

/// Makes each vector orthogonal to those before it, and its length 1 (Gram and Schmidt, each twice).
fn orthonormalize(basis: &mut [Vec<f64>]) {
    for number in 0..basis.len() {
        let (before, rest) = basis.split_at_mut(number);
        let Some(own) = rest.first_mut() else { continue };
        for _ in 0..2 {
            for other in &*before {
                let along = dot(own, other);
                own.iter_mut().zip(other).for_each(|(value, other)| *value -= along * other);
            }
        }
        normalize(own);
    }
}

/// Divides by the length; a vector that is nearly zero becomes zero.
fn normalize(vector: &mut [f64]) {
    let length = dot(vector, vector).sqrt();
    let factor = if length > 1e-150 { 1.0 / length } else { 0.0 };
    vector.iter_mut().for_each(|value| *value *= factor);
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    let mut sums = [0.0; LANES];
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    for (a, b) in a.iter().zip(b) {
        for lane in 0..LANES {
            sums[lane] += a[lane] * b[lane];
        }
    }
    let rest: f64 = a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum();
    sums.iter().sum::<f64>() + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_directions_that_stand_out() {
        // Rows along two orthogonal directions in six dimensions, one of them ten times as long.
        let (long, short) = ([0.6, 0.8, 0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0, 0.0, 0.0]);
        let rows: Vec<f64> = (0..4)
            .flat_map(|row| {
                let (a, b) = (f64::from(10 - 5 * (row % 2)), f64::from(row - 1));
                (0..6).map(move |column: usize| a * long[column] + b * short[column])
            })
            .collect();
        let (vectors, values) = first_eigenvectors(&rows, 6, 3);
        let alike = |vector: &[f64], expected: &[f64]| (dot(vector, expected).abs() - 1.0).abs();
        // The second moments are those of (10, -1), (5, 0), (10, 1), (5, 2) along the two.
        let moments = [[62.5, 2.5], [2.5, 1.5]];
        let root = (((62.5f64 - 1.5) / 2.0).powi(2) + 2.5 * 2.5).sqrt();
        assert!(
            (values[0] - (32.0 + root)).abs() < 1e-9 && (values[1] - (32.0 - root)).abs() < 1e-9,
            "{values:?}"
        );
        assert!(values[2].abs() < 1e-9);
        let angle = [values[0] - moments[1][1], moments[0][1]];
        let first: Vec<f64> = (0..6).map(|n| angle[0] * long[n] + angle[1] * short[n]).collect();
        let length = dot(&first, &first).sqrt();
        let first: Vec<_> = first.iter().map(|value| value / length).collect();
        assert!(alike(&vectors[..6], &first) < 1e-12);
        assert!(dot(&vectors[..6], &vectors[6..12]).abs() < 1e-9);
    }
}
