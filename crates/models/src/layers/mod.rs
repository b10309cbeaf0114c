//! The building blocks of models: each is made from its record of arguments and takes its own weights.
//! Does not know which family a model is of.

mod attention;
mod block;
mod delta_net;
mod embedding;
mod experts;
mod latent;
mod linear;
mod mamba;
mod mlp;
mod module;
mod norm;
mod per_layer;
mod router;
mod short_conv;
mod switch;

pub(crate) use attention::{AttentionArgs, HeadNorm, PositionScale, Projections, usual_scale};
pub(crate) use block::{Block, BlockArgs, PartArgs};
pub(crate) use delta_net::{DeltaNetArgs, DeltaProjections};
pub(crate) use embedding::Embedding;
pub(crate) use experts::ExpertsArgs;
pub(crate) use latent::LatentArgs;
pub(crate) use linear::Linear;
pub(crate) use mamba::MambaArgs;
pub(crate) use mlp::{MlpArgs, MlpForm};
pub(crate) use module::{ModuleArgs, Pass, State};
pub(crate) use norm::{Norm, NormArgs, NormWeight};
pub(crate) use per_layer::{PerLayerArgs, PerLayerInputs};
pub(crate) use router::{RouterArgs, Scores};
pub(crate) use short_conv::ShortConvArgs;
pub(crate) use switch::Form;

use anyhow::{Result, ensure};

/// The longest side of a matrix that is believed. No model comes near it, and the product of two small numbers with it
/// fits 32 bits.
const LONGEST: i32 = 1 << 24;

/// Fails unless a number of `config.json` can be the side of a matrix.
pub(crate) fn ensure_side(what: &str, side: i32) -> Result<()> {
    ensure!((1..=LONGEST).contains(&side), "{what} is {side}");
    Ok(())
}

/// Returns the length of `count` vectors of `dims` numbers.
pub(crate) fn side_of(what: &str, count: i32, dims: i32) -> Result<i32> {
    let side = count.checked_mul(dims).filter(|side| (1..=LONGEST).contains(side));
    side.ok_or_else(|| anyhow::anyhow!("{count} {what} of {dims}"))
}
