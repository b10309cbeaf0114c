//! The record of an architecture: which modules are layers, what is quantized and cast, how experts lie, which tensors go.
//! Knows no architecture by name.

use serde_json::{Map, Value};

use super::experts::Experts;

/// What is known of the models of one `model_type`. A file of a family names what differs from [`Arch::OTHER`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arch {
    /// The `model_type` of `config.json`; empty in [`Arch::OTHER`].
    pub model_type: &'static str,
    /// Other types that mlx-lm reads as this one: `MODEL_REMAPPING` in `utils.py`.
    pub aliases: &'static [&'static str],
    /// The classes that `architectures` of `config.json` may name.
    pub architectures: &'static [&'static str],
    /// Whether the model has an output head of its own.
    pub head: Head,
    /// How a checkpoint keeps experts.
    pub experts: Experts,
    /// The ends of the paths of modules that are not quantized: routers that are bare parameters in mlx-lm, and what a
    /// `quant_predicate` in `models/*.py` leaves out.
    pub not_quantized: &'static [&'static str],
    /// The ends of the paths of modules that keep 8 bits in groups of 64, whatever is asked for: `quant_predicate` in
    /// `models/*.py`.
    pub eight_bits: &'static [&'static str],
    /// Parts of the names of tensors that keep their dtype, whatever is asked for: `cast_predicate` in `models/*.py`.
    pub not_cast: &'static [&'static str],
    /// The last words of the paths of modules that are an `nn.Embedding`. The factors of an embedding's LoRA lie otherwise
    /// than those of a linear layer, and the name, not the shape, decides which it is.
    pub embeddings: &'static [&'static str],
}

/// Where the output head comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Head {
    /// It is the embedding if `config.json` says `tie_word_embeddings: true`.
    OwnByDefault,
    /// It is the embedding unless `config.json` says `tie_word_embeddings: false`: the default in `models/*.py`.
    TiedByDefault,
    /// It is the embedding if the checkpoint has no head: `sanitize` of mlx-lm's `gemma3_text.py`.
    TiedIfAbsent,
}

/// What mlx-lm's model says about quantizing a module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QuantRule {
    /// Nothing: it is quantized as the user asks.
    Usual,
    /// It is not quantized.
    Skip,
    /// It keeps 8 bits in groups of 64, in the affine mode.
    EightBits,
}

impl Arch {
    /// A model of which nothing particular is known.
    pub const OTHER: Self = Self {
        model_type: "",
        aliases: &[],
        architectures: &[],
        head: Head::OwnByDefault,
        experts: Experts::AsInModel,
        not_quantized: &[],
        eight_bits: &[],
        not_cast: &["e_score_correction_bias", "expert_bias", "router_bias", "A_log", "dt_bias"],
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

    /// Returns what mlx-lm's model says about quantizing the module at `path`.
    pub fn quant_rule(&self, path: &str) -> QuantRule {
        let is_in = |ends: &[&str]| ends.iter().any(|end| path.ends_with(end));
        match () {
            () if is_in(self.not_quantized) => QuantRule::Skip,
            () if is_in(self.eight_bits) => QuantRule::EightBits,
            () => QuantRule::Usual,
        }
    }

    /// Whether the tensor `name` takes a dtype that is asked for.
    pub fn is_cast(&self, name: &str) -> bool {
        !self.not_cast.iter().any(|part| name.contains(part))
    }

    /// Whether the module at `path` is an embedding.
    pub fn is_embedding(&self, path: &str) -> bool {
        self.embeddings.contains(&path.rsplit('.').next().unwrap_or(path))
    }

    /// Whether a checkpoint's own head is dropped, because the model uses its embedding: what `config.json` says, else the
    /// default of the architecture.
    pub fn drops_head(&self, config: &Map<String, Value>) -> bool {
        let said = config.get("tie_word_embeddings").and_then(Value::as_bool);
        said.unwrap_or(self.head == Head::TiedByDefault)
    }

    /// Whether the tensor `name` is left out of a model: the head of a tied model, and rope frequencies, which are computed.
    /// mlx-lm drops such copies, and cannot load a quantized head of a tied model.
    pub fn is_dropped(&self, name: &str, drops_head: bool) -> bool {
        drops_head && name.starts_with("lm_head.") || name.ends_with(".rotary_emb.inv_freq")
    }

    /// Returns the path of the module that a weight belongs to if it is one that mlx-lm quantizes: a linear layer, an
    /// embedding or a stack of experts. By name and shape these are the matrices called `weight`; `shape` is that before
    /// packing. A stack is known by its name, or because it is quantized already.
    pub fn layer<'a>(&self, name: &'a str, shape: &[usize], is_quantized: bool) -> Option<&'a str> {
        let module = name.strip_suffix(".weight")?;
        let is_layer = match shape.len() {
            2 => true,
            3 => is_quantized || self.experts.is_stack(name),
            _ => false,
        };
        is_layer.then_some(module)
    }

    /// Returns the length of a row of the module at `path` before packing, if its name and `config.json` say it. Names are
    /// those of mlx-lm's decoders.
    pub fn columns(&self, path: &str, config: &Map<String, Value>) -> Option<usize> {
        let number =
            |key: &str| usize::try_from(config.get(key)?.as_u64()?).ok().filter(|number| *number > 0);
        let hidden = || number("hidden_size");
        // Experts that all tokens share have a size of their own.
        if path.contains("shared") {
            return None;
        }
        match path.rsplit('.').next()? {
            "q_proj" | "k_proj" | "v_proj" | "gate_proj" | "up_proj" | "lm_head" | "embed_tokens" => hidden(),
            "o_proj" => {
                let heads = number("num_attention_heads")?;
                let head_dim = number("head_dim").or_else(|| Some(hidden()? / heads))?;
                heads.checked_mul(head_dim)
            }
            "down_proj" if self.experts.is_stack(path) => number("moe_intermediate_size"),
            "down_proj" => number("intermediate_size"),
            _ => None,
        }
    }
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
    fn columns_follow_from_the_configuration() {
        let config =
            json!({"hidden_size": 64, "num_attention_heads": 4, "head_dim": 32, "intermediate_size": 128});
        let columns = |path| Arch::OTHER.columns(path, config.as_object().unwrap());
        assert_eq!(columns("model.layers.0.self_attn.q_proj"), Some(64));
        assert_eq!(columns("model.layers.0.self_attn.o_proj"), Some(128));
        assert_eq!(columns("model.layers.0.mlp.down_proj"), Some(128));
        assert_eq!(columns("model.layers.0.mlp.switch_mlp.down_proj"), None);
        assert_eq!(columns("model.layers.0.mlp.gate"), None);
    }
}
