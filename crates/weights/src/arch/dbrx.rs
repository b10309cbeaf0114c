//! The record of Databricks' DBRX.

use super::{Arch, Experts, Head};

pub(super) const ARCHS: &[Arch] = &[
    Arch {
        model_type: "dbrx",
        architectures: &["DbrxForCausalLM"],
        head: Head::AlwaysOwn,
        experts: Experts::Apart,
        ..Arch::OTHER
    },
];
