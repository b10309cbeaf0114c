//! The fields of a `fuse` node.
//! Knows nothing of the model or of the adapters.

use text::yaml::{Fields, Problem, Tree, Value};
use weights::kernels::Rounding;
use weights::rewrite::{Dtype, Fuse, Scale, TokenizerOf};

use super::{Input, quantize, read_input, read_part};
use crate::stage::ADAPTERS;

/// Reads the fields, and adds the adapters to `inputs`.
pub(super) fn read(fields: &mut Fields, inputs: &mut Vec<Input>) -> Result<Fuse, Problem> {
    let scales = read_adapters(fields, inputs)?;
    let dtype = fields.word("dtype", &Dtype::WORDS)?;
    let at = fields.at();
    let requantize = fields.flag("requantize")?;
    if requantize && dtype.is_some() {
        return Err(Problem::new(at, "`requantize` keeps the model's own type: leave out `dtype`"));
    }
    let rounding = quantize::read_rounding(fields)?;
    if rounding == Rounding::Keep && !requantize {
        return Err(Problem::new(
            at,
            "`rounding` is for `requantize: true`: without it nothing is rounded to codes",
        ));
    }
    let tokenizer = fields.word("tokenizer", &TokenizerOf::WORDS)?.unwrap_or_default();
    if tokenizer == TokenizerOf::Adapter && scales.len() > 1 {
        return Err(Problem::new(at, "`tokenizer: adapter` is for a node with one adapter"));
    }
    let towers = quantize::read_towers(fields)?;
    Ok(Fuse { dtype, requantize, rounding, scales, tokenizer, towers })
}

/// Reads `adapter`, or the list `adapters`. Returns the factors of the list.
fn read_adapters(fields: &mut Fields, inputs: &mut Vec<Input>) -> Result<Vec<Scale>, Problem> {
    let at = fields.at();
    if !fields.has("adapters") {
        inputs.push(read_input(fields, "adapter")?);
        return Ok(Vec::new());
    }
    if fields.has("adapter") {
        return Err(Problem::new(at, "a `fuse` node has `adapter` or `adapters`, not both"));
    }
    let mut scales = Vec::new();
    for tree in fields.list("adapters")? {
        let (input, scale) = read_adapter(tree)?;
        inputs.push(Input { role: format!("{ADAPTERS}{}", scales.len()), ..input });
        scales.push(scale);
    }
    Ok(scales)
}

/// Reads an adapter: the name of a node or a folder in its artifact, or `{adapter: …, scale: NUMBER}`.
fn read_adapter(tree: Tree) -> Result<(Input, Scale), Problem> {
    let has_scale =
        matches!(&tree.value, Value::Map(entries) if !entries.iter().any(|(key, _)| key.text == "node"));
    if !has_scale {
        return Ok((read_part("adapter", tree)?, Scale::ONE));
    }
    let mut fields = Fields::open(tree, "an entry of `adapters`")?;
    let input = read_input(&mut fields, "adapter")?;
    let scale = match fields.take("scale") {
        None => Scale::ONE,
        Some(tree) => {
            let number = match tree.value {
                Value::Int(number) => Some(number as f64),
                Value::Float(number) => Some(number),
                _ => None,
            };
            let scale = number.and_then(Scale::new);
            scale.ok_or_else(|| Problem::new(tree.at, "`scale` must be a finite number"))?
        }
    };
    fields.finish()?;
    Ok((input, scale))
}
