//! The fields of a `probe` node.
//! Knows nothing of the model that is probed.

use super::{Source, SourceLocation};
use crate::stage::Probe;
use text::yaml::{Fields, Problem};

/// How many directions are kept if the file does not say. `docs/rounding.md` has the measurements.
const DIRECTIONS: usize = 8;

/// The most directions that may be asked for.
const MOST_DIRECTIONS: usize = 64;

/// How many tokens a model reads.
const TOKENS: usize = 256;

/// Reads what the model reads: `texts: FILE`, or `tokens: random`.
pub(super) fn read_text(fields: &mut Fields) -> Result<Option<Source>, Problem> {
    let at = fields.at();
    let is_random = fields.word("tokens", &[("random", ())])?.is_some();
    let texts = fields.optional_text("texts")?;
    match (texts, is_random) {
        (Some((path, at)), false) => Ok(Some(Source { location: SourceLocation::Disk(path), at })),
        (None, true) => Ok(None),
        _ => Err(Problem::new(at, "a probe has either `tokens: random` or `texts: FILE`")),
    }
}

/// Reads the other fields.
pub(super) fn read(fields: &mut Fields) -> Result<Probe, Problem> {
    let at = fields.at();
    let directions = fields.count("directions")?.unwrap_or(DIRECTIONS);
    if directions > MOST_DIRECTIONS {
        return Err(Problem::new(
            at,
            format!("`directions` must be at most {MOST_DIRECTIONS}, not {directions}"),
        ));
    }
    Ok(Probe { directions, tokens: TOKENS })
}
