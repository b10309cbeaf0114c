//! How mlx-lm turns a checkpoint in another layout into its model's tensors: `sanitize` of `models/*.py`, as data.
//! Knows nothing of tensors: `checkpoint` follows the steps.

/// One step. Names are those that the steps before it left.
///
/// A pattern is a part of a name. With `^` in front it is the beginning of the name, with `$` at its end the end.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Step {
    /// Tensors of vision, of audio or of multi-token prediction, which a text model does not have.
    Towers(&'static [&'static str]),
    /// Names of these in mlx-vlm's models, where a model keeps them.
    RenameTowers(&'static [(&'static str, &'static str)]),
    /// Layers beyond the number that the configuration gives under this key: multi-token prediction.
    LayersBeyond(&'static str),
    /// Tensors that the model does not have.
    Drop(&'static [&'static str]),
    /// Keys and values of the last layers, which take those of layers before them. The configuration gives the
    /// number of layers and, under this key, how many of them share.
    DropShared(&'static str, &'static [&'static str]),
    /// Other names: the first pattern that is found is replaced.
    Rename(&'static [(&'static str, &'static str)]),
    /// All names are below this prefix; those that are not get it.
    Below(&'static str),
    /// Experts that are stored one by one, `…FROM N.NAME.PART`, become stacks, `…TO NAME.PART`.
    Stack {
        /// What stands before the number of an expert.
        from: &'static str,
        /// What stands there in the name of the stack.
        to: &'static str,
        /// The modules of an expert, and their names in the stack.
        names: &'static [(&'static str, &'static str)],
    },
    /// A stack becomes matrices, one for each of the experts that the configuration gives under `count` in the
    /// section `ffn_config`.
    Unstack {
        /// What stands before the name of the matrix.
        from: &'static str,
        /// What stands before the number of an expert.
        to: &'static str,
        /// Matrices that are transposed.
        transposed: &'static [&'static str],
        /// The key of the number of experts.
        count: &'static str,
    },
    /// One tensor becomes several, which have equal parts of its rows.
    Split {
        /// The part of the name that is replaced.
        from: &'static str,
        /// What it is replaced with.
        to: &'static [&'static str],
        /// Which rows the parts have.
        rows: Rows,
    },
    /// `kv_b_proj` of multi-head latent attention becomes `embed_q`, transposed for each head, and `unembed_out`.
    SplitLatent,
    /// The fused projection of queries, keys and values becomes three, by groups of heads.
    SplitHeads(&'static str),
    /// Several tensors become one, with the rows of the first, then those of the second.
    Join {
        /// The ends of the names that are joined.
        from: &'static [&'static str],
        /// The end of the name of the whole.
        to: &'static str,
    },
    /// Matrices are transposed; in a stack, each of them.
    Transpose(&'static [&'static str]),
    /// The weights of convolutions get their channels last.
    ChannelsLast(&'static [&'static str], Channels),
    /// Dimensions of 1 are left out.
    Squeeze(&'static [&'static str]),
    /// All dimensions become one.
    Flatten(&'static [&'static str]),
    /// One dimension becomes two; the configuration gives the size of the second under this key.
    Fold(&'static [&'static str], &'static str),
    /// One is added to vectors: norms that are stored around 0.
    AddOne(&'static [&'static str]),
    /// Numbers of the configuration are multiplied into matrices. The first pattern that is found counts.
    Multiply(&'static [(&'static str, Factor)]),
    /// Each row is divided by its length.
    NormalizeRows(&'static [&'static str]),
    /// The tensor is a copy of another one if the checkpoint does not have it.
    CopyIfAbsent {
        /// The name of the tensor that is there.
        from: &'static str,
        /// The name of the copy.
        to: &'static str,
    },
    /// More steps, on a condition.
    If(When, &'static [Self]),
    /// A layout that this version does not convert, and what to do.
    Refuse(&'static [&'static str], &'static str),
}

/// What a matrix is multiplied with.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Factor {
    /// Numbers of the configuration, all of which count.
    pub whole: &'static [Number],
    /// Parts of the rows, in order, each with the sizes whose product is its number of rows, and a number that
    /// counts for them alone. Empty if the rows are all alike.
    pub parts: &'static [(&'static [Number], Number)],
}

/// A number of the configuration: its key, the index if the value is a list, and what it is if nothing is said.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Number(pub &'static str, pub Option<usize>, pub f64);

impl Factor {
    /// Numbers that count for all rows.
    pub(super) const fn of(whole: &'static [Number]) -> Self {
        Self { whole, parts: &[] }
    }
}

/// Which rows the parts of a tensor have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rows {
    /// Rows that follow each other.
    Together,
    /// Each second row, or each third.
    Interleaved,
}

/// Which convolutions have their channels elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Channels {
    /// Those whose last dimension is not 1.
    LastNotOne,
    /// Those whose last dimension is larger than the one before.
    LastLarger,
    /// Those whose second dimension is 1.
    MiddleOne,
    /// All of them.
    All,
}

/// A condition on the checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// A name has one of the patterns.
    Has(&'static [&'static str]),
    /// No name has any of the patterns.
    Lacks(&'static [&'static str]),
    /// A convolution with the pattern does not have its channels last.
    HasChannelsFirst(&'static str),
    /// The configuration has no number but 0 under this key.
    Zero(&'static str),
    /// The configuration says `true` under this key.
    Says(&'static str),
}

/// Returns where in a name a pattern is found.
pub fn find(pattern: &str, name: &str) -> Option<std::ops::Range<usize>> {
    let (start, rest) = pattern.strip_prefix('^').map_or((false, pattern), |rest| (true, rest));
    let (end, text) = rest.strip_suffix('$').map_or((false, rest), |rest| (true, rest));
    let at = match (start, end) {
        (true, _) => name.starts_with(text).then_some(0),
        (false, true) => name.ends_with(text).then(|| name.len() - text.len()),
        (false, false) => name.find(text),
    }?;
    (!(start && end) || name == text).then(|| at..at + text.len())
}

/// Returns the first pattern that is found in a name, and where.
pub fn find_any<'a>(patterns: &[&'a str], name: &str) -> Option<(&'a str, std::ops::Range<usize>)> {
    patterns.iter().find_map(|pattern| Some((*pattern, find(pattern, name)?)))
}

/// Returns a name in which the first pattern that is found is replaced; `None` if none is.
pub fn rename(pairs: &[(&str, &str)], name: &str) -> Option<String> {
    let (range, to) = pairs.iter().find_map(|(from, to)| Some((find(from, name)?, *to)))?;
    let mut renamed = name.to_owned();
    renamed.replace_range(range, to);
    Some(renamed)
}

/// The names of an expert's three matrices in most models.
pub(super) const GATED: &[(&str, &str)] =
    &[("gate_proj", "gate_proj"), ("up_proj", "up_proj"), ("down_proj", "down_proj")];

/// Mixtral's names of them.
pub(super) const NUMBERED: &[(&str, &str)] = &[("w1", "gate_proj"), ("w3", "up_proj"), ("w2", "down_proj")];

/// Experts one by one become `switch_mlp`.
pub(super) const STACK: Step = Step::Stack { from: ".experts.", to: ".switch_mlp.", names: GATED };

/// The same with Mixtral's names.
pub(super) const STACK_NUMBERED: Step =
    Step::Stack { from: ".experts.", to: ".switch_mlp.", names: NUMBERED };

/// Experts one by one become stacks that are called `experts` too.
pub(super) const STACK_IN_PLACE: Step = Step::Stack { from: ".experts.", to: ".experts.", names: GATED };

/// Layers of multi-token prediction that follow those of the model.
pub(super) const EXTRA_LAYERS: Step = Step::LayersBeyond("num_hidden_layers");

/// The convolutions of Mamba and of linear attention.
pub(super) const CONV: Step = Step::ChannelsLast(&["conv1d.weight"], Channels::LastNotOne);

/// The vision tower of Qwen's wrappers.
pub(super) const VISUAL: Step = Step::Towers(&["^visual", "^vision_tower", "^model.visual"]);

/// The names of a wrapper's language model in Hugging Face's layout.
pub(super) const TEXT_NAMES: Step = Step::Rename(&[("^model.language_model.", "language_model.model.")]);

/// Names of vision towers in mlx-vlm's models.
pub(super) const TOWER_NAMES: Step = Step::RenameTowers(&[
    ("^model.visual.", "vision_tower."),
    ("^visual.", "vision_tower."),
    ("^model.vision_", "vision_"),
    ("^model.multi_modal_projector.", "multi_modal_projector."),
    ("^model.audio_tower.", "audio_tower."),
    ("^model.embed_", "embed_"),
]);

/// A wrapper that has all its tensors below `language_model`.
pub(super) const BELOW: Step = Step::Below("language_model.");

/// The vision tower of most wrappers.
pub(super) const VISION: Step = Step::Towers(&["vision_tower", "multi_modal_projector"]);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_may_be_tied_to_an_end() {
        assert_eq!(find("mtp.", "a.mtp.b"), Some(2..6));
        assert_eq!(find("^mtp.", "a.mtp.b"), None);
        assert_eq!(find("^a.", "a.mtp.a."), Some(0..2));
        assert_eq!(find("b$", "b.b"), Some(2..3));
        assert_eq!(find("^lm_head.weight$", "lm_head.weight"), Some(0..14));
        assert_eq!(find("^lm_head.weight$", "lm_head.weights"), None);
        assert_eq!(find_any(&["x", "b"], "a.b"), Some(("b", 2..3)));
    }
}
