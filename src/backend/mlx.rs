//! The three operations on MLX's device, through mlx-rs.
//! Knows nothing of files; one thread must own all that happens here, which is why it runs in the worker.

use half::{bf16, f16};
use mlx_rs::{Array, Device, DeviceType, Dtype, ops};

use super::{Backend, Float, Grid, Lora, MLX_ID, Matrix, Quantized};

/// MLX on its default device.
#[derive(Clone, Copy, Debug, Default)]
pub struct Mlx;

impl Backend for Mlx {
    fn dequantize(&self, quantized: &Quantized) -> anyhow::Result<Matrix> {
        let Quantized { grid, columns, weight, scales, biases } = quantized;
        let words: Vec<_> = weight.as_chunks().0.iter().map(|bytes| u32::from_le_bytes(*bytes)).collect();
        let weight = Array::from_slice(&words, &shape(scales.rows(), columns * grid.bits / 32)?);
        let (group_size, bits) = (i32::try_from(grid.group_size)?, i32::try_from(grid.bits)?);
        let dense = ops::dequantize(weight, to_array(scales)?, &to_array(biases)?, group_size, bits)?;
        to_matrix(&dense, scales.float, *columns)
    }

    /// Mirrors `LoRALinear.fuse` of mlx-lm: the update is a float32 product, rounded to the weight's type.
    fn merge(&self, weight: Matrix, lora: &Lora) -> anyhow::Result<Matrix> {
        let (rows, columns) = (weight.rows(), weight.columns);
        let a = Array::from_slice(&lora.a, &shape(lora.rank, columns)?);
        let b = Array::from_slice(&lora.b, &shape(lora.rank, rows)?).transpose()?;
        let delta = ops::matmul(b.multiply(Array::from_f32(lora.scale))?, a)?;
        let merged = to_array(&weight)?.add(delta.as_dtype(dtype(weight.float))?)?;
        to_matrix(&merged, weight.float, columns)
    }

    fn quantize(&self, weight: &Matrix, grid: Grid) -> anyhow::Result<Quantized> {
        let (group_size, bits) = (i32::try_from(grid.group_size)?, i32::try_from(grid.bits)?);
        let (packed, scales, biases) = ops::quantize(to_array(weight)?, group_size, bits)?;
        packed.eval()?;
        let groups = weight.columns / grid.group_size;
        Ok(Quantized {
            grid,
            columns: weight.columns,
            weight: packed.try_as_slice::<u32>()?.iter().flat_map(|word| word.to_le_bytes()).collect(),
            scales: to_matrix(&scales, weight.float, groups)?,
            biases: to_matrix(&biases, weight.float, groups)?,
        })
    }
}

/// Checks that MLX computes on the device that [`MLX_ID`] names, which stands in the keys of what is made here.
/// The version in it is that of the pinned mlx-rs.
pub fn check_device() -> anyhow::Result<()> {
    let on_cpu = matches!(Device::try_default()?.get_type()?, DeviceType::Cpu);
    let device = if on_cpu { "cpu" } else { "gpu" };
    anyhow::ensure!(
        MLX_ID.ends_with(device),
        "MLX computes on the {device} here, but pipeline was built for {MLX_ID}"
    );
    Ok(())
}

fn shape(rows: usize, columns: usize) -> anyhow::Result<[i32; 2]> {
    Ok([i32::try_from(rows)?, i32::try_from(columns)?])
}

fn dtype(float: Float) -> Dtype {
    match float {
        Float::F16 => Dtype::Float16,
        Float::Bf16 => Dtype::Bfloat16,
        Float::F32 => Dtype::Float32,
    }
}

fn to_array(matrix: &Matrix) -> anyhow::Result<Array> {
    let shape = shape(matrix.rows(), matrix.columns)?;
    let bytes = &matrix.bytes;
    Ok(match matrix.float {
        Float::F16 => Array::from_slice(&elements(bytes, f16::from_le_bytes), &shape),
        Float::Bf16 => Array::from_slice(&elements(bytes, bf16::from_le_bytes), &shape),
        Float::F32 => Array::from_slice(&elements(bytes, f32::from_le_bytes), &shape),
    })
}

fn elements<const N: usize, T>(bytes: &[u8], read: impl Fn([u8; N]) -> T) -> Vec<T> {
    bytes.as_chunks().0.iter().map(|bytes| read(*bytes)).collect()
}

fn to_matrix(array: &Array, float: Float, columns: usize) -> anyhow::Result<Matrix> {
    array.eval()?;
    let bytes = match float {
        Float::F16 => array.try_as_slice::<f16>()?.iter().flat_map(|value| value.to_le_bytes()).collect(),
        Float::Bf16 => array.try_as_slice::<bf16>()?.iter().flat_map(|value| value.to_le_bytes()).collect(),
        Float::F32 => array.try_as_slice::<f32>()?.iter().flat_map(|value| value.to_le_bytes()).collect(),
    };
    Ok(Matrix { float, columns, bytes })
}
