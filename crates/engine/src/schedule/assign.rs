//! Nodes on workers, as the owner sees them: what a worker is asked for, and what follows from what it reports.
//! Knows nothing of executors. A worker's record is fetched and believed as any other of the team.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::channel;
use std::thread::Scope;

use super::driver::{Assignment, Driver, Note, Publisher, Report};
use super::{NodeState, Scheduler, place_of};
use crate::error::{OrBug, Result, fail, require};
use crate::event::Event;
use crate::executor::Heard;
use crate::graph::NodeId;
use crate::plan::{Decision, Planner, policy_here};
use crate::recipe::Change;
use crate::request::{Details, Given, GivenSource, WorkRequest};
use crate::stage::{FILE_ROLE, Stage, Unit};
use crate::{Error, inputs};
use artifact::{Artifact, Digest, FileEntry, in_one_line};
use text::harmless;

/// What a worker has made.
pub(super) struct Worked {
    /// The name of the worker.
    worker: String,
}

impl Worked {
    /// Returns the error for a node whose worker has made it, and whose record cannot be used.
    pub(super) fn refused(&self) -> Error {
        Error::Worker(format!(
            "the worker `{}` made it, but its record is not in the remote, or is not used, as a warning says; a worker signs with \
             its own key, which `cache: {{trusted_keys: …}}` must name",
            self.worker
        ))
    }
}

impl<'a: 'p, 'p> Scheduler<'a, 'p> {
    /// Hands a node to its worker.
    pub(super) fn assign<'s>(&mut self, id: NodeId, number: usize, scope: &'s Scope<'s, 'a>) -> Result<()>
    where
        'p: 's,
    {
        let assignment = match self.assignment(id) {
            Ok(assignment) => assignment,
            Err(error) => return self.given_up(id, &error),
        };
        let decision = self.decisions.get(&id).or_bug("a queued node was decided on")?;
        let node = self.planner.graph.node(id);
        let crew = self.options.crews.get(number).or_bug("a placed node has a worker")?;
        let (name, worker) = (&node.name, &crew.name);
        let (stage, changes) = (node.stage.word(), decision.changes.as_slice());
        self.observer.event(&Event::Submitted { node: name, worker, stage, changes });
        self.set(id, NodeState::Running);
        let share = self.planner.share.or_bug("a worker has a remote")?;
        let seat = self.seats.workers.get_mut(number).or_bug("a worker has a seat")?;
        if seat.assignments.is_none() {
            let (queue, receiver) = channel();
            let (ready, published) = channel();
            let (store, cancel) = (self.planner.store, self.options.cancel);
            let (leaving, messages) = (Arc::clone(&self.leaving_workers), self.sender.clone());
            let (own_leaving, own_messages) = (Arc::clone(&leaving), messages.clone());
            let driver = Driver::new(crew, share, store, cancel, leaving, messages);
            let started = artifact::start(scope, move || driver.run(&published)).and_then(|_| {
                artifact::start(scope, move || {
                    let (leaving, messages) = (&*own_leaving, own_messages);
                    Publisher { share, store, cancel, leaving, messages }.run(&receiver, &ready);
                })
            });
            if let Err(error) = started {
                return self.reported(id, Report::Failed(Error::no_thread(&error)));
            }
            seat.assignments = Some(queue);
        }
        // The driver ends after its queue.
        if let Some(queue) = &seat.assignments {
            let _ = queue.send(assignment);
        }
        Ok(())
    }

    /// Returns what the worker of a node is asked for.
    fn assignment(&mut self, id: NodeId) -> Result<Assignment> {
        let decision = self.decisions.get(&id).or_bug("a queued node was decided on")?;
        let recipe = decision.recipe.as_ref().or_bug("a queued node has a recipe")?;
        let Planner { graph, sources, store, .. } = &self.planner;
        let node = graph.node(id);
        let mut request = WorkRequest::new(&node.name, recipe);
        let mut contents: Vec<(FileEntry, PathBuf)> = Vec::new();
        for (input, from) in graph.edges(id) {
            let artifact = self.artifacts.get(&from).or_bug("the inputs of a started node are made")?;
            let source = sources.path(graph, from).filter(|_| graph.node(from).stage.is_reference());
            let is_file = source.as_ref().is_some_and(|source| source.is_file());
            let given = Given { artifact: artifact.clone(), path: input.path.clone(), is_file };
            if let Some(problem) =
                input.path.as_ref().and_then(|path| inputs::nothing_at(artifact, path, &input.node))
            {
                fail!(Source, "{problem}");
            }
            let place = |file: &FileEntry| (file.clone(), place_of(store, source.as_deref(), file));
            contents.extend(given.files().map(place));
            request.inputs.insert(input.role.clone(), given);
        }
        if let Some((source, artifact)) = sources.path(graph, id).zip(decision.source_files.as_ref()) {
            let name = source.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            artifact.check().map_err(|problem| {
                let how = "a worker gets only files beside the suite or below it";
                Error::Source(format!("the files of {}: {problem}; {how}", source.display()))
            })?;
            let folder = source.parent().unwrap_or(&source).to_owned();
            contents.extend(artifact.files().iter().map(|file| (file.clone(), folder.join(&file.path))));
            request.source = Some(GivenSource { name, artifact: artifact.clone() });
        }
        for (name, path) in sources.project_files(id) {
            let digest =
                recipe.input(&format!("{FILE_ROLE}{name}")).or_bug("a file of a command is in its recipe")?;
            let size = path.metadata().map_or(0, |metadata| metadata.len());
            let file = FileEntry { digest, path: name.to_owned(), size, volatile: false };
            contents.push((file.clone(), path.to_owned()));
            request.project_files.insert(name.to_owned(), file);
        }
        let artifacts = &self.artifacts;
        match &node.stage {
            Stage::Run(run) => request.details = Some(Details::of(run)),
            Stage::Benchmark(_) => {
                request.about = inputs::about(&self.planner, id, &|input| artifacts.get(&input));
            }
            _ => {}
        }
        request.may_quote = sources.is_of_the_project(id);
        request.again = is_made_again(decision) || self.lost_in_remote.contains(&id);
        contents.retain(|(file, _)| !self.in_remote.contains(&file.digest));
        let note = self.notes.remove(&request.key);
        Ok(Assignment { id, request, contents, policy: policy_here(graph, id), note })
    }

    /// Handles what a worker says of a node.
    pub(super) fn reported(&mut self, id: NodeId, report: Report) -> Result<()> {
        let graph = self.planner.graph;
        let node = &graph.node(id).name;
        let number = graph.placed(id).or_bug("a worker makes the nodes that are placed on it")?;
        let worker = &self.options.crews.get(number).or_bug("a placed node has a worker")?.name;
        match report {
            Report::Sends(done, total) => {
                self.observer.event(&Event::Progress { node, unit: Unit::Bytes, done, total });
            }
            Report::Waits(reason) => {
                self.observer.event(&Event::Waiting { node, worker, reason: &harmless(&reason) });
            }
            Report::Runs(host) => {
                self.observer.event(&Event::Running { node, worker, host: &harmless(&host) });
            }
            Report::Heard(Heard::Progress { done, total }) => self.progress(id, done, total),
            Report::Heard(Heard::Measuring(measuring)) => {
                self.observer.event(&Event::Measuring { node, measuring: &measuring });
            }
            Report::Heard(Heard::Said(line)) if self.options.verbose => {
                self.observer.event(&Event::Said { node, line: line.replace('\n', " ") });
            }
            Report::Heard(_) => {}
            Report::Made { host, seconds, warnings } => {
                self.slots(id).leave();
                let decision = self.decisions.remove(&id).or_bug("a running node was decided on")?;
                self.observer.event(&Event::Made { node, worker, host: &harmless(&host), seconds });
                for message in warnings {
                    self.observer.event(&Event::Warning { node, message: indented(&message) });
                }
                self.worked.insert(id, Worked { worker: worker.clone() });
                self.planner.request.force.remove(&id);
                let share = self.planner.share.or_bug("a worker has a remote")?;
                share.ask_again(&decision.key.or_bug("a running node has a recipe")?);
                self.set(id, NodeState::Waiting(0));
                self.ready.push_back(id);
            }
            Report::Failed(error) => {
                self.given_up(id, &Error::Worker(indented(&in_one_line(&error))))?;
            }
            Report::Left(is_left) => {
                self.slots(id).leave();
                self.decisions.remove(&id);
                self.summary.left.extend(is_left.then_some(id));
                self.set(id, NodeState::Waiting(0));
            }
            Report::Interrupted => {
                self.slots(id).leave();
                self.decisions.remove(&id);
                self.summary.interrupted = true;
                self.set(id, NodeState::Waiting(0));
            }
        }
        Ok(())
    }

    /// Removes the note of an earlier build on a node that is done without it: its job ended while no build was there.
    pub(super) fn forget_note(&mut self, id: NodeId, key: &Digest) {
        let Some(note) = self.notes.remove(key) else { return };
        self.planner.store.remove_job_note(key);
        let crew = self.planner.graph.placed(id).and_then(|number| self.options.crews.get(number));
        if let Some((crew, note)) =
            crew.zip(Note::read(&note)).filter(|(crew, note)| crew.name == note.worker)
        {
            crew.executor.clean(&[note.attempt]);
        }
    }

    /// Leaves the workers alone, if only they have something to do. Each job reports whether it goes on.
    pub(super) fn leave_workers(&mut self) {
        if self.options.detach && self.seats.running_here() + self.remote.running() == 0 {
            self.leaving_workers.store(true, Ordering::Relaxed);
        }
    }

    /// Whether the remote has all contents of the artifact of a node.
    pub(super) fn is_in_remote(&mut self, id: NodeId) -> Result<bool> {
        let share = self.planner.share.or_bug("a worker has a remote")?;
        let artifact: &Artifact = self.artifacts.get(&id).or_bug("the inputs of a queued node are made")?;
        for file in artifact.files() {
            if !self.in_remote.contains(&file.digest) {
                if !share.has_content(file)? {
                    return Ok(false);
                }
                self.in_remote.insert(file.digest);
            }
        }
        Ok(true)
    }

    /// Checks that a node can be given to its worker at all.
    pub(super) fn unplaceable(&self, id: NodeId) -> Result<()> {
        let Some(number) = self.planner.graph.placed(id) else { return Ok(()) };
        let worker = self.options.crews.get(number).map_or("", |crew| crew.name.as_str());
        require!(
            self.planner.share.is_some(),
            NotBuilt,
            "the worker `{worker}` gets its work through a remote, and there is none: write `cache: {{remote: URL}}`, or build \
             it here with --local"
        );
        require!(
            self.options.upload,
            NotBuilt,
            "the worker `{worker}` gets its work through the remote, and --read-only sends nothing there"
        );
        Ok(())
    }
}

/// Returns what a worker says, so that none of its lines can be taken for one of ours.
fn indented(text: &str) -> String {
    harmless(text).lines().map(str::trim_end).collect::<Vec<_>>().join("\n  ")
}

/// Whether a node is made although it was made before: the build was forced, or its files are gone.
fn is_made_again(decision: &Decision) -> bool {
    let is_forced = decision.changes.contains(&Change::Forced);
    is_forced || (!decision.changes.is_empty() && decision.artifact.is_some())
}
