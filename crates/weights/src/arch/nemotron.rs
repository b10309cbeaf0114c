//! The record of NVIDIA's Nemotron-H. Routers are bare parameters.

use super::sanitize::{CONV, Step};
use super::{Arch, Head};

pub(super) const ARCHS: &[Arch] = &[
    Arch {
        model_type: "nemotron_h",
        architectures: &["NemotronHForCausalLM"],
        head: Head::AlwaysOwn,
        not_quantized: &["mixer.gate"],
        not_cast: &["e_score_correction_bias", "A_log"],
        sanitize: &[
            Step::Towers(&["^mtp."]),
            CONV,
            Step::Stack {
                from: ".mixer.experts.",
                to: ".mixer.switch_mlp.",
                names: &[("up_proj", "fc1"), ("down_proj", "fc2")],
            },
        ],
        ..Arch::OTHER
    },
];
