//! The tensors of a model folder, by name. Each is handed out once, to the module that owns it.
//! Does not know which names an architecture has.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use mlx_rs::{Array, Dtype, ops, transforms};
use serde_json::Value;

use super::adapter::{Adapter, ExpertsLora, Lora};
use super::config::{Packing, Quantization, read_json};
use super::device;
use super::matrix::Matrix;

/// The tensors that no module has taken yet.
pub(crate) struct Tensors {
    folder: PathBuf,
    tensors: HashMap<String, Array>,
    quantization: Option<Quantization>,
    adapter: Option<Adapter>,
    /// The tensors that were taken, so that `finish` can load all of them into memory.
    taken: Vec<Array>,
}

impl Tensors {
    /// Opens `model.safetensors`, or the shards that `model.safetensors.index.json` names. The adapter's
    /// whole tensors replace those of the model.
    pub(crate) fn open(
        folder: &Path,
        quantization: Option<Quantization>,
        mut adapter: Option<Adapter>,
    ) -> Result<Self> {
        let index = folder.join("model.safetensors.index.json");
        let mut tensors = if index.exists() {
            load_shards(folder, &index)?
        } else {
            load_safetensors(&folder.join("model.safetensors"))?
        };
        if let Some(adapter) = &mut adapter {
            adapter.replace(&mut tensors)?;
        }
        let folder = folder.to_path_buf();
        Ok(Self { folder, tensors, quantization, adapter, taken: Vec::new() })
    }

    /// Takes the float tensor `name`, which must have this shape, and casts it to the device's activation
    /// dtype.
    pub(crate) fn take(&mut self, name: &str, shape: &[i32]) -> Result<Array> {
        let tensor = self.remove(name)?;
        self.ensure_shape(name, &tensor, shape)?;
        let float = matches!(tensor.dtype(), Dtype::Float16 | Dtype::Bfloat16 | Dtype::Float32);
        ensure!(float, "tensor {name} is {:?}, a float was expected", tensor.dtype());
        let tensor = device::to_activation_dtype(tensor)?;
        self.taken.push(tensor.clone());
        Ok(tensor)
    }

    /// Takes the packed words or the byte scales of a quantized matrix or stack. `rows` is the expected shape
    /// without the last dimension.
    pub(crate) fn take_packed(&mut self, name: &str, dtype: Dtype, rows: &[i32]) -> Result<Array> {
        let tensor = self.remove(name)?;
        ensure!(tensor.dtype() == dtype, "tensor {name} is {:?}, not {dtype:?}", tensor.dtype());
        let words = tensor.shape().last().copied().unwrap_or_default();
        self.ensure_shape(name, &tensor, &[rows, &[words]].concat())?;
        self.taken.push(tensor.clone());
        Ok(tensor)
    }

    /// Takes the adapter's update of the module at `path`, if it has one.
    pub(crate) fn take_lora(
        &mut self,
        path: &str,
        weight: &Matrix,
        [output, input]: [i32; 2],
    ) -> Result<Option<Lora>> {
        let Some(adapter) = &mut self.adapter else {
            return Ok(None);
        };
        let mut lora = adapter.take(path, input, output)?;
        if let Some(lora) = &mut lora {
            lora.bind(|| weight.dense())?;
        }
        self.taken.extend(lora.iter().flat_map(Lora::tensors).cloned());
        Ok(lora)
    }

    /// Takes the adapter's updates of the stack of experts at `path`, if it has any.
    pub(crate) fn take_experts_lora(&mut self, path: &str, shape: [i32; 3]) -> Result<Option<ExpertsLora>> {
        let Some(adapter) = &mut self.adapter else {
            return Ok(None);
        };
        let lora = adapter.take_experts(path, shape)?;
        self.taken.extend(lora.iter().flat_map(ExpertsLora::tensors).cloned());
        Ok(lora)
    }

    /// Stacks the tensors `names`, which must have one shape, into a new tensor `stack`.
    pub(crate) fn stack(&mut self, names: impl Iterator<Item = String>, stack: String) -> Result<()> {
        let mut tensors: Vec<Array> = Vec::new();
        for name in names {
            let tensor = self.remove(&name)?;
            if let Some(first) = tensors.first() {
                self.ensure_shape(&name, &tensor, first.shape())?;
            }
            tensors.push(tensor);
        }
        let stacked = ops::stack(&tensors, 0).with_context(|| stack.clone())?;
        self.tensors.insert(stack, stacked);
        Ok(())
    }

    /// Whether there is a tensor `name` that no module has taken yet.
    pub(crate) fn contains(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// Whether the module at `path` is stored quantized. As in mlx-lm, its scales decide, unless
    /// `config.json` leaves the module float.
    pub(crate) fn is_quantized(&self, path: &str) -> bool {
        self.quantization.is_some()
            && self.named_packing(path) != Some(None)
            && self.tensors.contains_key(&format!("{path}.scales"))
    }

    /// Returns what `config.json` says about the packing of the module at `path`; see
    /// [`Quantization::named`].
    pub(crate) fn named_packing(&self, path: &str) -> Option<Option<Packing>> {
        self.quantization.as_ref().and_then(|quantization| quantization.named(path))
    }

    /// Returns the scales of the module at `path`, if it is quantized and they are not taken yet.
    pub(crate) fn scales(&self, path: &str) -> Option<&Array> {
        self.tensors.get(&format!("{path}.scales"))
    }

    /// Fails if a tensor was not taken, unless `harmless` accepts its name. Then reads and casts all tensors
    /// that were taken.
    pub(crate) fn finish(mut self, harmless: impl Fn(&str) -> bool) -> Result<()> {
        self.tensors.retain(|name, _| !harmless(name));
        let leftover: BTreeSet<&String> = self.tensors.keys().collect();
        if let Some(first) = leftover.first() {
            let count = leftover.len();
            bail!("{}: {count} unknown tensors, the first is {first}", self.folder.display());
        }
        if let Some(adapter) = self.adapter {
            adapter.finish()?;
        }
        transforms::eval(&self.taken).with_context(|| format!("reading {}", self.folder.display()))
    }

    fn remove(&mut self, name: &str) -> Result<Array> {
        if let Some(adapter) = &mut self.adapter {
            adapter.taken(name);
        }
        self.tensors.remove(name).with_context(|| format!("{}: no tensor {name}", self.folder.display()))
    }

    fn ensure_shape(&self, name: &str, tensor: &Array, shape: &[i32]) -> Result<()> {
        let folder = self.folder.display();
        let found = tensor.shape();
        ensure!(found == shape, "{folder}: {name} has shape {found:?}, config.json wants {shape:?}");
        Ok(())
    }
}

/// Reads the header of a safetensors file. MLX reads the data when it is first needed.
fn load_safetensors(path: &Path) -> Result<HashMap<String, Array>> {
    Array::load_safetensors(path).with_context(|| format!("cannot read {}", path.display()))
}

fn load_shards(folder: &Path, index: &Path) -> Result<HashMap<String, Array>> {
    let mut tensors = HashMap::new();
    for (file, names) in shards(index)? {
        let mut shard = load_safetensors(&folder.join(&file))?;
        for name in names {
            let tensor = shard
                .remove(&name)
                .with_context(|| format!("{}: {file} has no tensor {name}", index.display()))?;
            tensors.insert(name, tensor);
        }
    }
    Ok(tensors)
}

/// Returns the tensor names of each file in the index.
fn shards(index: &Path) -> Result<HashMap<String, Vec<String>>> {
    let value = read_json(index)?;
    let map = value.get("weight_map").and_then(Value::as_object);
    let map = map.with_context(|| format!("no weight_map in {}", index.display()))?;
    let mut shards: HashMap<String, Vec<String>> = HashMap::new();
    for (name, file) in map {
        let file = file.as_str().unwrap_or_default();
        // An index must not reach outside its folder.
        let plain = Path::new(file).file_name().is_some_and(|plain| plain == file);
        ensure!(plain, "{}: {name} is in {file:?}, not a file name", index.display());
        shards.entry(file.to_owned()).or_default().push(name.clone());
    }
    Ok(shards)
}
