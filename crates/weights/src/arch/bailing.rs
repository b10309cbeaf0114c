//! The records of inclusionAI's Bailing and Ling.

use super::Arch;

pub(super) const ARCHS: &[Arch] = &[
    Arch {
        model_type: "bailing_moe",
        architectures: &["BailingMoeForCausalLM", "BailingMoeV2ForCausalLM"],
        eight_bits: &["mlp.gate.gate_proj"],
        ..Arch::OTHER
    },
    Arch {
        model_type: "bailing_moe_linear",
        architectures: &["BailingMoeLinearForCausalLM"],
        eight_bits: &["mlp.gate.gate_proj"],
        ..Arch::OTHER
    },
    Arch {
        model_type: "bailing_hybrid",
        architectures: &["BailingMoeV2_5ForCausalLM"],
        not_quantized: &["attention.embed_q", "attention.unembed_out"],
        eight_bits: &["mlp.gate.gate_proj"],
        ..Arch::OTHER
    },
];
