//! The token embedding, which a tied model also uses as its output head.
//! Knows nothing of tokenizers.

use anyhow::Result;
use mlx_rs::{Array, Dtype};

use super::adapter::Lora;
use super::matrix::Matrix;
use super::tensors::Tensors;

pub(crate) struct Embedding {
    weight: Matrix,
    lora: Option<Lora>,
}

impl Embedding {
    /// Takes the tensors under `path`. The weight is `[num_embeddings, dims]`.
    pub(crate) fn load(weights: &mut Tensors, path: &str, num_embeddings: i32, dims: i32) -> Result<Self> {
        let weight = Matrix::load(weights, path, &[num_embeddings, dims])?;
        let lora = weights.take_lora(path, &weight, [num_embeddings, dims])?;
        Ok(Self { weight, lora })
    }

    /// Maps token ids `[…]`, each below `num_embeddings`, to `[…, dims]`.
    pub(crate) fn forward(&self, ids: &Array) -> Result<Array> {
        let rows = self.weight.rows(ids)?;
        match &self.lora {
            Some(lora) => lora.apply_to_rows(&rows, ids),
            None => Ok(rows),
        }
    }

    /// Maps `[…, dims]` to logits `[…, num_embeddings]`.
    pub(crate) fn as_linear(&self, x: &Array) -> Result<Array> {
        let y = self.weight.matmul_transposed(x)?;
        match &self.lora {
            Some(lora) => lora.apply(&y, x),
            None => Ok(y),
        }
    }

    pub(crate) fn dtype(&self) -> Dtype {
        self.weight.dtype()
    }
}
