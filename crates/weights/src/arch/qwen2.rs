//! The records of Qwen2 and Qwen2.5: dense, and with experts.

use super::{Arch, Experts, Head};

pub(super) const ARCHS: &[Arch] = &[
    Arch {
        model_type: "qwen2",
        architectures: &["Qwen2ForCausalLM"],
        head: Head::TiedByDefault,
        ..Arch::OTHER
    },
    Arch {
        model_type: "qwen2_moe",
        architectures: &["Qwen2MoeForCausalLM"],
        head: Head::AlwaysOwn,
        experts: Experts::OneByOne,
        ..Arch::OTHER
    },
];
