//! Opens files of the cache without following a link. Only a regular file counts: a link, a pipe or a device
//! in its place was put there by somebody else.
//! Knows nothing of what is in the files.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Error, ErrorKind, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::OFlags;

/// Opens a file of the cache for reading.
///
/// # Errors
/// Fails if the system refuses, or if it is a link or anything but a regular file.
pub(crate) fn open(path: &Path) -> io::Result<File> {
    checked(path, File::options().read(true), 0)
}

/// Opens a file of the cache for reading and writing, and creates it if it is missing.
///
/// # Errors
/// Fails if the system refuses, if it is a link or anything but a regular file, or if it has a second name.
pub(crate) fn open_for_writing(path: &Path) -> io::Result<File> {
    let file = checked(path, File::options().read(true).write(true).create(true).truncate(false), 0)?;
    // A second name may be that of a file outside the cache.
    if file.metadata()?.nlink() > 1 {
        return Err(Error::new(
            ErrorKind::InvalidInput,
            "it has a second name, which may be outside the cache",
        ));
    }
    Ok(file)
}

/// Creates a file of the cache. Whatever has this name is removed first.
///
/// # Errors
/// Fails if the system refuses.
pub(crate) fn create(path: &Path) -> io::Result<File> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    File::create_new(path)
}

/// Reads a file of the cache as a whole.
///
/// # Errors
/// Fails if the system refuses, if it is a link or anything but a regular file, or if it has more than
/// `limit` bytes.
pub(crate) fn read(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let file = open(path)?;
    let length = file.metadata()?.len();
    let mut bytes = Vec::with_capacity(usize::try_from(length.min(limit)).unwrap_or(0));
    file.take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
    match bytes.len() as u64 > limit {
        true => Err(Error::new(ErrorKind::FileTooLarge, format!("it has more than {limit} bytes"))),
        false => Ok(bytes),
    }
}

/// `NONBLOCK` keeps a pipe from holding up the open; it means nothing for a regular file.
fn checked(path: &Path, options: &mut OpenOptions, more: i32) -> io::Result<File> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let flags = i32::try_from(flags.bits()).map_err(Error::other)? | more;
    let file = options.custom_flags(flags).open(path).map_err(|error| {
        let is_link = fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_symlink());
        if is_link { not_ours("a link") } else { error }
    })?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(not_ours("not a regular file")) }
}

fn not_ours(what: &str) -> Error {
    Error::new(ErrorKind::InvalidInput, format!("it is {what}, and nothing in the cache is one"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_link_is_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let (secret, link) = (folder.path().join("secret"), folder.path().join("gc.lock"));
        fs::write(&secret, "hush").unwrap();
        symlink(&secret, &link).unwrap();
        for refused in [open(&link), open_for_writing(&link)] {
            assert!(refused.unwrap_err().to_string().contains("a link"));
        }
        drop(create(&link).unwrap());
        assert_eq!(fs::read_to_string(&secret).unwrap(), "hush");
        fs::remove_file(&link).unwrap();
        fs::hard_link(&secret, &link).unwrap();
        assert!(open_for_writing(&link).unwrap_err().to_string().contains("second name"));
    }

    #[test]
    fn only_regular_files_are_read_and_only_so_far() {
        let folder = tempfile::tempdir().unwrap();
        assert!(read(folder.path(), 10).unwrap_err().to_string().contains("not a regular file"));
        let file = folder.path().join("record");
        fs::write(&file, "0123456789").unwrap();
        assert_eq!(read(&file, 10).unwrap(), b"0123456789");
        assert_eq!(read(&file, 9).unwrap_err().kind(), ErrorKind::FileTooLarge);
    }
}
