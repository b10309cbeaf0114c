//! `pipeline cache`: shows what is in the cache, what it saves, and how often it was hit.
//! Knows nothing of how that is counted.

use std::fmt::Write;

use clap::{Args, Subcommand};
use serde_json::json;

use crate::commands::gc::count;
use crate::outcome::Outcome;
use crate::terminal::{print, print_json};
use engine::project::{Project, ProjectPath};
use engine::store::{Counters, Totals};
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
}

pub(crate) fn run(args: &CacheArgs, path: &ProjectPath) -> anyhow::Result<Outcome> {
    let CacheVerb::Stats { json } = args.verb;
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
