//! The record of BigCode's StarCoder2.

use super::{Arch, Head};

pub(super) const ARCHS: &[Arch] = &[
    Arch {
        model_type: "starcoder2",
        architectures: &["Starcoder2ForCausalLM"],
        head: Head::TiedByDefault,
        ..Arch::OTHER
    },
];
