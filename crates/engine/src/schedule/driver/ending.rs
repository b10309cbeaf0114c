//! How a job ended that the executor does not have any more: the remote says it.
//! Knows nothing of why the executor does not have it.

use std::time::Instant;

use super::{ATTEMPTS, Assignment, Driver, PATIENCE, Report, Running};
use crate::Error;
use crate::graph::NodeId;
use crate::request::{Ending, OUTCOMES, WorkOutcome};
use crate::share::{SharePolicy, Unread};
use artifact::Digest;

/// What follows when a job is gone.
pub(super) enum Next {
    /// It is over, and was reported.
    Over,
    /// It is submitted again, after it was lost so often.
    Again(Box<Assignment>, usize),
    /// How it ended is not known yet.
    Unknown(Box<Running>),
}

impl Driver<'_> {
    /// Reads in the remote how a job ended that the executor does not have any more.
    pub(super) fn end(&self, job: Running, how: Option<String>, is_lost: bool) -> Next {
        let Running { assignment, attempt, .. } = &job;
        let (id, key, again) = (assignment.id, assignment.request.key, assignment.request.again);
        let mut unbelieved = None;
        let outcome = match self.share.text(OUTCOMES, &key, WorkOutcome::TYPE) {
            Ok(found) => found.and_then(|(text, _)| WorkOutcome::parse(&text, &key).ok()),
            Err(Unread::NotBelieved(problem)) => {
                unbelieved = Some(format!("what its worker answers is not believed: {problem}"));
                None
            }
            Err(Unread::Down(error)) => return self.unknown(job, &error.to_string(), how, is_lost),
        };
        let own = outcome.as_ref().filter(|outcome| outcome.attempt == attempt.name());
        match own.map(|outcome| (outcome, &outcome.ending)) {
            Some((outcome, Ending::Made { seconds })) => {
                let (host, warnings) = (attempt.host.clone(), outcome.warnings.clone());
                let host = host.unwrap_or_else(|| outcome.host.clone());
                return self.over(id, &key, Report::Made { host, seconds: *seconds, warnings });
            }
            Some((outcome, Ending::Failed { error, is_of_machine })) => {
                let message = format!("on {}: {error}", attempt.host.as_ref().unwrap_or(&outcome.host));
                if !is_of_machine || job.lost + 1 >= ATTEMPTS {
                    return self.over(id, &key, Report::Failed(Error::Worker(message)));
                }
                return self.again(job, &message);
            }
            None => {}
        }
        // Another attempt may have made it.
        let other = outcome.filter(|outcome| matches!(outcome.ending, Ending::Made { .. }));
        let policy = match (&assignment.policy, &other) {
            (SharePolicy::MeasuredOn(_), Some(other)) => {
                SharePolicy::MeasuredOn(other.machine.as_str().into())
            }
            (policy, _) => policy.clone(),
        };
        self.share.ask_again(&key);
        if !again && self.share.record(&key, &policy).is_some() {
            let host = other.map_or_else(|| "another machine".to_owned(), |other| other.host);
            return self.over(id, &key, Report::Made { host, seconds: None, warnings: Vec::new() });
        }
        let how = unbelieved.or(how).or_else(|| self.executor.log(attempt));
        let how = how.unwrap_or_else(|| "it is gone, and nothing says why".to_owned());
        if !is_lost || job.lost + 1 >= ATTEMPTS {
            let tried =
                if job.lost > 0 { format!("; it was tried {} times", job.lost + 1) } else { String::new() };
            return self.over(id, &key, Report::Failed(Error::Worker(format!("{how}{tried}"))));
        }
        self.again(job, &how)
    }

    /// Begins a job again, and says so.
    fn again(&self, job: Running, how: &str) -> Next {
        let node = &job.assignment.request.node;
        self.notice(format!("the worker `{}` lost `{node}`, and it begins again: {how}", self.name));
        Next::Again(Box::new(job.assignment), job.lost + 1)
    }

    fn over(&self, id: NodeId, key: &Digest, report: Report) -> Next {
        self.store.remove_job_note(key);
        self.report(id, report);
        Next::Over
    }

    /// Keeps a job whose end cannot be read now.
    fn unknown(&self, mut job: Running, problem: &str, how: Option<String>, is_lost: bool) -> Next {
        let (since, ..) = job.unknown.get_or_insert_with(|| (Instant::now(), how, is_lost));
        if since.elapsed() > PATIENCE {
            let message = format!("how it ended cannot be read: {problem}; `pipeline build` looks again");
            self.report(job.assignment.id, Report::Failed(Error::Worker(message)));
            return Next::Over;
        }
        Next::Unknown(Box::new(job))
    }
}
