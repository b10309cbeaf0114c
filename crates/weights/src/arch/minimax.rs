//! The records of MiniMax.

use super::sanitize::{Rows, STACK_NUMBERED, Step};
use super::Arch;

pub(super) const ARCHS: &[Arch] = &[
    Arch {
        model_type: "minimax",
        aliases: &["minimax_m2"],
        architectures: &["MiniMaxM2ForCausalLM"],
        eight_bits: &["block_sparse_moe.gate"],
        not_cast: &["e_score_correction_bias"],
        sanitize: &[STACK_NUMBERED],
        ..Arch::OTHER
    },
    Arch {
        model_type: "minimax_m3_vl",
        eight_bits: &["block_sparse_moe.gate"],
        not_cast: &["e_score_correction_bias"],
        sanitize: &[
            Step::Towers(&["^vision_tower.", "^multi_modal_projector.", "^patch_merge_mlp."]),
            Step::Rename(&[(".block_sparse_moe.gate_proj.", ".mlp.gate_proj."), (".block_sparse_moe.up_proj.", ".mlp.up_proj."), (".block_sparse_moe.down_proj.", ".mlp.down_proj.")]),
            Step::Split {
                from: ".block_sparse_moe.switch_mlp.gate_up_proj.weight$",
                to: &[".block_sparse_moe.switch_mlp.gate_proj.weight", ".block_sparse_moe.switch_mlp.up_proj.weight"],
                rows: Rows::Together,
            },
            Step::Split {
                from: ".block_sparse_moe.shared_experts.gate_up_proj.weight$",
                to: &[".block_sparse_moe.shared_experts.gate_proj.weight", ".block_sparse_moe.shared_experts.up_proj.weight"],
                rows: Rows::Together,
            },
            STACK_NUMBERED,
        ],
        ..Arch::OTHER
    },
];
