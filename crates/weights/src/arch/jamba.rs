//! The record of AI21's Jamba.

use super::Arch;

pub(super) const ARCHS: &[Arch] = &[
    Arch {
        model_type: "jamba",
        architectures: &["JambaForCausalLM"],
        eight_bits: &["router"],
        ..Arch::OTHER
    },
];
