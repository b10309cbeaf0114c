//! Writes tensors one at a time, as safetensors shards with an index; every run gives the same bytes.
//! Knows nothing of where the folder is, nor of what the tensors are for.
//!
//! MLX's own writer orders tensors by a hash map and leaves the data unaligned, so its files differ between
//! systems. Here tensors are sorted by name. The header is padded with spaces so that data begins at a
//! multiple of eight bytes, as in the safetensors crate.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::Path;

use safetensors::Dtype as Element;
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::{INDEX_FILE, SINGLE_FILE};
use crate::error::{Context, OrBug, Result, fail, require};
use artifact::{AtPath, Output, OutputFile};

/// The most bytes that a shard holds: 5 GiB, as mlx-lm's `MAX_FILE_SIZE_GB`.
const SHARD_BYTES: u64 = 5 << 30;

/// The name, type and shape of a tensor that is going to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorSpec {
    /// Its name.
    pub name: String,
    /// The type of its elements.
    pub element: Element,
    /// Its shape, outermost first.
    pub shape: Vec<usize>,
}

impl TensorSpec {
    /// Returns the length in bytes.
    pub fn length(&self) -> u64 {
        let elements: u64 = self.shape.iter().map(|&dimension| dimension as u64).product();
        elements * self.element.bitsize() as u64 / 8
    }
}

/// A set of weights being written, in the order of the tensors' names.
pub struct TensorWriter<'a> {
    output: &'a Output,
    shards: Vec<Shard>,
    current: Option<OutputFile<'a>>,
    /// The next tensor to write: the index of its shard, and its index in the shard.
    due: (usize, usize),
    /// How many bytes of that tensor are written.
    written: u64,
}

struct Shard {
    name: String,
    tensors: Vec<TensorSpec>,
}

impl<'a> TensorWriter<'a> {
    /// Lays out `tensors`, given in any order, in shards below `output`.
    ///
    /// # Errors
    /// Fails if two tensors have the same name.
    pub fn new(output: &'a Output, mut tensors: Vec<TensorSpec>) -> Result<Self> {
        tensors.sort_by(|a, b| a.name.cmp(&b.name));
        if let Some([first, _]) = tensors.array_windows().find(|[a, b]| a.name == b.name) {
            fail!(Format, "two tensors would be called `{}`", first.name);
        }
        Ok(Self { output, shards: lay_out(tensors, SHARD_BYTES), current: None, due: (0, 0), written: 0 })
    }

    /// Returns the specs in the order in which their bytes must be pushed.
    pub fn order(&self) -> impl Iterator<Item = &TensorSpec> {
        self.shards.iter().flat_map(|shard| &shard.tensors)
    }

    /// Writes the next bytes of the tensor `name`: all of it, or its next part. It must be the next tensor in
    /// [`order`](Self::order).
    ///
    /// # Errors
    /// Fails if the shard cannot be created or written. A wrong order or too many bytes are a bug.
    pub fn push(&mut self, name: &str, bytes: &[u8]) -> Result<()> {
        let (shard, index) = self.due;
        let spec = self.shards.get(shard).and_then(|shard| shard.tensors.get(index));
        let spec = spec.or_bug("more tensors than were laid out")?;
        require!(spec.name == name, Bug, "the tensor `{}` is due, not `{name}`", spec.name);
        let (length, end) = (spec.length(), self.written + bytes.len() as u64);
        require!(end <= length, Bug, "`{name}` has {length} bytes, not {end}");
        if (index, self.written) == (0, 0) {
            self.begin(shard)?;
        }
        let file = self.current.as_mut().or_bug("a shard was begun")?;
        let written = file.write_all(bytes).at("write", Path::new(&self.shards[shard].name));
        written.within(|| format!("tensor `{name}`"))?;
        self.written = end;
        if end == length {
            self.written = 0;
            self.due = if index + 1 < self.shards[shard].tensors.len() {
                (shard, index + 1)
            } else {
                (shard + 1, 0)
            };
        }
        Ok(())
    }

    fn begin(&mut self, number: usize) -> Result<()> {
        if let Some(file) = self.current.take() {
            file.close()?;
        }
        let shard = self.shards.get(number).or_bug("a due tensor lies in a shard")?;
        let mut file = self.output.create(&shard.name)?;
        file.write_all(&header(&shard.tensors)).at("write", Path::new(&shard.name))?;
        self.current = Some(file);
        Ok(())
    }

    /// Closes the last shard and writes the index. `parameters` is the number of weights before packing.
    ///
    /// # Errors
    /// Fails if a file cannot be written. Missing tensors are a bug.
    pub fn finish(mut self, parameters: u64) -> Result<()> {
        if self.current.is_none() {
            self.begin(0)?;
        }
        if let Some(file) = self.current.take() {
            file.close()?;
        }
        let all =
            self.shards.last().is_some_and(|last| last.tensors.is_empty()) || self.due.0 == self.shards.len();
        require!(all, Bug, "fewer tensors were written than were laid out");
        self.write_index(parameters)
    }

    /// Writes the headers of all shards and the index. The data is a hole in each file.
    ///
    /// # Errors
    /// Fails if a file cannot be written.
    pub fn outline(self, parameters: u64) -> Result<()> {
        for shard in &self.shards {
            let header = header(&shard.tensors);
            let data: u64 = shard.tensors.iter().map(TensorSpec::length).sum();
            let path = self.output.folder().join(&shard.name);
            let mut file = File::create_new(&path).at("create", &path)?;
            file.write_all(&header).at("write", &path)?;
            file.set_len(header.len() as u64 + data).at("write", &path)?;
        }
        self.write_index(parameters)
    }

    fn write_index(&self, parameters: u64) -> Result<()> {
        let mut weight_map = BTreeMap::new();
        let mut total = 0;
        for shard in &self.shards {
            for spec in &shard.tensors {
                weight_map.insert(spec.name.as_str(), shard.name.as_str());
                total += spec.length();
            }
        }
        let metadata = json!({"total_parameters": parameters, "total_size": total});
        let index = json!({"metadata": metadata, "weight_map": weight_map});
        Ok(self.output.write(INDEX_FILE, &to_pretty_json(index))?)
    }
}

/// Writes a file with these tensors, in their order.
///
/// # Errors
/// Fails if the file cannot be written. A tensor whose bytes do not have its length is a bug.
pub fn write_tensors(
    output: &Output,
    path: &str,
    tensors: impl IntoIterator<Item = (TensorSpec, Vec<u8>)>,
) -> Result<()> {
    let (specs, bytes): (Vec<_>, Vec<_>) = tensors.into_iter().unzip();
    let mut file = output.create(path)?;
    file.write_all(&header(&specs)).at("write", Path::new(path))?;
    for (spec, bytes) in specs.iter().zip(&bytes) {
        require!(spec.length() == bytes.len() as u64, Bug, "`{}` has {} bytes", spec.name, bytes.len());
        file.write_all(bytes).at("write", Path::new(path))?;
    }
    Ok(file.close()?)
}

/// Serializes `value` as mlx-lm writes its JSON files: four spaces per level, keys sorted.
pub fn to_pretty_json(mut value: Value) -> Vec<u8> {
    value.sort_all_objects();
    let mut bytes = Vec::new();
    let formatter = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    let mut serializer = serde_json::Serializer::with_formatter(&mut bytes, formatter);
    value.serialize(&mut serializer).expect("BUG: a JSON value has a JSON form");
    bytes
}

/// Splits the sorted tensors into shards of at most `limit` bytes. A larger tensor gets a shard of its own.
/// mlx-lm's `make_shards` counts the same way.
fn lay_out(tensors: Vec<TensorSpec>, limit: u64) -> Vec<Shard> {
    let mut groups = vec![Vec::new()];
    let mut size = 0;
    for spec in tensors {
        if size + spec.length() > limit && size > 0 {
            groups.push(Vec::new());
            size = 0;
        }
        size += spec.length();
        groups.last_mut().expect("BUG: there is a first group").push(spec);
    }
    let count = groups.len();
    let name = |number: usize| match count {
        1 => SINGLE_FILE.to_owned(),
        _ => format!("model-{number:05}-of-{count:05}.safetensors"),
    };
    groups.into_iter().enumerate().map(|(index, tensors)| Shard { name: name(index + 1), tensors }).collect()
}

/// Returns the header of a file with these tensors: the header's length in bytes, then the padded JSON.
fn header(tensors: &[TensorSpec]) -> Vec<u8> {
    let mut entries = Map::new();
    entries.insert("__metadata__".to_owned(), json!({"format": "mlx"}));
    let mut offset = 0;
    for spec in tensors {
        let end = offset + spec.length();
        let entry =
            json!({"data_offsets": [offset, end], "dtype": spec.element.to_string(), "shape": spec.shape});
        entries.insert(spec.name.clone(), entry);
        offset = end;
    }
    let mut json = serde_json::to_vec(&entries).expect("BUG: a JSON value has a JSON form");
    json.resize(json.len().next_multiple_of(8), b' ');
    [&(json.len() as u64).to_le_bytes(), json.as_slice()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::TensorFiles;
    use proptest::prelude::*;

    fn spec(name: &str, length: usize) -> TensorSpec {
        TensorSpec { name: name.to_owned(), element: Element::U8, shape: vec![length] }
    }

    #[test]
    fn shards_like_mlx_lm() {
        let shards = lay_out(vec![spec("a", 6), spec("b", 5), spec("c", 3), spec("d", 20), spec("e", 1)], 10);
        let names: Vec<Vec<_>> = shards
            .iter()
            .map(|shard| shard.tensors.iter().map(|spec| spec.name.as_str()).collect())
            .collect();
        assert_eq!(names, [vec!["a"], vec!["b", "c"], vec!["d"], vec!["e"]]);
        assert_eq!(shards[1].name, "model-00002-of-00004.safetensors");
    }

    proptest! {
        #[test]
        fn reads_back_what_it_wrote(tensors in prop::collection::btree_map("[a-z.]{1,8}", prop::collection::vec(any::<u8>(), 0..64), 1..8)) {
            let folder = tempfile::tempdir().unwrap();
            let output = Output::new(folder.path().to_owned());
            let specs = tensors.iter().map(|(name, bytes)| spec(name, bytes.len())).collect();
            let mut writer = TensorWriter::new(&output, specs).unwrap();
            for (name, bytes) in &tensors {
                let (start, rest) = bytes.split_at(bytes.len() / 3);
                if !start.is_empty() {
                    writer.push(name, start).unwrap();
                }
                writer.push(name, rest).unwrap();
            }
            writer.finish(0).unwrap();
            let files = TensorFiles::open_model(folder.path()).unwrap();
            for (name, bytes) in &tensors {
                prop_assert_eq!(&files.read(name).unwrap(), bytes);
            }
            let raw = std::fs::read(folder.path().join(SINGLE_FILE)).unwrap();
            let header = u64::from_le_bytes(raw[..8].try_into().unwrap());
            prop_assert_eq!(header % 8, 0);
        }
    }
}
