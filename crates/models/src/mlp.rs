//! The gated feed-forward layer.
//! Knows nothing of the layers around it.

use anyhow::{Result, ensure};
use mlx_rs::Array;

use super::activations::Activation;
use super::linear::Linear;
use super::tensors::Tensors;

/// The part of a layer that follows attention: an [`Mlp`], or experts.
pub(crate) trait FeedForward {
    /// Maps `[batch, tokens, hidden_size]` to the same shape.
    fn forward(&self, x: &Array) -> Result<Array>;
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct MlpArgs {
    pub(crate) hidden_size: i32,
    pub(crate) intermediate_size: i32,
    pub(crate) bias: bool,
    pub(crate) activation: Activation,
}

impl MlpArgs {
    pub(crate) fn check(&self) -> Result<()> {
        let size = self.intermediate_size;
        ensure!(size > 0, "the feed-forward layer has size {size}");
        Ok(())
    }
}

pub(crate) struct Mlp {
    gate_proj: Linear,
    down_proj: Linear,
    up_proj: Linear,
    activation: Activation,
}

impl Mlp {
    pub(crate) fn load(weights: &mut Tensors, path: &str, args: &MlpArgs) -> Result<Self> {
        let MlpArgs { hidden_size, intermediate_size, bias, activation } = *args;
        let mut linear =
            |name: &str, input, output| Linear::load(weights, &format!("{path}.{name}"), input, output, bias);
        Ok(Self {
            gate_proj: linear("gate_proj", hidden_size, intermediate_size)?,
            down_proj: linear("down_proj", intermediate_size, hidden_size)?,
            up_proj: linear("up_proj", hidden_size, intermediate_size)?,
            activation,
        })
    }
}

impl FeedForward for Mlp {
    fn forward(&self, x: &Array) -> Result<Array> {
        let (gate, up) = (self.gate_proj.forward(x)?, self.up_proj.forward(x)?);
        self.down_proj.forward(&(self.activation)(&gate, &up)?)
    }
}
