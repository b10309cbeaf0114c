//! The up-to-date stamp: the answer to a question, with the state of every file and folder that the answer
//! depends on. While none of them changes, the same question has the same answer, and nothing need be
//! planned.
//! Knows nothing of what was decided. Without the file, the next run is slower, not different.

use std::path::{Path, PathBuf};
use std::thread::{self, available_parallelism};

use serde::{Deserialize, Serialize};

use super::machine_secret::MachineSecret;
use super::{Stat, owned_file};
use artifact::{Digest, start};

/// One thread is started for this many states. Reading them takes about ten times as long as starting the
/// thread.
const SHARE: usize = 1000;

/// The role of the file among those that are marked with the machine's secret.
const ROLE: &str = "up-to-date stamp";

/// The longest file that is read, in bytes.
const LONGEST: u64 = 1 << 30;

/// A question, its answer, and the file states that the answer depends on.
#[derive(Serialize, Deserialize)]
pub struct UpToDateStamp<'a> {
    question: Digest,
    answer: usize,
    /// Paths in the project are relative to it, so that it can be moved.
    #[serde(borrow)]
    seen: Vec<(&'a str, Stat)>,
}

impl<'a> UpToDateStamp<'a> {
    /// Encodes the answer to `question` and the states in `seen`. Returns `None` if one of the paths is not
    /// UTF-8, or if there is no secret to mark it with.
    pub fn encode(
        secret: &MachineSecret,
        question: Digest,
        answer: usize,
        root: &Path,
        seen: &'a [(PathBuf, Stat)],
    ) -> Option<Vec<u8>> {
        let state = |(path, stat): &'a (PathBuf, Stat)| {
            let path = path.strip_prefix(root).unwrap_or(path).to_str()?;
            Some((path, *stat))
        };
        let seen = seen.iter().map(state).collect::<Option<_>>()?;
        secret.seal(ROLE, &postcard::to_stdvec(&Self { question, answer, seen }).ok()?)
    }

    /// Reads the stamp at `path`. Returns its answer if it was written with this `secret`, if it is for
    /// `question`, and if every file and folder is unchanged.
    pub fn recall(path: &Path, secret: &MachineSecret, root: &Path, question: &Digest) -> Option<usize> {
        let bytes = owned_file::read(path, LONGEST).ok()?;
        let stamp: UpToDateStamp<'_> = postcard::from_bytes(secret.unseal(ROLE, &bytes)?).ok()?;
        (stamp.question == *question && stamp.stands(root)).then_some(stamp.answer)
    }

    /// Whether every file and folder has the same state as before.
    fn stands(&self, root: &Path) -> bool {
        let threads =
            available_parallelism().map_or(1, usize::from).min(self.seen.len().div_ceil(SHARE)).max(1);
        let mut shares = self.seen.chunks(self.seen.len().div_ceil(threads).max(1));
        let first = shares.next().unwrap_or_default();
        thread::scope(|scope| {
            let others: Vec<_> =
                shares.map(|share| (share, start(scope, || all_stand(share, root)))).collect();
            let first = all_stand(first, root);
            let stands =
                |(share, other): (_, std::io::Result<thread::ScopedJoinHandle<'_, bool>>)| match other {
                    Ok(other) => other.join().unwrap_or(false),
                    Err(_) => all_stand(share, root),
                };
            others.into_iter().all(stands) && first
        })
    }
}

fn all_stand(seen: &[(&str, Stat)], root: &Path) -> bool {
    let mut whole = PathBuf::new();
    seen.iter().all(|(path, stat)| {
        whole.clear();
        whole.push(root);
        whole.push(path);
        Stat::at(&whole).is_ok_and(|now| now == *stat)
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn stands_until_something_changes() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("weights");
        let kept = root.path().join("stamp");
        fs::write(&path, "one").unwrap();
        let seen = [(path.clone(), Stat::at(&path).unwrap())];
        let question = Digest::of(b"all");
        let secret = MachineSecret::at(root.path().join("secret"));
        fs::write(&kept, UpToDateStamp::encode(&secret, question, 7, root.path(), &seen).unwrap()).unwrap();
        let recall = |question| UpToDateStamp::recall(&kept, &secret, root.path(), &question);
        assert_eq!(recall(question), Some(7));
        assert_eq!(recall(Digest::of(b"8bit")), None);

        fs::write(&path, "more").unwrap();
        assert_eq!(recall(question), None);
        fs::remove_file(&path).unwrap();
        assert_eq!(recall(question), None);
    }
}
