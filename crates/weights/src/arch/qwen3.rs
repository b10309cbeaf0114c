//! The records of Qwen3, Qwen3-Next and Qwen3.5.

use super::sanitize::{BELOW, CONV, Rows, STACK, Step, TEXT_NAMES, TOWER_NAMES, VISUAL, When};
use super::Arch;

const SPLIT_EXPERTS: Step = Step::Split {
    from: ".mlp.experts.gate_up_proj$",
    to: &[".mlp.switch_mlp.gate_proj.weight", ".mlp.switch_mlp.up_proj.weight"],
    rows: Rows::Together,
};

const DOWN_EXPERTS: Step = Step::Rename(&[(".mlp.experts.down_proj$", ".mlp.switch_mlp.down_proj.weight")]);

/// The norms that a checkpoint stores around 0.
const NORMS: Step = Step::AddOne(&[
    ".input_layernorm.weight$",
    ".post_attention_layernorm.weight$",
    "model.norm.weight$",
    ".q_norm.weight$",
    ".k_norm.weight$",
]);

const TEXT_OF_3_5: Step = Step::If(
    // Only a checkpoint that mlx-lm did not write has these convolutions so.
    When::HasChannelsFirst("conv1d.weight"),
    &[CONV, NORMS],
);

const QWEN3_5: &[Step] = &[Step::Towers(&["mtp."]), VISUAL, TOWER_NAMES, TEXT_NAMES, BELOW, TEXT_OF_3_5];

const QWEN3_5_MOE: &[Step] = &[Step::Towers(&["mtp."]), VISUAL, TOWER_NAMES, TEXT_NAMES, BELOW, SPLIT_EXPERTS, DOWN_EXPERTS, TEXT_OF_3_5];

pub(super) const ARCHS: &[Arch] = &[
    Arch {
        model_type: "qwen3_vl",
        sanitize: &[VISUAL, TOWER_NAMES, TEXT_NAMES, BELOW],
        ..Arch::OTHER
    },
    Arch {
        model_type: "prism_hadamard_qwen35",
        sanitize: &[Step::Refuse(
            &[".signs$"],
            "the layers are packed with their inputs rotated, which this version does not undo; take the model from \
             before it was packed",
        )],
        ..Arch::OTHER
    },
    Arch {
        model_type: "qwen3",
        architectures: &["Qwen3ForCausalLM"],
        ..Arch::OTHER
    },
    Arch {
        model_type: "qwen3_moe",
        architectures: &["Qwen3MoeForCausalLM"],
        eight_bits: &["mlp.gate"],
        sanitize: &[STACK],
        ..Arch::OTHER
    },
    Arch {
        model_type: "qwen3_vl_moe",
        architectures: &["Qwen3VLMoeForConditionalGeneration"],
        eight_bits: &["mlp.gate"],
        sanitize: &[
            VISUAL,
            TOWER_NAMES,
            TEXT_NAMES,
            BELOW,
            Step::Transpose(&[".mlp.experts.gate_up_proj$", ".mlp.experts.down_proj$"]),
            SPLIT_EXPERTS,
            DOWN_EXPERTS,
        ],
        ..Arch::OTHER
    },
    Arch {
        model_type: "qwen3_next",
        architectures: &["Qwen3NextForCausalLM"],
        eight_bits: &["mlp.gate", "shared_expert_gate"],
        sanitize: &[
            Step::Towers(&["mtp."]),
            Step::If(
                When::Has(&[".experts.0.up_proj.weight$"]),
                &[STACK, CONV, NORMS],
            ),
        ],
        ..Arch::OTHER
    },
    Arch {
        model_type: "qwen3_5",
        eight_bits: &["mlp.gate", "shared_expert_gate"],
        not_cast: &["A_log"],
        sanitize: QWEN3_5,
        ..Arch::OTHER
    },
    Arch {
        model_type: "qwen3_5_moe",
        eight_bits: &["mlp.gate", "shared_expert_gate"],
        not_cast: &["A_log"],
        sanitize: QWEN3_5_MOE,
        ..Arch::OTHER
    },
];
