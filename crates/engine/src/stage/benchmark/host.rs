//! What a benchmark asks of the build around it: what is known already, and a place for what is measured.
//! Knows nothing of the store.

use std::path::PathBuf;

use super::memory::{Entry, Measured};
use super::progress::Measuring;
use crate::error::Result;
use artifact::{Digest, Interrupted};

/// The build around a benchmark. Configurations are named as in the benchmark.
pub trait Host: Sync {
    /// Returns what was measured of a configuration earlier.
    fn recall(&self, config: &str) -> Measured;

    /// Keeps what was just measured of a configuration, so that a build that is interrupted now need not measure it
    /// again.
    ///
    /// # Errors
    /// Fails if it cannot be written.
    fn remember(&self, config: &str, entry: &Entry) -> Result<()>;

    /// Returns what tells the configuration from all others: its model, its adapter, and what runs it.
    fn identity(&self, config: &str) -> Result<Digest>;

    /// Returns the file with the log probabilities of a configuration for a text, if it is kept.
    fn log_probabilities(&self, config: &str, text: &Digest) -> Option<PathBuf>;

    /// Returns the path of a file that does not exist, for new log probabilities.
    ///
    /// # Errors
    /// Fails if no folder can be made for it.
    fn new_log_probabilities(&self, config: &str, text: &Digest) -> Result<PathBuf>;

    /// Keeps the file that was written there.
    ///
    /// # Errors
    /// Fails if it cannot be moved.
    fn keep_log_probabilities(&self, config: &str, text: &Digest) -> Result<()>;

    /// Tells how far the benchmark is.
    ///
    /// # Errors
    /// Fails if it is asked to stop.
    fn measuring(&self, measuring: &Measuring) -> Result<(), Interrupted>;
}
