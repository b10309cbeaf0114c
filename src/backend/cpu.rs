//! The backend that defines the bytes: plain Rust, rayon over rows, every operation in a fixed order.
//! Knows nothing of files. What a row's arithmetic is stands in `kernel.rs`.

use rayon::prelude::*;

use super::kernel::{QuantizedRow, Simd, dequantize_row, merge_row, quantize_row};
use super::{Backend, Grid, Lora, Matrix, Quantized};

/// The CPU backend.
#[derive(Clone, Copy, Debug)]
pub struct Cpu {
    simd: Simd,
}

impl Default for Cpu {
    fn default() -> Self {
        Self { simd: Simd::best() }
    }
}

impl Backend for Cpu {
    fn dequantize(&self, quantized: &Quantized) -> anyhow::Result<Matrix> {
        let Quantized { grid, columns, scales, biases, .. } = quantized;
        let float = scales.float;
        let groups = columns / grid.group_size * float.size();
        let mut bytes = vec![0; biases.rows() * columns * float.size()];
        let rows = bytes.par_chunks_exact_mut(columns * float.size());
        let packed = quantized.weight.par_chunks_exact(columns * grid.bits / 8);
        let sides = scales.bytes.par_chunks_exact(groups).zip(biases.bytes.par_chunks_exact(groups));
        rows.zip(packed).zip(sides).for_each_init(
            || vec![0.0; *columns],
            |values, ((row, packed), (scales, biases))| {
                dequantize_row(self.simd, float, [packed, scales, biases], *grid, row, values);
            },
        );
        Ok(Matrix { float, columns: *columns, bytes })
    }

    fn merge(&self, mut weight: Matrix, lora: &Lora) -> anyhow::Result<Matrix> {
        let (float, columns, out) = (weight.float, weight.columns, weight.rows());
        weight.bytes.par_chunks_exact_mut(columns * float.size()).enumerate().for_each_init(
            || (vec![0.0; columns], vec![0.0; columns]),
            |(values, delta), (o, row)| {
                let factors: Vec<_> = lora.b.iter().skip(o).step_by(out).map(|b| lora.scale * b).collect();
                merge_row(self.simd, float, row, &lora.a, &factors, values, delta);
            },
        );
        Ok(weight)
    }

    fn quantize(&self, weight: &Matrix, grid: Grid) -> anyhow::Result<Quantized> {
        let Matrix { float, columns, bytes } = weight;
        let groups = columns / grid.group_size;
        let side = || Matrix {
            float: *float,
            columns: groups,
            bytes: vec![0; weight.rows() * groups * float.size()],
        };
        let (mut scales, mut biases) = (side(), side());
        let mut packed = vec![0; weight.rows() * columns * grid.bits / 8];
        let rows = bytes.par_chunks_exact(columns * float.size());
        let outputs = packed.par_chunks_exact_mut(columns * grid.bits / 8);
        let width = groups * float.size();
        let sides = scales.bytes.par_chunks_exact_mut(width).zip(biases.bytes.par_chunks_exact_mut(width));
        rows.zip(outputs).zip(sides).for_each_init(
            || vec![0.0; *columns],
            |values, ((row, packed), (scales, biases))| {
                let mut out = QuantizedRow { packed, scales, biases };
                quantize_row(self.simd, *float, row, grid, &mut out, values);
            },
        );
        Ok(Quantized { grid, columns: *columns, weight: packed, scales, biases })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::Float;
    use proptest::prelude::*;

    fn floats(values: &[f32], columns: usize) -> Matrix {
        let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        Matrix { float: Float::F32, columns, bytes }
    }

    fn values(matrix: &Matrix) -> Vec<f32> {
        let mut values = vec![0.0; matrix.bytes.len() / 4];
        matrix.float.decode(&matrix.bytes, &mut values);
        values
    }

    #[test]
    fn merges_by_hand() {
        let lora = Lora { a: vec![1.0, 10.0], b: vec![1.0, 2.0], scale: 0.5, rank: 1 };
        let merged = Cpu::default().merge(floats(&[1.0, 2.0, 3.0, 4.0], 2), &lora).unwrap();
        assert_eq!(values(&merged), [1.5, 7.0, 4.0, 14.0]);
    }

    proptest! {
        #[test]
        fn a_weight_moves_by_a_step_at_most(weights in prop::collection::vec(-10.0f32..10.0, 64), bits in prop::sample::select(vec![2usize, 3, 4, 5, 6, 8])) {
            let quantized = Cpu::default().quantize(&floats(&weights, 64), Grid { bits, group_size: 64 }).unwrap();
            let scale = values(&quantized.scales)[0].abs();
            let back = values(&Cpu::default().dequantize(&quantized).unwrap());
            // Half a step but for the far end, which the stretched grid may clip by one.
            for (weight, back) in weights.iter().zip(back) {
                prop_assert!((weight - back).abs() <= scale * 1.01, "{weight} became {back}, step {scale}");
            }
        }
    }
}
