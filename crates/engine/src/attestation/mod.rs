//! The statement of one action: which recipe made which files, as an in-toto Statement with SLSA provenance.
//! Knows nothing of who signed it, nor of what a recipe means.
//!
//! | part of the action | place in the statement |
//! |---|---|
//! | the files | `subject`: path, blake3, sha256, and in `annotations` the size in bytes and whether it is volatile |
//! | the recipe without its inputs | `buildDefinition.externalParameters` |
//! | the recipe's inputs | `buildDefinition.resolvedDependencies`: role and blake3 |
//! | the machine | `buildDefinition.internalParameters.machine` |
//! | the key | `runDetails.metadata.invocationId` |
//! | when it was signed | `runDetails.metadata.finishedOn` |
//! | the artifact's digest | `digest` of the entry `artifact` in `runDetails.byproducts` |
//! | the seconds, the failure and the tool | `annotations` of the same entry |
//!
//! Fields that other programs add are ignored, as both standards demand. Our own fields are required, except
//! the machine, the inputs, the failure, the tool, and what older versions did not write: the time and the sha256.

mod statement;

pub use statement::BUILD_TYPE;

use std::collections::{BTreeMap, HashSet};

use chrono::{DateTime, Utc};
use serde_json::{Map, Value};
use statement::{
    BUILDER, BuildDefinition, Builder, Byproduct, Dependency, DigestSet, InternalParameters, Metadata,
    PREDICATE_TYPE, Provenance, RunDetails, RunNotes, STATEMENT_TYPE, Statement, Subject,
};

use crate::sign::Sha256;
use crate::store::Action;
use artifact::{Artifact, Digest, InvalidList};
use text::shown;

/// The type of a claim's text in the envelope, as a media type.
pub const PAYLOAD_TYPE: &str = "application/vnd.in-toto+json";

/// The name of the one byproduct.
const ARTIFACT: &str = "artifact";

/// The field of a recipe that holds its inputs.
const INPUTS: &str = "inputs";

/// What a statement says about an action. It may be false.
#[derive(Clone, Debug)]
pub struct Claim {
    /// The key of the recipe. It is not checked here that this is the key of [`Action::recipe`]: that needs
    /// knowledge of recipes.
    pub key: Digest,
    /// What went in and what came out.
    pub action: Action,
    /// The machine it was made on, if the statement names one.
    pub machine: Option<String>,
    /// When it was signed.
    pub signed: Option<DateTime<Utc>>,
    /// The SHA-256 of each file, by path.
    pub sha256: BTreeMap<String, Sha256>,
}

/// Why a text is not a claim.
#[derive(Debug, thiserror::Error)]
pub enum NotAClaim {
    /// It is not JSON, or lacks a field.
    #[error("it is not a statement of provenance: {0}")]
    Malformed(String),
    /// It is a statement of another kind.
    #[error("its `{field}` is `{}`, not `{expected}`", shown(.found))]
    Kind {
        /// The field that names the kind.
        field: &'static str,
        /// The value it must have.
        expected: &'static str,
        /// The value it has.
        found: String,
    },
    /// A folder cannot hold its files.
    #[error("its files are not an artifact")]
    Files(#[from] InvalidList),
    /// The artifact's digest is not the digest of the files.
    #[error("it states the artifact {}, but its files are {}", stated.short(), computed.short())]
    Digest {
        /// The digest it states.
        stated: Digest,
        /// The digest of the files it lists.
        computed: Digest,
    },
    /// Two inputs have the same role.
    #[error("it has the input `{}` twice", shown(.0))]
    Input(String),
    /// Its inputs are in two places.
    #[error("its inputs stand in `externalParameters` and in `resolvedDependencies`")]
    Inputs,
    /// Its duration is negative or not finite.
    #[error("it took {0} seconds, which cannot be")]
    Seconds(f64),
}

impl Claim {
    /// Returns the statement as JSON. The same claim always gives the same bytes.
    pub fn to_json(&self) -> Vec<u8> {
        let statement = Statement {
            kind: STATEMENT_TYPE.to_owned(),
            subject: self
                .action
                .artifact
                .files()
                .iter()
                .map(|file| Subject::of(file, self.sha256.get(&file.path).copied()))
                .collect(),
            predicate_type: PREDICATE_TYPE.to_owned(),
            predicate: Provenance { build_definition: self.definition(), run_details: self.run_details() },
        };
        serde_json::to_vec(&statement).expect("BUG: a statement has a JSON form")
    }

    fn definition(&self) -> BuildDefinition {
        let (external_parameters, resolved_dependencies) = take_inputs(&self.action.recipe);
        let internal_parameters =
            self.machine.clone().map(|machine| InternalParameters { machine: Some(machine) });
        BuildDefinition {
            build_type: BUILD_TYPE.to_owned(),
            external_parameters,
            internal_parameters,
            resolved_dependencies,
        }
    }

    fn run_details(&self) -> RunDetails {
        let Action { artifact, failure, seconds, tool, .. } = &self.action;
        RunDetails {
            builder: Builder {
                id: BUILDER.to_owned(),
                version: serde_json::json!({ "pipeline": env!("CARGO_PKG_VERSION") }),
            },
            metadata: Metadata { invocation_id: self.key, finished_on: self.signed },
            byproducts: vec![Byproduct {
                name: ARTIFACT.to_owned(),
                digest: DigestSet::of(artifact.digest()),
                annotations: RunNotes { seconds: *seconds, failure: failure.clone(), tool: tool.clone() },
            }],
        }
    }

    /// Reads a statement, which anybody may have written.
    ///
    /// # Errors
    ///
    /// Fails if the bytes are not the JSON of such a statement, the statement contradicts itself, or a folder
    /// cannot hold its files.
    pub fn parse(bytes: &[u8]) -> Result<Self, NotAClaim> {
        let statement: Statement =
            serde_json::from_slice(bytes).map_err(|error| NotAClaim::Malformed(shown(&error.to_string())))?;
        let Provenance { build_definition: definition, run_details: run } = statement.predicate;
        let kinds = [
            ("_type", STATEMENT_TYPE, statement.kind),
            ("predicateType", PREDICATE_TYPE, statement.predicate_type),
            ("buildType", BUILD_TYPE, definition.build_type),
            ("builder.id", BUILDER, run.builder.id),
        ];
        for (field, expected, found) in kinds {
            if found != expected {
                return Err(NotAClaim::Kind { field, expected, found });
            }
        }
        let sha256 = statement.subject.iter();
        let sha256 = sha256.filter_map(|file| Some((file.name.clone(), file.digest.sha256?))).collect();
        let artifact = Artifact::new(statement.subject.into_iter().map(Subject::into_file).collect());
        artifact.check()?;
        let RunNotes { seconds, failure, tool } = read_byproduct(run.byproducts, artifact.digest())?;
        let recipe = put_inputs_back(definition.external_parameters, definition.resolved_dependencies)?;
        let machine = definition.internal_parameters.and_then(|parameters| parameters.machine);
        let action = Action { artifact, failure, recipe, seconds, tool };
        let Metadata { invocation_id: key, finished_on: signed } = run.metadata;
        Ok(Self { key, action, machine, signed, sha256 })
    }
}

/// Splits a recipe into `externalParameters` and `resolvedDependencies`. If an input is not a digest, all
/// inputs stay in the first.
fn take_inputs(recipe: &Value) -> (Value, Option<Vec<Dependency>>) {
    let inputs = recipe.get(INPUTS).and_then(Value::as_object);
    let dependency = |(role, digest): (&String, &Value)| {
        let blake3 = digest.as_str()?.parse().ok()?;
        Some(Dependency { name: role.clone(), digest: DigestSet::of(blake3) })
    };
    let dependencies: Option<Vec<_>> =
        inputs.and_then(|inputs| inputs.iter().map(dependency).collect::<Option<_>>());
    let mut recipe = recipe.clone();
    if dependencies.is_some()
        && let Some(fields) = recipe.as_object_mut()
    {
        fields.shift_remove(INPUTS);
    }
    (recipe, dependencies)
}

/// Undoes [`take_inputs`]. A recipe's fields are in alphabetical order, so the place of the inputs is known.
fn put_inputs_back(recipe: Value, dependencies: Option<Vec<Dependency>>) -> Result<Value, NotAClaim> {
    let Value::Object(mut fields) = recipe else {
        return Err(NotAClaim::Malformed("`externalParameters` is not an object".to_owned()));
    };
    let Some(dependencies) = dependencies else { return Ok(Value::Object(fields)) };
    if fields.contains_key(INPUTS) {
        return Err(NotAClaim::Inputs);
    }
    let mut roles = HashSet::new();
    if let Some(twice) = dependencies.iter().find(|one| !roles.insert(one.name.as_str())) {
        return Err(NotAClaim::Input(twice.name.clone()));
    }
    drop(roles);
    let input = |one: Dependency| (one.name, Value::String(one.digest.blake3.to_string()));
    let inputs: Map<_, _> = dependencies.into_iter().map(input).collect();
    let place = fields.keys().position(|name| name.as_str() > INPUTS).unwrap_or(fields.len());
    fields.shift_insert(place, INPUTS.to_owned(), Value::Object(inputs));
    Ok(Value::Object(fields))
}

/// Returns the annotations of the byproduct `artifact`. Its digest must be `computed`.
fn read_byproduct(byproducts: Vec<Byproduct>, computed: Digest) -> Result<RunNotes, NotAClaim> {
    let mut ours = byproducts.into_iter().filter(|one| one.name == ARTIFACT);
    let (Some(one), None) = (ours.next(), ours.next()) else {
        return Err(NotAClaim::Malformed(format!("there must be one byproduct called `{ARTIFACT}`")));
    };
    let (stated, seconds) = (one.digest.blake3, one.annotations.seconds);
    if stated != computed {
        return Err(NotAClaim::Digest { stated, computed });
    }
    if !(seconds.is_finite() && seconds >= 0.0) {
        return Err(NotAClaim::Seconds(seconds));
    }
    Ok(one.annotations)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sign::{Envelope, NotBelieved, SecretKey};
    use artifact::FileEntry;
    use proptest::prelude::*;
    use serde_json::json;

    fn file(path: &str, size: u64, volatile: bool) -> FileEntry {
        FileEntry { digest: Digest::of(path.as_bytes()), path: path.to_owned(), size, volatile }
    }

    fn claim() -> Claim {
        let input = Digest::of(b"m");
        let recipe = json!({
            "backend": "cpu", "format": 1, "inputs": {"model": input, "base": input},
            "stage": {"stage": "quantize", "parameters": {"bits": 8, "scale": 0.1}}, "version": 3,
        });
        let files = vec![file("model.safetensors", u64::MAX - 1, false), file("timings.json", 1, true)];
        let action =
            Action { artifact: Artifact::new(files), failure: None, recipe, seconds: 0.1 + 0.2, tool: None };
        let signed = Some("2026-11-27T02:18:37Z".parse().unwrap());
        let sha256: Sha256 = serde_json::from_value(json!("ab".repeat(32))).unwrap();
        let sha256 = BTreeMap::from([("model.safetensors".to_owned(), sha256)]);
        let machine = Some("a laptop".to_owned());
        Claim { key: Digest::of(b"key"), action, machine, signed, sha256 }
    }

    /// A claim as text: all of it, including the order of the recipe's fields.
    fn text(claim: &Claim) -> String {
        let Claim { key, action, machine, signed, sha256 } = claim;
        format!("{key:?} {} {machine:?} {signed:?} {sha256:?}", serde_json::to_string(action).unwrap())
    }

    pub(super) fn statement() -> Value {
        serde_json::from_slice(&claim().to_json()).unwrap()
    }

    #[track_caller]
    fn refused(statement: &Value) -> String {
        artifact::in_one_line(&Claim::parse(statement.to_string().as_bytes()).unwrap_err())
    }

    fn at<'a>(statement: &'a mut Value, pointer: &str) -> &'a mut Value {
        statement.pointer_mut(pointer).unwrap_or_else(|| panic!("{pointer}"))
    }

    #[test]
    fn reads_what_it_wrote() {
        assert_eq!(text(&Claim::parse(&claim().to_json()).unwrap()), text(&claim()));
        for recipe in [json!({}), json!({"inputs": {}}), json!({"inputs": {"model": "no digest"}, "a": 1})] {
            let action = Action { recipe, failure: Some("a gate".to_owned()), ..claim().action };
            let other = Claim { action, machine: None, ..claim() };
            assert_eq!(text(&Claim::parse(&other.to_json()).unwrap()), text(&other));
        }
    }

    proptest! {
        #[test]
        fn reads_whatever_it_wrote(
            paths in proptest::collection::btree_map("[a-z]{1,3}", (any::<u32>(), any::<bool>()), 0..5),
            roles in proptest::collection::btree_map("\\PC{0,5}", any::<[u8; 4]>(), 0..4),
            failure in proptest::option::of(any::<String>()),
            machine in proptest::option::of(any::<String>()),
            seconds in 0.0..1e300_f64,
            number in any::<f64>(),
        ) {
            let inputs: std::collections::BTreeMap<_, _> =
                roles.iter().map(|(role, bytes)| (role, Digest::of(bytes))).collect();
            let recipe = json!({"backend": number, "inputs": inputs, "stage": {"a": [null, true]}});
            let files = paths.iter().map(|(path, (size, volatile))| file(path, u64::from(*size), *volatile));
            let action = Action { artifact: Artifact::new(files.collect()), failure, recipe, seconds, tool: None };
            let key = Digest::of(b"k");
            let claim = Claim { key, action, machine, signed: None, sha256: BTreeMap::new() };
            prop_assert_eq!(text(&Claim::parse(&claim.to_json()).unwrap()), text(&claim));
        }

        #[test]
        fn survives_whatever_it_is_given(cut in any::<prop::sample::Index>(), byte in any::<u8>()) {
            let mut bytes = claim().to_json();
            let index = cut.index(bytes.len());
            bytes[index] = byte;
            let _ = Claim::parse(&bytes);
            let _ = Claim::parse(&bytes[..index]);
        }
    }

    #[test]
    fn refuses_what_contradicts_itself() {
        let wrong = |pointer: &str, value: Value| {
            let mut statement = statement();
            *at(&mut statement, pointer) = value;
            refused(&statement)
        };
        assert!(wrong("/_type", json!("x\u{1b}")).starts_with("its `_type` is `x\\u{1b}`, not `https://"));
        assert!(wrong("/predicateType", json!("x")).starts_with("its `predicateType`"));
        assert!(wrong("/predicate/buildDefinition/buildType", json!("x")).starts_with("its `buildType`"));
        assert!(wrong("/predicate/runDetails/builder/id", json!("x")).starts_with("its `builder.id`"));
        assert!(wrong("/subject/0/annotations/size", json!(2)).starts_with("it states the artifact"));
        assert!(
            wrong("/subject/0/digest/blake3", json!(Digest::of(b"x"))).starts_with("it states the artifact")
        );
        assert!(wrong("/subject/0/name", json!("../x")).contains("`../x` is not a relative path"));
        assert!(wrong("/subject/0/name", json!("timings.json")).contains("`timings.json` is listed twice"));
        assert!(wrong("/subject/0/name", json!("timings.json/a")).contains("as the folder of another"));
        for size in [json!(-1), json!(1.5), json!("1"), json!(1e30), json!(null)] {
            assert!(wrong("/subject/0/annotations/size", size).starts_with("it is not a statement"));
        }
        assert!(
            wrong("/predicate/runDetails/byproducts", json!([])).contains("one byproduct called `artifact`")
        );
        let seconds = "/predicate/runDetails/byproducts/0/annotations/seconds";
        assert_eq!(wrong(seconds, json!(-1)), "it took -1 seconds, which cannot be");
        assert!(wrong(seconds, json!(null)).starts_with("it is not a statement"));
        let definition = "/predicate/buildDefinition";
        let inputs = wrong(&format!("{definition}/externalParameters"), json!({"inputs": {}}));
        assert!(inputs.contains("`externalParameters` and in `resolvedDependencies`"));
        assert!(wrong(&format!("{definition}/externalParameters"), json!([])).contains("is not an object"));
        let twice = wrong(&format!("{definition}/resolvedDependencies/0/name"), json!("base"));
        assert_eq!(twice, "it has the input `base` twice");
    }

    #[test]
    fn whatever_is_altered_the_signature_notices() {
        let key = SecretKey::generate().unwrap();
        let sealed = Envelope::seal(PAYLOAD_TYPE, claim().to_json(), &key);
        let (bytes, by) = sealed.open(PAYLOAD_TYPE, &[key.public()]).unwrap();
        assert_eq!((text(&Claim::parse(&bytes).unwrap()), by), (text(&claim()), key.public()));
        let other = json!(Digest::of(b"other"));
        let alterations = [
            ("/subject/0/digest/blake3", other.clone()),
            ("/subject/0/annotations/size", json!(7)),
            ("/subject/1/annotations/volatile", json!(false)),
            ("/subject/0/name", json!("other")),
            ("/predicate/runDetails/metadata/invocationId", other.clone()),
            ("/predicate/runDetails/metadata/finishedOn", json!("2027-01-01T00:00:00Z")),
            ("/subject/0/digest/sha256", json!("cd".repeat(32))),
            ("/predicate/runDetails/byproducts/0/digest/blake3", other.clone()),
            ("/predicate/runDetails/byproducts/0/annotations/seconds", json!(7)),
            ("/predicate/buildDefinition/externalParameters/version", json!(7)),
            ("/predicate/buildDefinition/internalParameters/machine", json!("other")),
            ("/predicate/buildDefinition/resolvedDependencies/0/digest/blake3", other),
        ];
        for (pointer, value) in alterations {
            let mut statement = statement();
            *at(&mut statement, pointer) = value;
            let forged = Envelope { payload: serde_json::to_vec(&statement).unwrap(), ..sealed.clone() };
            let error = forged.open(PAYLOAD_TYPE, &[key.public()]).unwrap_err();
            assert!(matches!(error, NotBelieved::Forged(_)), "{pointer}: {error}");
        }
    }
}
