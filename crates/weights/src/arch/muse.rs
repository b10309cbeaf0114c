//! The records of Meta's Muse.

use super::{Arch, Head, Layers};

pub(super) const ARCHS: &[Arch] = &[
    Arch {
        model_type: "muse_spark",
        head: Head::AlwaysOwn,
        partly_quantized: &["mlp.experts."],
        layers: Layers::Inner,
        only_these: true,
        not_cast: &["_alpha", "_beta"],
        ..Arch::OTHER
    },
];
