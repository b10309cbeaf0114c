//! How two artifacts of one node differ: in which files, and for weights, in which tensor first.
//! Knows nothing of why they should be the same, nor of where the files come from.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use serde::Serialize;

use artifact::{Artifact, AtPath, FileEntry, IoError, in_one_line};
use weights::tensor::first_difference;

/// One file that differs from what is recorded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// Its path in the artifact.
    pub file: String,
    /// How it differs. In a message this follows the path.
    pub problem: String,
}

/// Compares two artifacts file by file, without volatile files. `describe` says how two files differ.
pub fn differences(
    recorded: &Artifact,
    made: &Artifact,
    describe: &dyn Fn(&FileEntry, &FileEntry) -> String,
) -> Vec<Difference> {
    let files = recorded.files().iter().chain(made.files()).filter(|file| !file.volatile);
    let names: BTreeSet<_> = files.map(|file| file.path.as_str()).collect();
    let compare = |name: &str| {
        let problem = match (recorded.file(name), made.file(name)) {
            (Some(old), Some(new)) if old.digest == new.digest => return None,
            (Some(old), Some(new)) => describe(old, new),
            (Some(_), None) => "is missing".to_owned(),
            (None, _) => "is new".to_owned(),
        };
        Some(Difference { file: name.to_owned(), problem })
    };
    names.into_iter().filter_map(compare).collect()
}

/// Returns how the file at `new` differs from the file at `old`, which may be damaged or gone.
pub fn describe(name: &str, old: &Path, new: &Path) -> String {
    let where_it_is = if name.ends_with(".safetensors") {
        first_difference(old, new).map(|tensor| {
            tensor.unwrap_or_else(|| "its tensors are the same, its header is another".to_owned())
        })
    } else {
        first_byte(old, new).map(|byte| format!("from byte {byte} on")).map_err(Into::into)
    };
    match where_it_is {
        Ok(place) => format!("differs: {place}"),
        Err(error) => format!("differs: {}", in_one_line(&error)),
    }
}

/// Returns the offset of the first byte in which two files differ. If one is the beginning of the other, this
/// is where it ends.
fn first_byte(old: &Path, new: &Path) -> Result<u64, IoError> {
    let open = |path: &Path| File::open(path).map(|file| BufReader::new(file).bytes()).at("read", path);
    let (mut old_bytes, mut new_bytes) = (open(old)?, open(new)?);
    let mut byte = 0;
    loop {
        let pair =
            (old_bytes.next().transpose().at("read", old)?, new_bytes.next().transpose().at("read", new)?);
        if pair.0 != pair.1 || pair.0.is_none() {
            return Ok(byte);
        }
        byte += 1;
    }
}
