//! The commands, one file each: arguments in, calls to the engine, words out.
//! Knows nothing of how a build works.

pub(crate) mod build;
pub(crate) mod cache;
pub(crate) mod diff;
pub(crate) mod exec;
pub(crate) mod forecast;
pub(crate) mod gc;
pub(crate) mod graph;
pub(crate) mod init;
pub(crate) mod inspect;
pub(crate) mod keys;
pub(crate) mod report;
pub(crate) mod schema;
pub(crate) mod status;
pub(crate) mod transfer;
pub(crate) mod verify;
pub(crate) mod why;
