//! Inputs of their own that layers have beside what the layer before made: Gemma's per-layer embeddings.
//! Knows nothing of the layers around them.

use anyhow::{Context, Result};

use super::embedding::Embedding;
use super::linear::Linear;
use super::module::{Module, Pass};
use super::norm::{Norm, NormArgs};
use super::{ensure_side, side_of};
use crate::runtime::{Activation, Runtime};
use crate::tensors::Tensors;

/// The arguments of per-layer inputs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PerLayerArgs {
    pub(crate) hidden_size: i32,
    /// The length of a layer's input.
    pub(crate) dims: i32,
    pub(crate) layers: i32,
    pub(crate) vocab_size: i32,
    pub(crate) norm: NormArgs,
}

impl PerLayerArgs {
    /// Fails if a number is impossible.
    pub(crate) fn check(&self) -> Result<()> {
        ensure_side("hidden_size", self.hidden_size)?;
        ensure_side("vocab_size_per_layer_input", self.vocab_size)?;
        side_of("per-layer inputs", self.layers, self.dims).map(drop)
    }
}

/// Makes the inputs of all layers from the tokens.
pub(crate) struct PerLayerInputs<R: Runtime> {
    args: PerLayerArgs,
    embed_tokens_per_layer: Embedding<R>,
    per_layer_model_projection: Linear<R>,
    per_layer_projection_norm: Norm<R>,
}

impl<R: Runtime> PerLayerInputs<R> {
    /// Takes the weights under `path`.
    pub(crate) fn load(weights: &mut Tensors<'_, R>, path: &str, args: &PerLayerArgs) -> Result<Self> {
        let PerLayerArgs { hidden_size, dims, layers, vocab_size, norm } = *args;
        let width = layers * dims;
        let projection = format!("{path}.per_layer_model_projection");
        Ok(Self {
            embed_tokens_per_layer: Embedding::load(
                weights,
                &format!("{path}.embed_tokens_per_layer"),
                vocab_size,
                width,
            )?,
            per_layer_model_projection: Linear::load(weights, &projection, hidden_size, width, false)?,
            per_layer_projection_norm: Norm::load(
                weights,
                &format!("{path}.per_layer_projection_norm"),
                dims,
                norm,
            )?,
            args: *args,
        })
    }

    /// Returns for each layer its input, `[tokens, dims]`. `embedded` is what the first layer gets.
    pub(crate) fn forward(
        &self,
        runtime: &R,
        tokens: &R::Tokens,
        embedded: &R::Tensor,
    ) -> Result<Vec<R::Tensor>> {
        let PerLayerArgs { hidden_size, dims, layers, .. } = self.args;
        let own = self.embed_tokens_per_layer.forward(runtime, tokens)?;
        let own = runtime.scaled(&own, (dims as f32).sqrt())?;
        let projected = self.per_layer_model_projection.forward(runtime, embedded)?;
        let projected = runtime.scaled(&projected, 1.0 / (hidden_size as f32).sqrt())?;
        let projected = runtime.heads(&projected, layers)?;
        let normed = runtime.flat(&self.per_layer_projection_norm.forward(runtime, &projected)?)?;
        let sum = runtime.scaled(&runtime.add(&normed, &own)?, std::f32::consts::FRAC_1_SQRT_2)?;
        (0..layers).map(|layer| runtime.columns(&sum, layer * dims..(layer + 1) * dims)).collect()
    }
}

/// Gates a layer's own input with what the layer has so far.
pub(crate) struct PerLayerGate<R: Runtime> {
    per_layer_input_gate: Linear<R>,
    per_layer_projection: Linear<R>,
}

impl<R: Runtime> PerLayerGate<R> {
    /// Takes the weights under `path`.
    pub(crate) fn load(weights: &mut Tensors<'_, R>, path: &str, args: &PerLayerArgs) -> Result<Self> {
        let (gate, projection) =
            (format!("{path}.per_layer_input_gate"), format!("{path}.per_layer_projection"));
        Ok(Self {
            per_layer_input_gate: Linear::load(weights, &gate, args.hidden_size, args.dims, false)?,
            per_layer_projection: Linear::load(weights, &projection, args.dims, args.hidden_size, false)?,
        })
    }
}

impl<R: Runtime> Module<R> for PerLayerGate<R> {
    fn forward(&self, pass: &mut Pass<'_, R>, x: &R::Tensor) -> Result<R::Tensor> {
        let runtime = pass.runtime;
        let inputs = pass.per_layer.and_then(|inputs| inputs.get(pass.layer));
        let input = inputs.context("BUG: the layer has no input of its own")?;
        let gate = self.per_layer_input_gate.forward(runtime, x)?;
        self.per_layer_projection.forward(runtime, &runtime.gated(Activation::Gelu, &gate, input)?)
    }
}
