//! The record of EXAONE with experts. Routers are bare parameters.

use super::sanitize::{STACK, Step};
use super::Arch;

pub(super) const ARCHS: &[Arch] = &[
    Arch {
        model_type: "exaone_moe",
        architectures: &["ExaoneMoEForCausalLM"],
        not_quantized: &["mlp.gate"],
        not_cast: &["e_score_correction_bias"],
        sanitize: &[
            Step::Towers(&["^mtp."]),
            Step::Rename(&[(".mlp.e_score_correction_bias$", ".mlp.gate.e_score_correction_bias")]),
            STACK,
        ],
        ..Arch::OTHER
    },
];
