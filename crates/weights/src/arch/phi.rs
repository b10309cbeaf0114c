//! The record of Microsoft's Phi with experts.

use super::sanitize::{STACK_NUMBERED, Step};
use super::{Arch, Head};

pub(super) const ARCHS: &[Arch] = &[
    Arch {
        model_type: "phixtral",
        aliases: &["phi-msft"],
        sanitize: &[Step::Stack {
            from: ".moe.mlp.",
            to: ".moe.switch_mlp.",
            names: &[("fc1", "fc1"), ("fc2", "fc2")],
        }],
        ..Arch::OTHER
    },
    Arch {
        model_type: "phimoe",
        architectures: &["PhiMoEForCausalLM"],
        head: Head::AlwaysOwn,
        sanitize: &[STACK_NUMBERED],
        ..Arch::OTHER
    },
    Arch {
        model_type: "phi",
        head: Head::AlwaysOwn,
        ..Arch::OTHER
    },
];
