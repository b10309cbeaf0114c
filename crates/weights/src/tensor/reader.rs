//! Reads tensors by name, from one safetensors file or from indexed shards, and refuses hostile headers.
//! Knows nothing of what the tensors are for. Reads with `pread`, never a whole file.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::INDEX_FILE;
use super::file_pool::PooledFile;
use super::foreign::describe_foreign;
use super::locate::{Located, locate};
use crate::Error;
use crate::error::{Context, OrBug, Result, fail, require};
use artifact::AtPath;
use safetensors::Dtype as Element;
use safetensors::tensor::Metadata;

/// The longest header that is read, in bytes. The safetensors crate has the same limit.
const MAX_HEADER_BYTES: u64 = 100_000_000;

/// The type and shape of one tensor, and where it lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorRef {
    /// The type of its elements.
    pub element: Element,
    /// Its shape, outermost first.
    pub shape: Vec<usize>,
    /// Length in bytes.
    pub length: usize,
    file: usize,
    offset: u64,
}

#[cfg(test)]
impl TensorRef {
    /// Makes a tensor that lies nowhere, for tests of what is read off shapes.
    pub(crate) fn of_shape(element: Element, shape: Vec<usize>) -> Self {
        Self { element, shape, length: 0, file: 0, offset: 0 }
    }
}

/// The tensors of a model or of an adapter.
#[derive(Debug)]
pub struct TensorFiles {
    files: Vec<PooledFile>,
    tensors: BTreeMap<String, TensorRef>,
    warning: Option<String>,
}

impl TensorFiles {
    /// Opens the weights of the model in `folder`: the shards that its index names, or the single file if there is
    /// no index. A folder in which a download or a conversion left something behind is read with a
    /// [`warning`](Self::warning).
    ///
    /// # Errors
    /// Fails if a file is missing, cannot be read or is not a valid safetensors file. It also fails if the index
    /// cannot be parsed, or if it and the shards contradict each other.
    pub fn open_model(folder: &Path) -> Result<Self> {
        let Located { files: paths, weight_map, warning } = locate(folder)?;
        let mut files = Self { files: Vec::new(), tensors: BTreeMap::new(), warning };
        for path in paths {
            files.add(&path)?;
        }
        if let Some(weight_map) = weight_map {
            files.check_index(&weight_map, &folder.join(INDEX_FILE))?;
        }
        Ok(files)
    }

    /// Opens one safetensors file.
    ///
    /// # Errors
    /// Fails if the file cannot be read or is not a valid safetensors file.
    pub fn open(path: &Path) -> Result<Self> {
        let mut files = Self { files: Vec::new(), tensors: BTreeMap::new(), warning: None };
        files.add(path)?;
        Ok(files)
    }

    fn add(&mut self, path: &Path) -> Result<()> {
        let pooled = PooledFile::open(path).at("read", path)?;
        let file = pooled.get().at("read", path)?;
        let (metadata, start) =
            read_header(&file, path).within(|| format!("{} is damaged", path.display()))?;
        let number = self.files.len();
        // In a fixed order, so that of several mistakes the same one is always reported.
        let tensors: BTreeMap<_, _> = metadata.tensors().into_iter().collect();
        for (name, info) in tensors {
            let (begin, end) = info.data_offsets;
            let tensor = TensorRef {
                element: info.dtype,
                shape: info.shape.clone(),
                length: end - begin,
                file: number,
                offset: start + begin as u64,
            };
            if self.tensors.insert(name.clone(), tensor).is_some() {
                fail!(Format, "the tensor `{name}` is in two files; {} is one of them", path.display());
            }
        }
        self.files.push(pooled);
        Ok(())
    }

    fn check_index(&self, weight_map: &BTreeMap<String, String>, index: &Path) -> Result<()> {
        for (name, shard) in weight_map {
            let found = self.tensors.get(name).and_then(|tensor| self.files.get(tensor.file));
            let there =
                found.is_some_and(|file| file.path().file_name().is_some_and(|name| name == shard.as_str()));
            require!(there, Format, "{} says that `{name}` is in {shard}, but it is not", index.display());
        }
        match self.tensors.keys().find(|name| !weight_map.contains_key(*name)) {
            Some(name) => fail!(Format, "{} does not list `{name}`, which a shard holds", index.display()),
            None => Ok(()),
        }
    }

    /// Fails if a tensor has the shape `[0]`: what a training under DeepSpeed's ZeRO-3 writes of parameters that are
    /// spread over several processes.
    ///
    /// # Errors
    /// Fails on the first such tensor.
    pub(crate) fn check_not_empty(&self) -> Result<()> {
        let is_empty = |(_, tensor): &(&String, &TensorRef)| tensor.shape == [0];
        let count = self.tensors.iter().filter(is_empty).count();
        match self.tensors.iter().find(is_empty) {
            Some((name, _)) => fail!(
                Format,
                "`{name}` and {} more of {} tensors have no numbers. DeepSpeed's ZeRO-3 writes that where \
                 the parameters were not gathered: save again with `stage3_gather_16bit_weights_on_model_save`, or run \
                 zero_to_fp32.py on the checkpoint",
                count - 1,
                self.tensors.len()
            ),
            None => Ok(()),
        }
    }

    /// Returns what is wrong with the folder of the model although its weights were found.
    pub fn warning(&self) -> Option<&str> {
        self.warning.as_deref()
    }

    /// Returns the tensors, sorted by name.
    pub fn tensors(&self) -> &BTreeMap<String, TensorRef> {
        &self.tensors
    }

    /// Returns the tensor with this name.
    pub fn get(&self, name: &str) -> Option<&TensorRef> {
        self.tensors.get(name)
    }

    /// Returns the paths of the files, in the order in which they were opened.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.files.iter().map(PooledFile::path)
    }

    /// Reads the bytes of the tensor `name`: little-endian elements, the last dimension fastest.
    ///
    /// # Errors
    /// Fails if there is no such tensor or if its file cannot be read.
    pub fn read(&self, name: &str) -> Result<Vec<u8>> {
        let tensor =
            self.tensors.get(name).ok_or_else(|| Error::Format(format!("there is no tensor `{name}`")))?;
        let mut bytes = vec![0; tensor.length];
        self.read_part(name, 0, &mut bytes)?;
        Ok(bytes)
    }

    /// Fills `bytes` from the tensor `name`, starting at its byte `from`.
    ///
    /// # Errors
    /// Fails if there is no such tensor or if its file cannot be read. A range beyond the tensor's end is a
    /// bug.
    pub fn read_part(&self, name: &str, from: usize, bytes: &mut [u8]) -> Result<()> {
        let tensor =
            self.tensors.get(name).ok_or_else(|| Error::Format(format!("there is no tensor `{name}`")))?;
        let inside = from.checked_add(bytes.len()).is_some_and(|end| end <= tensor.length);
        require!(inside, Bug, "bytes {from} and {} more are not all in `{name}`", bytes.len());
        let file = self.files.get(tensor.file).or_bug("a tensor lies in an opened file")?;
        let read = file.get().and_then(|open| open.read_exact_at(bytes, tensor.offset + from as u64));
        read.at("read", file.path()).within(|| format!("tensor `{name}`"))
    }
}

/// Reads and checks the header of a safetensors file. Returns it with the offset of the data, in bytes.
///
/// The header's length is checked first, so that a false length allocates nothing. The safetensors crate
/// checks that the tensors follow each other without gap or overlap, and that each shape fits its bytes. This
/// function checks that the last tensor ends where the file ends.
pub(super) fn read_header(file: &File, path: &Path) -> Result<(Metadata, u64)> {
    let length = file.metadata().at("read", path)?.len();
    if let Some(what) = describe_foreign(file).at("read", path)? {
        fail!(Format, "it is {what}");
    }
    let mut prefix = [0; 8];
    file.read_exact_at(&mut prefix, 0)
        .map_err(|_: io::Error| Error::Format("it is shorter than a header".to_owned()))?;
    let header = u64::from_le_bytes(prefix);
    require!(
        header <= MAX_HEADER_BYTES,
        Format,
        "its header claims {header} bytes; the limit is {MAX_HEADER_BYTES}"
    );
    require!(
        length.checked_sub(8).is_some_and(|rest| header <= rest),
        Format,
        "its header claims {header} bytes, but the file has {length}"
    );
    let mut bytes = vec![0; usize::try_from(header).ok().or_bug("the limit of a header fits the memory")?];
    file.read_exact_at(&mut bytes, 8).at("read", path)?;
    let metadata: Metadata =
        serde_json::from_slice(&bytes).within(|| "its header is not valid".to_owned())?;
    let start = 8 + header;
    let end = start + metadata.data_len() as u64;
    require!(
        end <= length,
        Format,
        "its tensors end at byte {end}, but the file has {length}: it is truncated"
    );
    require!(end == length, Format, "its tensors end at byte {end}, but the file has {length}");
    Ok((metadata, start))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::SINGLE_FILE;

    fn open(header: &str, data: usize) -> crate::Result<TensorFiles> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(SINGLE_FILE);
        let bytes = [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &vec![0; data]].concat();
        std::fs::write(&path, bytes).unwrap();
        TensorFiles::open(&path)
    }

    fn refusal(header: &str, data: usize) -> String {
        artifact::in_one_line(&open(header, data).unwrap_err())
    }

    #[test]
    fn reads_what_is_whole() {
        let files = open(r#"{"a":{"dtype":"F32","shape":[2,1],"data_offsets":[0,8]}}"#, 8).unwrap();
        assert_eq!(files.read("a").unwrap(), [0; 8]);
        assert_eq!(files.get("a").unwrap().shape, [2, 1]);
    }

    #[test]
    fn refuses_every_lie() {
        let one = r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#;
        assert!(refusal(one, 7).contains("truncated"));
        assert!(refusal(one, 9).contains("end at byte"));
        assert!(refusal("{", 0).contains("header is not valid"));
        let overlap = r#"{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"b":{"dtype":"U8","shape":[4],"data_offsets":[2,6]}}"#;
        assert!(refusal(overlap, 6).contains("header is not valid"));
        let outside = r#"{"a":{"dtype":"U8","shape":[4],"data_offsets":[4,8]}}"#;
        assert!(refusal(outside, 4).contains("header is not valid"));
        let absurd =
            r#"{"a":{"dtype":"F32","shape":[9223372036854775807,9223372036854775807],"data_offsets":[0,8]}}"#;
        assert!(refusal(absurd, 8).contains("header is not valid"));
    }

    #[test]
    fn allocates_nothing_for_a_lie_about_the_header() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(SINGLE_FILE);
        for claim in [u64::MAX, 1 << 40, 99_000_000, 1] {
            std::fs::write(&path, claim.to_le_bytes()).unwrap();
            let message = artifact::in_one_line(&TensorFiles::open(&path).unwrap_err());
            assert!(message.contains("its header claims"), "{message}");
        }
    }

    proptest::proptest! {
        #[test]
        fn never_panics(header in ".{0,200}", data in 0usize..32) {
            let _ = open(&header, data);
        }
    }
}
