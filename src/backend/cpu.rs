//! The backend that defines the bytes: plain Rust, rayon over rows, every operation in a fixed order.
//! Knows nothing of the processor: no fused multiply-add and no reordered sum, so all machines agree to the bit.

use rayon::prelude::*;

use super::{Backend, Float, Grid, Lora, Matrix, Quantized};

/// The smallest step, as in MLX's `affine_quantize`; it keeps a constant group from a division by zero.
const SMALLEST_STEP: f32 = 1e-7;

/// The CPU backend.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cpu;

impl Backend for Cpu {
    fn id(&self) -> String {
        super::BackendKind::Cpu.id().to_owned()
    }

    fn dequantize(&self, quantized: &Quantized) -> anyhow::Result<Matrix> {
        let Quantized { grid, columns, scales, biases, .. } = quantized;
        let float = scales.float;
        let groups = columns / grid.group_size;
        let mut bytes = vec![0; biases.rows() * columns * float.size()];
        let rows = bytes.par_chunks_mut(columns * float.size());
        let packed = quantized.weight.par_chunks(columns * grid.bits / 8);
        let (scales, biases) =
            (scales.bytes.par_chunks(groups * float.size()), biases.bytes.par_chunks(groups * float.size()));
        rows.zip(packed).zip(scales.zip(biases)).for_each(|((row, packed), (scales, biases))| {
            let mut values = vec![0.0; *columns];
            unpack(packed, grid.bits, &mut values);
            let (scales, biases) = (decode(float, scales), decode(float, biases));
            for ((group, scale), bias) in values.chunks_mut(grid.group_size).zip(scales).zip(biases) {
                for value in group {
                    *value = float.round(*value * scale) + bias;
                }
            }
            float.encode(&values, row);
        });
        Ok(Matrix { float, columns: *columns, bytes })
    }

    fn merge(&self, mut weight: Matrix, lora: &Lora) -> anyhow::Result<Matrix> {
        let (float, columns) = (weight.float, weight.columns);
        let out = weight.rows();
        weight.bytes.par_chunks_mut(columns * float.size()).enumerate().for_each(|(o, row)| {
            let mut values = decode(float, row);
            let delta = delta_row(lora, columns, out, o);
            for (value, delta) in values.iter_mut().zip(delta) {
                *value += float.round(delta);
            }
            float.encode(&values, row);
        });
        Ok(weight)
    }

    fn quantize(&self, weight: &Matrix, grid: Grid) -> anyhow::Result<Quantized> {
        let Matrix { float, columns, bytes } = weight;
        let groups = columns / grid.group_size;
        let small = || Matrix {
            float: *float,
            columns: groups,
            bytes: vec![0; weight.rows() * groups * float.size()],
        };
        let (mut scales, mut biases) = (small(), small());
        let mut packed = vec![0; weight.rows() * columns * grid.bits / 8];
        let rows = bytes.par_chunks(columns * float.size());
        let outputs = packed.par_chunks_mut(columns * grid.bits / 8);
        let sides = scales
            .bytes
            .par_chunks_mut(groups * float.size())
            .zip(biases.bytes.par_chunks_mut(groups * float.size()));
        rows.zip(outputs).zip(sides).for_each(|((row, packed), (scales, biases))| {
            let mut values = decode(*float, row);
            let steps: Vec<_> =
                values.chunks_mut(grid.group_size).map(|group| quantize_group(group, grid.bits)).collect();
            pack(&values, grid.bits, packed);
            float.encode(&steps.iter().map(|step| step.0).collect::<Vec<_>>(), scales);
            float.encode(&steps.iter().map(|step| step.1).collect::<Vec<_>>(), biases);
        });
        Ok(Quantized { grid, columns: *columns, weight: packed, scales, biases })
    }
}

fn decode(float: Float, bytes: &[u8]) -> Vec<f32> {
    let mut values = vec![0.0; bytes.len() / float.size()];
    float.decode(bytes, &mut values);
    values
}

/// Returns row `o` of the update: for each column the sum over k, ascending, of `(scale·B[k, o])·A[k, i]`, every
/// product and every sum rounded to float32.
fn delta_row(lora: &Lora, columns: usize, out: usize, o: usize) -> Vec<f32> {
    let mut delta = vec![0.0; columns];
    for (a, b) in lora.a.chunks_exact(columns).zip(lora.b.chunks_exact(out)) {
        let factor = lora.scale * b[o];
        for (sum, a) in delta.iter_mut().zip(a) {
            *sum += factor * a;
        }
    }
    delta
}

/// Replaces the values of a group by their quantized integers; returns scale and bias. Mirrors `quantize` in
/// MLX's `backend/cpu/quantized.cpp`: the larger end of the range falls on a grid point, so that zero does too.
fn quantize_group(group: &mut [f32], bits: usize) -> (f32, f32) {
    let levels = ((1u32 << bits) - 1) as f32;
    let (low, high) = group
        .iter()
        .fold((f32::INFINITY, f32::NEG_INFINITY), |(low, high), value| (low.min(*value), high.max(*value)));
    let step = ((high - low) / levels).max(SMALLEST_STEP);
    let (step, edge) = if low.abs() > high.abs() { (step, low) } else { (-step, high) };
    let edge_level = (edge / step).round_ties_even();
    let (scale, bias) = if edge_level == 0.0 { (step, 0.0) } else { (edge / edge_level, edge) };
    for value in group {
        *value = ((*value - bias) / scale).round_ties_even().clamp(0.0, levels);
    }
    (scale, bias)
}

/// Packs small integers as one little-endian bit stream.
fn pack(values: &[f32], bits: usize, packed: &mut [u8]) {
    let mut window = 0u32;
    let mut filled = 0;
    let mut bytes = packed.iter_mut();
    for value in values {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to 0..=255")]
        let level = *value as u32;
        window |= level << filled;
        filled += bits;
        while filled >= 8 {
            if let Some(byte) = bytes.next() {
                *byte = window.to_le_bytes()[0];
            }
            window >>= 8;
            filled -= 8;
        }
    }
}

/// Unpacks what [`pack`] packed.
fn unpack(packed: &[u8], bits: usize, values: &mut [f32]) {
    let mut window = 0u32;
    let mut filled = 0;
    let mut bytes = packed.iter();
    let mask = (1u32 << bits) - 1;
    for value in values {
        while filled < bits {
            window |= u32::from(bytes.next().copied().unwrap_or(0)) << filled;
            filled += 8;
        }
        *value = (window & mask) as f32;
        window >>= bits;
        filled -= bits;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn quantizes_by_hand() {
        // Range -1..2 in 2 bits: the larger end, 2, is level -2·… of a step of -1; bias 2, scale -1.
        let mut group = [-1.0, 0.0, 0.6, 2.0];
        assert_eq!(quantize_group(&mut group, 2), (-1.0, 2.0));
        assert_eq!(group, [3.0, 2.0, 1.0, 0.0]);
    }

    #[test]
    fn merges_by_hand() {
        let weight = Matrix {
            float: Float::F32,
            columns: 2,
            bytes: [1.0f32, 2.0, 3.0, 4.0].map(f32::to_le_bytes).concat(),
        };
        let lora = Lora { a: vec![1.0, 10.0], b: vec![1.0, 2.0], scale: 0.5, rank: 1 };
        let merged = Cpu.merge(weight, &lora).unwrap();
        assert_eq!(decode(Float::F32, &merged.bytes), [1.5, 7.0, 4.0, 14.0]);
    }

    proptest! {
        #[test]
        fn packing_is_lossless(bits in prop::sample::select(vec![2usize, 3, 4, 5, 6, 8]), seed in prop::collection::vec(any::<u8>(), 32)) {
            let values: Vec<f32> = seed.iter().map(|byte| f32::from(byte & (0xff >> (8 - bits)))).collect();
            let mut packed = vec![0; 4 * bits];
            pack(&values, bits, &mut packed);
            let mut back = vec![0.0; 32];
            unpack(&packed, bits, &mut back);
            prop_assert_eq!(back, values);
        }

        #[test]
        fn a_weight_moves_by_half_a_step_at_most(values in prop::collection::vec(-10.0f32..10.0, 64), bits in prop::sample::select(vec![2usize, 3, 4, 5, 6, 8])) {
            let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
            let weight = Matrix { float: Float::F32, columns: 64, bytes };
            let quantized = Cpu.quantize(&weight, Grid { bits, group_size: 64 }).unwrap();
            let scale = decode(Float::F32, &quantized.scales.bytes)[0].abs();
            let back = decode(Float::F32, &Cpu.dequantize(&quantized).unwrap().bytes);
            // The step is stretched so that zero is a level; the far end may then be clipped by one step.
            for (value, back) in values.iter().zip(back) {
                prop_assert!((value - back).abs() <= scale * 1.01, "{value} became {back}, step {scale}");
            }
        }
    }
}
