//! Taking stock of a source: the files of a folder outside the store, hashed where they lie.
//! Knows nothing of what they are.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use super::{Memo, Stat};
use crate::artifact::{Artifact, FileEntry};
use crate::digest::Digest;
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

/// Lists the files `names` below `folder`, which were put there just now and will not be changed, with their digests;
/// returns their states for the memory.
pub fn take_stock_of(folder: &Path, names: &[String]) -> anyhow::Result<(Artifact, Vec<(Stat, Digest)>)> {
    let (mut files, mut stats) = (Vec::new(), Vec::new());
    for name in names {
        let path = folder.join(name);
        let stat = Stat::at(&path).at("read", &path)?;
        let (digest, size) = Digest::of_file(&path).at("read", &path)?;
        files.push(FileEntry { digest, path: name.clone(), size, volatile: false });
        stats.push((stat, digest));
    }
    Ok((Artifact::new(files), stats))
}

/// Returns a folder with the files of `artifact` and no others: `folder` itself, or links into it at `narrowed`. The
/// hub's cache is shared, and another program may have downloaded files into it that we leave out.
pub fn narrow(folder: PathBuf, artifact: &Artifact, narrowed: PathBuf) -> anyhow::Result<PathBuf> {
    if !has_others(&folder, "", artifact)? || narrowed.exists() {
        return Ok(if narrowed.exists() { narrowed } else { folder });
    }
    for file in artifact.files() {
        let link = narrowed.join(&file.path);
        let parent = link.parent().unwrap_or(&narrowed);
        fs::create_dir_all(parent).at("create", parent)?;
        symlink(folder.join(&file.path), &link).at("link", &link)?;
    }
    Ok(narrowed)
}

fn has_others(folder: &Path, prefix: &str, artifact: &Artifact) -> anyhow::Result<bool> {
    for found in fs::read_dir(folder).at("read", folder)? {
        let found = found.at("read", folder)?;
        let name = format!("{prefix}{}", found.file_name().to_string_lossy());
        let is_folder = found.file_type().is_ok_and(|kind| kind.is_dir());
        let other = if is_folder {
            has_others(&found.path(), &format!("{name}/"), artifact)?
        } else {
            artifact.file(&name).is_none()
        };
        if other {
            return Ok(true);
        }
    }
    Ok(false)
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

    #[test]
    fn narrows_a_shared_folder() {
        let temporary = tempfile::tempdir().unwrap();
        let (folder, narrowed) = (temporary.path().join("all"), temporary.path().join("some"));
        fs::create_dir_all(folder.join("onnx")).unwrap();
        for name in ["a", "onnx/c"] {
            fs::write(folder.join(name), name).unwrap();
        }
        let (stock, _) = take_stock_of(&folder, &["a".to_owned(), "onnx/c".to_owned()]).unwrap();
        assert_eq!(narrow(folder.clone(), &stock, narrowed.clone()).unwrap(), folder);
        fs::write(folder.join("onnx/other.bin"), "").unwrap();
        assert_eq!(narrow(folder, &stock, narrowed.clone()).unwrap(), narrowed);
        assert_eq!(take_stock(&narrowed, &mut Memo::default()).unwrap(), stock);
    }
}
