//! gpt-oss of OpenAI.

use super::Arch;

pub(super) const ARCHS: &[Arch] = &[
    Arch {
        model_type: "gpt_oss",
        architectures: &["GptOssForCausalLM"],
        eight_bits: &["router"],
        ..Arch::OTHER
    },
];
