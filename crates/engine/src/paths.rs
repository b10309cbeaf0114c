//! Paths as people write them: `~` and `$VARIABLE` are expanded. Also where a path really leads, through links.
//! Knows nothing of what the paths are for.

use std::env;
use std::ffi::OsString;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Folders in which files are views of the system, such as the environment of this process.
const SYSTEM: [&str; 3] = ["/proc", "/sys", "/dev"];

/// Words in the names of variables that hold secrets.
const SECRETS: [&str; 7] = ["KEY", "TOKEN", "SECRET", "PASS", "CREDENTIAL", "AUTH", "COOKIE"];

/// A path that cannot be expanded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPath {
    /// It names a variable that is not set.
    #[error("`{path}` names the environment variable `{variable}`, which is not set")]
    Unset {
        /// The path as written.
        path: String,
        /// The variable.
        variable: String,
    },
    /// It names a variable that may hold a secret. A path is shown in messages and becomes a name on the disk.
    #[error("`{path}` names the environment variable `{variable}`, whose name is that of a secret")]
    Secret {
        /// The path as written.
        path: String,
        /// The variable.
        variable: String,
    },
    /// It begins with the home folder of another user, or this user has none.
    #[error("`{0}` names a home folder that is not known; write the whole path")]
    Home(String),
}

/// Returns the path that `text` means: `~` at the beginning is the home folder, and `$NAME` or `${NAME}` is the
/// value of an environment variable.
///
/// # Errors
/// Fails if a variable is not set, or if there is no such home folder.
pub fn expand(text: &str) -> Result<PathBuf, InvalidPath> {
    let home = env::home_dir();
    expand_with(text, home.as_deref(), &|name| env::var_os(name))
}

/// Like [`expand`], but as Python's `os.path` does it for the variables of the hub: what is not known stays as
/// it is written.
pub fn expand_leniently(text: &str) -> PathBuf {
    expand(text).unwrap_or_else(|_| PathBuf::from(text))
}

fn expand_with(
    text: &str,
    home: Option<&Path>,
    variable: &dyn Fn(&str) -> Option<OsString>,
) -> Result<PathBuf, InvalidPath> {
    let unknown = || InvalidPath::Home(text.to_owned());
    let (start, rest) = match text.strip_prefix('~') {
        Some(rest) if rest.is_empty() || rest.starts_with('/') => {
            (home.ok_or_else(unknown)?.as_os_str().to_owned(), rest)
        }
        Some(_) => return Err(unknown()),
        None => (OsString::new(), text),
    };
    let mut path = start;
    let mut parts = rest.split('$');
    path.push(parts.next().unwrap_or_default());
    for part in parts {
        let (name, after) = variable_name(part);
        if name.is_empty() {
            path.push("$");
            path.push(part);
            continue;
        }
        let upper = name.to_ascii_uppercase();
        if SECRETS.iter().any(|word| upper.contains(word)) {
            return Err(InvalidPath::Secret { path: text.to_owned(), variable: name.to_owned() });
        }
        let value = variable(name).filter(|value| !value.is_empty());
        path.push(
            value.ok_or_else(|| InvalidPath::Unset { path: text.to_owned(), variable: name.to_owned() })?,
        );
        path.push(after);
    }
    Ok(PathBuf::from(path))
}

/// Splits the text after a `$` into the name of a variable, which may be in braces, and the rest.
fn variable_name(text: &str) -> (&str, &str) {
    if let Some((name, after)) = text.strip_prefix('{').and_then(|text| text.split_once('}')) {
        return (name, after);
    }
    let end = text.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(text.len());
    text.split_at(end)
}

/// Returns the path from the root of the file system on. An empty path is the current folder.
pub fn absolute(path: &Path) -> PathBuf {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

/// Returns the path without links, as far as it exists. What does not exist yet is added as it is written.
pub fn real(path: &Path) -> PathBuf {
    let whole = absolute(path);
    for above in whole.ancestors() {
        if let Ok(real) = above.canonicalize() {
            let rest = whole.strip_prefix(above).unwrap_or(Path::new(""));
            return if rest.as_os_str().is_empty() { real } else { real.join(rest) };
        }
    }
    whole
}

/// Lets this user list and change all folders below `folder`, as far as they are this user's. Links are not followed. A
/// command may have left folders that its own user may not change.
pub fn open_up(folder: &Path) {
    let Ok(metadata) = fs::symlink_metadata(folder) else { return };
    if !metadata.is_dir() {
        return;
    }
    let mode = metadata.permissions().mode();
    if mode & 0o700 != 0o700 {
        // If this fails, what follows says why.
        let _ = fs::set_permissions(folder, Permissions::from_mode(mode | 0o700));
    }
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.for_each(|entry| open_up(&entry.path()));
}

/// Whether `path` is `folder` or lies in it, through all links.
pub fn is_inside(path: &Path, folder: &Path) -> bool {
    real(path).starts_with(real(folder))
}

/// Whether `path` leads to a view of the system instead of to files that somebody wrote.
pub fn is_of_the_system(path: &Path) -> bool {
    let path = real(path);
    SYSTEM.iter().any(|folder| path.starts_with(folder))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expanded(text: &str) -> Result<String, String> {
        let variable = |name: &str| (name == "DATA").then(|| OsString::from("/data"));
        let path = expand_with(text, Some(Path::new("/home/ana")), &variable);
        path.map(|path| path.display().to_string()).map_err(|error| error.to_string())
    }

    #[test]
    fn a_path_means_what_a_person_expects() {
        let pairs = [
            ("~", "/home/ana"),
            ("~/models", "/home/ana/models"),
            ("$DATA/m", "/data/m"),
            ("${DATA}s/m", "/datas/m"),
            ("a~b/~", "a~b/~"),
            ("price$/x", "price$/x"),
            ("models/base", "models/base"),
        ];
        for (text, path) in pairs {
            assert_eq!(expanded(text).as_deref(), Ok(path), "{text}");
        }
        assert!(expanded("$NOPE/m").unwrap_err().contains("`NOPE`, which is not set"));
        assert!(
            expanded("/dev/$HF_TOKEN").unwrap_err().contains("`HF_TOKEN`, whose name is that of a secret")
        );
        assert!(expanded("~bob/m").unwrap_err().contains("home folder that is not known"));
    }

    #[test]
    fn a_link_leads_where_it_points() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        std::os::unix::fs::symlink("/proc/self", root.join("link")).unwrap();
        assert!(is_of_the_system(&root.join("link/environ")));
        assert!(is_inside(&root.join("new/folder"), &root));
        assert!(!is_inside(&root.join("link"), &root));
        assert!(!is_inside(&root, Path::new("")) && is_inside(Path::new("src"), Path::new("")));
    }
}
