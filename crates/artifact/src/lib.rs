//! Files with digests: blake3 of bytes, lists of files, and a folder that is hashed while it is written.
//! Knows nothing of what the files hold, nor of where they are kept afterwards.
//!
//! ```
//! use artifact::{Digest, Output};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = tempfile::tempdir()?;
//! let output = Output::new(folder.path().to_owned());
//! output.write("config.json", b"{}")?;
//! let made = output.finish();
//! let file = made.artifact.file("config.json").ok_or("it was written")?;
//! assert_eq!((file.digest, file.size), (Digest::of(b"{}"), 2));
//! # Ok(())
//! # }
//! ```

mod chain;
mod digest;
mod error_kind;
mod fold;
mod io_error;
mod list;
mod output;
mod progress;
mod threads;

pub use chain::{find_cause, in_one_line};
pub use digest::{Digest, HashingWriter, InvalidDigest};
pub use error_kind::ErrorKind;
pub use fold::fold;
pub use io_error::{AtPath, IoError};
pub use list::{Artifact, FileEntry, InvalidList, InvalidPath};
pub use output::{Made, Output, OutputFile};
pub use progress::{Interrupted, Tick};
pub use threads::{start, start_helpers};
