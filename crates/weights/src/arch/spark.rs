//! The record of iFlytek's Spark.

use super::sanitize::{Step, When};
use super::{Arch, Head};

pub(super) const ARCHS: &[Arch] = &[
    Arch {
        model_type: "spark2_5",
        head: Head::TiedByDefault,
        not_quantized: &["self_attn.g_proj"],
        sanitize: &[
            Step::If(
                When::Lacks(&["^model.embedding.weight$"]),
                &[Step::Rename(&[("^model.embed_tokens.", "model.embedding.")])],
            ),
        ],
        ..Arch::OTHER
    },
];
