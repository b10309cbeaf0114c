//! The byte layout of a safetensors file, for code that moves bytes and reads no weights.
//! Knows nothing of types and shapes, except that they fit.

use std::fs::File;
use std::ops::Range;
use std::path::Path;

use super::reader::read_header;
use crate::error::Result;
use artifact::AtPath;

/// The parts of one safetensors file, which follow each other without a gap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Where the header ends, in bytes from the start of the file.
    pub header: u64,
    /// The tensors in file order: the name, and the range in bytes from the start of the file.
    pub tensors: Vec<(String, Range<u64>)>,
}

/// Reads the layout of the safetensors file at `path` from its header.
///
/// # Errors
/// Fails if the file cannot be read, is not a safetensors file, or is truncated.
pub fn layout(path: &Path) -> Result<Layout> {
    let (metadata, header) = read_header(&File::open(path).at("read", path)?, path)?;
    let place = |(name, info): (String, &safetensors::tensor::TensorInfo)| {
        let (begin, end) = info.data_offsets;
        (name, header + begin as u64..header + end as u64)
    };
    let mut tensors: Vec<_> = metadata.tensors().into_iter().map(place).collect();
    // Tensors without elements may lie at the same offset. Sorting by name too makes their order fixed.
    tensors.sort_by(|(a, at), (b, bt)| (at.start, at.end, a).cmp(&(bt.start, bt.end, b)));
    Ok(Layout { header, tensors })
}
