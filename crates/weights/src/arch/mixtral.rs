//! The record of Mistral's Mixtral.

use super::{Arch, Experts};

pub(super) const ARCHS: &[Arch] = &[
    Arch {
        model_type: "mixtral",
        architectures: &["MixtralForCausalLM"],
        experts: Experts::OneByOne,
        ..Arch::OTHER
    },
];
