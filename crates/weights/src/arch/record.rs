//! The record of an architecture: which modules are layers, what is quantized and cast, how experts are
//! stored, and which tensors are dropped.
//! Knows no architecture by name.

use serde_json::{Map, Value};

use super::experts::is_stack;
use super::names::LayerName;
use super::sanitize::{Step, find, find_any, rename};

/// The facts about the models of one `model_type`. The file of a family lists what differs from
/// [`Arch::OTHER`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Arch {
    /// The `model_type` of `config.json`; empty in [`Arch::OTHER`].
    pub model_type: &'static str,
    /// Other types that mlx-lm loads as this one: `MODEL_REMAPPING` in `utils.py`.
    pub aliases: &'static [&'static str],
    /// The classes that `architectures` of `config.json` may name.
    pub architectures: &'static [&'static str],
    /// Where the output head comes from.
    pub head: Head,
    /// How a checkpoint in another layout becomes the tensors of mlx-lm's model.
    pub sanitize: &'static [Step],
    /// Whether the model has its experts one by one, not stacked.
    pub experts_apart: bool,
    /// Suffixes of the paths of modules that are not quantized: routers that are bare parameters in mlx-lm,
    /// and modules that a `quant_predicate` in `models/*.py` excludes. One that ends with a dot may be anywhere.
    pub not_quantized: &'static [&'static str],
    /// Parts of the paths of modules that are quantized only in some layers; `layers` says which.
    pub partly_quantized: &'static [&'static str],
    /// The layers in which `partly_quantized` modules are quantized.
    pub layers: Layers,
    /// Whether no other modules than those in `partly_quantized` are quantized.
    pub only_these: bool,
    /// The last words of the paths of modules whose weight is a stack of matrices, one for each attention head or
    /// group: `MultiLinear` in `models/mla.py`.
    pub multi_linear: &'static [&'static str],
    /// Parts of the paths of modules that get 8 bits in groups of 64, recorded without the group size:
    /// `quant_predicate` in `models/rwkv7.py`.
    pub eight_bits_unsaid: &'static [&'static str],
    /// Suffixes of the paths of modules that get 8 bits in groups of 64, whatever the other modules get:
    /// `quant_predicate` in `models/*.py`.
    pub eight_bits: &'static [&'static str],
    /// Substrings of the names of tensors that always keep their dtype: `cast_predicate` in `models/*.py`.
    pub not_cast: &'static [&'static str],
    /// The last words of the paths of modules that are an `nn.Embedding`. The LoRA factors of an embedding
    /// have another layout than those of a linear layer. The name decides which layout it is, not the shape.
    pub embeddings: &'static [&'static str],
}

/// Where the output head comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Head {
    /// The embedding if `config.json` says `tie_word_embeddings: true`, otherwise a tensor of its own.
    OwnByDefault,
    /// The embedding unless `config.json` says `tie_word_embeddings: false`. This is the default in
    /// `models/*.py`.
    TiedByDefault,
    /// The embedding if the checkpoint has no head: `sanitize` of mlx-lm's `gemma3_text.py`.
    TiedIfAbsent,
    /// Always a tensor of its own: the model in `models/*.py` does not ask.
    AlwaysOwn,
    /// Always the embedding: the model in `models/*.py` has no other head.
    AlwaysTied,
}

/// Returns the number that a configuration gives under a key: that of the language model of a wrapper, in
/// `text_config`, comes first.
pub fn number_of(config: &Map<String, Value>, key: &str) -> Option<usize> {
    let inner = config.get("text_config").and_then(|text| text.get(key));
    let value = inner.filter(|value| !value.is_null()).or_else(|| config.get(key))?;
    value.as_u64().and_then(|number| usize::try_from(number).ok())
}

/// The layers of a model in which a module is quantized.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layers {
    /// All of them.
    All,
    /// All but the first and the last.
    Inner,
    /// Those with linear attention: all but each last one of a group of `layer_group_size`, and but those after
    /// the last whole group.
    LinearAttention,
}

impl Layers {
    /// Whether the layer `number` is one of these.
    fn contains(self, number: usize, config: &Map<String, Value>) -> bool {
        let positive = |key: &str| number_of(config, key).filter(|value| *value > 0);
        let all = positive("num_hidden_layers").unwrap_or(usize::MAX);
        match self {
            Self::All => true,
            Self::Inner => number > 0 && number.checked_add(1).is_some_and(|next| next < all),
            Self::LinearAttention => {
                let group = positive("layer_group_size").unwrap_or(1);
                let is_last = number.checked_add(1).is_none_or(|next| next.is_multiple_of(group));
                !is_last && number < all / group * group
            }
        }
    }
}

/// What mlx-lm's model says about quantizing a module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QuantRule {
    /// Nothing: it is quantized as the user asks.
    Usual,
    /// It is not quantized.
    Skip,
    /// It gets 8 bits in groups of 64, in the affine mode.
    EightBits,
    /// The same, but `config.json` says the bits alone.
    EightBitsUnsaid,
}

impl Arch {
    /// The record of a model that is not listed.
    pub const OTHER: Self = Self {
        model_type: "",
        aliases: &[],
        architectures: &[],
        head: Head::OwnByDefault,
        sanitize: &[],
        experts_apart: false,
        not_quantized: &[],
        partly_quantized: &[],
        layers: Layers::All,
        only_these: false,
        multi_linear: &["embed_q", "unembed_out"],
        eight_bits_unsaid: &[],
        eight_bits: &[],
        not_cast: &[],
        embeddings: &[
            "embed_tokens",
            "embed_tokens_per_layer",
            "wte",
            "wpe",
            "word_embeddings",
            "embeddings",
            "embedding",
            "tok_embeddings",
            "token_embeddings",
            "position_embedding_table",
            "embed_in",
            "embed",
        ],
    };

    /// Returns what mlx-lm's model with this `config.json` says about quantizing the module at `path`.
    pub fn quant_rule(&self, path: &str, config: &Map<String, Value>) -> QuantRule {
        let is_at = |end: &&str| path.ends_with(*end) || end.ends_with('.') && path.contains(*end);
        let is_in = |ends: &[&str]| ends.iter().any(is_at);
        let has = |parts: &[&str]| parts.iter().any(|part| path.contains(part));
        let layer = || LayerName::of(path).is_none_or(|layer| self.layers.contains(layer.number, config));
        match () {
            () if is_in(self.not_quantized) => QuantRule::Skip,
            () if has(self.partly_quantized) => {
                if layer() {
                    QuantRule::Usual
                } else {
                    QuantRule::Skip
                }
            }
            () if self.only_these => QuantRule::Skip,
            () if has(self.eight_bits_unsaid) => QuantRule::EightBitsUnsaid,
            () if is_in(self.eight_bits) => QuantRule::EightBits,
            () => QuantRule::Usual,
        }
    }

    /// Whether nothing is known of the architecture but its names, its layout and its head, if that.
    pub fn is_plain(&self) -> bool {
        let Self { model_type, aliases, head, sanitize, .. } = *self;
        *self == Self { model_type, aliases, head, sanitize, ..Self::OTHER }
    }

    /// Whether the numbers of the model's tensor `name` are others than those of transformers' model: one is added, or
    /// they are multiplied.
    pub fn has_other_numbers(&self, name: &str) -> bool {
        other_numbers(self.sanitize, name)
    }

    /// Returns what a module of transformers' model is called in mlx-lm's. `path` is its path there.
    pub fn renamed(&self, path: &str) -> String {
        let weight = format!("{path}.weight");
        let in_tower = tower_name(self.sanitize, &weight);
        let name = in_tower.unwrap_or_else(|| renamed(self.sanitize, weight));
        name.strip_suffix(".weight").map_or(path.to_owned(), str::to_owned)
    }

    /// Whether the tensor `name` is cast when another dtype is asked for.
    pub fn is_cast(&self, name: &str) -> bool {
        !self.not_cast.iter().any(|part| name.contains(part))
    }

    /// Whether the module at `path` is an embedding.
    pub fn is_embedding(&self, path: &str) -> bool {
        self.embeddings.contains(&path.rsplit('.').next().unwrap_or(path))
    }

    /// Whether a checkpoint's own head is dropped because the model uses its embedding. `config.json`
    /// decides; if it says nothing, the default of the architecture decides.
    pub fn drops_head(&self, config: &Map<String, Value>) -> bool {
        let inner = config.get("text_config").and_then(|text| text.get("tie_word_embeddings"));
        let said = inner.or_else(|| config.get("tie_word_embeddings")).and_then(Value::as_bool);
        match self.head {
            Head::AlwaysOwn => false,
            Head::AlwaysTied => true,
            head => said.unwrap_or(head == Head::TiedByDefault),
        }
    }

    /// Whether the tensor `name` is left out of a model: the head of a tied model, or RoPE frequencies, which
    /// are computed. mlx-lm drops such tensors, and cannot load a quantized head of a tied model.
    /// `drops_head` is the answer of [`drops_head`](Self::drops_head).
    pub fn is_dropped(&self, name: &str, drops_head: bool) -> bool {
        let is_head = || name.strip_prefix("language_model.").unwrap_or(name).starts_with("lm_head.");
        drops_head && is_head() || name.ends_with(".rotary_emb.inv_freq") || name.ends_with(".rope.inv_freq")
    }

    /// Returns the path of the module that a weight belongs to if mlx-lm quantizes that module: a linear
    /// layer, an embedding or a stack of experts. These are the matrices whose name ends with `.weight`, and
    /// the three-dimensional tensors so named that are stacks by their name or are quantized already. `shape`
    /// is the shape before packing.
    pub fn layer<'a>(&self, name: &'a str, shape: &[usize], is_quantized: bool) -> Option<&'a str> {
        let module = name.strip_suffix(".weight")?;
        let is_layer = match shape.len() {
            2 => true,
            3 => is_quantized || is_stack(name) && !self.experts_apart || self.is_multi_linear(module),
            _ => false,
        };
        is_layer.then_some(module)
    }

    fn is_multi_linear(&self, path: &str) -> bool {
        self.multi_linear.contains(&path.rsplit('.').next().unwrap_or(path))
    }

    /// Returns the length of a row of the module at `path`, in weights before packing, if it follows from the
    /// name and from `config.json`. The names are those of mlx-lm's decoders.
    pub fn columns(&self, path: &str, config: &Map<String, Value>) -> Option<usize> {
        let number =
            |key: &str| usize::try_from(config.get(key)?.as_u64()?).ok().filter(|number| *number > 0);
        // Experts that all tokens share may have a size of their own.
        if path.contains("shared") {
            return None;
        }
        match path.rsplit('.').next()? {
            "q_proj" | "k_proj" | "v_proj" | "gate_proj" | "up_proj" | "lm_head" | "embed_tokens" => {
                number("hidden_size")
            }
            _ => None,
        }
    }
}

/// Returns what a weight of a tower is called where a model keeps it; `None` if it is not of a tower.
fn tower_name(steps: &[Step], name: &str) -> Option<String> {
    let is_one = |step: &Step| matches!(step, Step::Towers(patterns) if find_any(patterns, name).is_some());
    let other = |step: &Step| match step {
        Step::RenameTowers(pairs) => rename(pairs, name),
        _ => None,
    };
    steps.iter().any(is_one).then(|| steps.iter().find_map(other).unwrap_or_else(|| name.to_owned()))
}

fn renamed(steps: &[Step], name: String) -> String {
    steps.iter().fold(name, |name, step| match step {
        Step::Rename(pairs) => rename(pairs, &name).unwrap_or(name),
        Step::Below(prefix) if !name.starts_with(prefix) => format!("{prefix}{name}"),
        Step::If(_, steps) => renamed(steps, name),
        _ => name,
    })
}

fn other_numbers(steps: &[Step], name: &str) -> bool {
    steps.iter().any(|step| match step {
        Step::AddOne(patterns) | Step::NormalizeRows(patterns) => find_any(patterns, name).is_some(),
        Step::Multiply(factors) => factors.iter().any(|(pattern, _)| find(pattern, name).is_some()),
        Step::If(_, steps) => other_numbers(steps, name),
        _ => false,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn layers_are_matrices_and_stacks_of_experts() {
        let layer = |name, shape: &[usize], quantized| Arch::OTHER.layer(name, shape, quantized);
        assert_eq!(layer("lm_head.weight", &[8, 4], false), Some("lm_head"));
        assert_eq!(layer("model.norm.weight", &[4], false), None);
        assert_eq!(layer("a.switch_mlp.up_proj.weight", &[2, 8, 4], false), Some("a.switch_mlp.up_proj"));
        assert_eq!(layer("a.conv.weight", &[2, 8, 4], false), None);
        assert_eq!(layer("a.conv.weight", &[2, 8, 4], true), Some("a.conv"));
        assert_eq!(layer("A_log", &[8, 4], false), None);
    }

    #[test]
    fn modules_of_transformers_have_names_in_mlx_lm() {
        let renamed = |model_type: &str, path| super::super::of_model_type(model_type).renamed(path);
        let layer = "gpt_neox.layers.0.attention.query_key_value";
        assert_eq!(renamed("gpt_neox", layer), "model.h.0.attention.query_key_value");
        assert_eq!(
            renamed("step3p5", "model.layers.1.share_expert.up_proj"),
            "model.layers.1.mlp.share_expert.up_proj"
        );
        assert_eq!(renamed("qwen3_5", "model.language_model.norm"), "language_model.model.norm");
        assert_eq!(renamed("qwen3_5", "model.visual.blocks.0.attn.qkv"), "vision_tower.blocks.0.attn.qkv");
        assert_eq!(renamed("llama", "model.norm"), "model.norm");
    }

    #[test]
    fn columns_follow_from_the_configuration() {
        let config = json!({"hidden_size": 64, "intermediate_size": 128});
        let columns = |path| Arch::OTHER.columns(path, config.as_object().unwrap());
        assert_eq!(columns("model.layers.0.self_attn.q_proj"), Some(64));
        // Its width differs between families: heads times `head_dim`, or times `v_head_dim`.
        assert_eq!(columns("model.layers.0.self_attn.o_proj"), None);
        assert_eq!(columns("model.layers.0.mlp.gate"), None);
    }
}
