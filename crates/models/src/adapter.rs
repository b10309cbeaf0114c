//! An adapter that is not fused: what it adds is computed beside the weights, at run time.
//! Knows nothing of the weights it is added to, nor of files.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use mlx_rs::{Array, Dtype, ops};

use weights::adapter::{Adapter as Folder, Update, Whole};
use weights::kernels::{Float, Lora as Factors};

/// What no module has taken yet, by the name of the weight that it changes.
pub(crate) struct Adapter {
    folder: PathBuf,
    /// One update, or one for each expert of a stack.
    low_rank: BTreeMap<String, Vec<Option<Factors>>>,
    whole: BTreeMap<String, Whole>,
    /// The weights that [`replace`](Self::replace) put in their place and no module has taken.
    replaced: BTreeSet<String>,
}

impl Adapter {
    /// Reads an adapter folder of mlx-lm or of PEFT.
    pub(crate) fn read(folder: &Path) -> Result<Self> {
        let adapter = Folder::open(folder)?;
        let (mut low_rank, mut whole) = (BTreeMap::new(), BTreeMap::new());
        for name in adapter.names() {
            match adapter.update(&name).with_context(|| format!("in {}", folder.display()))? {
                Some(Update::Replace(tensor)) => {
                    whole.insert(name, tensor);
                }
                Some(Update::ReplaceThenAdd(tensor, lora)) => {
                    whole.insert(name.clone(), tensor);
                    low_rank.insert(name, vec![Some(lora)]);
                }
                Some(Update::LowRank(loras)) => {
                    low_rank.insert(name, loras);
                }
                None => {}
            }
        }
        Ok(Self { folder: folder.to_path_buf(), low_rank, whole, replaced: BTreeSet::new() })
    }

    /// Puts the whole tensors in the place of the model's. A quantized weight becomes a float one.
    pub(crate) fn replace(&mut self, tensors: &mut HashMap<String, Array>) -> Result<()> {
        let there: Vec<String> =
            self.whole.keys().filter(|name| tensors.contains_key(*name)).cloned().collect();
        for name in there {
            let Some(whole) = self.whole.remove(&name) else { continue };
            if let Some(module) = name.strip_suffix(".weight") {
                tensors.remove(&format!("{module}.scales"));
                tensors.remove(&format!("{module}.biases"));
            }
            let array = to_array(&whole).with_context(|| name.clone())?;
            tensors.insert(name.clone(), array);
            self.replaced.insert(name);
        }
        Ok(())
    }

    /// Hears that a module took the weight `name`.
    pub(crate) fn taken(&mut self, name: &str) {
        self.replaced.remove(name);
    }

    /// Takes the update of the module at `path`, whose weight is `[output, input]`.
    pub(crate) fn take(&mut self, path: &str, input: i32, output: i32) -> Result<Option<Lora>> {
        let Some(found) = self.low_rank.remove(&format!("{path}.weight")) else { return Ok(None) };
        let folder = self.folder.display();
        let [Some(factors)] = found.as_slice() else {
            bail!("{folder}: `{path}` is no stack of experts, but its update is one")
        };
        self.ensure_shape(path, factors, [output, input])?;
        let rank = i32::try_from(factors.rank)?;
        let magnitude = factors.magnitude.as_ref();
        Ok(Some(Lora {
            a: Array::from_slice(&factors.a, &[rank, input]),
            b: Array::from_slice(&factors.b, &[rank, output]),
            scale: Array::from_f32(factors.scale),
            magnitude: magnitude.map(|values| Array::from_slice(values, &[output])),
            row_factors: None,
        }))
    }

    /// Takes the updates of the stack of experts at `path`, whose weight is `[experts, output, input]`. They lie on a
    /// stack too, or each under its expert's own name.
    pub(crate) fn take_experts(
        &mut self,
        path: &str,
        [experts, output, input]: [i32; 3],
    ) -> Result<Option<ExpertsLora>> {
        let stacked = self.low_rank.remove(&format!("{path}.weight"));
        let updates = stacked.unwrap_or_else(|| (0..experts).map(|i| self.take_expert(path, i)).collect());
        let folder = self.folder.display();
        let found = updates.len();
        ensure!(i32::try_from(found)? == experts, "{folder}: `{path}` updates {found} experts of {experts}");
        for factors in updates.iter().flatten() {
            self.ensure_shape(path, factors, [output, input])?;
            let dora = factors.magnitude.is_some();
            ensure!(
                !dora,
                "{folder}: `{path}` is a stack of experts, whose DoRA must be fused before it can run"
            );
        }
        ExpertsLora::new(&updates, [experts, output, input])
    }

    /// Takes the update of one expert of the stack at `path`.
    fn take_expert(&mut self, path: &str, expert: i32) -> Option<Factors> {
        let name = path.replace(".switch_mlp.", &format!(".experts.{expert}."));
        self.low_rank.remove(&format!("{name}.weight"))?.pop()?
    }

    fn ensure_shape(&self, path: &str, factors: &Factors, wanted: [i32; 2]) -> Result<()> {
        let side = |values: &[f32]| i32::try_from(values.len() / factors.rank.max(1));
        let found = [side(&factors.b)?, side(&factors.a)?];
        let folder = self.folder.display();
        ensure!(
            found == wanted,
            "{folder}: `{path}` updates {found:?}, but the weight of this model is {wanted:?}"
        );
        Ok(())
    }

    /// Refuses an adapter of which something was not taken.
    pub(crate) fn finish(self) -> Result<()> {
        let left = self.low_rank.keys().chain(self.whole.keys()).chain(&self.replaced);
        let left: Vec<&str> = left.map(String::as_str).collect();
        let folder = self.folder.display();
        ensure!(left.is_empty(), "{folder}: no module of this model takes the update of {}", left.join(", "));
        Ok(())
    }
}

fn to_array(whole: &Whole) -> Result<Array> {
    let shape = whole.shape.iter().map(|side| i32::try_from(*side)).collect::<Result<Vec<_>, _>>()?;
    let mut values = vec![0.0_f32; whole.bytes.len() / whole.float.size()];
    whole.float.decode(&whole.bytes, &mut values);
    let dtype = match whole.float {
        Float::F16 => Dtype::Float16,
        Float::Bf16 => Dtype::Bfloat16,
        Float::F32 => Dtype::Float32,
    };
    // Exact: every half is a float32.
    Ok(Array::from_slice(&values, &shape).as_dtype(dtype)?)
}

/// The low-rank update of one module whose weight is `[output, input]`.
pub(crate) struct Lora {
    /// `[rank, input]`
    a: Array,
    /// `[rank, output]`
    b: Array,
    scale: Array,
    /// DoRA's, `[output]`.
    magnitude: Option<Array>,
    /// For DoRA, what each row of the updated weight is multiplied by, `[output]`.
    row_factors: Option<Array>,
}

impl Lora {
    /// For DoRA, finds how far each row of the updated weight is from its magnitude. `weight` is `[output, input]`,
    /// and read for DoRA only.
    pub(crate) fn bind(&mut self, weight: impl FnOnce() -> Result<Array>) -> Result<()> {
        let Some(magnitude) = &self.magnitude else { return Ok(()) };
        let delta = ops::matmul(self.b.transpose()?.multiply(&self.scale)?, &self.a)?;
        let updated = weight()?.add(delta)?;
        let norm = updated.square()?.sum_axis(1, false)?.sqrt()?;
        let factors = magnitude.divide(norm)?;
        factors.eval()?;
        self.row_factors = Some(factors);
        Ok(())
    }

    /// Whether rows are scaled, before a bias is added.
    pub(crate) fn is_dora(&self) -> bool {
        self.magnitude.is_some()
    }

    pub(crate) fn tensors(&self) -> [&Array; 2] {
        [&self.a, &self.b]
    }

    /// Returns what the updated weight makes of `x`, where `y` is what the weight alone makes of it; cast where
    /// mlx-lm's `LoRALinear`, `DoRALinear` and `as_linear` of its embeddings cast.
    pub(crate) fn apply(&self, y: &Array, x: &Array) -> Result<Array> {
        let z = ops::matmul(ops::matmul(x, self.a.transpose()?)?, &self.b)?;
        let sum = y.add(self.scaled(&z)?.as_dtype(x.dtype())?)?;
        match &self.row_factors {
            Some(factors) => Ok(factors.as_dtype(x.dtype())?.multiply(sum)?),
            None => Ok(sum),
        }
    }

    /// Returns the rows `ids` of the updated weight, where `y` is those of the weight alone.
    pub(crate) fn apply_to_rows(&self, y: &Array, ids: &Array) -> Result<Array> {
        let z = ops::matmul(self.b.transpose()?.take_axis(ids, 0)?, &self.a)?;
        let sum = y.add(self.scaled(&z)?.as_dtype(y.dtype())?)?;
        match &self.row_factors {
            Some(factors) => {
                let factors = factors.take_axis(ids, 0)?.expand_dims(-1)?;
                Ok(factors.as_dtype(y.dtype())?.multiply(sum)?)
            }
            None => Ok(sum),
        }
    }

    fn scaled(&self, z: &Array) -> Result<Array> {
        // A Python number takes the array's dtype; a float32 scalar would widen a float16 `z`.
        Ok(z.multiply(self.scale.as_dtype(z.dtype())?)?)
    }
}

/// The low-rank updates of a stack of experts whose weights are `[output, input]`.
pub(crate) struct ExpertsLora {
    /// `[experts, input, rank]`, the rank being the highest of them.
    a: Array,
    /// `[experts, rank, output]`, each times its scale.
    b: Array,
}

impl ExpertsLora {
    /// An expert without an update gets zeros, and so does the rank that another has more.
    fn new(updates: &[Option<Factors>], [experts, output, input]: [i32; 3]) -> Result<Option<Self>> {
        let Some(rank) = updates.iter().flatten().map(|factors| factors.rank).max() else { return Ok(None) };
        let padded = |side: i32, of: fn(&Factors) -> Vec<f32>| {
            let length = rank * usize::try_from(side)?;
            let mut values = Vec::new();
            for factors in updates {
                let start = values.len();
                values.extend(factors.iter().flat_map(of));
                values.resize(start + length, 0.0);
            }
            anyhow::Ok(Array::from_slice(&values, &[experts, i32::try_from(rank)?, side]))
        };
        let a = padded(input, |factors| factors.a.clone())?.swap_axes(-1, -2)?;
        let b = padded(output, |factors| factors.b.iter().map(|value| value * factors.scale).collect())?;
        Ok(Some(Self { a, b }))
    }

    pub(crate) fn tensors(&self) -> [&Array; 2] {
        [&self.a, &self.b]
    }

    /// As [`Lora::apply`], where `experts` says which of them each row of `x` goes through; as mlx-lm's
    /// `LoRASwitchLinear`.
    pub(crate) fn apply(&self, y: &Array, x: &Array, experts: &Array, sorted: bool) -> Result<Array> {
        let z = ops::gather_mm(x, &self.a, None, experts, sorted)?;
        let z = ops::gather_mm(z, &self.b, None, experts, sorted)?;
        Ok(y.add(z.as_dtype(x.dtype())?)?)
    }
}
