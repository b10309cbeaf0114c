//! `pipeline keys`: makes and shows the key that signs what is made here, and adds the keys of others that
//! are trusted.
//! Knows nothing of what is signed.

use std::fs;
use std::io::{self, ErrorKind, Write};
use std::path::Path;

use anyhow::{Context, anyhow};
use clap::{Args, Subcommand};
use serde_json::json;

use crate::outcome::Outcome;
use crate::terminal::{print, print_json};
use engine::manifest::{Manifest, NotTrusted, trust};
use engine::project::{ProjectPath, read_text, usage};
use engine::sign::{self, PublicKey};

#[derive(Debug, Args)]
pub(crate) struct KeysArgs {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Make the key that signs what is made here, and print its public half
    Init,
    /// Print the public half, and what pipeline.yaml calls it
    Show {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Write a public key into pipeline.yaml: results that it signed are believed from then on
    Trust {
        /// Whose key it is; any name
        name: String,
        /// The key, as `pipeline keys show` prints it there
        key: String,
    },
    /// Sign what comes on standard input, for the `pipeline` that started this process
    #[command(hide = true)]
    Sign,
}

pub(crate) fn run(args: &KeysArgs, path: &ProjectPath) -> anyhow::Result<Outcome> {
    match &args.verb {
        Verb::Init => init(),
        Verb::Show { json } => show(*json, path),
        Verb::Trust { name, key } => add(name, key, path),
        Verb::Sign => sign(),
    }
}

/// Is the signer. Ctrl-C is for the process that started it, which then closes the pipe.
fn sign() -> anyhow::Result<Outcome> {
    ctrlc::set_handler(|| {})?;
    sign::serve(io::stdin().lock(), io::stdout().lock())?;
    Ok(Outcome::Success)
}

fn init() -> anyhow::Result<Outcome> {
    let (path, key) = sign::create()?;
    print(&format!(
        "{key}\n\nwrote the secret half to {}; it never leaves this machine.\n\
         For results of yours to be believed, this goes into pipeline.yaml:\n\n  \
         pipeline keys trust NAME {key}\n\nor by hand:\n\n  cache:\n    trusted_keys:\n      NAME: \"{key}\"\n",
        path.display()
    ))?;
    Ok(Outcome::Success)
}

fn show(json: bool, path: &ProjectPath) -> anyhow::Result<Outcome> {
    let key = sign::signer()?;
    let key = key.context("there is no signing key here; `pipeline keys init` makes one")?.public();
    let path = path.path();
    let manifest = match read_text(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        text => {
            let text = text
                .map_err(|error| engine::Error::Usage(format!("cannot read {}: {error}", path.display())))?;
            Some(Manifest::parse(&text).map_err(|problem| usage(&problem, &path, &text))?)
        }
    };
    let trusted = manifest.iter().flat_map(|manifest| &manifest.cache.trusted_keys);
    let name = trusted.into_iter().find(|one| one.key == key).map(|one| one.name.as_str());
    if json {
        print_json(&json!({"key": key, "trusted_as": name}))?;
    } else {
        print(&format!("{key}\n{}", standing(manifest.is_some(), name, &key, &path)))?;
    }
    Ok(Outcome::Success)
}

fn standing(has_file: bool, name: Option<&str>, key: &PublicKey, path: &Path) -> String {
    match name {
        Some(name) => format!("trusted in {} as `{name}`\n", path.display()),
        None if has_file => {
            format!("not trusted in {}; `pipeline keys trust NAME {key}` changes that\n", path.display())
        }
        None => String::new(),
    }
}

fn add(name: &str, key: &str, path: &ProjectPath) -> anyhow::Result<Outcome> {
    // The key is parsed here and not by clap, because clap prints what it cannot parse, and that may be a
    // secret.
    let key = key.parse().map_err(|error| engine::Error::Usage(format!("KEY is no public key: {error}")))?;
    let path = path.path();
    let shown = path.display();
    let text =
        read_text(&path).map_err(|error| engine::Error::Usage(format!("cannot read {shown}: {error}")))?;
    let edited = trust(&text, name, key).map_err(|error| match error {
        NotTrusted::File(problem) => usage(&problem, &path, &text),
        other => engine::Error::Usage(format!("{shown}: {other}")),
    })?;
    let Some(edited) = edited else {
        print(&format!("`{name}` is trusted in {shown} already\n"))?;
        return Ok(Outcome::Success);
    };
    // The cause is turned into text, so that no hint is shown: the hints for errors of the disk are about the
    // cache.
    replace(&path, &edited).map_err(|error| anyhow!("cannot write {shown}: {error}"))?;
    print(&format!("`{name}` is trusted in {shown}; it counts for others once that is committed\n"))?;
    Ok(Outcome::Success)
}

/// Replaces the text of a file and keeps its mode. At any time either the old or the new text is there.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    // If the file is a link, the file that it points at is replaced.
    let path = path.canonicalize()?;
    let folder = path.parent().unwrap_or(Path::new("/"));
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(text.as_bytes())?;
    file.as_file().set_permissions(fs::metadata(&path)?.permissions())?;
    file.as_file().sync_all()?;
    file.persist(&path)?;
    Ok(())
}
