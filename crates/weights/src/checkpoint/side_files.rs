//! Copies the files beside the weights: tokenizer, chat template, licence and all others.
//! Knows nothing of what is in them.

use std::fs;
use std::path::{Path, PathBuf};

use super::tokenizer_files::{GENERATION, TokenizerFiles, is_of_tokenizer, is_template};
use super::{CONFIG_FILE, ModelOrigin, card};
use crate::Error;
use crate::error::{OrBug, Result, fail};
use crate::survival::SURVIVAL_FILE;
use crate::tensor::{INDEX_FILE, TensorFiles};
use artifact::{AtPath, Output, fold};

/// The endings of files that hold the same weights in other formats than safetensors.
pub const OTHER_WEIGHT_FORMATS: [&str; 7] = [".bin", ".pt", ".pth", ".gguf", ".onnx", ".h5", ".msgpack"];

/// The endings of safetensors files. Those that the source's index does not name are not copied: they hold
/// the weights of the source, not of the new model.
const SAFETENSORS: [&str; 2] = [".safetensors", ".safetensors.index.json"];

/// The name of the model card.
const CARD_FILE: &str = "README.md";

/// Copies every file of the model in `folder` that is not weights, index or configuration, unchanged:
/// tokenizer, template, licence. `survival.json` is not copied, because it describes the source and not the
/// new model. The head of the model card is completed; `origin` is the model that the new one is made from.
/// Hidden files are skipped, and copies of the weights in other formats are left out with a warning. If `tokenizer`
/// is the folder of an adapter, the tokenizer and the chat templates that it has take the place of the model's.
///
/// # Errors
/// Fails if a file cannot be read or written, if a file name is not UTF-8, or if the adapter has no tokenizer.
pub(crate) fn copy_side_files(
    folder: &Path,
    tokenizer: Option<&Path>,
    origin: Option<&ModelOrigin>,
    output: &Output,
) -> Result<()> {
    let replaced = tokenizer.map(|adapter| copy_tokenizer(adapter, output)).transpose()?;
    let files = TensorFiles::open_model(folder)?;
    let weights: Vec<_> = files.files().collect();
    let mut left_out = Vec::new();
    for path in list(folder)? {
        let name = relative(folder, &path)?;
        // On a disk that does not tell case apart, `readme.md` is the file that is written here.
        let own = [INDEX_FILE, CONFIG_FILE, CARD_FILE, SURVIVAL_FILE].map(fold).contains(&fold(&name));
        let is_replaced = replaced.as_ref().is_some_and(|replaced| replaced.takes_place_of(&name));
        if own || is_replaced || weights.contains(&path.as_path()) {
            continue;
        }
        if SAFETENSORS.iter().chain(&OTHER_WEIGHT_FORMATS).any(|ending| name.ends_with(ending)) {
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
    write_card(&card_in(folder)?, origin, output)
}

/// What took the place of a model's tokenizer.
struct Replaced {
    files: TokenizerFiles,
    names: Vec<String>,
}

impl Replaced {
    fn takes_place_of(&self, name: &str) -> bool {
        let is_covered =
            self.files.is_whole && is_of_tokenizer(name) || self.files.has_template && is_template(name);
        is_covered || self.names.iter().any(|own| own == name)
    }
}

/// Copies the tokenizer and the templates of an adapter.
fn copy_tokenizer(adapter: &Path, output: &Output) -> Result<Replaced> {
    let Some(files) = TokenizerFiles::of(adapter)? else {
        fail!(
            Adapter,
            "{} has neither a tokenizer nor a chat template; leave out `tokenizer: adapter`",
            adapter.display()
        )
    };
    let mut names = Vec::new();
    for path in list(adapter)? {
        let name = relative(adapter, &path)?;
        if is_of_tokenizer(&name) || name == GENERATION {
            output.copy(&path, &name)?;
            names.push(name);
        }
    }
    Ok(Replaced { files, names })
}

/// Returns the path of the model card in `folder`, whatever the case of its name.
fn card_in(folder: &Path) -> Result<PathBuf> {
    let exact = folder.join(CARD_FILE);
    if exact.exists() {
        return Ok(exact);
    }
    let is_card = |path: &PathBuf| {
        path.file_name().is_some_and(|name| fold(&name.to_string_lossy()) == fold(CARD_FILE))
    };
    let mut names = fs::read_dir(folder).at("read", folder)?.filter_map(|entry| Some(entry.ok()?.path()));
    Ok(names.find(is_card).unwrap_or(exact))
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
