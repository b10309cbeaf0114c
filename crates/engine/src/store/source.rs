//! Lists and hashes a source: a file or a folder outside the store, where it is.
//! Knows nothing of what the files are.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use super::hash::hash_all;
use super::{Stat, StatCache};
use crate::Error;
use crate::error::{Result, fail, require};
use artifact::{Artifact, AtPath, Digest, FileEntry};

/// The most files that a source may have.
const MOST_FILES: usize = 1 << 20;

/// Returns the file at `path`, or the files of the folder at `path`, with their digests. Reads only files
/// that may have changed since they were last hashed. Names that begin with a dot (`.DS_Store`, `.git`) are
/// left out. Links are followed inside the folder, and from the hub's cache to its `blobs`.
///
/// # Errors
/// Fails if a file or a folder cannot be read, if a file name in a folder is not UTF-8, if a link leads out of
/// the folder or to a folder above itself, or if something is not a regular file.
pub fn hash_source(path: &Path, stats: &mut StatCache) -> Result<Artifact> {
    let mut found = Vec::new();
    let metadata = fs::metadata(path).at("read", path)?;
    if metadata.is_dir() {
        let root = path.canonicalize().at("read", path)?;
        Walk { root: &root, blobs: blobs_of(&root), files: &mut found, stats }.folder(
            path,
            "",
            &mut vec![root.clone()],
        )?;
    } else {
        require!(metadata.is_file(), Source, "the source {} is not a regular file", path.display());
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        found.push((path.to_owned(), name));
    }
    stats.hash_changed(&found.iter().map(|(path, _)| path.as_path()).collect::<Vec<_>>());
    let entries = found.into_iter().map(|(path, name)| {
        let (digest, stat) = stats.digest_of(&path).at("read", &path)?;
        Ok(FileEntry { digest, path: name, size: stat.size(), volatile: false })
    });
    let artifact = Artifact::new(entries.collect::<Result<_>>()?);
    artifact.check().map_err(|problem| Error::Source(format!("the source {}: {problem}", path.display())))?;
    Ok(artifact)
}

/// Returns the folder that the links of a snapshot in the hub's cache lead to, if `root` is a snapshot.
fn blobs_of(root: &Path) -> Option<PathBuf> {
    let snapshots =
        root.parent().filter(|folder| folder.file_name().is_some_and(|name| name == "snapshots"))?;
    Some(snapshots.parent()?.join("blobs"))
}

/// Lists the files of a source.
struct Walk<'a> {
    /// The source, without links.
    root: &'a Path,
    blobs: Option<PathBuf>,
    files: &'a mut Vec<(PathBuf, String)>,
    stats: &'a mut StatCache,
}

impl Walk<'_> {
    /// Lists the files below `folder`. `above` are the real paths of the folder and of all above it.
    fn folder(&mut self, folder: &Path, prefix: &str, above: &mut Vec<PathBuf>) -> Result<()> {
        self.stats.observe(folder).at("read", folder)?;
        for found in fs::read_dir(folder).at("read", folder)? {
            let found = found.at("read", folder)?;
            let path = found.path();
            let name = path.file_name().unwrap_or_default().to_str();
            let Some(name) = name else { fail!(Source, "the file name {} is not UTF-8", path.display()) };
            if name.starts_with('.') {
                continue;
            }
            let name = format!("{prefix}{name}");
            let is_link = found.file_type().at("read", &path)?.is_symlink();
            let target = if is_link { Some(self.target(&path)?) } else { None };
            let metadata = fs::metadata(&path).at("read", &path)?;
            if metadata.is_dir() {
                let real = target
                    .unwrap_or_else(|| above.last().cloned().unwrap_or_default().join(found.file_name()));
                require!(
                    !above.contains(&real),
                    Source,
                    "{} is a link to a folder above it, so the source would have no end; remove the link",
                    path.display()
                );
                above.push(real);
                self.folder(&path, &format!("{name}/"), above)?;
                above.pop();
            } else {
                let what = "is not a regular file, and a source has only such; move it away";
                require!(metadata.is_file(), Source, "{} {what}", path.display());
                require!(
                    self.files.len() < MOST_FILES,
                    Source,
                    "the source has more than {MOST_FILES} files"
                );
                self.files.push((path, name));
            }
        }
        Ok(())
    }

    /// Returns what a link leads to, which must be in the source or in the hub's cache.
    fn target(&self, link: &Path) -> Result<PathBuf> {
        let target = link.canonicalize().at("follow the link", link)?;
        let is_blob = self.blobs.as_ref().is_some_and(|blobs| target.starts_with(blobs));
        require!(
            is_blob || target.starts_with(self.root),
            Source,
            "{} is a link out of the source, to {}; a source is its own files: copy it there, or name that folder as \
             the source",
            link.display(),
            target.display()
        );
        Ok(target)
    }
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
        let names = ["a".to_owned(), "onnx/c".to_owned()];
        assert_eq!(hash_files(&narrowed, &names).unwrap().0, artifact);
    }

    fn refusal(folder: &Path) -> String {
        artifact::in_one_line(&hash_source(folder, &mut StatCache::default()).unwrap_err())
    }

    #[test]
    fn links_lead_nowhere_else() {
        let temporary = tempfile::tempdir().unwrap();
        let source = temporary.path().join("model");
        fs::create_dir_all(source.join("onnx")).unwrap();
        fs::write(source.join("a"), "a").unwrap();
        let link = source.join("onnx/link");
        for (target, problem) in [
            ("/proc/self/environ", "is a link out of the source"),
            ("/dev/zero", "is a link out of the source"),
            ("../../model", "is a link to a folder above it"),
            ("..", "is a link to a folder above it"),
            ("nowhere", "cannot follow the link"),
        ] {
            symlink(target, &link).unwrap();
            let said = refusal(&source);
            assert!(said.contains(problem) && said.contains("onnx/link"), "{target}: {said}");
            fs::remove_file(&link).unwrap();
        }
        symlink("../a", &link).unwrap();
        assert_eq!(hash_source(&source, &mut StatCache::default()).unwrap().files().len(), 2);
        // Two folders that link to each other.
        fs::create_dir(source.join("other")).unwrap();
        symlink("../onnx", source.join("other/x")).unwrap();
        symlink("../other", source.join("onnx/y")).unwrap();
        assert!(refusal(&source).contains("is a link to a folder above it"));
    }

    #[test]
    fn a_pipe_is_not_waited_for() {
        let temporary = tempfile::tempdir().unwrap();
        let pipe = temporary.path().join("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        assert!(refusal(temporary.path()).contains("pipe is not a regular file"));
        assert!(refusal(&pipe).contains("is not a regular file"));
    }

    #[test]
    fn the_links_of_the_hubs_cache_are_followed() {
        let temporary = tempfile::tempdir().unwrap();
        let snapshot = temporary.path().join("models--o--n/snapshots/c0ffee");
        fs::create_dir_all(snapshot.join("onnx")).unwrap();
        fs::create_dir(temporary.path().join("models--o--n/blobs")).unwrap();
        fs::write(temporary.path().join("models--o--n/blobs/ab"), "weights").unwrap();
        symlink("../../blobs/ab", snapshot.join("model.safetensors")).unwrap();
        symlink("../../../blobs/ab", snapshot.join("onnx/model.onnx")).unwrap();
        assert_eq!(hash_source(&snapshot, &mut StatCache::default()).unwrap().files().len(), 2);
        symlink("../../refs", snapshot.join("x")).unwrap();
        assert!(refusal(&snapshot).contains("cannot follow the link"));
    }
}
