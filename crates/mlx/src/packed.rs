//! Products with quantized matrices, in all modes of MLX; mlx-rs wraps only the affine mode.
//! Knows nothing of files, nor of what the matrices are for.
#![expect(unsafe_code, reason = "mlx-sys is a C interface; every call is followed by a look at its status")]

use anyhow::{Result, ensure};
use mlx_rs::{Array, Dtype, Stream};
use mlx_sys::{
    mlx_array, mlx_array_free, mlx_array_new, mlx_dequantize, mlx_gather_qmm, mlx_optional_dtype,
    mlx_optional_int, mlx_quantized_matmul, mlx_stream,
};

use super::modes::c_name;
use weights::kernels::QuantSpec;

/// A quantized matrix `[rows, columns]`, or a stack of them, as uint32 words.
pub struct Packed {
    /// `columns * bits / 32` words for each row.
    pub(crate) weight: Array,
    /// One scale for each group: a float in the affine mode, otherwise a byte.
    pub(crate) scales: Array,
    /// As many floats in the affine mode, otherwise `None`.
    pub(crate) biases: Option<Array>,
    pub(crate) spec: QuantSpec,
}

impl Packed {
    /// Returns `x @ self.T`.
    pub(crate) fn matmul_transposed(&self, x: &Array) -> Result<Array> {
        self.call(|result, none, stream| {
            // SAFETY: all handles belong to arrays that outlive the call.
            unsafe {
                mlx_quantized_matmul(
                    result,
                    x.as_ptr(),
                    self.weight.as_ptr(),
                    self.scales.as_ptr(),
                    self.biases(none),
                    true,
                    some(self.spec.group_size),
                    some(self.spec.bits),
                    c_name(self.spec.mode).as_ptr(),
                    stream,
                )
            }
        })
    }

    /// Like [`matmul_transposed`](Self::matmul_transposed), for a stack. `experts` selects the matrix for
    /// each row of `x`, and `sorted` says that the numbers in `experts` ascend.
    pub(crate) fn gather_matmul_transposed(&self, x: &Array, experts: &Array, sorted: bool) -> Result<Array> {
        self.call(|result, none, stream| {
            // SAFETY: all handles belong to arrays that outlive the call.
            unsafe {
                mlx_gather_qmm(
                    result,
                    x.as_ptr(),
                    self.weight.as_ptr(),
                    self.scales.as_ptr(),
                    self.biases(none),
                    none,
                    experts.as_ptr(),
                    true,
                    some(self.spec.group_size),
                    some(self.spec.bits),
                    c_name(self.spec.mode).as_ptr(),
                    sorted,
                    stream,
                )
            }
        })
    }

    /// Returns the dequantized matrix, in `dtype`.
    pub(crate) fn dequantize(&self, dtype: Dtype) -> Result<Array> {
        let dtype = mlx_optional_dtype { value: dtype.into(), has_value: true };
        self.call(|result, none, stream| {
            // SAFETY: all handles belong to arrays that outlive the call.
            unsafe {
                mlx_dequantize(
                    result,
                    self.weight.as_ptr(),
                    self.scales.as_ptr(),
                    self.biases(none),
                    some(self.spec.group_size),
                    some(self.spec.bits),
                    c_name(self.spec.mode).as_ptr(),
                    none,
                    dtype,
                    stream,
                )
            }
        })
    }

    /// Returns the rows of a matrix at `ids`, still packed.
    pub(crate) fn rows(&self, ids: &Array) -> Result<Self> {
        let pick = |tensor: &Array| tensor.take_axis(ids, 0);
        Ok(Self {
            weight: pick(&self.weight)?,
            scales: pick(&self.scales)?,
            biases: self.biases.as_ref().map(pick).transpose()?,
            spec: self.spec,
        })
    }

    /// Calls a function of MLX. It gets a place for its result, an empty array for arguments that are absent,
    /// and the stream.
    fn call(&self, function: impl FnOnce(*mut mlx_array, mlx_array, mlx_stream) -> i32) -> Result<Array> {
        let stream = Stream::thread_local_or_default();
        // SAFETY: `none` is owned by its array; `result` is owned by the array that is returned, or freed.
        unsafe {
            let none = Array::from_ptr(mlx_array_new());
            let mut result = mlx_array_new();
            let status = function(&mut result, none.as_ptr(), stream.as_ref().as_ptr());
            if status != 0 {
                mlx_array_free(result);
            }
            let QuantSpec { group_size, bits, mode } = self.spec;
            let word = mode.word();
            ensure!(status == 0, "MLX cannot compute with {word} of {bits} bits in groups of {group_size}");
            Ok(Array::from_ptr(result))
        }
    }

    fn biases(&self, none: mlx_array) -> mlx_array {
        self.biases.as_ref().map_or(none, Array::as_ptr)
    }
}

fn some(value: usize) -> mlx_optional_int {
    // A number of bits or a group size: no more than 128.
    mlx_optional_int { value: i32::try_from(value).unwrap_or(i32::MAX), has_value: true }
}
