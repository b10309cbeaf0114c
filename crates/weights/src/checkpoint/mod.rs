//! A model folder as weights: `config.json`, the tensors, and which tensors together form one weight.
//! Knows no architecture by name; what differs between architectures is in `arch`.

mod card;
mod experts;
mod folder_kind;
mod quantized;
mod side_files;
mod summary;
mod tokenizer_files;

use std::collections::BTreeMap;
use std::fs;
use std::ops::Range;
use std::path::Path;

use quantized::Packing;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::arch::{self, Arch, Head};
use crate::error::{Context, OrBug, Result, fail, require};
use crate::kernels::{Float, Mode, QuantSpec};
use crate::tensor::{Element, TensorFiles, describe_foreign, to_pretty_json};
use artifact::{AtPath, Output};
pub use folder_kind::{check_adapter_folder, check_model_folder, describe_file};
pub(crate) use quantized::record;
pub use side_files::OTHER_WEIGHT_FORMATS;
pub(crate) use side_files::copy_side_files;
pub use summary::ModelSummary;
use text::{from_python_json, to_python_json};
pub(crate) use tokenizer_files::difference as tokenizer_difference;

/// The Hugging Face repository and commit that a model comes from, for its model card.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelOrigin {
    /// The repository, `ORG/NAME`.
    pub repo: String,
    /// The commit, 40 hexadecimal digits.
    pub commit: String,
}

/// The name of a model's configuration.
pub(crate) const CONFIG_FILE: &str = "config.json";

/// An opened model folder.
pub struct Checkpoint {
    /// The contents of `config.json`.
    pub config: Map<String, Value>,
    arch: &'static Arch,
    files: TensorFiles,
    weights: BTreeMap<String, Weight>,
    warnings: Vec<String>,
}

/// One weight of the model, described as it would be without quantization.
#[derive(Clone, Debug)]
pub struct Weight {
    /// Its shape before packing, outermost dimension first.
    pub shape: Vec<usize>,
    /// How it is stored.
    pub kind: WeightKind,
    /// The number of bytes it takes in the files, all parts together.
    pub stored: u64,
    /// The tensors in the files whose rows follow each other in it, by name: one, or one for each expert. For
    /// a quantized module it is the name of the `weight` tensor.
    sources: Vec<String>,
}

/// How a weight is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WeightKind {
    /// One tensor of floats.
    Float(Float),
    /// `weight`, `scales` and, in the affine mode, `biases`. They dequantize to this float type.
    Quantized(QuantSpec, Float),
    /// One tensor of another type, which is copied as it is.
    Other(Element),
}

impl WeightKind {
    /// Returns how the weight is quantized, or `None` if it is not.
    pub fn spec(self) -> Option<QuantSpec> {
        match self {
            Self::Quantized(spec, _) => Some(spec),
            Self::Float(_) | Self::Other(_) => None,
        }
    }
}

/// One of the tensors that a weight is stored in.
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
    /// All parts, each with the last word of its tensor's name.
    pub const WORDS: [(&'static str, Self); 3] =
        [("weight", Self::Weight), ("scales", Self::Scales), ("biases", Self::Biases)];
}

impl Weight {
    /// Returns the length of a row in weights: the last dimension, or 1 for a scalar.
    pub fn columns(&self) -> usize {
        self.shape.last().copied().unwrap_or(1)
    }

    /// Returns the number of rows: the product of all dimensions but the last.
    pub fn rows(&self) -> usize {
        self.shape.split_last().map_or(1, |(_, rows)| rows.iter().product())
    }

    /// Returns the number of rows of one matrix. In a stack, that is one expert.
    pub fn matrix_rows(&self) -> usize {
        match self.shape.as_slice() {
            [.., rows, _] => *rows,
            _ => 1,
        }
    }

    /// Returns the float type that it has or dequantizes to, or `None` if it holds no floats.
    pub fn float(&self) -> Option<Float> {
        match self.kind {
            WeightKind::Float(float) | WeightKind::Quantized(_, float) => Some(float),
            WeightKind::Other(_) => None,
        }
    }

    /// Checks that eight times the number of weights does not overflow, where an empty dimension counts as 1,
    /// and that each row is a whole number of bytes.
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

    /// Returns the number of bytes that a row takes in `part`.
    pub fn row_bytes(&self, part: Part) -> usize {
        let columns = self.columns();
        match (self.kind, part) {
            (WeightKind::Float(float), _) => columns * float.size(),
            (WeightKind::Other(element), _) => columns * element.bitsize() / 8,
            (WeightKind::Quantized(spec, _), Part::Weight) => spec.weight_bytes(columns),
            (WeightKind::Quantized(spec, float), Part::Scales) => spec.scale_bytes(columns, float),
            (WeightKind::Quantized(spec, float), Part::Biases) => spec.bias_bytes(columns, float),
        }
    }

    /// Returns the tensors in the files whose rows follow each other in it, by name: one, or one for each
    /// expert of a stack. For a quantized module it is the name of the `weight` tensor.
    pub fn sources(&self) -> &[String] {
        &self.sources
    }

    /// Returns the parts that it is stored in.
    pub fn parts(&self) -> &'static [Part] {
        match self.kind {
            WeightKind::Float(_) | WeightKind::Other(_) => &[Part::Weight],
            WeightKind::Quantized(spec, _) if spec.mode == Mode::Affine => {
                &[Part::Weight, Part::Scales, Part::Biases]
            }
            WeightKind::Quantized(..) => &[Part::Weight, Part::Scales],
        }
    }

    /// Returns the name of the tensor that holds `part` of `source`, which is one of
    /// [`sources`](Self::sources). A source whose name does not end with `.weight` has no other parts: its
    /// own name is returned.
    pub fn tensor(source: &str, part: Part) -> String {
        let word = Part::WORDS.iter().find(|(_, other)| *other == part).map(|(word, _)| *word);
        match (word, source.strip_suffix("weight")) {
            (Some(word), Some(module)) if module.ends_with('.') => format!("{module}{word}"),
            _ => source.to_owned(),
        }
    }

    /// Returns the names of all tensors that it is stored in.
    pub fn tensors(&self) -> impl Iterator<Item = String> {
        let of_part = |part: Part| self.sources.iter().map(move |source| Self::tensor(source, part));
        self.parts().iter().copied().flat_map(of_part)
    }
}

impl Checkpoint {
    /// Opens a model folder and checks that its configuration and its tensors agree.
    ///
    /// # Errors
    /// Fails if a file is missing, cannot be read or is not in its format, or if the configuration and the
    /// tensors contradict each other. It also fails if this version does not support the way in which the
    /// model is quantized or its experts are stored.
    pub fn open(folder: &Path) -> Result<Self> {
        let mut config = read_json(&folder.join(CONFIG_FILE))?;
        let files = TensorFiles::open_model(folder)?;
        let left_over =
            quantized::left_over(&config, &files).within(|| format!("in {}", folder.display()))?;
        let mut warnings: Vec<_> = files.warning().map(str::to_owned).into_iter().collect();
        if let Some(method) = left_over {
            quantized::forget_others(&mut config);
            warnings.push(format!(
                "{CONFIG_FILE} says that {method} quantized the model, but its weights are floats; the section \
                 `quantization_config` is left out"
            ));
        }
        let arch = arch::of_config(&config);
        let model_type = config.get("model_type").and_then(Value::as_str).unwrap_or_default();
        if arch.model_type.is_empty() && !model_type.is_empty() {
            warnings.push(format!(
                "this version does not know the model type `{model_type}`, so it follows the general rule: all matrices are \
                 layers"
            ));
        }
        let weights = read_weights(&config, arch, &files).within(|| format!("in {}", folder.display()))?;
        Ok(Self { config, arch, files, weights, warnings })
    }

    /// Returns the weights by name. The names are those of the model without quantization, with its experts
    /// stacked.
    pub fn weights(&self) -> &BTreeMap<String, Weight> {
        &self.weights
    }

    /// Returns what is wrong with the folder although it can be read as a model.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Returns the record of its architecture.
    pub fn arch(&self) -> &'static Arch {
        self.arch
    }

    /// Whether the embedding is also the output head.
    pub fn is_tied(&self) -> bool {
        let has_head = self.weights.contains_key("lm_head.weight");
        self.arch.drops_head(&self.config) || (self.arch.head == Head::TiedIfAbsent && !has_head)
    }

    /// Returns the files that hold the tensors.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.files.files()
    }

    /// Returns the `model_type` of the configuration, or an empty text if there is none.
    pub fn model_type(&self) -> &str {
        self.config.get("model_type").and_then(Value::as_str).unwrap_or_default()
    }

    /// Whether the output head in the files is dropped although `config.json` has no `tie_word_embeddings`.
    pub fn drops_a_head_unsaid(&self) -> bool {
        let dropped =
            self.files.get("lm_head.weight").is_some() && !self.weights.contains_key("lm_head.weight");
        dropped && !self.config.contains_key("tie_word_embeddings")
    }

    /// Returns the default in the `quantization` of `config.json`: how modules without an entry of their own
    /// are quantized. Returns `None` if there is no usable default. A converted model may have a wrong
    /// default, so [`Weight::kind`] says how a weight is really quantized.
    pub fn default_spec(&self) -> Option<QuantSpec> {
        let section = self.config.get("quantization")?;
        let number = |key: &str| usize::try_from(section.get(key)?.as_u64()?).ok();
        let word = section.get("mode").map_or(Some("affine"), Value::as_str)?;
        let (_, mode) = Mode::WORDS.into_iter().find(|(known, _)| *known == word)?;
        Some(QuantSpec { bits: number("bits")?, group_size: number("group_size")?, mode })
    }

    /// Returns the number of layers that `config.json` gives, if it gives one.
    pub fn layers(&self) -> Option<usize> {
        let inner = || self.config.get("text_config").and_then(|text| text.get("num_hidden_layers"));
        let layers = self.config.get("num_hidden_layers").or_else(inner).and_then(Value::as_u64);
        layers.and_then(|layers| usize::try_from(layers).ok())
    }

    /// Replaces the entries of single experts in `section`. Each quantized stack whose experts are stored one
    /// by one gets one entry for the whole stack.
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

    /// Returns the number of bytes that all weights take in the files.
    pub fn stored(&self) -> u64 {
        self.weights.values().map(|weight| weight.stored).sum()
    }

    /// Reads `part` of these rows of `weight` into `bytes`, and resizes `bytes` to fit. Rows are counted over
    /// all matrices of a stack.
    ///
    /// # Errors
    /// Fails if a file cannot be read.
    pub fn read_rows(
        &self,
        weight: &Weight,
        part: Part,
        rows: &Range<usize>,
        bytes: &mut Vec<u8>,
    ) -> Result<()> {
        bytes.resize(rows.len() * weight.row_bytes(part), 0);
        self.fill_rows(weight, part, rows.start, bytes)
    }

    /// Fills `bytes` with `part` of whole rows of `weight`, from row `first` on.
    ///
    /// # Errors
    /// Fails if a file cannot be read. Rows beyond the weight's end are a bug.
    pub fn fill_rows(&self, weight: &Weight, part: Part, first: usize, bytes: &mut [u8]) -> Result<()> {
        let row_bytes = weight.row_bytes(part);
        let rows_each = (weight.rows() / weight.sources.len()).max(1);
        let (mut rest, mut row) = (bytes, first);
        while !rest.is_empty() {
            let source = weight.sources.get(row / rows_each).or_bug("every row has a source")?;
            let within = row % rows_each;
            let count = (rows_each - within).min(rest.len() / row_bytes);
            let (now, later) = rest.split_at_mut(count * row_bytes);
            self.files.read_part(&Weight::tensor(source, part), within * row_bytes, now)?;
            (rest, row) = (later, row + count);
        }
        Ok(())
    }

    /// Writes `config` as the `config.json` of a new model, with sorted keys.
    ///
    /// # Errors
    /// Fails if the file cannot be written.
    pub fn write_config(config: Map<String, Value>, output: &Output) -> Result<()> {
        Ok(output.write(CONFIG_FILE, &to_python_json(to_pretty_json(Value::Object(config))))?)
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
///
/// # Errors
/// Fails if the file cannot be read or does not hold a JSON object.
pub fn read_json(path: &Path) -> Result<Map<String, Value>> {
    let bytes = fs::read(path).at("read", path)?;
    if let Some(what) = fs::File::open(path).and_then(|file| describe_foreign(&file)).at("read", path)? {
        fail!(Format, "{} is {what}", path.display());
    }
    from_python_json(&bytes).within(|| format!("{} is not a JSON object", path.display()))
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
