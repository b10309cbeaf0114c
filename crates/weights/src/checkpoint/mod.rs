//! A model folder as weights: `config.json`, tensors, and which of them together are one weight.
//! Knows nothing of architectures: it goes by tensor names, as mlx-lm's loader does.

mod card;
mod experts;
mod quantized;
mod side_files;
mod summary;

use std::collections::BTreeMap;
use std::fs;
use std::ops::Range;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::arch::{self, Arch, Head};
use crate::error::{Context, OrBug, Result, require};
use crate::kernels::{Float, Mode, QuantSpec};
use crate::tensor::{Element, TensorFiles, to_pretty_json};
use artifact::{AtPath, Output};

use quantized::Packing;
pub(crate) use quantized::record;
pub(crate) use side_files::copy_side_files;
pub use summary::ModelSummary;

/// Where a model comes from on the Hugging Face hub, for its model card.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelOrigin {
    /// The repository, `ORG/NAME`.
    pub repo: String,
    /// The commit, 40 hexadecimal digits.
    pub commit: String,
}

/// The name of a model's configuration.
pub(crate) const CONFIG_FILE: &str = "config.json";

/// A model folder, opened.
pub struct Checkpoint {
    /// `config.json`.
    pub config: Map<String, Value>,
    arch: &'static Arch,
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
    /// The modules in the files whose rows follow each other in it: one, or one for each expert.
    sources: Vec<String>,
}

/// How the bytes of a weight are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WeightKind {
    /// One tensor of floats.
    Float(Float),
    /// `weight`, `scales` and, in the affine mode, `biases`; it is dequantized to this type.
    Quantized(QuantSpec, Float),
    /// Something that is no float, carried along as it is.
    Other(Element),
}

impl WeightKind {
    /// Returns how it is quantized, if it is.
    pub fn spec(self) -> Option<QuantSpec> {
        match self {
            Self::Quantized(spec, _) => Some(spec),
            Self::Float(_) | Self::Other(_) => None,
        }
    }
}

/// A tensor that a quantized weight is kept in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The codes, or the floats themselves.
    Weight,
    /// The scale of each group.
    Scales,
    /// The bias of each group, in the affine mode.
    Biases,
}

impl Part {
    /// All parts, by the last word of their tensors' names.
    pub const WORDS: [(&'static str, Self); 3] =
        [("weight", Self::Weight), ("scales", Self::Scales), ("biases", Self::Biases)];
}

impl Weight {
    /// Returns the length of a row, the last dimension.
    pub fn columns(&self) -> usize {
        self.shape.last().copied().unwrap_or(1)
    }

    /// Returns the number of rows of all matrices in it.
    pub fn rows(&self) -> usize {
        self.shape.split_last().map_or(1, |(_, rows)| rows.iter().product())
    }

    /// Returns the number of rows of one matrix: of one expert, if it is a stack.
    pub fn matrix_rows(&self) -> usize {
        match self.shape.as_slice() {
            [.., rows, _] => *rows,
            _ => 1,
        }
    }

    /// Returns the type that it has, or is dequantized to.
    pub fn float(&self) -> Option<Float> {
        match self.kind {
            WeightKind::Float(float) | WeightKind::Quantized(_, float) => Some(float),
            WeightKind::Other(_) => None,
        }
    }

    /// Checks that its size can be counted, empty dimensions left out, and that its rows are whole bytes.
    fn check(&self) -> Result<()> {
        let size =
            self.shape.iter().try_fold(8usize, |size, dimension| size.checked_mul((*dimension).max(1)));
        require!(size.is_some(), Checkpoint, "no machine has so many weights");
        if let WeightKind::Other(element) = self.kind {
            let whole = (self.columns() * element.bitsize()).is_multiple_of(8);
            require!(whole, Checkpoint, "rows of {} times {element} are no whole bytes", self.columns());
        }
        Ok(())
    }

    /// Returns the bytes that a row takes in `part`.
    fn row_bytes(&self, part: Part) -> usize {
        let columns = self.columns();
        match (self.kind, part) {
            (WeightKind::Float(float), _) => columns * float.size(),
            (WeightKind::Other(element), _) => columns * element.bitsize() / 8,
            (WeightKind::Quantized(spec, _), Part::Weight) => spec.weight_bytes(columns),
            (WeightKind::Quantized(spec, float), Part::Scales) => spec.scale_bytes(columns, float),
            (WeightKind::Quantized(spec, float), Part::Biases) => spec.bias_bytes(columns, float),
        }
    }

    /// Returns the modules in the files whose rows follow each other in it: one, or one for each expert of a stack.
    pub fn sources(&self) -> &[String] {
        &self.sources
    }

    /// Returns the parts that it is kept in.
    pub fn parts(&self) -> &'static [Part] {
        match self.kind {
            WeightKind::Float(_) | WeightKind::Other(_) => &[Part::Weight],
            WeightKind::Quantized(spec, _) if spec.mode == Mode::Affine => {
                &[Part::Weight, Part::Scales, Part::Biases]
            }
            WeightKind::Quantized(..) => &[Part::Weight, Part::Scales],
        }
    }

    /// Returns the name of the tensor that holds `part` of the rows of `source`. A tensor that is not called `….weight` has
    /// no parts: it is its own source.
    pub fn tensor(source: &str, part: Part) -> String {
        let word = Part::WORDS.iter().find(|(_, other)| *other == part).map(|(word, _)| *word);
        match (word, source.strip_suffix("weight")) {
            (Some(word), Some(module)) if module.ends_with('.') => format!("{module}{word}"),
            _ => source.to_owned(),
        }
    }

    /// Returns the names of all tensors that it is kept in.
    pub fn tensors(&self) -> impl Iterator<Item = String> {
        let of_part = |part: Part| self.sources.iter().map(move |source| Self::tensor(source, part));
        self.parts().iter().copied().flat_map(of_part)
    }
}

impl Checkpoint {
    /// Opens a model folder and checks that its configuration and its tensors agree.
    pub fn open(folder: &Path) -> Result<Self> {
        let config = read_json(&folder.join(CONFIG_FILE))?;
        quantized::refuse_others(&config).within(|| format!("in {}", folder.display()))?;
        let files = TensorFiles::open_model(folder)?;
        let arch = arch::of_config(&config);
        let weights = read_weights(&config, arch, &files).within(|| format!("in {}", folder.display()))?;
        Ok(Self { config, arch, files, weights })
    }

    /// Returns the weights by the names they have without quantization.
    pub fn weights(&self) -> &BTreeMap<String, Weight> {
        &self.weights
    }

    /// Returns what is known of its architecture.
    pub fn arch(&self) -> &'static Arch {
        self.arch
    }

    /// Whether the embedding is the output head too.
    pub fn is_tied(&self) -> bool {
        let has_head = self.weights.contains_key("lm_head.weight");
        self.arch.drops_head(&self.config) || (self.arch.head == Head::TiedIfAbsent && !has_head)
    }

    /// Returns the files that hold the tensors.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.files.files()
    }

    /// Returns the `model_type` of the configuration.
    pub fn model_type(&self) -> &str {
        self.config.get("model_type").and_then(Value::as_str).unwrap_or_default()
    }

    /// Whether a head was dropped although `config.json` does not say that the model is tied.
    pub fn drops_a_head_unsaid(&self) -> bool {
        let dropped =
            self.files.get("lm_head.weight").is_some() && !self.weights.contains_key("lm_head.weight");
        dropped && !self.config.contains_key("tie_word_embeddings")
    }

    /// Returns how `config.json` says that modules are quantized which it does not name; none if it says nothing that can
    /// be used. A converted model may have a wrong default: how a weight is quantized is what the weight says.
    pub fn default_spec(&self) -> Option<QuantSpec> {
        let section = self.config.get("quantization")?;
        let number = |key: &str| usize::try_from(section.get(key)?.as_u64()?).ok();
        let word = section.get("mode").map_or(Some("affine"), Value::as_str)?;
        let (_, mode) = Mode::WORDS.into_iter().find(|(known, _)| *known == word)?;
        Some(QuantSpec { bits: number("bits")?, group_size: number("group_size")?, mode })
    }

    /// Returns the number of layers.
    pub fn layers(&self) -> Option<usize> {
        let inner = || self.config.get("text_config").and_then(|text| text.get("num_hidden_layers"));
        let layers = self.config.get("num_hidden_layers").or_else(inner).and_then(Value::as_u64);
        layers.and_then(|layers| usize::try_from(layers).ok())
    }

    /// Records under their own names how stacks are quantized whose experts were kept one by one.
    pub fn record_stacks(&self, section: &mut Map<String, Value>) {
        for (name, weight) in &self.weights {
            if let (WeightKind::Quantized(spec, _), [_, _, ..]) = (weight.kind, weight.sources.as_slice()) {
                for source in &weight.sources {
                    section.remove(source.strip_suffix(".weight").unwrap_or(source));
                }
                let module = name.strip_suffix(".weight").unwrap_or(name);
                section.insert(module.to_owned(), record(spec));
            }
        }
    }

    /// Returns the number of weights before packing.
    pub fn parameters(&self) -> u64 {
        self.weights.values().map(|weight| (weight.rows() * weight.columns()) as u64).sum()
    }

    /// Returns the bytes that all tensors take.
    pub fn stored(&self) -> u64 {
        self.weights.values().map(|weight| weight.stored).sum()
    }

    /// Reads `part` of these rows of `weight` into `bytes`.
    pub fn read_rows(
        &self,
        weight: &Weight,
        part: Part,
        rows: &Range<usize>,
        bytes: &mut Vec<u8>,
    ) -> Result<()> {
        let row_bytes = weight.row_bytes(part);
        let rows_each = (weight.rows() / weight.sources.len()).max(1);
        bytes.resize(rows.len() * row_bytes, 0);
        let mut rest = bytes.as_mut_slice();
        let mut row = rows.start;
        while !rest.is_empty() {
            let source = weight.sources.get(row / rows_each).or_bug("every row has a source")?;
            let first = row % rows_each;
            let count = (rows_each - first).min(rows.end - row);
            let (now, later) = rest.split_at_mut(count * row_bytes);
            self.files.read_part(&Weight::tensor(source, part), first * row_bytes, now)?;
            (rest, row) = (later, row + count);
        }
        Ok(())
    }

    /// Writes `config`, which began as this checkpoint's, keys sorted.
    pub fn write_config(config: Map<String, Value>, output: &Output) -> Result<()> {
        Ok(output.write(CONFIG_FILE, &to_pretty_json(Value::Object(config)))?)
    }
}

fn read_weights(
    config: &Map<String, Value>,
    arch: &Arch,
    files: &TensorFiles,
) -> Result<BTreeMap<String, Weight>> {
    let drops_head = arch.drops_head(config);
    let packing = Packing::of(config, arch, files);
    let mut weights = BTreeMap::new();
    for (name, tensor) in files.tensors() {
        if arch.is_dropped(name, drops_head) {
            continue;
        }
        let weight = match quantized::module_of(name, files) {
            Some(module) if name.ends_with(".weight") => quantized::read(module, tensor, files, &packing)?,
            Some(_) => continue,
            None => {
                let kind =
                    float_of(tensor.element).map_or(WeightKind::Other(tensor.element), WeightKind::Float);
                let (shape, stored) = (tensor.shape.clone(), tensor.length as u64);
                Weight { shape, kind, stored, sources: vec![name.clone()] }
            }
        };
        weight.check().within(|| format!("`{name}` is {:?}", weight.shape))?;
        weights.insert(name.clone(), weight);
    }
    let model_type = config.get("model_type").and_then(Value::as_str).unwrap_or_default();
    experts::stack(weights, arch, model_type)
}

/// Reads a JSON file that holds an object.
pub fn read_json(path: &Path) -> Result<Map<String, Value>> {
    let bytes = fs::read(path).at("read", path)?;
    serde_json::from_slice(&bytes).within(|| format!("{} is not a JSON object", path.display()))
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
pub(crate) fn element_of(float: Float) -> Element {
    match float {
        Float::F16 => Element::F16,
        Float::Bf16 => Element::BF16,
        Float::F32 => Element::F32,
    }
}
