//! The `cache` section of a pipeline file: where results are kept, where they are shared, and which keys are
//! trusted.
//! Knows nothing of whether these places exist.

use std::collections::{HashMap, HashSet};

use serde::{Deserialize, Serialize};

use crate::sign::PublicKey;
use text::units::parse_size;
use text::yaml::{Fields, Key, Problem, Tree, Value};

/// The cache folder if the file names none, relative to the file.
pub const DEFAULT_DIR: &str = "cache";

/// The URL schemes of a remote.
const REMOTES: [&str; 7] = ["file://", "s3://", "gs://", "az://", "azure://", "abfs://", "abfss://"];

/// The `cache` section, with defaults filled in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cache {
    /// The cache folder, relative to the file.
    pub dir: String,
    /// The URL of the remote.
    pub remote: Option<String>,
    /// The keys whose results are accepted from the remote, in the order written.
    pub trusted_keys: Vec<TrustedKey>,
    /// Whether contents are compressed before they are uploaded.
    pub compress: bool,
    /// How many bytes the contents may take, if a build is to remove what is not current.
    pub max_size: Option<u64>,
}

/// A key whose signatures are trusted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrustedKey {
    /// The name of its owner in the file.
    pub name: String,
    /// The key.
    pub key: PublicKey,
}

impl Default for Cache {
    fn default() -> Self {
        Self {
            dir: DEFAULT_DIR.to_owned(),
            remote: None,
            trusted_keys: Vec::new(),
            compress: false,
            max_size: None,
        }
    }
}

/// Reads the value of `cache`.
pub(super) fn read(tree: Tree) -> Result<Cache, Problem> {
    let mut fields = Fields::open(tree, "`cache`")?;
    let dir = fields.optional_text("dir")?.map_or_else(|| DEFAULT_DIR.to_owned(), |(path, _)| path);
    let remote = read_remote(&mut fields)?;
    let trusted_keys = fields.take("trusted_keys").map_or_else(|| Ok(Vec::new()), read_keys)?;
    let compress = fields.flag("compress")?;
    let max_size = fields.optional_text("max_size")?;
    let max_size = max_size.map(|(text, at)| parse_size(&text).map_err(|message| Problem::new(at, message)));
    fields.finish()?;
    Ok(Cache { dir, remote, trusted_keys, compress, max_size: max_size.transpose()? })
}

/// Reads a file that holds only trusted keys: a mapping as the value of `trusted_keys`.
///
/// # Errors
/// Fails if the text is not valid YAML, or not such a mapping.
pub fn read_trusted_keys(text: &str) -> Result<Vec<TrustedKey>, Problem> {
    read_keys(Tree::parse(text)?)
}

fn read_remote(fields: &mut Fields) -> Result<Option<String>, Problem> {
    let Some((address, at)) = fields.optional_text("remote")? else { return Ok(None) };
    match REMOTES.iter().find_map(|scheme| address.strip_prefix(scheme)) {
        Some("") => Err(Problem::new(at, format!("`{address}` names no place"))),
        Some(_) => Ok(Some(address)),
        None => {
            let known = REMOTES.join(", ");
            Err(Problem::new(at, format!("`remote` must begin with one of {known}; `{address}` does not")))
        }
    }
}

fn read_keys(tree: Tree) -> Result<Vec<TrustedKey>, Problem> {
    let entries = Fields::open(tree, "`trusted_keys`")?.rest();
    let keys = entries.into_iter().map(|(name, tree)| read_key(&name, tree).map(|key| (name, key)));
    let keys: Vec<(Key, PublicKey)> = keys.collect::<Result<_, _>>()?;
    let mut names = HashSet::new();
    let mut owners = HashMap::new();
    for (name, key) in &keys {
        if !names.insert(&name.text) {
            return Err(Problem::new(name.at, format!("the key `{}` is written twice", name.text)));
        }
        if let Some(owner) = owners.insert(key, &name.text) {
            let message = format!("the key of `{}` is that of `{owner}`: leave one of them out", name.text);
            return Err(Problem::new(name.at, message));
        }
    }
    Ok(keys.into_iter().map(|(name, key)| TrustedKey { name: name.text, key }).collect())
}

/// Checks the name of a key's owner.
pub(super) fn check_owner(name: &str) -> Result<(), String> {
    let plain = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '.' | '+' | '@');
    if name.is_empty() || !name.chars().all(plain) {
        let rule = "use letters, digits, `-`, `_`, `+`, `.` and `@`";
        return Err(format!("`{}` cannot name a key: {rule}", name.escape_debug()));
    }
    Ok(())
}

/// Reads a public key. Problems do not show the text, because it may be a secret key.
fn read_key(name: &Key, tree: Tree) -> Result<PublicKey, Problem> {
    check_owner(&name.text).map_err(|message| Problem::new(name.at, message))?;
    match &tree.value {
        Value::Text(text) => text.parse().map_err(|error| {
            Problem::new(tree.at, format!("the value of `{}` is no public key: {error}", name.text))
        }),
        _ => Err(Problem::new(tree.at, format!("`{}` must be a text, not {}", name.text, tree.kind()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sign::SecretKey;

    fn cache(text: &str) -> Result<Cache, String> {
        read(Tree::parse(text).unwrap()).map_err(|problem| problem.to_string())
    }

    fn key() -> String {
        // RFC 8032, section 7.1, test 1.
        "ed25519:11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=".to_owned()
    }

    #[test]
    fn what_is_left_out_has_a_default() {
        assert_eq!(cache("{dir: cache, remote: null, trusted_keys: {}}"), Ok(Cache::default()));
        assert_eq!(cache("{trusted_keys: ~, compress: false}"), Ok(Cache::default()));
    }

    #[test]
    fn all_of_it() {
        let other = SecretKey::generate().unwrap().public();
        let text = format!(
            "{{dir: d, remote: s3://bucket/prefix, trusted_keys: {{z@a.b: \"{}\", 8: \"{other}\"}}, compress: true, max_size: 200GB}}",
            key()
        );
        let trusted = |name: &str, key: PublicKey| TrustedKey { name: name.to_owned(), key };
        let expected = Cache {
            dir: "d".to_owned(),
            remote: Some("s3://bucket/prefix".to_owned()),
            trusted_keys: vec![trusted("z@a.b", key().parse().unwrap()), trusted("8", other)],
            compress: true,
            max_size: Some(200_000_000_000),
        };
        assert_eq!(cache(&text).as_ref(), Ok(&expected));
        let bytes = postcard::to_stdvec(&expected).unwrap();
        assert_eq!(postcard::from_bytes::<Cache>(&bytes).unwrap(), expected);
    }

    #[test]
    fn says_what_and_where() {
        let wrong = |text: &str| cache(text).unwrap_err();
        assert_eq!(
            wrong("dir: d\nremote: https://x"),
            "2:9: `remote` must begin with one of file://, s3://, gs://, az://, azure://, abfs://, abfss://; \
             `https://x` does not"
        );
        assert_eq!(wrong("remote: s3://"), "1:9: `s3://` names no place");
        assert_eq!(wrong("remot: s3://"), "1:1: unknown key `remot` in `cache`; did you mean `remote`?");
        assert_eq!(wrong("compress: yes please"), "1:11: `compress` must be true or false, not a text");
        assert_eq!(wrong("trusted_keys: [a]"), "1:15: `trusted_keys` must be a map, not a list");
        assert_eq!(wrong("trusted_keys: {ana: 1}"), "1:21: `ana` must be a text, not a number");
        assert_eq!(
            wrong("trusted_keys:\n  ana: rsa:hush"),
            "2:8: the value of `ana` is no public key: a public key begins with `ed25519:`"
        );
        assert_eq!(
            wrong("trusted_keys:\n  ana: ed25519:hush"),
            "2:8: the value of `ana` is no public key: after `ed25519:` come 32 bytes in base64, which are 44 characters"
        );
        assert!(wrong("trusted_keys: {ana: ed25519-secret:hush}").contains("this is a secret key"));
        assert!(wrong("max_size: 200").starts_with("1:11: expected a whole number and a unit"));
        assert!(wrong("trusted_keys: {a b: x}").contains("1:16: `a b` cannot name a key"));
        assert_eq!(
            wrong(&format!("trusted_keys:\n  ana: {0}\n  ci: {0}", key())),
            "3:3: the key of `ci` is that of `ana`: leave one of them out"
        );
    }
}
