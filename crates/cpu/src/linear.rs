//! Products of activations with matrices, shared among the threads.
//! Knows nothing of what a product is for.

use std::ops::Range;

use crate::format::{Affine, Bfloat16, Float16, Float32, Mxfp4, Mxfp8, Nvfp4, arrange};
use crate::matrix::{Kind, Matrix};
use crate::pool::{Pool, Shares};
use crate::product::{self, Write};
use crate::simd::{LANES, Simd};
use crate::tensor::Buffer;
use weights::kernels::{Float, Mode, QuantSpec};

/// How many bytes of unpacked rows stay in the cache of one core.
const PANEL_BYTES: usize = 192 << 10;

/// The fewest and the most rows that are unpacked at once.
const PANEL_ROWS: [usize; 2] = [8, 32];

/// How many tasks a thread gets of one product, so that a thread that is held up does not hold up the others.
const TASKS_PER_THREAD: usize = 4;

/// Threads that write products share no line of the cache.
const ROWS_APART: usize = 16;

/// A thread arranges at least so many vectors.
const VECTORS_SHARED_FROM: usize = 16;

/// Calls a kernel for the format of a matrix.
macro_rules! with_format {
    ($kind:expr, $format:ident => $call:expr) => {
        match $kind {
            Kind::Float(Float::F32) => {
                type $format = Float32;
                $call
            }
            Kind::Float(Float::F16) => {
                type $format = Float16;
                $call
            }
            Kind::Float(Float::Bf16) => {
                type $format = Bfloat16;
                $call
            }
            Kind::Quantized(QuantSpec { mode: Mode::Affine, bits, .. }, _) => match bits {
                2 => {
                    type $format = Affine<2>;
                    $call
                }
                3 => {
                    type $format = Affine<3>;
                    $call
                }
                4 => {
                    type $format = Affine<4>;
                    $call
                }
                5 => {
                    type $format = Affine<5>;
                    $call
                }
                6 => {
                    type $format = Affine<6>;
                    $call
                }
                _ => {
                    type $format = Affine<8>;
                    $call
                }
            },
            Kind::Quantized(QuantSpec { mode: Mode::Mxfp4, .. }, _) => {
                type $format = Mxfp4;
                $call
            }
            Kind::Quantized(QuantSpec { mode: Mode::Nvfp4, .. }, _) => {
                type $format = Nvfp4;
                $call
            }
            Kind::Quantized(QuantSpec { mode: Mode::Mxfp8, .. }, _) => {
                type $format = Mxfp8;
                $call
            }
        }
    };
}

/// A product to compute: some vectors with a matrix.
pub(crate) struct Job<'a> {
    /// `[vectors, step_columns]`, arranged for the matrix; see [`arranged`].
    vectors: &'a [f32],
    stack: &'a Matrix,
    /// Which matrix of the stack.
    number: usize,
    /// `[vectors, rows]`
    products: Shares<'a>,
}

impl<'a> Job<'a> {
    pub(crate) fn new(vectors: &'a [f32], stack: &'a Matrix, number: usize, products: &'a mut [f32]) -> Self {
        Self { vectors, stack, number, products: Shares::new(products) }
    }

    fn has_one_vector(&self) -> bool {
        self.vectors.len() == self.stack.step_columns()
    }

    /// Cuts the rows into parts of about `wanted` rows.
    fn parts(&self, wanted: usize) -> impl Iterator<Item = Range<usize>> + use<> {
        let (rows, columns) = (self.stack.rows, self.stack.step_columns());
        let length = if self.has_one_vector() {
            wanted.next_multiple_of(ROWS_APART)
        } else {
            let fit = (PANEL_BYTES / size_of::<f32>() / columns).clamp(PANEL_ROWS[0], PANEL_ROWS[1]);
            fit.min(wanted.next_multiple_of(PANEL_ROWS[0]))
        };
        (0..rows).step_by(length).map(move |start| start..(start + length).min(rows))
    }

    /// Computes the products with some rows of the matrix.
    fn compute(&self, simd: Simd, rows: Range<usize>) {
        let (view, length) = (self.stack.view(self.number), self.stack.step_columns());
        if self.has_one_vector() {
            #[expect(unsafe_code, reason = "each task writes its own rows")]
            let products = unsafe { self.products.part(rows.start, rows.len()) };
            with_format!(self.stack.kind, Format => {
                product::rows_times_vector::<Format>(simd, view, rows, self.vectors, products);
            });
            return;
        }
        let mut unpacked = Buffer::new(rows.len() * length);
        let first = rows.start;
        with_format!(self.stack.kind, Format => {
            product::unpack::<Format>(simd, view, rows, length, &mut unpacked);
        });
        let write = Columns { products: &self.products, first, rows: self.stack.rows };
        product::multiply(simd, &unpacked, self.vectors, length, &write);
    }
}

/// Computes all jobs.
pub(crate) fn multiply(pool: &Pool, simd: Simd, jobs: &[Job<'_>]) {
    let rows: usize = jobs.iter().map(|job| job.stack.rows).sum();
    let wanted = rows.div_ceil(pool.threads() * TASKS_PER_THREAD);
    let tasks: Vec<_> = jobs.iter().flat_map(|job| job.parts(wanted).map(move |rows| (job, rows))).collect();
    pool.run(tasks.len(), &|task| {
        let (job, rows) = &tasks[task];
        job.compute(simd, rows.clone());
    });
}

/// Returns rows `[vectors, columns]` as the products with a matrix read them: `[vectors, step_columns]`. Returns
/// nothing if they are so already.
pub(crate) fn arranged(pool: &Pool, matrix: &Matrix, rows: &[f32]) -> Option<Buffer> {
    let (columns, length) = (matrix.columns, matrix.step_columns());
    if !matrix.is_paired() && columns == length {
        return None;
    }
    let count = rows.len() / columns;
    let mut vectors = Buffer::new(count * length);
    let each = count.div_ceil(pool.threads() * 2).max(VECTORS_SHARED_FROM);
    pool.for_parts(&mut vectors, each * length, &|part, vectors| {
        let rows = rows[part * each * columns..].chunks_exact(columns);
        for (row, vector) in rows.zip(vectors.chunks_exact_mut(length)) {
            arrange(matrix.is_paired(), row, vector);
        }
    });
    Some(vectors)
}

/// Writes the products of some rows into `[vectors, rows]`.
struct Columns<'a> {
    products: &'a Shares<'a>,
    first: usize,
    rows: usize,
}

impl Write for Columns<'_> {
    #[inline(always)]
    fn write(&self, row: usize, vector: usize, product: f32) {
        #[expect(unsafe_code, reason = "each task writes its own rows")]
        let place = unsafe { self.products.part(vector * self.rows + self.first + row, 1) };
        place[0] = product;
    }
}

/// Returns the rows of a matrix with these numbers, `[numbers, columns]`.
pub(crate) fn rows(simd: Simd, matrix: &Matrix, numbers: &[u32]) -> Buffer {
    let (columns, length) = (matrix.columns, matrix.step_columns());
    let mut unpacked = Buffer::new(length);
    let mut values = Buffer::new(numbers.len() * columns);
    for (number, values) in numbers.iter().zip(values.chunks_exact_mut(columns)) {
        let row = *number as usize;
        with_format!(matrix.kind, Format => {
            product::unpack::<Format>(simd, matrix.view(0), row..row + 1, length, &mut unpacked);
        });
        if matrix.is_paired() {
            let pairs =
                unpacked.chunks_exact(2 * LANES).flat_map(|step| step[..LANES].iter().zip(&step[LANES..]));
            for (values, (even, odd)) in values.chunks_mut(2).zip(pairs) {
                values[0] = *even;
                if let Some(value) = values.get_mut(1) {
                    *value = *odd;
                }
            }
        } else {
            values.copy_from_slice(&unpacked[..columns]);
        }
    }
    values
}

#[cfg(test)]
mod tests {
    use weights::kernels::{Backend, Cpu, PackedRows, Rows};

    use super::*;

    const SETS: &[Simd] = Simd::ALL;

    /// Numbers that look like weights: both signs, several magnitudes, the same on every run.
    fn numbers(count: usize, seed: u32) -> Vec<f32> {
        let mut state = seed;
        let next = |_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            ((state >> 8) as f32 / 8_388_608.0 - 1.0) * if state & 64 == 0 { 0.05 } else { 0.4 }
        };
        (0..count).map(next).collect()
    }

    fn products(simd: Simd, threads: usize, matrix: &Matrix, x: &[f32]) -> Vec<f32> {
        let pool = Pool::new(threads);
        let arranged = arranged(&pool, matrix, x);
        let vectors: &[f32] = arranged.as_deref().unwrap_or(x);
        let mut products = vec![0.0; x.len() / matrix.columns * matrix.rows];
        multiply(&pool, simd, &[Job::new(vectors, matrix, 0, &mut products)]);
        products
    }

    /// Checks a matrix on every instruction set against each other, and against float64.
    fn check(matrix: &Matrix, dense: &[f32], name: &str) {
        let (columns, count) = (matrix.columns, 7);
        let x = numbers(columns * count, 7);
        let sets = || SETS.iter().copied().filter(|set| set.is_there());
        let expected = products(Simd::Portable, 1, matrix, &x);
        for (index, product) in expected.iter().enumerate() {
            let (vector, row) = (index / matrix.rows, index % matrix.rows);
            let pairs = x[vector * columns..].iter().zip(&dense[row * columns..][..columns]);
            let right: f64 = pairs.map(|(x, weight)| f64::from(*x) * f64::from(*weight)).sum();
            assert!((f64::from(*product) - right).abs() < 1e-5, "{name}: {product} is not {right}");
        }
        let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
        for simd in sets() {
            assert_eq!(bits(&products(simd, 3, matrix, &x)), bits(&expected), "{name}, {simd:?}");
            // One vector at a time takes the other kernel.
            let alone: Vec<f32> =
                x.chunks_exact(columns).flat_map(|x| products(simd, 2, matrix, x)).collect();
            assert_eq!(bits(&alone), bits(&expected), "{name}, {simd:?}, one by one");
            let numbers = [2, 0, 4];
            let found = rows(simd, matrix, &numbers);
            let picked = numbers.iter().flat_map(|row| &dense[*row as usize * columns..][..columns]);
            assert!(found.iter().zip(picked).all(|(a, b)| (a - b).abs() < 1e-6), "{name}, {simd:?}: rows");
        }
    }

    #[test]
    fn every_packed_format_is_multiplied_alike_on_every_set() {
        for (word, mode) in Mode::WORDS {
            for (bits, group_size) in
                mode.bits().iter().flat_map(|bits| mode.group_sizes().iter().map(move |size| (*bits, *size)))
            {
                for float in [Float::F16, Float::Bf16, Float::F32] {
                    let spec = QuantSpec { mode, bits, group_size };
                    // A row of nvfp4 may end with half a step.
                    let columns = if mode == Mode::Nvfp4 { 208 } else { 256 };
                    let mut weights = Rows { float, columns, values: numbers(5 * columns, 3) };
                    float.round_all(&mut weights.values);
                    let packed = PackedRows::quantize(&weights, spec, &Cpu::default()).unwrap();
                    // Dequantized in float32, so that nothing is rounded to the type of the file.
                    let scales = widened(float, &packed.scales, mode);
                    let biases = widened(float, &packed.biases, mode);
                    let wide = PackedRows { float: Float::F32, scales, biases, ..packed.clone() };
                    let mut dense = Rows::new(Float::F32, columns);
                    Cpu::default().dequantize(wide.as_packed(), &mut dense).unwrap();
                    let name = format!("{word}, {bits} bits in groups of {group_size}, {float:?}");
                    check(&Matrix::of_packed(&packed), &dense.values, &name);
                }
            }
        }
    }

    /// Returns affine scales or biases as float32.
    fn widened(float: Float, bytes: &[u8], mode: Mode) -> Vec<u8> {
        if mode != Mode::Affine {
            return bytes.to_vec();
        }
        let mut values = vec![0.0; bytes.len() / float.size()];
        float.decode(bytes, &mut values);
        values.into_iter().flat_map(f32::to_le_bytes).collect()
    }

    #[test]
    fn every_float_is_multiplied_alike_on_every_set() {
        for float in [Float::F16, Float::Bf16, Float::F32] {
            // Rows that are whole chunks of lanes, and rows that are not.
            for columns in [96, 7, 33] {
                let mut dense = numbers(5 * columns, 5);
                float.round_all(&mut dense);
                let mut bytes = vec![0; dense.len() * float.size()];
                float.encode(&dense, &mut bytes);
                let numbers = weights::adapter::Whole { float, shape: vec![5, columns], bytes };
                check(&Matrix::of_floats(&numbers).unwrap(), &dense, &format!("{float:?}, {columns}"));
            }
        }
    }
}
