//! The fields of a `quantize` node.
//! Knows nothing of the model that is quantized.

use text::yaml::{At, Fields, Problem, Tree, Value};
use weights::checkpoint::Towers;
use weights::kernels::{Mode, Rounding};
use weights::rewrite::{AutoBits, Mixed, Override, Quantize, TargetBits};

/// Reads the fields. `probe` is where a probe is named, if one is.
pub(super) fn read(fields: &mut Fields, probe: Option<At>) -> Result<Quantize, Problem> {
    let mode = fields.word("mode", &Mode::WORDS)?.unwrap_or(Mode::Affine);
    let at = fields.at();
    let recipe = fields.word("recipe", &Mixed::WORDS)?;
    if recipe.is_some() && mode != Mode::Affine {
        return Err(Problem::new(at, "a recipe is for `mode: affine`, as in mlx-lm"));
    }
    // With a recipe, mlx-lm's default is 4 bits. The modes other than affine have one choice each.
    let default = if recipe.is_some() { Some(4) } else { only(mode.bits()) };
    let auto = read_auto(fields, mode, recipe)?;
    let bits = match auto.as_ref().and_then(|auto| auto.candidates.first()) {
        Some(fewest) => *fewest,
        None => fields.choice("bits", mode.bits(), default)?,
    };
    let group_size =
        fields.choice("group_size", mode.group_sizes(), only(mode.group_sizes()).or(Some(64)))?;
    let overrides = fields.take("overrides").map(|tree| read_overrides(tree, mode)).transpose()?;
    if auto.is_some() && fields.has("rounding") {
        return Err(Problem::new(at, "`bits: auto` chooses the rounding too: leave out `rounding`"));
    }
    let rounding = read_rounding(fields)?;
    if rounding == Rounding::Keep && mode != Mode::Affine {
        return Err(Problem::new(at, "`rounding: keep` is for `mode: affine`"));
    }
    if let Some(at) = probe.filter(|_| auto.is_none() && rounding != Rounding::Keep) {
        return Err(Problem::new(at, "`probe` is for `rounding: keep` or `bits: auto`"));
    }
    let (overrides, towers) = (overrides.unwrap_or_default(), read_towers(fields)?);
    Ok(Quantize { auto, bits, group_size, mode, overrides, recipe, rounding, towers })
}

/// Reads `bits: auto` with its budget. Returns `None` if `bits` is something else.
fn read_auto(fields: &mut Fields, mode: Mode, recipe: Option<Mixed>) -> Result<Option<AutoBits>, Problem> {
    let at = fields.at();
    if !fields.is_word("bits", "auto") {
        for name in ["target_bits", "candidates"] {
            if fields.has(name) {
                return Err(Problem::new(at, format!("`{name}` is for `bits: auto`")));
            }
        }
        return Ok(None);
    }
    fields.take("bits");
    if recipe.is_some() || mode != Mode::Affine {
        let other = if recipe.is_some() { "a recipe" } else { "another mode" };
        return Err(Problem::new(at, format!("`bits: auto` chooses the bits itself: leave out {other}")));
    }
    let budget = fields.need("target_bits")?;
    let number = match budget.value {
        Value::Float(number) => Some(number),
        #[expect(clippy::cast_precision_loss, reason = "a number of bits is small")]
        Value::Int(number) => Some(number as f64),
        _ => None,
    };
    let Some(target_bits) = number.and_then(TargetBits::new) else {
        return Err(Problem::new(budget.at, "`target_bits` must be a number above 0, such as 5.0"));
    };
    let mut candidates = read_candidates(fields)?;
    candidates.sort_unstable();
    candidates.dedup();
    Ok(Some(AutoBits { candidates, target_bits }))
}

/// The numbers of bits that a module may have unless the file says others. Fewer than 4 lose too much.
const CANDIDATES: [usize; 4] = [4, 5, 6, 8];

fn read_candidates(fields: &mut Fields) -> Result<Vec<usize>, Problem> {
    let items = fields.list("candidates")?;
    if items.is_empty() {
        return Ok(CANDIDATES.to_vec());
    }
    let all = Mode::Affine.bits();
    let read = |item: Tree| match item.value {
        Value::Int(bits) => {
            all.iter().copied().find(|known| i64::try_from(*known) == Ok(bits)).ok_or_else(|| {
                Problem::new(item.at, format!("a candidate must be one of {all:?}, not {bits}"))
            })
        }
        _ => Err(Problem::new(item.at, format!("a candidate must be one of {all:?}, not {}", item.kind()))),
    };
    items.into_iter().map(read).collect()
}

/// Reads the field `towers`, which `fuse` has too.
pub(super) fn read_towers(fields: &mut Fields) -> Result<Towers, Problem> {
    Ok(fields.word("towers", &Towers::WORDS)?.unwrap_or_default())
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
