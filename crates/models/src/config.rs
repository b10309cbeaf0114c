//! A model folder's `config.json`: which architecture it is, its arguments, and how its weights are packed.
//! Knows neither tensors nor what an architecture computes.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::rope::{Rope, RopeArgs};
use weights::kernels::Mode;

/// The keys that an architecture reads from `config.json`.
pub(crate) trait ModelArgs: DeserializeOwned {
    /// Whether `rope_parameters` is one of these keys.
    const READS_ROPE_PARAMETERS: bool = false;

    /// Fails if a number is impossible, so that none can cause a division by zero or an overflow.
    fn check(&self) -> Result<()>;
}

/// `config.json` as it is written.
pub(crate) struct Config {
    path: PathBuf,
    value: Value,
}

impl Config {
    pub(crate) fn read(folder: &Path) -> Result<Self> {
        let path = folder.join("config.json");
        let value = read_json(&path)?;
        Ok(Self { path, value })
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
    pub(crate) fn rope(&self, args: &RopeArgs) -> Result<Rope> {
        Rope::new(args).with_context(|| self.path.display().to_string())
    }

    /// Returns how the weights are quantized, or `None` if all are float.
    pub(crate) fn quantization(&self) -> Result<Option<Quantization>> {
        if let Some(value) = self.value.get("quantization").filter(|value| !value.is_null()) {
            let read = Quantization::read(value);
            return read.with_context(|| format!("quantization in {}", self.path.display())).map(Some);
        }
        // Without MLX's own key, `quantization_config` belongs to another packing (AWQ, GPTQ, FP8, …).
        if let Some(foreign) = self.value.get("quantization_config").filter(|v| !v.is_null()) {
            let method = foreign.get("quant_method").unwrap_or(&Value::Null);
            bail!("{}: quant_method {method} is not supported, only MLX's", self.path.display());
        }
        Ok(None)
    }
}

/// How one matrix is packed: `bits` per weight, one scale per `group_size` weights, and in the affine mode
/// one bias too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct Packing {
    pub(crate) group_size: i32,
    pub(crate) bits: i32,
    #[serde(default = "affine")]
    pub(crate) mode: Mode,
}

fn affine() -> Mode {
    Mode::Affine
}

/// `quantization` of `config.json`: the modules that it names, each with its own packing or left float.
///
/// The default packing beside them is not kept. mlx-lm infers it from the shapes of the tensors, because
/// converted models are known to have a wrong default.
pub(crate) struct Quantization {
    overrides: BTreeMap<String, Option<Packing>>,
}

impl Quantization {
    fn read(value: &Value) -> Result<Self> {
        let modules = value.as_object().context("not an object")?;
        ensure_known(value)?;
        let mut overrides = BTreeMap::new();
        for (path, entry) in modules {
            if entry.is_object() {
                ensure_known(entry).with_context(|| path.clone())?;
                let packing = Packing::deserialize(entry).with_context(|| path.clone())?;
                overrides.insert(path.clone(), Some(packing));
            } else if entry == &Value::Bool(false) {
                overrides.insert(path.clone(), None);
            }
        }
        Ok(Self { overrides })
    }

    /// Returns what the config says about the module at `path`: nothing (`None`), that it is left float
    /// (`Some(None)`), or its packing.
    pub(crate) fn named(&self, path: &str) -> Option<Option<Packing>> {
        self.overrides.get(path).copied()
    }
}

fn ensure_known(quantization: &Value) -> Result<()> {
    let mode = quantization.get("mode").and_then(Value::as_str).unwrap_or("affine");
    let known = Mode::WORDS.map(|(word, _)| word);
    ensure!(known.contains(&mode), "quantization mode {mode:?} is not supported, only {}", known.join(", "));
    Ok(())
}

/// Reads a JSON file of a model or adapter folder.
pub(crate) fn read_json(path: &Path) -> Result<Value> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("{} is not JSON", path.display()))
}

/// Like [`read_json`], but for a file that a folder may lack.
pub(crate) fn read_json_if_present(path: &Path) -> Result<Option<Value>> {
    if path.exists() { read_json(path).map(Some) } else { Ok(None) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn overrides_are_read_by_module_path() {
        let value = json!({
            "group_size": 64, "bits": 4, "mode": "affine",
            "lm_head": {"group_size": 32, "bits": 8},
            "model.embed_tokens": false,
        });
        let quantization = Quantization::read(&value).unwrap();
        let packing = Packing { group_size: 32, bits: 8, mode: Mode::Affine };
        assert_eq!(quantization.named("lm_head"), Some(Some(packing)));
        assert_eq!(quantization.named("model.embed_tokens"), Some(None));
        assert_eq!(quantization.named("model.layers.0.mlp.up_proj"), None);
    }

    #[test]
    fn other_modes_are_refused() {
        let error = Quantization::read(&json!({"mode": "gguf"})).err().unwrap();
        assert!(error.to_string().contains("\"gguf\" is not supported, only affine, mxfp4, mxfp8, nvfp4"));
    }
}
