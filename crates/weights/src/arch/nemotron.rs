//! The record of NVIDIA's Nemotron-H. Routers are bare parameters.

use super::{Arch, Head};

pub(super) const ARCHS: &[Arch] = &[
    Arch {
        model_type: "nemotron_h",
        architectures: &["NemotronHForCausalLM"],
        head: Head::AlwaysOwn,
        not_quantized: &["mixer.gate"],
        not_cast: &["e_score_correction_bias", "A_log"],
        ..Arch::OTHER
    },
];
