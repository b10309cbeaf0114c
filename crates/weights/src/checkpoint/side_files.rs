//! The files beside the weights: tokenizer, chat template, licence, whatever else there is.
//! Knows nothing of what is in them.

use std::fs;
use std::path::{Path, PathBuf};

use super::{CONFIG_FILE, ModelOrigin, card};
use crate::Error;
use crate::error::{OrBug, Result};
use crate::survival::SURVIVAL_FILE;
use crate::tensor::{INDEX_FILE, TensorFiles};
use artifact::{AtPath, Output};

/// Files that hold weights once more: those of the source, which are not those of what is made.
const WEIGHT_FORMATS: [&str; 9] =
    [".safetensors", ".safetensors.index.json", ".bin", ".pt", ".pth", ".gguf", ".onnx", ".h5", ".msgpack"];

/// The name of the model card.
const CARD_FILE: &str = "README.md";

/// Copies every file of the model in `folder` that is not weights, index or configuration, unchanged: tokenizer,
/// template, licence. What a quantized model says of its own fine-tuning is not said of what is made of it. Of the model card the head is completed; `origin` is what the model was made from.
pub(crate) fn copy_side_files(folder: &Path, origin: Option<&ModelOrigin>, output: &Output) -> Result<()> {
    let files = TensorFiles::open_model(folder)?;
    let weights: Vec<_> = files.files().collect();
    let mut left_out = Vec::new();
    for path in list(folder)? {
        let name = relative(folder, &path)?;
        let own = [INDEX_FILE, CONFIG_FILE, CARD_FILE, SURVIVAL_FILE].contains(&name.as_str());
        if own || weights.contains(&path.as_path()) {
            continue;
        }
        if WEIGHT_FORMATS.iter().any(|ending| name.ends_with(ending)) {
            left_out.push(name);
        } else {
            output.copy(&path, &name)?;
        }
    }
    if !left_out.is_empty() {
        output.warn(format!(
            "left out, because they hold weights as they were before: {}",
            left_out.join(", ")
        ));
    }
    write_card(&folder.join(CARD_FILE), origin, output)
}

fn write_card(path: &Path, origin: Option<&ModelOrigin>, output: &Output) -> Result<()> {
    let source = if path.exists() { fs::read(path).at("read", path)? } else { Vec::new() };
    let completed = std::str::from_utf8(&source).ok().and_then(|card| card::complete(card, origin));
    Ok(output.write(CARD_FILE, completed.as_deref().map_or(&source, str::as_bytes))?)
}

fn list(folder: &Path) -> Result<Vec<PathBuf>> {
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

fn relative(folder: &Path, path: &Path) -> Result<String> {
    let inside = path.strip_prefix(folder).ok().or_bug("a listed file lies in its folder")?;
    inside
        .to_str()
        .map(str::to_owned)
        .ok_or_else(|| Error::Checkpoint(format!("the file name {} is not UTF-8", path.display())))
}
