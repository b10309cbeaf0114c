//! The program as a user sees it: files in a folder, a command, what it says, and what is on disk afterwards.
//! One file per topic; `space.rs` has the language they are written in.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::print_stdout, reason = "what is skipped is printed")]
#![allow(clippy::disallowed_methods, reason = "the tests play the user, who writes files as they like")]

mod adapters;
mod bucket;
mod build;
mod cache;
mod checkout;
mod device;
mod disks;
mod download;
mod errors;
mod faults;
mod forecast;
mod gc;
mod graph;
mod hostile;
mod hub;
mod in_toto;
mod incremental;
mod intruders;
mod keys;
mod kills;
mod layouts;
mod machines;
mod measurements;
mod merging;
mod outages;
mod pico;
mod proxy;
mod remote;
mod report;
mod rounding;
mod run;
mod server;
#[path = "../sample/short_train.rs"]
mod short_train;
mod situations;
mod soak;
mod space;
mod survival;
mod temporary;
mod trust;
mod verify;
mod weights;
mod why;
mod workers;
