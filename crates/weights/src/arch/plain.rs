//! The records of models for which mlx-lm has no rules of its own: all matrices are layers.

use super::sanitize::{STACK, Step};
use super::{Arch, Head};

/// A record of nothing but the name and the head.
const fn plain(model_type: &'static str, head: Head) -> Arch {
    Arch { model_type, head, ..Arch::OTHER }
}

const fn sanitized(sanitize: &'static [Step], arch: Arch) -> Arch {
    Arch { sanitize, ..arch }
}

pub(super) const ARCHS: &[Arch] = &[
    plain("afm7", Head::AlwaysTied),
    sanitized(&[Step::Squeeze(&["alpha_p$", "alpha_n$"])], plain("apertus", Head::OwnByDefault)),
    sanitized(&[Step::NormalizeRows(&["^lm_head.weight$"])], plain("baichuan_m1", Head::OwnByDefault)),
    plain("cohere", Head::AlwaysTied),
    plain("cohere2", Head::AlwaysTied),
    plain("ernie4_5", Head::OwnByDefault),
    sanitized(&[
            Step::Towers(&["mtp_block.", "mtp_linear_proj.", "mtp_hidden_norm.", "mtp_emb_norm."]),
            Step::Drop(&["e_score_correction_bias"]),
            STACK,
        ], plain("ernie4_5_moe", Head::OwnByDefault)),
    plain("exaone4", Head::OwnByDefault),
    plain("gemma", Head::AlwaysTied),
    plain("gemma2", Head::AlwaysTied),
    plain("hunyuan_v1_dense", Head::OwnByDefault),
    plain("internlm2", Head::OwnByDefault),
    plain("internlm3", Head::OwnByDefault),
    sanitized(&[Step::Drop(&["rotary_emb"])], plain("lille-130m", Head::AlwaysTied)),
    plain("llama4_text", Head::OwnByDefault),
    sanitized(&[Step::CopyIfAbsent { from: "model.embed_tokens.weight", to: "lm_head.weight" }], plain("minicpm", Head::OwnByDefault)),
    plain("minicpm3", Head::OwnByDefault),
    plain("nanbeige", Head::OwnByDefault),
    plain("nemotron-nas", Head::OwnByDefault),
    plain("nemotron", Head::OwnByDefault),
    plain("olmo", Head::AlwaysTied),
    plain("olmo3", Head::OwnByDefault),
    plain("openelm", Head::OwnByDefault),
    plain("phi3", Head::OwnByDefault),
    plain("phi3small", Head::AlwaysTied),
    sanitized(&[Step::Drop(&["rotary", "cos$", "sin$"])], plain("talkie", Head::OwnByDefault)),
    plain("telechat3", Head::OwnByDefault),
    plain("bitnet", Head::TiedByDefault),
    plain("exaone", Head::TiedByDefault),
    plain("gpt_bigcode", Head::TiedByDefault),
    plain("plamo3", Head::TiedByDefault),
    plain("smollm3", Head::TiedByDefault),
    plain("youtu_llm", Head::TiedByDefault),
    plain("helium", Head::AlwaysOwn),
    plain("nanochat", Head::AlwaysOwn),
    plain("plamo", Head::AlwaysOwn),
    plain("qwen", Head::AlwaysOwn),
    plain("stablelm", Head::AlwaysOwn),
];
