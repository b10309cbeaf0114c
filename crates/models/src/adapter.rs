//! An adapter that is not fused: its updates are computed at run time, beside the weights.
//! Knows nothing of the weights that the updates are added to, nor of file formats.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

use super::runtime::Runtime;
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
        let mut adapter = Folder::open(folder)?;
        adapter.place(&Base::of(checkpoint)).with_context(|| format!("in {}", folder.display()))?;
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
    pub(crate) fn take_whole(&mut self) -> BTreeMap<String, Whole> {
        std::mem::take(&mut self.whole)
    }

    /// Takes the update of the module at `path`, whose weight is `[output, input]`.
    pub(crate) fn take<R: Runtime>(
        &mut self,
        runtime: &R,
        path: &str,
        weight: &R::Matrix,
        [output, input]: [i32; 2],
    ) -> Result<Option<Lora<R>>> {
        let Some(found) = self.low_rank.remove(&format!("{path}.weight")) else { return Ok(None) };
        let folder = self.folder.display();
        let [Some(factors)] = found.as_slice() else {
            bail!("{folder}: `{path}` is no stack of experts, but its update is one")
        };
        self.ensure_shape(path, factors, [output, input])?;
        Lora::new(runtime, weight, factors).map(Some)
    }

    /// Takes the updates of the stack of experts at `path`, whose weight is `[experts, output, input]`. The
    /// adapter holds them as a stack too, or each under its expert's own name.
    pub(crate) fn take_experts<R: Runtime>(
        &mut self,
        runtime: &R,
        path: &str,
        [experts, output, input]: [i32; 3],
    ) -> Result<Option<ExpertsLora<R>>> {
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
        ExpertsLora::new(runtime, &updates, [usize::try_from(output)?, usize::try_from(input)?])
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

/// Returns numbers as the bytes of a tensor.
fn numbers(values: &[f32], shape: &[usize]) -> Whole {
    let mut bytes = vec![0; values.len() * Float::F32.size()];
    Float::F32.encode(values, &mut bytes);
    Whole { float: Float::F32, shape: shape.to_vec(), bytes }
}

/// Returns `[rows, columns]` as `[columns, rows]`.
fn transposed(values: &[f32], columns: usize) -> Vec<f32> {
    (0..columns).flat_map(|column| values.iter().skip(column).step_by(columns.max(1)).copied()).collect()
}

/// The low-rank update of one module whose weight is `[output, input]`: `scale * b @ a`.
pub(crate) struct Lora<R: Runtime> {
    /// `[rank, input]`
    a: R::Matrix,
    /// `[input, rank]`, for rows of the update.
    a_transposed: R::Matrix,
    /// `[output, rank]`
    b: R::Matrix,
    scale: f32,
    /// For DoRA, the factor on each row of the updated weight, `[output]`.
    row_factors: Option<R::Tensor>,
}

impl<R: Runtime> Lora<R> {
    fn new(runtime: &R, weight: &R::Matrix, factors: &Factors) -> Result<Self> {
        let (rank, scale) = (factors.rank, factors.scale);
        let (input, output) = (factors.a.len() / rank, factors.b.len() / rank);
        let a = runtime.matrix_of(&numbers(&factors.a, &[rank, input]))?;
        let a_transposed = runtime.matrix_of(&numbers(&transposed(&factors.a, input), &[input, rank]))?;
        let b = runtime.matrix_of(&numbers(&transposed(&factors.b, output), &[output, rank]))?;
        let row_factors = match &factors.magnitude {
            Some(magnitude) => {
                let magnitude = runtime.vector_of(&numbers(magnitude, &[output]))?;
                Some(runtime.dora_factors(weight, [&a, &b], scale, &magnitude)?)
            }
            None => None,
        };
        Ok(Self { a, a_transposed, b, scale, row_factors })
    }

    /// Whether this is DoRA, which scales rows before a bias is added.
    pub(crate) fn is_dora(&self) -> bool {
        self.row_factors.is_some()
    }

    /// Returns the product of `x` with the updated weight, where `y` is the product with the weight alone.
    /// Numbers are rounded in the same places as in mlx-lm's `LoRALinear` and `DoRALinear`, and in `as_linear`
    /// of its embeddings.
    pub(crate) fn apply(&self, runtime: &R, y: &R::Tensor, x: &R::Tensor) -> Result<R::Tensor> {
        let z = runtime.product(&runtime.product(x, &self.a, None)?, &self.b, None)?;
        let sum = runtime.add_update(y, &z, self.scale)?;
        self.row_factors.as_ref().map_or(Ok(sum.clone()), |factors| runtime.multiply(&sum, factors))
    }

    /// Returns the rows `ids` of the updated weight, where `y` holds these rows of the weight alone.
    pub(crate) fn apply_to_rows(&self, runtime: &R, y: &R::Tensor, ids: &R::Tokens) -> Result<R::Tensor> {
        let z = runtime.product(&runtime.rows(&self.b, ids)?, &self.a_transposed, None)?;
        let sum = runtime.add_update(y, &z, self.scale)?;
        let factors = self.row_factors.as_ref();
        factors.map_or(Ok(sum.clone()), |factors| runtime.multiply_rows(&sum, factors, ids))
    }
}

/// The low-rank updates of a stack of experts whose weights are `[output, input]`.
pub(crate) struct ExpertsLora<R: Runtime> {
    /// `[experts, rank, input]`. The rank is the highest of all experts.
    a: R::Matrix,
    /// `[experts, output, rank]`, already multiplied by each expert's scale.
    b: R::Matrix,
}

impl<R: Runtime> ExpertsLora<R> {
    /// Pads the factors with zeros: those of an expert without an update, and those with a lower rank.
    fn new(runtime: &R, updates: &[Option<Factors>], [output, input]: [usize; 2]) -> Result<Option<Self>> {
        let Some(rank) = updates.iter().flatten().map(|factors| factors.rank).max() else { return Ok(None) };
        let (mut a, mut b) = (Vec::new(), Vec::new());
        for factors in updates {
            let mut padded = factors.as_ref().map_or_else(Vec::new, |factors| factors.a.clone());
            padded.resize(rank * input, 0.0);
            a.extend(padded);
            let scaled = |factors: &Factors| factors.b.iter().map(|value| value * factors.scale).collect();
            let mut padded: Vec<f32> = factors.as_ref().map_or_else(Vec::new, scaled);
            padded.resize(rank * output, 0.0);
            b.extend(transposed(&padded, output));
        }
        let a = runtime.matrix_of(&numbers(&a, &[updates.len(), rank, input]))?;
        let b = runtime.matrix_of(&numbers(&b, &[updates.len(), output, rank]))?;
        Ok(Some(Self { a, b }))
    }

    /// Like [`Lora::apply`], where each row of `x` is a pair of token and expert. Mirrors mlx-lm's
    /// `LoRASwitchLinear`.
    pub(crate) fn apply(
        &self,
        runtime: &R,
        y: &R::Tensor,
        x: &R::Tensor,
        routes: &R::Routes,
    ) -> Result<R::Tensor> {
        let z = runtime.expert_product(x, &self.a, routes)?;
        runtime.add_update(y, &runtime.expert_product(&z, &self.b, routes)?, 1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_become_columns() {
        assert_eq!(transposed(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], 3), [1.0, 4.0, 2.0, 5.0, 3.0, 6.0]);
    }
}
