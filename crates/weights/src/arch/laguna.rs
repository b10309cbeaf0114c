//! The record of Poolside's Laguna.

use super::Arch;

pub(super) const ARCHS: &[Arch] = &[
    Arch {
        model_type: "laguna",
        architectures: &["LagunaForCausalLM"],
        eight_bits: &["mlp.gate.proj"],
        not_cast: &["e_score_correction_bias"],
        ..Arch::OTHER
    },
];
