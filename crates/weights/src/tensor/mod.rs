//! Files of named tensors in the safetensors format: element types, shapes and raw bytes.
//! Knows nothing of models, nor of what the numbers mean.

mod difference;
mod file_pool;
mod foreign;
mod layout;
mod locate;
mod reader;
mod writer;

pub use difference::first_difference;
pub(crate) use foreign::describe_foreign;
pub use layout::{Layout, layout};
pub use reader::{TensorFiles, TensorRef};
pub use safetensors::Dtype as Element;
pub use writer::{TensorSpec, TensorWriter, to_pretty_json, write_tensors};

/// The name of the file with a model's weights, if they are in one file.
pub const SINGLE_FILE: &str = "model.safetensors";

/// The name of the file that says which shard holds which tensor.
pub const INDEX_FILE: &str = "model.safetensors.index.json";
