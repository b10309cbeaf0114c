//! `pipeline.lock`: for each node the recipe key and the artifact digest it was last built to. Committed, compared.
//! Knows nothing of how an artifact is made.
//!
//! Sorted, one line a node, so that two branches merge line by line; it is also YAML, for other programs:
//! `8bit: {key: …, artifact: …}`.

use std::collections::BTreeMap;
use std::fmt::Write;

use crate::digest::Digest;

const HEADING: &str =
    "# Written by `pipeline build`; commit it. `pipeline build --locked` fails where a digest differs.\n";

/// What the lock says of one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Locked {
    /// The key of its recipe.
    pub key: Digest,
    /// The digest of what is the same on every run of its artifact.
    pub artifact: Digest,
}

/// The whole file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lockfile {
    nodes: BTreeMap<String, Locked>,
}

impl Lockfile {
    /// Reads the text of a lock. Lines that are none of ours, such as the marks of a merge conflict, are passed
    /// over: the next build writes the node anew.
    pub fn parse(text: &str) -> Self {
        Self { nodes: text.lines().filter_map(parse_line).collect() }
    }

    /// Returns the text.
    pub fn render(&self) -> String {
        let mut text = HEADING.to_owned();
        for (node, Locked { key, artifact }) in &self.nodes {
            let _ = writeln!(text, "\"{node}\": {{key: {key}, artifact: {artifact}}}");
        }
        text
    }

    /// Returns what the lock says of `node`.
    pub fn get(&self, node: &str) -> Option<&Locked> {
        self.nodes.get(node)
    }

    /// Sets what it says of `node`.
    pub fn set(&mut self, node: &str, locked: Locked) {
        self.nodes.insert(node.to_owned(), locked);
    }

    /// Drops the nodes that the graph does not have any more.
    pub fn retain(&mut self, keep: impl Fn(&str) -> bool) {
        self.nodes.retain(|node, _| keep(node));
    }
}

fn parse_line(line: &str) -> Option<(String, Locked)> {
    let (node, rest) = line.strip_prefix('"')?.split_once("\": {key: ")?;
    let (key, rest) = rest.split_once(", artifact: ")?;
    let artifact = rest.strip_suffix('}')?;
    Some((node.to_owned(), Locked { key: key.parse().ok()?, artifact: artifact.parse().ok()? }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn survives_a_merge_conflict() {
        let mut lock = Lockfile::default();
        lock.set("b", Locked { key: Digest::of(b"1"), artifact: Digest::of(b"2") });
        lock.set("a", Locked { key: Digest::of(b"3"), artifact: Digest::of(b"4") });
        let text = lock.render();
        assert_eq!(Lockfile::parse(&text), lock);
        assert_eq!(Lockfile::parse(&format!("<<<<<<< HEAD\n{text}=======\n>>>>>>> other\n")), lock);
        assert!(text.find("\"a\"") < text.find("\"b\""));
    }
}
