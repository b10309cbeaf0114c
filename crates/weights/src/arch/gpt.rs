//! GPT-2 and models of its kind.

use super::sanitize::{Step, When};
use super::{Arch, Head};

pub(super) const ARCHS: &[Arch] = &[
    Arch {
        model_type: "gpt2", head: Head::AlwaysTied,
        sanitize: &[
            Step::Rename(&[("^transformer.", "")]),
            Step::If(
                When::Lacks(&["^model."]),
                &[
                    Step::Drop(&[".attn.bias$", ".attn.masked_bias$", "^lm_head.weight$"]),
                    // Hugging Face's `Conv1D` has its inputs first.
                    Step::Transpose(&[
                        ".attn.c_attn.weight$",
                        ".attn.c_proj.weight$",
                        ".mlp.c_fc.weight$",
                        ".mlp.c_proj.weight$",
                    ]),
                ],
            ),
            Step::Below("model."),
        ],
        ..Arch::OTHER
    },
    Arch {
        model_type: "gpt_neox",
        sanitize: &[
            Step::Drop(&[".attention.bias$", ".attention.masked_bias$"]),
            Step::Below("model."),
            Step::Rename(&[(".gpt_neox.layers.", ".h."), (".gpt_neox.", ".")]),
        ],
        ..Arch::OTHER
    },
    Arch {
        model_type: "gptj",
        head: Head::AlwaysOwn,
        sanitize: &[
            Step::Drop(&[".attn.bias$", ".attn.masked_bias$"]),
            Step::Rename(&[("transformer.", "model.")]),
        ],
        ..Arch::OTHER
    },
];
