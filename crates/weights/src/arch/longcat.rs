//! The records of Meituan's LongCat.

use super::sanitize::{STACK, Step};
use super::{Arch, Head};

const MTP: Step = Step::Towers(&["^model.mtp"]);

pub(super) const ARCHS: &[Arch] = &[
    Arch {
        model_type: "longcat_flash",
        architectures: &["LongcatFlashForCausalLM"],
        head: Head::AlwaysOwn,
        eight_bits: &["classifier"],
        not_cast: &["e_score_correction_bias"],
        sanitize: &[MTP, STACK, Step::SplitLatent],
        ..Arch::OTHER
    },
    Arch {
        model_type: "longcat_flash_ngram",
        head: Head::AlwaysOwn,
        eight_bits: &["classifier"],
        not_cast: &["e_score_correction_bias"],
        sanitize: &[
            MTP,
            STACK,
            Step::SplitLatent,
            Step::Rename(&[("^model.embed_tokens.weight$", "model.ngram_embeddings.word_embeddings.weight")]),
        ],
        ..Arch::OTHER
    },
];
