//! A linear layer: a matrix, an optional bias, and an optional LoRA update that is not fused.
//! Knows nothing of the layers around it.

use anyhow::Result;

use super::adapter::Lora;
use super::runtime::Runtime;
use super::tensors::Tensors;

pub(crate) struct Linear<R: Runtime> {
    weight: R::Matrix,
    bias: Option<R::Tensor>,
    lora: Option<Lora<R>>,
}

impl<R: Runtime> Linear<R> {
    /// Takes the tensors under `path`. The weight is `[output_dims, input_dims]`.
    pub(crate) fn load(
        weights: &mut Tensors<'_, R>,
        path: &str,
        input_dims: i32,
        output_dims: i32,
        bias: bool,
    ) -> Result<Self> {
        let weight = weights.matrix(path, &[output_dims, input_dims])?;
        let bias = if bias { Some(weights.take(&format!("{path}.bias"), &[output_dims])?) } else { None };
        let lora = weights.take_lora(path, &weight, [output_dims, input_dims])?;
        Ok(Self { weight, bias, lora })
    }

    /// Maps `[tokens, input_dims]` to `[tokens, output_dims]`.
    pub(crate) fn forward(&self, runtime: &R, x: &R::Tensor) -> Result<R::Tensor> {
        match &self.lora {
            None => runtime.product(x, &self.weight, self.bias.as_ref()),
            Some(lora) if lora.is_dora() => {
                // DoRA scales the rows of the weight, but not the bias.
                let y = lora.apply(runtime, &runtime.product(x, &self.weight, None)?, x)?;
                self.bias.as_ref().map_or(Ok(y.clone()), |bias| runtime.add_bias(&y, bias))
            }
            Some(lora) => lora.apply(runtime, &runtime.product(x, &self.weight, self.bias.as_ref())?, x),
        }
    }
}
