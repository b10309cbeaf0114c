//! `pipeline.yaml` as written: nodes with their stages, parameters and input names, each with its line and
//! column.
//! Knows nothing of whether the names exist, of hashes, or of the disk.

mod benchmark;
mod cache;
mod encoded;
mod fuse;
mod matrix;
mod probe;
mod quantize;
mod run;
mod trust;
mod workers;

pub use cache::{Cache, DEFAULT_DIR, TrustedKey, read_trusted_keys};
pub use trust::{NotTrusted, trust};
pub(crate) use workers::is_host;
pub use workers::{Engine, Hosts, Worker, WorkerDevice, read_workers};

use std::collections::{BTreeMap, HashMap, HashSet};

use matrix::Patterns;
use serde::{Deserialize, Serialize};

use crate::origin::{self, HubSource};
use crate::stage::{PROBE_ROLE, Stage};
use artifact::fold;
use text::yaml::{At, Fields, Key, Problem, Tree, Value};

/// The longest name of a node, in bytes. The name of its folder also has a digest, and may have 255 bytes.
const LONGEST_NAME: usize = 200;

/// The whole file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// Where results are kept, and with whom they are shared.
    pub cache: Cache,
    /// The nodes, in the order written.
    pub nodes: Vec<Node>,
    /// How many nodes of each named pool run at once.
    pub pools: BTreeMap<String, usize>,
    /// The machines that make nodes.
    pub workers: Vec<Worker>,
}

/// One node as written.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Node {
    /// Its name, unique in the file.
    pub name: String,
    /// Where its name is written.
    pub at: At,
    /// Its stage, with defaults filled in.
    #[serde(with = "encoded::PlainStage")]
    pub stage: Stage,
    /// The nodes it is made from.
    pub inputs: Vec<Input>,
    /// The file or folder outside the graph that it is made from.
    pub source: Option<Source>,
    /// The named pool that it runs in.
    pub pool: Option<String>,
    /// Whether its files go when no node needs them any more.
    pub temporary: bool,
}

/// An input that is another node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Input {
    /// The role of the input: `model` or `adapter`, in a benchmark `CONFIG.model` or `CONFIG.adapter`. The
    /// graph adds inputs in the roles `base` and `fused`.
    pub role: String,
    /// The node's name, as written.
    pub node: String,
    /// Where it is written.
    pub at: At,
    /// The folder or the file inside the node's artifact that is meant; `None` if all of it is.
    pub path: Option<String>,
}

/// An input outside the graph.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Source {
    /// What it is.
    pub location: SourceLocation,
    /// Where it is written.
    pub at: At,
}

/// Where an input outside the graph is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum SourceLocation {
    /// A file or a folder, relative to the pipeline file.
    Disk(String),
    /// A model repository on the Hugging Face hub.
    Hub(HubSource),
}

impl Source {
    /// Returns the path, if it is a file or a folder.
    pub fn path(&self) -> Option<&str> {
        match &self.location {
            SourceLocation::Disk(path) => Some(path),
            SourceLocation::Hub(_) => None,
        }
    }

    /// Returns the repository, if it is one on the hub.
    pub fn hub(&self) -> Option<&HubSource> {
        match &self.location {
            SourceLocation::Disk(_) => None,
            SourceLocation::Hub(hub) => Some(hub),
        }
    }
}

impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.location {
            SourceLocation::Disk(path) => f.write_str(path),
            SourceLocation::Hub(hub) => hub.fmt(f),
        }
    }
}

impl Manifest {
    /// Decodes what [`Self::to_bytes`] returned. Returns `None` if the bytes are not valid.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        postcard::from_bytes(bytes).ok()
    }

    /// Encodes the manifest in a compact form that is faster to read than the text.
    pub fn to_bytes(&self) -> Option<Vec<u8>> {
        postcard::to_stdvec(self).ok()
    }

    /// Parses the text of a pipeline file.
    ///
    /// # Errors
    /// Fails if the text is not valid YAML or not a valid pipeline file. The problem has the line and the
    /// column.
    pub fn parse(text: &str) -> Result<Self, Problem> {
        let mut top = Fields::open(Tree::parse(text)?, "the pipeline file")?;
        read_version(&mut top)?;
        let cache = top.take("cache").map(cache::read).transpose()?;
        let pools = top.take("pools").map(read_pools).transpose()?.unwrap_or_default();
        let workers = top.take("workers").map(workers::read).transpose()?.unwrap_or_default();
        // A worker is a pool with machines of its own.
        let own = workers.iter().map(|worker| (worker.name.clone(), worker.slots));
        let known = pools.clone().into_iter().chain(own).collect();
        let nodes = Fields::open(top.need("nodes")?, "`nodes`")?;
        top.finish()?;
        Ok(Self { cache: cache.unwrap_or_default(), nodes: read_nodes(nodes, &known)?, pools, workers })
    }
}

/// Reads the named pools, each with how many nodes run in it at once.
fn read_pools(tree: Tree) -> Result<BTreeMap<String, usize>, Problem> {
    let mut pools = BTreeMap::new();
    for (name, tree) in Fields::open(tree, "`pools`")?.rest() {
        let size = match tree.value {
            Value::Int(number) if number >= 1 => usize::try_from(number).ok(),
            _ => None,
        };
        let message = || format!("`{}` must be how many nodes run at once, 1 or more", name.text);
        pools.insert(name.text.clone(), size.ok_or_else(|| Problem::new(tree.at, message()))?);
    }
    Ok(pools)
}

fn read_version(top: &mut Fields) -> Result<(), Problem> {
    let version = top.need("version")?;
    match version.value {
        Value::Int(1) => Ok(()),
        _ => Err(Problem::new(version.at, "this pipeline reads `version: 1`")),
    }
}

/// Reads the nodes. First every `matrix` is expanded, because a benchmark may name what it expands to.
fn read_nodes(nodes: Fields, pools: &BTreeMap<String, usize>) -> Result<Vec<Node>, Problem> {
    let mut patterns = Patterns::default();
    let mut written = Vec::new();
    for (key, tree) in nodes.rest() {
        run::check_matrix(&tree)?;
        written.extend(patterns.expand(key, tree)?);
    }
    let mut names = HashSet::with_capacity(written.len());
    if let Some((key, _)) = written.iter().find(|(key, _)| !names.insert(key.text.as_str())) {
        return Err(Problem::new(key.at, format!("there are two nodes called `{}`", key.text)));
    }
    drop(names);
    let mut folded = HashMap::with_capacity(written.len());
    for (key, _) in &written {
        if let Some(other) = folded.insert(fold(&key.text), &key.text) {
            let why = "many disks do not tell them apart, and each is a name in `artifacts/`";
            return Err(Problem::new(key.at, format!("`{}` and `{other}` are alike: {why}", key.text)));
        }
    }
    drop(folded);
    written.into_iter().map(|(key, tree)| read_node(key, tree, &patterns, pools)).collect()
}

fn read_node(
    key: Key,
    tree: Tree,
    patterns: &Patterns,
    pools: &BTreeMap<String, usize>,
) -> Result<Node, Problem> {
    check_name(&key)?;
    let mut fields = Fields::open(tree, format!("node `{}`", key.text))?;
    let words = ["base", "adapter", "files", "fuse", "quantize", "probe", "benchmark", "run"]
        .map(|word| (word, word));
    let Some(word) = fields.word("stage", &words)? else {
        return Err(fields.missing("stage"));
    };
    let mut inputs = Vec::new();
    let (mut source, mut pool) = (None, None);
    let stage = match word {
        "base" | "adapter" => {
            source = Some(read_source(&mut fields)?);
            if word == "base" { Stage::Base } else { Stage::Adapter }
        }
        "files" => {
            source = Some(read_source(&mut fields)?);
            let hub = source.as_ref().filter(|source| source.hub().is_some());
            if let Some(Source { at, .. }) = hub {
                return Err(Problem::new(
                    *at,
                    "`files` takes in a file or a folder that is here, not one of the hub",
                ));
            }
            Stage::Files
        }
        "run" => {
            pool = run::read_pool(&mut fields, pools)?;
            Stage::Run(run::read(&mut fields, &mut inputs)?)
        }
        "fuse" => {
            inputs = vec![read_input(&mut fields, "model")?];
            Stage::Fuse(fuse::read(&mut fields, &mut inputs)?)
        }
        "quantize" => {
            inputs = vec![read_input(&mut fields, "model")?];
            let probe = fields.take(PROBE_ROLE).map(|tree| read_part(PROBE_ROLE, tree)).transpose()?;
            let at = probe.as_ref().map(|probe| probe.at);
            inputs.extend(probe);
            Stage::Quantize(quantize::read(&mut fields, at)?)
        }
        "probe" => {
            inputs = vec![read_input(&mut fields, "model")?];
            source = probe::read_text(&mut fields)?;
            Stage::Probe(probe::read(&mut fields)?)
        }
        _ => {
            let (path, at) = fields.text("suite")?;
            source = Some(Source { location: SourceLocation::Disk(path), at });
            Stage::Benchmark(benchmark::read(&mut fields, &mut inputs, patterns)?)
        }
    };
    let temporary = !stage.is_reference() && fields.flag("temporary")?;
    if temporary && !stage.is_deterministic() {
        let message =
            "a node with `deterministic: false` cannot be temporary: made again, it would be another";
        return Err(Problem::new(key.at, message));
    }
    fields.finish()?;
    Ok(Node { name: key.text, at: key.at, stage, inputs, source, pool, temporary })
}

/// Checks the name of a node. It becomes a link in `artifacts/`, so it must be a plain file name.
fn check_name(key: &Key) -> Result<(), Problem> {
    let plain = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '.' | '+');
    let name = &key.text;
    if name.is_empty()
        || name.starts_with(['.', '-'])
        || !name.chars().all(plain)
        || fold(name) == "readme.md"
    {
        let rule = "use letters, digits, `-`, `_`, `+` and `.`, and begin with a letter or a digit";
        return Err(Problem::new(key.at, format!("`{name}` cannot name a node: {rule}")));
    }
    if name.len() > LONGEST_NAME {
        let message =
            format!("the name of a node has at most {LONGEST_NAME} bytes, and this one has {}", name.len());
        return Err(Problem::new(key.at, message));
    }
    Ok(())
}

fn read_source(fields: &mut Fields) -> Result<Source, Problem> {
    let (text, at) = fields.text("source")?;
    let place = match text.strip_prefix(origin::PREFIX) {
        Some(hub) => {
            SourceLocation::Hub(HubSource::parse(hub).map_err(|error| Problem::new(at, error.to_string()))?)
        }
        None => SourceLocation::Disk(text),
    };
    Ok(Source { location: place, at })
}

fn read_input(fields: &mut Fields, role: &'static str) -> Result<Input, Problem> {
    read_part(role, fields.need(role)?)
}

/// Reads an input in the role `role`: the name of a node, or `{node: NAME, path: PATH}` for a folder inside its
/// artifact.
fn read_part(role: &str, tree: Tree) -> Result<Input, Problem> {
    let (at, kind) = (tree.at, tree.kind());
    match tree.value {
        Value::Text(node) => Ok(Input { role: role.to_owned(), node, at, path: None }),
        Value::Map(_) => {
            let mut fields = Fields::open(tree, format!("`{role}`"))?;
            let (node, at) = fields.text("node")?;
            let (path, place) = fields.text("path")?;
            fields.finish()?;
            Ok(Input { role: role.to_owned(), node, at, path: Some(check_path(path, place)?) })
        }
        _ => {
            let message =
                format!("`{role}` must be the name of a node or `{{node: NAME, path: PATH}}`, not {kind}");
            Err(Problem::new(at, message))
        }
    }
}

/// Checks a path inside an artifact.
fn check_path(path: String, at: At) -> Result<String, Problem> {
    let plain = path.strip_suffix('/').unwrap_or(&path).to_owned();
    let is_inside = |part: &str| !matches!(part, "" | "." | "..") && !part.contains(['\\', '\0']);
    match plain.split('/').all(is_inside) {
        true => Ok(plain),
        false => Err(Problem::new(
            at,
            format!("`{path}` is not a path inside an artifact, such as `checkpoints/600`"),
        )),
    }
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
                    q: {stage: quantize, model: m, bits: 4}\n  h: {stage: base, source: 'hf:o/n'}\n  \
                    b: {stage: benchmark, suite: s, device: cpu, configs: {w: m, z: {model: m, adapter: a, tokenizer: adapter}}, reference: w,\n      \
                    gates: {z: {kl: '<= 0.1'}}, verdicts: {z: {against: w, optimal: {disk: '<= 0.7x'}}}}";
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
        let own = "version: 1\nnodes:\n  b: {stage: benchmark, suite: s, configs: {a: {model: m, tokenizer: adapter}}}";
        assert!(
            message(own).ends_with("`tokenizer: adapter` is for a config with an `adapter`"),
            "{}",
            message(own)
        );
    }

    #[test]
    fn says_what_and_where() {
        assert_eq!(message("nodes: {}"), "1:1: the pipeline file needs `version`");
        assert_eq!(
            message("version: 1\nnodes:\n  q: {stage: quantise, model: m}"),
            "3:14: `stage` must be one of base, adapter, files, fuse, quantize, probe, benchmark, run, not `quantise`; did you mean `quantize`?"
        );
        let two = "version: 1\nnodes:\n  q8: {stage: base, source: s}\n  Q8: {stage: base, source: s}\n";
        assert!(message(two).starts_with("4:3: `Q8` and `q8` are alike: many disks"), "{}", message(two));
        let long = format!("version: 1\nnodes:\n  {}: {{stage: base, source: s}}\n", "n".repeat(245));
        assert_eq!(message(&long), "3:3: the name of a node has at most 200 bytes, and this one has 245");
        assert_eq!(
            message("version: 1\nnodes:\n  a/b: {stage: base}").split(':').nth(2),
            Some(" `a/b` cannot name a node")
        );
    }

    /// Returns the names of the nodes, and the roles of the last one's inputs.
    fn expanded(nodes: &str) -> Result<(Vec<String>, Vec<String>), String> {
        let manifest = Manifest::parse(&format!("version: 1\nnodes:\n{nodes}"));
        let manifest = manifest.map_err(|problem| problem.to_string())?;
        let last = manifest.nodes.last().unwrap();
        let roles = last.inputs.iter().map(|input| format!("{}={}", input.role, input.node)).collect();
        Ok((manifest.nodes.iter().map(|node| node.name.clone()).collect(), roles))
    }

    const SWEEP: &str = "  \"{bits}bit-g{group_size}\": {stage: quantize, model: m, matrix: {bits: [8, 4], group_size: [32, 64]}}\n";

    #[test]
    fn a_matrix_is_a_node_for_each_choice() {
        let config = "\"{bits}bit-g{group_size}\"";
        let rest = format!("  b: {{stage: benchmark, suite: s, configs: {{{config}: {config}}}}}");
        let (names, roles) = expanded(&(SWEEP.to_owned() + &rest)).unwrap();
        assert_eq!(names, ["8bit-g32", "8bit-g64", "4bit-g32", "4bit-g64", "b"]);
        assert_eq!(roles[3], "4bit-g64.model=4bit-g64");
        let (names, roles) =
            expanded("  \"f-{run}\": {stage: fuse, model: m, adapter: \"a-{run}\", matrix: {run: [u, v]}}")
                .unwrap();
        assert_eq!((names[1].as_str(), roles[1].as_str()), ("f-v", "adapter=a-v"));
    }

    #[test]
    fn a_matrix_that_makes_no_sense_is_refused() {
        let refused = |nodes: &str| expanded(nodes).unwrap_err();
        let node = |name: &str, matrix: &str| {
            format!("  \"{name}\": {{stage: quantize, model: m, matrix: {matrix}}}\n")
        };
        assert_eq!(
            refused(&node("{bits}bit", "{bits: [8], group_size: [32, 64]}")),
            "3:3: the matrix makes two nodes called `8bit`: the name needs {bits} and {group_size}"
        );
        assert!(refused(&node("{bit}bit", "{bits: [8]}")).contains("`{bit}bit` cannot name a node"));
        assert!(
            refused(&node("{bits}", "{bits: 8}")).contains("`bits` must be a list of values, not a number")
        );
        assert!(refused(&node("{bits}", "{bits: [7]}")).contains("not 7: MLX has no other"));
        assert!(refused(&node("{bots}", "{bots: [7]}")).contains("unknown key `bots` in node `7`"));
        assert!(refused(&node("q", "{}")).contains("`matrix` is empty"));
        let many: Vec<_> = (0..40).map(|n| n.to_string()).collect();
        let many = many.join(", ");
        assert!(
            refused(&node("{a}{b}", &format!("{{a: [{many}], b: [{many}]}}"))).contains("1 to 1000 nodes")
        );
        let twice = SWEEP.to_owned() + "  8bit-g32: {stage: base, source: s}";
        assert_eq!(refused(&twice), "4:3: there are two nodes called `8bit-g32`");
    }

    #[test]
    fn questions_are_asked_of_configs_that_are_there() {
        let wrong = |rest: &str| {
            let node = "  b: {stage: benchmark, suite: s, configs: {8bit: m, 6bit: m}, ";
            expanded(&(node.to_owned() + rest + "}")).unwrap_err().splitn(3, ':').nth(2).unwrap().to_owned()
        };
        assert_eq!(
            wrong("gates: {8bi: {accuracy: '>= 1'}}"),
            " there is no config `8bi`; did you mean `8bit`?"
        );
        assert_eq!(
            wrong("gates: {8bit: {acuracy: '>= 1'}}"),
            " `acuracy` cannot be asked for; did you mean `accuracy`?"
        );
        assert_eq!(
            wrong("gates: {8bit: {accuracy: 1}}"),
            " `accuracy` must be a text such as \">= 0.9\", not a number"
        );
        assert_eq!(
            wrong("gates: {8bit: {disk: '<= 0.7x'}}"),
            " `<= 0.7x` is a factor, but `against` does not say on which config"
        );
        assert_eq!(
            wrong("verdicts: {8bit: {otherwise: x}}"),
            " the verdict on `8bit` needs `optimal` or `minimum`"
        );
        assert_eq!(wrong("reference: base"), " there is no config `base`");
    }
}
