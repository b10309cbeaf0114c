//! The record of Poolside's Laguna.

use super::sanitize::{STACK, Step};
use super::Arch;

pub(super) const ARCHS: &[Arch] = &[
    Arch {
        model_type: "laguna",
        architectures: &["LagunaForCausalLM"],
        eight_bits: &["mlp.gate.proj"],
        not_cast: &["e_score_correction_bias"],
        sanitize: &[
            Step::Rename(&[("^language_model.", "")]),
            Step::Rename(&[(".mlp.gate.weight$", ".mlp.gate.proj.weight"), (".mlp.experts.e_score_correction_bias$", ".mlp.gate.e_score_correction_bias")]),
            STACK,
        ],
        ..Arch::OTHER
    },
];
