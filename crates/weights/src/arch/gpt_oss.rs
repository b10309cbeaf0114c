//! The record of OpenAI's gpt-oss.

use super::{Arch, Head};

pub(super) const ARCHS: &[Arch] = &[
    Arch {
        model_type: "gpt_oss",
        architectures: &["GptOssForCausalLM"],
        head: Head::AlwaysOwn,
        eight_bits: &["router"],
        ..Arch::OTHER
    },
];
