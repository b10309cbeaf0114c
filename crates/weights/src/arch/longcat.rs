//! The records of Meituan's LongCat.

use super::Arch;

pub(super) const ARCHS: &[Arch] = &[
    Arch {
        model_type: "longcat_flash",
        architectures: &["LongcatFlashForCausalLM"],
        eight_bits: &["classifier"],
        ..Arch::OTHER
    },
    Arch {
        model_type: "longcat_flash_ngram",
        eight_bits: &["classifier"],
        ..Arch::OTHER
    },
];
