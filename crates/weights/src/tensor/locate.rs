//! Finds the files that hold the weights of a model: those that its index names, or those that are there.
//! Knows nothing of what is in them.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::{INDEX_FILE, SINGLE_FILE};
use crate::error::{Context, Result, fail, require};
use artifact::AtPath;
use text::from_python_json;

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

/// Finds the weights in `folder`. If none of the files that an index names is there, the index is a left-over of
/// another form of the model, and the files that are there are taken. Without an index they are taken too: a single
/// file, or shards by their names.
///
/// # Errors
/// Fails if the index cannot be read or names files elsewhere, or if files are missing.
pub(super) fn locate(folder: &Path) -> Result<Located> {
    let index = folder.join(INDEX_FILE);
    if !index.exists() {
        let found = without_index(folder)?;
        return Ok(found.unwrap_or_else(|| Located {
            files: vec![folder.join(SINGLE_FILE)],
            weight_map: None,
            warning: None,
        }));
    }
    let weight_map = read_index(&index)?;
    let mut files: Vec<_> = weight_map.values().map(|shard| folder.join(shard)).collect();
    files.sort();
    files.dedup();
    let (there, missing): (Vec<_>, Vec<_>) = files.iter().partition(|path| path.exists());
    let Some(first) = missing.first() else {
        return Ok(Located { files, weight_map: Some(weight_map), warning: None });
    };
    if there.is_empty()
        && let Some(found) = without_index(folder)?
    {
        let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let warning = format!(
            "{INDEX_FILE} names {}, which is not there; the weights are read from {}",
            name(first),
            found.files.iter().map(|path| name(path)).collect::<Vec<_>>().join(", ")
        );
        return Ok(Located { warning: Some(warning), ..found });
    }
    fail!(
        Format,
        "the shard {} is missing; {INDEX_FILE} names it, and {} of {} shards are there: the download is not finished",
        first.display(),
        there.len(),
        files.len()
    )
}

/// Finds the weights that are there, whatever an index says. Returns `None` if there are none.
fn without_index(folder: &Path) -> Result<Option<Located>> {
    let single = folder.join(SINGLE_FILE);
    if single.exists() {
        return Ok(Some(Located { files: vec![single], weight_map: None, warning: None }));
    }
    let shards = match shards_by_name(folder)? {
        Some(shards) => Some(shards),
        None => models_by_name(folder)?,
    };
    Ok(shards.map(|files| Located {
        warning: Some(format!(
            "there is no {INDEX_FILE}; the weights are read from all shards that are there: {}",
            files.len()
        )),
        files,
        weight_map: None,
    }))
}

/// Returns the files `model*.safetensors`, which mlx-lm reads all, sorted. Returns `None` if there is none.
///
/// # Errors
/// Fails if the folder cannot be read, or if it holds Mistral's own form of a model only.
fn models_by_name(folder: &Path) -> Result<Option<Vec<PathBuf>>> {
    let mut files = Vec::new();
    let mut other = None;
    for entry in fs::read_dir(folder).at("read", folder)? {
        let entry = entry.at("read", folder)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with("model") && name.ends_with(".safetensors") {
            files.push(entry.path());
        } else if name.starts_with("consolidated") && name.ends_with(".safetensors") {
            other = Some(name);
        }
    }
    files.sort();
    if let (true, Some(name)) = (files.is_empty(), other) {
        fail!(
            Unsupported,
            "{} has {name}, a model with Mistral's own names, but no model.safetensors; take the files that transformers \
             reads, model-*.safetensors",
            folder.display()
        );
    }
    Ok((!files.is_empty()).then_some(files))
}

fn read_index(path: &Path) -> Result<BTreeMap<String, String>> {
    let bytes = fs::read(path).at("read", path)?;
    let Index { weight_map } =
        from_python_json(&bytes).within(|| format!("cannot parse {}", path.display()))?;
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
    let rest = name.strip_prefix("model-").or_else(|| name.strip_prefix("model.safetensors-"))?;
    let (number, count) = rest.strip_suffix(".safetensors")?.split_once("-of-")?;
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
        let (files, warning) = found(&[index, (SINGLE_FILE, "")]);
        assert_eq!(files, [SINGLE_FILE]);
        assert!(warning.contains("names model-00001-of-00002.safetensors, which is not there"), "{warning}");
        // Also shards with other names.
        let (other, stale) =
            ("model-00001-of-00001.safetensors", "model.safetensors-00001-of-00001.safetensors");
        for name in [other, stale] {
            let (files, warning) = found(&[index, (name, "")]);
            assert_eq!(files, [name]);
            assert!(warning.ends_with(&format!("the weights are read from {name}")), "{warning}");
        }
        assert_eq!(found(&[("model-a.safetensors", ""), ("model-b.safetensors", "")]).0.len(), 2);
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
        // An unfinished download, whatever lies beside it.
        let two = r#"{"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}"#;
        let part = found(&[(INDEX_FILE, two), ("model-00001-of-00002.safetensors", ""), (SINGLE_FILE, "")]);
        assert!(part.1.ends_with("1 of 2 shards are there: the download is not finished"), "{}", part.1);
        let mistral = found(&[("consolidated.safetensors", "")]).1;
        assert!(
            mistral.starts_with("DIR has consolidated.safetensors, a model with Mistral's own names"),
            "{mistral}"
        );
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
