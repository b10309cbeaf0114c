//! A feed-forward layer of experts, with the router that chooses them.
//! Knows nothing of the layers around it.

use anyhow::Result;

use super::ensure_side;
use super::linear::Linear;
use super::module::{Module, Pass};
use super::norm::{Norm, NormArgs};
use super::router::{Router, RouterArgs};
use super::switch::{Form, Switch};
use crate::runtime::{Activation, Runtime};
use crate::tensors::Tensors;

/// The arguments of a layer of experts.
#[derive(Clone, Debug)]
pub(crate) struct ExpertsArgs {
    pub(crate) hidden_size: i32,
    /// The size of one expert inside.
    pub(crate) intermediate_size: i32,
    pub(crate) router: RouterArgs,
    /// The path of the stacks within the module.
    pub(crate) path: &'static str,
    pub(crate) form: Form,
    pub(crate) activation: Activation,
    pub(crate) bias: bool,
    /// The size of the vectors that experts work on, if it is another: `fc1_latent_proj` and `fc2_latent_proj` map to
    /// it and back, with a bias or without.
    pub(crate) latent: Option<(i32, bool)>,
    /// The path of a norm on the input of the experts, but not of the router.
    pub(crate) input_norm: Option<(&'static str, NormArgs)>,
}

impl ExpertsArgs {
    /// Returns the arguments of the layer in most families.
    pub(crate) fn new(hidden_size: i32, intermediate_size: i32, router: RouterArgs) -> Self {
        Self {
            hidden_size,
            intermediate_size,
            router,
            path: "switch_mlp",
            form: Form::Gated,
            activation: Activation::Silu,
            bias: false,
            latent: None,
            input_norm: None,
        }
    }

    /// Fails if a number is impossible.
    pub(crate) fn check(&self) -> Result<()> {
        ensure_side("hidden_size", self.hidden_size)?;
        ensure_side("moe_intermediate_size", self.intermediate_size)?;
        if let Some((size, _)) = self.latent {
            ensure_side("moe_latent_size", size)?;
        }
        self.router.check()
    }
}

pub(crate) struct Experts<R: Runtime> {
    router: Router<R>,
    switch: Switch<R>,
    latent: Option<[Linear<R>; 2]>,
    input_norm: Option<Norm<R>>,
}

impl<R: Runtime> Experts<R> {
    /// Takes the weights under `path`.
    pub(crate) fn load(weights: &mut Tensors<'_, R>, path: &str, args: &ExpertsArgs) -> Result<Self> {
        let dims = args.hidden_size;
        let router = Router::load(weights, path, &args.router, dims)?;
        let inner = args.latent.map_or(dims, |(size, _)| size);
        let shape = [args.router.experts, args.intermediate_size, inner];
        let how = (args.form, args.activation, args.bias);
        let switch = Switch::load(weights, &format!("{path}.{}", args.path), shape, how)?;
        let latent = match args.latent {
            Some((size, bias)) => Some([
                Linear::load(weights, &format!("{path}.fc1_latent_proj"), dims, size, bias)?,
                Linear::load(weights, &format!("{path}.fc2_latent_proj"), size, dims, bias)?,
            ]),
            None => None,
        };
        let norm = |(name, norm)| Norm::load(weights, &format!("{path}.{name}"), dims, norm);
        Ok(Self { router, switch, latent, input_norm: args.input_norm.map(norm).transpose()? })
    }
}

impl<R: Runtime> Module<R> for Experts<R> {
    fn forward(&self, pass: &mut Pass<'_, R>, x: &R::Tensor) -> Result<R::Tensor> {
        let runtime = pass.runtime;
        let (choice, scores) = self.router.forward(runtime, x)?;
        let input = match &self.input_norm {
            Some(norm) => norm.forward(runtime, x)?,
            None => x.clone(),
        };
        match &self.latent {
            Some([into, back]) => {
                let inner = into.forward(runtime, &input)?;
                back.forward(runtime, &self.switch.forward(runtime, &inner, (&choice, &scores))?)
            }
            None => self.switch.forward(runtime, &input, (&choice, &scores)),
        }
    }
}
