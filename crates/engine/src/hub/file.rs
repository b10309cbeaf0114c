//! One file of a hub repository: which names are allowed, and whether some bytes are its content.
//! Knows nothing of downloads.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use ring::digest::{Context as Hasher, SHA1_FOR_LEGACY_USE_ONLY, SHA256};

use super::web::{Info, Sibling};
use crate::Error;
use crate::error::{OrBug, Result, require};
use artifact::AtPath;
use weights::checkpoint::OTHER_WEIGHT_FORMATS;

/// How many bytes are read at a time.
pub(super) const BLOCK_BYTES: usize = 1 << 20;

/// A file that the hub lists.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct HubFile {
    /// Its path in the repository, with `/` between the parts.
    pub(super) name: String,
    pub(super) size: u64,
    /// Its digest in hexadecimal digits: sha256 if it is stored with git LFS, else git's sha1. The hub sends
    /// it as the ETag, and the cache stores the content under it.
    pub(super) etag: String,
}

/// Returns the files that belong to the model, sorted by name. A name that leads out of the folder is an
/// error, even if the file is not wanted: the rest of what such a server sends cannot be trusted either.
pub(super) fn wanted(info: Info) -> Result<Vec<HubFile>> {
    for sibling in &info.siblings {
        let name = &sibling.rfilename;
        require!(is_plain(name), Hub, "the hub lists a file named {name:?}, which is no path below a folder");
    }
    let safetensors = has_safetensors(info.siblings.iter().map(|sibling| sibling.rfilename.as_str()));
    let files = info.siblings.into_iter().filter(|sibling| belongs(&sibling.rfilename, safetensors));
    let mut files = files.map(HubFile::read).collect::<Result<Vec<_>>>()?;
    files.sort_by(|a, b| a.name.cmp(&b.name));
    require!(!files.is_empty(), Hub, "the repository is empty");
    Ok(files)
}

/// Whether one of these files is a safetensors file.
pub(super) fn has_safetensors<'a>(mut names: impl Iterator<Item = &'a str>) -> bool {
    names.any(|name| name.ends_with(".safetensors"))
}

/// Whether a file belongs to the model. `safetensors` says whether the repository has safetensors files: then
/// other weight formats do not belong. Hidden files never do, as in a local folder.
pub(super) fn belongs(name: &str, safetensors: bool) -> bool {
    let hidden = name.split('/').any(|part| part.starts_with('.'));
    !(hidden || safetensors && OTHER_WEIGHT_FORMATS.iter().any(|ending| name.ends_with(ending)))
}

fn is_plain(name: &str) -> bool {
    let plain = |part: &str| !matches!(part, "" | "." | "..");
    name.split('/').all(plain) && !name.chars().any(|c| c == '\\' || c.is_control())
}

impl HubFile {
    fn read(sibling: Sibling) -> Result<Self> {
        let name = sibling.rfilename;
        let (etag, size) = match sibling.lfs {
            Some(lfs) => (Some(lfs.sha256).filter(|etag| is_hex(etag, 64)), Some(lfs.size)),
            None => (sibling.blob_id.filter(|etag| is_hex(etag, 40)), sibling.size),
        };
        let problem = || format!("the hub does not say how long `{name}` is and what its digest is");
        let (etag, size) = etag.zip(size).ok_or_else(|| Error::Hub(problem()))?;
        Ok(Self { name, size, etag })
    }

    /// Returns a hasher that is ready for the file's content.
    pub(super) fn hasher(&self) -> Hasher {
        if self.etag.len() == 64 {
            return Hasher::new(&SHA256);
        }
        // Git hashes a header before the content.
        let mut hasher = Hasher::new(&SHA1_FOR_LEGACY_USE_ONLY);
        hasher.update(format!("blob {}\0", self.size).as_bytes());
        hasher
    }

    /// Returns the name of the hash function of the digest.
    pub(super) fn algorithm(&self) -> &'static str {
        if self.etag.len() == 64 { "sha256" } else { "git's sha1" }
    }

    /// Whether the file at `path` has this file's size and digest. `read` is called with the number of bytes
    /// read so far.
    pub(super) fn is_at(&self, path: &Path, read: &dyn Fn(u64) -> Result<()>) -> Result<bool> {
        let Ok(mut file) = File::open(path) else { return Ok(false) };
        if file.metadata().is_ok_and(|metadata| !metadata.is_file() || metadata.len() != self.size) {
            return Ok(false);
        }
        let mut hasher = self.hasher();
        hash_all(&mut file, path, &mut hasher, read)?;
        Ok(finish(hasher) == self.etag)
    }
}

/// Hashes the rest of `file`; returns its length in bytes.
pub(super) fn hash_all(
    file: &mut File,
    path: &Path,
    hasher: &mut Hasher,
    read: &dyn Fn(u64) -> Result<()>,
) -> Result<u64> {
    let mut block = vec![0; BLOCK_BYTES];
    let mut length = 0;
    loop {
        let count = match file.read(&mut block) {
            Ok(0) => return Ok(length),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Ok(Err(error).at("read", path)?),
        };
        hasher.update(block.get(..count).or_bug("no more was read than there is room for")?);
        length += count as u64;
        read(length)?;
    }
}

/// Returns the digest in hexadecimal digits.
pub(super) fn finish(hasher: Hasher) -> String {
    hasher.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn is_hex(text: &str, digits: usize) -> bool {
    text.len() == digits && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(names: &[&str]) -> Info {
        let sibling = |name: &&str| Sibling {
            rfilename: (*name).to_owned(),
            size: Some(0),
            blob_id: Some("0".repeat(40)),
            lfs: None,
        };
        Info { sha: String::new(), siblings: names.iter().map(sibling).collect() }
    }

    fn names(listed: &[&str]) -> Vec<String> {
        wanted(info(listed)).unwrap().into_iter().map(|file| file.name).collect()
    }

    #[test]
    fn other_formats_are_left_only_where_there_are_safetensors() {
        let listed = [".gitattributes", "a/.git/x", "config.json", "m.bin", "m.safetensors", "onnx/m.onnx"];
        assert_eq!(names(&listed), ["config.json", "m.safetensors"]);
        assert_eq!(names(&["config.json", "m.bin"]), ["config.json", "m.bin"]);
    }

    #[test]
    fn refuses_names_that_lead_out() {
        for name in ["../x", "/etc/passwd", "a/../../x", "a\\b", "a//b", "", "a/", "a\nb", "./a"] {
            let error = wanted(info(&["config.json", name])).unwrap_err().to_string();
            assert!(error.contains(&format!("{name:?}")), "{error}");
        }
    }

    #[test]
    fn hashes_as_git_does() {
        // `git hash-object` of an empty file.
        let mut file = HubFile { name: String::new(), size: 0, etag: "0".repeat(40) };
        assert_eq!(finish(file.hasher()), "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391");
        file.etag = "0".repeat(64);
        assert_eq!(finish(file.hasher()), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    }
}
