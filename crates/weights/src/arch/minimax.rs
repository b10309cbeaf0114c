//! The records of MiniMax.

use super::Arch;

pub(super) const ARCHS: &[Arch] = &[
    Arch {
        model_type: "minimax",
        aliases: &["minimax_m2"],
        architectures: &["MiniMaxM2ForCausalLM"],
        eight_bits: &["block_sparse_moe.gate"],
        not_cast: &["e_score_correction_bias"],
        ..Arch::OTHER
    },
    Arch {
        model_type: "minimax_m3_vl",
        eight_bits: &["block_sparse_moe.gate"],
        not_cast: &["e_score_correction_bias"],
        ..Arch::OTHER
    },
];
