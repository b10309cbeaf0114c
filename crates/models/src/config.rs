//! A model folder's `config.json`: which architecture it is, and its arguments.
//! Knows neither tensors nor what an architecture computes.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::rope_scaling::RopeConfig;
use super::runtime::Runtime;
use weights::arch::Arch;
use weights::checkpoint::{Checkpoint, add_older_rope_keys};

/// The keys that an architecture reads from `config.json`.
pub(crate) trait ModelArgs: DeserializeOwned {
    /// Fails if a number is impossible, so that none can cause a division by zero or an overflow.
    fn check(&self) -> Result<()>;
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

    /// Whether the embedding is the output head too.
    pub(crate) fn is_tied(&self) -> bool {
        self.is_tied
    }

    /// Reads the keys that an architecture's `Args` names, and ignores the others.
    pub(crate) fn args<A: ModelArgs>(&self) -> Result<A> {
        let path = self.path.display();
        // mlx-lm reads `rope_parameters` for some architectures only. The others would run badly without it.
        let mut value = self.value.clone();
        if let Some(keys) = value.as_object_mut() {
            add_older_rope_keys(keys).with_context(|| format!("cannot use {path}"))?;
        }
        let args = A::deserialize(&value).with_context(|| format!("cannot use {path}"))?;
        args.check().with_context(|| path.to_string())?;
        Ok(args)
    }

    /// Returns the rope for arguments that were checked.
    pub(crate) fn rope<R: Runtime>(&self, runtime: &R, config: &RopeConfig) -> Result<R::Rope> {
        let args = config.args().with_context(|| self.path.display().to_string())?;
        runtime.rope(&args)
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
