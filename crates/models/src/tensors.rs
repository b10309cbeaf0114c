//! The tensors of a checkpoint as MLX arrays, by the names that its weights have. Each is handed out once, to the module that
//! owns it.
//! Does not know which names an architecture has; how weights are packed and stacked is what the checkpoint says.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use mlx_rs::{Array, Dtype, ops, transforms};

use super::adapter::{Adapter, ExpertsLora, Lora};
use super::device;
use super::matrix::Matrix;
use weights::checkpoint::{Checkpoint, Part, Weight, WeightKind};
use weights::kernels::QuantSpec;

/// The tensors that no module has taken yet.
pub(crate) struct Tensors {
    folder: PathBuf,
    checkpoint: Checkpoint,
    arrays: HashMap<String, Array>,
    adapter: Option<Adapter>,
    /// The weights that a whole tensor of the adapter has replaced: they are float now.
    replaced: BTreeSet<String>,
    /// The tensors that were taken, so that `finish` can load all of them into memory.
    taken: Vec<Array>,
}

impl Tensors {
    /// Opens the files of the checkpoint in `folder`. Tensors that the checkpoint drops are left out, and the adapter's
    /// whole tensors replace those of the model.
    pub(crate) fn open(folder: &Path, checkpoint: Checkpoint, mut adapter: Option<Adapter>) -> Result<Self> {
        let mut arrays = HashMap::new();
        for file in checkpoint.files() {
            // MLX reads the header here, and the data when it is first needed.
            let loaded = Array::load_safetensors(file);
            arrays.extend(loaded.with_context(|| format!("cannot read {}", file.display()))?);
        }
        let names: HashSet<_> = checkpoint.weights().values().flat_map(Weight::tensors).collect();
        arrays.retain(|name, _| names.contains(name));
        let mut replaced = BTreeSet::new();
        for (name, array) in adapter.as_mut().map(Adapter::take_whole).transpose()?.into_iter().flatten() {
            let tensors = checkpoint.weights().get(&name).into_iter().flat_map(Weight::tensors);
            tensors.for_each(|tensor| drop(arrays.remove(&tensor)));
            arrays.insert(name.clone(), array);
            replaced.insert(name);
        }
        let folder = folder.to_path_buf();
        Ok(Self { folder, checkpoint, arrays, adapter, replaced, taken: Vec::new() })
    }

    /// Takes the float weight `name`, which must have this shape, and casts it to the device's activation dtype.
    pub(crate) fn take(&mut self, name: &str, shape: &[i32]) -> Result<Array> {
        let tensor = self.remove(name, Part::Weight)?;
        self.ensure_shape(name, tensor.shape(), shape)?;
        let float = matches!(tensor.dtype(), Dtype::Float16 | Dtype::Bfloat16 | Dtype::Float32);
        ensure!(float, "tensor {name} is {:?}, a float was expected", tensor.dtype());
        let cast = device::to_activation_dtype(tensor)?;
        self.taken.push(cast.clone());
        Ok(cast)
    }

    /// Takes the packed words or the byte scales of the quantized weight `name`, as they are.
    pub(crate) fn take_bytes(&mut self, name: &str, part: Part) -> Result<Array> {
        let tensor = self.remove(name, part)?;
        self.taken.push(tensor.clone());
        Ok(tensor)
    }

    /// Takes the float scales or the biases of the quantized weight `name`, cast to the device's activation dtype.
    pub(crate) fn take_sides(&mut self, name: &str, part: Part) -> Result<Array> {
        let cast = device::to_activation_dtype(self.remove(name, part)?)?;
        self.taken.push(cast.clone());
        Ok(cast)
    }

    /// Returns how the weight `name` is quantized, if it is, and fails unless it has this shape before packing.
    pub(crate) fn quantized(&self, name: &str, shape: &[i32]) -> Result<Option<QuantSpec>> {
        let weight = self.checkpoint.weights().get(name).filter(|_| !self.replaced.contains(name));
        let Some(Weight { kind: WeightKind::Quantized(spec, _), shape: found, .. }) = weight else {
            return Ok(None);
        };
        let found = found.iter().map(|side| i32::try_from(*side)).collect::<Result<Vec<_>, _>>()?;
        self.ensure_shape(name, &found, shape)?;
        Ok(Some(*spec))
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

    /// Fails if a tensor was not taken. Then reads and casts all tensors that were taken.
    pub(crate) fn finish(self) -> Result<()> {
        let leftover: BTreeSet<&String> = self.arrays.keys().collect();
        if let Some(first) = leftover.first() {
            let count = leftover.len();
            bail!("{}: {count} unknown tensors, the first is {first}", self.folder.display());
        }
        if let Some(adapter) = self.adapter {
            adapter.finish()?;
        }
        transforms::eval(&self.taken).with_context(|| format!("reading {}", self.folder.display()))
    }

    /// Takes `part` of the weight `name` from its tensor, or from those of its experts, stacked.
    fn remove(&mut self, name: &str, part: Part) -> Result<Array> {
        let weight = self.checkpoint.weights().get(name).filter(|_| !self.replaced.contains(name));
        let sources = weight.map_or(std::slice::from_ref(&name.to_owned()), Weight::sources).to_vec();
        let mut arrays = Vec::with_capacity(sources.len());
        for source in &sources {
            let tensor = Weight::tensor(source, part);
            let array = self.arrays.remove(&tensor);
            arrays.push(array.with_context(|| format!("{}: no tensor {tensor}", self.folder.display()))?);
        }
        match <[Array; 1]>::try_from(arrays) {
            Ok([array]) => Ok(array),
            Err(arrays) => ops::stack(&arrays, 0).with_context(|| name.to_owned()),
        }
    }

    fn ensure_shape(&self, name: &str, found: &[i32], wanted: &[i32]) -> Result<()> {
        let folder = self.folder.display();
        ensure!(found == wanted, "{folder}: {name} has shape {found:?}, config.json wants {wanted:?}");
        Ok(())
    }
}
