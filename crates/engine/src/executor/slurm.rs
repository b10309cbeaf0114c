//! Runs jobs in a queue of Slurm, through `sbatch`, `squeue`, `scontrol` and `scancel` with fixed formats.
//! Knows nothing of what a job makes.
//!
//! A batch is one job, or one array of jobs, with the name of the batch. So a later process finds it by its name. What
//! Slurm says of an ended job is not believed: a job that is not in the queue is gone, however it ended.

use std::collections::HashMap;
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

use super::{Attempt, Condition, Executor, Invocation, Job, command};
use crate::error::Result;

/// How often the queue is looked at.
const INTERVAL: Duration = Duration::from_secs(1);

/// How long a job may take to end when it is cancelled.
const LONGEST_END: Duration = Duration::from_secs(20);

/// The columns of `squeue`: number in the array, state, reason, hosts, job, name of the batch. A name may hold anything.
const COLUMNS: &str = "%K|%T|%r|%N|%i|%j";

/// The reason of a job that Slurm holds for ever, because a node failed while it was started.
const HELD: &str = "launch failed requeued held";

/// The longest array, if the cluster does not say it.
const LONGEST_ARRAY: usize = 1001;

/// How much of a log is read, in bytes.
const LOG_BYTES: usize = 1 << 14;

/// A queue of Slurm.
pub struct Slurm {
    /// What comes before each command, such as `ssh login`.
    prefix: Vec<String>,
    /// Options of `sbatch`.
    options: Vec<String>,
    slots: usize,
    invocation: Invocation,
    longest_array: OnceLock<usize>,
}

/// One line of `squeue`.
struct Line {
    state: String,
    reason: String,
    host: String,
    job: String,
}

impl Slurm {
    /// Makes the executor of a queue that gets at most `slots` jobs at once.
    pub fn new(prefix: Vec<String>, options: Vec<String>, slots: usize, invocation: Invocation) -> Self {
        Self { prefix, options, slots, invocation, longest_array: OnceLock::new() }
    }

    fn run(&self, words: &[&str], input: &str) -> Result<String> {
        let words: Vec<_> = words.iter().map(|word| (*word).to_owned()).collect();
        command::run(&self.prefix, &words, input)
    }

    /// Returns the jobs of this user in the queue, by batch and number.
    fn queue(&self) -> Result<HashMap<(String, usize), Line>> {
        let format = format!("--format={COLUMNS}");
        let listed = self.run(&["squeue", "--me", "--noheader", "--array", &format], "")?;
        Ok(listed.lines().filter_map(read_line).collect())
    }

    /// Returns what Slurm remembers of a job that is not in the queue any more. It forgets it after some minutes.
    fn how(&self, attempt: &Attempt) -> Option<String> {
        let format = format!("--format={COLUMNS}");
        let name = format!("--name={}", attempt.batch);
        let listed =
            self.run(&["squeue", "--me", "--noheader", "--array", "--states=all", &format, &name], "");
        let lines: HashMap<_, _> = listed.ok()?.lines().filter_map(read_line).collect();
        let line = lines.get(&(attempt.batch.clone(), attempt.index))?;
        let shown = self.run(&["scontrol", "--oneliner", "show", "job", &line.job], "").ok();
        let code = shown.and_then(|shown| {
            let code = shown.split_whitespace().find_map(|word| word.strip_prefix("ExitCode="))?;
            Some(code.to_owned())
        });
        let host = if line.host.is_empty() { String::new() } else { format!(" on {}", line.host) };
        let code = code.map_or_else(String::new, |code| format!(", exit code {code}"));
        Some(format!("job {}{host}: {}{code}", line.job, line.state))
    }

    /// Returns the script of a batch: each number of an array has a key of its own.
    fn script(&self, jobs: &[Job]) -> String {
        let line = |job: &Job| self.invocation.line(&job.key.to_string(), &job.attempt.name(), "");
        let cases: String =
            jobs.iter().map(|job| format!("{}) {};;\n", job.attempt.index, line(job))).collect();
        format!("#!/bin/sh\ncase ${{SLURM_ARRAY_TASK_ID:-0}} in\n{cases}esac\n")
    }

    /// Returns the folder that jobs begin in. Slurm does not know what `~` is; a shell does.
    fn folder(&self) -> Option<&str> {
        self.invocation.folder.as_deref().filter(|folder| !folder.starts_with('~'))
    }

    /// Returns the file with the output of an attempt, as `sbatch` was told.
    fn log_path(&self, attempt: &Attempt) -> String {
        let name = format!("{}.log", attempt.name());
        match self.folder() {
            Some(folder) => format!("{folder}/{name}"),
            None => name,
        }
    }
}

impl Executor for Slurm {
    fn slots(&self) -> usize {
        self.slots
    }

    fn longest_batch(&self) -> Result<usize> {
        if let Some(longest) = self.longest_array.get() {
            return Ok(*longest);
        }
        let shown = self.run(&["scontrol", "show", "config"], "")?;
        let value = |line: &str| {
            line.trim().strip_prefix("MaxArraySize")?.trim().strip_prefix('=')?.trim().parse().ok()
        };
        // The numbers of an array are below this. Zero means that there are no arrays.
        let longest: usize = shown.lines().find_map(value).unwrap_or(LONGEST_ARRAY).max(1);
        Ok(*self.longest_array.get_or_init(|| longest))
    }

    fn interval(&self) -> Duration {
        INTERVAL
    }

    fn submit(&self, jobs: &[Job]) -> Result<()> {
        let Some(first) = jobs.first() else { return Ok(()) };
        let batch = &first.attempt.batch;
        let (name, array) = (format!("--job-name={batch}"), format!("--array=0-{}", jobs.len() - 1));
        let is_array = jobs.len() > 1;
        let log =
            if is_array { format!("--output={batch}-%a.log") } else { format!("--output={batch}-0.log") };
        let folder = self.folder().map(|folder| format!("--chdir={folder}"));
        let own = self.options.iter().map(String::as_str);
        let mut words = vec!["sbatch"];
        words.extend(own);
        words.extend(["--parsable", "--requeue", "--open-mode=append", &name, &log]);
        words.extend(is_array.then_some(array.as_str()));
        words.extend(folder.as_deref());
        let submitted = self.run(&words, &self.script(jobs)).map(drop);
        // A connection that broke says nothing of what came before.
        let is_there = || self.queue().is_ok_and(|queue| queue.keys().any(|(name, _)| name == batch));
        if submitted.is_err() && is_there() { Ok(()) } else { submitted }
    }

    fn poll(&self, attempts: &[Attempt]) -> Result<Vec<Condition>> {
        let queue = self.queue()?;
        let condition = |attempt: &Attempt| {
            let Some(line) = queue.get(&(attempt.batch.clone(), attempt.index)) else {
                return Condition::Gone { how: None, is_lost: true };
            };
            match line.state.as_str() {
                "PENDING" if line.reason == HELD => {
                    // It would wait for an administrator. What cannot be cancelled now is a job too many later.
                    let _ = self.run(&["scancel", &line.job], "");
                    Condition::Gone { how: Some(format!("job {}: {HELD}", line.job)), is_lost: true }
                }
                "RUNNING" | "COMPLETING" => Condition::Runs { host: line.host.clone(), heard: Vec::new() },
                state => {
                    let why =
                        [state, &line.reason].into_iter().filter(|word| !word.is_empty() && *word != "None");
                    let why: Vec<_> = why.map(str::to_lowercase).collect();
                    Condition::Waits(format!("job {} {}", line.job, why.join(", ")))
                }
            }
        };
        Ok(attempts.iter().map(condition).collect())
    }

    fn cancel(&self, attempts: &[Attempt]) -> Vec<Option<String>> {
        let refused = |problem: String| vec![Some(problem); attempts.len()];
        let of = |queue: &HashMap<(String, usize), Line>, attempt: &Attempt| {
            queue.get(&(attempt.batch.clone(), attempt.index)).map(|line| line.job.clone())
        };
        let queue = match self.queue() {
            Ok(queue) => queue,
            Err(error) => return refused(error.to_string()),
        };
        let jobs: Vec<_> = attempts.iter().filter_map(|attempt| of(&queue, attempt)).collect();
        if jobs.is_empty() {
            return vec![None; attempts.len()];
        }
        let words: Vec<_> = ["scancel"].into_iter().chain(jobs.iter().map(String::as_str)).collect();
        if let Err(error) = self.run(&words, "") {
            return refused(error.to_string());
        }
        let start = Instant::now();
        loop {
            let still = match self.queue() {
                Ok(queue) => queue,
                Err(error) => return refused(error.to_string()),
            };
            let left: Vec<_> = attempts.iter().map(|attempt| of(&still, attempt)).collect();
            if left.iter().all(Option::is_none) || start.elapsed() > LONGEST_END {
                return left
                    .into_iter()
                    .map(|job| job.map(|job| format!("job {job} is still ending")))
                    .collect();
            }
            thread::sleep(INTERVAL);
        }
    }

    fn detach(&self, attempts: &[Attempt]) -> Vec<bool> {
        vec![true; attempts.len()]
    }

    fn log(&self, attempt: &Attempt) -> Option<String> {
        let bytes = LOG_BYTES.to_string();
        let log = self.run(&["tail", "-c", &bytes, &self.log_path(attempt)], "").ok();
        let log = log.map(|log| command::last_lines(&log)).filter(|log| !log.is_empty());
        let parts: Vec<_> = [self.how(attempt), log].into_iter().flatten().collect();
        (!parts.is_empty()).then(|| parts.join(": "))
    }

    fn clean(&self, attempts: &[Attempt]) {
        let logs: Vec<_> = attempts.iter().map(|attempt| self.log_path(attempt)).collect();
        let words: Vec<_> = ["rm", "-f"].into_iter().chain(logs.iter().map(String::as_str)).collect();
        // A log that stays does no harm.
        let _ = self.run(&words, "");
    }

    fn host(&self, _: &Attempt) -> Option<String> {
        None
    }
}

/// Reads a line of `squeue`. A job that is no array has the number 0.
fn read_line(line: &str) -> Option<((String, usize), Line)> {
    let mut columns = line.trim().splitn(6, '|').map(str::to_owned);
    let mut next = || columns.next();
    let (number, state, reason, host, job, name) = (next()?, next()?, next()?, next()?, next()?, next()?);
    let number = if number == "N/A" { 0 } else { number.parse().ok()? };
    Some(((name, number), Line { state, reason, host, job }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_squeue_are_read() {
        let ((batch, number), line) = read_line("7|PENDING|Resources||42_7|p-1\n").unwrap();
        assert_eq!((batch.as_str(), number, line.job.as_str(), line.host.as_str()), ("p-1", 7, "42_7", ""));
        assert_eq!(read_line("N/A|RUNNING|None|cpu1|43|p-2").unwrap().0.1, 0);
        assert!(read_line("squeue: error").is_none());
    }

    #[test]
    fn each_number_of_an_array_has_its_key() {
        let invocation =
            Invocation { folder: None, program: "pipeline".to_owned(), remote: "s3://b/p".to_owned() };
        let slurm = Slurm::new(Vec::new(), Vec::new(), 1, invocation);
        let job = |index: usize| Job {
            key: artifact::Digest::of(&[u8::try_from(index).unwrap()]),
            node: "n".to_owned(),
            attempt: Attempt { batch: "p-1".to_owned(), index, host: None },
        };
        let script = slurm.script(&[job(0), job(1)]);
        let lines: Vec<_> = script.lines().collect();
        assert_eq!(lines[..2], ["#!/bin/sh", "case ${SLURM_ARRAY_TASK_ID:-0} in"]);
        assert!(lines[3].starts_with("1) exec 'pipeline' exec --key "), "{script}");
        assert!(lines[3].ends_with(" --attempt p-1-1 --remote 's3://b/p';;"), "{script}");
    }
}
