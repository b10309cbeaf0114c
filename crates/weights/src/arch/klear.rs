//! The record of Kuaishou's Klear.

use super::Arch;

pub(super) const ARCHS: &[Arch] = &[
    Arch {
        model_type: "Klear",
        architectures: &["KlearMoeForCausalLM"],
        eight_bits: &["mlp.gate"],
        ..Arch::OTHER
    },
];
