//! Mistral's wrappers, and the models inside them.

use super::sanitize::{BELOW, Rows, STACK, Step, TEXT_NAMES, TOWER_NAMES, VISION};
use super::{Arch, Head};

const SPLIT_EXPERTS: Step = Step::Split {
    from: ".mlp.experts.gate_up_proj$",
    to: &[".mlp.switch_mlp.gate_proj.weight", ".mlp.switch_mlp.up_proj.weight"],
    rows: Rows::Together,
};

const DOWN_EXPERTS: Step = Step::Rename(&[(".mlp.experts.down_proj$", ".mlp.switch_mlp.down_proj.weight")]);

const UNUSED: Step = Step::Drop(&["activation_scale"]);

pub(super) const ARCHS: &[Arch] = &[
    Arch {
        model_type: "mistral3",
        aliases: &["llava"],
        // The model inside may be a mistral4, which has experts and latent attention.
        sanitize: &[
            VISION,
            TOWER_NAMES,
            TEXT_NAMES,
            BELOW,
            UNUSED,
            SPLIT_EXPERTS,
            DOWN_EXPERTS,
            STACK,
            Step::SplitLatent,
        ],
        ..Arch::OTHER
    },
    Arch {
        model_type: "mistral4",
        sanitize: &[UNUSED, SPLIT_EXPERTS, DOWN_EXPERTS, STACK, Step::SplitLatent],
        ..Arch::OTHER
    },
    Arch {
        model_type: "ministral3",
        head: Head::TiedByDefault,
        sanitize: &[UNUSED],
        ..Arch::OTHER
    },
    Arch { model_type: "pixtral", sanitize: &[VISION, TOWER_NAMES], ..Arch::OTHER },
];
