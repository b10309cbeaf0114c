//! The only file that uses the regular expression crate: Python patterns from PEFT's configuration.
//! Knows nothing of what they select.

use fancy_regex::Regex;

use crate::{Error, Result};

/// A pattern on the names of modules. Python's dialect has look-around, which needs a backtracking engine.
/// The engine gives up after a million steps, so a hostile pattern ends in an error.
#[derive(Debug)]
pub(super) struct Pattern(Regex);

impl Pattern {
    /// Matches whole names, as `re.fullmatch` does in PEFT's `match_target_against_key` (`utils/other.py`).
    pub(super) fn whole(pattern: &str) -> Result<Self> {
        Self::new(pattern, &format!("^(?:{pattern})$"))
    }

    /// Matches whole names, and the ends of names after a dot, as `re.match(rf"(.*\.)?({key})$", …)` does in
    /// PEFT's `get_pattern_key` (`utils/other.py`).
    pub(super) fn end(pattern: &str) -> Result<Self> {
        Self::new(pattern, &format!(r"^(.*\.)?({pattern})$"))
    }

    fn new(shown: &str, pattern: &str) -> Result<Self> {
        let regex = Regex::new(pattern).map_err(|error| {
            Error::Adapter(format!("`{shown}` is not a regular expression known here: {error}"))
        })?;
        Ok(Self(regex))
    }

    /// Whether the pattern matches `name`.
    pub(super) fn matches(&self, name: &str) -> Result<bool> {
        self.0.is_match(name).map_err(|error| Error::Adapter(format!("cannot match `{name}`: {error}")))
    }
}
