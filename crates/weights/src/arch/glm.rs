//! The records of GLM with experts. Routers are bare parameters.

use super::Arch;

pub(super) const ARCHS: &[Arch] = &[
    Arch {
        model_type: "glm4_moe",
        architectures: &["Glm4MoeForCausalLM"],
        not_quantized: &["mlp.gate"],
        ..Arch::OTHER
    },
    Arch {
        model_type: "glm4_moe_lite",
        architectures: &["Glm4MoeLiteForCausalLM"],
        not_quantized: &["mlp.gate"],
        ..Arch::OTHER
    },
];
