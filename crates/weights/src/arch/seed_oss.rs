//! The record of ByteDance's Seed-OSS.

use super::{Arch, Head};

pub(super) const ARCHS: &[Arch] = &[
    Arch {
        model_type: "seed_oss",
        architectures: &["SeedOssForCausalLM"],
        head: Head::TiedByDefault,
        ..Arch::OTHER
    },
];
