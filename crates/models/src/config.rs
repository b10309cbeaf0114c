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
        // mlx-lm reads `rope_parameters` for some architectures only. The others would run badly without it.
        let mut value = self.value.clone();
        if let Some(keys) = value.as_object_mut() {
            add_older_rope_keys(keys).with_context(|| format!("cannot use {path}"))?;
            let defaults: Map<String, Value> =
                serde_json::from_str(F::DEFAULTS).context("BUG: the defaults")?;
            for (key, default) in defaults {
                keys.entry(key).or_insert(default);
            }
        }
        let family = F::deserialize(&value).with_context(|| format!("cannot use {path}"))?;
        let args = family.decoder(self.is_tied).with_context(|| path.to_string())?;
        args.check().with_context(|| path.to_string())?;
        Ok(args)
    }
}

/// Reads a JSON file of a model or adapter folder.
pub(crate) fn read_json(path: &Path) -> Result<Value> {
    Ok(Value::Object(weights::checkpoint::read_json(path)?))
}

/// Like [`read_json`], but for a file that a folder may lack.
pub(crate) fn read_json_if_present(path: &Path) -> Result<Option<Value>> {
    if path.exists() { read_json(path).map(Some) } else { Ok(None) }
}
