//! The feed-forward layer, with a gate or without.
//! Knows nothing of the layers around it.

use anyhow::Result;

use super::ensure_side;
use super::linear::Linear;
use super::module::{Module, Pass};
use crate::runtime::{Activation, Runtime};
use crate::tensors::Tensors;

/// The arguments of a feed-forward layer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MlpArgs {
    pub(crate) hidden_size: i32,
    pub(crate) intermediate_size: i32,
    pub(crate) bias: bool,
    pub(crate) activation: Activation,
    pub(crate) form: MlpForm,
    /// The path of the layer within its module, or nothing.
    pub(crate) below: &'static str,
    /// The name of a projection to one number, whose sigmoid multiplies the output.
    pub(crate) output_gate: Option<&'static str>,
}

/// Which matrices a feed-forward layer has, and their names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MlpForm {
    /// `down(activation(gate(x)) * up(x))`
    Gated { gate: &'static str, up: &'static str, down: &'static str },
    /// The same, with gate and up in one matrix.
    Fused { both: &'static str, down: &'static str },
    /// `down(activation(up(x)))`
    Plain { up: &'static str, down: &'static str },
}

impl MlpForm {
    /// The names in most families.
    pub(crate) const USUAL: Self = Self::Gated { gate: "gate_proj", up: "up_proj", down: "down_proj" };
    /// The usual names where gate and up are one matrix.
    pub(crate) const FUSED: Self = Self::Fused { both: "gate_up_proj", down: "down_proj" };
}

impl MlpArgs {
    /// Returns the arguments of the layer in most families.
    pub(crate) fn new(hidden_size: i32, intermediate_size: i32) -> Self {
        Self {
            hidden_size,
            intermediate_size,
            bias: false,
            activation: Activation::Silu,
            form: MlpForm::USUAL,
            below: "",
            output_gate: None,
        }
    }

    /// Fails if a number is impossible.
    pub(crate) fn check(&self) -> Result<()> {
        ensure_side("intermediate_size", self.intermediate_size)?;
        ensure_side("hidden_size", self.hidden_size)
    }
}

pub(crate) struct Mlp<R: Runtime> {
    inputs: Inputs<R>,
    down: Linear<R>,
    activation: Activation,
    output_gate: Option<Linear<R>>,
    size: i32,
}

enum Inputs<R: Runtime> {
    /// The gate, and what it gates.
    Gated([Linear<R>; 2]),
    Fused(Linear<R>),
    Plain(Linear<R>),
}

impl<R: Runtime> Mlp<R> {
    /// Takes the weights under `path`.
    pub(crate) fn load(weights: &mut Tensors<'_, R>, path: &str, args: &MlpArgs) -> Result<Self> {
        let MlpArgs { hidden_size, intermediate_size: size, bias, activation, below, .. } = *args;
        let within = if below.is_empty() { path.to_owned() } else { format!("{path}.{below}") };
        let mut linear = |name: &str, input, output| {
            Linear::load(weights, &format!("{within}.{name}"), input, output, bias)
        };
        let (inputs, down) = match args.form {
            MlpForm::Gated { gate, up, down } => {
                (Inputs::Gated([linear(gate, hidden_size, size)?, linear(up, hidden_size, size)?]), down)
            }
            MlpForm::Fused { both, down } => (Inputs::Fused(linear(both, hidden_size, 2 * size)?), down),
            MlpForm::Plain { up, down } => (Inputs::Plain(linear(up, hidden_size, size)?), down),
        };
        let down = linear(down, size, hidden_size)?;
        let gate = |name| Linear::load(weights, &format!("{path}.{name}"), hidden_size, 1, false);
        let output_gate = args.output_gate.map(gate).transpose()?;
        Ok(Self { inputs, down, activation, output_gate, size })
    }
}

impl<R: Runtime> Module<R> for Mlp<R> {
    fn forward(&self, pass: &mut Pass<'_, R>, x: &R::Tensor) -> Result<R::Tensor> {
        let runtime = pass.runtime;
        let inner = match &self.inputs {
            Inputs::Gated([gate, up]) => {
                let [gate, up] = Linear::forward_all([gate, up], runtime, x)?;
                runtime.gated(self.activation, &gate, &up)?
            }
            Inputs::Fused(both) => {
                let both = both.forward(runtime, x)?;
                let gate = runtime.columns(&both, 0..self.size)?;
                runtime.gated(self.activation, &gate, &runtime.columns(&both, self.size..2 * self.size)?)?
            }
            Inputs::Plain(up) => runtime.activated(self.activation, &up.forward(runtime, x)?)?,
        };
        let output = self.down.forward(runtime, &inner)?;
        match &self.output_gate {
            Some(gate) => runtime.multiply_tokens(&output, &runtime.sigmoid(&gate.forward(runtime, x)?)?),
            None => Ok(output),
        }
    }
}
