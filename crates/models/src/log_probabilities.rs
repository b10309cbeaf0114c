//! The file with a reference's log probabilities of one text.
//! Knows nothing of models.
//!
//! ```text
//! "pipeline log-probabilities 1\n"
//! vocabulary size         u32, little-endian like all numbers
//! number of tokens        u32
//! the tokens              u32 each
//! rows                    f32, one row of the vocabulary's size for each predicted token, in order
//! ```

use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

const MAGIC: &[u8] = b"pipeline log-probabilities 1\n";

/// Writes the file.
pub(crate) struct Writer {
    path: PathBuf,
    file: BufWriter<File>,
}

impl Writer {
    /// Creates the file, which must not exist.
    pub(crate) fn create(path: &Path, tokens: &[u32], vocab_size: usize) -> Result<Self> {
        let file = File::create_new(path).with_context(|| format!("cannot create {}", path.display()))?;
        let mut writer = Self { path: path.to_owned(), file: BufWriter::with_capacity(1 << 20, file) };
        writer.write(&head(tokens, vocab_size)?)?;
        Ok(writer)
    }

    /// Appends rows.
    pub(crate) fn append(&mut self, rows: &[f32]) -> Result<()> {
        let bytes: Vec<_> = rows.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.write(&bytes)
    }

    /// Writes the file through to the disk.
    pub(crate) fn finish(mut self) -> Result<()> {
        let written = self.file.flush().and_then(|()| self.file.get_ref().sync_all());
        written.with_context(|| format!("cannot write {}", self.path.display()))
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).with_context(|| format!("cannot write {}", self.path.display()))
    }
}

/// Reads the file from its beginning to its end.
pub(crate) struct Reader {
    path: PathBuf,
    file: BufReader<File>,
    vocab_size: usize,
}

impl Reader {
    /// Opens the file, which must be about these tokens and a vocabulary of this size.
    pub(crate) fn open(path: &Path, tokens: &[u32], vocab_size: usize) -> Result<Self> {
        let file = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
        let mut reader =
            Self { path: path.to_owned(), file: BufReader::with_capacity(1 << 20, file), vocab_size };
        let begin = reader.bytes(MAGIC.len() + 8)?;
        let (magic, numbers) = begin.split_at(MAGIC.len());
        ensure!(magic == MAGIC, "{} does not hold log probabilities", path.display());
        let numbers = words(numbers);
        let theirs = numbers.first().copied().unwrap_or_default();
        ensure!(
            usize::try_from(theirs) == Ok(vocab_size),
            "the reference has another vocabulary: {theirs} tokens, and the model has {vocab_size}"
        );
        let count = numbers.get(1).copied().unwrap_or_default();
        let same =
            usize::try_from(count) == Ok(tokens.len()) && words(&reader.bytes(4 * tokens.len())?) == tokens;
        ensure!(same, "the reference makes other tokens of the text, so the two cannot be compared");
        Ok(reader)
    }

    /// Returns the next so many rows.
    pub(crate) fn next(&mut self, rows: usize) -> Result<Vec<f32>> {
        let bytes = self.bytes(4 * rows * self.vocab_size)?;
        Ok(bytes.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect())
    }

    fn bytes(&mut self, count: usize) -> Result<Vec<u8>> {
        let mut bytes = vec![0; count];
        self.file.read_exact(&mut bytes).with_context(|| format!("cannot read {}", self.path.display()))?;
        Ok(bytes)
    }
}

fn head(tokens: &[u32], vocab_size: usize) -> Result<Vec<u8>> {
    let numbers = [u32::try_from(vocab_size)?, u32::try_from(tokens.len())?];
    let numbers = numbers.iter().chain(tokens).flat_map(|number| number.to_le_bytes());
    Ok(MAGIC.iter().copied().chain(numbers).collect())
}

fn words(bytes: &[u8]) -> Vec<u32> {
    bytes.as_chunks().0.iter().map(|bytes| u32::from_le_bytes(*bytes)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_and_only_for_its_text() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log-probabilities");
        let rows = [-0.5, -1.5, f32::NEG_INFINITY, -0.0, -2.0, f32::MIN_POSITIVE];
        let mut writer = Writer::create(&path, &[5, 6, 7], 3).unwrap();
        writer.append(&rows[..3]).unwrap();
        writer.append(&rows[3..]).unwrap();
        writer.finish().unwrap();
        let mut reader = Reader::open(&path, &[5, 6, 7], 3).unwrap();
        assert_eq!(reader.next(2).unwrap(), rows);
        assert!(reader.next(1).is_err(), "there are no more rows");
        let refused =
            |tokens: &[u32], vocab_size| Reader::open(&path, tokens, vocab_size).err().unwrap().to_string();
        assert!(refused(&[5, 6, 8], 3).contains("other tokens"));
        assert!(refused(&[5, 6], 3).contains("other tokens"));
        assert!(refused(&[5, 6, 7], 4).contains("another vocabulary: 3 tokens"));
    }
}
