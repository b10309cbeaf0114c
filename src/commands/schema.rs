//! `pipeline schema`: prints the JSON Schema of pipeline.yaml, for editors.
//! Knows nothing of the file that the user has.

use crate::outcome::Outcome;
use crate::terminal::print;

const SCHEMA: &str = include_str!("schema.json");

pub(crate) fn run() -> anyhow::Result<Outcome> {
    print(SCHEMA)?;
    Ok(Outcome::Success)
}
