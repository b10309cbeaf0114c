//! Quantization in the modes that mlx-rs does not wrap, through MLX's C interface.
//! Knows nothing of rows or files.
#![expect(unsafe_code, reason = "mlx-sys is a C interface; every call is followed by a look at its status")]

use std::ffi::CStr;

use anyhow::ensure;
use mlx_rs::{Array, Dtype, Stream};
use mlx_sys::{
    mlx_array_free, mlx_array_new, mlx_dequantize, mlx_optional_dtype, mlx_optional_int, mlx_quantize,
    mlx_vector_array_free, mlx_vector_array_get, mlx_vector_array_new, mlx_vector_array_size,
};

use weights::kernels::{Mode, QuantSpec};

/// Quantizes `weight`. Returns the codes in uint32 words, and a one-byte scale for each group.
pub(super) fn quantize(weight: &Array, spec: QuantSpec) -> anyhow::Result<(Array, Array)> {
    let (group_size, bits) = sizes(spec)?;
    let stream = Stream::thread_local_or_default();
    // SAFETY: the handles are valid for the length of the call, and `parts` is freed once.
    unsafe {
        let none = Array::from_ptr(mlx_array_new());
        let mut parts = mlx_vector_array_new();
        let mode = c_name(spec.mode).as_ptr();
        let status = mlx_quantize(
            &mut parts,
            weight.as_ptr(),
            group_size,
            bits,
            mode,
            none.as_ptr(),
            stream.as_ref().as_ptr(),
        );
        let found = (0..mlx_vector_array_size(parts)).map(|index| {
            let mut part = mlx_array_new();
            let status = mlx_vector_array_get(&mut part, parts, index);
            (status, Array::from_ptr(part))
        });
        let found: Vec<_> = found.collect();
        mlx_vector_array_free(parts);
        ensure!(status == 0 && found.iter().all(|(status, _)| *status == 0), "MLX cannot quantize to {spec}");
        let mut arrays = found.into_iter().map(|(_, array)| array);
        match (arrays.next(), arrays.next()) {
            (Some(codes), Some(scales)) => Ok((codes, scales)),
            _ => anyhow::bail!("BUG: MLX gave fewer than two arrays for {spec}"),
        }
    }
}

/// Returns the dequantized values, in `dtype`.
pub(super) fn dequantize(
    codes: &Array,
    scales: &Array,
    spec: QuantSpec,
    dtype: Dtype,
) -> anyhow::Result<Array> {
    let (group_size, bits) = sizes(spec)?;
    let stream = Stream::thread_local_or_default();
    let dtype = mlx_optional_dtype { value: dtype.into(), has_value: true };
    // SAFETY: the handles are valid for the length of the call; `dense` is owned by the array or freed.
    unsafe {
        let none = Array::from_ptr(mlx_array_new());
        let mut dense = mlx_array_new();
        let status = mlx_dequantize(
            &mut dense,
            codes.as_ptr(),
            scales.as_ptr(),
            none.as_ptr(),
            group_size,
            bits,
            c_name(spec.mode).as_ptr(),
            none.as_ptr(),
            dtype,
            stream.as_ref().as_ptr(),
        );
        if status != 0 {
            mlx_array_free(dense);
            anyhow::bail!("MLX cannot dequantize {spec}");
        }
        Ok(Array::from_ptr(dense))
    }
}

fn sizes(spec: QuantSpec) -> anyhow::Result<(mlx_optional_int, mlx_optional_int)> {
    let some = |value: usize| anyhow::Ok(mlx_optional_int { value: i32::try_from(value)?, has_value: true });
    Ok((some(spec.group_size)?, some(spec.bits)?))
}

/// Returns MLX's name of a mode.
pub(super) fn c_name(mode: Mode) -> &'static CStr {
    match mode {
        Mode::Affine => c"affine",
        Mode::Mxfp4 => c"mxfp4",
        Mode::Mxfp8 => c"mxfp8",
        Mode::Nvfp4 => c"nvfp4",
    }
}
