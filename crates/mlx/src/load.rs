//! The tensors of a checkpoint as MLX arrays.
//! Does not know what the weights are for.

use std::collections::HashMap;

use anyhow::{Context, Result, bail};
use mlx_rs::{Array, Dtype, ops, transforms};

use super::device;
use super::matrix::Matrix;
use super::packed::Packed;
use models::runtime::Stored;
use weights::adapter::Whole;
use weights::checkpoint::{Change, Checkpoint, Part, Source, Weight, WeightKind};
use weights::kernels::{Float, Mode};

/// The tensors that were not taken yet.
pub struct Weights {
    arrays: HashMap<String, Array>,
    /// The arrays that were taken, so that `finish` can read all of them into memory.
    taken: Vec<Array>,
}

impl Weights {
    /// MLX reads the headers here, and the data when it is first needed.
    pub(crate) fn open(checkpoint: &Checkpoint) -> Result<Self> {
        let mut weights = Self { arrays: HashMap::new(), taken: Vec::new() };
        for file in checkpoint.files() {
            let loaded = Array::load_safetensors(file);
            weights.arrays.extend(loaded.with_context(|| format!("cannot read {}", file.display()))?);
        }
        Ok(weights)
    }

    /// Takes a float weight, cast to the device's activation dtype.
    pub(crate) fn float(&mut self, stored: Stored<'_>) -> Result<Array> {
        // A whole tensor may have its numbers in another shape, such as a convolution with its channels first.
        let shape =
            stored.weight.shape.iter().map(|side| i32::try_from(*side)).collect::<Result<Vec<_>, _>>()?;
        let array = self.remove(stored.weight, Part::Weight)?.reshape(&shape)?;
        let array = device::to_activation_dtype(array)?;
        self.taken.push(array.clone());
        Ok(array)
    }

    /// Takes a float or quantized matrix, or a stack.
    pub(crate) fn matrix(&mut self, stored: Stored<'_>) -> Result<Matrix> {
        let WeightKind::Quantized(spec, _) = stored.weight.kind else {
            return Ok(Matrix::Float(self.float(stored)?));
        };
        let weight = self.remove(stored.weight, Part::Weight)?;
        let scales = self.remove(stored.weight, Part::Scales)?;
        let (scales, biases, dtype) = if spec.mode == Mode::Affine {
            let scales = device::to_activation_dtype(scales)?;
            let biases = device::to_activation_dtype(self.remove(stored.weight, Part::Biases)?)?;
            let dtype = scales.dtype();
            (scales, Some(biases), dtype)
        } else {
            (scales, None, device::activation_dtype(Dtype::Bfloat16)?)
        };
        self.taken.extend([&weight, &scales].into_iter().chain(&biases).cloned());
        Ok(Matrix::Quantized(Packed { weight, scales, biases, spec }, dtype))
    }

    /// Reads and casts all tensors that were taken.
    pub(crate) fn finish(self) -> Result<()> {
        Ok(transforms::eval(&self.taken)?)
    }

    /// Takes `part` of a weight from its tensors. Where several weights are parts of one tensor, each takes its
    /// own part of it.
    fn remove(&mut self, weight: &Weight, part: Part) -> Result<Array> {
        let mut arrays = Vec::with_capacity(weight.sources().len());
        for source in weight.sources() {
            let tensor = Weight::tensor(&source.tensor, part);
            let array = if source.view.is_whole() {
                self.arrays.remove(&tensor)
            } else {
                self.arrays.get(&tensor).cloned()
            };
            let array = array.with_context(|| format!("there is no tensor {tensor}"))?;
            arrays.push(view_of(array, source, weight)?);
        }
        let array = match <[Array; 1]>::try_from(arrays) {
            Ok([array]) => array,
            Err(arrays) if arrays.iter().all(|array| array.ndim() < weight.shape.len()) => {
                ops::stack(&arrays, 0)?
            }
            Err(arrays) => ops::concatenate(&arrays, 0)?,
        };
        match weight.change() {
            None => Ok(array),
            Some(Change::AddOne) => Ok(array.add(Array::from_f32(1.0).as_dtype(array.dtype())?)?),
            Some(Change::NormalizeRows | Change::Multiply(_)) => {
                bail!("this version does not run a model whose weights are scaled when they are read")
            }
        }
    }
}

/// Returns the part of a tensor that a source is.
fn view_of(tensor: Array, source: &Source, weight: &Weight) -> Result<Array> {
    if source.view.is_whole() {
        return Ok(tensor);
    }
    // Packed codes and scales have fewer elements than the weight: their rows are shorter, and only rows are moved.
    let (columns, row) = match weight.kind {
        WeightKind::Quantized(..) => (weight.columns().max(1), tensor.dim(-1).unsigned_abs() as usize),
        _ => (1, 1),
    };
    let mut shape =
        source.view.shape().iter().map(|side| i32::try_from(*side)).collect::<Result<Vec<_>, _>>()?;
    let scaled = |stride: usize| i64::try_from(stride * row / columns);
    let mut strides = source.view.strides().into_iter().map(scaled).collect::<Result<Vec<_>, _>>()?;
    if let (WeightKind::Quantized(..), Some(side), Some(stride)) =
        (weight.kind, shape.last_mut(), strides.last_mut())
    {
        (*side, *stride) = (tensor.dim(-1), 1);
    }
    let view =
        tensor.as_strided(shape.as_slice(), strides.as_slice(), source.view.offset() * row / columns)?;
    // The rows of a view may have more dimensions than those of the weight: groups, and heads in a group.
    let (_, outer) = weight.shape.split_last().context("a weight that is a part has dimensions")?;
    let sides = outer.iter().map(|side| i32::try_from(*side)).collect::<Result<Vec<_>, _>>()?;
    let whole = [sides.as_slice(), &[view.dim(-1)]].concat();
    if weight.sources().len() == 1 { Ok(view.reshape(&whole)?) } else { Ok(view) }
}

/// Returns numbers in memory as an array, in the device's activation dtype.
pub(crate) fn array_of(numbers: &Whole) -> Result<Array> {
    let shape = numbers.shape.iter().map(|side| i32::try_from(*side)).collect::<Result<Vec<_>, _>>()?;
    let mut values = vec![0.0_f32; numbers.bytes.len() / numbers.float.size()];
    numbers.float.decode(&numbers.bytes, &mut values);
    let dtype = match numbers.float {
        Float::F16 => Dtype::Float16,
        Float::Bf16 => Dtype::Bfloat16,
        Float::F32 => Dtype::Float32,
    };
    // Exact: float32 can represent every float16 and every bfloat16.
    device::to_activation_dtype(Array::from_slice(&values, &shape).as_dtype(dtype)?)
}
