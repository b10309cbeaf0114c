//! The record of Kuaishou's Klear.

use super::sanitize::STACK_IN_PLACE;
use super::{Arch, Head};

pub(super) const ARCHS: &[Arch] = &[
    Arch {
        model_type: "Klear",
        architectures: &["KlearMoeForCausalLM"],
        head: Head::AlwaysOwn,
        eight_bits: &["mlp.gate"],
        not_cast: &["expert_bias"],
        sanitize: &[STACK_IN_PLACE],
        ..Arch::OTHER
    },
];
