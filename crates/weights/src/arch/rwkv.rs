//! The record of RWKV-7.

use super::sanitize::Step;
use super::Arch;

pub(super) const ARCHS: &[Arch] = &[
    Arch {
        model_type: "rwkv7",
        not_quantized: &["attn.g_norm"],
        eight_bits_unsaid: &["lora.2", "embeddings"],
        sanitize: &[Step::Fold(&["k_k", "k_a", "g_norm"], "head_dim")],
        ..Arch::OTHER
    },
];
