//! Hunyuan.

use super::sanitize::{Rows, STACK, Step};
use super::Arch;

pub(super) const ARCHS: &[Arch] = &[Arch {
    model_type: "hunyuan",
    sanitize: &[
        Step::SplitHeads("qkv_proj"),
        // Unlike elsewhere, `up_proj` is first.
        Step::Split { from: "gate_and_up_proj", to: &["up_proj", "gate_proj"], rows: Rows::Together },
        STACK,
    ],
    ..Arch::OTHER
}];
