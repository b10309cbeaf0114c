//! A LoRA adapter in mlx-lm's format, applied at run time to the linears it was trained on.
//! Knows nothing of the weights it is added to.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use mlx_rs::{Array, ops};
use serde::Deserialize;
use serde_json::Value;

use super::config::read_json;
use super::device;
use super::weights::load_safetensors;

#[derive(Deserialize)]
struct LoraParameters {
    rank: i32,
    scale: f32,
}

/// The tensors of `adapters.safetensors` that no linear has taken yet.
pub(crate) struct Adapter {
    file: PathBuf,
    parameters: LoraParameters,
    tensors: HashMap<String, Array>,
}

impl Adapter {
    /// Reads `adapter_config.json` and `adapters.safetensors`.
    pub(crate) fn read(folder: &Path) -> Result<Self> {
        let parameters = read_parameters(&folder.join("adapter_config.json"))?;
        let file = folder.join("adapters.safetensors");
        let tensors = load_safetensors(&file)?;
        Ok(Self { file, parameters, tensors })
    }

    /// Takes the update of the linear at `path`, whose weight is `[output, input]`.
    pub(crate) fn take(&mut self, path: &str, input: i32, output: i32) -> Result<Option<Lora>> {
        let rank = self.parameters.rank;
        let lora_a = self.take_factor(&format!("{path}.lora_a"), [input, rank])?;
        let lora_b = self.take_factor(&format!("{path}.lora_b"), [rank, output])?;
        match (lora_a, lora_b) {
            (Some(lora_a), Some(lora_b)) => {
                let scale = Array::from_f32(self.parameters.scale);
                Ok(Some(Lora { lora_a, lora_b, scale }))
            }
            (None, None) => Ok(None),
            _ => bail!("{}: {path} has only one of lora_a and lora_b", self.file.display()),
        }
    }

    /// Refuses tensors that no linear took.
    pub(crate) fn finish(self) -> Result<()> {
        let names: BTreeSet<&str> = self.tensors.keys().map(String::as_str).collect();
        let names: Vec<&str> = names.into_iter().collect();
        let file = self.file.display();
        ensure!(names.is_empty(), "{file}: no linear of this model takes {}", names.join(", "));
        Ok(())
    }

    fn take_factor(&mut self, name: &str, shape: [i32; 2]) -> Result<Option<Array>> {
        let Some(factor) = self.tensors.remove(name) else {
            return Ok(None);
        };
        let file = self.file.display();
        let found = factor.shape();
        ensure!(found == shape, "{file}: {name} has shape {found:?}, its linear wants {shape:?}");
        device::to_activation_dtype(factor).map(Some)
    }
}

fn read_parameters(path: &Path) -> Result<LoraParameters> {
    let config = read_json(path)?;
    // As in mlx-lm, adapters from before this key are LoRA.
    let kind = config.get("fine_tune_type").and_then(Value::as_str).unwrap_or("lora");
    ensure!(kind == "lora", "{}: fine_tune_type {kind:?}, only \"lora\" fits", path.display());
    let parameters = config.get("lora_parameters").unwrap_or(&Value::Null);
    LoraParameters::deserialize(parameters).with_context(|| format!("lora_parameters in {}", path.display()))
}

/// The low-rank update of one linear: `lora_a` is `[input, rank]`, `lora_b` is `[rank, output]`.
pub(crate) struct Lora {
    lora_a: Array,
    lora_b: Array,
    scale: Array,
}

impl Lora {
    pub(crate) fn tensors(&self) -> [&Array; 2] {
        [&self.lora_a, &self.lora_b]
    }

    /// Returns `y` plus the update for `x`, cast where mlx-lm's `LoRALinear` casts.
    pub(crate) fn add(&self, y: &Array, x: &Array) -> Result<Array> {
        let z = ops::matmul(ops::matmul(x, &self.lora_a)?, &self.lora_b)?;
        // A Python number takes the array's dtype; a float32 scalar would widen a float16 `z`.
        let scaled = z.multiply(self.scale.as_dtype(z.dtype())?)?;
        Ok(y.add(scaled.as_dtype(x.dtype())?)?)
    }
}
