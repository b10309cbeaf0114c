//! A linear layer: a matrix, an optional bias, and an optional LoRA update that is not fused.
//! Knows nothing of the layers around it.

use anyhow::Result;
use mlx_rs::{Array, ops};

use super::adapter::Lora;
use super::matrix::Matrix;
use super::tensors::Tensors;

pub(crate) struct Linear {
    weight: Matrix,
    bias: Option<Array>,
    lora: Option<Lora>,
}

impl Linear {
    /// Takes the tensors under `path`. The weight is `[output_dims, input_dims]`.
    pub(crate) fn load(
        weights: &mut Tensors,
        path: &str,
        input_dims: i32,
        output_dims: i32,
        bias: bool,
    ) -> Result<Self> {
        let weight = Matrix::load(weights, path, &[output_dims, input_dims])?;
        let bias = if bias { Some(weights.take(&format!("{path}.bias"), &[output_dims])?) } else { None };
        let lora = weights.take_lora(path, &weight, [output_dims, input_dims])?;
        Ok(Self { weight, bias, lora })
    }

    /// Maps `[…, input_dims]` to `[…, output_dims]`.
    pub(crate) fn forward(&self, x: &Array) -> Result<Array> {
        if let Some(lora) = self.lora.as_ref().filter(|lora| lora.is_dora()) {
            // DoRA scales the rows of the weight, but not the bias.
            let y = lora.apply(&self.weight.matmul_transposed(x)?, x)?;
            return Ok(self.bias.as_ref().map_or(Ok(y.clone()), |bias| y.add(bias))?);
        }
        let y = match (&self.weight, &self.bias) {
            // One operation, as in MLX, so the sum is rounded once.
            (Matrix::Float(weight), Some(bias)) => ops::addmm(bias, x, weight.transpose()?, None, None)?,
            (weight, Some(bias)) => weight.matmul_transposed(x)?.add(bias)?,
            (weight, None) => weight.matmul_transposed(x)?,
        };
        match &self.lora {
            Some(lora) => lora.apply(&y, x),
            None => Ok(y),
        }
    }
}
