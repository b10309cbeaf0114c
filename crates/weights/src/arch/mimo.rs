//! The record of Xiaomi's MiMo with experts. Routers are bare parameters.

use super::sanitize::{STACK, Step};
use super::{Arch, Head};

pub(super) const ARCHS: &[Arch] = &[
    Arch {
        model_type: "mimo",
        sanitize: &[Step::Towers(&["^model.mtp_layers."])],
        ..Arch::OTHER
    },
    Arch {
        model_type: "mimo_v2_flash",
        architectures: &["MiMoV2FlashForCausalLM"],
        head: Head::AlwaysOwn,
        not_quantized: &["mlp.gate"],
        not_cast: &["e_score_correction_bias"],
        sanitize: &[Step::Towers(&["^model.mtp"]), STACK],
        ..Arch::OTHER
    },
];
