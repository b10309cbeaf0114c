//! A text of a suite: written in it, or in a file beside it.
//! Knows nothing of how texts are read by a model.

use std::fs;
use std::io::Read;
use std::path::{Component, Path, PathBuf};

use ::text::yaml::{Fields, Problem, Tree, Value};

/// The longest text in a file, in bytes.
const LONGEST: u64 = 64 << 20;

/// A text to predict.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SuiteText {
    /// The text.
    pub text: String,
    /// How many tokens are read at most; all if `None`.
    pub tokens: Option<usize>,
    /// The path of its file, relative to the suite's folder; `None` if the text is written in the suite.
    pub file: Option<PathBuf>,
}

impl SuiteText {
    /// Reads a text, or `{file, tokens}`. `folder` is where the suite lies; without one, no file is read.
    pub(super) fn read(tree: Tree, folder: Option<&Path>) -> Result<Self, Problem> {
        let at = tree.at;
        match tree.value {
            Value::Text(text) if !text.trim().is_empty() => Ok(Self { text, tokens: None, file: None }),
            Value::Map(_) => {
                let mut fields = Fields::open(tree, "a text")?;
                let (name, at) = fields.text("file")?;
                let tokens = fields.count("tokens")?;
                fields.finish()?;
                if tokens == Some(1) {
                    return Err(Problem::new(
                        at,
                        "`tokens` must be at least 2: the first token is not foreseen",
                    ));
                }
                let file = PathBuf::from(name);
                let text = match folder {
                    Some(folder) => contents(folder, &file).map_err(|problem| Problem::new(at, problem))?,
                    None => String::new(),
                };
                Ok(Self { text, tokens, file: Some(file) })
            }
            _ => Err(Problem::new(
                at,
                format!("a text to read must be a text or `{{file: …}}`, not {}", tree.kind()),
            )),
        }
    }
}

/// Returns the text of a file.
fn contents(folder: &Path, file: &Path) -> Result<String, String> {
    let (path, shown) = (beside(folder, file)?, file.display());
    let cannot = |error| format!("cannot read the file `{shown}`: {error}");
    let mut text = String::new();
    let opened = fs::File::open(path).map_err(cannot)?;
    opened.take(LONGEST + 1).read_to_string(&mut text).map_err(cannot)?;
    match text.len() as u64 {
        0 => Err(format!("the file `{shown}` is empty")),
        length if length > LONGEST => Err(format!("the file `{shown}` is longer than {LONGEST} bytes")),
        _ => Ok(text),
    }
}

/// Returns the path of a file of a suite. It must be a regular file in the suite's folder or below: a suite that came
/// with a checkout must not name other files of the user.
pub(super) fn beside(folder: &Path, file: &Path) -> Result<PathBuf, String> {
    let shown = file.display();
    if !file.components().all(|part| matches!(part, Component::Normal(_))) {
        return Err(format!("the file `{shown}` must lie in the suite's folder or below"));
    }
    let cannot = |error| format!("cannot read the file `{shown}`: {error}");
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let path = folder.join(file);
    let (whole, root) = (path.canonicalize().map_err(cannot)?, folder.canonicalize().map_err(cannot)?);
    if !whole.starts_with(root) {
        return Err(format!("the file `{shown}` is a link that leads out of the suite's folder"));
    }
    match fs::metadata(&whole).map_err(cannot)?.is_file() {
        true => Ok(path),
        false => Err(format!("`{shown}` is not a file")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[allow(clippy::disallowed_methods, reason = "a test writes scratch files")]
    fn a_file_lies_beside_the_suite() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("suite");
        fs::create_dir(&inner).unwrap();
        fs::write(folder.path().join("secret"), "secret").unwrap();
        fs::write(inner.join("wiki.txt"), "Once").unwrap();
        std::os::unix::fs::symlink("../secret", inner.join("link")).unwrap();
        let read = |text: &str| {
            SuiteText::read(Tree::parse(text).unwrap(), Some(&inner)).map_err(|problem| problem.message)
        };
        let wiki = read("{file: wiki.txt, tokens: 9}").unwrap();
        assert_eq!((wiki.text.as_str(), wiki.tokens, wiki.file), ("Once", Some(9), Some("wiki.txt".into())));
        for (text, problem) in [
            ("{file: ../secret}", "must lie in the suite's folder"),
            ("{file: /etc/passwd}", "must lie in the suite's folder"),
            ("{file: link}", "leads out"),
            ("{file: none}", "cannot read"),
            ("{file: wiki.txt, tokens: 1}", "at least 2"),
            ("7", "a text or `{file: …}`"),
        ] {
            let said = read(text).unwrap_err();
            assert!(said.contains(problem) && !said.contains("secret:"), "{said}");
        }
    }
}
