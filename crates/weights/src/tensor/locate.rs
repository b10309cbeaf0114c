//! Finds the files that hold the weights of a model: those that its index names, or those that are there.
//! Knows nothing of what is in them.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::{INDEX_FILE, SINGLE_FILE};
use crate::error::{Context, Result, fail, require};
use artifact::AtPath;

/// The files of a model's weights.
pub(super) struct Located {
    /// The paths, sorted.
    pub(super) files: Vec<PathBuf>,
    /// For each tensor the name of its file, if an index was used.
    pub(super) weight_map: Option<BTreeMap<String, String>>,
    /// What is wrong with the folder although its weights are found.
    pub(super) warning: Option<String>,
}

/// The part of `model.safetensors.index.json` that matters for reading.
#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

/// Finds the weights in `folder`. An index that names files which are not there is not used if there is a single
/// file; it is a left-over of another form of the model then. Without an index, shards are taken by their names.
///
/// # Errors
/// Fails if the index cannot be read or names files elsewhere, or if files are missing.
pub(super) fn locate(folder: &Path) -> Result<Located> {
    let (index, single) = (folder.join(INDEX_FILE), folder.join(SINGLE_FILE));
    if !index.exists() {
        return match shards_by_name(folder)? {
            Some(shards) if !single.exists() => Ok(Located {
                warning: Some(format!(
                    "there is no {INDEX_FILE}; the weights are read from all shards that are there: {}",
                    shards.len()
                )),
                files: shards,
                weight_map: None,
            }),
            _ => Ok(Located { files: vec![single], weight_map: None, warning: None }),
        };
    }
    let weight_map = read_index(&index)?;
    let mut files: Vec<_> = weight_map.values().map(|shard| folder.join(shard)).collect();
    files.sort();
    files.dedup();
    match files.iter().find(|path| !path.exists()) {
        None => Ok(Located { files, weight_map: Some(weight_map), warning: None }),
        Some(missing) if single.exists() => Ok(Located {
            warning: Some(format!(
                "{INDEX_FILE} names {}, which is not there; the weights are read from {SINGLE_FILE}",
                missing.file_name().unwrap_or_default().to_string_lossy()
            )),
            files: vec![single],
            weight_map: None,
        }),
        Some(missing) => {
            fail!(Format, "the shard {} is missing; {INDEX_FILE} names it", missing.display())
        }
    }
}

fn read_index(path: &Path) -> Result<BTreeMap<String, String>> {
    let bytes = fs::read(path).at("read", path)?;
    let Index { weight_map } =
        serde_json::from_slice(&bytes).within(|| format!("cannot parse {}", path.display()))?;
    for shard in weight_map.values() {
        require!(
            !shard.contains(['/', '\\']) && !shard.starts_with('.'),
            Format,
            "{}: `{shard}` is not the name of a file beside it",
            path.display()
        );
    }
    Ok(weight_map)
}

/// Returns the shards of a model, `model-00001-of-00003.safetensors` and so on, sorted. Returns `None` if there is
/// none.
///
/// # Errors
/// Fails if the folder cannot be read, if a shard is missing, or if there are the shards of two models.
fn shards_by_name(folder: &Path) -> Result<Option<Vec<PathBuf>>> {
    let mut shards = BTreeMap::new();
    let mut counts = Vec::new();
    for entry in fs::read_dir(folder).at("read", folder)? {
        let entry = entry.at("read", folder)?;
        if let Some((number, count)) = entry.file_name().to_str().and_then(shard_number) {
            shards.insert((count, number), entry.path());
            counts.push(count);
        }
    }
    let Some(&count) = counts.first() else { return Ok(None) };
    require!(
        counts.iter().all(|other| *other == count),
        Format,
        "{} holds shards of two models and no {INDEX_FILE}; leave only those of one",
        folder.display()
    );
    let missing = (1..=count).take(shards.len() + 1).find(|number| !shards.contains_key(&(count, *number)));
    if let Some(missing) = missing {
        fail!(
            Format,
            "{} has no shard {missing} of {count}, and no {INDEX_FILE} that would say whether it is needed",
            folder.display()
        );
    }
    Ok(Some(shards.into_values().collect()))
}

/// Returns the number of a shard and the number of all of them, by the name that transformers and mlx-lm write.
fn shard_number(name: &str) -> Option<(u32, u32)> {
    let (number, count) = name.strip_prefix("model-")?.strip_suffix(".safetensors")?.split_once("-of-")?;
    Some((number.parse().ok()?, count.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the names of the files that are found, and the warning; or the error.
    fn found(files: &[(&str, &str)]) -> (Vec<String>, String) {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            fs::write(folder.path().join(name), text).unwrap();
        }
        match locate(folder.path()) {
            Ok(Located { files, warning, .. }) => {
                let name = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().to_owned();
                (files.iter().map(name).collect(), warning.unwrap_or_default())
            }
            Err(error) => (Vec::new(), error.to_string().replace(folder.path().to_str().unwrap(), "DIR")),
        }
    }

    #[test]
    fn what_is_there_is_found() {
        let (one, two) = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors");
        let index = (
            INDEX_FILE,
            r#"{"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}"#,
        );
        let shards = vec![one.to_owned(), two.to_owned()];
        assert_eq!(found(&[index, (one, ""), (two, "")]), (shards.clone(), String::new()));
        let (files, warning) = found(&[(one, ""), (two, "")]);
        assert_eq!(files, shards);
        assert!(warning.starts_with("there is no model.safetensors.index.json"), "{warning}");
        let (files, warning) = found(&[index, (one, ""), (SINGLE_FILE, "")]);
        assert_eq!(files, [SINGLE_FILE]);
        assert!(warning.contains("names model-00002-of-00002.safetensors, which is not there"), "{warning}");
        // A single file comes before shards that no index names.
        assert_eq!(
            found(&[(one, ""), (two, ""), (SINGLE_FILE, "")]),
            (vec![SINGLE_FILE.to_owned()], String::new())
        );
        assert_eq!(found(&[]).0, [SINGLE_FILE]);
    }

    #[test]
    fn what_is_missing_is_said() {
        let index = (INDEX_FILE, r#"{"weight_map": {"a": "model-00001-of-00002.safetensors"}}"#);
        assert!(found(&[index]).1.contains("the shard DIR/model-00001-of-00002.safetensors is missing"));
        assert!(found(&[("model-00002-of-00002.safetensors", "")]).1.contains("DIR has no shard 1 of 2"));
        let two = [("model-00001-of-00001.safetensors", ""), ("model-00001-of-00002.safetensors", "")];
        assert!(found(&two).1.contains("shards of two models"));
        // A false number of shards costs nothing.
        assert!(
            found(&[("model-00001-of-4000000000.safetensors", "")])
                .1
                .contains("has no shard 2 of 4000000000")
        );
    }
}
