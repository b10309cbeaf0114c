//! The record of IQuest's coder that runs its layers in a loop.

use super::Arch;

pub(super) const ARCHS: &[Arch] = &[
    Arch {
        model_type: "iquestloopcoder",
        not_quantized: &["gate_projections."],
        ..Arch::OTHER
    },
];
