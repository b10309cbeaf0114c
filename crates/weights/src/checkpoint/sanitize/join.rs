//! Takes several tensors of a checkpoint for one weight: experts that are stored one by one, and fused projections.
//! Knows nothing of what experts do.

use std::collections::BTreeMap;

use super::super::weight::{Weight, WeightKind};
use super::{Sanitize, replaced};
use crate::Error;
use crate::arch::{Expert, find};
use crate::error::{OrBug, Result, fail, require};

impl Sanitize<'_> {
    pub(super) fn stack(&mut self, from: &str, to: &str, names: &[(&str, &str)]) -> Result<()> {
        let stacked = |name: &str| {
            let (owner, rest) = name.rsplit_once(from)?;
            let (digits, rest) = rest.split_once('.')?;
            let number = Expert::number(digits)?;
            let (projection, part) = rest.split_once('.')?;
            let (_, new) = names.iter().find(|(known, _)| *known == projection)?;
            Some((format!("{owner}{to}{new}.{part}"), number))
        };
        let mut stacks: BTreeMap<String, BTreeMap<usize, Weight>> = BTreeMap::new();
        for name in self.of_model(|name| stacked(name).is_some()) {
            let (stack, number) = stacked(&name).or_bug("it is an expert's")?;
            let weight = self.weights.remove(&name).or_bug("the name is there")?;
            stacks.entry(stack).or_default().insert(number, weight);
        }
        for (name, experts) in stacks {
            require!(
                !self.weights.contains_key(&name),
                Checkpoint,
                "there is both `{name}` and a tensor for each expert"
            );
            let stack = stack_of(&name, experts)?;
            self.put(name, stack)?;
        }
        Ok(())
    }

    pub(super) fn join(&mut self, from: &[&str], to: &str) -> Result<()> {
        let Some(first) = from.first() else { return Ok(()) };
        for name in self.of_model(|name| find(first, name).is_some()) {
            let range = find(first, &name).or_bug("the name has the pattern")?;
            let names: Vec<_> =
                from.iter().map(|end| replaced(&name, &range, end.trim_end_matches('$'))).collect();
            if !names.iter().all(|name| self.weights.contains_key(name)) {
                continue;
            }
            let parts = names.iter().filter_map(|name| self.weights.remove(name)).collect();
            self.put(replaced(&name, &range, to), joined(&name, parts)?)?;
        }
        Ok(())
    }
}

/// Returns the stack of the experts, which have a number each.
fn stack_of(name: &str, experts: BTreeMap<usize, Weight>) -> Result<Weight> {
    let first =
        experts.get(&0).ok_or_else(|| Error::Checkpoint(format!("`{name}`: there is no expert 0")))?;
    let first = first.clone();
    let (kind, shape) = (first.kind, &first.shape);
    if let WeightKind::Other(element) = kind {
        fail!(Checkpoint, "`{name}`: its experts are {element}, not floats");
    }
    require!(!shape.is_empty(), Checkpoint, "`{name}`: its experts are single numbers");
    let (count, mut sources) = (experts.len(), Vec::new());
    for (index, (number, expert)) in experts.into_iter().enumerate() {
        require!(index == number, Checkpoint, "`{name}`: expert {index} is missing");
        require!(
            (expert.kind, &expert.shape) == (kind, shape),
            Checkpoint,
            "`{name}`: expert {number} is {:?} {:?}, expert 0 is {shape:?} {kind:?}",
            expert.shape,
            expert.kind
        );
        sources.extend(expert.sources);
    }
    Ok(Weight { shape: [&[count], shape.as_slice()].concat(), sources, ..first })
}

/// Returns the weight that has the rows of all parts.
fn joined(name: &str, parts: Vec<Weight>) -> Result<Weight> {
    let first = parts.first().or_bug("a join has parts")?.clone();
    let rest = |weight: &Weight| weight.shape.get(1..).map(<[usize]>::to_vec);
    let fits = parts.iter().all(|part| part.kind == first.kind && rest(part) == rest(&first));
    require!(fits, Checkpoint, "`{name}` and what belongs to it differ in type or in row length");
    let rows = parts.iter().filter_map(|part| part.shape.first()).sum();
    let shape = [&[rows], first.shape.get(1..).unwrap_or_default()].concat();
    Ok(Weight { shape, sources: parts.into_iter().flat_map(|part| part.sources).collect(), ..first })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::super::Towers;
    use super::super::tests::sanitized;
    use super::*;

    const MATRIX: &[usize] = &[4, 8];

    fn stacked(model_type: &str, names: &[&str]) -> Result<BTreeMap<String, Weight>> {
        let tensors: Vec<_> = names.iter().map(|name| (*name, MATRIX)).collect();
        Ok(sanitized(model_type, &json!({}), &tensors, Towers::Drop)?.0)
    }

    #[test]
    fn stacks_in_the_order_of_the_numbers() {
        let names: Vec<_> = (0..11).map(|n| format!("l.0.mlp.experts.{n}.up_proj.weight")).collect();
        let names: Vec<_> = names.iter().map(String::as_str).chain(["l.0.mlp.gate.weight"]).collect();
        let weights = stacked("qwen3_moe", &names).unwrap();
        let stack = &weights["l.0.mlp.switch_mlp.up_proj.weight"];
        assert_eq!((stack.shape.as_slice(), stack.stored()), (&[11, 4, 8][..], 704));
        assert_eq!(stack.sources()[10].tensor, "l.0.mlp.experts.10.up_proj.weight");
        assert!(weights.contains_key("l.0.mlp.gate.weight"));
    }

    #[test]
    fn knows_other_names_and_misses_nobody() {
        let mixtral = stacked("mixtral", &["m.experts.0.w2.weight", "m.experts.1.w2.weight"]).unwrap();
        assert_eq!(mixtral["m.switch_mlp.down_proj.weight"].shape, [2, 4, 8]);
        let nemotron = stacked("nemotron_h", &["m.mixer.experts.0.up_proj.weight"]).unwrap();
        assert_eq!(nemotron["m.mixer.switch_mlp.fc1.weight"].shape, [1, 4, 8]);
        let gap = stacked("mixtral", &["m.experts.0.w1.weight", "m.experts.2.w1.weight"]).unwrap_err();
        assert_eq!(gap.to_string(), "`m.switch_mlp.gate_proj.weight`: expert 1 is missing");
        let both =
            stacked("mixtral", &["m.experts.0.w1.weight", "m.switch_mlp.gate_proj.weight"]).unwrap_err();
        assert_eq!(
            both.to_string(),
            "there is both `m.switch_mlp.gate_proj.weight` and a tensor for each expert"
        );
    }

    #[test]
    fn a_joined_weight_has_the_rows_of_all() {
        let name = |part: &str| format!("language_model.model.layers.0.self_attn.{part}_proj.weight");
        let (q, k, v) = (name("q"), name("k"), name("v"));
        let tensors = [(q.as_str(), &[8, 4][..]), (k.as_str(), &[2, 4]), (v.as_str(), &[2, 4])];
        let (weights, _) = sanitized("kimi_k3", &json!({}), &tensors, Towers::Drop).unwrap();
        assert_eq!(weights[&name("qkv")].shape, [12, 4]);
    }
}
