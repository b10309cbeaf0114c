//! The record of Liquid's LFM with experts.

use super::Arch;

pub(super) const ARCHS: &[Arch] = &[
    Arch {
        model_type: "lfm2_moe",
        architectures: &["Lfm2MoeForCausalLM"],
        eight_bits: &["feed_forward.gate"],
        not_cast: &["expert_bias"],
        ..Arch::OTHER
    },
];
