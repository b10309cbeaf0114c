//! The record of Llama, and of what mlx-lm loads as Llama.

use super::{Arch, Head};

pub(super) const ARCHS: &[Arch] = &[
    Arch {
        model_type: "llama",
        aliases: &["iquestcoder", "mistral", "xverse"],
        architectures: &["LlamaForCausalLM", "MistralForCausalLM"],
        head: Head::TiedByDefault,
        ..Arch::OTHER
    },
    Arch {
        model_type: "llama4",
        head: Head::AlwaysOwn,
        ..Arch::OTHER
    },
];
