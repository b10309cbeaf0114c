//! A model folder as weights: `config.json`, the tensors, and which tensors together form one weight.
//! Knows no architecture by name; what differs between architectures is in `arch`.

mod card;
mod folder_kind;
mod left_out;
mod own_code;
mod quantized;
mod rope_parameters;
mod sanitize;
mod side_files;
mod strips;
mod summary;
mod tokenizer_files;
mod view;
mod weight;

use std::collections::BTreeMap;
use std::fs;
use std::ops::Range;
use std::path::Path;

use left_out::LeftOut;
use quantized::Packing;
use sanitize::Sanitize;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use strips::Strips;

use crate::Error;
use crate::arch::{self, Arch, Head, number_of};
use crate::error::{Context, OrBug, Result, fail, require};
use crate::kernels::{Float, Mode, QuantSpec};
use crate::tensor::{Element, TensorFiles, describe_foreign, to_pretty_json};
use artifact::{AtPath, Output};
pub use folder_kind::{check_adapter_folder, check_model_folder, describe_file};
pub use own_code::own_code;
pub(crate) use quantized::record;
pub use rope_parameters::add_older_rope_keys;
pub use side_files::OTHER_WEIGHT_FORMATS;
pub(crate) use side_files::copy_side_files;
pub use summary::ModelSummary;
use text::{from_python_json, to_python_json};
pub(crate) use tokenizer_files::difference as tokenizer_difference;
pub use view::View;
pub use weight::{Change, Part, Source, Weight, WeightKind};

/// What happens to tensors of vision, of audio and of multi-token prediction. It is left out of a recipe if they are
/// dropped, so that recipes from before there was a choice keep their keys.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Towers {
    /// They are left out, as mlx-lm does.
    #[default]
    Drop,
    /// They stay as they are, under the names of mlx-vlm.
    Include,
}

impl Towers {
    /// The choices and their words in `pipeline.yaml`.
    pub const WORDS: [(&str, Self); 2] = [("drop", Self::Drop), ("include", Self::Include)];

    /// Whether they are dropped.
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
    pub(crate) fn is_drop(&self) -> bool {
        *self == Self::Drop
    }
}

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
    left_out: LeftOut,
    strips: Strips,
}

impl Checkpoint {
    /// Opens a model folder and checks that its configuration and its tensors agree.
    ///
    /// # Errors
    /// Fails if a file is missing, cannot be read or is not in its format, or if the configuration and the
    /// tensors contradict each other. It also fails if this version does not support the way in which the
    /// model is quantized or its experts are stored.
    pub fn open(folder: &Path) -> Result<Self> {
        Self::open_with(folder, Towers::Drop)
    }

    /// Opens a model folder as [`open`](Self::open) does. `towers` says what happens to tensors that are not of
    /// the language model.
    ///
    /// # Errors
    /// Fails as [`open`](Self::open) does.
    pub fn open_with(folder: &Path, towers: Towers) -> Result<Self> {
        let mut config = read_json(&folder.join(CONFIG_FILE))?;
        let files = TensorFiles::open_model(folder)?;
        files.check_not_empty().within(|| format!("in {}", folder.display()))?;
        quantized::adopt_openai(&mut config);
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
        warnings.extend(repair_rope(&mut config));
        let arch = arch::of_config(&config);
        let model_type = config.get("model_type").and_then(Value::as_str).unwrap_or_default();
        if arch.model_type.is_empty() && !model_type.is_empty() {
            warnings.push(format!(
                "this version does not know the model type `{model_type}`, so it follows the general rule: all matrices are \
                 layers"
            ));
        }
        let stored = read_weights(&config, arch, &files).within(|| format!("in {}", folder.display()))?;
        let mut sanitize =
            Sanitize { weights: stored, config: &config, towers, left_out: LeftOut::default() };
        sanitize.run(arch, model_type).within(|| format!("in {}", folder.display()))?;
        let Sanitize { mut weights, left_out, .. } = sanitize;
        let drops_head = arch.drops_head(&config);
        weights.retain(|name, _| !arch.is_dropped(name, drops_head));
        Ok(Self { config, arch, files, weights, warnings, left_out, strips: Strips::default() })
    }

    /// Returns the weights by name. The names are those of mlx-lm's model without quantization, whatever the
    /// layout of the checkpoint is.
    pub fn weights(&self) -> &BTreeMap<String, Weight> {
        &self.weights
    }

    /// Returns what is wrong with the folder although it can be read as a model.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Returns what was left out because it is not of the language model.
    pub fn left_out(&self) -> &LeftOut {
        &self.left_out
    }

    /// Returns the record of its architecture.
    pub fn arch(&self) -> &'static Arch {
        self.arch
    }

    /// Whether the embedding is also the output head.
    pub fn is_tied(&self) -> bool {
        let has_head = HEADS.iter().any(|head| self.weights.contains_key(*head));
        self.arch.drops_head(&self.config) || (self.arch.head == Head::TiedIfAbsent && !has_head)
    }

    /// Gives a model whose head is its embedding a head of its own, with the same numbers, and returns the name of
    /// the head.
    ///
    /// # Errors
    /// Fails if mlx-lm's model of this type has no head of its own, or if there is no `embed_tokens`.
    pub(crate) fn untie(&mut self) -> Result<&'static str> {
        require!(
            self.arch.head != Head::AlwaysTied,
            Adapter,
            "a `{}` has no output head but its embedding in mlx-lm, so a trained `lm_head` has no place",
            self.model_type()
        );
        let is_below = self.weights.keys().any(|name| name.starts_with("language_model."));
        let head = if is_below { HEADS[1] } else { HEADS[0] };
        let embedding = self.embedding().ok_or_else(|| {
            Error::Adapter("the model has no `embed_tokens` that its head could be a copy of".to_owned())
        })?;
        let copy = self.weights.get(&embedding).or_bug("the embedding is there")?.clone();
        self.weights.insert(head.to_owned(), copy);
        if let Some(section) = self.config.get_mut("quantization").and_then(Value::as_object_mut) {
            let module = |name: &str| name.strip_suffix(".weight").unwrap_or(name).to_owned();
            if let Some(entry) = section.get(&module(&embedding)).cloned() {
                section.insert(module(head), entry);
            }
        }
        let tied = ("tie_word_embeddings".to_owned(), Value::Bool(false));
        if let Some(text) = self.config.get_mut("text_config").and_then(Value::as_object_mut) {
            text.extend([tied.clone()]);
        }
        self.config.extend([tied]);
        Ok(head)
    }

    /// Returns the name of the embedding of tokens, if it is called `embed_tokens`.
    pub(crate) fn embedding(&self) -> Option<String> {
        let is_embedding = |name: &&String| {
            name.strip_suffix("embed_tokens.weight")
                .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
        };
        self.weights.keys().find(is_embedding).cloned()
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
        let in_files = HEADS.iter().any(|head| self.files.get(head).is_some());
        let dropped = in_files && !HEADS.iter().any(|head| self.weights.contains_key(*head));
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
        number_of(&self.config, "num_hidden_layers")
    }

    /// Renames the entries of `section` for the weights that mlx-lm's model has under another name. Each
    /// quantized stack whose experts are stored one by one gets one entry for the whole stack.
    pub fn record_stacks(&self, section: &mut Map<String, Value>) {
        let module = |name: &str| name.strip_suffix(".weight").unwrap_or(name).to_owned();
        let (mut gone, mut own) = (Vec::new(), Vec::new());
        for (name, weight) in &self.weights {
            let WeightKind::Quantized(spec, _) = weight.kind else { continue };
            let others =
                weight.sources().iter().map(|source| &source.tensor).filter(|tensor| *tensor != name);
            let others: Vec<_> =
                others.filter(|tensor| section.contains_key(&module(tensor))).cloned().collect();
            if weight.sources().len() > 1 || !others.is_empty() {
                own.push((module(name), record(spec)));
            }
            gone.extend(others);
        }
        // A tensor may be what several weights are made of, and may itself be one of them.
        for tensor in gone.iter().filter(|tensor| !self.weights.contains_key(*tensor)) {
            section.remove(&module(tensor));
        }
        section.extend(own);
    }

    /// Returns the number of weights before packing.
    pub fn parameters(&self) -> u64 {
        self.weights.values().map(|weight| (weight.rows() * weight.columns()) as u64).sum()
    }

    /// Returns the number of bytes that all weights take in the files.
    pub fn stored(&self) -> u64 {
        self.weights.values().map(Weight::stored).sum()
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
        let (mut rest, mut row) = (&mut *bytes, first);
        for Source { tensor, view } in weight.sources() {
            let rows = view.rows();
            if row >= rows || rest.is_empty() {
                row = row.saturating_sub(rows);
                continue;
            }
            let count = (rows - row).min(rest.len().checked_div(row_bytes).unwrap_or(0));
            let (now, later) = rest.split_at_mut(count * row_bytes);
            let tensor = Weight::tensor(tensor, part);
            let read = |from: usize, bytes: &mut [u8]| self.files.read_part(&tensor, from, bytes);
            view.fill((&tensor, &self.strips), row_bytes, row, now, read)?;
            (rest, row) = (later, 0);
        }
        rest.is_empty().then_some(()).or_bug("every row has a source")?;
        if let (Some(change), WeightKind::Float(float)) = (weight.change(), weight.kind) {
            change.apply(float, weight.columns(), first, bytes);
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

/// Adds the older keys of the rope where mlx-lm's model does not read `rope_parameters`: it would run without the
/// scaling, and with another base. Returns what is to be said of that.
fn repair_rope(config: &mut Map<String, Value>) -> Option<String> {
    let outer = config.get("model_type").and_then(Value::as_str).unwrap_or_default().to_owned();
    let is_wrapper = config.get("text_config").is_some_and(Value::is_object);
    let text = if is_wrapper { config.get_mut("text_config")?.as_object_mut()? } else { config };
    let model_type = text.get("model_type").and_then(Value::as_str).unwrap_or(&outer).to_owned();
    if !text.contains_key("rope_parameters")
        || arch::reads_rope_parameters(&outer)
        || arch::reads_rope_parameters(&model_type)
    {
        return None;
    }
    let mut repaired = text.clone();
    match add_older_rope_keys(&mut repaired) {
        Ok(()) if *text == repaired => None,
        Ok(()) => {
            *text = repaired;
            Some(format!(
                "{CONFIG_FILE} has `rope_parameters`, which mlx-lm's `{model_type}` does not read; what is made says the same in \
             `rope_theta` and `rope_scaling` too"
            ))
        }
        Err(error) => {
            Some(format!("{error}, so mlx-lm's `{model_type}` may run what is made with another rope"))
        }
    }
}

/// The names of the output head: that of a language model, and below a wrapper.
const HEADS: [&str; 2] = ["lm_head.weight", "language_model.lm_head.weight"];

/// Describes the weights by the names that they have in the files.
fn read_weights(
    config: &Map<String, Value>,
    arch: &Arch,
    files: &TensorFiles,
) -> Result<BTreeMap<String, Weight>> {
    let packing = Packing::of(config, arch, files);
    let mut weights = BTreeMap::new();
    for (name, tensor) in files.tensors() {
        if quantized::is_openai_scale(name, files) {
            continue;
        }
        let openai = quantized::read_openai(name, tensor, files)?;
        let weight = match quantized::module_of(name, files) {
            Some(module) if name.ends_with(".weight") => quantized::read(module, tensor, files, &packing)?,
            Some(_) => continue,
            None if openai.is_some() => openai.or_bug("it is in OpenAI's form")?,
            None => {
                let kind =
                    float_of(tensor.element).map_or(WeightKind::Other(tensor.element), WeightKind::Float);
                Weight::of_tensor(name, tensor.shape.clone(), kind)
            }
        };
        weight.check().within(|| format!("`{name}` is {:?}", weight.shape))?;
        weights.insert(name.clone(), weight);
    }
    Ok(weights)
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
