//! Models on the Hugging Face hub: what a revision is now, and the files of a commit, downloaded and checked.
//! Knows nothing of nodes, nor of what the files mean. The only room that goes to the network.

mod cache;
mod file;
mod pauses;
mod transfer;
mod web;

pub use cache::HubCache;

use std::fs;
use std::path::Path;

use anyhow::Context;
use file::{belongs, has_safetensors, wanted};
use pauses::persist;
use transfer::Transfer;
use web::Web;

use crate::origin::{Commit, HubSource, Origin};
use artifact::Interrupted;

/// Reports how many bytes are there, of how many; answers whether to go on.
pub type Tick<'a> = &'a dyn Fn(u64, u64) -> Result<(), Interrupted>;

/// Asks the hub which commit the revision of a source is now.
pub fn resolve(cache: &HubCache, source: &HubSource) -> anyhow::Result<Commit> {
    if let Some(commit) = source.commit() {
        return Ok(commit);
    }
    let web = Web::from_env(cache)?;
    let info = persist(&|| Ok(()), || web.info(&source.repo, &source.revision))?;
    let commit = info.sha.parse().with_context(|| format!("the hub's answer for {source}"))?;
    cache.note(source, &commit);
    Ok(commit)
}

/// Brings the files of a commit that belong to the model into the cache, and checks all of them; returns their
/// names. What is there is not downloaded again.
pub fn download(cache: &HubCache, origin: &Origin, tick: Tick<'_>) -> anyhow::Result<Vec<String>> {
    let web = Web::from_env(cache)?;
    let commit = origin.commit.to_string();
    let info = persist(&|| tick(0, 0), || web.info(&origin.repo, &commit))?;
    anyhow::ensure!(info.sha == commit, "the hub answers for {origin} with the commit {:?}", info.sha);
    let files = wanted(info).with_context(|| format!("cannot take {origin}"))?;
    let total = files.iter().fold(0, |sum: u64, file| sum.saturating_add(file.size));
    let mut before: u64 = 0;
    for file in &files {
        let transfer = Transfer { cache, web: &web, origin, file };
        transfer.run(&|got| tick(before.saturating_add(got), total))?;
        before = before.saturating_add(file.size);
    }
    Ok(files.into_iter().map(|file| file.name).collect())
}

/// Returns the names of the files of a commit that belong to the model and lie in the cache, without asking whether
/// these are all.
pub fn present(cache: &HubCache, origin: &Origin) -> Vec<String> {
    let mut names = Vec::new();
    list(&cache.snapshot(origin), "", &mut names);
    let safetensors = has_safetensors(names.iter().map(String::as_str));
    names.retain(|name| belongs(name, safetensors));
    names
}

/// What cannot be read is not there.
fn list(folder: &Path, prefix: &str, names: &mut Vec<String>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            list(&entry.path(), &format!("{name}/"), names);
        } else {
            names.push(name);
        }
    }
}
