//! The records of Qwen2 and Qwen2.5: dense, and with experts.

use super::sanitize::{BELOW, STACK, TEXT_NAMES, TOWER_NAMES, VISUAL};
use super::{Arch, Head};

pub(super) const ARCHS: &[Arch] = &[
    Arch {
        model_type: "qwen2_vl",
        aliases: &["qwen2_5_vl"],
        head: Head::TiedByDefault,
        sanitize: &[VISUAL, TOWER_NAMES, TEXT_NAMES, BELOW],
        ..Arch::OTHER
    },
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
        sanitize: &[STACK],
        ..Arch::OTHER
    },
];
