//! Feed-forward layers of many experts in stacks, where each token goes through a few: mlx-lm's `SwitchGLU` and `SwitchMLP`.
//! Does not know how the experts are chosen.

use anyhow::Result;

use crate::adapter::ExpertsLora;
use crate::runtime::{Activation, Runtime};
use crate::tensors::Tensors;

/// A linear layer for each expert, in one stack.
struct SwitchLinear<R: Runtime> {
    weight: R::Matrix,
    /// `[experts, output]`
    bias: Option<R::Tensor>,
    lora: Option<ExpertsLora<R>>,
}

impl<R: Runtime> SwitchLinear<R> {
    fn load(weights: &mut Tensors<'_, R>, path: &str, shape: [i32; 3], bias: bool) -> Result<Self> {
        let weight = weights.matrix(path, &shape)?;
        let bias = if bias { Some(weights.take(&format!("{path}.bias"), &shape[..2])?) } else { None };
        Ok(Self { weight, bias, lora: weights.take_experts_lora(path, shape)? })
    }

    /// Maps `[pairs, input]` to `[pairs, output]`.
    fn forward(&self, runtime: &R, x: &R::Tensor, routes: &R::Routes) -> Result<R::Tensor> {
        let product = runtime.expert_product(x, &self.weight, routes)?;
        let y = match &self.bias {
            Some(bias) => runtime.add_expert_bias(&product, bias, routes)?,
            None => product,
        };
        match &self.lora {
            Some(lora) => lora.apply(runtime, &y, x, routes),
            None => Ok(y),
        }
    }
}

/// Which matrices an expert has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// `down_proj(activation(gate_proj(x)) * up_proj(x))`
    Gated,
    /// `fc2(activation(fc1(x)))`
    Plain,
}

pub(crate) struct Switch<R: Runtime> {
    inputs: Inputs<R>,
    down: SwitchLinear<R>,
    activation: Activation,
}

enum Inputs<R: Runtime> {
    /// The gate, and what it gates.
    Gated([SwitchLinear<R>; 2]),
    Plain(SwitchLinear<R>),
}

impl<R: Runtime> Switch<R> {
    /// Takes the stacks under `path`.
    pub(crate) fn load(
        weights: &mut Tensors<'_, R>,
        path: &str,
        [experts, hidden_dims, input_dims]: [i32; 3],
        (form, activation, bias): (Form, Activation, bool),
    ) -> Result<Self> {
        let mut linear = |name: &str, output, input| {
            SwitchLinear::load(weights, &format!("{path}.{name}"), [experts, output, input], bias)
        };
        let (inputs, down) = match form {
            Form::Gated => {
                let gate = linear("gate_proj", hidden_dims, input_dims)?;
                (Inputs::Gated([gate, linear("up_proj", hidden_dims, input_dims)?]), "down_proj")
            }
            Form::Plain => (Inputs::Plain(linear("fc1", hidden_dims, input_dims)?), "fc2"),
        };
        Ok(Self { inputs, down: linear(down, input_dims, hidden_dims)?, activation })
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
        let inner = match &self.inputs {
            Inputs::Gated([gate, up]) => {
                let up = up.forward(runtime, &rows, &routes)?;
                runtime.gated(self.activation, &gate.forward(runtime, &rows, &routes)?, &up)?
            }
            Inputs::Plain(up) => runtime.activated(self.activation, &up.forward(runtime, &rows, &routes)?)?,
        };
        runtime.gather(&self.down.forward(runtime, &inner, &routes)?, scores, &routes)
    }
}
