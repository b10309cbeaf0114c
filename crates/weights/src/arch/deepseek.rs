//! The records of DeepSeek, and of what mlx-lm loads as DeepSeek V3. Routers are bare parameters.

use super::sanitize::{EXTRA_LAYERS, STACK, Step, When};
use super::{Arch, Head};

/// Experts become stacks, and `kv_b_proj` two layers.
const LATENT: &[Step] = &[EXTRA_LAYERS, STACK, Step::SplitLatent];

pub(super) const ARCHS: &[Arch] = &[
    Arch {
        model_type: "deepseek",
        architectures: &["DeepseekForCausalLM"],
        head: Head::AlwaysOwn,
        not_quantized: &["mlp.gate"],
        sanitize: &[STACK],
        ..Arch::OTHER
    },
    Arch {
        model_type: "deepseek_v2",
        architectures: &["DeepseekV2ForCausalLM"],
        head: Head::AlwaysOwn,
        not_quantized: &["mlp.gate"],
        sanitize: &[STACK],
        ..Arch::OTHER
    },
    Arch {
        model_type: "deepseek_v3",
        aliases: &["joyai_llm_flash", "kimi_k2"],
        architectures: &["DeepseekV3ForCausalLM"],
        head: Head::AlwaysOwn,
        not_quantized: &["mlp.gate"],
        not_cast: &["e_score_correction_bias"],
        sanitize: LATENT,
        ..Arch::OTHER
    },
    Arch {
        model_type: "deepseek_v32",
        architectures: &["DeepseekV32ForCausalLM"],
        head: Head::AlwaysOwn,
        not_quantized: &["mlp.gate"],
        not_cast: &["e_score_correction_bias"],
        sanitize: LATENT,
        ..Arch::OTHER
    },
    Arch {
        model_type: "deepseek_v41",
        aliases: &["deepseek_v41_text"],
        head: Head::AlwaysOwn,
        multi_linear: &["embed_q", "unembed_out", "o_a_proj"],
        not_quantized: &["mlp.gate"],
        not_cast: &["attn_hc.", "ffn_hc.", "sinks", "e_score_correction_bias", "compressor."],
        sanitize: &[
            Step::If(
                When::Lacks(&["^model."]),
                &[Step::Refuse(
                    &["^layers."],
                    "the weights are packed as DeepSeek packs them; have mlx_lm.convert write the model first",
                )],
            ),
        ],
        ..Arch::OTHER
    },
];
