//! The records of Moonshot's Kimi; Kimi K2 is in `deepseek.rs`.

use super::sanitize::{BELOW, Channels, EXTRA_LAYERS, STACK, STACK_NUMBERED, Step};
use super::{Arch, Head};

const KIMI_VISION: Step =
    Step::Towers(&["vision_tower", "^vision_model", "multi_modal_projector", "^mm_projector"]);

const KIMI_K3: &[Step] = &[
    KIMI_VISION,
    BELOW,
    Step::Towers(&["^language_model.model.mtp", "^language_model.mtp"]),
    EXTRA_LAYERS,
    Step::Rename(&[
        ("self_attention_res.proj_weight$", "self_attention_res_proj.weight"),
        ("self_attention_res.norm_weight$", "self_attention_res_norm.weight"),
        ("mlp_res.proj_weight$", "mlp_res_proj.weight"),
        ("mlp_res.norm_weight$", "mlp_res_norm.weight"),
        ("output_attn_res.proj_weight$", "output_attn_res_proj.weight"),
        ("output_attn_res.norm_weight$", "output_attn_res_norm.weight"),
    ]),
    STACK_NUMBERED,
    Step::Rename(&[
        (".block_sparse_moe.gate.e_score_correction_bias$", ".mlp.e_score_correction_bias"),
        (".block_sparse_moe.", ".mlp."),
    ]),
    Step::ChannelsLast(&[".q_conv1d.weight$", ".k_conv1d.weight$", ".v_conv1d.weight$"], Channels::All),
    Step::Rename(&[
        (".q_conv1d.", ".q_conv.conv."),
        (".k_conv1d.", ".k_conv.conv."),
        (".v_conv1d.", ".v_conv.conv."),
    ]),
    Step::Flatten(&[".self_attn.dt_bias$", ".self_attn.A_log$"]),
    Step::Join {
        from: &[".self_attn.q_proj.weight$", ".self_attn.k_proj.weight$", ".self_attn.v_proj.weight$"],
        to: ".self_attn.qkv_proj.weight",
    },
    Step::Join {
        from: &[
            ".self_attn.q_conv.conv.weight$",
            ".self_attn.k_conv.conv.weight$",
            ".self_attn.v_conv.conv.weight$",
        ],
        to: ".self_attn.qkv_conv.conv.weight",
    },
    Step::SplitLatent,
];

pub(super) const ARCHS: &[Arch] = &[
    Arch {
        model_type: "kimi_linear",
        architectures: &["KimiLinearForCausalLM"],
        eight_bits: &["mlp.gate"],
        not_cast: &["e_score_correction_bias", "A_log", "dt_bias"],
        sanitize: &[
            Step::Towers(&["^model.mtp"]),
            STACK_NUMBERED,
            Step::Rename(&[(".block_sparse_moe.gate.e_score_correction_bias$", ".mlp.e_score_correction_bias"), (".block_sparse_moe.", ".mlp.")]),
            Step::ChannelsLast(&[".q_conv1d.weight$", ".k_conv1d.weight$", ".v_conv1d.weight$"], Channels::All),
            Step::Rename(&[(".q_conv1d.", ".q_conv.conv."), (".k_conv1d.", ".k_conv.conv."), (".v_conv1d.", ".v_conv.conv.")]),
            Step::Flatten(&[".self_attn.dt_bias$"]),
            Step::SplitLatent,
        ],
        ..Arch::OTHER
    },
    Arch {
        model_type: "kimi_k3",
        not_quantized: &["res_proj"],
        eight_bits: &["mlp.gate"],
        not_cast: &["e_score_correction_bias", "A_log", "dt_bias"],
        sanitize: KIMI_K3,
        ..Arch::OTHER
    },
    Arch {
        model_type: "kimi_k25",
        head: Head::AlwaysOwn,
        not_quantized: &["mlp.gate"],
        not_cast: &["e_score_correction_bias"],
        sanitize: &[KIMI_VISION, EXTRA_LAYERS, STACK, Step::SplitLatent],
        ..Arch::OTHER
    },
    Arch {
        model_type: "kimi_vl",
        architectures: &["KimiVLForConditionalGeneration"],
        head: Head::AlwaysOwn,
        not_quantized: &["mlp.gate"],
        not_cast: &["e_score_correction_bias"],
        sanitize: &[KIMI_VISION, Step::Drop(&["rotary_emb"]), STACK, Step::SplitLatent],
        ..Arch::OTHER
    },
];
