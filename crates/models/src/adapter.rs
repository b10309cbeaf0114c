//! An adapter that is not fused: its updates are computed at run time, beside the weights.
//! Knows nothing of the weights that the updates are added to, nor of file formats.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use mlx_rs::{Array, Dtype, ops};

use weights::adapter::{Adapter as Folder, Base, Update, Whole};
use weights::checkpoint::Checkpoint;
use weights::kernels::{Float, Lora as Factors};

/// The updates that no module has taken yet, by the name of the weight that they change.
pub(crate) struct Adapter {
    folder: PathBuf,
    /// One update for a matrix, or one for each expert of a stack.
    low_rank: BTreeMap<String, Vec<Option<Factors>>>,
    whole: BTreeMap<String, Whole>,
}

impl Adapter {
    /// Reads an adapter folder of mlx-lm or of PEFT, which must fit the checkpoint.
    pub(crate) fn read(folder: &Path, checkpoint: &Checkpoint) -> Result<Self> {
        let adapter = Folder::open(folder)?;
        adapter.fits(&Base::of(checkpoint)).with_context(|| format!("in {}", folder.display()))?;
        let (mut low_rank, mut whole) = (BTreeMap::new(), BTreeMap::new());
        for name in checkpoint.weights().keys().filter(|name| adapter.touches(name)) {
            match adapter.update(name).with_context(|| format!("in {}", folder.display()))? {
                Some(Update::Replace(tensor)) => {
                    whole.insert(name.clone(), tensor);
                }
                Some(Update::ReplaceThenAdd(tensor, lora)) => {
                    whole.insert(name.clone(), tensor);
                    low_rank.insert(name.clone(), vec![Some(lora)]);
                }
                Some(Update::LowRank(loras)) => {
                    low_rank.insert(name.clone(), loras);
                }
                None => {}
            }
        }
        Ok(Self { folder: folder.to_path_buf(), low_rank, whole })
    }

    /// Takes the whole tensors, by the names of the weights that they replace.
    pub(crate) fn take_whole(&mut self) -> Result<Vec<(String, Array)>> {
        let whole = std::mem::take(&mut self.whole).into_iter();
        whole
            .map(|(name, whole)| {
                let array = to_array(&whole).with_context(|| name.clone())?;
                Ok((name, array))
            })
            .collect()
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

    /// Takes the updates of the stack of experts at `path`, whose weight is `[experts, output, input]`. The
    /// adapter holds them as a stack too, or each under its expert's own name.
    pub(crate) fn take_experts(
        &mut self,
        path: &str,
        [experts, output, input]: [i32; 3],
    ) -> Result<Option<ExpertsLora>> {
        let Some(mut updates) = self.low_rank.remove(&format!("{path}.weight")) else { return Ok(None) };
        let folder = self.folder.display();
        let (found, count) = (updates.len(), usize::try_from(experts)?);
        ensure!(found <= count, "{folder}: `{path}` updates {found} experts of {experts}");
        // The experts after the last that has an update have none.
        updates.resize(count, None);
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

    /// Fails if a part of the adapter was not taken.
    pub(crate) fn finish(self) -> Result<()> {
        let left = self.low_rank.keys().chain(self.whole.keys());
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
    // Exact: float32 can represent every float16 and every bfloat16.
    Ok(Array::from_slice(&values, &shape).as_dtype(dtype)?)
}

/// The low-rank update of one module whose weight is `[output, input]`.
pub(crate) struct Lora {
    /// `[rank, input]`
    a: Array,
    /// `[rank, output]`
    b: Array,
    scale: Array,
    /// DoRA's magnitudes, `[output]`.
    magnitude: Option<Array>,
    /// For DoRA, the factor on each row of the updated weight, `[output]`. [`bind`](Self::bind) sets it.
    row_factors: Option<Array>,
}

impl Lora {
    /// For DoRA, computes the factors that give each row of the updated weight its magnitude. `weight`
    /// returns the weight, `[output, input]`, and is called for DoRA only.
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

    /// Whether this is DoRA, which scales rows before a bias is added.
    pub(crate) fn is_dora(&self) -> bool {
        self.magnitude.is_some()
    }

    pub(crate) fn tensors(&self) -> [&Array; 2] {
        [&self.a, &self.b]
    }

    /// Returns the product of `x` with the updated weight, where `y` is the product with the weight alone.
    /// The dtypes are cast in the same places as in mlx-lm's `LoRALinear` and `DoRALinear`, and in
    /// `as_linear` of its embeddings.
    pub(crate) fn apply(&self, y: &Array, x: &Array) -> Result<Array> {
        let z = ops::matmul(ops::matmul(x, self.a.transpose()?)?, &self.b)?;
        let sum = y.add(self.scaled(&z)?.as_dtype(x.dtype())?)?;
        match &self.row_factors {
            Some(factors) => Ok(factors.as_dtype(x.dtype())?.multiply(sum)?),
            None => Ok(sum),
        }
    }

    /// Returns the rows `ids` of the updated weight, where `y` holds these rows of the weight alone.
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
        // A Python number takes the dtype of the array. A float32 scalar would widen a float16 `z`.
        Ok(z.multiply(self.scale.as_dtype(z.dtype())?)?)
    }
}

/// The low-rank updates of a stack of experts whose weights are `[output, input]`.
pub(crate) struct ExpertsLora {
    /// `[experts, input, rank]`. The rank is the highest of all experts.
    a: Array,
    /// `[experts, rank, output]`, already multiplied by each expert's scale.
    b: Array,
}

impl ExpertsLora {
    /// Pads the factors with zeros: those of an expert without an update, and those with a lower rank.
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

    /// Like [`Lora::apply`], where `experts` selects the expert for each row of `x`. Mirrors mlx-lm's
    /// `LoRASwitchLinear`.
    pub(crate) fn apply(&self, y: &Array, x: &Array, experts: &Array, sorted: bool) -> Result<Array> {
        let z = ops::gather_mm(x, &self.a, None, experts, sorted)?;
        let z = ops::gather_mm(z, &self.b, None, experts, sorted)?;
        Ok(y.add(z.as_dtype(x.dtype())?)?)
    }
}
