//! The record of Arcee's AFMoE.

use super::sanitize::STACK_IN_PLACE;
use super::Arch;

pub(super) const ARCHS: &[Arch] = &[
    Arch {
        model_type: "afmoe",
        architectures: &["AfmoeForCausalLM"],
        eight_bits: &["router.gate"],
        not_cast: &["expert_bias"],
        sanitize: &[STACK_IN_PLACE],
        ..Arch::OTHER
    },
];
