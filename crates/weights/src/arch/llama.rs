//! The record of Llama, and of what mlx-lm loads as Llama.

use super::{Arch, Head};

pub(super) const ARCHS: &[Arch] = &[
    Arch {
        model_type: "llama",
        aliases: &["mistral"],
        architectures: &["LlamaForCausalLM", "MistralForCausalLM"],
        head: Head::TiedByDefault,
        ..Arch::OTHER
    },
];
