//! The records of IBM's Granite: dense, with experts, and hybrid.

use super::{Arch, Head};

pub(super) const ARCHS: &[Arch] = &[
    Arch {
        model_type: "granite",
        architectures: &["GraniteForCausalLM"],
        head: Head::TiedByDefault,
        eight_bits: &["self_attn.o_proj", "mlp.down_proj", "lm_head"],
        ..Arch::OTHER
    },
    Arch {
        model_type: "granitemoe",
        architectures: &["GraniteMoeForCausalLM"],
        head: Head::TiedByDefault,
        eight_bits: &["block_sparse_moe.router.layer", "self_attn.o_proj", "mlp.down_proj", "lm_head"],
        ..Arch::OTHER
    },
    Arch {
        model_type: "granitemoehybrid",
        architectures: &["GraniteMoeHybridForCausalLM"],
        head: Head::TiedByDefault,
        eight_bits: &["router.layer"],
        ..Arch::OTHER
    },
];
