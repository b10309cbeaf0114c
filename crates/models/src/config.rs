//! A model folder's `config.json`: which architecture it is, and its arguments.
//! Knows neither tensors nor what an architecture computes.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::rope_scaling::RopeConfig;
use super::runtime::Runtime;
use weights::arch::Arch;
use weights::checkpoint::Checkpoint;

/// The keys that an architecture reads from `config.json`.
pub(crate) trait ModelArgs: DeserializeOwned {
    /// Whether `rope_parameters` is one of these keys.
    const READS_ROPE_PARAMETERS: bool = false;

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
        // `rope_parameters` is the newer spelling of rope_theta and rope_scaling, which mlx-lm reads for some
        // architectures only. If it were ignored, the model would run badly, with a default base.
        let newer = self.value.get("rope_parameters").is_some_and(|value| !value.is_null());
        let newer_only = newer && self.value.get("rope_theta").is_none() && !A::READS_ROPE_PARAMETERS;
        let path = self.path.display();
        ensure!(!newer_only, "{path}: rope_parameters without rope_theta is not supported");
        let args = A::deserialize(&self.value).with_context(|| format!("cannot use {path}"))?;
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
