//! The record of AI21's Jamba.

use super::sanitize::{CONV, STACK};
use super::{Arch, Head};

pub(super) const ARCHS: &[Arch] = &[
    Arch {
        model_type: "jamba",
        architectures: &["JambaForCausalLM"],
        head: Head::TiedByDefault,
        eight_bits: &["router"],
        sanitize: &[CONV, STACK],
        ..Arch::OTHER
    },
];
