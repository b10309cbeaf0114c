//! The record of EXAONE with experts. Routers are bare parameters.

use super::Arch;

pub(super) const ARCHS: &[Arch] = &[
    Arch {
        model_type: "exaone_moe",
        architectures: &["ExaoneMoEForCausalLM"],
        not_quantized: &["mlp.gate"],
        not_cast: &["e_score_correction_bias"],
        ..Arch::OTHER
    },
];
