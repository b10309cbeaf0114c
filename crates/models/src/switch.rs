//! A feed-forward layer with many experts, where each token goes through a few: mlx-lm's `SwitchGLU`.
//! Does not know how the experts are chosen.

use anyhow::Result;
use mlx_rs::ops::indexing::TryIndexOp;
use mlx_rs::{Array, ops};

use super::activations::Activation;
use super::adapter::ExpertsLora;
use super::matrix::Matrix;
use super::tensors::Tensors;

/// From this many pairs of token and expert on, the pairs are sorted by expert first.
const SORTED_FROM: usize = 64;

/// A linear layer for each expert, in one stack.
struct SwitchLinear {
    weight: Matrix,
    lora: Option<ExpertsLora>,
}

impl SwitchLinear {
    fn load(weights: &mut Tensors, path: &str, shape: [i32; 3]) -> Result<Self> {
        let weight = Matrix::load(weights, path, &shape)?;
        Ok(Self { weight, lora: weights.take_experts_lora(path, shape)? })
    }

    /// Maps `[…, 1, input]` to `[…, 1, output]`. `experts` says which expert each row uses, and `sorted` that
    /// their numbers ascend.
    fn forward(&self, x: &Array, experts: &Array, sorted: bool) -> Result<Array> {
        let y = self.weight.gather_matmul_transposed(x, experts, sorted)?;
        match &self.lora {
            Some(lora) => lora.apply(&y, x, experts, sorted),
            None => Ok(y),
        }
    }
}

pub(crate) struct SwitchGlu {
    gate_proj: SwitchLinear,
    up_proj: SwitchLinear,
    down_proj: SwitchLinear,
    activation: Activation,
}

impl SwitchGlu {
    pub(crate) fn load(
        weights: &mut Tensors,
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

    /// Maps `[batch, tokens, dims]` to `[batch, tokens, chosen, dims]`: for each token, the output of each of
    /// its experts. `experts` holds the numbers of the chosen experts, `[batch, tokens, chosen]`.
    pub(crate) fn forward(&self, x: &Array, experts: &Array) -> Result<Array> {
        let x = x.expand_dims_axes(&[-2, -3])?;
        let y = if experts.size() < SORTED_FROM {
            self.compute(&x, experts, false)?
        } else {
            // Sorted, so that all rows of one expert use its weights together.
            let order = ops::argsort_axis(experts.flatten(None, None)?, 0)?;
            let tokens = ops::floor_divide(&order, Array::from_int(experts.dim(-1)))?;
            let rows = x.flatten(0, -3)?.take_axis(tokens, 0)?;
            let sorted = experts.flatten(None, None)?.try_index(&order)?;
            let y = self.compute(&rows, &sorted, true)?;
            let unsorted = y.take_axis(ops::argsort_axis(order, 0)?, 0)?;
            ops::unflatten(unsorted, 0, experts.shape())?
        };
        Ok(y.squeeze_axes(&[-2])?)
    }

    fn compute(&self, x: &Array, experts: &Array, sorted: bool) -> Result<Array> {
        let up = self.up_proj.forward(x, experts, sorted)?;
        let gate = self.gate_proj.forward(x, experts, sorted)?;
        self.down_proj.forward(&(self.activation)(&gate, &up)?, experts, sorted)
    }
}
