//! The one door to regular expressions: those that PEFT's configuration holds, which are Python's.
//! Knows nothing of what they select.

use fancy_regex::Regex;

use crate::{Error, Result};

/// A pattern on the name of a module. Python's dialect has look-around, which asks for an engine that backtracks;
/// the engine gives up after a million steps, so a hostile pattern ends in an error.
#[derive(Debug)]
pub(super) struct Pattern(Regex);

impl Pattern {
    /// Matches whole names, as `re.fullmatch` does in PEFT's `match_target_against_key` (`utils/other.py`).
    pub(super) fn whole(pattern: &str) -> Result<Self> {
        Self::new(pattern, &format!("^(?:{pattern})$"))
    }

    /// Matches names and their ends after a dot: `re.match(rf"(.*\.)?({key})$", …)` in PEFT's `get_pattern_key`
    /// (`utils/other.py`).
    pub(super) fn end(pattern: &str) -> Result<Self> {
        Self::new(pattern, &format!(r"^(.*\.)?({pattern})$"))
    }

    fn new(shown: &str, pattern: &str) -> Result<Self> {
        let regex = Regex::new(pattern).map_err(|error| {
            Error::Adapter(format!("`{shown}` is not a regular expression known here: {error}"))
        })?;
        Ok(Self(regex))
    }

    /// Whether `name` is selected.
    pub(super) fn matches(&self, name: &str) -> Result<bool> {
        self.0.is_match(name).map_err(|error| Error::Adapter(format!("cannot match `{name}`: {error}")))
    }
}
