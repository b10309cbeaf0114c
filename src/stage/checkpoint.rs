//! A model folder as weights: `config.json`, tensors, and which of them together are one quantized matrix.
//! Knows nothing of architectures: it goes by tensor names, as mlx-lm's loader does.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use serde_json::{Map, Value};

use super::Dtype;
use crate::backend::{Float, Grid, Matrix, Quantized};
use crate::failure::AtPath;
use crate::output::Output;
use crate::tensor::{Element, INDEX_FILE, TensorFiles, TensorRef, to_pretty_json};

/// The name of a model's configuration.
pub(super) const CONFIG_FILE: &str = "config.json";

/// A model folder, opened.
pub struct Checkpoint {
    folder: PathBuf,
    /// `config.json`.
    pub config: Map<String, Value>,
    files: TensorFiles,
    weights: BTreeMap<String, Weight>,
}

/// One tensor of the model as it would be without quantization.
#[derive(Clone, Debug)]
pub struct Weight {
    /// Its shape before packing.
    pub shape: Vec<usize>,
    /// How its bytes are kept.
    pub kind: WeightKind,
    /// How many bytes it takes in the files.
    pub stored: u64,
}

/// How the bytes of a weight are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WeightKind {
    /// One tensor of floats.
    Float(Float),
    /// `weight`, `scales` and `biases`; the scales have this type.
    Quantized(Grid, Float),
    /// Something that is no float, carried along as it is.
    Other(Element),
}

impl Checkpoint {
    /// Opens a model folder and checks that its configuration and its tensors agree.
    pub fn open(folder: &Path) -> anyhow::Result<Self> {
        let config = read_json(&folder.join(CONFIG_FILE))?;
        let files = TensorFiles::open_model(folder)?;
        let mut weights = BTreeMap::new();
        for (name, tensor) in files.tensors() {
            if let Some(module) = part_of_quantized(name, &files) {
                if name.ends_with(".weight") {
                    let weight = read_quantized(module, tensor, &files, &config);
                    weights.insert(name.clone(), weight.with_context(|| format!("in {}", folder.display()))?);
                }
                continue;
            }
            let kind = float_of(tensor.element).map_or(WeightKind::Other(tensor.element), WeightKind::Float);
            weights.insert(
                name.clone(),
                Weight { shape: tensor.shape.clone(), kind, stored: tensor.length as u64 },
            );
        }
        Ok(Self { folder: folder.to_owned(), config, files, weights })
    }

    /// Returns the weights by the names they have without quantization.
    pub fn weights(&self) -> &BTreeMap<String, Weight> {
        &self.weights
    }

    /// Returns the number of weights before packing.
    pub fn parameters(&self) -> u64 {
        self.weights
            .values()
            .map(|weight| weight.shape.iter().map(|&dimension| dimension as u64).product::<u64>())
            .sum()
    }

    /// Returns the bytes that all tensors take.
    pub fn stored(&self) -> u64 {
        self.weights.values().map(|weight| weight.stored).sum()
    }

    /// Reads the bytes of the tensor `name` as they are.
    pub fn read(&self, name: &str) -> anyhow::Result<Vec<u8>> {
        self.files.read(name)
    }

    /// Reads the float tensor `name` as a matrix whose rows are its last dimension.
    pub fn read_float(&self, name: &str, weight: &Weight, float: Float) -> anyhow::Result<Matrix> {
        Ok(Matrix { float, columns: last(&weight.shape), bytes: self.files.read(name)? })
    }

    /// Reads the three parts of the quantized weight `name`.
    pub fn read_quantized(
        &self,
        name: &str,
        weight: &Weight,
        grid: Grid,
        float: Float,
    ) -> anyhow::Result<Quantized> {
        let module = name.trim_end_matches(".weight");
        let columns = last(&weight.shape);
        let side = |part: &str| {
            let bytes = self.files.read(&format!("{module}.{part}"))?;
            anyhow::Ok(Matrix { float, columns: columns / grid.group_size, bytes })
        };
        Ok(Quantized {
            grid,
            columns,
            weight: self.files.read(name)?,
            scales: side("scales")?,
            biases: side("biases")?,
        })
    }

    /// Copies every file that is not weights, index or configuration, unchanged: tokenizer, template, licence.
    pub fn copy_side_files(&self, output: &Output) -> anyhow::Result<()> {
        let weights: Vec<_> = self.files.files().collect();
        for path in list(&self.folder)? {
            let name = relative(&self.folder, &path)?;
            if name != INDEX_FILE && name != CONFIG_FILE && !weights.contains(&path.as_path()) {
                output.copy(&path, &name)?;
            }
        }
        Ok(())
    }

    /// Writes `config`, which began as this checkpoint's, keys sorted.
    pub fn write_config(config: Map<String, Value>, output: &Output) -> anyhow::Result<()> {
        output.write(CONFIG_FILE, &to_pretty_json(Value::Object(config)))
    }
}

/// Reads a JSON file that holds an object.
pub(super) fn read_json(path: &Path) -> anyhow::Result<Map<String, Value>> {
    let bytes = fs::read(path).at("read", path)?;
    serde_json::from_slice(&bytes).with_context(|| format!("{} is not a JSON object", path.display()))
}

/// Returns the module that the tensor is a part of, if that module is quantized.
fn part_of_quantized<'a>(name: &'a str, files: &TensorFiles) -> Option<&'a str> {
    let (module, part) = name.rsplit_once('.')?;
    let has = |part: &str| files.get(&format!("{module}.{part}")).is_some();
    (matches!(part, "weight" | "scales" | "biases") && has("weight") && has("scales")).then_some(module)
}

fn read_quantized(
    module: &str,
    packed: &TensorRef,
    files: &TensorFiles,
    config: &Map<String, Value>,
) -> anyhow::Result<Weight> {
    let grid = grid_of(module, config)?;
    let side = |part: &str| {
        files.get(&format!("{module}.{part}")).with_context(|| format!("`{module}.{part}` is missing"))
    };
    let (scales, biases) = (side("scales")?, side("biases")?);
    let Some(float) = float_of(scales.element) else {
        bail!("`{module}.scales` is {}, not a float", scales.element)
    };
    let columns = last(&packed.shape) * 32 / grid.bits;
    let whole =
        (last(&packed.shape) * 32).is_multiple_of(grid.bits) && columns.is_multiple_of(grid.group_size);
    let fits = packed.element == Element::U32
        && whole
        && columns > 0
        && last(&scales.shape) == columns / grid.group_size
        && scales.shape.len() == packed.shape.len()
        && scales.shape.split_last().map(|(_, rows)| rows) == packed.shape.split_last().map(|(_, rows)| rows)
        && (&biases.shape, biases.element) == (&scales.shape, scales.element);
    let Grid { bits, group_size } = grid;
    ensure!(
        fits,
        "`{module}` does not have the shapes of {bits} bits in groups of {group_size}, as {CONFIG_FILE} says: \
         weight {:?} {}, scales {:?} {}, biases {:?} {}",
        packed.shape,
        packed.element,
        scales.shape,
        scales.element,
        biases.shape,
        biases.element
    );
    let mut shape = packed.shape.clone();
    *shape.last_mut().context("BUG: a quantized weight has a dimension")? = columns;
    let stored = (packed.length + scales.length + biases.length) as u64;
    Ok(Weight { shape, kind: WeightKind::Quantized(grid, float), stored })
}

/// Returns how `config.json` says that `module` is quantized: its own entry, else the default.
fn grid_of(module: &str, config: &Map<String, Value>) -> anyhow::Result<Grid> {
    let Some(quantization) = config.get("quantization").or_else(|| config.get("quantization_config")) else {
        bail!("`{module}` is quantized, but {CONFIG_FILE} has no `quantization`");
    };
    let entry = quantization.get(module).filter(|entry| entry.is_object()).unwrap_or(quantization);
    let mode =
        entry.get("mode").or_else(|| quantization.get("mode")).and_then(Value::as_str).unwrap_or("affine");
    ensure!(mode == "affine", "`{module}` is quantized in the mode {mode}; this version reads affine only");
    let number = |key: &str, allowed: &[usize]| {
        let value = entry.get(key).and_then(Value::as_u64).and_then(|value| usize::try_from(value).ok());
        value.filter(|value| allowed.contains(value)).with_context(|| {
            format!("`quantization` of `{module}` in {CONFIG_FILE} needs `{key}`, one of {allowed:?}")
        })
    };
    Ok(Grid { bits: number("bits", &[2, 3, 4, 5, 6, 8])?, group_size: number("group_size", &[32, 64, 128])? })
}

fn float_of(element: Element) -> Option<Float> {
    match element {
        Element::F16 => Some(Float::F16),
        Element::BF16 => Some(Float::Bf16),
        Element::F32 => Some(Float::F32),
        _ => None,
    }
}

/// Returns the safetensors name of a float type.
pub(super) fn element_of(float: Float) -> Element {
    match float {
        Float::F16 => Element::F16,
        Float::Bf16 => Element::BF16,
        Float::F32 => Element::F32,
    }
}

impl From<Dtype> for Float {
    fn from(dtype: Dtype) -> Self {
        match dtype {
            Dtype::Float16 => Self::F16,
            Dtype::Bfloat16 => Self::Bf16,
            Dtype::Float32 => Self::F32,
        }
    }
}

/// Returns the last dimension, the length of a row.
pub(super) fn last(shape: &[usize]) -> usize {
    shape.last().copied().unwrap_or(1)
}

fn list(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).at("read", folder)? {
        let entry = entry.at("read", folder)?;
        if entry.file_name().to_string_lossy().starts_with('.') {
            continue;
        }
        if entry.path().is_dir() {
            files.extend(list(&entry.path())?);
        } else {
            files.push(entry.path());
        }
    }
    files.sort();
    Ok(files)
}

fn relative(folder: &Path, path: &Path) -> anyhow::Result<String> {
    let inside = path.strip_prefix(folder).context("BUG: a listed file lies in its folder")?;
    inside
        .to_str()
        .map(str::to_owned)
        .with_context(|| format!("the file name {} is not UTF-8", path.display()))
}
