//! The device MLX computes on, and the dtype that activations have there.
//! Knows nothing of models.

use anyhow::Result;
use mlx_rs::{Array, Device, DeviceType, Dtype};

/// Casts a float tensor to the dtype that the device computes in. Integers stay as they are.
///
/// On a CPU that is float32. MLX has no fast half-precision kernels there, and its quantized matmul in
/// float16 is about fifty times slower. On a GPU the model's own dtype is kept.
pub(crate) fn to_activation_dtype(tensor: Array) -> Result<Array> {
    let dtype = activation_dtype(tensor.dtype())?;
    if dtype != tensor.dtype() {
        return Ok(tensor.as_dtype(dtype)?);
    }
    Ok(tensor)
}

/// Returns the dtype that the device computes in for tensors stored as `stored`.
pub(crate) fn activation_dtype(stored: Dtype) -> Result<Dtype> {
    let half = matches!(stored, Dtype::Float16 | Dtype::Bfloat16);
    Ok(if half && is_cpu()? { Dtype::Float32 } else { stored })
}

/// Whether the default device is the CPU.
pub(crate) fn is_cpu() -> Result<bool> {
    Ok(matches!(Device::try_default()?.get_type()?, DeviceType::Cpu))
}
