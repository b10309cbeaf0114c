//! The record of iFlytek's Spark.

use super::Arch;

pub(super) const ARCHS: &[Arch] = &[
    Arch {
        model_type: "spark2_5",
        not_quantized: &["self_attn.g_proj"],
        ..Arch::OTHER
    },
];
