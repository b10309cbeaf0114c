//! Takes in what a command has left in its `{out}`: regular files, hashed and synced. Nothing is followed out of the
//! folder.
//! Knows nothing of what the files are.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use glob::{MatchOptions, Pattern};

use super::scratch::Scratch;
use super::{OUT, Run};
use crate::error::{Error, Result, fail, require};
use artifact::{Artifact, AtPath, Digest, FileEntry, Output};

/// The most files that a command may make.
const MOST_FILES: usize = 1 << 20;

/// How deep its folders may be.
const DEEPEST: usize = 128;

/// How many files a message lists.
const SHOWN: usize = 8;

/// The name of a copy while it is made.
const COPY: &str = "pipeline-copy";

/// A `*` stays within one name, as in a shell; `**` does not.
const MATCHING: MatchOptions = MatchOptions {
    case_sensitive: true,
    require_literal_separator: true,
    require_literal_leading_dot: false,
};

/// Moves the files that match one of `patterns` into the folder of `output`, and lists them there. Without patterns,
/// all files are taken but those whose names begin with a dot.
pub(super) fn take(scratch: &Scratch, parameters: &Run, output: &Output) -> Result<()> {
    let out = scratch.out();
    let metadata = fs::symlink_metadata(&out);
    require!(
        metadata.is_ok_and(|metadata| metadata.is_dir()),
        Command,
        "the command left no folder {{out}}; what it makes goes there"
    );
    let patterns: Vec<_> = parameters.outputs.iter().filter_map(|text| Pattern::new(text).ok()).collect();
    let mut found = files_below(&out)?;
    for pattern in &patterns {
        let (text, is_met) =
            (pattern.as_str(), found.iter().any(|path| pattern.matches_with(path, MATCHING)));
        let has_folder = |path: &String| {
            path.match_indices('/')
                .any(|(end, _)| path.get(..end).is_some_and(|part| pattern.matches_with(part, MATCHING)))
        };
        let hint = if found.iter().any(has_folder) {
            format!("; it matches a folder, whose files are `{text}/**`")
        } else {
            String::new()
        };
        require!(
            is_met,
            Command,
            "no file in {{out}} matches `{text}` of `outputs`: {{out}} has {}{hint}",
            listed(&found)
        );
    }
    let is_wanted = |path: &String| match patterns.is_empty() {
        true => path.split('/').all(|part| !part.starts_with('.')),
        false => patterns.iter().any(|pattern| pattern.matches_with(path, MATCHING)),
    };
    found.retain(is_wanted);
    let is_named = parameters.templates().iter().any(|template| template.names().any(|name| name == OUT));
    let hint = if is_named { "" } else { ", and it does not name it" };
    require!(
        !found.is_empty(),
        Command,
        "the command left no file in {{out}}; what it makes goes there{hint}"
    );
    let files = found.into_iter().map(|path| take_file(scratch, &out, path)).collect::<Result<Vec<_>>>()?;
    let artifact = Artifact::new(files);
    artifact.check().map_err(|problem| Error::Command(format!("what the command made: {problem}")))?;
    // The folder of the output is there, and empty.
    fs::rename(&out, output.folder()).at("move", &out)?;
    output.accept(&artifact);
    Ok(())
}

/// Returns the paths of the files below `folder`, sorted. A link counts as a file.
pub(super) fn files_below(folder: &Path) -> Result<Vec<String>> {
    let mut found = Vec::new();
    list(folder, "", &mut found)?;
    found.sort();
    Ok(found)
}

fn list(folder: &Path, prefix: &str, found: &mut Vec<String>) -> Result<()> {
    for entry in fs::read_dir(folder).at("read", folder)? {
        let entry = entry.at("read", folder)?;
        let name = entry.file_name();
        let Some(name) = name.to_str() else {
            fail!(Command, "the command made a file whose name is not UTF-8: {}", name.to_string_lossy())
        };
        let path = format!("{prefix}{name}");
        require!(found.len() < MOST_FILES, Command, "the command made more than {MOST_FILES} files");
        match entry.file_type().at("read", &entry.path())?.is_dir() {
            true => {
                let depth = path.matches('/').count();
                require!(
                    depth < DEEPEST,
                    Command,
                    "the command made folders {DEEPEST} levels deep; move its files up"
                );
                list(&entry.path(), &format!("{path}/"), found)?;
            }
            false => found.push(path),
        }
    }
    Ok(())
}

/// Hashes and syncs a file. A link to a file that is made or that is an input becomes that file, and so does a second
/// name of a file: what is stored is nobody else's.
fn take_file(scratch: &Scratch, out: &Path, path: String) -> Result<FileEntry> {
    let file = out.join(&path);
    let metadata = fs::symlink_metadata(&file).at("read", &file)?;
    if metadata.is_symlink() {
        let target = file.canonicalize().at("follow the link", &file)?;
        let whole = out.canonicalize().at("find", out)?;
        require!(
            target.starts_with(whole) || scratch.is_of_an_input(&target),
            Command,
            "the command made `{path}` a link out of {{out}}, to {}; copy the file",
            target.display()
        );
        require!(target.is_file(), Command, "the command made `{path}` a link to a folder; copy the folder");
        copy(scratch, &target, &file)?;
    } else {
        require!(metadata.is_file(), Command, "the command made `{path}`, which is not a regular file");
        if metadata.nlink() > 1 {
            copy(scratch, &file, &file)?;
        }
    }
    let (digest, size) = Digest::of_file(&file).at("read", &file)?;
    File::open(&file).and_then(|file| file.sync_all()).at("sync", &file)?;
    Ok(FileEntry { digest, path, size, volatile: false })
}

/// Puts a copy of `from` in the place of `to`.
fn copy(scratch: &Scratch, from: &Path, to: &Path) -> Result<()> {
    let unfinished = scratch.temporary().join(COPY);
    fs::copy(from, &unfinished).at("copy", from)?;
    fs::rename(&unfinished, to).at("put in place", to)?;
    Ok(())
}

/// Lists the first of these files in words.
pub(super) fn listed(found: &[String]) -> String {
    if found.is_empty() {
        return "nothing".to_owned();
    }
    let names: Vec<_> = found.iter().take(SHOWN).map(|path| format!("`{}`", text::shown(path))).collect();
    let more = found.len().saturating_sub(SHOWN);
    let more = if more == 0 { String::new() } else { format!(" and {more} more") };
    format!("{}{more}", names.join(", "))
}
