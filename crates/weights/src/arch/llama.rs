//! The record of Llama, and of what mlx-lm loads as Llama.

use super::sanitize::{Rows, Step};
use super::{Arch, Head};

pub(super) const ARCHS: &[Arch] = &[
    Arch {
        model_type: "llama",
        aliases: &["iquestcoder", "mistral", "xverse"],
        architectures: &["LlamaForCausalLM", "MistralForCausalLM"],
        head: Head::TiedByDefault,
        ..Arch::OTHER
    },
    Arch {
        model_type: "llama4",
        head: Head::AlwaysOwn,
        sanitize: &[
            Step::Towers(&["vision_model", "multi_modal_projector"]),
            Step::Transpose(&[".experts.gate_up_proj$", ".experts.down_proj$"]),
            Step::Split {
                from: ".experts.gate_up_proj$",
                to: &[".experts.gate_proj.weight", ".experts.up_proj.weight"],
                rows: Rows::Together,
            },
            Step::Rename(&[(".experts.down_proj$", ".experts.down_proj.weight")]),
        ],
        ..Arch::OTHER
    },
];
