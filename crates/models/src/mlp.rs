//! The gated feed-forward layer.
//! Knows nothing of the layers around it.

use anyhow::{Result, ensure};

use super::linear::Linear;
use super::runtime::{Activation, Runtime};
use super::tensors::Tensors;

/// The part of a layer that follows attention: an [`Mlp`], or experts.
pub(crate) trait FeedForward<R: Runtime> {
    /// Maps `[tokens, hidden_size]` to the same shape.
    fn forward(&self, runtime: &R, x: &R::Tensor) -> Result<R::Tensor>;
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

pub(crate) struct Mlp<R: Runtime> {
    gate_proj: Linear<R>,
    down_proj: Linear<R>,
    up_proj: Linear<R>,
    activation: Activation,
}

impl<R: Runtime> Mlp<R> {
    pub(crate) fn load(weights: &mut Tensors<'_, R>, path: &str, args: &MlpArgs) -> Result<Self> {
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

impl<R: Runtime> FeedForward<R> for Mlp<R> {
    fn forward(&self, runtime: &R, x: &R::Tensor) -> Result<R::Tensor> {
        let [gate, up] = Linear::forward_all([&self.gate_proj, &self.up_proj], runtime, x)?;
        self.down_proj.forward(runtime, &runtime.gated(self.activation, &gate, &up)?)
    }
}
