//! make for model weights: a graph of fine-tuned models, rebuilt only where content changed.
//!
//! ```text
//!  cli                                      the only room that prints
//!  schedule   rederive                      the only room with threads of stages · nodes made again and compared
//!  plan → recipe → sources → graph → manifest    pure: data in, data out
//!  stage                                    folders in, folder out
//!  share                                    what the team has: who is believed, what travels
//!  attestation                              what is signed: who says that which recipe made which files
//!  model      store     hub                 what weights mean · where bytes lie · the network
//!  adapter                                  what an adapter does to which weight
//!  backend    tensor    report    output    arrays · files of tensors · results · a folder being written
//!  artifact   yaml      digest    origin    lists of files · text · blake3 · commits on the hub
//!  failure    sign                          errors with a path · keys and signatures
//! ```
//! A room uses those below it, never those above; `tests/architecture.rs` holds the table.

#![cfg_attr(test, expect(clippy::disallowed_methods, reason = "tests write scratch files"))]

pub mod adapter;
pub mod artifact;
pub mod attestation;
pub mod backend;
pub mod cli;
pub mod difference;
pub mod digest;
pub mod failure;
pub mod graph;
pub mod hub;
pub mod lockfile;
pub mod manifest;
#[cfg(feature = "mlx")]
pub mod model;
pub mod origin;
pub mod output;
pub mod plan;
pub mod recipe;
pub mod rederive;
pub mod report;
pub mod schedule;
pub mod share;
pub mod sign;
pub mod sources;
pub mod stage;
pub mod store;
pub mod tensor;
pub mod yaml;
