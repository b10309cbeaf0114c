//! Chooses the experts of each token, and gives each its score.
//! Does not know what experts compute.

use anyhow::{Result, ensure};

use super::linear::Linear;
use crate::runtime::Runtime;
use crate::tensors::Tensors;

/// The arguments of a router.
#[derive(Clone, Debug)]
pub(crate) struct RouterArgs {
    pub(crate) experts: i32,
    /// How many experts a token goes through.
    pub(crate) chosen: i32,
    /// The path of the projection within the module, and whether it has a bias.
    pub(crate) path: &'static str,
    pub(crate) bias: bool,
    pub(crate) scores: Scores,
    /// The path of numbers that are added to the scores while experts are chosen, if there are any.
    pub(crate) correction: Option<&'static str>,
    /// Into how many groups the experts fall, and from how many of them experts are chosen.
    pub(crate) groups: Option<[i32; 2]>,
    /// Whether the chosen scores are divided by their sum, plus this number.
    pub(crate) normalized: Option<f32>,
    /// A factor on the scores.
    pub(crate) scale: f32,
    /// The path of a factor for each expert.
    pub(crate) expert_scale: Option<&'static str>,
    /// The path of the weight of a norm on the input, and its epsilon. The weight is divided by the root of its length.
    pub(crate) norm: Option<(&'static str, f32)>,
}

/// How projections become scores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scores {
    /// The softmax over all experts.
    Softmax,
    /// The softmax over the chosen experts.
    SoftmaxOfChosen,
    /// The sigmoid of each.
    Sigmoid,
}

impl RouterArgs {
    /// Returns the arguments of the usual router: the softmax over all experts.
    pub(crate) fn new(experts: i32, chosen: i32) -> Self {
        Self {
            experts,
            chosen,
            path: "gate",
            bias: false,
            scores: Scores::Softmax,
            correction: None,
            groups: None,
            normalized: None,
            scale: 1.0,
            expert_scale: None,
            norm: None,
        }
    }

    /// Fails if a number is impossible.
    pub(crate) fn check(&self) -> Result<()> {
        let Self { experts, chosen, .. } = *self;
        ensure!((1..=experts).contains(&chosen), "{chosen} experts are chosen of {experts}");
        ensure!(self.scale.is_finite(), "the factor on scores of experts is {}", self.scale);
        if let Some([groups, kept]) = self.groups {
            ensure!(groups > 0 && experts % groups == 0, "{experts} experts in {groups} groups");
            ensure!((1..=groups).contains(&kept), "{kept} groups are chosen of {groups}");
            let size = experts / groups;
            ensure!(groups == 1 || size > 1, "groups of {size} experts");
            ensure!(
                i64::from(chosen) <= i64::from(kept) * i64::from(size),
                "{chosen} experts are chosen of {kept} groups of {size}"
            );
        }
        Ok(())
    }
}

pub(crate) struct Router<R: Runtime> {
    args: RouterArgs,
    gate: Linear<R>,
    correction: Option<R::Tensor>,
    expert_scale: Option<R::Tensor>,
    norm: Option<(R::Tensor, f32)>,
}

impl<R: Runtime> Router<R> {
    /// Takes the weights under `path`, for inputs of `dims` numbers.
    pub(crate) fn load(
        weights: &mut Tensors<'_, R>,
        path: &str,
        args: &RouterArgs,
        dims: i32,
    ) -> Result<Self> {
        let experts = args.experts;
        let gate = Linear::load(weights, &format!("{path}.{}", args.path), dims, experts, args.bias)?;
        let mut take = |name: &'static str, length| weights.take(&format!("{path}.{name}"), &[length]);
        let correction = args.correction.map(|name| take(name, experts)).transpose()?;
        let expert_scale = args.expert_scale.map(|name| take(name, experts)).transpose()?;
        let norm = args.norm.map(|(name, eps)| anyhow::Ok((take(name, dims)?, eps))).transpose()?;
        let scaled =
            |(weight, eps)| anyhow::Ok((weights.runtime().scaled(&weight, 1.0 / (dims as f32).sqrt())?, eps));
        let norm = norm.map(scaled).transpose()?;
        Ok(Self { args: args.clone(), gate, correction, expert_scale, norm })
    }

    /// Returns for each token its experts, and their scores `[tokens, chosen]`.
    pub(crate) fn forward(&self, runtime: &R, x: &R::Tensor) -> Result<(R::Choice, R::Tensor)> {
        let args = &self.args;
        let gates = match &self.norm {
            Some((weight, eps)) => self.gate.forward(runtime, &runtime.rms_norm(x, Some(weight), *eps)?)?,
            None => self.gate.forward(runtime, x)?,
        };
        let scores = match args.scores {
            Scores::Softmax => runtime.softmax(&gates)?,
            Scores::SoftmaxOfChosen => gates,
            Scores::Sigmoid => runtime.precise_sigmoid(&gates)?,
        };
        let (choice, chosen) = self.choose(runtime, &scores)?;
        let chosen = match args.scores {
            Scores::SoftmaxOfChosen => runtime.softmax(&chosen)?,
            Scores::Softmax | Scores::Sigmoid => chosen,
        };
        let normalized = match args.normalized {
            Some(eps) => runtime.normalized(&chosen, eps)?,
            None => chosen,
        };
        let scaled = if args.scale == 1.0 { normalized } else { runtime.scaled(&normalized, args.scale)? };
        let scores = match &self.expert_scale {
            Some(factors) => runtime.multiply(&scaled, &runtime.picked(factors, &choice)?)?,
            None => scaled,
        };
        Ok((choice, scores))
    }

    /// Chooses experts by their corrected scores, and returns their own scores.
    fn choose(&self, runtime: &R, scores: &R::Tensor) -> Result<(R::Choice, R::Tensor)> {
        let corrected = match &self.correction {
            Some(correction) => runtime.add_bias(scores, correction)?,
            None => scores.clone(),
        };
        let kept = match self.args.groups {
            Some([groups, kept]) if kept < groups => runtime.best_groups(&corrected, groups, kept)?,
            _ => corrected,
        };
        let (choice, largest) = runtime.largest(&kept, self.args.chosen)?;
        let is_plain = self.correction.is_none() && self.args.groups.is_none();
        let chosen = if is_plain { largest } else { runtime.at(scores, &choice)? };
        Ok((choice, chosen))
    }
}
