//! A short convolution with gates before and after it, in the place of attention.
//! Does not know which architecture it serves.

use anyhow::{Result, ensure};

use super::linear::Linear;
use super::module::{Module, Pass};
use super::{ensure_side, side_of};
use crate::runtime::Runtime;
use crate::tensors::Tensors;

/// The arguments of a short convolution.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ShortConvArgs {
    pub(crate) hidden_size: i32,
    /// How many tokens the convolution sees.
    pub(crate) kernel: i32,
    pub(crate) bias: bool,
}

impl ShortConvArgs {
    /// Fails if a number is impossible.
    pub(crate) fn check(&self) -> Result<()> {
        ensure_side("hidden_size", self.hidden_size)?;
        side_of("vectors", 3, self.hidden_size)?;
        ensure!((2..=64).contains(&self.kernel), "conv_L_cache is {}", self.kernel);
        Ok(())
    }
}

pub(crate) struct ShortConv<R: Runtime> {
    dims: i32,
    in_proj: Linear<R>,
    /// `[channels, kernel, 1]`
    conv: R::Tensor,
    conv_bias: Option<R::Tensor>,
    out_proj: Linear<R>,
}

impl<R: Runtime> ShortConv<R> {
    /// Takes the weights under `path`.
    pub(crate) fn load(weights: &mut Tensors<'_, R>, path: &str, args: &ShortConvArgs) -> Result<Self> {
        let ShortConvArgs { hidden_size: dims, kernel, bias } = *args;
        let conv_bias = if bias { Some(weights.take(&format!("{path}.conv.bias"), &[dims])?) } else { None };
        Ok(Self {
            dims,
            in_proj: Linear::load(weights, &format!("{path}.in_proj"), dims, 3 * dims, bias)?,
            conv: weights.take(&format!("{path}.conv.weight"), &[dims, kernel, 1])?,
            conv_bias,
            out_proj: Linear::load(weights, &format!("{path}.out_proj"), dims, dims, bias)?,
        })
    }
}

impl<R: Runtime> Module<R> for ShortConv<R> {
    fn forward(&self, pass: &mut Pass<'_, R>, x: &R::Tensor) -> Result<R::Tensor> {
        let runtime = pass.runtime;
        let projected = self.in_proj.forward(runtime, x)?;
        let part = |number: i32| runtime.columns(&projected, number * self.dims..(number + 1) * self.dims);
        let gated = runtime.multiply(&part(0)?, &part(2)?)?;
        let [inputs, _] = pass.recurrent()?;
        let convolved = runtime.convolved(&gated, &self.conv, self.conv_bias.as_ref(), inputs)?;
        self.out_proj.forward(runtime, &runtime.multiply(&part(1)?, &convolved)?)
    }
}
