//! `pipeline.yaml` as written: nodes with their stage, parameters and the names of their inputs, each with its place.
//! Knows nothing of whether the names exist, of hashes, or of the disk.

use serde::{Deserialize, Serialize};

use crate::backend::Mode;
use crate::origin::{self, HubSource};
use crate::stage::{Benchmark, Config, Dtype, Fuse, Mixed, Override, Quantize, Stage};
use crate::yaml::{At, Fields, Key, Problem, Tree, Value};

/// The whole file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// The cache folder, relative to the file.
    pub cache: String,
    /// The nodes, in the order written.
    pub nodes: Vec<Node>,
}

/// One node as written.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Node {
    /// Its name, unique in the file.
    pub name: String,
    /// Where its name stands.
    pub at: At,
    /// What it does, defaults filled in.
    #[serde(with = "PlainStage")]
    pub stage: Stage,
    /// The nodes it is made from.
    pub inputs: Vec<Input>,
    /// The file or folder outside the graph that it is made from.
    pub source: Option<Source>,
}

/// How a stage is written where a manifest is remembered. [`Stage`] itself is tagged for people to read, in a way
/// that only formats which describe themselves can read back.
#[derive(Serialize, Deserialize)]
#[serde(remote = "Stage")]
enum PlainStage {
    Base,
    Adapter,
    Fuse(Fuse),
    Quantize(Quantize),
    Benchmark(Benchmark),
}

/// An input that is another node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Input {
    /// What the input is to the stage: `model`, `adapter`, or `CONFIG.model` in a benchmark.
    pub role: String,
    /// The node's name, as written.
    pub node: String,
    /// Where it is written.
    pub at: At,
}

/// An input outside the graph.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Source {
    /// What it is.
    pub place: Place,
    /// Where it is written.
    pub at: At,
}

/// Where an input outside the graph lies.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Place {
    /// A file or a folder, relative to the pipeline file.
    Disk(String),
    /// A model repository on the Hugging Face hub.
    Hub(HubSource),
}

impl Source {
    /// Returns the path, if it is a file or a folder.
    pub fn path(&self) -> Option<&str> {
        match &self.place {
            Place::Disk(path) => Some(path),
            Place::Hub(_) => None,
        }
    }

    /// Returns the repository, if it is one on the hub.
    pub fn hub(&self) -> Option<&HubSource> {
        match &self.place {
            Place::Disk(_) => None,
            Place::Hub(hub) => Some(hub),
        }
    }
}

impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.place {
            Place::Disk(path) => f.write_str(path),
            Place::Hub(hub) => hub.fmt(f),
        }
    }
}

impl Manifest {
    /// Reads the text of a pipeline file.
    pub fn parse(text: &str) -> Result<Self, Problem> {
        let mut top = Fields::open(Tree::parse(text)?, "the pipeline file")?;
        read_version(&mut top)?;
        let cache = top.take("cache").map(read_cache).transpose()?;
        let nodes = Fields::open(top.need("nodes")?, "`nodes`")?;
        top.finish()?;
        let nodes =
            nodes.rest().into_iter().map(|(key, tree)| read_node(key, tree)).collect::<Result<_, _>>()?;
        Ok(Self { cache: cache.unwrap_or_else(|| "cache".to_owned()), nodes })
    }
}

fn read_version(top: &mut Fields) -> Result<(), Problem> {
    let version = top.need("version")?;
    match version.value {
        Value::Int(1) => Ok(()),
        _ => Err(Problem::new(version.at, "this pipeline reads `version: 1`")),
    }
}

fn read_cache(tree: Tree) -> Result<String, Problem> {
    let mut fields = Fields::open(tree, "`cache`")?;
    let folder = fields.optional_text("dir")?.map_or_else(|| "cache".to_owned(), |(path, _)| path);
    if let Some(remote) = fields.take("remote") {
        return Err(Problem::new(
            remote.at,
            "`remote` is not supported by this version; leave it out or null",
        ));
    }
    fields.finish()?;
    Ok(folder)
}

fn read_node(key: Key, tree: Tree) -> Result<Node, Problem> {
    check_name(&key)?;
    let mut fields = Fields::open(tree, format!("node `{}`", key.text))?;
    let words = ["base", "adapter", "fuse", "quantize", "benchmark"].map(|word| (word, word));
    let Some(word) = fields.word("stage", &words)? else {
        return Err(fields.missing("stage"));
    };
    let mut inputs = Vec::new();
    let mut source = None;
    let stage = match word {
        "base" | "adapter" => {
            source = Some(read_source(&mut fields)?);
            if word == "base" { Stage::Base } else { Stage::Adapter }
        }
        "fuse" => {
            inputs = vec![read_input(&mut fields, "model")?, read_input(&mut fields, "adapter")?];
            Stage::Fuse(read_fuse(&mut fields)?)
        }
        "quantize" => {
            inputs = vec![read_input(&mut fields, "model")?];
            Stage::Quantize(read_quantize(&mut fields)?)
        }
        _ => {
            let (path, at) = fields.text("suite")?;
            source = Some(Source { place: Place::Disk(path), at });
            let configs = read_configs(&mut fields, &mut inputs)?;
            Stage::Benchmark(Benchmark { configs, gates: Vec::new(), reference: None, verdicts: Vec::new() })
        }
    };
    fields.finish()?;
    Ok(Node { name: key.text, at: key.at, stage, inputs, source })
}

/// A name becomes a link in `artifacts/`, so it must be a plain file name.
fn check_name(key: &Key) -> Result<(), Problem> {
    let plain = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '.' | '+');
    let name = &key.text;
    if name.is_empty() || name.starts_with(['.', '-']) || !name.chars().all(plain) || name == "README.md" {
        let rule = "use letters, digits, `-`, `_`, `+` and `.`, and begin with a letter or a digit";
        return Err(Problem::new(key.at, format!("`{name}` cannot name a node: {rule}")));
    }
    Ok(())
}

fn read_source(fields: &mut Fields) -> Result<Source, Problem> {
    let (text, at) = fields.text("source")?;
    let place = match text.strip_prefix(origin::PREFIX) {
        Some(hub) => Place::Hub(HubSource::parse(hub).map_err(|error| Problem::new(at, error.to_string()))?),
        None => Place::Disk(text),
    };
    Ok(Source { place, at })
}

fn read_fuse(fields: &mut Fields) -> Result<Fuse, Problem> {
    let dtype = fields.word("dtype", &Dtype::WORDS)?;
    let at = fields.at();
    let requantize = fields.flag("requantize")?;
    if requantize && dtype.is_some() {
        return Err(Problem::new(at, "`requantize` keeps the model's own type: leave out `dtype`"));
    }
    Ok(Fuse { dtype, requantize })
}

fn read_quantize(fields: &mut Fields) -> Result<Quantize, Problem> {
    let mode = fields.word("mode", &Mode::WORDS)?.unwrap_or(Mode::Affine);
    let at = fields.at();
    let recipe = fields.word("recipe", &Mixed::WORDS)?;
    if recipe.is_some() && mode != Mode::Affine {
        return Err(Problem::new(at, "a recipe is for `mode: affine`, as in mlx-lm"));
    }
    // mlx-lm's default beside a recipe is 4; the other modes have one choice each.
    let default = if recipe.is_some() { Some(4) } else { only(mode.bits()) };
    let bits = fields.choice("bits", mode.bits(), default)?;
    let group_size =
        fields.choice("group_size", mode.group_sizes(), only(mode.group_sizes()).or(Some(64)))?;
    let overrides = fields.take("overrides").map(|tree| read_overrides(tree, mode)).transpose()?;
    Ok(Quantize { bits, group_size, mode, overrides: overrides.unwrap_or_default(), recipe })
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

fn read_input(fields: &mut Fields, role: &'static str) -> Result<Input, Problem> {
    let (node, at) = fields.text(role)?;
    Ok(Input { role: role.to_owned(), node, at })
}

fn read_configs(fields: &mut Fields, inputs: &mut Vec<Input>) -> Result<Vec<Config>, Problem> {
    let configs = Fields::open(fields.need("configs")?, "`configs`")?;
    let at = configs.at();
    let mut read = Vec::new();
    for (key, tree) in configs.rest() {
        let role = |role: &str| format!("{}.{role}", key.text);
        let mut adapter = None;
        let (node, at) = if let Value::Text(node) = tree.value {
            (node, tree.at)
        } else {
            let mut fields = Fields::open(tree, format!("config `{}`", key.text))?;
            let model = fields.text("model")?;
            adapter = fields.optional_text("adapter")?;
            fields.finish()?;
            model
        };
        inputs.push(Input { role: role("model"), node, at });
        read.push(Config { adapter: adapter.is_some(), name: key.text.clone() });
        inputs.extend(adapter.map(|(node, at)| Input { role: role("adapter"), node, at }));
    }
    if read.is_empty() {
        return Err(Problem::new(at, "`configs` names no model to benchmark"));
    }
    Ok(read)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(text: &str) -> String {
        Manifest::parse(text).unwrap_err().to_string()
    }

    #[test]
    fn a_default_written_out_is_a_default_left_out() {
        let read = |text: &str| {
            Manifest::parse(&format!("version: 1\nnodes: {{q: {text}}}")).unwrap().nodes[0].stage.clone()
        };
        let short = read("{stage: quantize, model: m, bits: 4}");
        assert_eq!(short, read("{group_size: 64, bits: 4, model: m, stage: quantize}"));
    }

    #[test]
    fn can_be_remembered() {
        let text = "version: 1\nnodes:\n  m: {stage: base, source: s}\n  f: {stage: fuse, model: m, adapter: a}\n  \
                    q: {stage: quantize, model: m, bits: 4}\n  b: {stage: benchmark, suite: s, configs: {z: m}}\n  \
                    h: {stage: base, source: 'hf:o/n'}";
        let manifest = Manifest::parse(text).unwrap();
        let bytes = postcard::to_stdvec(&manifest).unwrap();
        assert_eq!(postcard::from_bytes::<Manifest>(&bytes).unwrap(), manifest);
    }

    #[test]
    fn configs_keep_their_order() {
        let text = "version: 1\nnodes:\n  b: {stage: benchmark, suite: s, configs: {z: m, a: {model: m, adapter: l}}}";
        let node = &Manifest::parse(text).unwrap().nodes[0];
        let roles: Vec<_> = node.inputs.iter().map(|input| input.role.as_str()).collect();
        assert_eq!(roles, ["z.model", "a.model", "a.adapter"]);
    }

    #[test]
    fn says_what_and_where() {
        assert_eq!(message("nodes: {}"), "1:1: the pipeline file needs `version`");
        assert_eq!(
            message("version: 1\nnodes:\n  q: {stage: quantise, model: m}"),
            "3:14: `stage` must be one of base, adapter, fuse, quantize, benchmark, not `quantise`; did you mean `quantize`?"
        );
        assert_eq!(
            message("version: 1\nnodes:\n  a/b: {stage: base}").split(':').nth(2),
            Some(" `a/b` cannot name a node")
        );
    }
}
