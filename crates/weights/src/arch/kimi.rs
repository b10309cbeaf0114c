//! The records of Moonshot's Kimi; Kimi K2 is in `deepseek.rs`.

use super::{Arch, Head};

pub(super) const ARCHS: &[Arch] = &[
    Arch {
        model_type: "kimi_linear",
        architectures: &["KimiLinearForCausalLM"],
        eight_bits: &["mlp.gate"],
        not_cast: &["e_score_correction_bias", "A_log", "dt_bias"],
        ..Arch::OTHER
    },
    Arch {
        model_type: "kimi_k3",
        not_quantized: &["res_proj"],
        eight_bits: &["mlp.gate"],
        not_cast: &["e_score_correction_bias", "A_log", "dt_bias"],
        ..Arch::OTHER
    },
    Arch {
        model_type: "kimi_k25",
        head: Head::AlwaysOwn,
        not_quantized: &["mlp.gate"],
        not_cast: &["e_score_correction_bias"],
        ..Arch::OTHER
    },
    Arch {
        model_type: "kimi_vl",
        architectures: &["KimiVLForConditionalGeneration"],
        head: Head::AlwaysOwn,
        not_quantized: &["mlp.gate"],
        not_cast: &["e_score_correction_bias"],
        ..Arch::OTHER
    },
];
