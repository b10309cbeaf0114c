//! The records of Meituan's LongCat.

use super::{Arch, Head};

pub(super) const ARCHS: &[Arch] = &[
    Arch {
        model_type: "longcat_flash",
        architectures: &["LongcatFlashForCausalLM"],
        head: Head::AlwaysOwn,
        eight_bits: &["classifier"],
        not_cast: &["e_score_correction_bias"],
        ..Arch::OTHER
    },
    Arch {
        model_type: "longcat_flash_ngram",
        head: Head::AlwaysOwn,
        eight_bits: &["classifier"],
        not_cast: &["e_score_correction_bias"],
        ..Arch::OTHER
    },
];
