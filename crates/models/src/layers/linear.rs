//! A linear layer: a matrix, an optional bias, and an optional LoRA update that is not fused.
//! Knows nothing of the layers around it.

use anyhow::{Result, anyhow};

use crate::adapter::Lora;
use crate::observer::Observer;
use crate::runtime::Runtime;
use crate::tensors::Tensors;

pub(crate) struct Linear<R: Runtime> {
    weight: R::Matrix,
    bias: Option<R::Tensor>,
    lora: Option<Lora<R>>,
    observed: Option<Observed>,
}

/// A layer whose inputs are observed.
struct Observed {
    observer: Observer,
    path: String,
    columns: i32,
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
        let observed = weights.observer().map(|observer| Observed {
            observer,
            path: path.to_owned(),
            columns: input_dims,
        });
        Ok(Self { weight, bias, lora, observed })
    }

    /// Maps `[tokens, input_dims]` to `[tokens, output_dims]`.
    pub(crate) fn forward(&self, runtime: &R, x: &R::Tensor) -> Result<R::Tensor> {
        self.observe(runtime, x)?;
        self.finish(runtime, runtime.product(x, &self.weight, self.early_bias())?, x)
    }

    /// Maps one input through several layers.
    pub(crate) fn forward_all<const N: usize>(
        layers: [&Self; N],
        runtime: &R,
        x: &R::Tensor,
    ) -> Result<[R::Tensor; N]> {
        layers.iter().try_for_each(|layer| layer.observe(runtime, x))?;
        let products = runtime.products(x, &layers.map(|layer| (&layer.weight, layer.early_bias())))?;
        let finish = |(layer, y): (&Self, R::Tensor)| layer.finish(runtime, y, x);
        let outputs: Vec<_> = layers.into_iter().zip(products).map(finish).collect::<Result<_>>()?;
        outputs.try_into().map_err(|_| anyhow!("BUG: each layer has an output"))
    }

    fn observe(&self, runtime: &R, x: &R::Tensor) -> Result<()> {
        let Some(Observed { observer, path, columns }) = &self.observed else { return Ok(()) };
        observer.observe(runtime, path, x, *columns)
    }

    /// Returns the bias, if it is added before the LoRA update. DoRA scales the rows of the weight, but not the bias.
    fn early_bias(&self) -> Option<&R::Tensor> {
        let is_dora = self.lora.as_ref().is_some_and(Lora::is_dora);
        self.bias.as_ref().filter(|_| !is_dora)
    }

    /// Adds to the product `y` what is missing.
    fn finish(&self, runtime: &R, y: R::Tensor, x: &R::Tensor) -> Result<R::Tensor> {
        let Some(lora) = &self.lora else { return Ok(y) };
        let updated = lora.apply(runtime, &y, x)?;
        match &self.bias {
            Some(bias) if lora.is_dora() => runtime.add_bias(&updated, bias),
            _ => Ok(updated),
        }
    }
}
