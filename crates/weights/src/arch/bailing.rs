//! The records of inclusionAI's Bailing and Ling.

use super::sanitize::{Channels, EXTRA_LAYERS, STACK, Step, When};
use super::{Arch, Layers};

/// mlx-lm divides each column of such a head by its length whenever it loads the model, packed or not.
const NO_NORMED_HEAD: Step = Step::If(
    When::Says("norm_head"),
    &[Step::Refuse(
        &["^lm_head.weight$"],
        "config.json says `norm_head`, and mlx-lm computes such a head anew each time it loads the model; this version \
         cannot make one",
    )],
);

pub(super) const ARCHS: &[Arch] = &[
    Arch {
        model_type: "bailing_moe",
        architectures: &["BailingMoeForCausalLM", "BailingMoeV2ForCausalLM"],
        eight_bits: &["mlp.gate.gate_proj"],
        not_cast: &["expert_bias"],
        sanitize: &[NO_NORMED_HEAD, 
            STACK,
            Step::Rename(&[(".mlp.gate.weight$", ".mlp.gate.gate_proj.weight"), (".mlp.gate.bias$", ".mlp.gate.gate_proj.bias")]),
        ],
        ..Arch::OTHER
    },
    Arch {
        model_type: "bailing_moe_linear",
        architectures: &["BailingMoeLinearForCausalLM"],
        eight_bits: &["mlp.gate.gate_proj"],
        not_cast: &["expert_bias"],
        sanitize: &[NO_NORMED_HEAD, 
            STACK,
            Step::Rename(&[(".mlp.gate.weight$", ".mlp.gate.gate_proj.weight"), (".mlp.gate.bias$", ".mlp.gate.gate_proj.bias")]),
        ],
        ..Arch::OTHER
    },
    Arch {
        model_type: "bailing_hybrid",
        architectures: &["BailingMoeV2_5ForCausalLM"],
        not_quantized: &["attention.embed_q", "attention.unembed_out"],
        eight_bits: &["mlp.gate.gate_proj"],
        not_cast: &["expert_bias"],
        sanitize: &[
            EXTRA_LAYERS,
            STACK,
            Step::Rename(&[(".mlp.gate.weight$", ".mlp.gate.gate_proj.weight"), (".mlp.gate.bias$", ".mlp.gate.gate_proj.bias")]),
            Step::SplitLatent,
        ],
        ..Arch::OTHER
    },
    Arch {
        model_type: "bailing_moe_v3",
        not_quantized: &[
            "word_embeddings",
            "lm_head",
            "mlp.gate",
            "attention.q_a_proj",
            "attention.q_b_proj",
            "attention.kv_a_proj_with_mqa",
            "attention.embed_q",
            "attention.unembed_out",
            "attention.b_proj",
        ],
        partly_quantized: &["attention.q_proj", "attention.g_proj"],
        layers: Layers::LinearAttention,
        sanitize: &[
            EXTRA_LAYERS,
            STACK,
            Step::SplitLatent,
            Step::ChannelsLast(&["_conv1d.weight"], Channels::LastNotOne),
        ],
        ..Arch::OTHER
    },
];
