//! The record of dots.llm1. Routers are bare parameters.

use super::sanitize::STACK_IN_PLACE;
use super::Arch;

pub(super) const ARCHS: &[Arch] = &[
    Arch {
        model_type: "dots1",
        architectures: &["Dots1ForCausalLM"],
        not_quantized: &["mlp.gate"],
        sanitize: &[STACK_IN_PLACE],
        ..Arch::OTHER
    },
];
