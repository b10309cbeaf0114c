//! The record of JetBrains' Mellum with experts.

use super::sanitize::STACK;
use super::Arch;

pub(super) const ARCHS: &[Arch] = &[
    Arch {
        model_type: "mellum",
        eight_bits: &["mlp.gate"],
        sanitize: &[STACK],
        ..Arch::OTHER
    },
];
