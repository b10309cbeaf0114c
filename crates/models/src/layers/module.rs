//! A module of a layer: it maps what the layer has so far to what is added to it.
//! Does not know what stands around a module.

use anyhow::{Context, Result, bail};

use super::attention::{Attention, AttentionArgs};
use super::delta_net::{DeltaNet, DeltaNetArgs};
use super::experts::{Experts, ExpertsArgs};
use super::latent::{LatentArgs, LatentAttention};
use super::mamba::{Mamba, MambaArgs};
use super::mlp::{Mlp, MlpArgs};
use super::norm::{Norm, NormArgs};
use super::per_layer::{PerLayerArgs, PerLayerGate};
use super::short_conv::{ShortConv, ShortConvArgs};
use crate::runtime::{Runtime, RuntimeState};
use crate::tensors::Tensors;

/// One pass of some tokens through the layers.
pub(crate) struct Pass<'a, R: Runtime> {
    pub(crate) runtime: &'a R,
    /// How many tokens there are.
    pub(crate) tokens: i32,
    /// How many tokens came before them.
    pub(crate) seen: i32,
    /// What each layer keeps of the tokens that it has seen.
    pub(crate) states: &'a mut [State<R>],
    /// The number of the current layer.
    pub(crate) layer: usize,
    /// Which tokens a token sees, for each window that some layer has.
    pub(crate) masks: &'a [(Option<i32>, R::Mask)],
    /// The inputs of their own that layers of Gemma have, one row for each layer: `[tokens, layers, dims]`.
    pub(crate) per_layer: Option<&'a [R::Tensor]>,
}

/// What a layer keeps of the tokens that it has seen.
pub(crate) enum State<R: Runtime> {
    /// Nothing.
    Nothing,
    /// Their keys and values.
    Attention(R::Cache),
    /// The last inputs of a convolution, and the state of a linear attention; each `None` before the first token.
    Recurrent { inputs: Option<R::Tensor>, state: Option<R::Tensor> },
}

impl<R: Runtime> State<R> {
    /// Returns what a runtime must compute before the memory of a pass is given back.
    pub(crate) fn kept(&self) -> impl Iterator<Item = RuntimeState<'_, R>> {
        let (cache, tensors) = match self {
            Self::Nothing => (None, [None, None]),
            Self::Attention(cache) => (Some(cache), [None, None]),
            Self::Recurrent { inputs, state } => (None, [inputs.as_ref(), state.as_ref()]),
        };
        let tensors = tensors.into_iter().flatten().map(RuntimeState::Tensor);
        cache.map(RuntimeState::Cache).into_iter().chain(tensors)
    }
}

impl<R: Runtime> Pass<'_, R> {
    /// Returns the mask for a window, and the cache of the layer `source`, or of the current one.
    pub(crate) fn mask_and_cache(
        &mut self,
        window: Option<i32>,
        source: Option<usize>,
    ) -> Result<(&R::Mask, &mut R::Cache)> {
        let layer = source.unwrap_or(self.layer);
        let mask = self.masks.iter().find(|(of, _)| *of == window).context("BUG: no mask for this window")?;
        match self.states.get_mut(layer) {
            Some(State::Attention(cache)) => Ok((&mask.1, cache)),
            _ => bail!("BUG: layer {layer} keeps no keys"),
        }
    }

    /// Returns what the current layer keeps of a convolution and of a linear attention.
    pub(crate) fn recurrent(&mut self) -> Result<[&mut Option<R::Tensor>; 2]> {
        match self.states.get_mut(self.layer) {
            Some(State::Recurrent { inputs, state }) => Ok([inputs, state]),
            _ => bail!("BUG: layer {} keeps no state", self.layer),
        }
    }
}

/// A part of a layer with weights of its own.
pub(crate) trait Module<R: Runtime> {
    /// Maps `[tokens, hidden_size]` to the same shape.
    fn forward(&self, pass: &mut Pass<'_, R>, x: &R::Tensor) -> Result<R::Tensor>;
}

/// The arguments of a module.
#[derive(Clone, Debug)]
pub(crate) enum ModuleArgs {
    Attention(AttentionArgs),
    Latent(LatentArgs),
    DeltaNet(DeltaNetArgs),
    Mamba(MambaArgs),
    ShortConv(ShortConvArgs),
    Mlp(MlpArgs),
    Experts(ExpertsArgs),
    /// The gate for the input of its own that a layer has.
    PerLayer(PerLayerArgs),
    /// A module with norms of its own before and after it.
    Normed {
        before: Option<&'static str>,
        inner: Box<Self>,
        after: &'static str,
        norm: NormArgs,
        dims: i32,
    },
}

impl ModuleArgs {
    /// Fails if a number is impossible.
    pub(crate) fn check(&self) -> Result<()> {
        match self {
            Self::Attention(args) => args.check(),
            Self::Latent(args) => args.check(),
            Self::DeltaNet(args) => args.check(),
            Self::Mamba(args) => args.check(),
            Self::ShortConv(args) => args.check(),
            Self::Mlp(args) => args.check(),
            Self::Experts(args) => args.check(),
            Self::PerLayer(args) => args.check(),
            Self::Normed { inner, .. } => inner.check(),
        }
    }

    /// Loads the module at `path` of the layer at `layer`.
    pub(crate) fn load<R: Runtime>(
        &self,
        weights: &mut Tensors<'_, R>,
        layer: &str,
        path: &str,
    ) -> Result<Box<dyn Module<R>>> {
        let at = if path.is_empty() { layer.to_owned() } else { format!("{layer}.{path}") };
        Ok(match self {
            Self::Attention(args) => Box::new(Attention::load(weights, &at, args)?),
            Self::Latent(args) => Box::new(LatentAttention::load(weights, &at, args)?),
            Self::DeltaNet(args) => Box::new(DeltaNet::load(weights, &at, args)?),
            Self::Mamba(args) => Box::new(Mamba::load(weights, &at, args)?),
            Self::ShortConv(args) => Box::new(ShortConv::load(weights, &at, args)?),
            Self::Mlp(args) => Box::new(Mlp::load(weights, &at, args)?),
            Self::Experts(args) => Box::new(Experts::load(weights, &at, args)?),
            Self::PerLayer(args) => Box::new(PerLayerGate::load(weights, &at, args)?),
            Self::Normed { before, inner, after, norm, dims } => {
                let mut load = |name: &str| Norm::load(weights, &format!("{layer}.{name}"), *dims, *norm);
                let norms = (before.map(&mut load).transpose()?, load(after)?);
                Box::new(Normed { before: norms.0, after: norms.1, inner: inner.load(weights, layer, path)? })
            }
        })
    }

    /// Returns the window of attention: `Some(None)` if it sees all tokens before it.
    pub(crate) fn window(&self) -> Option<Option<i32>> {
        match self {
            Self::Attention(args) => Some(args.window),
            Self::Latent(_) => Some(None),
            Self::Normed { inner, .. } => inner.window(),
            _ => None,
        }
    }

    /// Returns what this module keeps before the first token.
    pub(crate) fn state<R: Runtime>(&self, runtime: &R) -> State<R> {
        match self {
            Self::Attention(args) if args.source.is_none() => State::Attention(runtime.cache(args.window)),
            Self::Latent(_) => State::Attention(runtime.cache(None)),
            Self::DeltaNet(_) | Self::Mamba(_) | Self::ShortConv(_) => {
                State::Recurrent { inputs: None, state: None }
            }
            Self::Attention(_) | Self::Mlp(_) | Self::Experts(_) | Self::PerLayer(_) => State::Nothing,
            Self::Normed { inner, .. } => inner.state(runtime),
        }
    }
}

/// A module with norms of its own.
struct Normed<R: Runtime> {
    before: Option<Norm<R>>,
    inner: Box<dyn Module<R>>,
    after: Norm<R>,
}

impl<R: Runtime> Module<R> for Normed<R> {
    fn forward(&self, pass: &mut Pass<'_, R>, x: &R::Tensor) -> Result<R::Tensor> {
        let runtime = pass.runtime;
        let made = match &self.before {
            Some(norm) => self.inner.forward(pass, &norm.forward(runtime, x)?)?,
            None => self.inner.forward(pass, x)?,
        };
        self.after.forward(runtime, &made)
    }
}
