//! Reads a text file of a project: a regular file of a bounded length, in UTF-8.
//! Knows nothing of what the text means.

use std::fs::File;
use std::io::{self, Error, ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// The longest text that is read, in bytes: a pipeline file or a lock of a million nodes.
const LONGEST: u64 = 256 << 20;

/// Reads the file at `path`.
///
/// # Errors
/// Fails if the system refuses, if it is not a regular file, if it is too long, or if it is not UTF-8. The
/// error names the line with the first byte that is not.
pub fn read(path: &Path) -> io::Result<String> {
    // A pipe must not hold up the open.
    let nonblocking = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).map_err(Error::other)?;
    let file = File::options().read(true).custom_flags(nonblocking).open(path)?;
    let invalid = |problem: String| Error::new(ErrorKind::InvalidData, problem);
    if !file.metadata()?.is_file() {
        return Err(invalid("it is not a regular file".to_owned()));
    }
    let mut bytes = Vec::new();
    file.take(LONGEST + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LONGEST {
        return Err(invalid(format!("it has more than {LONGEST} bytes")));
    }
    String::from_utf8(bytes).map_err(|error| {
        let before = error.as_bytes().get(..error.utf8_error().valid_up_to()).unwrap_or_default();
        let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
        invalid(format!("line {line} is not UTF-8"))
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn says_why_a_file_is_no_text() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pipeline.lock");
        fs::write(&path, b"one\ntwo \xff\n").unwrap();
        assert_eq!(read(&path).unwrap_err().to_string(), "line 2 is not UTF-8");
        assert_eq!(read(Path::new("/dev/zero")).unwrap_err().to_string(), "it is not a regular file");
        assert_eq!(read(folder.path()).unwrap_err().to_string(), "it is not a regular file");
    }
}
