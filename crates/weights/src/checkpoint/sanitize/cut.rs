//! Cuts one tensor of a checkpoint into several weights.
//! Reads no numbers: each weight is a view of the tensor.

use serde_json::Value;

use super::super::view::View;
use super::{Sanitize, misfit, replaced, viewed};
use crate::arch::{Expert, Rows, find, find_any};
use crate::error::{OrBug, Result};

impl Sanitize<'_> {
    pub(super) fn unstack(
        &mut self,
        (from, to): (&str, &str),
        transposed: &[&str],
        count: &str,
    ) -> Result<()> {
        let section = self.config.get("ffn_config").and_then(|section| section.get(count));
        let said = section.and_then(Value::as_u64);
        // Not more than an expert may have as its number, so that a lie takes no memory.
        let Some(count) = said.and_then(|count| Expert::number(&count.to_string())) else { return Ok(()) };
        for name in self.of_model(|name| find(from, name).is_some()) {
            let (range, weight) = (find(from, &name), self.weights.remove(&name));
            let (range, weight) = range.zip(weight).or_bug("the name is there")?;
            let parts = (0..count).map(|number| {
                let expert = format!("{}.weight", replaced(&name, &range, &format!("{to}{number}.")));
                let is_turned = find_any(transposed, &name).is_some();
                let cut = |view: View| {
                    let part = view.split(count)?.at(number)?;
                    if is_turned { part.swap(0, 1) } else { Some(part) }
                };
                let part = viewed(&name, &weight, cut)?;
                Ok((expert, part))
            });
            for (name, part) in parts.collect::<Result<Vec<_>>>()? {
                self.put(name, part)?;
            }
        }
        Ok(())
    }

    pub(super) fn split(&mut self, from: &str, to: &[&str], rows: Rows) -> Result<()> {
        for name in self.of_model(|name| find(from, name).is_some()) {
            let (range, weight) = (find(from, &name), self.weights.remove(&name));
            let (range, weight) = range.zip(weight).or_bug("the name is there")?;
            // The rows of a vector are its elements.
            let at = usize::from(weight.shape.len() > 1 && !name.ends_with("bias"));
            for (number, part) in to.iter().enumerate() {
                let cut = |view: View| match rows {
                    Rows::Together => view.part(at, number, to.len()),
                    Rows::Interleaved => view.every(at, number, to.len()),
                };
                self.put(replaced(&name, &range, part), viewed(&name, &weight, cut)?)?;
            }
        }
        Ok(())
    }

    pub(super) fn split_latent(&mut self) -> Result<()> {
        let size = |key: &str| self.number(key).or_else(|| self.number("head_dim"));
        let sizes = self.number("num_attention_heads").zip(size("qk_nope_head_dim")).zip(size("v_head_dim"));
        let Some(((heads, keys), values)) = sizes else { return Ok(()) };
        let from = ".kv_b_proj.weight$";
        for name in self.of_model(|name| find(from, name).is_some()) {
            let range = find(from, &name).or_bug("the name has the pattern")?;
            let weight = self.weights.get(&name).or_bug("the name is there")?;
            // mlx-lm quantizes packed ones anew when it loads them, so they can stay as they are.
            if weight.kind.spec().is_some() {
                continue;
            }
            let [queries, outputs] = [
                viewed(&name, weight, |view| view.split(heads)?.slice(1, 0, keys)?.swap(0, 1))?,
                viewed(&name, weight, |view| {
                    let heads = view.split(heads)?;
                    let whole = heads.shape().get(1).copied() == keys.checked_add(values);
                    heads.slice(1, keys, values).filter(|_| whole)
                })?,
            ];
            self.weights.remove(&name);
            self.put(replaced(&name, &range, ".embed_q.weight"), queries)?;
            self.put(replaced(&name, &range, ".unembed_out.weight"), outputs)?;
        }
        Ok(())
    }

    pub(super) fn split_heads(&mut self, from: &str) -> Result<()> {
        let sizes = self.number("num_attention_heads").zip(self.number("num_key_value_heads"));
        let Some((heads, groups)) = sizes.filter(|(_, groups)| *groups > 0) else { return Ok(()) };
        let each = heads / groups;
        for name in self.of_model(|name| find(from, name).is_some()) {
            let (range, weight) = (find(from, &name), self.weights.remove(&name));
            let (range, weight) = range.zip(weight).or_bug("the name is there")?;
            let rows = weight.shape.first().copied().unwrap_or(0);
            let all = each.checked_add(2).and_then(|all| all.checked_mul(groups));
            let all =
                all.filter(|all| rows.is_multiple_of(*all)).ok_or_else(|| misfit(&name, &weight.shape))?;
            let head = rows / all;
            for (to, first, count) in [("q_proj", 0, each), ("k_proj", each, 1), ("v_proj", each + 1, 1)] {
                let cut = |view: View| view.split(groups)?.slice(1, first * head, count * head);
                let mut part = viewed(&name, &weight, cut)?;
                part.shape = [&[groups * count * head], weight.shape.get(1..).unwrap_or_default()].concat();
                self.put(replaced(&name, &range, to), part)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::super::Towers;
    use super::super::tests::{sanitized, shapes};

    fn owned<const N: usize>(expected: [(&str, &[usize]); N]) -> Vec<(String, Vec<usize>)> {
        expected.iter().map(|(name, shape)| ((*name).to_owned(), shape.to_vec())).collect()
    }

    #[test]
    fn all_experts_in_one_tensor() {
        let tensors = [
            ("model.l.0.mlp.experts.gate_up_proj", &[2, 6, 4][..]),
            ("model.l.0.mlp.experts.down_proj", &[2, 4, 3]),
        ];
        let found = shapes("qwen3_5_moe", &json!({}), &tensors);
        let expected = owned([
            ("language_model.model.l.0.mlp.switch_mlp.down_proj.weight", &[2, 4, 3]),
            ("language_model.model.l.0.mlp.switch_mlp.gate_proj.weight", &[2, 3, 4]),
            ("language_model.model.l.0.mlp.switch_mlp.up_proj.weight", &[2, 3, 4]),
        ]);
        assert_eq!(found, expected);
        // Transposed, and with the rows of both in turns.
        let tensors = [("m.experts.gate_up_proj", &[2, 4, 6][..]), ("m.experts.gate_up_proj_bias", &[2, 6])];
        let (weights, _) = sanitized("gpt_oss", &json!({}), &tensors, Towers::Drop).unwrap();
        let up = &weights["m.experts.up_proj.weight"];
        assert_eq!((up.shape.as_slice(), up.sources()[0].view.strides()), (&[2, 3, 4][..], vec![24, 2, 6]));
        assert_eq!(up.sources()[0].view.offset(), 1);
        assert_eq!(weights["m.experts.gate_proj.bias"].shape, [2, 3]);
    }

    #[test]
    fn latent_attention_by_heads() {
        let config = json!({"num_attention_heads": 2, "qk_nope_head_dim": 3, "v_head_dim": 1});
        let found = shapes("deepseek_v3", &config, &[("a.kv_b_proj.weight", &[8, 6])]);
        assert_eq!(found, owned([("a.embed_q.weight", &[2, 6, 3]), ("a.unembed_out.weight", &[2, 1, 6])]));
        let other = json!({"num_attention_heads": 2, "qk_nope_head_dim": 3, "v_head_dim": 2});
        let refused = sanitized("deepseek_v3", &other, &[("a.kv_b_proj.weight", &[8, 6])], Towers::Drop);
        assert_eq!(
            refused.unwrap_err().to_string(),
            "`a.kv_b_proj.weight` is [8, 6], which does not fit config.json: it cannot be brought into the layout of mlx-lm's \
             model"
        );
    }

    #[test]
    fn heads_by_groups_and_a_stack_of_matrices() {
        let config = json!({"num_attention_heads": 4, "num_key_value_heads": 2});
        let found = shapes("hunyuan", &config, &[("a.qkv_proj.weight", &[16, 5])]);
        let expected =
            owned([("a.k_proj.weight", &[4, 5]), ("a.q_proj.weight", &[8, 5]), ("a.v_proj.weight", &[4, 5])]);
        assert_eq!(found, expected);
        let absurd = json!({"ffn_config": {"moe_num_experts": 1_000_000_000_000_000_u64}});
        assert_eq!(shapes("dbrx", &absurd, &[("a.experts.mlp.w1", &[0, 5])]).len(), 1);
        let config = json!({"ffn_config": {"moe_num_experts": 2}});
        let found = shapes("dbrx", &config, &[("a.experts.mlp.w2", &[6, 5])]);
        assert_eq!(found, owned([("a.experts.0.w2.weight", &[5, 3]), ("a.experts.1.w2.weight", &[5, 3])]));
    }
}
