//! A recipe: everything that the bytes of one artifact depend on. Its hash is the key of the node, and its
//! differences from an older recipe are the answer to `pipeline why`.
//! Knows nothing of files, threads or the network.
//!
//! | enters a key | because |
//! |---|---|
//! | stage and parameters, defaults filled in | they are what the user asked for |
//! | the stage's code version | other code may write other bytes |
//! | the backend that computes | `cpu` and `mlx` may round differently |
//! | content digest of each input, by role | content, not history: an input rebuilt to the same bytes changes nothing |
//! | for a `quantize` node below a `fuse` node: also the digests of what that node began with (`base`) and made (`fused`) | how much of the fine-tuning survives is measured against them |
//! | for a source on the hub: repository and commit | a commit never changes, so the key is known without the files |
//! | the repository and commit that weights descend from | they are written beside the weights |
//!
//! | must never enter | because |
//! |---|---|
//! | times, `touch` | time is not content |
//! | paths, node names | machines share results although their folders differ |
//! | thread counts, `-j`, locale, environment | results do not depend on them |
//! | order of maps | two runs would differ |

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::origin::Origin;
use crate::stage::{Benchmark, Device, Stage};
use artifact::Digest;

/// Increased when the meaning of a recipe changes. Then every key changes.
const FORMAT: u32 = 1;

/// What an artifact is made of. The fields are in alphabetical order, because the recipe is hashed as
/// canonical JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recipe {
    backend: String,
    format: u32,
    inputs: BTreeMap<String, Digest>,
    /// Left out of the JSON if there is none, so that nodes from local folders have the keys they always had.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    origin: Option<Origin>,
    stage: Stage,
    version: u32,
}

/// One difference between two recipes, or another reason for a node to run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "change", rename_all = "snake_case")]
pub enum Change {
    /// There is no record of an earlier build on this machine.
    NeverBuilt,
    /// The build was forced.
    Forced,
    /// The node has another stage.
    Stage {
        /// The old stage.
        old: String,
        /// The new stage.
        new: String,
    },
    /// A parameter has another value.
    Parameter {
        /// Its name.
        name: String,
        /// What it was.
        old: Value,
        /// What it is.
        new: Value,
    },
    /// The stage's code was changed.
    Version {
        /// What it was.
        old: u32,
        /// What it is.
        new: u32,
    },
    /// The backend is another one.
    Backend {
        /// What it was.
        old: String,
        /// What it is.
        new: String,
    },
    /// The weights descend from another commit on the hub.
    Origin {
        /// What it was; `None` if it came from a folder.
        old: Option<Origin>,
        /// What it is; `None` if it comes from a folder.
        new: Option<Origin>,
    },
    /// The commit of a source on the hub is not known: no build has resolved it, or the source was changed
    /// since.
    Unresolved {
        /// The repository.
        repo: String,
        /// The branch or the tag.
        revision: String,
    },
    /// The files of this commit were never downloaded here.
    NeverDownloaded {
        /// The repository and commit.
        origin: Origin,
    },
    /// A file that was downloaded is gone from the hub's cache, or was altered there.
    NotDownloaded {
        /// Its path below the source.
        path: String,
    },
    /// The source is not there now.
    SourceMissing {
        /// Its path, as the pipeline file has it.
        path: String,
    },
    /// An input has other content.
    Input {
        /// Its role.
        role: String,
        /// The node, if the input is a node.
        node: Option<String>,
        /// What it was; `None` if there was no such input.
        old: Option<Digest>,
        /// What it is; `None` if there is no such input.
        new: Option<Digest>,
    },
    /// A file of the source has other content.
    File {
        /// Its path below the source.
        path: String,
        /// What it was; `None` if it is new.
        old: Option<Digest>,
        /// What it is; `None` if it is gone.
        new: Option<Digest>,
    },
    /// It was built, but a stored content is gone or was altered.
    Damaged {
        /// What is wrong.
        problem: String,
    },
    /// It was built, here or elsewhere, but its files are not here and cannot be fetched.
    FilesLost,
    /// Its command ran here with this recipe, and did not succeed.
    CommandFailed {
        /// Where its output is.
        log: PathBuf,
    },
    /// It was built, but it is temporary: its files went when no node needed them.
    Temporary,
    /// It was built, but the record of it is gone.
    RecordLost,
}

impl Recipe {
    /// Makes the recipe of `stage`, computed by `backend` from `inputs`: the content digests by role, as far as
    /// they are known. `is_measured` says that the node has an input in the role `base`.
    pub fn new(stage: Stage, backend: &str, inputs: BTreeMap<String, Digest>, is_measured: bool) -> Self {
        let version = stage.version(is_measured);
        Self { backend: backend.to_owned(), format: FORMAT, inputs, origin: None, version, stage }
    }

    /// Sets the commit on the hub that the weights descend from.
    #[must_use]
    pub fn with_origin(self, origin: Option<Origin>) -> Self {
        Self { origin, ..self }
    }

    /// Reads the recipe in a record. Returns `None` if another version of this program wrote it in another
    /// form.
    pub fn read(recorded: &Value) -> Option<Self> {
        let mut recipe: Self = serde_json::from_value(recorded.clone()).ok()?;
        if let Stage::Benchmark(benchmark) = &mut recipe.stage {
            benchmark.runs_on = Device::of_id(&recipe.backend).unwrap_or(Device::Mlx);
        }
        Some(recipe)
    }

    /// Returns the stage with its parameters.
    pub fn stage(&self) -> &Stage {
        &self.stage
    }

    /// Returns the repository and commit that the weights descend from.
    pub fn origin(&self) -> Option<&Origin> {
        self.origin.as_ref()
    }

    /// Returns what computes.
    pub fn backend(&self) -> &str {
        &self.backend
    }

    /// Returns the version of the stage's code.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// Returns the digests of the inputs, by role.
    pub fn inputs(&self) -> &BTreeMap<String, Digest> {
        &self.inputs
    }

    /// Returns the digest of the input in a role, if it is known.
    pub fn input(&self, role: &str) -> Option<Digest> {
        self.inputs.get(role).copied()
    }

    /// Returns the recipe of the measurement alone: a benchmark without gates and verdicts. These only judge
    /// the numbers, so benchmarks that differ in nothing else share the measurement. Returns `None` for other
    /// stages.
    pub fn measurement(&self) -> Option<Self> {
        let Stage::Benchmark(benchmark) = &self.stage else { return None };
        let benchmark = Benchmark { gates: Vec::new(), verdicts: Vec::new(), ..benchmark.clone() };
        Some(Self { stage: Stage::Benchmark(benchmark), ..self.clone() })
    }

    /// Returns the key of the action: the blake3 digest of the recipe as canonical JSON.
    pub fn key(&self) -> Digest {
        Digest::of_json(self)
    }

    /// Returns what changed since `old`, the most important first. `node_of` returns the name of the input
    /// node in a role.
    pub fn changes(&self, old: &Self, node_of: &dyn Fn(&str) -> Option<String>) -> Vec<Change> {
        let mut changes = Vec::new();
        if self.stage.word() == old.stage.word() {
            changes.extend(parameter_changes(&parameters(&old.stage), &parameters(&self.stage)));
        } else {
            let word = |stage: &Stage| stage.word().to_owned();
            changes.push(Change::Stage { old: word(&old.stage), new: word(&self.stage) });
        }
        if self.version != old.version && self.stage.word() == old.stage.word() {
            changes.push(Change::Version { old: old.version, new: self.version });
        }
        if self.backend != old.backend {
            changes.push(Change::Backend { old: old.backend.clone(), new: self.backend.clone() });
        }
        if self.origin != old.origin {
            changes.push(Change::Origin { old: old.origin.clone(), new: self.origin.clone() });
        }
        let roles: std::collections::BTreeSet<_> = old.inputs.keys().chain(self.inputs.keys()).collect();
        for role in roles {
            let (old, new) = (old.inputs.get(role).copied(), self.inputs.get(role).copied());
            if old != new {
                changes.push(Change::Input { role: role.clone(), node: node_of(role), old, new });
            }
        }
        changes
    }
}

fn parameters(stage: &Stage) -> Map<String, Value> {
    let value = serde_json::to_value(stage).expect("BUG: a stage has a JSON form");
    value.get("parameters").and_then(Value::as_object).cloned().unwrap_or_default()
}

fn parameter_changes(old: &Map<String, Value>, new: &Map<String, Value>) -> Vec<Change> {
    let names: std::collections::BTreeSet<_> = old.keys().chain(new.keys()).collect();
    let value = |map: &Map<String, Value>, name: &str| map.get(name).cloned().unwrap_or_default();
    let changed = names.into_iter().filter(|name| value(old, name) != value(new, name));
    changed
        .map(|name| Change::Parameter { name: name.clone(), old: value(old, name), new: value(new, name) })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use weights::checkpoint::Towers;
    use weights::kernels::{Mode, Rounding};
    use weights::rewrite::Quantize;

    fn recipe(bits: usize, input: &str) -> Recipe {
        let stage = Stage::Quantize(Quantize {
            auto: None,
            bits,
            group_size: 64,
            mode: Mode::Affine,
            overrides: Vec::new(),
            recipe: None,
            rounding: Rounding::Nearest,
            towers: Towers::Drop,
        });
        Recipe::new(stage, "cpu", [("model".to_owned(), Digest::of(input.as_bytes()))].into(), false)
    }

    #[test]
    fn equal_recipes_have_equal_keys_and_no_changes() {
        assert_eq!(recipe(8, "m").key(), recipe(8, "m").key());
        assert_ne!(recipe(8, "m").key(), recipe(6, "m").key());
        assert_ne!(recipe(8, "m").key(), recipe(8, "n").key());
        assert_eq!(recipe(8, "m").changes(&recipe(8, "m"), &|_| None), []);
    }

    #[test]
    fn a_key_is_never_changed_by_accident() {
        let json = serde_json::to_string(&recipe(8, "m")).unwrap();
        let input = Digest::of(b"m");
        assert_eq!(
            json,
            format!(
                r#"{{"backend":"cpu","format":1,"inputs":{{"model":"{input}"}},"stage":{{"stage":"quantize","parameters":{{"bits":8,"group_size":64,"mode":"affine","overrides":[],"recipe":null}}}},"version":3}}"#
            )
        );
    }

    #[test]
    fn an_origin_is_part_of_the_key() {
        let origin = |digit: &str| {
            Some(Origin { commit: digit.repeat(40).parse().unwrap(), repo: "org/name".to_owned() })
        };
        let (old, new) = (recipe(8, "m").with_origin(origin("1")), recipe(8, "m").with_origin(origin("2")));
        assert_ne!(old.key(), new.key());
        assert_eq!(new.changes(&old, &|_| None), [Change::Origin { old: origin("1"), new: origin("2") }]);
        let read: Recipe = serde_json::from_value(serde_json::to_value(&new).unwrap()).unwrap();
        assert_eq!(read, new);
    }

    #[test]
    fn names_what_changed() {
        let changes = recipe(5, "n").changes(&recipe(6, "m"), &|_| Some("fused".to_owned()));
        let parameter = Change::Parameter { name: "bits".to_owned(), old: 6.into(), new: 5.into() };
        let (old, new) = (Some(Digest::of(b"m")), Some(Digest::of(b"n")));
        assert_eq!(
            changes,
            [parameter, Change::Input { role: "model".to_owned(), node: Some("fused".to_owned()), old, new }]
        );
    }
}
