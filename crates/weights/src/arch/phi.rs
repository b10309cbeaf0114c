//! The record of Microsoft's Phi with experts.

use super::{Arch, Experts, Head};

pub(super) const ARCHS: &[Arch] = &[
    Arch {
        model_type: "phimoe",
        architectures: &["PhiMoEForCausalLM"],
        head: Head::AlwaysOwn,
        experts: Experts::OneByOne,
        ..Arch::OTHER
    },
    Arch {
        model_type: "phi",
        head: Head::AlwaysOwn,
        ..Arch::OTHER
    },
];
