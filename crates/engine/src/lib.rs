//! The build engine: a graph of models and benchmarks, what of it is stale, and how it is made, kept and shared.
//! Knows nothing of the command line or the terminal: whoever calls it is told by return values and events.
//!
//! ```text
//!  schedule   verify                        stages on threads · nodes made again and compared
//!  plan → recipe → sources → graph → manifest    what a build has to do, and why
//!  stage                                    folders in, a folder out
//!  share                                    what the team has: who is trusted, what travels
//!  attestation                              what is signed: who says that which recipe made which files
//!  store      hub      sign                 where bytes lie · the Hugging Face hub · keys and signatures
//!  lockfile   origin                        pipeline.lock · commits on the hub
//! ```
//! A room uses those below it, never those above; `tests/architecture.rs` holds the table.

#![cfg_attr(test, expect(clippy::disallowed_methods, reason = "tests write scratch files"))]

pub mod attestation;
mod error;
pub mod event;
pub mod graph;
pub mod hub;
mod inputs;
pub mod lockfile;
pub mod manifest;
pub mod origin;
pub mod plan;
pub mod project;
pub mod recipe;
pub mod schedule;
pub mod share;
pub mod sign;
pub mod sources;
pub mod stage;
pub mod store;
pub mod verify;

pub use error::{Error, Result, hint_for};
