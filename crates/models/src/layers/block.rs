//! One layer of a decoder: parts, each of which adds something to what the layers before made.
//! Does not know what the modules of a part compute.

use anyhow::{Result, ensure};

use super::module::{Module, ModuleArgs, Pass, State};
use super::norm::{Norm, NormArgs};
use crate::runtime::Runtime;
use crate::tensors::Tensors;

/// The arguments of a layer.
#[derive(Clone, Debug)]
pub(crate) struct BlockArgs {
    pub(crate) hidden_size: i32,
    pub(crate) norm: NormArgs,
    /// In the order in which they are computed.
    pub(crate) parts: Vec<PartArgs>,
    /// A factor on what each part adds.
    pub(crate) residual_scale: Option<f32>,
    /// Whether sums are kept within the range of float16: Gemma's activations exceed it.
    pub(crate) is_clipped: bool,
    /// The name of a weight that the layer's output is multiplied with.
    pub(crate) scalar: Option<&'static str>,
}

/// One part of a layer: `x + after(sum of module(before(x)))`.
#[derive(Clone, Debug)]
pub(crate) struct PartArgs {
    /// The name of the norm before the modules.
    pub(crate) before: Option<&'static str>,
    /// The name of the norm after them.
    pub(crate) after: Option<&'static str>,
    /// The modules and their paths within the layer. Their outputs are added.
    pub(crate) modules: Vec<(&'static str, ModuleArgs)>,
}

impl PartArgs {
    /// Returns a part with a norm before one module.
    pub(crate) fn new(before: &'static str, path: &'static str, module: ModuleArgs) -> Self {
        Self { before: Some(before), after: None, modules: vec![(path, module)] }
    }

    /// Adds a module whose output is added to that of the others.
    #[must_use]
    pub(crate) fn and(mut self, path: &'static str, module: ModuleArgs) -> Self {
        self.modules.push((path, module));
        self
    }

    /// Sets the norm after the modules.
    #[must_use]
    pub(crate) fn then(self, after: &'static str) -> Self {
        Self { after: Some(after), ..self }
    }
}

impl BlockArgs {
    /// Returns the layer of most families: attention or what stands for it, and a feed-forward part, each with a norm
    /// before it.
    pub(crate) fn usual(
        (hidden_size, norm): (i32, NormArgs),
        mixer: (&'static str, ModuleArgs),
        feed_forward: (&'static str, ModuleArgs),
    ) -> Self {
        let parts = vec![
            PartArgs::new("input_layernorm", mixer.0, mixer.1),
            PartArgs::new("post_attention_layernorm", feed_forward.0, feed_forward.1),
        ];
        Self::of(hidden_size, norm, parts)
    }

    /// Returns a layer of these parts.
    pub(crate) fn of(hidden_size: i32, norm: NormArgs, parts: Vec<PartArgs>) -> Self {
        Self { hidden_size, norm, parts, residual_scale: None, is_clipped: false, scalar: None }
    }

    /// Fails if a number is impossible.
    pub(crate) fn check(&self) -> Result<()> {
        let scale = self.residual_scale.unwrap_or(1.0);
        ensure!(scale.is_finite(), "the factor of a layer is {scale}");
        self.modules().try_for_each(ModuleArgs::check)
    }

    pub(crate) fn modules(&self) -> impl Iterator<Item = &ModuleArgs> {
        self.parts.iter().flat_map(|part| &part.modules).map(|(_, module)| module)
    }

    /// Returns what the layer keeps before the first token. At most one of its modules keeps something.
    pub(crate) fn state<R: Runtime>(&self, runtime: &R) -> State<R> {
        let states = self.modules().map(|module| module.state(runtime));
        states.into_iter().find(|state| !matches!(state, State::Nothing)).unwrap_or(State::Nothing)
    }
}

/// One layer of a decoder.
pub(crate) struct Block<R: Runtime> {
    parts: Vec<Part<R>>,
    residual_scale: Option<f32>,
    is_clipped: bool,
    scalar: Option<R::Tensor>,
}

struct Part<R: Runtime> {
    before: Option<Norm<R>>,
    modules: Vec<Box<dyn Module<R>>>,
    after: Option<Norm<R>>,
}

impl<R: Runtime> Block<R> {
    /// Takes the weights under `path`.
    pub(crate) fn load(weights: &mut Tensors<'_, R>, path: &str, args: &BlockArgs) -> Result<Self> {
        let parts =
            args.parts.iter().map(|part| Part::load(weights, path, args, part)).collect::<Result<_>>()?;
        let BlockArgs { residual_scale, is_clipped, .. } = *args;
        let scalar = args.scalar.map(|name| weights.take(&format!("{path}.{name}"), &[1])).transpose()?;
        Ok(Self { parts, residual_scale, is_clipped, scalar })
    }

    /// Maps `[tokens, hidden_size]` to the same shape.
    pub(crate) fn forward(&self, pass: &mut Pass<'_, R>, x: &R::Tensor) -> Result<R::Tensor> {
        let runtime = pass.runtime;
        let mut sum = x.clone();
        for part in &self.parts {
            let made = part.forward(pass, &sum)?;
            sum = match self.residual_scale {
                Some(scale) => runtime.add(&sum, &runtime.scaled(&made, scale)?)?,
                None if self.is_clipped => runtime.add_clipped(&sum, &made)?,
                None => runtime.add(&sum, &made)?,
            };
        }
        self.scalar.as_ref().map_or(Ok(sum.clone()), |scalar| runtime.multiply(&sum, scalar))
    }
}

impl<R: Runtime> Part<R> {
    fn load(weights: &mut Tensors<'_, R>, path: &str, block: &BlockArgs, args: &PartArgs) -> Result<Self> {
        let mut norm =
            |name: &str| Norm::load(weights, &format!("{path}.{name}"), block.hidden_size, block.norm);
        let (before, after) =
            (args.before.map(&mut norm).transpose()?, args.after.map(&mut norm).transpose()?);
        let modules = args.modules.iter().map(|(name, module)| module.load(weights, path, name));
        Ok(Self { before, modules: modules.collect::<Result<_>>()?, after })
    }

    fn forward(&self, pass: &mut Pass<'_, R>, x: &R::Tensor) -> Result<R::Tensor> {
        let runtime = pass.runtime;
        let normed = self.before.as_ref().map(|norm| norm.forward(runtime, x)).transpose()?;
        let input = normed.as_ref().unwrap_or(x);
        let mut sum = None;
        for module in &self.modules {
            let made = module.forward(pass, input)?;
            sum = Some(match sum {
                Some(sum) => runtime.add(&sum, &made)?,
                None => made,
            });
        }
        let made = sum.unwrap_or_else(|| input.clone());
        self.after.as_ref().map_or(Ok(made.clone()), |norm| norm.forward(runtime, &made))
    }
}
