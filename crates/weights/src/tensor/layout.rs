//! Where in a safetensors file the header ends and each tensor lies, for those who move bytes and read no weights.
//! Knows nothing of types and shapes beyond that they fit.

use std::fs::File;
use std::ops::Range;
use std::path::Path;

use super::reader::read_header;
use crate::error::Result;
use artifact::AtPath;

/// The parts of one safetensors file, which follow each other without a gap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Where the header ends, in bytes from the file's beginning.
    pub header: u64,
    /// The tensors in the order they lie in: name, and bytes from the file's beginning.
    pub tensors: Vec<(String, Range<u64>)>,
}

/// Reads the header of the safetensors file at `path`. A file that is none, or is cut short, is an error.
pub fn layout(path: &Path) -> Result<Layout> {
    let (metadata, header) = read_header(&File::open(path).at("read", path)?, path)?;
    let place = |(name, info): (String, &safetensors::tensor::TensorInfo)| {
        let (begin, end) = info.data_offsets;
        (name, header + begin as u64..header + end as u64)
    };
    let mut tensors: Vec<_> = metadata.tensors().into_iter().map(place).collect();
    // Tensors without elements lie at the same place; their names keep the order the same.
    tensors.sort_by(|(a, at), (b, bt)| (at.start, at.end, a).cmp(&(bt.start, bt.end, b)));
    Ok(Layout { header, tensors })
}
