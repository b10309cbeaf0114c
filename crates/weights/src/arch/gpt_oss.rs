//! The record of OpenAI's gpt-oss.

use super::sanitize::{Rows, Step};
use super::{Arch, Head};

pub(super) const ARCHS: &[Arch] = &[
    Arch {
        model_type: "gpt_oss",
        architectures: &["GptOssForCausalLM"],
        head: Head::AlwaysOwn,
        eight_bits: &["router"],
        sanitize: &[
            Step::Transpose(&[".experts.gate_up_proj$", ".experts.down_proj$"]),
            // What OpenAI packed is not transposed.
            Step::Rename(&[
                (".experts.gate_up_proj_blocks$", ".experts.gate_up_proj"),
                (".experts.down_proj_blocks$", ".experts.down_proj"),
            ]),
            Step::Split {
                from: ".experts.gate_up_proj$",
                to: &[".experts.gate_proj.weight", ".experts.up_proj.weight"],
                rows: Rows::Interleaved,
            },
            Step::Split {
                from: ".experts.gate_up_proj_bias$",
                to: &[".experts.gate_proj.bias", ".experts.up_proj.bias"],
                rows: Rows::Interleaved,
            },
            Step::Rename(&[
                (".experts.down_proj$", ".experts.down_proj.weight"),
                (".experts.down_proj_bias$", ".experts.down_proj.bias"),
            ]),
        ],
        ..Arch::OTHER
    },
];
