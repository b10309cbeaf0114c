//! The device MLX computes on, and the dtype that activations have there.
//! Knows nothing of models.

use anyhow::Result;
use mlx_rs::{Array, Device, DeviceType, Dtype};

/// Returns `"cpu"` or `"gpu"`: MLX's default device in this process.
pub fn name() -> Result<&'static str> {
    Ok(if is_cpu()? { "cpu" } else { "gpu" })
}

/// Casts a float tensor to what the device computes in; integers stay as they are.
///
/// On a CPU that is float32: MLX has no fast half-precision kernels there, and its float16
/// quantized matmul is about fifty times slower. On a GPU the model's own dtype is kept.
pub(crate) fn to_activation_dtype(tensor: Array) -> Result<Array> {
    let half = matches!(tensor.dtype(), Dtype::Float16 | Dtype::Bfloat16);
    if half && is_cpu()? {
        return Ok(tensor.as_dtype(Dtype::Float32)?);
    }
    Ok(tensor)
}

fn is_cpu() -> Result<bool> {
    Ok(matches!(Device::try_default()?.get_type()?, DeviceType::Cpu))
}
