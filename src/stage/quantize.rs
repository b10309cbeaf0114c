//! `quantize`: quantizes the linear and embedding weights of a model in MLX's affine mode, tensor by tensor.
//! Knows nothing of how a matrix is quantized; that is the backend's.

use std::collections::HashMap;
use std::path::Path;

use anyhow::{Context, ensure};
use serde_json::json;

use super::checkpoint::{Checkpoint, Weight, WeightKind, element_of, last};
use super::fuse::read_dense;
use super::{Quantize, Tick};
use crate::backend::{Backend, Float, Grid};
use crate::output::Output;
use crate::tensor::{Element, TensorSpec, TensorWriter};

/// Quantizes the model at `model`. A model that is quantized already is dequantized first.
pub(super) fn run(
    parameters: &Quantize,
    model: &Path,
    output: &Output,
    backend: &dyn Backend,
    tick: Tick<'_>,
) -> anyhow::Result<()> {
    let checkpoint = Checkpoint::open(model)?;
    let grid = Grid { bits: parameters.bits as usize, group_size: parameters.group_size as usize };
    check_group_size(&checkpoint, grid)?;
    let specs = checkpoint.weights().iter().flat_map(|(name, weight)| specs(name, weight, grid)).collect();
    let mut writer = TensorWriter::new(output, specs);
    // `biases` and `scales` of a module sort before its `weight`, which may have others between: what is made
    // early waits here. At most the parts of one module do.
    let mut made = HashMap::new();
    let mut done = 0;
    for spec in writer.order() {
        if !made.contains_key(&spec.name) {
            let name = weight_name(&spec.name, &checkpoint);
            let weight = checkpoint.weights().get(&name).context("BUG: a laid out tensor has a weight")?;
            make(&checkpoint, &name, weight, grid, backend, &mut made)?;
            done += weight.stored;
        }
        let bytes = made.remove(&spec.name).with_context(|| format!("BUG: `{}` was made", spec.name))?;
        writer.push(&spec.name, &bytes)?;
        tick(done, checkpoint.stored())?;
    }
    writer.finish(checkpoint.parameters())?;
    write_config(&checkpoint, parameters, output)?;
    checkpoint.copy_side_files(output)
}

/// Checks, before anything runs, that the group size divides a row of some weight of the model at `base`.
pub(super) fn preflight(parameters: &Quantize, base: &Path) -> anyhow::Result<()> {
    let grid = Grid { bits: parameters.bits as usize, group_size: parameters.group_size as usize };
    // A base that cannot be opened is for its own node to report.
    Checkpoint::open(base).map_or(Ok(()), |checkpoint| check_group_size(&checkpoint, grid))
}

fn check_group_size(checkpoint: &Checkpoint, grid: Grid) -> anyhow::Result<()> {
    let any = checkpoint.weights().iter().any(|(name, weight)| quantizes(name, weight, grid));
    ensure!(any, "`group_size: {}` divides no row of the model's weights", grid.group_size);
    Ok(())
}

/// Mirrors mlx-lm's `quantize_model`: linear and embedding weights whose last dimension the group size divides.
/// By name and shape these are the matrices called `weight`, and the 3-D stacks of experts.
fn quantizes(name: &str, weight: &Weight, grid: Grid) -> bool {
    let is_matrix = weight.shape.len() == 2 || (weight.shape.len() == 3 && name.contains(".switch_mlp."));
    name.ends_with(".weight")
        && is_matrix
        && last(&weight.shape).is_multiple_of(grid.group_size)
        && !matches!(weight.kind, WeightKind::Other(_))
}

fn float(weight: &Weight) -> Option<Float> {
    match weight.kind {
        WeightKind::Float(float) | WeightKind::Quantized(_, float) => Some(float),
        WeightKind::Other(_) => None,
    }
}

fn specs(name: &str, weight: &Weight, grid: Grid) -> Vec<TensorSpec> {
    let element = match weight.kind {
        WeightKind::Other(element) => element,
        WeightKind::Float(float) | WeightKind::Quantized(_, float) => element_of(float),
    };
    let spec = |name: String, element: Element, columns: usize| {
        let mut shape = weight.shape.clone();
        if let Some(last) = shape.last_mut() {
            *last = columns;
        }
        TensorSpec { name, element, shape }
    };
    let columns = last(&weight.shape);
    if !quantizes(name, weight, grid) {
        return vec![TensorSpec { name: name.to_owned(), element, shape: weight.shape.clone() }];
    }
    let module = name.trim_end_matches(".weight");
    vec![
        spec(name.to_owned(), Element::U32, columns * grid.bits / 32),
        spec(format!("{module}.scales"), element, columns / grid.group_size),
        spec(format!("{module}.biases"), element, columns / grid.group_size),
    ]
}

/// Returns the weight that the tensor `name` is made from.
fn weight_name(name: &str, checkpoint: &Checkpoint) -> String {
    if checkpoint.weights().contains_key(name) {
        return name.to_owned();
    }
    let module = name.rsplit_once('.').map_or(name, |(module, _)| module);
    format!("{module}.weight")
}

fn make(
    checkpoint: &Checkpoint,
    name: &str,
    weight: &Weight,
    grid: Grid,
    backend: &dyn Backend,
    made: &mut HashMap<String, Vec<u8>>,
) -> anyhow::Result<()> {
    let Some(dense) =
        float(weight).map(|_| read_dense(checkpoint, name, weight, None, backend)).transpose()?.flatten()
    else {
        made.insert(name.to_owned(), checkpoint.read(name)?);
        return Ok(());
    };
    if !quantizes(name, weight, grid) {
        made.insert(name.to_owned(), dense.bytes);
        return Ok(());
    }
    let module = name.trim_end_matches(".weight");
    let quantized = backend.quantize(&dense, grid)?;
    made.insert(name.to_owned(), quantized.weight);
    made.insert(format!("{module}.scales"), quantized.scales.bytes);
    made.insert(format!("{module}.biases"), quantized.biases.bytes);
    Ok(())
}

/// mlx-lm reads `quantization`; Hugging Face's tools look for `quantization_config`.
fn write_config(checkpoint: &Checkpoint, parameters: &Quantize, output: &Output) -> anyhow::Result<()> {
    let mut config = checkpoint.config.clone();
    let quantization =
        json!({"bits": parameters.bits, "group_size": parameters.group_size, "mode": "affine"});
    config.insert("quantization".to_owned(), quantization.clone());
    config.insert("quantization_config".to_owned(), quantization);
    Checkpoint::write_config(config, output)
}
