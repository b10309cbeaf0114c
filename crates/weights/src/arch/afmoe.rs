//! The record of Arcee's AFMoE.

use super::Arch;

pub(super) const ARCHS: &[Arch] = &[
    Arch {
        model_type: "afmoe",
        architectures: &["AfmoeForCausalLM"],
        eight_bits: &["router.gate"],
        not_cast: &["expert_bias"],
        ..Arch::OTHER
    },
];
