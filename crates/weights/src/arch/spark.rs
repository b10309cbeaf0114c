//! The record of iFlytek's Spark.

use super::{Arch, Head};

pub(super) const ARCHS: &[Arch] = &[
    Arch {
        model_type: "spark2_5",
        head: Head::TiedByDefault,
        not_quantized: &["self_attn.g_proj"],
        ..Arch::OTHER
    },
];
