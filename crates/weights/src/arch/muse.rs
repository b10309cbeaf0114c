//! The records of Meta's Muse.

use super::sanitize::{Step, When};
use super::{Arch, Head, Layers};

pub(super) const ARCHS: &[Arch] = &[
    Arch {
        model_type: "muse_glimmer",
        sanitize: &[
            Step::Towers(&["^vision_tower", "^vision_adapter", "^vision_projection"]),
            Step::Rename(&[
                ("^language_model.model.", "model."),
                ("^language_model.lm_head.", "lm_head."),
                ("^model.language_model.", "model."),
            ]),
        ],
        ..Arch::OTHER
    },
    Arch {
        model_type: "muse_spark",
        head: Head::AlwaysOwn,
        partly_quantized: &["mlp.experts."],
        layers: Layers::Inner,
        only_these: true,
        not_cast: &["_alpha", "_beta"],
        sanitize: &[
            Step::Towers(&["^model.audio_tower."]),
            Step::If(
                When::Lacks(&["_alpha$"]),
                &[Step::Refuse(
                    &["post_attention_residual_gate.gate$"],
                    "mlx-lm computes the weights of this gate; have mlx_lm.convert write the model first",
                )],
            ),
        ],
        ..Arch::OTHER
    },
];
