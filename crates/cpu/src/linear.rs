//! Products of activations with matrices, shared among the threads.
//! Knows nothing of what a product is for.

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
const PANEL_ROWS: [usize; 2] = [8, 64];

/// How many tasks a thread gets of one product, so that a thread that is held up does not hold up the others.
const TASKS_PER_THREAD: usize = 4;

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

/// A product to compute: some vectors with one matrix of a stack.
pub(crate) struct Job<'a> {
    /// `[vectors, step_columns]`, arranged for the matrix; see [`arranged`].
    vectors: &'a [f32],
    /// Which matrix of the stack.
    matrix: usize,
    /// `[vectors, rows]`
    products: Shares<'a>,
}

impl<'a> Job<'a> {
    pub(crate) fn new(vectors: &'a [f32], matrix: usize, products: &'a mut [f32]) -> Self {
        Self { vectors, matrix, products: Shares::new(products) }
    }
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

/// Computes all jobs, which are about matrices of one stack.
pub(crate) fn multiply(pool: &Pool, simd: Simd, matrix: &Matrix, jobs: &[Job<'_>]) {
    let length = matrix.step_columns();
    let tasks_wanted = (pool.threads() * TASKS_PER_THREAD).div_ceil(jobs.len().max(1));
    let rows = if jobs.iter().all(|job| job.vectors.len() == length) {
        matrix.rows.div_ceil(tasks_wanted).next_multiple_of(16).max(16)
    } else {
        let fit = (PANEL_BYTES / 4 / length).clamp(PANEL_ROWS[0], PANEL_ROWS[1]);
        fit.min(matrix.rows.div_ceil(tasks_wanted).next_multiple_of(4))
    };
    let parts = matrix.rows.div_ceil(rows);
    pool.run(parts * jobs.len(), &|task| {
        compute_rows(simd, matrix, &jobs[task / parts], task % parts, rows);
    });
}

/// Computes the products of a job with `rows` rows of its matrix.
fn compute_rows(simd: Simd, matrix: &Matrix, job: &Job<'_>, part: usize, rows: usize) {
    let (view, length) = (matrix.view(job.matrix), matrix.step_columns());
    let range = view.part(part, rows);
    if job.vectors.len() == length {
        #[expect(unsafe_code, reason = "each task writes its own rows")]
        let products = unsafe { job.products.part(range.start, range.len()) };
        with_format!(matrix.kind, Format => {
            product::rows_times_vector::<Format>(simd, view, range, job.vectors, products);
        });
        return;
    }
    let mut unpacked = Buffer::new(range.len() * length);
    with_format!(matrix.kind, Format => {
        product::unpack::<Format>(simd, view, range.clone(), length, &mut unpacked);
    });
    let write = Columns { products: &job.products, first: range.start, rows: matrix.rows };
    product::multiply(simd, &unpacked, job.vectors, length, &write);
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
