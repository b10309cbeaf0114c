//! The JSON form of a statement: the fields of in-toto and SLSA that we use.
//! Knows nothing of what makes a statement true.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::sign::Sha256;
use artifact::{Digest, FileEntry};

/// The type that says how to read `externalParameters`: as a recipe of this tool.
pub const BUILD_TYPE: &str = "urn:pipeline:stage:v1";

pub(super) const STATEMENT_TYPE: &str = "https://in-toto.io/Statement/v1";
pub(super) const PREDICATE_TYPE: &str = "https://slsa.dev/provenance/v1";
pub(super) const BUILDER: &str = "urn:pipeline";

/// An in-toto Statement, version 1: <https://github.com/in-toto/attestation/blob/main/spec/v1/statement.md>.
#[derive(Serialize, Deserialize)]
pub(super) struct Statement {
    #[serde(rename = "_type")]
    pub(super) kind: String,
    pub(super) subject: Vec<Subject>,
    #[serde(rename = "predicateType")]
    pub(super) predicate_type: String,
    pub(super) predicate: Provenance,
}

#[derive(Serialize, Deserialize)]
pub(super) struct Subject {
    pub(super) name: String,
    pub(super) digest: DigestSet,
    pub(super) annotations: SubjectNotes,
}

#[derive(Serialize, Deserialize)]
pub(super) struct DigestSet {
    pub(super) blake3: Digest,
    /// For tools that do not know blake3. Statements of older versions have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) sha256: Option<Sha256>,
}

impl DigestSet {
    pub(super) fn of(blake3: Digest) -> Self {
        Self { blake3, sha256: None }
    }
}

#[derive(Serialize, Deserialize)]
pub(super) struct SubjectNotes {
    pub(super) size: u64,
    pub(super) volatile: bool,
}

/// The SLSA provenance predicate, version 1.0: <https://slsa.dev/spec/v1.0/provenance>.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Provenance {
    pub(super) build_definition: BuildDefinition,
    pub(super) run_details: RunDetails,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct BuildDefinition {
    pub(super) build_type: String,
    pub(super) external_parameters: Value,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) internal_parameters: Option<InternalParameters>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) resolved_dependencies: Option<Vec<Dependency>>,
}

#[derive(Serialize, Deserialize)]
pub(super) struct InternalParameters {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) machine: Option<String>,
}

#[derive(Serialize, Deserialize)]
pub(super) struct Dependency {
    pub(super) name: String,
    pub(super) digest: DigestSet,
}

#[derive(Serialize, Deserialize)]
pub(super) struct RunDetails {
    pub(super) builder: Builder,
    pub(super) metadata: Metadata,
    pub(super) byproducts: Vec<Byproduct>,
}

#[derive(Serialize, Deserialize)]
pub(super) struct Builder {
    pub(super) id: String,
    #[serde(default)]
    pub(super) version: Value,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Metadata {
    pub(super) invocation_id: Digest,
    /// When it was signed. Statements of older versions have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) finished_on: Option<DateTime<Utc>>,
}

#[derive(Serialize, Deserialize)]
pub(super) struct Byproduct {
    pub(super) name: String,
    pub(super) digest: DigestSet,
    pub(super) annotations: RunNotes,
}

#[derive(Serialize, Deserialize)]
pub(super) struct RunNotes {
    pub(super) seconds: f64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) failure: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) tool: Option<String>,
}

impl Subject {
    pub(super) fn of(file: &FileEntry, sha256: Option<Sha256>) -> Self {
        let FileEntry { digest, path, size, volatile } = file.clone();
        Self {
            name: path,
            digest: DigestSet { blake3: digest, sha256 },
            annotations: SubjectNotes { size, volatile },
        }
    }

    pub(super) fn into_file(self) -> FileEntry {
        let SubjectNotes { size, volatile } = self.annotations;
        FileEntry { digest: self.digest.blake3, path: self.name, size, volatile }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use crate::attestation::tests::statement;

    /// Checks that an object has all required fields, and no others than the allowed ones.
    #[track_caller]
    fn has_fields(value: &Value, required: &[&str], allowed: &[&str]) {
        let fields: Vec<_> = value.as_object().unwrap().keys().map(String::as_str).collect();
        assert!(required.iter().all(|name| fields.contains(name)), "{fields:?} lacks one of {required:?}");
        let known = |name: &&&str| required.contains(*name) || allowed.contains(*name);
        assert!(fields.iter().all(|name| known(&name)), "{fields:?} has more than {required:?} {allowed:?}");
    }

    #[test]
    fn has_the_published_shape() {
        let statement = statement();
        // https://github.com/in-toto/attestation/blob/main/spec/v1/statement.md
        has_fields(&statement, &["_type", "subject", "predicateType", "predicate"], &[]);
        // https://github.com/in-toto/attestation/blob/main/spec/v1/resource_descriptor.md: one of `uri`,
        // `digest` and `content` is required. Here it is always the digest, which a subject needs anyway.
        let descriptor = |value: &Value| {
            let rest = ["name", "uri", "content", "downloadLocation", "mediaType", "annotations"];
            has_fields(value, &["digest"], &rest);
            assert_eq!(value["digest"]["blake3"].as_str().unwrap().len(), 64);
        };
        statement["subject"].as_array().unwrap().iter().for_each(descriptor);
        // https://slsa.dev/spec/v1.0/provenance
        let provenance = &statement["predicate"];
        has_fields(provenance, &["buildDefinition", "runDetails"], &[]);
        let definition = &provenance["buildDefinition"];
        let rest = ["internalParameters", "resolvedDependencies"];
        has_fields(definition, &["buildType", "externalParameters"], &rest);
        assert!(definition["externalParameters"].is_object() && definition["internalParameters"].is_object());
        definition["resolvedDependencies"].as_array().unwrap().iter().for_each(descriptor);
        let run = &provenance["runDetails"];
        has_fields(run, &["builder"], &["metadata", "byproducts"]);
        has_fields(&run["builder"], &["id"], &["builderDependencies", "version"]);
        assert!(run["builder"]["version"].as_object().unwrap().values().all(Value::is_string));
        has_fields(&run["metadata"], &[], &["invocationId", "startedOn", "finishedOn"]);
        run["byproducts"].as_array().unwrap().iter().for_each(descriptor);
        // Both standards require a type to be a URI, which begins with a scheme.
        for kind in ["/_type", "/predicateType", "/predicate/buildDefinition/buildType"] {
            assert!(statement.pointer(kind).unwrap().as_str().unwrap().contains(':'), "{kind}");
        }
    }
}
