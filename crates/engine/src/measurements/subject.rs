//! What a measurement is of: a configuration, what runs it, and the class of machine. Its digest is the key of
//! everything that was measured of it.
//! Knows nothing of suites: each answer is known by its question.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::machine;
use crate::recipe::Recipe;
use crate::sign::PublicKey;
use crate::stage::Stage;
use artifact::Digest;
use weights::rewrite::TokenizerOf;

/// Increased when the same question is measured in another way. Then nothing that was measured is used again.
const VERSION: u32 = 1;

/// What is measured. The fields are in alphabetical order, because it is hashed as canonical JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Subject {
    /// What runs the model.
    backend: String,
    /// The model, and the adapter if there is one, by role.
    inputs: BTreeMap<String, Digest>,
    /// The class of the machine: times of another class are not comparable.
    machine: &'static str,
    /// The version of this kind of record.
    measurement: u32,
    /// The version of this program: another one may be faster.
    pipeline: &'static str,
    /// Whose tokenizer the model has.
    tokenizer: TokenizerOf,
}

impl Subject {
    /// Returns the subject of each configuration of a benchmark, by name; none for other stages.
    pub(crate) fn all(recipe: &Recipe) -> BTreeMap<String, Self> {
        let Stage::Benchmark(benchmark) = recipe.stage() else { return BTreeMap::new() };
        let input = |config: &str, role: &'static str| {
            recipe.input(&format!("{config}.{role}")).map(|digest| (role.to_owned(), digest))
        };
        let subject = |name: &str, tokenizer: TokenizerOf| Self {
            backend: recipe.backend().to_owned(),
            inputs: ["adapter", "model"].into_iter().filter_map(|role| input(name, role)).collect(),
            machine: machine::class(),
            measurement: VERSION,
            pipeline: env!("CARGO_PKG_VERSION"),
            tokenizer,
        };
        let configs = benchmark.configs.iter();
        configs.map(|config| (config.name.clone(), subject(&config.name, config.tokenizer))).collect()
    }

    /// Returns the key of what is measured of it.
    pub(crate) fn key(&self) -> Digest {
        Digest::of_json(self)
    }

    /// Returns the key of what a member of the team has sent of it.
    pub(crate) fn key_of(&self, member: &PublicKey) -> Digest {
        Digest::of_json(&("measured by", self, member))
    }

    /// Returns the key of its log probabilities for a text.
    pub(crate) fn log_probabilities_key(&self, text: &Digest) -> Digest {
        Digest::of_json(&("log probabilities", self, text))
    }
}
