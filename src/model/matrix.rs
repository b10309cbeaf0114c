//! A weight matrix or a stack of them, float or affine-quantized, behind one face.
//! Does not know whether it is a linear, an embedding or a layer's experts.

use anyhow::{Context, Result, ensure};
use mlx_rs::{Array, Dtype, ops};

use super::config::Packing;
use super::weights::Weights;

/// A matrix `[rows, columns]`, or a stack `[experts, rows, columns]`.
pub(crate) enum Matrix {
    /// As it is.
    Float(Array),
    /// `columns * bits / 32` words a row, one scale and one bias per group.
    Quantized { weight: Array, scales: Array, biases: Array, packing: Packing },
}

impl Matrix {
    /// Takes `path.weight`, and `path.scales` and `path.biases` if it is quantized.
    pub(crate) fn load(weights: &mut Weights, path: &str, shape: &[i32]) -> Result<Self> {
        let name = format!("{path}.weight");
        let Some((&columns, rows)) = shape.split_last().filter(|_| weights.is_quantized(path)) else {
            return Ok(Self::Float(weights.take(&name, shape)?));
        };
        let groups = weights.groups(path).context("scales without a shape")?;
        let weight = weights.take_packed(&name, rows)?;
        let words = weight.dim(-1);
        let packing = match weights.named_packing(path).flatten() {
            Some(named) => named,
            None => infer(columns, words, groups).with_context(|| name.clone())?,
        };
        ensure_packed(&packing, columns, words).with_context(|| name.clone())?;
        let shape = [rows, &[columns / packing.group_size]].concat();
        let scales = weights.take(&format!("{path}.scales"), &shape)?;
        let biases = weights.take(&format!("{path}.biases"), &shape)?;
        Ok(Self::Quantized { weight, scales, biases, packing })
    }

    /// Returns `x @ self.T`; `x` is `[…, columns]`.
    pub(crate) fn matmul_transposed(&self, x: &Array) -> Result<Array> {
        Ok(match self {
            Self::Float(weight) => ops::matmul(x, weight.transpose()?)?,
            Self::Quantized { weight, scales, biases, packing } => {
                let Packing { group_size, bits } = *packing;
                ops::quantized_matmul(x, weight, scales, biases, true, group_size, bits)?
            }
        })
    }

    /// As [`matmul_transposed`](Self::matmul_transposed), for a stack: `experts` says which of its matrices
    /// multiplies each `[1, columns]` of `x`, and `sorted` that their numbers ascend.
    pub(crate) fn gather_matmul_transposed(&self, x: &Array, experts: &Array, sorted: bool) -> Result<Array> {
        Ok(match self {
            Self::Float(weight) => ops::gather_mm(x, weight.swap_axes(-1, -2)?, None, experts, sorted)?,
            Self::Quantized { weight, scales, biases, packing } => {
                let Packing { group_size, bits } = *packing;
                ops::gather_qmm(x, weight, scales, biases, None, experts, true, group_size, bits, sorted)?
            }
        })
    }

    /// Returns the matrix that this stands for.
    pub(crate) fn dense(&self) -> Result<Array> {
        Ok(match self {
            Self::Float(weight) => weight.clone(),
            Self::Quantized { weight, scales, biases, packing } => {
                let Packing { group_size, bits } = *packing;
                ops::dequantize(weight, scales, biases, group_size, bits)?
            }
        })
    }

    /// Returns the rows at `ids`, `[…, columns]`; only these are dequantized.
    pub(crate) fn rows(&self, ids: &Array) -> Result<Array> {
        let pick = |tensor: &Array| tensor.take_axis(ids, 0);
        Ok(match self {
            Self::Float(weight) => pick(weight)?,
            Self::Quantized { weight, scales, biases, packing } => {
                let Packing { group_size, bits } = *packing;
                let biases = pick(biases)?;
                ops::dequantize(pick(weight)?, pick(scales)?, &biases, group_size, bits)?
            }
        })
    }

    /// The dtype of what `rows` returns: that of the weight, or of its scales.
    pub(crate) fn dtype(&self) -> Dtype {
        match self {
            Self::Float(weight) => weight.dtype(),
            Self::Quantized { scales, .. } => scales.dtype(),
        }
    }
}

/// Reads bits and group size off the shapes, as mlx-lm's `infer_quant_config` does.
fn infer(columns: i32, words: i32, groups: i32) -> Result<Packing> {
    ensure!(columns > 0 && groups > 0, "{columns} columns in {groups} groups");
    let bits = i64::from(words) * 32 / i64::from(columns);
    Ok(Packing { group_size: columns / groups, bits: i32::try_from(bits)? })
}

fn ensure_packed(packing: &Packing, columns: i32, words: i32) -> Result<()> {
    let Packing { group_size, bits } = *packing;
    let known = matches!(bits, 2..=6 | 8) && matches!(group_size, 32 | 64 | 128);
    ensure!(known, "{bits} bits in groups of {group_size} is not a packing of MLX");
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
        assert_eq!(infer(256, 48, 4).unwrap(), Packing { group_size: 64, bits: 6 });
    }

    #[test]
    fn a_packing_that_does_not_fit_its_row_is_refused() {
        let error = ensure_packed(&Packing { group_size: 64, bits: 4 }, 256, 48).unwrap_err();
        assert_eq!(error.to_string(), "48 words a row are not 256 weights of 4 bits");
        assert!(ensure_packed(&Packing { group_size: 64, bits: 7 }, 256, 56).is_err());
    }
}
