//! The record of StepFun's Step.

use super::sanitize::{EXTRA_LAYERS, Step, When};
use super::{Arch, Head};

pub(super) const ARCHS: &[Arch] = &[
    Arch {
        model_type: "step3p5",
        architectures: &["Step3p5ForCausalLM"],
        head: Head::AlwaysOwn,
        eight_bits: &["mlp.gate.gate"],
        not_cast: &["router_bias"],
        sanitize: &[
            EXTRA_LAYERS,
            Step::Towers(&[".mtp"]),
            Step::If(
                When::Has(&[".moe."]),
                &[Step::Rename(&[(".moe.gate_proj.", ".mlp.switch_mlp.gate_proj."), (".moe.up_proj.", ".mlp.switch_mlp.up_proj."), (".moe.down_proj.", ".mlp.switch_mlp.down_proj."), (".moe.gate.", ".mlp.gate.gate."), (".moe.router_bias", ".mlp.gate.router_bias"), (".share_expert.", ".mlp.share_expert.")]), Step::AddOne(&["norm.weight$", "norm1.weight$"])],
            ),
        ],
        ..Arch::OTHER
    },
];
