//! A feed-forward layer with many experts, where each token goes through a few: mlx-lm's `SwitchGLU`.
//! Does not know how the experts are chosen.

use anyhow::Result;

use super::adapter::ExpertsLora;
use super::runtime::{Activation, Runtime};
use super::tensors::Tensors;

/// A linear layer for each expert, in one stack.
struct SwitchLinear<R: Runtime> {
    weight: R::Matrix,
    lora: Option<ExpertsLora<R>>,
}

impl<R: Runtime> SwitchLinear<R> {
    fn load(weights: &mut Tensors<'_, R>, path: &str, shape: [i32; 3]) -> Result<Self> {
        let weight = weights.matrix(path, &shape)?;
        Ok(Self { weight, lora: weights.take_experts_lora(path, shape)? })
    }

    /// Maps `[pairs, input]` to `[pairs, output]`.
    fn forward(&self, runtime: &R, x: &R::Tensor, routes: &R::Routes) -> Result<R::Tensor> {
        let y = runtime.expert_product(x, &self.weight, routes)?;
        match &self.lora {
            Some(lora) => lora.apply(runtime, &y, x, routes),
            None => Ok(y),
        }
    }
}

pub(crate) struct SwitchGlu<R: Runtime> {
    gate_proj: SwitchLinear<R>,
    up_proj: SwitchLinear<R>,
    down_proj: SwitchLinear<R>,
    activation: Activation,
}

impl<R: Runtime> SwitchGlu<R> {
    pub(crate) fn load(
        weights: &mut Tensors<'_, R>,
        path: &str,
        [experts, hidden_dims, input_dims]: [i32; 3],
        activation: Activation,
    ) -> Result<Self> {
        let mut linear = |name: &str, output, input| {
            SwitchLinear::load(weights, &format!("{path}.{name}"), [experts, output, input])
        };
        Ok(Self {
            gate_proj: linear("gate_proj", hidden_dims, input_dims)?,
            up_proj: linear("up_proj", hidden_dims, input_dims)?,
            down_proj: linear("down_proj", input_dims, hidden_dims)?,
            activation,
        })
    }

    /// Maps `[tokens, dims]` to the same shape: for each token, the sum of what its experts make of it, each
    /// multiplied with its score, `[tokens, chosen]`.
    pub(crate) fn forward(
        &self,
        runtime: &R,
        x: &R::Tensor,
        (choice, scores): (&R::Choice, &R::Tensor),
    ) -> Result<R::Tensor> {
        let routes = runtime.routes(choice)?;
        let rows = runtime.spread(x, &routes)?;
        let up = self.up_proj.forward(runtime, &rows, &routes)?;
        let gate = self.gate_proj.forward(runtime, &rows, &routes)?;
        let inner = runtime.gated(self.activation, &gate, &up)?;
        runtime.gather(&self.down_proj.forward(runtime, &inner, &routes)?, scores, &routes)
    }
}
