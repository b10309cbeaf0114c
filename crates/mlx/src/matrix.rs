//! A weight matrix or a stack of them, float or quantized, behind one interface.
//! Does not know whether it belongs to a linear layer, an embedding or a layer's experts.

use anyhow::Result;
use mlx_rs::{Array, Dtype, ops};

use super::device;
use super::packed::Packed;

/// From this many rows of `x` on, it is faster on a CPU to dequantize before multiplying.
const MANY: i32 = 8;

/// A matrix `[rows, columns]`, or a stack `[experts, rows, columns]`.
pub enum Matrix {
    /// Stored as floats.
    Float(Array),
    /// Stored as packed words, and the dtype of the dequantized values.
    Quantized(Packed, Dtype),
}

impl Matrix {
    /// Returns `x @ self.T`; `x` is `[…, columns]`.
    pub(crate) fn matmul_transposed(&self, x: &Array) -> Result<Array> {
        match self {
            Self::Float(weight) => Ok(ops::matmul(x, weight.transpose()?)?),
            // On a CPU, MLX multiplies quantized matrices row by row, without BLAS. Dequantizing takes as
            // long as a few rows.
            Self::Quantized(packed, dtype) if is_many(x) && device::is_cpu()? => {
                Ok(ops::matmul(x, packed.dequantize(*dtype)?.transpose()?)?)
            }
            Self::Quantized(packed, _) => packed.matmul_transposed(x),
        }
    }

    /// Like [`matmul_transposed`](Self::matmul_transposed), for a stack. `experts` selects the matrix for
    /// each `[1, columns]` of `x`, and `sorted` says that the numbers in `experts` ascend.
    pub(crate) fn gather_matmul_transposed(&self, x: &Array, experts: &Array, sorted: bool) -> Result<Array> {
        match self {
            Self::Float(weight) => Ok(ops::gather_mm(x, weight.swap_axes(-1, -2)?, None, experts, sorted)?),
            Self::Quantized(packed, _) => packed.gather_matmul_transposed(x, experts, sorted),
        }
    }

    /// Returns the products of `[1, heads, tokens, columns]` with a stack of as many matrices.
    pub(crate) fn matmul_stack_transposed(&self, x: &Array) -> Result<Array> {
        match self {
            Self::Float(stack) => Ok(ops::matmul(x, stack.swap_axes(-1, -2)?)?),
            Self::Quantized(packed, dtype) if is_many(x) && device::is_cpu()? => {
                Ok(ops::matmul(x, packed.dequantize(*dtype)?.swap_axes(-1, -2)?)?)
            }
            Self::Quantized(packed, _) => packed.matmul_transposed(x),
        }
    }

    /// Returns the matrix as floats.
    pub(crate) fn dense(&self) -> Result<Array> {
        match self {
            Self::Float(weight) => Ok(weight.clone()),
            Self::Quantized(packed, dtype) => packed.dequantize(*dtype),
        }
    }

    /// Returns the rows at `ids`, `[…, columns]`. Only these rows are dequantized.
    pub(crate) fn rows(&self, ids: &Array) -> Result<Array> {
        match self {
            Self::Float(weight) => Ok(weight.take_axis(ids, 0)?),
            Self::Quantized(packed, dtype) => packed.rows(ids)?.dequantize(*dtype),
        }
    }

    /// Returns the dtype of the rows that [`rows`](Self::rows) returns.
    pub(crate) fn dtype(&self) -> Dtype {
        match self {
            Self::Float(weight) => weight.dtype(),
            Self::Quantized(_, dtype) => *dtype,
        }
    }
}

/// Whether `x` has many rows, as a prompt does, and not just one token or a few.
fn is_many(x: &Array) -> bool {
    let rows: i32 = x.shape().iter().rev().skip(1).product();
    rows >= MANY
}
