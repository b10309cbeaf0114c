//! State space models, and their mixtures with attention.

use super::sanitize::{CONV, Channels, Factor, Number, Step, When};
use super::{Arch, Head};

pub(super) const ARCHS: &[Arch] = &[
    Arch {
        model_type: "mamba",
        aliases: &["falcon_mamba"],
        head: Head::TiedByDefault,
        sanitize: &[CONV],
        ..Arch::OTHER
    },
    Arch { model_type: "mamba2", sanitize: &[CONV], ..Arch::OTHER },
    Arch { model_type: "olmo_hybrid", sanitize: &[CONV], ..Arch::OTHER },
    Arch {
        model_type: "plamo2",
        head: Head::TiedByDefault,
        sanitize: &[CONV],
        ..Arch::OTHER
    },
    Arch {
        model_type: "recurrent_gemma",
        head: Head::TiedIfAbsent,
        sanitize: &[Step::ChannelsLast(&["conv_1d.weight"], Channels::LastNotOne)],
        ..Arch::OTHER
    },
    Arch {
        model_type: "gear",
        head: Head::TiedByDefault,
        sanitize: &[
            Step::Drop(&["embed_scale$"]),
            Step::ChannelsLast(&["key_conv.weight$", "value_conv.weight$"], Channels::MiddleOne),
        ],
        ..Arch::OTHER
    },
    Arch {
        model_type: "falcon_h1",
        head: Head::TiedByDefault,
        sanitize: &[Step::If(
            When::HasChannelsFirst("mamba.conv1d.weight"),
            &[Step::Multiply(FALCON_H1), CONV],
        )],
        ..Arch::OTHER
    },
];

const ATTENTION_IN: Number = Number("attention_in_multiplier", None, 1.0);
const KEY: Number = Number("key_multiplier", None, 0.390625);
const D_SSM: Number = Number("mamba_d_ssm", None, 1536.0);
const GROUPS: &[Number] = &[Number("mamba_n_groups", None, 1.0), Number("mamba_d_state", None, 128.0)];
const HEADS: Number = Number("mamba_n_heads", None, 24.0);

/// The matrices of a falcon_h1 with the multipliers that mlx-lm takes from `ModelArgs` of `models/falcon_h1.py`.
const FALCON_H1: &[(&str, Factor)] = &[
    ("embed_tokens.weight$", Factor::of(&[Number("embedding_multiplier", None, 5.656854249492381)])),
    ("lm_head.weight$", Factor::of(&[Number("lm_head_multiplier", None, 0.0390625)])),
    ("q_proj.weight$", Factor::of(&[ATTENTION_IN])),
    ("k_proj.weight$", Factor::of(&[ATTENTION_IN])),
    ("key_proj.weight$", Factor::of(&[ATTENTION_IN, KEY])),
    ("o_proj.weight$", Factor::of(&[Number("attention_out_multiplier", None, 0.9375)])),
    ("out_proj.weight$", Factor::of(&[Number("ssm_out_multiplier", None, 0.23570226039551587)])),
    ("gate_proj.weight$", Factor::of(&[Number("mlp_multipliers", Some(0), 0.8838834764831844)])),
    ("down_proj.weight$", Factor::of(&[Number("mlp_multipliers", Some(1), 0.5859375)])),
    (
        "in_proj.weight$",
        Factor {
            whole: &[Number("ssm_in_multiplier", None, 1.25)],
            parts: &[
                (&[D_SSM], Number("ssm_multipliers", Some(0), 0.3535533905932738)),
                (&[D_SSM], Number("ssm_multipliers", Some(1), 0.25)),
                (GROUPS, Number("ssm_multipliers", Some(2), 0.3535533905932738)),
                (GROUPS, Number("ssm_multipliers", Some(3), 0.5)),
                (&[HEADS], Number("ssm_multipliers", Some(4), 0.3535533905932738)),
            ],
        },
    ),
];
