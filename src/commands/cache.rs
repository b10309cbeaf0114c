//! `pipeline cache`: shows what is in the cache, what it saves, and how often it was hit; allows a cache that
//! others filled.
//! Knows nothing of how that is counted.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde_json::json;

use crate::commands::gc::count;
use crate::outcome::Outcome;
use crate::terminal::{print, print_json};
use engine::project::{Project, ProjectPath};
use engine::store::{Counters, Totals, allow};
use text::units::bytes;

#[derive(Debug, Args)]
pub(crate) struct CacheArgs {
    #[command(subcommand)]
    verb: CacheVerb,
}

#[derive(Debug, Subcommand)]
enum CacheVerb {
    /// Show how much is in the cache, what it saves, and how often it was hit
    Stats {
        /// Print a JSON line
        #[arg(long)]
        json: bool,
    },
    /// Use a cache although git tracks it or another user owns it
    Allow {
        /// The folder of the cache
        #[arg(value_name = "DIR", default_value = "cache")]
        cache: PathBuf,
    },
}

pub(crate) fn run(args: &CacheArgs, path: &ProjectPath) -> anyhow::Result<Outcome> {
    match &args.verb {
        CacheVerb::Stats { json } => stats(*json, path),
        CacheVerb::Allow { cache } => allow_cache(cache, path),
    }
}

fn allow_cache(folder: &Path, path: &ProjectPath) -> anyhow::Result<Outcome> {
    let folder = path.folder.as_ref().map_or_else(|| folder.to_owned(), |root| root.join(folder));
    let list = allow(&folder)?;
    print(&format!("{} is allowed; the list is {}\n", folder.display(), list.display()))?;
    Ok(Outcome::Success)
}

fn stats(json: bool, path: &ProjectPath) -> anyhow::Result<Outcome> {
    let project = Project::open(path)?;
    let store = project.store();
    let (totals, counters) = (store.totals()?, store.counters());
    if json {
        let Totals { objects, bytes, records, saved } = totals;
        print_json(&json!({
            "objects": objects, "bytes": bytes, "records": records, "saved_bytes": saved, "builds": counters,
        }))?;
    } else {
        print(&text(&totals, &counters))?;
    }
    Ok(Outcome::Success)
}

fn text(totals: &Totals, counters: &Counters) -> String {
    let (objects, records) = (count(totals.objects, "object"), count(totals.records, "record"));
    let mut text = format!("{objects}, {}, named by {records}\n", bytes(totals.bytes));
    let saved = bytes(totals.saved);
    let _ = writeln!(
        text,
        "{saved} saved: what it would take in addition if each record had its files for itself"
    );
    let Counters { local_hits, remote_hits, misses, .. } = counters;
    let _ =
        writeln!(text, "builds: {local_hits} from this cache, {remote_hits} from the remote, {misses} run");
    let moved = [counters.bytes_fetched, counters.bytes_sent, counters.bytes_not_sent];
    if moved != [0; 3] {
        let [fetched, sent, not_sent] = moved.map(bytes);
        let _ =
            writeln!(text, "remote: {fetched} fetched, {sent} sent, {not_sent} not sent because it had them");
    }
    text
}
