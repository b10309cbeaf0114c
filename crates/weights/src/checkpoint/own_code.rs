//! Programs that lie in the folder of a model, or that its configuration names.
//! Knows nothing of what they do: nothing here runs them.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde_json::Value;

use super::{CONFIG_FILE, read_json};
use crate::error::Result;
use artifact::AtPath;

/// Returns the Python files in the folder of a model, and the keys of its configuration that name code: `auto_map`,
/// which transformers follows with `trust_remote_code`, and `model_file`, which mlx-lm runs. The list is sorted, and
/// empty if there is none.
///
/// # Errors
/// Fails if the folder or the configuration cannot be read.
pub fn own_code(folder: &Path) -> Result<Vec<String>> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(folder).at("read", folder)? {
        let name = entry.at("read", folder)?.file_name().to_string_lossy().into_owned();
        if name.ends_with(".py") {
            found.insert(name);
        }
    }
    let config = read_json(&folder.join(CONFIG_FILE))?;
    if let Some(file) = config.get("model_file").and_then(Value::as_str) {
        found.insert(format!("model_file: {file}"));
    }
    if config.get("auto_map").is_some_and(|map| !map.is_null()) {
        found.insert("auto_map".to_owned());
    }
    Ok(found.into_iter().collect())
}
