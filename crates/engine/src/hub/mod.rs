//! Models on the Hugging Face hub: the commit of a revision, and the files of a commit, which are checked.
//! Knows nothing of nodes, nor of what the files mean. It is the only module that talks to the hub.

mod address;
mod cache;
mod file;
mod pauses;
mod transfer;
mod web;

pub use cache::HubCache;

use std::fs;
use std::path::Path;

use file::{belongs, has_safetensors, wanted};
use pauses::persist;
use transfer::Transfer;
use web::Web;

use crate::Error;
use crate::error::{Context, Result, require};
use crate::origin::{Commit, HubSource, Origin};
use artifact::Tick;

/// Returns the commit that the revision of a source is now. If the revision is a commit itself, the hub is
/// not asked.
///
/// # Errors
///
/// Fails if `HF_HUB_OFFLINE` is set, the hub cannot be reached, it refuses, or its answer names no commit.
pub fn resolve(cache: &HubCache, source: &HubSource) -> Result<Commit> {
    if let Some(commit) = source.commit() {
        return Ok(commit);
    }
    let web = Web::from_env()?;
    let info = persist(&|| Ok(()), || web.info(&source.repo, &source.revision))?;
    let commit = info.sha.parse();
    let commit = commit.map_err(|error| Error::Hub(format!("the hub's answer for {source}: {error}")))?;
    cache.note(source, &commit);
    Ok(commit)
}

/// Downloads the files of a commit that belong to the model into the cache, and checks all of them; returns
/// their names. Files that are already there are checked but not downloaded again.
///
/// # Errors
///
/// Fails if `HF_HUB_OFFLINE` is set, the hub cannot be reached, it refuses, or it sends other content than it
/// lists. Also fails if the cache cannot be read or written, or `tick` asks to stop.
pub fn download(cache: &HubCache, origin: &Origin, tick: Tick<'_>) -> Result<Vec<String>> {
    let web = Web::from_env()?;
    let commit = origin.commit.to_string();
    let info = persist(&|| tick(0, 0), || web.info(&origin.repo, &commit))?;
    require!(info.sha == commit, Hub, "the hub answers for {origin} with the commit {:?}", info.sha);
    let files = wanted(info).within(|| format!("cannot take {origin}"))?;
    let total = files.iter().fold(0, |sum: u64, file| sum.saturating_add(file.size));
    let mut before: u64 = 0;
    for file in &files {
        let transfer = Transfer { cache, web: &web, origin, file };
        transfer.run(&|got| tick(before.saturating_add(got), total))?;
        before = before.saturating_add(file.size);
    }
    Ok(files.into_iter().map(|file| file.name).collect())
}

/// Returns the names of the files of a commit that belong to the model and are in the cache. They may not be
/// all files of the model: the hub is not asked.
pub fn present(cache: &HubCache, origin: &Origin) -> Vec<String> {
    let mut names = Vec::new();
    list(&cache.snapshot(origin), "", &mut names);
    let safetensors = has_safetensors(names.iter().map(String::as_str));
    names.retain(|name| belongs(name, safetensors));
    names
}

/// Adds the names of all files below `folder`. What cannot be read is skipped.
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
