//! The tensors of a checkpoint as MLX arrays.
//! Does not know what the weights are for.

use std::collections::HashMap;

use anyhow::{Context, Result};
use mlx_rs::{Array, Dtype, ops, transforms};

use super::device;
use super::matrix::Matrix;
use super::packed::Packed;
use models::runtime::Stored;
use weights::adapter::Whole;
use weights::checkpoint::{Checkpoint, Part, Weight, WeightKind};
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
        let array = device::to_activation_dtype(self.remove(stored.weight, Part::Weight)?)?;
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

    /// Takes `part` of a weight from its tensor, or from those of its experts, stacked.
    fn remove(&mut self, weight: &Weight, part: Part) -> Result<Array> {
        let mut arrays = Vec::with_capacity(weight.sources().len());
        for source in weight.sources() {
            let tensor = Weight::tensor(source, part);
            arrays.push(self.arrays.remove(&tensor).with_context(|| format!("there is no tensor {tensor}"))?);
        }
        match <[Array; 1]>::try_from(arrays) {
            Ok([array]) => Ok(array),
            Err(arrays) => Ok(ops::stack(&arrays, 0)?),
        }
    }
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
