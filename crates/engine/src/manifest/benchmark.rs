//! The fields of a `benchmark` node: configurations, gates and verdicts.
//! Knows nothing of the suite, so it cannot check whether the suite measures what they ask for.

use super::matrix::Patterns;
use super::{Input, read_input, read_part};
use crate::stage::{Benchmark, Config, DeviceChoice};
use report::suite::read_template_args;
use report::{Bound, Criterion, Gate, Quantity, Verdict};
use serde_json::{Map, Value as Json};
use text::nearest;
use text::yaml::{At, Fields, Key, Problem, Tree, Value};
use weights::rewrite::TokenizerOf;

/// For each configuration as written, whose name may be a pattern: that name, and the names of the
/// configurations that it stands for.
struct Names(Vec<(String, Vec<String>)>);

/// Reads the fields, and adds the models and adapters of the configurations to `inputs`.
pub(super) fn read(
    fields: &mut Fields,
    inputs: &mut Vec<Input>,
    patterns: &Patterns,
) -> Result<Benchmark, Problem> {
    let (configs, names) = read_configs(fields, inputs, patterns)?;
    let reference = fields.optional_text("reference")?.map(|(name, at)| names.one(name, at)).transpose()?;
    let device = fields.word("device", &DeviceChoice::WORDS)?.unwrap_or_default();
    let mut gates = Vec::new();
    for (key, tree) in entries(fields, "gates")? {
        gates.extend(read_gate(&key, tree, &names)?);
    }
    let mut verdicts = Vec::new();
    for (key, tree) in entries(fields, "verdicts")? {
        verdicts.extend(read_verdict(&key, tree, &names)?);
    }
    Ok(Benchmark { configs, gates, device, runs_on: device.device(), reference, verdicts })
}

fn entries(fields: &mut Fields, name: &'static str) -> Result<Vec<(Key, Tree)>, Problem> {
    let tree = fields.take(name);
    tree.map_or(Ok(Vec::new()), |tree| Ok(Fields::open(tree, format!("`{name}`"))?.rest()))
}

fn read_configs(
    fields: &mut Fields,
    inputs: &mut Vec<Input>,
    patterns: &Patterns,
) -> Result<(Vec<Config>, Names), Problem> {
    let configs = Fields::open(fields.need("configs")?, "`configs`")?;
    let at = configs.at();
    let (mut read, mut names) = (Vec::new(), Vec::new());
    for (key, tree) in configs.rest() {
        let Named { model, adapter, tokenizer, template_args } = read_config(&key, tree)?;
        let mut made = Vec::new();
        for variant in patterns.variants(&model.node) {
            let name = variant.fill(&key.text);
            if read.iter().any(|config: &Config| config.name == name) {
                return Err(Problem::new(key.at, format!("there are two configs called `{name}`")));
            }
            let filled = |input: &Input| Input {
                role: format!("{name}.{}", input.role),
                node: variant.fill(&input.node),
                at: input.at,
                path: input.path.as_ref().map(|path| variant.fill(path)),
            };
            inputs.extend([&model].into_iter().chain(&adapter).map(filled));
            let template_args = template_args.clone();
            read.push(Config { adapter: adapter.is_some(), name: name.clone(), tokenizer, template_args });
            made.push(name);
        }
        names.push((key.text, made));
    }
    if read.is_empty() {
        return Err(Problem::new(at, "`configs` names no model to benchmark"));
    }
    Ok((read, Names(names)))
}

/// A configuration as it is written.
struct Named {
    model: Input,
    adapter: Option<Input>,
    tokenizer: TokenizerOf,
    template_args: Map<String, Json>,
}

fn read_config(key: &Key, tree: Tree) -> Result<Named, Problem> {
    if matches!(tree.value, Value::Text(_)) {
        let (adapter, tokenizer, template_args) = (None, TokenizerOf::Base, Map::new());
        return Ok(Named { model: read_part("model", tree)?, adapter, tokenizer, template_args });
    }
    let mut fields = Fields::open(tree, format!("config `{}`", key.text))?;
    let model = read_input(&mut fields, "model")?;
    let adapter = fields.take("adapter").map(|tree| read_part("adapter", tree)).transpose()?;
    let at = fields.at();
    let tokenizer = fields.word("tokenizer", &TokenizerOf::WORDS)?.unwrap_or_default();
    if tokenizer == TokenizerOf::Adapter && adapter.is_none() {
        return Err(Problem::new(at, "`tokenizer: adapter` is for a config with an `adapter`"));
    }
    let template_args = read_template_args(&mut fields)?;
    fields.finish()?;
    Ok(Named { model, adapter, tokenizer, template_args })
}

impl Names {
    /// Returns the configurations that `text` names: one, or all that a pattern stands for.
    fn all(&self, text: &str, at: At) -> Result<Vec<String>, Problem> {
        let written = self.0.iter().find(|(written, _)| written == text);
        let made = || self.0.iter().flat_map(|(_, made)| made);
        match (written, made().find(|name| *name == text)) {
            (Some((_, made)), _) => Ok(made.clone()),
            (None, Some(name)) => Ok(vec![name.clone()]),
            (None, None) => {
                let near = nearest(text, made().map(String::as_str));
                let near = near.map_or_else(String::new, |near| format!("; did you mean `{near}`?"));
                Err(Problem::new(at, format!("there is no config `{text}`{near}")))
            }
        }
    }

    fn one(&self, text: String, at: At) -> Result<String, Problem> {
        match <[String; 1]>::try_from(self.all(&text, at)?) {
            Ok([name]) => Ok(name),
            Err(_) => Err(Problem::new(at, format!("`{text}` must name one config"))),
        }
    }
}

fn read_gate(key: &Key, tree: Tree, names: &Names) -> Result<Vec<Gate>, Problem> {
    let mut fields = Fields::open(tree, format!("the gate of `{}`", key.text))?;
    let at = fields.at();
    let against = fields.optional_text("against")?.map(|(name, at)| names.one(name, at)).transpose()?;
    let criteria = read_criteria(fields, against.is_some())?;
    if criteria.is_empty() {
        return Err(Problem::new(at, format!("the gate of `{}` asks nothing", key.text)));
    }
    let configs = names.all(&key.text, key.at)?;
    let gate = |config| Gate { against: against.clone(), config, criteria: criteria.clone() };
    Ok(configs.into_iter().map(gate).collect())
}

fn read_verdict(key: &Key, tree: Tree, names: &Names) -> Result<Vec<Verdict>, Problem> {
    let mut fields = Fields::open(tree, format!("the verdict on `{}`", key.text))?;
    let at = fields.at();
    let against = fields.optional_text("against")?.map(|(name, at)| names.one(name, at)).transpose()?;
    let mut criteria = |name: &'static str| match fields.take(name) {
        Some(tree) => read_criteria(Fields::open(tree, format!("`{name}`"))?, against.is_some()),
        None => Ok(Vec::new()),
    };
    let (optimal, minimum) = (criteria("optimal")?, criteria("minimum")?);
    let otherwise = fields.optional_text("otherwise")?.map(|(text, _)| text);
    fields.finish()?;
    if optimal.is_empty() && minimum.is_empty() {
        return Err(Problem::new(at, format!("the verdict on `{}` needs `optimal` or `minimum`", key.text)));
    }
    let configs = names.all(&key.text, key.at)?;
    let verdict = |config| Verdict {
        against: against.clone(),
        config,
        minimum: minimum.clone(),
        optimal: optimal.clone(),
        otherwise: otherwise.clone(),
    };
    Ok(configs.into_iter().map(verdict).collect())
}

/// Reads the remaining fields: quantities, each with its bound, in the order written. Bounds that are factors
/// are allowed if `relative` is set.
fn read_criteria(fields: Fields, relative: bool) -> Result<Vec<Criterion>, Problem> {
    let read = |(key, tree): (Key, Tree)| {
        let (word, category) = match key.text.strip_suffix(']').and_then(|text| text.split_once('[')) {
            Some((word, category)) => (word, Some(category.to_owned())),
            None => (key.text.as_str(), None),
        };
        let Some((_, quantity)) = Quantity::WORDS.iter().find(|(known, _)| *known == word) else {
            let words = Quantity::WORDS.map(|(word, _)| word);
            let hint = match nearest(word, words) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("there are {}", words.join(", ")),
            };
            return Err(Problem::new(key.at, format!("`{word}` cannot be asked for; {hint}")));
        };
        if category.is_some() && !quantity.has_categories() {
            let message = format!("`{word}` has no figure for a category; `accuracy` and `credit` have one");
            return Err(Problem::new(key.at, message));
        }
        let Value::Text(text) = &tree.value else {
            let message = format!("`{}` must be a text such as \">= 0.9\", not {}", key.text, tree.kind());
            return Err(Problem::new(tree.at, message));
        };
        let bound = Bound::parse(*quantity, text).map_err(|message| Problem::new(tree.at, message))?;
        if bound.relative && !relative {
            let message = format!("`{text}` is a factor, but `against` does not say on which config");
            return Err(Problem::new(tree.at, message));
        }
        Ok(Criterion { bound, category, quantity: *quantity })
    };
    fields.rest().into_iter().map(read).collect()
}
