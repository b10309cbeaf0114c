//! `fuse`: dequantizes a model and merges an adapter into it, tensor by tensor.
//! Knows nothing of how a matrix is merged; that is the backend's.

use std::path::Path;

use serde_json::Value;

use super::adapter::Adapter;
use super::checkpoint::{Checkpoint, Weight, WeightKind, element_of};
use super::{Fuse, Tick};
use crate::backend::{Backend, Float, Matrix};
use crate::output::Output;
use crate::tensor::{TensorSpec, TensorWriter};

/// Fuses the adapter at `adapter` into the model at `model`.
pub(super) fn run(
    parameters: &Fuse,
    model: &Path,
    adapter: &Path,
    output: &Output,
    backend: &dyn Backend,
    tick: Tick<'_>,
) -> anyhow::Result<()> {
    let checkpoint = Checkpoint::open(model)?;
    let adapter = Adapter::open(adapter)?;
    adapter.fits(&checkpoint)?;
    let dtype = parameters.dtype.map(Float::from);
    let specs = checkpoint.weights().iter().map(|(name, weight)| spec(name, weight, dtype)).collect();
    let mut writer = TensorWriter::new(output, specs);
    let mut done = 0;
    for (name, weight) in checkpoint.weights() {
        let bytes = match read_dense(&checkpoint, name, weight, dtype, backend)? {
            Some(matrix) => match adapter.update(name)? {
                Some(lora) => backend.merge(matrix, &lora)?.bytes,
                None => matrix.bytes,
            },
            None => checkpoint.read(name)?,
        };
        writer.push(name, &bytes)?;
        done += weight.stored;
        tick(done, checkpoint.stored())?;
    }
    writer.finish(checkpoint.parameters())?;
    write_config(&checkpoint, parameters, output)?;
    checkpoint.copy_side_files(output)
}

/// Reads the weight `name` as floats, in `dtype` if one is given; none if it is no float. As in mlx-lm's
/// `convert --dequantize --dtype`, scales and biases take the type first and the weight is dequantized in it.
pub(super) fn read_dense(
    checkpoint: &Checkpoint,
    name: &str,
    weight: &Weight,
    dtype: Option<Float>,
    backend: &dyn Backend,
) -> anyhow::Result<Option<Matrix>> {
    Ok(match weight.kind {
        WeightKind::Float(float) => Some(cast(checkpoint.read_float(name, weight, float)?, dtype)),
        WeightKind::Quantized(grid, float) => {
            let mut quantized = checkpoint.read_quantized(name, weight, grid, float)?;
            quantized.scales = cast(quantized.scales, dtype);
            quantized.biases = cast(quantized.biases, dtype);
            Some(backend.dequantize(&quantized)?)
        }
        WeightKind::Other(_) => None,
    })
}

fn cast(matrix: Matrix, dtype: Option<Float>) -> Matrix {
    let Some(float) = dtype.filter(|float| *float != matrix.float) else { return matrix };
    let mut values = vec![0.0; matrix.bytes.len() / matrix.float.size()];
    matrix.float.decode(&matrix.bytes, &mut values);
    let mut bytes = vec![0; values.len() * float.size()];
    float.encode(&values, &mut bytes);
    Matrix { float, columns: matrix.columns, bytes }
}

fn spec(name: &str, weight: &Weight, dtype: Option<Float>) -> TensorSpec {
    let element = match weight.kind {
        WeightKind::Float(float) | WeightKind::Quantized(_, float) => element_of(dtype.unwrap_or(float)),
        WeightKind::Other(element) => element,
    };
    TensorSpec { name: name.to_owned(), element, shape: weight.shape.clone() }
}

/// The fused model is not quantized any more, and has the type that was asked for.
fn write_config(checkpoint: &Checkpoint, parameters: &Fuse, output: &Output) -> anyhow::Result<()> {
    let mut config = checkpoint.config.clone();
    config.retain(|key, _| key != "quantization" && key != "quantization_config");
    if let Some(dtype) = parameters.dtype {
        // `dtype` is the newer name of the same key.
        let key = if config.contains_key("dtype") { "dtype" } else { "torch_dtype" };
        config.insert(key.to_owned(), Value::String(dtype.to_string()));
    }
    Checkpoint::write_config(config, output)
}
