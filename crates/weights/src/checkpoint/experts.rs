//! Presents experts that are stored one by one as the stacks that MLX's models have.
//! Knows nothing of what experts do.

use std::collections::BTreeMap;

use super::{Weight, WeightKind};
use crate::Error;
use crate::arch::{self, Arch, Expert, Experts};
use crate::error::{Context, OrBug, Result, require};

/// Replaces `PREFIX.experts.N.PROJECTION.weight`, for all N, with one `PREFIX.switch_mlp.PROJECTION.weight`
/// that has one more dimension. Mirrors `sanitize` of mlx-lm's models with experts (`qwen3_moe.py`,
/// `mixtral.py`).
pub(super) fn stack(
    mut weights: BTreeMap<String, Weight>,
    arch: &Arch,
    model_type: &str,
) -> Result<BTreeMap<String, Weight>> {
    if arch.experts == Experts::Apart {
        return Ok(weights);
    }
    let mut stacks: BTreeMap<String, BTreeMap<usize, Weight>> = BTreeMap::new();
    let names: Vec<_> = weights.keys().filter(|name| expert(name).is_some()).cloned().collect();
    if let Some(name) = names.first() {
        require!(
            arch.experts == Experts::OneByOne,
            Unsupported,
            "`{name}` is one expert of a `{model_type}`; this version stacks the experts of {} only, so have \
             mlx_lm.convert stack these first",
            arch::with_experts_one_by_one().join(", ")
        );
    }
    for name in names {
        let (stack, number) = expert(&name).or_bug("it is an expert's")?;
        let weight = weights.remove(&name).or_bug("the name is there")?;
        stacks.entry(stack).or_default().insert(number, weight);
    }
    for (name, experts) in stacks {
        require!(
            !weights.contains_key(&name),
            Checkpoint,
            "there is both `{name}` and a tensor for each expert"
        );
        weights.insert(name.clone(), join(&name, experts)?);
    }
    Ok(weights)
}

/// Returns the name of the stack that an expert's tensor belongs to, and the number of the expert.
fn expert(name: &str) -> Option<(String, usize)> {
    let expert = Expert::of(name.strip_suffix(".weight")?).filter(Expert::is_matrix)?;
    Some((format!("{}.weight", expert.stack()), expert.number))
}

fn join(name: &str, experts: BTreeMap<usize, Weight>) -> Result<Weight> {
    let first =
        experts.get(&0).ok_or_else(|| Error::Checkpoint(format!("`{name}`: there is no expert 0")))?;
    let (kind, shape) = (first.kind, first.shape.clone());
    require!(
        !matches!(kind, WeightKind::Other(_)) && shape.len() == 2,
        Checkpoint,
        "`{name}`: its experts are {shape:?}, not matrices of floats"
    );
    let (count, mut stored, mut sources) = (experts.len(), 0, Vec::new());
    for (index, (number, expert)) in experts.into_iter().enumerate() {
        require!(index == number, Checkpoint, "`{name}`: expert {index} is missing");
        let same = (expert.kind, &expert.shape) == (kind, &shape);
        require!(
            same,
            Checkpoint,
            "`{name}`: expert {number} is {:?} {:?}, expert 0 is {shape:?} {kind:?}",
            expert.shape,
            expert.kind
        );
        stored += expert.stored;
        sources.extend(expert.sources);
    }
    let stack = Weight { shape: [&[count], shape.as_slice()].concat(), kind, stored, sources };
    stack.check().within(|| format!("`{name}` is {:?}", stack.shape))?;
    Ok(stack)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arch::of_model_type;
    use crate::kernels::Float;

    fn weights(names: &[&str]) -> BTreeMap<String, Weight> {
        let weight = |name: &str| Weight {
            shape: vec![4, 8],
            kind: WeightKind::Float(Float::F16),
            stored: 64,
            sources: vec![name.to_owned()],
        };
        names.iter().map(|name| ((*name).to_owned(), weight(name))).collect()
    }

    #[test]
    fn stacks_in_the_order_of_the_numbers() {
        let names: Vec<_> = (0..11).map(|n| format!("l.0.mlp.experts.{n}.up_proj.weight")).collect();
        let names: Vec<_> = names.iter().map(String::as_str).chain(["l.0.mlp.gate.weight"]).collect();
        let stacked = stack(weights(&names), of_model_type("qwen3_moe"), "qwen3_moe").unwrap();
        let stack = &stacked["l.0.mlp.switch_mlp.up_proj.weight"];
        assert_eq!((stack.shape.as_slice(), stack.stored), (&[11, 4, 8][..], 704));
        assert_eq!(stack.sources[10], "l.0.mlp.experts.10.up_proj.weight");
        assert!(stacked.contains_key("l.0.mlp.gate.weight"));
    }

    #[test]
    fn knows_mixtral_and_misses_nobody() {
        assert_eq!(
            expert("a.block_sparse_moe.experts.3.w2.weight").unwrap(),
            ("a.block_sparse_moe.switch_mlp.down_proj.weight".to_owned(), 3)
        );
        let gap = stack(
            weights(&["m.experts.0.w1.weight", "m.experts.2.w1.weight"]),
            of_model_type("mixtral"),
            "mixtral",
        )
        .unwrap_err();
        assert_eq!(gap.to_string(), "`m.switch_mlp.gate_proj.weight`: expert 1 is missing");
        let other = stack(weights(&["m.experts.0.w1.weight"]), of_model_type("dots1"), "dots1").unwrap_err();
        assert!(
            other.to_string().starts_with("`m.experts.0.w1.weight` is one expert of a `dots1`"),
            "{other}"
        );
        assert_eq!(expert("m.experts.01.w1.weight"), None);
    }
}
