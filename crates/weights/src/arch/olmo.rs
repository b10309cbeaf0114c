//! The records of Ai2's OLMo: dense, and with experts.

use super::sanitize::STACK;
use super::{Arch, Head};

pub(super) const ARCHS: &[Arch] = &[
    Arch {
        model_type: "olmo2",
        architectures: &["Olmo2ForCausalLM"],
        head: Head::TiedByDefault,
        ..Arch::OTHER
    },
    Arch {
        model_type: "olmoe",
        architectures: &["OlmoeForCausalLM"],
        head: Head::TiedByDefault,
        sanitize: &[STACK],
        ..Arch::OTHER
    },
];
