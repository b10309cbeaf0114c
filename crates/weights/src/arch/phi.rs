//! The record of Microsoft's Phi with experts.

use super::{Arch, Experts};

pub(super) const ARCHS: &[Arch] = &[
    Arch {
        model_type: "phimoe",
        architectures: &["PhiMoEForCausalLM"],
        experts: Experts::OneByOne,
        ..Arch::OTHER
    },
];
