//! Nodes on this machine: each stage runs on a thread of its own, which only sends messages to the owner.
//! Knows nothing of workers, nor of what follows when a stage has ended.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, Scope};
use std::time::{Duration, Instant};

use super::task::Download;
use super::{Listeners, Message, NodeState, Scheduler, Task, execute};
use crate::error::{OrBug, Result, require};
use crate::event::Event;
use crate::graph::NodeId;
use crate::plan::Planner;
use crate::recipe::Change;
use crate::stage::{FILE_ROLE, Measuring};
use crate::{Error, inputs};
use artifact::Interrupted;

/// How many lines of commands may wait to be told.
const LINES: usize = 1000;

/// How long a command waits until its line is told. After that, the line is left out.
const LONGEST_WAIT: Duration = Duration::from_secs(1);

impl<'a: 'p, 'p> Scheduler<'a, 'p> {
    /// Starts a stage on a thread of its own.
    pub(super) fn start<'s>(&mut self, id: NodeId, scope: &'s Scope<'s, 'a>) -> Result<()>
    where
        'p: 's,
    {
        let task = match self.task(id) {
            Ok(task) => task,
            Err(error) => return self.given_up(id, &error),
        };
        let decision = self.decisions.get(&id).or_bug("a queued node was decided on")?;
        let node = self.planner.graph.node(id);
        for change in &decision.changes {
            if let Change::Damaged { problem } = change {
                let message = format!("{problem}; it is built again");
                self.observer.event(&Event::Warning { node: &node.name, message });
            }
        }
        let (stage, changes) = (node.stage.word(), decision.changes.as_slice());
        self.observer.event(&Event::Started { node: &node.name, stage, changes });
        self.set(id, NodeState::Running);
        let Planner { store, share, backend, records, .. } = self.planner;
        let computed_with = (backend, self.options.worker);
        let (sender, cancel) = (self.sender.clone(), self.options.cancel);
        let (is_verbose, lines) = (self.options.verbose, Arc::clone(&self.lines));
        let started = artifact::start(scope, move || {
            let line = |line: &str| {
                if is_verbose && has_room(&lines) {
                    let _ = sender.send(Message::Said(id, line.to_owned()));
                }
            };
            let tick = |done, total| {
                // The owner outlives the stages, and a lost message does no harm.
                let _ = sender.send(Message::Progress(id, done, total));
                if cancel.load(Ordering::Relaxed) { Err(Interrupted) } else { Ok(()) }
            };
            let tell = |measuring: &Measuring| {
                let _ = sender.send(Message::Measuring(id, measuring.clone()));
                if cancel.load(Ordering::Relaxed) { Err(Interrupted) } else { Ok(()) }
            };
            let listeners = Listeners { tick: &tick, tell: &tell, line: &line };
            let run = AssertUnwindSafe(|| execute(&task, store, records, share, computed_with, listeners));
            let outcome = catch_unwind(run)
                .unwrap_or_else(|_| Err(Error::Bug("the stage panicked; see above".to_owned())));
            let _ = sender.send(Message::Ended(id, outcome));
        });
        match started {
            Ok(_) => Ok(()),
            Err(error) => self.ended(id, Err(Error::no_thread(&error))),
        }
    }

    /// Returns what the thread of a stage needs.
    fn task(&mut self, id: NodeId) -> Result<Task> {
        let artifacts = &self.artifacts;
        let inputs = inputs::find(&mut self.planner, id, &|input| artifacts.get(&input))?;
        let decision = self.decisions.get(&id).or_bug("a queued node was decided on")?;
        let recipe = decision.recipe.clone().or_bug("a queued node has a recipe")?;
        for (name, (_, digest)) in &inputs.project_files {
            let is_planned = recipe.input(&format!("{FILE_ROLE}{name}")) == Some(*digest);
            require!(is_planned, Source, "`{name}` was changed while the build ran; build again");
        }
        let Planner { graph, sources, .. } = &self.planner;
        let download = sources.own_origin(graph, id).map(|origin| Download {
            cache: sources.cache().clone(),
            origin,
            content: sources.content(id),
        });
        Ok(Task {
            stage: graph.node(id).stage.clone(),
            inputs,
            recipe,
            source_files: decision.source_files.clone(),
            download,
            rerun: !decision.changes.is_empty() && decision.artifact.is_some(),
            forced: decision.changes.contains(&Change::Forced),
        })
    }
}

/// Counts one more line, if there is room for it or comes up soon.
fn has_room(lines: &AtomicUsize) -> bool {
    let start = Instant::now();
    while lines.load(Ordering::Relaxed) >= LINES {
        if start.elapsed() > LONGEST_WAIT {
            return false;
        }
        thread::sleep(Duration::from_millis(1));
    }
    lines.fetch_add(1, Ordering::Relaxed);
    true
}
