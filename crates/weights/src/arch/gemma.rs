//! The records of Gemma 3, text only, and of Gemma 4.

use super::{Arch, Head};

pub(super) const ARCHS: &[Arch] = &[
    Arch {
        model_type: "gemma3_text",
        architectures: &["Gemma3ForCausalLM"],
        head: Head::TiedIfAbsent,
        ..Arch::OTHER
    },
    Arch {
        model_type: "gemma4",
        aliases: &["gemma4_unified"],
        architectures: &["Gemma4ForConditionalGeneration"],
        head: Head::TiedByDefault,
        eight_bits: &["router.proj"],
        ..Arch::OTHER
    },
    Arch {
        model_type: "gemma4_text",
        architectures: &["Gemma4ForCausalLM"],
        head: Head::TiedByDefault,
        eight_bits: &["router.proj"],
        ..Arch::OTHER
    },
];
