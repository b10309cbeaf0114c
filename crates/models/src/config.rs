//! A model folder's `config.json`: which architecture it is, and its arguments.
//! Knows neither tensors nor what an architecture computes.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::decoder::DecoderArgs;
use weights::arch::Arch;
use weights::checkpoint::{Checkpoint, add_older_rope_keys};

/// The keys that a family reads from `config.json`.
pub(crate) trait Family: DeserializeOwned {
    /// The values of keys that a configuration may lack, as JSON.
    const DEFAULTS: &str = "{}";

    /// Whether `rope_parameters` counts more than the older keys that say the same beside it.
    const ROPE_PARAMETERS_WIN: bool = false;

    /// Returns what the model is made of. `is_tied` says whether the embedding is the output head too.
    ///
    /// # Errors
    /// Fails if the keys contradict each other, or ask for what the family does not have.
    fn decoder(&self, is_tied: bool) -> Result<DecoderArgs>;
}

/// `config.json` of a checkpoint.
pub(crate) struct Config {
    path: PathBuf,
    value: Value,
    arch: &'static Arch,
    is_tied: bool,
}

impl Config {
    /// Takes the configuration of the checkpoint in `folder`.
    pub(crate) fn of(folder: &Path, checkpoint: &Checkpoint) -> Self {
        Self {
            path: folder.join("config.json"),
            value: Value::Object(checkpoint.config.clone()),
            arch: checkpoint.arch(),
            is_tied: checkpoint.is_tied(),
        }
    }

    /// Reads the configuration in `folder`. Whether the embedding is the output head cannot be known from it alone.
    pub(crate) fn read(folder: &Path) -> Result<Self> {
        let path = folder.join("config.json");
        let config = weights::checkpoint::read_json(&path)?;
        let arch = weights::arch::of_config(&config);
        Ok(Self { path, value: Value::Object(config), arch, is_tied: false })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn model_type(&self) -> Result<&str> {
        self.value
            .get("model_type")
            .and_then(Value::as_str)
            .with_context(|| format!("no model_type in {}", self.path.display()))
    }

    /// Returns what is known of the architecture.
    pub(crate) fn arch(&self) -> &'static Arch {
        self.arch
    }

    /// Returns the value of a key.
    pub(crate) fn get(&self, key: &str) -> Option<&Value> {
        self.value.get(key).filter(|value| !value.is_null())
    }

    /// Returns the configuration of the text model within this one. It is this one if there is no `text_config`.
    pub(crate) fn text(&self) -> Self {
        let value = self.get("text_config").unwrap_or(&self.value).clone();
        Self { path: self.path.clone(), value, arch: self.arch, is_tied: self.is_tied }
    }

    /// Sets a key.
    #[must_use]
    pub(crate) fn with(mut self, key: &str, value: Value) -> Self {
        if let Some(keys) = self.value.as_object_mut() {
            keys.insert(key.to_owned(), value);
        }
        self
    }

    /// Sets a key that is absent.
    #[must_use]
    pub(crate) fn or(self, key: &str, value: Value) -> Self {
        if self.value.get(key).is_some() { self } else { self.with(key, value) }
    }

    /// Reads the keys that a family names, ignores the others, and returns what the model is made of.
    pub(crate) fn decoder<F: Family>(&self) -> Result<DecoderArgs> {
        let path = self.path.display();
        let mut value = self.value.clone();
        if let Some(keys) = value.as_object_mut() {
            complete::<F>(keys).with_context(|| format!("cannot use {path}"))?;
        }
        let family = F::deserialize(&value).with_context(|| format!("cannot use {path}"))?;
        let args = family.decoder(self.is_tied).with_context(|| path.to_string())?;
        args.check().with_context(|| path.to_string())?;
        Ok(args)
    }
}

/// Adds what a configuration lacks: the older keys of the angles, and the defaults of the family.
///
/// mlx-lm reads `rope_parameters` for some architectures only. The others would run badly without it.
fn complete<F: Family>(keys: &mut Map<String, Value>) -> Result<()> {
    let mut defaults: Map<String, Value> = serde_json::from_str(F::DEFAULTS).context("BUG: the defaults")?;
    let newer = keys.get("rope_parameters").cloned().filter(|newer| !newer.is_null());
    if let Some(newer) = newer.or_else(|| defaults.remove("rope_parameters")) {
        if F::ROPE_PARAMETERS_WIN {
            let is_older = |key: &str| match key {
                "rope_theta" | "partial_rotary_factor" => newer.get(key).is_some(),
                "rope_scaling" => true,
                _ => false,
            };
            keys.retain(|key, _| !is_older(key));
        }
        keys.insert("rope_parameters".to_owned(), newer);
    }
    add_older_rope_keys(keys)?;
    for (key, default) in defaults {
        keys.entry(key).or_insert(default);
    }
    Ok(())
}

/// Reads a JSON file of a model or adapter folder.
pub(crate) fn read_json(path: &Path) -> Result<Value> {
    Ok(Value::Object(weights::checkpoint::read_json(path)?))
}

/// Like [`read_json`], but for a file that a folder may lack.
pub(crate) fn read_json_if_present(path: &Path) -> Result<Option<Value>> {
    if path.exists() { read_json(path).map(Some) } else { Ok(None) }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;
    use serde_json::json;

    use super::*;

    /// A family as `qwen3_5`: `rope_parameters` has a default, and counts more than what is beside it.
    #[derive(Deserialize)]
    struct Newer {}

    impl Family for Newer {
        const ROPE_PARAMETERS_WIN: bool = true;
        const DEFAULTS: &str = r#"{"rope_theta": 1.0, "rope_parameters": {"rope_theta": 2.0}}"#;

        fn decoder(&self, _: bool) -> Result<DecoderArgs> {
            anyhow::bail!("it has none")
        }
    }

    #[derive(Deserialize)]
    struct Older {}

    impl Family for Older {
        const DEFAULTS: &str = r#"{"rope_theta": 1.0}"#;

        fn decoder(&self, _: bool) -> Result<DecoderArgs> {
            anyhow::bail!("it has none")
        }
    }

    fn theta<F: Family>(mut config: Value) -> Value {
        let keys = config.as_object_mut().unwrap();
        complete::<F>(keys).unwrap();
        keys["rope_theta"].clone()
    }

    #[test]
    fn either_spelling_of_the_angles_may_count() {
        let both = json!({"rope_theta": 3.0, "rope_parameters": {"rope_theta": 4.0}});
        assert_eq!([theta::<Newer>(both.clone()), theta::<Older>(both)], [4.0, 3.0]);
        let old = json!({"rope_theta": 3.0});
        assert_eq!([theta::<Newer>(old.clone()), theta::<Older>(old)], [2.0, 3.0]);
        let scaled = json!({"rope_theta": 3.0, "rope_parameters": {"factor": 4.0}});
        assert_eq!([theta::<Newer>(scaled.clone()), theta::<Older>(scaled)], [3.0, 3.0]);
        assert_eq!([theta::<Newer>(json!({})), theta::<Older>(json!({}))], [2.0, 1.0]);
    }
}
