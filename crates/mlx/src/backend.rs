//! The three operations on weights, on MLX's device, through mlx-rs.
//! Knows nothing of files. One thread must own everything that is made here, so it runs in the worker.

use mlx_rs::{Array, Device, DeviceType, Dtype, ops};

use super::modes;
use protocol::MLX_ID;
use weights::kernels::{Backend, Float, Lora, Mode, Packed, PackedMut, QuantSpec, Rows};

/// MLX on its default device.
#[derive(Clone, Copy, Debug, Default)]
pub struct Mlx;

impl Backend for Mlx {
    fn dequantize(&self, packed: Packed<'_>, rows: &mut Rows) -> weights::Result<()> {
        self.try_dequantize(packed, rows).map_err(failed)
    }

    fn merge(&self, rows: &mut Rows, lora: &Lora, first: usize) -> weights::Result<()> {
        self.try_merge(rows, lora, first).map_err(failed)
    }

    fn quantize(&self, rows: &Rows, spec: QuantSpec, out: PackedMut<'_>) -> weights::Result<()> {
        self.try_quantize(rows, spec, out).map_err(failed)
    }

    /// MLX must be called from one thread. It has threads of its own.
    fn threads(&self) -> usize {
        1
    }
}

fn failed(error: anyhow::Error) -> weights::Error {
    weights::Error::Backend(format!("{error:#}"))
}

impl Mlx {
    fn try_dequantize(self, packed: Packed<'_>, rows: &mut Rows) -> anyhow::Result<()> {
        let Packed { spec, float, columns, weight, scales, biases } = packed;
        let words: Vec<_> = weight.as_chunks().0.iter().map(|bytes| u32::from_le_bytes(*bytes)).collect();
        let count = words.len() * 32 / spec.bits / columns;
        let groups = columns / spec.group_size;
        let words = Array::from_slice(&words, &shape(count, columns * spec.bits / 32)?);
        let dense = if spec.mode == Mode::Affine {
            let side = |bytes| floats(float, bytes, &shape(count, groups)?);
            let (group_size, bits) = (i32::try_from(spec.group_size)?, i32::try_from(spec.bits)?);
            ops::dequantize(words, side(scales)?, &side(biases)?, group_size, bits)?
        } else {
            modes::dequantize(&words, &Array::from_slice(scales, &shape(count, groups)?), spec, dtype(float))?
        };
        (rows.float, rows.columns) = (float, columns);
        rows.values.clear();
        rows.values.extend_from_slice(to_float32(&dense)?.try_as_slice()?);
        Ok(())
    }

    /// Mirrors `LoRALinear.fuse` and `DoRALinear.fuse` of mlx-lm: the update is a float32 product, rounded to
    /// the weight's type.
    fn try_merge(self, rows: &mut Rows, lora: &Lora, first: usize) -> anyhow::Result<()> {
        let count = rows.count();
        let out = lora.b.len() / lora.rank;
        let a = Array::from_slice(&lora.a, &shape(lora.rank, rows.columns)?);
        let b: Vec<_> =
            lora.b.chunks_exact(out).flat_map(|b| b.iter().skip(first).take(count)).copied().collect();
        let b = Array::from_slice(&b, &shape(lora.rank, count)?).transpose()?;
        let delta = ops::matmul(b.multiply(Array::from_f32(lora.scale))?, a)?;
        let mut merged = to_array(rows)?.add(delta.as_dtype(dtype(rows.float))?)?;
        if let Some(magnitude) = &lora.magnitude {
            let magnitude: Vec<_> = magnitude.iter().skip(first).take(count).copied().collect();
            let wide = merged.as_dtype(Dtype::Float32)?;
            let length = wide.square()?.sum_axis(1, true)?.sqrt()?;
            let factor = Array::from_slice(&magnitude, &shape(count, 1)?).divide(&length)?;
            merged = wide.multiply(factor)?.as_dtype(dtype(rows.float))?;
        }
        rows.values.copy_from_slice(to_float32(&merged)?.try_as_slice()?);
        Ok(())
    }

    fn try_quantize(self, rows: &Rows, spec: QuantSpec, out: PackedMut<'_>) -> anyhow::Result<()> {
        let weight = to_array(rows)?;
        let packed = if spec.mode == Mode::Affine {
            let (group_size, bits) = (i32::try_from(spec.group_size)?, i32::try_from(spec.bits)?);
            let (packed, scales, biases) = ops::quantize(weight, group_size, bits)?;
            rows.float.encode(to_float32(&scales)?.try_as_slice()?, out.scales);
            rows.float.encode(to_float32(&biases)?.try_as_slice()?, out.biases);
            packed
        } else {
            let (packed, scales) = modes::quantize(&weight, spec)?;
            scales.eval()?;
            out.scales.copy_from_slice(scales.try_as_slice()?);
            packed
        };
        packed.eval()?;
        for (bytes, word) in out.weight.as_chunks_mut().0.iter_mut().zip(packed.try_as_slice::<u32>()?) {
            *bytes = word.to_le_bytes();
        }
        Ok(())
    }
}

/// Checks that MLX computes on the device that [`MLX_ID`] names. The id is part of the keys of what is made
/// here. Its version is that of the pinned mlx-rs.
///
/// # Errors
/// Fails if MLX computes on another device, or cannot name its device.
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

fn to_array(rows: &Rows) -> anyhow::Result<Array> {
    let wide = Array::from_slice(&rows.values, &shape(rows.count(), rows.columns)?);
    Ok(wide.as_dtype(dtype(rows.float))?)
}

fn floats(float: Float, bytes: &[u8], shape: &[i32]) -> anyhow::Result<Array> {
    let mut values = vec![0.0; bytes.len() / float.size()];
    float.decode(bytes, &mut values);
    Ok(Array::from_slice(&values, shape).as_dtype(dtype(float))?)
}

/// Widens `array` to float32 and evaluates it.
fn to_float32(array: &Array) -> anyhow::Result<Array> {
    let wide = array.as_dtype(Dtype::Float32)?;
    wide.eval()?;
    Ok(wide)
}
