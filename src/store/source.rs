//! Taking stock of a source: the files of a folder outside the store, hashed where they lie.
//! Knows nothing of what they are.

use std::fs;
use std::path::Path;

use super::Memo;
use crate::artifact::{Artifact, FileEntry};
use crate::failure::AtPath;

/// Lists the file at `path`, or the files of the folder at `path`, with their digests; reads only what may have
/// changed since it was last hashed. Names that begin with a dot (`.DS_Store`, `.git`) are not content.
pub fn take_stock(path: &Path, memo: &mut Memo) -> anyhow::Result<Artifact> {
    let mut files = Vec::new();
    if fs::metadata(path).at("read", path)?.is_dir() {
        walk(path, "", &mut files, memo)?;
    } else {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        files.push(entry(path, name, memo)?);
    }
    Ok(Artifact::new(files))
}

fn walk(folder: &Path, prefix: &str, files: &mut Vec<FileEntry>, memo: &mut Memo) -> anyhow::Result<()> {
    memo.look(folder).at("read", folder)?;
    for found in fs::read_dir(folder).at("read", folder)? {
        let path = found.at("read", folder)?.path();
        let name = path.file_name().unwrap_or_default().to_str();
        let Some(name) = name else { anyhow::bail!("the file name {} is not UTF-8", path.display()) };
        if name.starts_with('.') {
            continue;
        }
        // `metadata` follows links: the hub's cache is made of them.
        if fs::metadata(&path).at("read", &path)?.is_dir() {
            walk(&path, &format!("{prefix}{name}/"), files, memo)?;
        } else {
            files.push(entry(&path, format!("{prefix}{name}"), memo)?);
        }
    }
    Ok(())
}

fn entry(path: &Path, name: String, memo: &mut Memo) -> anyhow::Result<FileEntry> {
    let (digest, stat) = memo.digest_of(path).at("read", path)?;
    Ok(FileEntry { digest, path: name, size: stat.size(), volatile: false })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_files_but_not_hidden_ones() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("onnx")).unwrap();
        for name in ["b", "a", ".hidden", "onnx/c"] {
            fs::write(folder.path().join(name), name).unwrap();
        }
        let stock = take_stock(folder.path(), &mut Memo::default()).unwrap();
        let paths: Vec<_> = stock.files().iter().map(|file| file.path.as_str()).collect();
        assert_eq!(paths, ["a", "b", "onnx/c"]);
    }
}
