//! `pipeline.lock`: for each node, the recipe key and the artifact digest of its last build. Users commit it.
//! Knows nothing of how an artifact is made.
//!
//! The lines are sorted, one per node, so that two branches merge line by line. The file is also YAML, for
//! other programs: `"8bit": {key: …, artifact: …}`. A source on the hub adds `commit: …, source: "hf:…"`: the
//! commit, and the source that it was resolved from. As long as the pipeline file names the same source,
//! builds use this commit.

use std::collections::BTreeMap;
use std::fmt::Write;

use crate::origin::Commit;
use artifact::Digest;

const HEADING: &str =
    "# Written by `pipeline build`; commit it. `pipeline build --locked` fails where a digest differs.\n";

/// The entry of one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Locked {
    /// The key of its recipe.
    pub key: Digest,
    /// The reproducible digest of its artifact, which leaves out volatile files.
    pub artifact: Digest,
    /// The commit of its source, if the source is on the hub.
    pub pin: Option<Pin>,
}

/// A source on the hub, and the commit that it is pinned to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pin {
    /// The commit.
    pub commit: Commit,
    /// The source as `hf:ORG/NAME@REVISION`.
    pub source: String,
}

/// The whole file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lockfile {
    /// The name of the file, for messages.
    name: String,
    nodes: BTreeMap<String, Locked>,
    has_strays: bool,
}

impl Lockfile {
    /// Returns an empty lock for the file called `name`.
    pub fn new(name: &str) -> Self {
        Self { name: name.to_owned(), ..Self::default() }
    }

    /// Parses the text of the lock called `name`. Other lines, such as the markers of a merge conflict, are
    /// skipped; the next build writes the file again.
    pub fn parse(name: &str, text: &str) -> Self {
        let mut lock = Self::new(name);
        for line in text.lines() {
            match parse_line(line) {
                Some((node, locked)) => lock.has_strays |= lock.nodes.insert(node, locked).is_some(),
                None => lock.has_strays |= !line.is_empty() && !line.starts_with('#'),
            }
        }
        lock
    }

    /// Returns the name of the file.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether the text had unknown lines, or two lines for one node. Then it must be written again.
    pub fn has_strays(&self) -> bool {
        self.has_strays
    }

    /// Returns the text.
    pub fn render(&self) -> String {
        let mut text = HEADING.to_owned();
        for (node, Locked { key, artifact, pin }) in &self.nodes {
            let _ = write!(text, "\"{node}\": {{key: {key}, artifact: {artifact}");
            if let Some(Pin { commit, source }) = pin {
                let _ = write!(text, ", commit: {commit}, source: \"{source}\"");
            }
            text += "}\n";
        }
        text
    }

    /// Returns the entry of `node`.
    pub fn get(&self, node: &str) -> Option<&Locked> {
        self.nodes.get(node)
    }

    /// Returns the keys of all nodes.
    pub fn keys(&self) -> impl Iterator<Item = Digest> {
        self.nodes.values().map(|locked| locked.key)
    }

    /// Sets the entry of `node`.
    pub fn set(&mut self, node: &str, locked: Locked) {
        self.nodes.insert(node.to_owned(), locked);
    }

    /// Drops the entries of all nodes for which `keep` returns false.
    pub fn retain(&mut self, keep: impl Fn(&str) -> bool) {
        self.nodes.retain(|node, _| keep(node));
    }
}

fn parse_line(line: &str) -> Option<(String, Locked)> {
    let (node, rest) = line.strip_prefix('"')?.split_once("\": {key: ")?;
    let (key, rest) = rest.split_once(", artifact: ")?;
    let rest = rest.strip_suffix('}')?;
    let (artifact, pin) = match rest.split_once(", commit: ") {
        Some((artifact, pin)) => (artifact, Some(parse_pin(pin)?)),
        None => (rest, None),
    };
    Some((node.to_owned(), Locked { key: key.parse().ok()?, artifact: artifact.parse().ok()?, pin }))
}

fn parse_pin(text: &str) -> Option<Pin> {
    let (commit, source) = text.split_once(", source: \"")?;
    Some(Pin { commit: commit.parse().ok()?, source: source.strip_suffix('"')?.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn survives_a_merge_conflict() {
        let mut lock = Lockfile::default();
        let commit = "1".repeat(40).parse().unwrap();
        let pin = Some(Pin { commit, source: "hf:org/name@main".to_owned() });
        lock.set("b", Locked { key: Digest::of(b"1"), artifact: Digest::of(b"2"), pin });
        lock.set("a", Locked { key: Digest::of(b"3"), artifact: Digest::of(b"4"), pin: None });
        let text = lock.render();
        assert_eq!(Lockfile::parse("", &text), lock);
        let conflict = Lockfile::parse("", &format!("<<<<<<< HEAD\n{text}=======\n>>>>>>> other\n"));
        assert_eq!((conflict.nodes, conflict.has_strays), (lock.nodes, true));
        assert!(text.find("\"a\"") < text.find("\"b\""));
    }

    #[test]
    fn a_line_of_a_folder_is_as_it_always_was() {
        let digest = Digest::of(b"");
        let mut lock = Lockfile::default();
        lock.set("a", Locked { key: digest, artifact: digest, pin: None });
        let line = format!("\"a\": {{key: {digest}, artifact: {digest}}}\n");
        assert_eq!(lock.render().strip_prefix(HEADING), Some(line.as_str()));
    }
}
