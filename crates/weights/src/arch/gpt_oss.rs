//! The record of OpenAI's gpt-oss.

use super::Arch;

pub(super) const ARCHS: &[Arch] = &[
    Arch {
        model_type: "gpt_oss",
        architectures: &["GptOssForCausalLM"],
        eight_bits: &["router"],
        ..Arch::OTHER
    },
];
