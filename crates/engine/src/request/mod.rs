//! What a worker is asked to make, and what it answers: two signed texts in the remote.
//! Knows nothing of where they are kept, nor of who is trusted.
//!
//! ```text
//! requests/KEY.json     the request: the recipe, and the files of each input by their digests
//! outcomes/KEY.json     how the last attempt ended, with the worker's machine, or with the error
//! ```
//! A worker believes nothing of a request but what its signer may say. That the recipe has the key, and that the inputs
//! are those of the recipe, is checked when it is read, by [`WorkRequest::parse`].

mod details;
mod outcome;

pub use details::Details;
pub use outcome::{Ending, WorkOutcome};

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::{Context, Result, fail, require};
use crate::machine;
use crate::recipe::Recipe;
use crate::stage::{BASE_ROLE, FILE_ROLE, OUT, Stage, is_name};
use artifact::{Artifact, Digest, FileEntry};
use report::SourceFacts;

/// The folder of requests in a remote.
pub const REQUESTS: &str = "requests";

/// The folder of outcomes in a remote.
pub const OUTCOMES: &str = "outcomes";

/// The type of a request in its envelope.
pub const REQUEST_TYPE: &str = "application/vnd.pipeline.request+json";

/// Increased when a request has another form.
const FORMAT: u32 = 1;

/// What a worker is asked to make.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WorkRequest {
    /// The form of the request.
    format: u32,
    /// The key of the recipe.
    pub key: Digest,
    /// The name of the node, for messages.
    pub node: String,
    /// The recipe as JSON.
    recipe: Value,
    /// What a command runs with and what is not part of its key.
    pub details: Option<Details>,
    /// The inputs, by role.
    pub inputs: BTreeMap<String, Given>,
    /// The file outside the graph, with the files beside it that it names.
    pub source: Option<GivenSource>,
    /// Whether messages may quote the source.
    pub may_quote: bool,
    /// The files of the project that a command sees, by their paths.
    pub project_files: BTreeMap<String, FileEntry>,
    /// What a benchmark is about: the bases and adapters, and the commit around the project.
    pub about: (Vec<SourceFacts>, Option<String>),
    /// The class of the machine that asks.
    pub asked_by: String,
    /// Whether it is made again although somebody has made it.
    pub again: bool,
}

/// Returns the files that the text of a request names; none if it is not a request.
pub fn files_of(text: &[u8]) -> Vec<FileEntry> {
    let request = serde_json::from_slice::<WorkRequest>(text);
    request.map(|request| request.files().cloned().collect()).unwrap_or_default()
}

/// An input of a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Given {
    /// Its files.
    pub artifact: Artifact,
    /// The folder or the file inside it that is meant; `None` if all of it is.
    pub path: Option<String>,
    /// Whether it is one file, and not a folder with a file in it.
    pub is_file: bool,
}

/// A source of a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GivenSource {
    /// The name of the file.
    pub name: String,
    /// The file, and those beside it.
    pub artifact: Artifact,
}

impl Given {
    /// Returns the files that are meant, with their paths in the artifact.
    pub fn files(&self) -> impl Iterator<Item = &FileEntry> {
        let is_meant = |file: &&FileEntry| match &self.path {
            None => true,
            Some(path) => file
                .path
                .strip_prefix(path.as_str())
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/')),
        };
        self.artifact.files().iter().filter(is_meant)
    }

    /// Returns the part that is meant.
    pub fn part(&self) -> Artifact {
        self.path.as_ref().map_or_else(|| self.artifact.clone(), |path| self.artifact.below(path))
    }
}

impl WorkRequest {
    /// Makes the request for `recipe`. Everything else is added by the caller.
    pub fn new(node: &str, recipe: &Recipe) -> Self {
        Self {
            format: FORMAT,
            key: recipe.key(),
            node: node.to_owned(),
            recipe: serde_json::to_value(recipe).expect("BUG: a recipe has a JSON form"),
            details: None,
            inputs: BTreeMap::new(),
            source: None,
            may_quote: false,
            project_files: BTreeMap::new(),
            about: (Vec::new(), None),
            asked_by: machine::class().to_owned(),
            again: false,
        }
    }

    /// Returns the request as JSON.
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("BUG: a request has a JSON form")
    }

    /// Reads the request for `key`, which a trusted key has signed, and checks it.
    ///
    /// # Errors
    /// Fails if the bytes are not a request, or if it contradicts itself.
    pub fn parse(bytes: &[u8], key: &Digest) -> Result<Self> {
        Self::parse_any(bytes)
            .and_then(|request| request.check(key).map(|()| request))
            .within(|| format!("the request for {}", key.short()))
    }

    fn parse_any(bytes: &[u8]) -> Result<Self> {
        let value: Value = serde_json::from_slice(bytes).unwrap_or_default();
        let is_ours = value.get("format").and_then(Value::as_u64) == Some(FORMAT.into());
        require!(is_ours, Source, "it is of another version of pipeline; install the same here and there");
        match serde_json::from_value(value) {
            Ok(request) => Ok(request),
            Err(error) => fail!(Source, "it is not a request: {}", text::shown(&error.to_string())),
        }
    }

    /// Returns the recipe.
    ///
    /// # Errors
    /// Fails if another version of this program wrote it.
    pub fn recipe(&self) -> Result<Recipe> {
        let Some(recipe) = Recipe::read(&self.recipe) else {
            fail!(Source, "it is of another version of pipeline; install the same version here and there");
        };
        Ok(recipe)
    }

    /// Returns the stage, with all that it runs with.
    ///
    /// # Errors
    /// Fails as [`Self::recipe`] does.
    pub fn stage(&self) -> Result<Stage> {
        let stage = self.recipe()?.stage().clone();
        Ok(match (stage, &self.details) {
            (Stage::Run(run), Some(details)) => Stage::Run(details.clone().complete(run)),
            (stage, _) => stage,
        })
    }

    /// Returns all files that a worker needs.
    pub fn files(&self) -> impl Iterator<Item = &FileEntry> {
        let source = self.source.iter().flat_map(|source| source.artifact.files());
        self.inputs.values().flat_map(Given::files).chain(source).chain(self.project_files.values())
    }

    /// Checks that the recipe has the key, that this version makes what it asks for, and that the inputs are
    /// those of the recipe.
    fn check(&self, key: &Digest) -> Result<()> {
        let recipe = self.recipe()?;
        require!(self.key == *key && recipe.key() == *key, Source, "its recipe has another key");
        let version = recipe.stage().version(recipe.input(BASE_ROLE).is_some());
        require!(
            recipe.version() == version,
            Source,
            "it asks for version {} of the stage `{}`, and this pipeline has {version}; install the same pipeline here and \
             there",
            recipe.version(),
            recipe.stage().word()
        );
        let inputs = self.inputs.values().map(|given| &given.artifact);
        for artifact in inputs.chain(self.source.as_ref().map(|source| &source.artifact)) {
            artifact.check().map_err(|error| crate::Error::Source(error.to_string()))?;
        }
        let has_file = |source: &GivenSource| source.artifact.file(&source.name).is_some();
        require!(self.source.as_ref().is_none_or(has_file), Source, "its source is not among its files");
        for (name, file) in &self.project_files {
            let is_plain = file.path == *name && file.check().is_ok();
            require!(is_plain, Source, "{} is not a path in a project", text::shown(name));
        }
        if let Stage::Run(run) = recipe.stage() {
            let Some(details) = &self.details else {
                fail!(Source, "it does not say how its command runs");
            };
            details.check()?;
            // A role is the name of a folder for the command.
            let is_plain = |role: &String| is_name(role) && role != OUT;
            require!(
                self.inputs.keys().all(is_plain),
                Source,
                "an input of its command has no name of a folder"
            );
            let named = details.clone().complete(run.clone()).project_files();
            let is_there = |file: &String| self.project_files.contains_key(file);
            require!(named.iter().all(is_there), Source, "its command names a file that it does not bring");
        }
        self.check_inputs(&recipe)
    }

    /// Checks that the inputs have the digests that the recipe names, and that none is missing.
    fn check_inputs(&self, recipe: &Recipe) -> Result<()> {
        let is_run = matches!(recipe.stage(), Stage::Run(_));
        let mut given = BTreeMap::new();
        for (role, input) in &self.inputs {
            let part = input.part();
            // A command may read all files, also those that differ from run to run.
            let digest = if is_run { part.digest() } else { part.reproducible_digest() };
            given.insert(role.clone(), digest);
        }
        given.extend(
            self.project_files.iter().map(|(name, file)| (format!("{FILE_ROLE}{name}"), file.digest)),
        );
        given.extend(self.source.as_ref().map(|source| ("source".to_owned(), source.artifact.digest())));
        require!(given == *recipe.inputs(), Source, "its inputs are not those of its recipe");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::stage::{Kind, Run};

    fn file(path: &str) -> FileEntry {
        FileEntry { digest: Digest::of(path.as_bytes()), path: path.to_owned(), size: 1, volatile: false }
    }

    fn request(role: &str, path: &str) -> WorkRequest {
        let run = Run {
            command: vec!["sh".to_owned(), "{file:a.sh}".to_owned()],
            deterministic: true,
            files: Vec::new(),
            env: vec!["SESSION".to_owned()],
            key_env: BTreeMap::new(),
            makes: Kind::Files,
            outputs: Vec::new(),
            timeout: None,
            tool: Vec::new(),
            version: None,
        };
        let details = Some(Details::of(&run));
        let given = Given { artifact: Artifact::new(vec![file(path)]), path: None, is_file: false };
        let script = file("a.sh");
        let inputs = [(role.to_owned(), given.part().digest()), ("file:a.sh".to_owned(), script.digest)];
        let recipe = Recipe::new(Stage::Run(run), "none", inputs.into(), false);
        let mut request = WorkRequest { details, ..WorkRequest::new("n", &recipe) };
        request.inputs.insert(role.to_owned(), given);
        request.project_files.insert("a.sh".to_owned(), script);
        request
    }

    fn refusal(request: &WorkRequest) -> String {
        let refused = WorkRequest::parse(&request.to_json(), &request.key);
        refused.map_or_else(|error| artifact::in_one_line(&error), |_| "none".to_owned())
    }

    #[test]
    fn a_request_says_what_its_recipe_says() {
        let sound = request("data", "hello");
        assert_eq!(refusal(&sound), "none");
        let other = WorkRequest::parse(&sound.to_json(), &Digest::of(b"other")).unwrap_err();
        assert!(artifact::in_one_line(&other).ends_with("its recipe has another key"), "{other}");
        let mut altered = sound.clone();
        altered.inputs.insert("data".to_owned(), request("data", "other").inputs.remove("data").unwrap());
        assert!(refusal(&altered).ends_with("its inputs are not those of its recipe"));
        let more = WorkRequest { inputs: request("more", "hello").inputs, ..sound.clone() };
        assert!(refusal(&more).ends_with("its inputs are not those of its recipe"));
        let newer = WorkRequest { format: FORMAT + 1, ..sound };
        assert!(refusal(&newer).contains("it is of another version of pipeline"));
    }

    #[test]
    fn nothing_in_a_request_leads_out() {
        for path in ["../x", "/x", "a/../../x", ""] {
            assert_ne!(refusal(&request("data", path)), "none", "{path}");
        }
        for role in ["..", "a/b", "", "out"] {
            assert!(refusal(&request(role, "hello")).contains("no name of a folder"), "{role}");
        }
        let mut sound = request("data", "hello");
        sound.project_files.clear();
        assert!(refusal(&sound).contains("a file that it does not bring"));
        let passing = |name: &str| {
            let mut value = serde_json::to_value(request("data", "hello")).unwrap();
            value["details"]["env"] = json!([name]);
            refusal(&serde_json::from_value(value).unwrap())
        };
        assert_eq!(passing("HF_HOME"), "none");
        for name in ["A=B", "PIPELINE_SIGNING_KEY"] {
            assert!(passing(name).contains("a variable that no command may have"), "{name}");
        }
    }
}
