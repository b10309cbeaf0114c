//! Presents a checkpoint in another layout as the tensors of mlx-lm's model, by the steps that `arch` lists.
//! Knows no architecture, and reads no numbers: a weight that is cut or turned is a view of its tensor.

mod cut;
mod join;
mod reshape;
mod towers;

use std::collections::BTreeMap;

use reshape::channels_first;
use serde_json::{Map, Value};

use super::Towers;
use super::left_out::LeftOut;
use super::view::View;
use super::weight::{Source, Weight, WeightKind};
use crate::Error;
use crate::arch::{Arch, Channels, Expert, LayerName, Step, When, find, find_any, number_of, rename};
use crate::error::{Context, OrBug, Result, fail};

/// The weights of a checkpoint while the steps are followed.
pub(super) struct Sanitize<'a> {
    pub(super) weights: BTreeMap<String, Weight>,
    pub(super) config: &'a Map<String, Value>,
    pub(super) towers: Towers,
    pub(super) left_out: LeftOut,
}

impl Sanitize<'_> {
    /// Follows all steps of an architecture, and refuses experts that are in a layout which they do not mention.
    pub(super) fn run(&mut self, arch: &Arch, model_type: &str) -> Result<()> {
        self.follow(arch.sanitize)?;
        for (name, weight) in &self.weights {
            weight.check().within(|| format!("`{name}` is {:?}", weight.shape))?;
            if !weight.is_tower {
                refuse_experts(arch, model_type, name, weight)?;
            }
        }
        Ok(())
    }

    fn follow(&mut self, steps: &[Step]) -> Result<()> {
        steps.iter().try_for_each(|step| self.step(step))
    }

    fn step(&mut self, step: &Step) -> Result<()> {
        match *step {
            Step::Towers(patterns) => self.towers(|name| find_any(patterns, name).is_some()),
            Step::RenameTowers(pairs) => {
                self.rename_where(|weight| weight.is_tower, |name| rename(pairs, name))
            }
            Step::LayersBeyond(key) => self.layers_beyond(key),
            Step::Drop(patterns) => {
                self.weights.retain(|name, weight| weight.is_tower || find_any(patterns, name).is_none());
                Ok(())
            }
            Step::DropShared(key, patterns) => {
                self.drop_shared(key, patterns);
                Ok(())
            }
            Step::Rename(pairs) => self.rename(|name| rename(pairs, name)),
            Step::Below(prefix) => {
                self.rename(|name| (!name.starts_with(prefix)).then(|| format!("{prefix}{name}")))
            }
            Step::Stack { from, to, names } => self.stack(from, to, names),
            Step::Unstack { from, to, transposed, count } => self.unstack((from, to), transposed, count),
            Step::Split { from, to, rows } => self.split(from, to, rows),
            Step::SplitLatent => self.split_latent(),
            Step::SplitHeads(from) => self.split_heads(from),
            Step::Join { from, to } => self.join(from, to),
            Step::If(when, steps) if self.holds(when) => self.follow(steps),
            Step::If(..) => Ok(()),
            Step::CopyIfAbsent { from, to } => {
                if let (Some(weight), false) = (self.weights.get(from), self.weights.contains_key(to)) {
                    self.weights.insert(to.to_owned(), weight.clone());
                }
                Ok(())
            }
            Step::Refuse(patterns, why) => {
                match self.weights.keys().find(|name| find_any(patterns, name).is_some()) {
                    Some(name) => fail!(Unsupported, "`{name}`: {why}"),
                    None => Ok(()),
                }
            }
            Step::Transpose(_)
            | Step::ChannelsLast(..)
            | Step::Squeeze(_)
            | Step::Flatten(_)
            | Step::Fold(..)
            | Step::AddOne(_)
            | Step::NormalizeRows(_) => self.reshape(step),
            Step::Multiply(factors) => self.multiply(factors),
        }
    }

    fn rename(&mut self, other: impl Fn(&str) -> Option<String>) -> Result<()> {
        self.rename_where(|weight| !weight.is_tower, other)
    }

    fn rename_where(
        &mut self,
        which: impl Fn(&Weight) -> bool,
        other: impl Fn(&str) -> Option<String>,
    ) -> Result<()> {
        let moved = self.weights.extract_if(.., |name, weight| which(weight) && other(name).is_some());
        for (name, weight) in moved.collect::<Vec<_>>() {
            self.put(other(&name).or_bug("the name is another")?, weight)?;
        }
        Ok(())
    }

    /// Leaves out keys and values of the last layers, which take those of layers before them.
    fn drop_shared(&mut self, key: &str, patterns: &[&str]) {
        let shared = self.number(key).unwrap_or(0);
        let first = self.number("num_hidden_layers").map_or(usize::MAX, |all| all.saturating_sub(shared));
        self.weights.retain(|name, weight| {
            let layer = LayerName::of(name).filter(|layer| layer.number >= first);
            weight.is_tower || layer.is_none() || find_any(patterns, name).is_none()
        });
    }

    /// Returns the names of the language model's weights that `is_one` names, sorted.
    fn of_model(&self, is_one: impl Fn(&str) -> bool) -> Vec<String> {
        let weights = self.weights.iter().filter(|(name, weight)| !weight.is_tower && is_one(name));
        weights.map(|(name, _)| name.clone()).collect()
    }

    fn put(&mut self, name: String, weight: Weight) -> Result<()> {
        match self.weights.get(&name) {
            Some(other) => {
                let (one, two) = (first_tensor(other), first_tensor(&weight));
                fail!(Checkpoint, "`{one}` and `{two}` are both `{name}` of mlx-lm's model");
            }
            None => drop(self.weights.insert(name, weight)),
        }
        Ok(())
    }

    fn holds(&self, when: When) -> bool {
        let mut of_model = self.weights.iter().filter(|(_, weight)| !weight.is_tower);
        match when {
            When::Has(patterns) => of_model.any(|(name, _)| find_any(patterns, name).is_some()),
            When::Lacks(patterns) => !of_model.any(|(name, _)| find_any(patterns, name).is_some()),
            When::HasChannelsFirst(pattern) => of_model.any(|(name, weight)| {
                find(pattern, name).is_some() && channels_first(weight, Channels::LastNotOne)
            }),
            When::Zero(key) => self.number(key).is_none_or(|number| number == 0),
            When::Says(key) => self.config.get(key).and_then(Value::as_bool) == Some(true),
        }
    }

    /// Returns the number that the configuration of the language model gives under a key.
    fn number(&self, key: &str) -> Option<usize> {
        number_of(self.config, key)
    }
}

/// Returns the weight that is another view of the tensor of `weight`.
///
/// # Errors
/// Fails if the shape of the tensor does not allow the view, or if it cuts packed rows.
fn viewed(name: &str, weight: &Weight, cut: impl Fn(View) -> Option<View>) -> Result<Weight> {
    let [source] = weight.sources.as_slice() else {
        fail!(
            Unsupported,
            "`{name}` has parts in several tensors, and mlx-lm's model has it in another layout"
        );
    };
    let shape = &weight.shape;
    let view = cut(source.view.clone()).ok_or_else(|| misfit(name, shape))?;
    let keeps_rows = view.keeps_rows() && view.shape().last() == shape.last();
    match weight.kind {
        WeightKind::Quantized(..) if !keeps_rows => fail!(
            Unsupported,
            "`{name}` is packed, so its columns cannot be moved; take the model that was not quantized"
        ),
        WeightKind::Other(element) if !keeps_rows => {
            fail!(Unsupported, "`{name}` is {element}, which this version does not rearrange")
        }
        _ => {}
    }
    let sources = vec![Source { tensor: source.tensor.clone(), view: view.clone() }];
    Ok(Weight { shape: view.shape(), sources, ..weight.clone() })
}

/// Says that a tensor of this shape cannot be what its name says.
fn misfit(name: &str, shape: &[usize]) -> Error {
    Error::Checkpoint(format!(
        "`{name}` is {shape:?}, which does not fit config.json: it cannot be brought into the layout of mlx-lm's model"
    ))
}

/// Refuses experts in a layout that mlx-lm's model does not have: they would stay in 16 bits, and mlx-lm could not
/// load them.
fn refuse_experts(arch: &Arch, model_type: &str, name: &str, weight: &Weight) -> Result<()> {
    let is_single = || {
        let module = name.strip_suffix(".weight").and_then(Expert::of);
        !arch.experts_apart && module.is_some_and(|expert| expert.is_matrix())
    };
    let is_whole = || {
        let has_all = weight.shape.len() == 3 && name.contains(".experts.") && !name.ends_with(".weight");
        has_all && weight.kind.spec().is_none()
    };
    let what = match () {
        () if is_single() => "one expert",
        () if is_whole() => "all experts of a layer in one tensor",
        () => return Ok(()),
    };
    fail!(
        Unsupported,
        "`{name}` is {what} of a `{model_type}`; this version does not know how mlx-lm arranges these, so have \
         mlx_lm.convert write the model first"
    );
}

/// Returns a name in which the bytes `range` are replaced.
fn replaced(name: &str, range: &std::ops::Range<usize>, with: &str) -> String {
    let mut replaced = name.to_owned();
    replaced.replace_range(range.clone(), with);
    replaced
}

fn first_tensor(weight: &Weight) -> &str {
    weight.sources.first().map_or("", |source| source.tensor.as_str())
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::arch::of_model_type;
    use crate::kernels::{Float, Mode, QuantSpec};

    /// Returns the weights of a checkpoint of float16 tensors with these shapes, and what was left out.
    pub(super) fn sanitized(
        model_type: &str,
        config: &Value,
        tensors: &[(&str, &[usize])],
        towers: Towers,
    ) -> Result<(BTreeMap<String, Weight>, LeftOut)> {
        sanitized_of(model_type, config, tensors, WeightKind::Float(Float::F16), towers)
    }

    fn sanitized_of(
        model_type: &str,
        config: &Value,
        tensors: &[(&str, &[usize])],
        kind: WeightKind,
        towers: Towers,
    ) -> Result<(BTreeMap<String, Weight>, LeftOut)> {
        let weight = |(name, shape): &(&str, &[usize])| {
            ((*name).to_owned(), Weight::of_tensor(name, shape.to_vec(), kind))
        };
        let weights = tensors.iter().map(weight).collect();
        let config = config.as_object().unwrap();
        let mut sanitize = Sanitize { weights, config, towers, left_out: LeftOut::default() };
        sanitize.run(of_model_type(model_type), model_type)?;
        Ok((sanitize.weights, sanitize.left_out))
    }

    /// Returns the names and shapes of the weights.
    pub(super) fn shapes(
        model_type: &str,
        config: &Value,
        tensors: &[(&str, &[usize])],
    ) -> Vec<(String, Vec<usize>)> {
        let (weights, _) = sanitized(model_type, config, tensors, Towers::Drop).unwrap();
        weights.into_iter().map(|(name, weight)| (name, weight.shape)).collect()
    }

    fn refusal(model_type: &str, tensors: &[(&str, &[usize])]) -> String {
        sanitized(model_type, &json!({}), tensors, Towers::Drop).unwrap_err().to_string()
    }

    /// Names that some step looks for, and names that are made of their parts.
    const NAMES: [&str; 16] = [
        "model.layers.0.mlp.experts.gate_up_proj",
        "model.layers.0.mlp.experts.0.up_proj.weight",
        "model.layers.0.mlp.experts.1.up_proj.weight",
        "model.layers.0.self_attn.kv_b_proj.weight",
        "model.layers.0.self_attn.qkv_proj.weight",
        "model.layers.9.self_attn.k_proj.weight",
        "model.layers.0.mamba.conv1d.weight",
        "model.layers.0.mamba.in_proj.weight",
        "model.layers.0.block_sparse_moe.input_linear.weight",
        "transformer.blocks.0.ffn.experts.mlp.w2",
        "model.visual.patch_embed.proj.weight",
        "h.0.attn.c_attn.weight",
        "a.k_k",
        "a.alpha_p",
        "lm_head.weight",
        "model.embed_tokens.weight",
    ];

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        #[test]
        fn no_shape_and_no_configuration_is_too_wild(
            model_type in prop::sample::select(vec![
                "qwen3_5_moe", "deepseek_v3", "hunyuan", "dbrx", "falcon_h1", "gpt2", "rwkv7", "gemma4", "gpt_oss", "kimi_k3",
                "granitemoehybrid", "qwen3_vl_moe", "apertus",
            ]),
            tensors in prop::collection::vec((
                prop::sample::select(NAMES.to_vec()),
                prop::collection::vec(prop::sample::select(vec![0, 1, 2, 3, 8, usize::MAX, 1 << 62]), 0..5),
            ), 0..6),
            numbers in prop::collection::vec(prop::sample::select(vec![0, 1, 2, 3, 8, u64::MAX, 1 << 63]), 9),
            (include, kind) in (any::<bool>(), prop::sample::select(vec![
                WeightKind::Float(Float::F16),
                WeightKind::Other(crate::tensor::Element::I64),
                WeightKind::Quantized(QuantSpec { mode: Mode::Affine, bits: 4, group_size: 32 }, Float::F16),
            ])),
        ) {
            let keys = [
                "num_attention_heads", "num_key_value_heads", "qk_nope_head_dim", "v_head_dim", "head_dim", "num_hidden_layers",
                "num_kv_shared_layers", "mamba_d_ssm", "mamba_n_heads",
            ];
            let mut config: Map<_, _> = keys.iter().map(|key| (*key).to_owned()).zip(numbers.iter().map(|number| json!(number))).collect();
            config.insert("ffn_config".to_owned(), json!({"moe_num_experts": numbers[0]}));
            // Shapes that no machine has room for are refused before.
            let fits = |shape: &[usize]| Weight::of_tensor("", shape.to_vec(), kind).check().is_ok();
            let tensors: Vec<_> = tensors.iter().map(|(name, shape)| (*name, shape.as_slice())).collect();
            let tensors: Vec<_> = tensors.into_iter().filter(|(_, shape)| fits(shape)).collect();
            let towers = if include { Towers::Include } else { Towers::Drop };
            if let Ok((weights, _)) = sanitized_of(model_type, &Value::Object(config), &tensors, kind, towers) {
                // What is packed keeps its rows.
                let lengths: Vec<_> = tensors.iter().map(|(_, shape)| shape.last().copied()).collect();
                let packed = weights.values().filter(|weight| weight.kind.spec().is_some());
                prop_assert!(packed.into_iter().all(|weight| lengths.contains(&weight.shape.last().copied())));
            }
        }
    }

    #[test]
    fn a_layout_that_no_step_mentions_is_refused() {
        let single = refusal("new", &[("m.experts.0.up_proj.weight", &[4, 8])]);
        assert!(
            single.starts_with("`m.experts.0.up_proj.weight` is one expert of a `new`; this version"),
            "{single}"
        );
        let whole = refusal("new", &[("m.experts.gate_up_proj", &[2, 4, 8])]);
        assert!(
            whole.starts_with("`m.experts.gate_up_proj` is all experts of a layer in one tensor"),
            "{whole}"
        );
        let packed = refusal("deepseek_v41", &[("layers.0.attn.wq.weight", &[4, 8])]);
        assert!(packed.contains("have mlx_lm.convert write the model first"), "{packed}");
        // dbrx has its experts one by one.
        assert_eq!(shapes("dbrx", &json!({}), &[("m.experts.0.w1.weight", &[4, 8])]).len(), 1);
    }

    #[test]
    fn two_tensors_for_one_weight_are_refused() {
        let two = refusal("qwen3_vl", &[("model.language_model.a", &[1]), ("language_model.model.a", &[1])]);
        assert_eq!(
            two,
            "`language_model.model.a` and `model.language_model.a` are both `language_model.model.a` of mlx-lm's model"
        );
    }

    #[test]
    fn a_wrapper_has_its_language_model_below_a_prefix() {
        let names = shapes(
            "qwen3_5",
            &json!({}),
            &[("model.language_model.norm.weight", &[4]), ("lm_head.weight", &[8, 4]), ("mtp.a", &[1])],
        );
        let names: Vec<_> = names.into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["language_model.lm_head.weight", "language_model.model.norm.weight"]);
    }

    #[test]
    fn norms_around_0_are_told_by_the_convolutions() {
        let norm = "model.layers.0.input_layernorm.weight";
        let change = |conv: &[usize]| {
            let tensors = [(norm, &[4][..]), ("model.layers.0.linear_attn.conv1d.weight", conv)];
            let (weights, _) = sanitized("qwen3_5", &json!({}), &tensors, Towers::Drop).unwrap();
            weights[&format!("language_model.{norm}")].change().cloned()
        };
        assert_eq!(change(&[8, 1, 4]), Some(super::super::Change::AddOne));
        assert_eq!(change(&[8, 4, 1]), None);
    }

    /// A model of mlx-lm whose layers of multi-token prediction were kept: their experts are still one by one.
    #[test]
    fn a_tower_says_nothing_of_the_layout() {
        let norm = "model.layers.0.input_layernorm.weight";
        let tensors = [
            (norm, &[4][..]),
            ("model.layers.0.mlp.switch_mlp.up_proj.weight", &[2, 8, 4]),
            ("mtp.layers.0.mlp.experts.0.up_proj.weight", &[8, 4]),
        ];
        let (weights, _) = sanitized("qwen3_next", &json!({}), &tensors, Towers::Include).unwrap();
        assert_eq!(weights[norm].change(), None);
    }

    #[test]
    fn a_copy_and_shared_layers() {
        let minicpm = shapes("minicpm", &json!({}), &[("model.embed_tokens.weight", &[8, 4])]);
        assert_eq!(minicpm[0], ("lm_head.weight".to_owned(), vec![8, 4]));
        let config = json!({"text_config": {"num_hidden_layers": 2, "num_kv_shared_layers": 1}});
        let tensors = [
            ("model.language_model.layers.0.self_attn.k_proj.weight", &[4, 4][..]),
            ("model.language_model.layers.1.self_attn.k_proj.weight", &[4, 4]),
            ("model.language_model.layers.1.self_attn.q_proj.weight", &[4, 4]),
        ];
        let names: Vec<_> = shapes("gemma4", &config, &tensors).into_iter().map(|(name, _)| name).collect();
        assert_eq!(
            names,
            [
                "language_model.model.layers.0.self_attn.k_proj.weight",
                "language_model.model.layers.1.self_attn.q_proj.weight"
            ]
        );
    }
}
