//! A weight matrix or a stack of them, float or quantized, behind one interface.
//! Does not know whether it belongs to a linear layer, an embedding or a layer's experts.

use anyhow::{Context, Result, ensure};
use mlx_rs::{Array, Dtype, ops};

use super::config::Packing;
use super::device;
use super::packed::Packed;
use super::tensors::Tensors;
use weights::kernels::Mode;

/// From this many rows of `x` on, it is faster on a CPU to dequantize before multiplying.
const MANY: i32 = 8;

/// A matrix `[rows, columns]`, or a stack `[experts, rows, columns]`.
pub(crate) enum Matrix {
    /// Stored as floats.
    Float(Array),
    /// Stored as packed words, and the dtype of the dequantized values.
    Quantized(Packed, Dtype),
}

impl Matrix {
    /// Takes `path.weight`. For a quantized matrix, it also takes `path.scales` and, in the affine mode,
    /// `path.biases`.
    pub(crate) fn load(weights: &mut Tensors, path: &str, shape: &[i32]) -> Result<Self> {
        let name = format!("{path}.weight");
        let Some((&columns, rows)) = shape.split_last().filter(|_| weights.is_quantized(path)) else {
            return Ok(Self::Float(weights.take(&name, shape)?));
        };
        let scales = weights.scales(path).context("BUG: a quantized matrix has scales")?;
        let (groups, kind) = (scales.shape().last().copied().unwrap_or_default(), scales.dtype());
        let weight = weights.take_packed(&name, Dtype::Uint32, rows)?;
        let words = weight.dim(-1);
        let packing = match weights.named_packing(path).flatten() {
            Some(named) => named,
            None => infer(columns, words, groups, kind).with_context(|| name.clone())?,
        };
        ensure_packed(&packing, columns, words).with_context(|| name.clone())?;
        let sides = [rows, &[columns / packing.group_size]].concat();
        let (scales, biases, dtype) = if packing.mode == Mode::Affine {
            let scales = weights.take(&format!("{path}.scales"), &sides)?;
            let biases = weights.take(&format!("{path}.biases"), &sides)?;
            let dtype = scales.dtype();
            (scales, Some(biases), dtype)
        } else {
            let scales = weights.take_packed(&format!("{path}.scales"), Dtype::Uint8, rows)?;
            let found = scales.dim(-1);
            ensure!(found == columns / packing.group_size, "{name}: {found} scales for {columns} columns");
            (scales, None, device::activation_dtype(Dtype::Bfloat16)?)
        };
        Ok(Self::Quantized(Packed { weight, scales, biases, packing }, dtype))
    }

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

/// Infers the packing from the shapes and from the dtype of the scales, as mlx-lm's `infer_quant_config`
/// does.
fn infer(columns: i32, words: i32, groups: i32, scales: Dtype) -> Result<Packing> {
    ensure!(columns > 0 && groups > 0, "{columns} columns in {groups} groups");
    let bits = i32::try_from(i64::from(words) * 32 / i64::from(columns))?;
    let group_size = columns / groups;
    let mode = match (scales, bits, group_size) {
        (Dtype::Uint8, 4, 16) => Mode::Nvfp4,
        (Dtype::Uint8, 4, 32) => Mode::Mxfp4,
        (Dtype::Uint8, 8, 32) => Mode::Mxfp8,
        _ => Mode::Affine,
    };
    Ok(Packing { group_size, bits, mode })
}

fn ensure_packed(packing: &Packing, columns: i32, words: i32) -> Result<()> {
    let Packing { group_size, bits, mode } = *packing;
    let known = match mode {
        Mode::Affine => matches!(bits, 2..=6 | 8) && matches!(group_size, 32 | 64 | 128),
        Mode::Mxfp4 => (bits, group_size) == (4, 32),
        Mode::Mxfp8 => (bits, group_size) == (8, 32),
        Mode::Nvfp4 => (bits, group_size) == (4, 16),
    };
    let word = mode.word();
    ensure!(known, "{word} with {bits} bits in groups of {group_size} is not a packing of MLX");
    let fits = i64::from(words) * 32 == i64::from(columns) * i64::from(bits);
    ensure!(fits, "{words} words a row are not {columns} weights of {bits} bits");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packing_is_read_off_the_shapes() {
        // 256 weights of 6 bits are 1536 bits, which are 48 words.
        let affine = Packing { group_size: 64, bits: 6, mode: Mode::Affine };
        assert_eq!(infer(256, 48, 4, Dtype::Float16).unwrap(), affine);
        let nvfp4 = Packing { group_size: 16, bits: 4, mode: Mode::Nvfp4 };
        assert_eq!(infer(256, 32, 16, Dtype::Uint8).unwrap(), nvfp4);
    }

    #[test]
    fn a_packing_that_does_not_fit_its_row_is_refused() {
        let packing = |bits, mode| Packing { group_size: 64, bits, mode };
        let error = ensure_packed(&packing(4, Mode::Affine), 256, 48).unwrap_err();
        assert_eq!(error.to_string(), "48 words a row are not 256 weights of 4 bits");
        assert!(ensure_packed(&packing(7, Mode::Affine), 256, 56).is_err());
        assert!(ensure_packed(&packing(4, Mode::Mxfp4), 256, 32).is_err());
    }
}
