//! The records of models for which mlx-lm has no rules of its own: all matrices are layers.

use super::{Arch, Head};

/// A record of nothing but the name and the head.
const fn plain(model_type: &'static str, head: Head) -> Arch {
    Arch { model_type, head, ..Arch::OTHER }
}

const fn also(aliases: &'static [&'static str], arch: Arch) -> Arch {
    Arch { aliases, ..arch }
}

pub(super) const ARCHS: &[Arch] = &[
    plain("afm7", Head::OwnByDefault),
    plain("apertus", Head::OwnByDefault),
    plain("baichuan_m1", Head::OwnByDefault),
    plain("cohere", Head::OwnByDefault),
    plain("cohere2", Head::OwnByDefault),
    plain("ernie4_5", Head::OwnByDefault),
    plain("ernie4_5_moe", Head::OwnByDefault),
    plain("exaone4", Head::OwnByDefault),
    plain("gemma", Head::OwnByDefault),
    plain("gemma2", Head::OwnByDefault),
    plain("gemma3", Head::OwnByDefault),
    plain("gemma3n", Head::OwnByDefault),
    plain("gpt2", Head::OwnByDefault),
    plain("gpt_neox", Head::OwnByDefault),
    plain("hunyuan", Head::OwnByDefault),
    plain("hunyuan_v1_dense", Head::OwnByDefault),
    plain("internlm2", Head::OwnByDefault),
    plain("internlm3", Head::OwnByDefault),
    plain("lfm2-vl", Head::OwnByDefault),
    plain("lfm2", Head::OwnByDefault),
    plain("lille-130m", Head::OwnByDefault),
    plain("llama4_text", Head::OwnByDefault),
    plain("mamba2", Head::OwnByDefault),
    plain("mimo", Head::OwnByDefault),
    plain("minicpm", Head::OwnByDefault),
    plain("minicpm3", Head::OwnByDefault),
    plain("mistral4", Head::OwnByDefault),
    plain("muse_glimmer", Head::OwnByDefault),
    plain("nanbeige", Head::OwnByDefault),
    plain("nemotron-nas", Head::OwnByDefault),
    plain("nemotron", Head::OwnByDefault),
    plain("olmo", Head::OwnByDefault),
    plain("olmo3", Head::OwnByDefault),
    plain("olmo_hybrid", Head::OwnByDefault),
    plain("openelm", Head::OwnByDefault),
    plain("phi3", Head::OwnByDefault),
    plain("phi3small", Head::OwnByDefault),
    plain("pixtral", Head::OwnByDefault),
    plain("prism_hadamard_qwen35", Head::OwnByDefault),
    plain("qwen3_vl", Head::OwnByDefault),
    plain("talkie", Head::OwnByDefault),
    plain("telechat3", Head::OwnByDefault),
    also(&["llava"], plain("mistral3", Head::OwnByDefault)),
    also(&["phi-msft"], plain("phixtral", Head::OwnByDefault)),
    plain("bitnet", Head::TiedByDefault),
    plain("exaone", Head::TiedByDefault),
    plain("falcon_h1", Head::TiedByDefault),
    plain("gear", Head::TiedByDefault),
    plain("gpt_bigcode", Head::TiedByDefault),
    plain("ministral3", Head::TiedByDefault),
    plain("plamo2", Head::TiedByDefault),
    plain("plamo3", Head::TiedByDefault),
    plain("smollm3", Head::TiedByDefault),
    plain("youtu_llm", Head::TiedByDefault),
    also(&["falcon_mamba"], plain("mamba", Head::TiedByDefault)),
    also(&["qwen2_5_vl"], plain("qwen2_vl", Head::TiedByDefault)),
    plain("gptj", Head::AlwaysOwn),
    plain("helium", Head::AlwaysOwn),
    plain("nanochat", Head::AlwaysOwn),
    plain("plamo", Head::AlwaysOwn),
    plain("qwen", Head::AlwaysOwn),
    plain("recurrent_gemma", Head::AlwaysOwn),
    plain("stablelm", Head::AlwaysOwn),
];
