//! The record of Liquid's LFM with experts.

use super::sanitize::{Channels, STACK, Step, TEXT_NAMES, TOWER_NAMES, VISION};
use super::{Arch, Head};

/// The short convolutions: their channels are last.
const SHORT_CONV: Step = Step::ChannelsLast(&["conv.weight"], Channels::LastLarger);

pub(super) const ARCHS: &[Arch] = &[
    Arch { model_type: "lfm2", head: Head::AlwaysTied, sanitize: &[SHORT_CONV], ..Arch::OTHER },
    Arch {
        model_type: "lfm2-vl", head: Head::AlwaysTied,
        sanitize: &[VISION, TOWER_NAMES, TEXT_NAMES, SHORT_CONV],
        ..Arch::OTHER
    },
    Arch {
        model_type: "lfm2_moe", head: Head::AlwaysTied,
        architectures: &["Lfm2MoeForCausalLM"],
        eight_bits: &["feed_forward.gate"],
        not_cast: &["expert_bias"],
        sanitize: &[
            SHORT_CONV,
            Step::Rename(&[("w1.weight$", "gate_proj.weight"), ("w2.weight$", "down_proj.weight"), ("w3.weight$", "up_proj.weight")]),
            STACK,
        ],
        ..Arch::OTHER
    },
];
