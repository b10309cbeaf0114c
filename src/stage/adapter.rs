//! `adapter`: a LoRA adapter folder in mlx-lm's format, and whether it fits a model.
//! Knows nothing of merging.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, bail, ensure};
use serde_json::Value;

use super::Checkpoint;
use super::checkpoint::read_json;
use crate::backend::Lora;
use crate::tensor::{Element, TensorFiles};
use crate::yaml::nearest;

const CONFIG_FILE: &str = "adapter_config.json";
const WEIGHTS_FILE: &str = "adapters.safetensors";

/// An adapter folder, opened and checked.
pub(super) struct Adapter {
    files: TensorFiles,
    scale: f32,
    /// The updated modules, each with its (in, rank, out).
    modules: BTreeMap<String, (usize, usize, usize)>,
}

impl Adapter {
    /// Opens an adapter folder.
    pub(super) fn open(folder: &Path) -> anyhow::Result<Self> {
        let config = read_json(&folder.join(CONFIG_FILE))?;
        let kind = config.get("fine_tune_type").and_then(Value::as_str).unwrap_or("lora");
        ensure!(
            kind == "lora",
            "{} is of `fine_tune_type: {kind}`; this version reads lora only",
            folder.display()
        );
        let parameter =
            |name: &str| config.get("lora_parameters").and_then(|parameters| parameters.get(name));
        let scale = parameter("scale").and_then(Value::as_f64);
        let scale = scale
            .with_context(|| format!("{}/{CONFIG_FILE} has no `lora_parameters.scale`", folder.display()))?;
        let files = TensorFiles::open(&folder.join(WEIGHTS_FILE))?;
        let modules =
            read_modules(&files).with_context(|| format!("in {}/{WEIGHTS_FILE}", folder.display()))?;
        if let Some(rank) = parameter("rank").and_then(Value::as_u64) {
            let other = modules.iter().find(|(_, (_, there, _))| *there as u64 != rank);
            if let Some((module, (_, there, _))) = other {
                bail!("{CONFIG_FILE} says rank {rank}, but `{module}.lora_a` has rank {there}");
            }
        }
        #[expect(
            clippy::cast_possible_truncation,
            reason = "mlx-lm multiplies by the float32 nearest to the scale"
        )]
        let scale = scale as f32;
        Ok(Self { files, scale, modules })
    }

    /// Checks that every update lands on a weight of fitting shape.
    pub(super) fn fits(&self, model: &Checkpoint) -> anyhow::Result<()> {
        let mut misfits = Vec::new();
        for (module, (columns, _, rows)) in &self.modules {
            let name = format!("{module}.weight");
            match model.weights().get(&name) {
                Some(weight) if weight.shape == [*rows, *columns] => {}
                Some(weight) => misfits.push(format!(
                    "`{module}` updates [{rows}, {columns}], but `{name}` is {:?}",
                    weight.shape
                )),
                None => {
                    let near = nearest(&name, model.weights().keys().map(String::as_str));
                    let near = near.map_or_else(String::new, |near| format!("; the nearest is `{near}`"));
                    misfits.push(format!("`{module}` updates `{name}`, which the model does not have{near}"));
                }
            }
        }
        if misfits.is_empty() {
            return Ok(());
        }
        let (count, all) = (misfits.len(), self.modules.len());
        misfits.truncate(5);
        bail!(
            "the adapter does not fit this model: {count} of {all} updates have no place\n  {}",
            misfits.join("\n  ")
        )
    }

    /// Whether there is an update of the weight `name`.
    pub(super) fn touches(&self, name: &str) -> bool {
        name.strip_suffix(".weight").is_some_and(|module| self.modules.contains_key(module))
    }

    /// Returns the update of the weight `name`, if there is one.
    pub(super) fn update(&self, name: &str) -> anyhow::Result<Option<Lora>> {
        let Some(module) = name.strip_suffix(".weight") else { return Ok(None) };
        let Some(&(columns, rank, _)) = self.modules.get(module) else { return Ok(None) };
        let a = self.floats(&format!("{module}.lora_a"))?;
        let b = self.floats(&format!("{module}.lora_b"))?;
        // Transposed once, so that a row of the update reads both factors in order.
        let a = (0..rank).flat_map(|k| a.iter().skip(k).step_by(rank).copied().take(columns)).collect();
        Ok(Some(Lora { a, b, scale: self.scale, rank, magnitude: None }))
    }

    fn floats(&self, name: &str) -> anyhow::Result<Vec<f32>> {
        let tensor = self.files.get(name).with_context(|| format!("BUG: `{name}` was there"))?;
        let float = match tensor.element {
            Element::F32 => crate::backend::Float::F32,
            Element::F16 => crate::backend::Float::F16,
            Element::BF16 => crate::backend::Float::Bf16,
            other => bail!("`{name}` is {other}, not a float"),
        };
        let bytes = self.files.read(name)?;
        let mut values = vec![0.0; bytes.len() / float.size()];
        float.decode(&bytes, &mut values);
        Ok(values)
    }
}

fn read_modules(files: &TensorFiles) -> anyhow::Result<BTreeMap<String, (usize, usize, usize)>> {
    let mut modules = BTreeMap::new();
    for (name, tensor) in files.tensors() {
        let (module, part) = name.rsplit_once('.').unwrap_or(("", name));
        match part {
            "lora_a" => {
                let partner = files.get(&format!("{module}.lora_b"));
                let partner = partner.with_context(|| format!("`{name}` has no `lora_b` beside it"))?;
                let (&[columns, rank], &[inner, rows]) = (tensor.shape.as_slice(), partner.shape.as_slice())
                else {
                    bail!(
                        "`{name}` and its `lora_b` must be matrices, not {:?} and {:?}",
                        tensor.shape,
                        partner.shape
                    );
                };
                ensure!(
                    rank == inner && rank > 0,
                    "`{module}`: lora_a {:?} and lora_b {:?} do not multiply",
                    tensor.shape,
                    partner.shape
                );
                modules.insert(module.to_owned(), (columns, rank, rows));
            }
            "lora_b" => {
                ensure!(
                    files.get(&format!("{module}.lora_a")).is_some(),
                    "`{name}` has no `lora_a` beside it"
                );
            }
            _ => bail!("`{name}` is neither a `lora_a` nor a `lora_b`"),
        }
    }
    ensure!(!modules.is_empty(), "there is no update in it");
    Ok(modules)
}
