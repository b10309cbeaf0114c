//! `probe`: a model reads a text or random tokens once, and what its layers have for inputs is written down.
//! Knows nothing of runtimes or of tokens: it sends the text to a worker.

use std::fs;
use std::path::Path;

use super::{Device, Inputs, Probe, WorkerProgram};
use crate::error::{Error, Result, require};
use artifact::{AtPath, Output, Tick};

/// The most bytes of a text that are read. A probe needs a few hundred tokens.
const MOST_BYTES: u64 = 1 << 20;

/// Runs the model, and writes `probe.safetensors`.
pub(super) fn run(
    parameters: &Probe,
    inputs: &Inputs,
    output: &Output,
    worker: &WorkerProgram,
    tick: Tick<'_>,
) -> Result<()> {
    let text = inputs.source.as_deref().map(read).transpose()?;
    let Probe { directions, tokens } = *parameters;
    let model = inputs.folder("model")?.to_owned();
    worker.probe(Device::Cpu, protocol::Probe { model, text, tokens, directions }, output, tick)
}

/// Checks that the text can be read, if there is one.
pub(super) fn preflight(source: Option<&Path>) -> Result<()> {
    source.map_or(Ok(()), |source| read(source).map(drop))
}

fn read(path: &Path) -> Result<String> {
    let length = fs::metadata(path).at("read", path)?.len();
    require!(
        length <= MOST_BYTES,
        Source,
        "{} has {length} bytes; a probe reads a few hundred tokens, so give it a text of at most {MOST_BYTES}",
        path.display()
    );
    let bytes = fs::read(path).at("read", path)?;
    let text = String::from_utf8(bytes);
    let text = text.map_err(|_| Error::Source(format!("{} is not UTF-8 text", path.display())))?;
    require!(!text.trim().is_empty(), Source, "{} has no words; a probe reads a text", path.display());
    Ok(text)
}
