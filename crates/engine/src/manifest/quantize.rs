//! The fields of a `quantize` node.
//! Knows nothing of the model that is quantized.

use text::yaml::{Fields, Problem, Tree, Value};
use weights::kernels::{Mode, Rounding};
use weights::rewrite::{Mixed, Override, Quantize};

/// Reads the fields.
pub(super) fn read(fields: &mut Fields) -> Result<Quantize, Problem> {
    let mode = fields.word("mode", &Mode::WORDS)?.unwrap_or(Mode::Affine);
    let at = fields.at();
    let recipe = fields.word("recipe", &Mixed::WORDS)?;
    if recipe.is_some() && mode != Mode::Affine {
        return Err(Problem::new(at, "a recipe is for `mode: affine`, as in mlx-lm"));
    }
    // With a recipe, mlx-lm's default is 4 bits. The modes other than affine have one choice each.
    let default = if recipe.is_some() { Some(4) } else { only(mode.bits()) };
    let bits = fields.choice("bits", mode.bits(), default)?;
    let group_size =
        fields.choice("group_size", mode.group_sizes(), only(mode.group_sizes()).or(Some(64)))?;
    let overrides = fields.take("overrides").map(|tree| read_overrides(tree, mode)).transpose()?;
    let rounding = read_rounding(fields)?;
    if rounding == Rounding::Keep && mode != Mode::Affine {
        return Err(Problem::new(at, "`rounding: keep` is for `mode: affine`"));
    }
    Ok(Quantize { bits, group_size, mode, overrides: overrides.unwrap_or_default(), recipe, rounding })
}

/// Reads the field `rounding`, which `fuse` has too.
pub(super) fn read_rounding(fields: &mut Fields) -> Result<Rounding, Problem> {
    Ok(fields.word("rounding", &Rounding::WORDS)?.unwrap_or_default())
}

fn only(choices: &[usize]) -> Option<usize> {
    choices.first().copied().filter(|_| choices.len() == 1)
}

fn read_overrides(tree: Tree, mode: Mode) -> Result<Vec<Override>, Problem> {
    let at = tree.at;
    let Value::List(entries) = tree.value else {
        let example = "`- {pattern: \"*.down_proj\", bits: 8}`";
        return Err(Problem::new(at, format!("`overrides` must be a list, such as {example}")));
    };
    entries.into_iter().map(|entry| read_override(entry, mode)).collect()
}

fn read_override(tree: Tree, mode: Mode) -> Result<Override, Problem> {
    let mut fields = Fields::open(tree, "an override")?;
    let at = fields.at();
    let (pattern, _) = fields.text("pattern")?;
    let keep = fields.flag("keep")?;
    let optional = |fields: &mut Fields, name, choices| match fields.has(name) {
        true => fields.choice(name, choices, None).map(Some),
        false => Ok(None),
    };
    let bits = optional(&mut fields, "bits", mode.bits())?;
    let group_size = optional(&mut fields, "group_size", mode.group_sizes())?;
    fields.finish()?;
    if keep == (bits.is_some() || group_size.is_some()) {
        return Err(Problem::new(
            at,
            "an override has either `keep: true`, or `bits` or `group_size` or both",
        ));
    }
    Ok(Override { bits, group_size, keep, pattern })
}
