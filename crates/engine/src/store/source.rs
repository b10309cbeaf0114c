//! Lists and hashes a source: a file or a folder outside the store, where it is.
//! Knows nothing of what the files are.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use super::hash::hash_all;
use super::{Stat, StatCache};
use crate::error::{Result, fail};
use artifact::{Artifact, AtPath, Digest, FileEntry};

/// Returns the file at `path`, or the files of the folder at `path`, with their digests. Reads only files
/// that may have changed since they were last hashed. Names that begin with a dot (`.DS_Store`, `.git`) are
/// left out.
///
/// # Errors
/// Fails if a file or a folder cannot be read, or if a file name in a folder is not UTF-8.
pub fn hash_source(path: &Path, stats: &mut StatCache) -> Result<Artifact> {
    let mut found = Vec::new();
    if fs::metadata(path).at("read", path)?.is_dir() {
        walk(path, "", &mut found, stats)?;
    } else {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        found.push((path.to_owned(), name));
    }
    stats.hash_changed(&found.iter().map(|(path, _)| path.as_path()).collect::<Vec<_>>());
    let entries = found.into_iter().map(|(path, name)| {
        let (digest, stat) = stats.digest_of(&path).at("read", &path)?;
        Ok(FileEntry { digest, path: name, size: stat.size(), volatile: false })
    });
    Ok(Artifact::new(entries.collect::<Result<_>>()?))
}

/// Returns the files `names` below `folder` with their digests, and their states and digests for the stat
/// cache. The files were just put there and must not change any more, because their digests are trusted
/// although they are new.
///
/// # Errors
/// Fails if a file cannot be read.
pub fn hash_files(folder: &Path, names: &[String]) -> Result<(Artifact, Vec<(Stat, Digest)>)> {
    let paths: Vec<_> = names.iter().map(|name| folder.join(name)).collect();
    let hashed = hash_all(&paths.iter().map(PathBuf::as_path).collect::<Vec<_>>());
    let (mut files, mut stats) = (Vec::new(), Vec::new());
    for ((name, path), hashed) in names.iter().zip(&paths).zip(hashed) {
        let (digest, stat) = hashed.at("read", path)?;
        files.push(FileEntry { digest, path: name.clone(), size: stat.size(), volatile: false });
        stats.push((stat, digest));
    }
    Ok((Artifact::new(files), stats))
}

/// Returns a folder with the files of `artifact` and no others: `folder` itself if it has no others, or else
/// a new folder of links at `narrowed`. The hub's cache is shared, so another program may have downloaded
/// other files into it.
///
/// # Errors
/// Fails if `folder` cannot be read, or if the links cannot be made.
pub fn restrict_to(folder: PathBuf, artifact: &Artifact, narrowed: PathBuf) -> Result<PathBuf> {
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

fn has_others(folder: &Path, prefix: &str, artifact: &Artifact) -> Result<bool> {
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

fn walk(
    folder: &Path,
    prefix: &str,
    files: &mut Vec<(PathBuf, String)>,
    stats: &mut StatCache,
) -> Result<()> {
    stats.observe(folder).at("read", folder)?;
    for found in fs::read_dir(folder).at("read", folder)? {
        let path = found.at("read", folder)?.path();
        let name = path.file_name().unwrap_or_default().to_str();
        let Some(name) = name else { fail!(Store, "the file name {} is not UTF-8", path.display()) };
        if name.starts_with('.') {
            continue;
        }
        let name = format!("{prefix}{name}");
        // `metadata` follows links: the hub's cache consists of them.
        if fs::metadata(&path).at("read", &path)?.is_dir() {
            walk(&path, &format!("{name}/"), files, stats)?;
        } else {
            files.push((path, name));
        }
    }
    Ok(())
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
        let artifact = hash_source(folder.path(), &mut StatCache::default()).unwrap();
        let paths: Vec<_> = artifact.files().iter().map(|file| file.path.as_str()).collect();
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
        let (artifact, _) = hash_files(&folder, &["a".to_owned(), "onnx/c".to_owned()]).unwrap();
        assert_eq!(restrict_to(folder.clone(), &artifact, narrowed.clone()).unwrap(), folder);
        fs::write(folder.join("onnx/other.bin"), "").unwrap();
        assert_eq!(restrict_to(folder, &artifact, narrowed.clone()).unwrap(), narrowed);
        assert_eq!(hash_source(&narrowed, &mut StatCache::default()).unwrap(), artifact);
    }
}
