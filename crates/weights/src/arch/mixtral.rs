//! The record of Mistral's Mixtral.

use super::sanitize::STACK_NUMBERED;
use super::Arch;

pub(super) const ARCHS: &[Arch] = &[
    Arch {
        model_type: "mixtral",
        architectures: &["MixtralForCausalLM"],
        sanitize: &[STACK_NUMBERED],
        ..Arch::OTHER
    },
];
