//! The token embedding, which a tied model also uses as its output head.
//! Knows nothing of tokenizers.

use anyhow::Result;

use crate::adapter::Lora;
use crate::observer::Observer;
use crate::runtime::Runtime;
use crate::tensors::Tensors;

pub(crate) struct Embedding<R: Runtime> {
    weight: R::Matrix,
    lora: Option<Lora<R>>,
    /// Who wants to know the inputs, if it is a head; and its path and row length.
    observed: Option<(Observer, String, i32)>,
}

impl<R: Runtime> Embedding<R> {
    /// Takes the tensors under `path`. The weight is `[num_embeddings, dims]`.
    pub(crate) fn load(
        weights: &mut Tensors<'_, R>,
        path: &str,
        num_embeddings: i32,
        dims: i32,
    ) -> Result<Self> {
        let weight = weights.matrix(path, &[num_embeddings, dims])?;
        let lora = weights.take_lora(path, &weight, [num_embeddings, dims])?;
        let observed = weights.observer().map(|observer| (observer, path.to_owned(), dims));
        Ok(Self { weight, lora, observed })
    }

    /// Maps token ids, each below `num_embeddings`, to `[tokens, dims]`.
    pub(crate) fn forward(&self, runtime: &R, ids: &R::Tokens) -> Result<R::Tensor> {
        let rows = runtime.rows(&self.weight, ids)?;
        match &self.lora {
            Some(lora) => lora.apply_to_rows(runtime, &rows, ids),
            None => Ok(rows),
        }
    }

    /// Maps `[tokens, dims]` to logits `[tokens, num_embeddings]`.
    pub(crate) fn as_linear(&self, runtime: &R, x: &R::Tensor) -> Result<R::Tensor> {
        if let Some((observer, path, dims)) = &self.observed {
            observer.observe(runtime, path, x, *dims)?;
        }
        let y = runtime.product(x, &self.weight, None)?;
        match &self.lora {
            Some(lora) => lora.apply(runtime, &y, x),
            None => Ok(y),
        }
    }

    pub(crate) fn activation_dtype(&self, runtime: &R) -> String {
        runtime.activation_dtype(&self.weight)
    }
}
