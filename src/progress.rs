//! Three ways to show a build: plain lines, a live line per running node, or JSON lines.
//! Knows nothing of what the nodes do.

use std::collections::HashMap;
use std::io::{self, IsTerminal};
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use crate::commands::why::words;
use crate::terminal::{print_json, say};
use engine::event::{Event, Observer};
use engine::recipe::Change;
use engine::stage::{Doing, Measuring, Unit};
use protocol::Step;
use text::harmless;
use text::units::{bytes, duration, speed};

/// Returns the observer that fits the output: JSON lines if asked for, live lines on a terminal, plain lines
/// otherwise.
pub(crate) fn observer(json: bool) -> Box<dyn Observer> {
    match json {
        true => Box::new(JsonProgress),
        false if io::stderr().is_terminal() => Box::new(LiveProgress::default()),
        false => Box::new(LineProgress),
    }
}

/// One line per event, for logs.
struct LineProgress;

impl Observer for LineProgress {
    fn event(&mut self, event: &Event<'_>) {
        if let Some(line) = line(event) {
            say(&line);
        }
    }
}

/// JSON lines on standard output, for programs.
struct JsonProgress;

impl Observer for JsonProgress {
    fn event(&mut self, event: &Event<'_>) {
        let _ = print_json(event);
    }
}

/// A live line per running node, for terminals; finished nodes scroll up as plain lines.
#[derive(Default)]
struct LiveProgress {
    lines: MultiProgress,
    running: HashMap<String, ProgressBar>,
}

impl Observer for LiveProgress {
    fn event(&mut self, event: &Event<'_>) {
        match event {
            Event::Started { node, stage, .. } | Event::Submitted { node, stage, .. } => {
                self.begin(node, stage);
            }
            Event::Waiting { node, worker, reason } => {
                self.place(node, &format!("waits on {worker}: {reason}"));
            }
            Event::Running { node, worker, host } => self.place(node, &format!("runs on {worker}: {host}")),
            Event::Fetching { node, .. } => self.begin(node, "fetching"),
            Event::Sending { node } => self.begin(node, "sending"),
            // A benchmark says more of itself.
            Event::Progress { unit: Unit::Queries, .. } => {}
            Event::Progress { node, unit, done, total } => {
                if let Some(bar) = self.running.get(*node) {
                    if bar.length() != Some(*total) {
                        bar.set_length(*total);
                        bar.set_style(running_style(*unit));
                    }
                    bar.set_position(*done);
                }
            }
            Event::Measuring { node, measuring } => {
                if let Some(bar) = self.running.get(*node) {
                    bar.set_style(style("{spinner} {msg}"));
                    bar.set_message(harmless(&format!("{node}: {}", progress_of(measuring))).into_owned());
                }
            }
            Event::Built { node, .. }
            | Event::Made { node, .. }
            | Event::Failed { node, .. }
            | Event::Fetched { node, .. }
            | Event::Sent { node, .. } => {
                if let Some(bar) = self.running.remove(*node) {
                    bar.finish_and_clear();
                }
            }
            _ => {}
        }
        if !is_live(event)
            && let Some(line) = line(event)
        {
            let _ = self.lines.println(harmless(&line));
        }
    }
}

/// Whether a live line shows an event.
fn is_live(event: &Event<'_>) -> bool {
    matches!(
        event,
        Event::Started { .. }
            | Event::Submitted { .. }
            | Event::Waiting { .. }
            | Event::Running { .. }
            | Event::Fetching { .. }
    )
}

impl LiveProgress {
    /// Says where a node is.
    fn place(&self, node: &str, place: &str) {
        if let Some(bar) = self.running.get(node) {
            // What was sent may have left another style.
            bar.unset_length();
            bar.set_style(waiting_style());
            bar.set_message(harmless(place).into_owned());
        }
    }

    fn begin(&mut self, node: &str, what: &str) {
        let bar = self.lines.add(ProgressBar::new_spinner().with_style(waiting_style()));
        bar.set_prefix(node.to_owned());
        bar.set_message(what.to_owned());
        bar.enable_steady_tick(Duration::from_millis(100));
        self.running.insert(node.to_owned(), bar);
    }
}

impl Drop for LiveProgress {
    fn drop(&mut self) {
        self.running.drain().for_each(|(_, bar)| bar.finish_and_clear());
        // If the terminal is gone, nothing is left to clear.
        let _ = self.lines.clear();
    }
}

fn waiting_style() -> ProgressStyle {
    style("{prefix:12!} {spinner} {msg} {elapsed}")
}

fn running_style(unit: Unit) -> ProgressStyle {
    match unit {
        Unit::Bytes => style(
            "{prefix:12!} {bar:20} {decimal_bytes}/{decimal_total_bytes} {decimal_bytes_per_sec} {eta} left",
        ),
        Unit::Queries => style("{prefix:12!} {bar:20} {pos}/{len} queries {per_sec} {eta} left"),
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).expect("BUG: the template is a constant").progress_chars("=> ")
}

/// Describes a change in the line that says that a node runs. Damage is only mentioned there, because a
/// warning before that line describes it.
fn reason(change: &Change) -> String {
    match change {
        Change::Damaged { .. } => "its artifact is damaged".to_owned(),
        Change::CommandFailed { .. } => "its last run did not succeed".to_owned(),
        other => words(other),
    }
}

fn line(event: &Event<'_>) -> Option<String> {
    Some(match event {
        Event::Progress { .. }
        | Event::Measuring { .. }
        | Event::Sending { .. }
        | Event::Recorded { .. }
        | Event::Verifying { .. }
        | Event::Verified { .. } => return None,
        Event::Fetching { node, bytes: size } => format!("{node}: fetching {} from the remote", bytes(*size)),
        Event::Fetched { node, bytes: size, artifact } => {
            format!("{node}: fetched, {}, {}", bytes(*size), artifact.short())
        }
        Event::Sent { node, bytes: size, already_there } => sent_line(node, *size, *already_there),
        Event::Notice { message } => format!("warning: {message}"),
        Event::Started { node, changes, .. } => {
            let why: Vec<_> = changes.iter().map(reason).collect();
            format!("{node}: running ({})", why.join("; "))
        }
        Event::Submitted { node, worker, changes, .. } => {
            let why: Vec<_> = changes.iter().map(reason).collect();
            format!("{node}: given to the worker {worker} ({})", why.join("; "))
        }
        Event::Waiting { node, worker, reason } => format!("{node}: waits on {worker}: {reason}"),
        Event::Running { node, worker, host } => format!("{node}: runs on {worker}: {host}"),
        Event::Made { node, worker, host, seconds: Some(seconds) } => {
            format!("{node}: made by {worker} on {host} in {seconds:.2} s")
        }
        Event::Made { node, worker, .. } => format!("{node}: {worker} finds it in the remote"),
        Event::Built { node, stage: "base" | "adapter" | "files", bytes: size, artifact, .. } => {
            format!("{node}: checked, {} where it lies, {}", bytes(*size), artifact.short())
        }
        Event::Built { node, seconds, bytes: size, artifact, .. } => {
            format!("{node}: built in {seconds:.2} s, {}, {}", bytes(*size), artifact.short())
        }
        Event::Linked { node, edited: Some(path), .. } => {
            format!("{node}: `{path}` was changed by hand; put right from the cache")
        }
        Event::Linked { node, edited: None, .. } => format!("{node}: linked from the cache"),
        Event::Released { node, bytes: size } => {
            format!("{node}: temporary, {} removed", bytes(*size))
        }
        Event::Collected { records, bytes: size } => {
            format!("cache: {} removed with {records} records that are not current", bytes(*size))
        }
        Event::Said { node, line } => format!("{node} | {line}"),
        Event::Warning { node, message } => format!("{node}: warning: {message}"),
        Event::Failed { node, error, hint } => {
            let hint = hint.map_or_else(String::new, |hint| format!("\nhint: {hint}"));
            format!("{node}: failed: {error}{hint}")
        }
        Event::Skipped { node, because } => format!("{node}: skipped, because {because} failed"),
    })
}

/// Describes how far a benchmark is: `q8-g64 (2 of 4) · question 3/12 · reading 180/330 tokens · 1.2 t/s · ~9 min`.
fn progress_of(measuring: &Measuring) -> String {
    let Measuring { config, config_number, configs, doing, step, tokens_per_second, seconds_left } =
        measuring;
    let mut parts = vec![match configs {
        1 => config.clone(),
        _ => format!("{config} ({config_number} of {configs})"),
    }];
    parts.push(match doing {
        Doing::Loading => "loading".to_owned(),
        Doing::Question { number, count } => format!("question {number}/{count}"),
        Doing::Text { number, count } => format!("text {number}/{count}"),
    });
    parts.extend(step.map(|step| match step {
        Step::Reading(done, total) => format!("reading {done}/{total} tokens"),
        Step::Writing(done, most) => format!("writing {done}/{most} tokens"),
    }));
    parts.extend(tokens_per_second.map(speed));
    parts.extend(seconds_left.map(|seconds| format!("~{}", duration(seconds))));
    parts.join(" · ")
}

/// Describes what was sent. If only a record was sent, no size is shown.
fn sent_line(node: &str, sent: u64, already_there: u64) -> String {
    match (sent, already_there) {
        (0, _) => format!("{node}: in the remote"),
        (_, 0) => format!("{node}: sent {}", bytes(sent)),
        _ => format!("{node}: sent {}; {} were there", bytes(sent), bytes(already_there)),
    }
}
