//! Workers: the machines that make nodes, and the engines that start them. They are written in a pipeline file, or in the
//! user's own file.
//! Knows nothing of whether they can be reached. Nothing of this is part of a key.

use serde::{Deserialize, Serialize};

use super::Node;
use crate::stage::{Device, DeviceChoice};
use text::units::parse_age;
use text::yaml::{Fields, Key, Problem, Tree, Value};

/// How long a host may be silent before it counts as lost, in seconds, if the file does not say it.
const PATIENCE: u64 = 30;

/// How many jobs of one worker an engine gets at once, if the file does not say it.
const QUEUED: usize = 1000;

/// Machines that make nodes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Worker {
    /// Its name.
    pub name: String,
    /// What starts its jobs.
    pub engine: Engine,
    /// The stages that it takes, by their words.
    pub stages: Vec<String>,
    /// How many jobs run at once: on each host, or in the queue.
    pub slots: usize,
    /// The folder on the machine, with a clone of the project.
    pub folder: Option<String>,
    /// The program `pipeline` on the machine.
    pub program: String,
    /// The URL of the remote, as the machine reaches it; `None` if it is the same as here.
    pub remote: Option<String>,
    /// What models run on there.
    pub device: WorkerDevice,
    /// How long a host may be silent before it counts as lost, in seconds.
    pub patience: u64,
}

/// What starts jobs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Engine {
    /// A connection to a host for each job.
    Ssh {
        /// The hosts.
        hosts: Hosts,
        /// Options of `ssh`.
        options: Vec<String>,
    },
    /// A queue of Slurm.
    Slurm {
        /// What comes before `sbatch` and its like, such as `ssh login`.
        submit: Vec<String>,
        /// Options of `sbatch`.
        options: Vec<String>,
    },
    /// A command for each job, which ends when the job does.
    Command {
        /// The command. `{line}` in it is the line of a shell that does the work, `{attempt}` a name for it.
        run: Vec<String>,
        /// What ends a job.
        cancel: Vec<String>,
    },
}

/// The hosts of a worker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Hosts {
    /// They are listed.
    Listed(Vec<String>),
    /// They are in a host file as `mlx.launch` reads it, relative to the file that names it.
    File(String),
}

/// What models run on at a worker, where a benchmark leaves it open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum WorkerDevice {
    /// The CPU runtime.
    #[default]
    Cpu,
    /// MLX on the processor, as on Linux.
    MlxCpu,
    /// MLX on the GPU, as on a Mac.
    MlxGpu,
}

impl WorkerDevice {
    const WORDS: [(&'static str, Self); 3] =
        [("cpu", Self::Cpu), ("mlx-cpu", Self::MlxCpu), ("mlx-gpu", Self::MlxGpu)];

    /// Returns what a benchmark runs on that asks for `choice`.
    pub fn choose(self, choice: DeviceChoice) -> Device {
        let suffix = match (choice, self) {
            (DeviceChoice::Cpu, _) | (DeviceChoice::Auto, Self::Cpu) => return Device::Cpu,
            (_, Self::MlxGpu) => "gpu",
            (_, Self::MlxCpu | Self::Cpu) => "cpu",
        };
        if Device::Mlx.id().ends_with(suffix) { Device::Mlx } else { Device::MlxElsewhere }
    }
}

impl Worker {
    /// Whether a node is one of those that it takes: by its stage, or because the node names it as its pool.
    pub fn takes(&self, node: &Node) -> bool {
        let is_named = node.pool.as_ref().is_some_and(|pool| *pool == self.name);
        is_named || (node.pool.is_none() && self.stages.iter().any(|word| word == node.stage.word()))
    }
}

/// Reads a file of workers: a mapping with the one key `workers`.
///
/// # Errors
/// Fails if the text is not valid YAML, or not such a mapping.
pub fn read_workers(text: &str) -> Result<Vec<Worker>, Problem> {
    let mut top = Fields::open(Tree::parse(text)?, "the file of workers")?;
    let workers = read(top.need("workers")?)?;
    top.finish()?;
    Ok(workers)
}

/// Reads the value of `workers`.
pub(super) fn read(tree: Tree) -> Result<Vec<Worker>, Problem> {
    let workers = Fields::open(tree, "`workers`")?.rest();
    workers.into_iter().map(|(name, tree)| read_worker(&name, tree)).collect()
}

fn read_worker(name: &Key, tree: Tree) -> Result<Worker, Problem> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if name.text.is_empty() || !name.text.chars().all(plain) {
        let rule = "use letters, digits, `-`, `_` and `.`";
        return Err(Problem::new(name.at, format!("`{}` cannot name a worker: {rule}", name.text)));
    }
    let mut fields = Fields::open(tree, format!("worker `{}`", name.text))?;
    let engine = read_engine(&mut fields)?;
    let most = if matches!(engine, Engine::Slurm { .. }) { QUEUED } else { 1 };
    let patience = fields.optional_text("patience")?.map(|(text, at)| match parse_age(&text) {
        Ok(span) if span.as_secs() > 0 => Ok(span.as_secs()),
        Ok(_) => Err(Problem::new(at, "`patience` must be longer than nothing")),
        Err(message) => Err(Problem::new(at, message)),
    });
    let device = fields.word("device", &WorkerDevice::WORDS)?.unwrap_or_default();
    let text = |fields: &mut Fields, field| Ok(fields.optional_text(field)?.map(|(text, _)| text));
    let worker = Worker {
        name: name.text.clone(),
        engine,
        stages: read_stages(&mut fields)?,
        slots: fields.count("slots")?.unwrap_or(most),
        folder: text(&mut fields, "folder")?,
        program: text(&mut fields, "program")?.unwrap_or_else(|| "pipeline".to_owned()),
        remote: text(&mut fields, "remote")?,
        device,
        patience: patience.transpose()?.unwrap_or(PATIENCE),
    };
    fields.finish()?;
    Ok(worker)
}

fn read_engine(fields: &mut Fields) -> Result<Engine, Problem> {
    let kinds = ["ssh", "slurm", "command"].map(|word| (word, word));
    let Some(kind) = fields.word("executor", &kinds)? else { return Err(fields.missing("executor")) };
    if kind == "command" {
        let (at, run) = (fields.at(), words(fields, "run")?);
        if !run.iter().any(|word| word.contains(LINE)) {
            let message =
                format!("`run` is a command with `{LINE}` where the line of a shell goes that does the work");
            return Err(Problem::new(at, message));
        }
        return Ok(Engine::Command { run, cancel: words(fields, "cancel")? });
    }
    let options = words(fields, "options")?;
    Ok(match kind {
        "ssh" => Engine::Ssh { hosts: read_hosts(fields)?, options },
        _ => Engine::Slurm { submit: words(fields, "submit")?, options },
    })
}

/// What stands for the line of a shell in a command.
const LINE: &str = "{line}";

/// Reads `for`: which stages it takes. Sources are taken in where they are.
fn read_stages(fields: &mut Fields) -> Result<Vec<String>, Problem> {
    const STAGES: [&str; 5] = ["fuse", "quantize", "probe", "benchmark", "run"];
    let mut stages = Vec::new();
    for tree in fields.list("for")? {
        match &tree.value {
            Value::Text(word) if STAGES.contains(&word.as_str()) => stages.push(word.clone()),
            _ => {
                let message =
                    format!("`for` lists the stages that the worker makes, of {}", STAGES.join(", "));
                return Err(Problem::new(tree.at, message));
            }
        }
    }
    Ok(stages)
}

fn read_hosts(fields: &mut Fields) -> Result<Hosts, Problem> {
    let tree = fields.need("hosts")?;
    match tree.value {
        Value::Text(file) => Ok(Hosts::File(file)),
        Value::List(hosts) if !hosts.is_empty() => {
            Ok(Hosts::Listed(hosts.into_iter().map(|host| read_host(&host)).collect::<Result<_, _>>()?))
        }
        _ => {
            let message = "`hosts` is a list of hosts, or the path of a host file of `mlx.launch`";
            Err(Problem::new(tree.at, message))
        }
    }
}

fn read_host(tree: &Tree) -> Result<String, Problem> {
    match &tree.value {
        Value::Text(host) if is_host(host) => Ok(host.clone()),
        _ => Err(Problem::new(tree.at, "a host is a name as `ssh` takes it, such as `user@mac.local`")),
    }
}

/// Whether a text is a host for `ssh`, and neither an option nor part of a command.
pub(crate) fn is_host(text: &str) -> bool {
    let plain =
        |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '@' | ':' | '%' | '[' | ']');
    !text.is_empty() && !text.starts_with('-') && text.chars().all(plain)
}

fn words(fields: &mut Fields, name: &'static str) -> Result<Vec<String>, Problem> {
    let word = |tree: Tree| match tree.value {
        Value::Text(word) if !word.is_empty() && !word.contains(['\n', '\0']) => Ok(word),
        Value::Int(number) => Ok(number.to_string()),
        _ => Err(Problem::new(tree.at, format!("`{name}` is a list of words"))),
    };
    fields.list(name)?.into_iter().map(word).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn workers(text: &str) -> Result<Vec<Worker>, String> {
        read_workers(&format!("workers:\n{text}\n")).map_err(|problem| problem.to_string())
    }

    #[test]
    fn both_engines_are_read() {
        let read = workers(
            "  macs: {executor: ssh, hosts: hosts.json, slots: 2, for: [benchmark], device: mlx-gpu}\n  \
             queue: {executor: slurm, submit: [ssh, login], options: [--gres=gpu:1], for: [run, benchmark]}",
        );
        let [macs, queue] = read.unwrap().try_into().unwrap();
        assert_eq!((macs.slots, macs.device, macs.patience), (2, WorkerDevice::MlxGpu, 30));
        assert_eq!(queue.slots, QUEUED);
        let Engine::Slurm { submit, options } = queue.engine else { panic!() };
        assert_eq!((submit.join(" "), options.join(" ")), ("ssh login".into(), "--gres=gpu:1".into()));
        assert_eq!(queue.stages, ["run", "benchmark"]);
    }

    #[test]
    fn mistakes_are_named() {
        let problem = |text: &str| workers(text).unwrap_err();
        assert!(problem("  a: {executor: ray, for: [run]}").contains("`executor`"));
        assert!(
            problem("  a: {executor: ssh, hosts: [-oProxyCommand=x], for: [run]}")
                .contains("a host is a name")
        );
        assert!(problem("  a: {executor: slurm, for: [base]}").contains("of fuse, quantize"));
        assert!(problem("  a: {executor: slurm, hosts: [b]}").contains("hosts"));
        assert!(problem("  'a b': {executor: slurm}").contains("cannot name a worker"));
        assert!(problem("  a: {executor: slurm, slots: 0}").contains("`slots`"));
    }

    #[test]
    fn a_device_is_that_of_the_worker() {
        let ids = |device: WorkerDevice| {
            [DeviceChoice::Auto, DeviceChoice::Mlx, DeviceChoice::Cpu]
                .map(|choice| device.choose(choice).id())
        };
        assert_eq!(ids(WorkerDevice::Cpu), ["cpu runtime 1", "mlx 0.32.2 cpu", "cpu runtime 1"]);
        assert_eq!(ids(WorkerDevice::MlxGpu), ["mlx 0.32.2 gpu", "mlx 0.32.2 gpu", "cpu runtime 1"]);
    }
}
