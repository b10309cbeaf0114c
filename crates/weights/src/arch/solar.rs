//! The record of Upstage's Solar with experts. Routers are bare parameters.

use super::sanitize::{EXTRA_LAYERS, STACK};
use super::{Arch, Head};

pub(super) const ARCHS: &[Arch] = &[
    Arch {
        model_type: "solar_open",
        head: Head::AlwaysOwn,
        not_quantized: &["mlp.gate"],
        not_cast: &["e_score_correction_bias"],
        sanitize: &[EXTRA_LAYERS, STACK],
        ..Arch::OTHER
    },
];
