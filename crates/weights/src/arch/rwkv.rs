//! The record of RWKV-7.

use super::Arch;

pub(super) const ARCHS: &[Arch] = &[
    Arch {
        model_type: "rwkv7",
        not_quantized: &["attn.g_norm"],
        eight_bits_unsaid: &["lora.2", "embeddings"],
        ..Arch::OTHER
    },
];
