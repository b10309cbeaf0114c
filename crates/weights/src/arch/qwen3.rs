//! The records of Qwen3, Qwen3-Next and Qwen3.5.

use super::{Arch, Experts};

pub(super) const ARCHS: &[Arch] = &[
    Arch {
        model_type: "qwen3",
        architectures: &["Qwen3ForCausalLM"],
        ..Arch::OTHER
    },
    Arch {
        model_type: "qwen3_moe",
        architectures: &["Qwen3MoeForCausalLM"],
        experts: Experts::OneByOne,
        eight_bits: &["mlp.gate"],
        ..Arch::OTHER
    },
    Arch {
        model_type: "qwen3_vl_moe",
        architectures: &["Qwen3VLMoeForConditionalGeneration"],
        eight_bits: &["mlp.gate"],
        ..Arch::OTHER
    },
    Arch {
        model_type: "qwen3_next",
        architectures: &["Qwen3NextForCausalLM"],
        eight_bits: &["mlp.gate", "shared_expert_gate"],
        ..Arch::OTHER
    },
    Arch {
        model_type: "qwen3_5",
        eight_bits: &["mlp.gate", "shared_expert_gate"],
        not_cast: &["A_log"],
        ..Arch::OTHER
    },
    Arch {
        model_type: "qwen3_5_moe",
        eight_bits: &["mlp.gate", "shared_expert_gate"],
        not_cast: &["A_log"],
        ..Arch::OTHER
    },
];
