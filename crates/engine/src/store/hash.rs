//! Hashes files, several at once.
//! Knows nothing of why, nor of what is remembered.

use std::path::Path;
use std::sync::Mutex;
use std::thread::{self, available_parallelism};
use std::{fs, io};

use super::Stat;
use artifact::{Digest, start_helpers};

/// Hashes the file at `path`; returns its digest, and its state right after it was read.
pub(super) fn hash(path: &Path) -> io::Result<(Digest, Stat)> {
    let (digest, _) = Digest::of_file(path)?;
    Ok((digest, Stat::of(&fs::metadata(path)?)))
}

/// Hashes files on as many threads as there are processors; returns the results of [`hash`], in the order of
/// `paths`.
pub(super) fn hash_all(paths: &[&Path]) -> Vec<io::Result<(Digest, Stat)>> {
    let threads = available_parallelism().map_or(1, usize::from).min(paths.len());
    let jobs = Mutex::new(paths.iter().enumerate());
    let work = || {
        let next = || jobs.lock().ok().and_then(|mut jobs| jobs.next());
        std::iter::from_fn(next).map(|(index, path)| (index, hash(path))).collect::<Vec<_>>()
    };
    let mut done = thread::scope(|scope| {
        let others = start_helpers(scope, threads.saturating_sub(1), work);
        let mut done = work();
        for other in others {
            done.extend(other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        }
        done
    });
    done.sort_by_key(|(index, _)| *index);
    done.into_iter().map(|(_, hashed)| hashed).collect()
}
