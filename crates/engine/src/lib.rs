//! The build engine: it plans, builds, stores, verifies and shares a graph of models and benchmarks.
//! Knows nothing of the command line or the terminal: a caller gets return values and events.
//!
//! ```text
//!  project                                  an opened project, and all operations on it
//!  schedule → event → verify → inputs       runs stages on threads · builds nodes again and compares them
//!  plan → recipe → sources → graph → manifest    what a build must do, and why
//!  measurements                             what was measured of the configurations of a benchmark
//!  stage                                    folders in, a folder out
//!  share                                    the remote: who is trusted, what is shared
//!  attestation                              what is signed: who says that which recipe made which files
//!  store      hub      sign                 where bytes are kept · Hugging Face hub · keys, signatures
//!  lockfile   origin      paths             pipeline.lock · commits on the hub · `~`, `$VARIABLE` and links
//! ```
//! A module uses those below it, never those above; `tests/architecture.rs` has the table.
//!
//! Write a project of two nodes, and plan a build of it. The example of [`project::Project::build`] builds.
//!
//! ```
//! use engine::project::{PlanOptions, Project, ProjectPath};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = tempfile::tempdir()?;
//! # std::fs::create_dir(folder.path().join("model"))?;
//! # std::fs::write(folder.path().join("model/config.json"), "{}")?;
//! std::fs::write(
//!     folder.path().join("pipeline.yaml"),
//!     "version: 1\nnodes:\n  base: {stage: base, source: model}\n  \
//!      8bit: {stage: quantize, model: base, bits: 8}\n",
//! )?;
//! let mut project = Project::open(&ProjectPath::in_folder(folder.path()))?;
//! let plan = project.plan(&PlanOptions::default())?;
//! assert_eq!(plan.decisions.len(), 2);
//! # Ok(())
//! # }
//! ```

#![cfg_attr(test, expect(clippy::disallowed_methods, reason = "tests write scratch files"))]

pub mod attestation;
mod error;
pub mod event;
pub mod executor;
pub mod forecast;
mod git_head;
pub mod graph;
pub mod hub;
mod inputs;
pub mod lockfile;
mod machine;
pub mod manifest;
mod measurements;
pub mod origin;
mod own_program;
pub mod paths;
pub mod plan;
pub mod process;
pub mod project;
pub mod recipe;
pub mod request;
pub mod schedule;
pub mod share;
pub mod sign;
pub mod sources;
pub mod stage;
pub mod store;
pub mod verify;

pub use artifact::{Artifact, Digest, ErrorKind, FileEntry, Interrupted, IoError};
pub use error::{Error, Result};
pub use text::yaml::Problem;
