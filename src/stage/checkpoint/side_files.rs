//! The files beside the weights: tokenizer, chat template, licence, whatever else there is.
//! Knows nothing of what is in them.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;

use super::{CONFIG_FILE, Checkpoint, card};
use crate::failure::AtPath;
use crate::output::Output;
use crate::tensor::INDEX_FILE;

/// The name of the model card.
const CARD_FILE: &str = "README.md";

impl Checkpoint {
    /// Copies every file that is not weights, index or configuration, unchanged: tokenizer, template, licence. Of the
    /// model card the head is completed; `origin` is the repository and the commit that the model was made from.
    pub fn copy_side_files(&self, origin: Option<(&str, &str)>, output: &Output) -> anyhow::Result<()> {
        let weights: Vec<_> = self.files.files().collect();
        for path in list(&self.folder)? {
            let name = relative(&self.folder, &path)?;
            let own = [INDEX_FILE, CONFIG_FILE, CARD_FILE].contains(&name.as_str());
            if !own && !weights.contains(&path.as_path()) {
                output.copy(&path, &name)?;
            }
        }
        self.write_card(origin, output)
    }

    fn write_card(&self, origin: Option<(&str, &str)>, output: &Output) -> anyhow::Result<()> {
        let path = self.folder.join(CARD_FILE);
        let source = if path.exists() { fs::read(&path).at("read", &path)? } else { Vec::new() };
        let completed = std::str::from_utf8(&source).ok().and_then(|card| card::complete(card, origin));
        output.write(CARD_FILE, completed.as_deref().map_or(&source, str::as_bytes))
    }
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
