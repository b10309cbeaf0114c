//! The record of StepFun's Step.

use super::{Arch, Head};

pub(super) const ARCHS: &[Arch] = &[
    Arch {
        model_type: "step3p5",
        architectures: &["Step3p5ForCausalLM"],
        head: Head::AlwaysOwn,
        eight_bits: &["mlp.gate.gate"],
        not_cast: &["router_bias"],
        ..Arch::OTHER
    },
];
