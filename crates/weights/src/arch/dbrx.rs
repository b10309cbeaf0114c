//! The record of Databricks' DBRX.

use super::sanitize::Step;
use super::{Arch, Head};

pub(super) const ARCHS: &[Arch] = &[
    Arch {
        model_type: "dbrx",
        architectures: &["DbrxForCausalLM"],
        head: Head::AlwaysOwn,
        experts_apart: true,
        sanitize: &[
            Step::Unstack {
                from: ".experts.mlp.",
                to: ".experts.",
                transposed: &["w2$"],
                count: "moe_num_experts",
            },
        ],
        ..Arch::OTHER
    },
];
