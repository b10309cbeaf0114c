//! The records of IBM's Granite: dense, with experts, and hybrid.

use super::sanitize::{CONV, Rows, Step, When};
use super::{Arch, Head};

const SPLIT_EXPERTS: Step = Step::Split {
    from: ".block_sparse_moe.input_linear.weight$",
    to: &[".block_sparse_moe.switch_mlp.gate_proj.weight", ".block_sparse_moe.switch_mlp.up_proj.weight"],
    rows: Rows::Together,
};

const DOWN_EXPERTS: Step =
    Step::Rename(&[(".block_sparse_moe.output_linear.", ".block_sparse_moe.switch_mlp.down_proj.")]);

const SPLIT_SHARED: Step = Step::Split {
    from: ".shared_mlp.input_linear.weight$",
    to: &[".mlp.gate_proj.weight", ".mlp.up_proj.weight"],
    rows: Rows::Together,
};

const DOWN_SHARED: Step = Step::Rename(&[(".shared_mlp.output_linear.", ".mlp.down_proj.")]);

pub(super) const ARCHS: &[Arch] = &[
    Arch {
        model_type: "granite",
        architectures: &["GraniteForCausalLM"],
        head: Head::TiedByDefault,
        eight_bits: &["self_attn.o_proj", "mlp.down_proj", "lm_head"],
        ..Arch::OTHER
    },
    Arch {
        model_type: "granitemoe",
        architectures: &["GraniteMoeForCausalLM"],
        head: Head::TiedByDefault,
        eight_bits: &["block_sparse_moe.router.layer", "self_attn.o_proj", "mlp.down_proj", "lm_head"],
        sanitize: &[SPLIT_EXPERTS, DOWN_EXPERTS],
        ..Arch::OTHER
    },
    Arch {
        model_type: "granitemoehybrid",
        architectures: &["GraniteMoeHybridForCausalLM"],
        head: Head::TiedByDefault,
        eight_bits: &["router.layer"],
        sanitize: &[
            CONV,
            SPLIT_EXPERTS,
            DOWN_EXPERTS,
            Step::If(When::Zero("num_local_experts"), &[SPLIT_SHARED, DOWN_SHARED]),
        ],
        ..Arch::OTHER
    },
];
