//! The records of Gemma 3, text only, and of Gemma 4.

use super::sanitize::{BELOW, Rows, Step, TEXT_NAMES, TOWER_NAMES, VISION};
use super::{Arch, Head};

const TOWERS_4: Step = Step::Towers(&[
    "^vision_tower",
    "^multi_modal_projector",
    "^audio_tower",
    "^embed_audio",
    "^embed_vision",
    "^vision_embedder",
    "^model.vision_tower",
    "^model.multi_modal_projector",
    "^model.audio_tower",
    "^model.embed_audio",
    "^model.embed_vision",
    "^model.vision_embedder",
]);

const RENAME_4: Step =
    Step::Rename(&[("^model.language_model.", "language_model.model."), ("^model.", "")]);

const DROP_4: Step =
    Step::Drop(&["self_attn.rotary_emb", "input_max", "input_min", "output_max", "output_min"]);

const SHARED_4: Step = Step::DropShared(
    "num_kv_shared_layers",
    &[".self_attn.k_proj", ".self_attn.v_proj", ".self_attn.k_norm"],
);

const SPLIT_4: Step = Step::Split {
    from: ".experts.gate_up_proj$",
    to: &[".experts.switch_glu.gate_proj.weight", ".experts.switch_glu.up_proj.weight"],
    rows: Rows::Together,
};

const DOWN_4: Step = Step::Rename(&[(".experts.down_proj$", ".experts.switch_glu.down_proj.weight")]);

pub(super) const ARCHS: &[Arch] = &[
    Arch {
        model_type: "gemma3",
        head: Head::TiedIfAbsent,
        sanitize: &[VISION, TOWER_NAMES, TEXT_NAMES, BELOW],
        ..Arch::OTHER
    },
    Arch {
        model_type: "gemma3n", head: Head::AlwaysTied,
        sanitize: &[Step::Towers(&[
            "^model.vision_tower",
            "^model.audio_tower",
            "^model.embed_audio",
            "^model.embed_vision",
        ])],
        ..Arch::OTHER
    },
    Arch {
        model_type: "gemma3_text",
        architectures: &["Gemma3ForCausalLM"],
        head: Head::TiedIfAbsent,
        ..Arch::OTHER
    },
    Arch {
        model_type: "gemma4",
        aliases: &["gemma4_unified"],
        architectures: &["Gemma4ForConditionalGeneration"],
        head: Head::TiedByDefault,
        eight_bits: &["router.proj"],
        sanitize: &[TOWERS_4, TOWER_NAMES, RENAME_4, DROP_4, SHARED_4, SPLIT_4, DOWN_4],
        ..Arch::OTHER
    },
    Arch {
        model_type: "gemma4_text",
        architectures: &["Gemma4ForCausalLM"],
        head: Head::TiedByDefault,
        eight_bits: &["router.proj"],
        sanitize: &[DROP_4, SHARED_4, SPLIT_4, DOWN_4],
        ..Arch::OTHER
    },
];
