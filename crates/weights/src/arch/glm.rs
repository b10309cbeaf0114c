//! The records of GLM with experts. Routers are bare parameters.

use super::sanitize::{EXTRA_LAYERS, STACK, Step};
use super::{Arch, Head};

pub(super) const ARCHS: &[Arch] = &[
    Arch {
        model_type: "glm4_moe",
        architectures: &["Glm4MoeForCausalLM"],
        head: Head::AlwaysOwn,
        not_quantized: &["mlp.gate"],
        not_cast: &["e_score_correction_bias"],
        sanitize: &[EXTRA_LAYERS, STACK],
        ..Arch::OTHER
    },
    Arch {
        model_type: "glm4_moe_lite",
        architectures: &["Glm4MoeLiteForCausalLM"],
        head: Head::AlwaysOwn,
        not_quantized: &["mlp.gate"],
        not_cast: &["e_score_correction_bias"],
        sanitize: &[EXTRA_LAYERS, STACK, Step::SplitLatent],
        ..Arch::OTHER
    },
    Arch {
        model_type: "glm",
        head: Head::TiedByDefault,
        ..Arch::OTHER
    },
    Arch {
        model_type: "glm4",
        architectures: &["Glm4ForCausalLM"],
        head: Head::AlwaysOwn,
        ..Arch::OTHER
    },
    Arch {
        model_type: "glm_moe_dsa",
        head: Head::AlwaysOwn,
        not_quantized: &["mlp.gate"],
        not_cast: &["e_score_correction_bias"],
        sanitize: &[EXTRA_LAYERS, STACK, Step::SplitLatent],
        ..Arch::OTHER
    },
];
