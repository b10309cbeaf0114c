//! Machines of workers, on this one: hosts with a real `sshd` each, and a real Slurm of three nodes. Each has a clone of the
//! project and a signing key, and nothing else.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use std::{fs, thread};

use tempfile::TempDir;

use crate::remote::Team;
use crate::space::{STATE_HOME, Space};

/// The variable of the machines that names a file in which a command says that it ran.
pub(crate) const COUNT: &str = "PIPELINE_TEST_COUNT";

/// Hosts that are reached by ssh. They end with this.
pub(crate) struct Hosts {
    folder: TempDir,
    count: usize,
}

/// A Slurm of the nodes `cpu1`, `cpu2` and `gpu1`, which ends with this.
pub(crate) struct Queue {
    folder: TempDir,
}

/// Where machines of workers are.
pub(crate) trait Machines {
    /// The folder with everything of theirs.
    fn folder(&self) -> &Path;

    /// The section `workers` of a pipeline file, with a worker that makes these stages.
    fn workers(&self, stages: &str) -> String;

    /// Gives each machine a clone of a project. They are the second member of the team.
    fn clone_project(&self, team: &Team, space: &Space);

    /// Returns how often commands have run that say so.
    fn runs(&self) -> Vec<String> {
        let text = fs::read_to_string(self.folder().join("count")).unwrap_or_default();
        let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    }

    /// Checks that nothing of the workers runs any more, now or soon.
    fn is_quiet(&self) {
        let start = Instant::now();
        loop {
            let left = self.processes();
            if left.is_empty() {
                return;
            }
            assert!(start.elapsed() < Duration::from_secs(20), "these still run: {left:?}");
            thread::sleep(Duration::from_millis(100));
        }
    }

    /// Returns the processes of workers with their command lines.
    fn processes(&self) -> Vec<(u32, String)> {
        let mark = format!("{COUNT}={}", self.folder().join("count").display());
        let is_ours =
            |environment: &[u8]| environment.split(|byte| *byte == 0).any(|one| one == mark.as_bytes());
        let is_daemon = |line: &str| line.is_empty() || line.contains("sshd") || line.contains("slurm");
        let processes = all_processes().into_iter().filter(|(_, line)| !is_daemon(line));
        processes
            .filter(|(pid, _)| is_ours(&fs::read(format!("/proc/{pid}/environ")).unwrap_or_default()))
            .collect()
    }

    /// Kills a process that makes something for a worker.
    fn kill_worker(&self) {
        let processes = self.processes();
        let worker =
            processes.iter().find(|(_, line)| line.contains(" exec --key ") && !line.starts_with("bash"));
        kill(worker.map(|(pid, _)| *pid));
    }
}

/// Returns all processes with their command lines.
fn all_processes() -> Vec<(u32, String)> {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let line = |pid: u32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        (pid, String::from_utf8_lossy(&line).replace('\0', " "))
    };
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).map(line).collect()
}

fn kill(pid: Option<u32>) {
    if let Some(pid) = pid {
        let _ = Command::new("kill").args(["-KILL", &pid.to_string()]).status();
    }
}

impl Hosts {
    /// Starts the hosts `host1`, `host2` and so on. Returns `None`, and says so, where there is no sshd.
    pub(crate) fn start(count: usize) -> Option<Self> {
        if !is_there(&["sshd", "ssh"]) {
            return None;
        }
        let hosts = Self { folder: tempfile::tempdir().unwrap(), count };
        Some(hosts)
    }

    fn script(&self, words: &[&str]) {
        let count = self.count.to_string();
        run("sshd.sh", self.folder.path(), &[&[count.as_str()], words].concat());
    }

    /// Kills a host with all that runs on it, as if it lost power.
    pub(crate) fn kill(&self, number: usize) {
        self.script(&["kill-one", &number.to_string()]);
    }

    /// Starts a host again.
    pub(crate) fn revive(&self, number: usize) {
        self.script(&["start-one", &number.to_string()]);
    }

    /// Starts the hosts again, with one processor each.
    pub(crate) fn restart_on_one_processor(&self) {
        self.script(&["stop"]);
        let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("scripts/engines/sshd.sh");
        let words = [script.as_path(), self.folder.path()];
        let mut command = Command::new("taskset");
        command.args(["-c", "0", "bash"]).args(words).args([&self.count.to_string(), "start"]);
        assert!(command.stdout(Stdio::null()).status().unwrap().success());
    }

    /// Cuts a connection of a build, from this side.
    pub(crate) fn cut(&self) {
        let config = self.ssh_config().display().to_string();
        let connection = |(_, line): &(u32, String)| line.starts_with("ssh ") && line.contains(&config);
        kill(all_processes().into_iter().find(connection).map(|(pid, _)| pid));
    }

    fn ssh_config(&self) -> PathBuf {
        self.folder.path().join("ssh_config")
    }
}

impl Machines for Hosts {
    fn folder(&self) -> &Path {
        self.folder.path()
    }

    fn workers(&self, stages: &str) -> String {
        let hosts = (1..=self.count).map(|number| format!("host{number}")).collect::<Vec<_>>().join(", ");
        let (config, program) = (self.ssh_config(), env!("CARGO_BIN_EXE_pipeline"));
        format!(
            "workers:\n  hosts: {{executor: ssh, hosts: [{hosts}], options: [-F, \"{}\"], for: [{stages}], \
             folder: ~/project, program: \"{program}\", patience: 10s}}\n",
            config.display()
        )
    }

    fn clone_project(&self, team: &Team, space: &Space) {
        // A daemon reads the environment of its host when it starts.
        self.script(&["stop"]);
        for number in 1..=self.count {
            let home = self.folder.path().join(format!("home{number}"));
            copy_project(space, &home.join("project"));
            let mut lines = environment(team, self.folder.path());
            lines.push(format!("HOME={}", home.display()));
            fs::write(self.folder.path().join(format!("env-{number}")), lines.join("\n") + "\n").unwrap();
        }
        self.script(&["start"]);
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        self.script(&["stop"]);
    }
}

impl Queue {
    /// Starts the cluster. Returns `None`, and says so, where there is no Slurm.
    pub(crate) fn start() -> Option<Self> {
        if !is_there(&["sbatch", "slurmctld", "slurmd", "munged"]) {
            return None;
        }
        let queue = Self { folder: tempfile::tempdir().unwrap() };
        queue.script(&["start"]);
        Some(queue)
    }

    /// Runs the script of the cluster, such as `kill-node cpu1`.
    pub(crate) fn script(&self, words: &[&str]) {
        run("slurm.sh", self.folder.path(), words);
    }

    /// Runs a command as on the login node.
    pub(crate) fn submit(&self, words: &[&str]) -> String {
        let output = Command::new(self.folder.path().join("submit")).args(words).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

impl Machines for Queue {
    fn folder(&self) -> &Path {
        self.folder.path()
    }

    fn workers(&self, stages: &str) -> String {
        let (folder, program) = (self.folder.path().display(), env!("CARGO_BIN_EXE_pipeline"));
        format!(
            "workers:\n  queue: {{executor: slurm, submit: [\"{folder}/submit\"], for: [{stages}], \
             folder: \"{folder}/project\", program: \"{program}\"}}\n"
        )
    }

    fn clone_project(&self, team: &Team, space: &Space) {
        copy_project(space, &self.folder.path().join("project"));
        let lines = environment(team, self.folder.path());
        fs::write(self.folder.path().join("env"), lines.join("\n") + "\n").unwrap();
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        self.script(&["stop"]);
    }
}

/// Returns the environment of a machine: a key, a place for secrets of this user, and what the storage needs.
fn environment(team: &Team, folder: &Path) -> Vec<String> {
    let mut lines = vec![
        format!("PIPELINE_SIGNING_KEY={}", team.keys[1].to_text()),
        format!("XDG_STATE_HOME={STATE_HOME}"),
        format!("{COUNT}={}", folder.join("count").display()),
        format!("PATH={}", programs()),
    ];
    lines.extend(team.bucket.variables().into_iter().map(|(name, value)| format!("{name}={value}")));
    lines
}

/// Returns a `PATH` with the Python of mlx-lm.
pub(crate) fn programs() -> String {
    let python = Path::new(env!("CARGO_MANIFEST_DIR")).join(".mlx-lm/bin");
    format!("{}:/usr/local/bin:/usr/bin:/bin", python.display())
}

/// Copies what somebody has after `git clone`.
fn copy_project(space: &Space, folder: &Path) {
    let _ = fs::remove_dir_all(folder);
    for (path, bytes) in space.files("") {
        if !path.starts_with("cache/") && !path.starts_with("artifacts/") {
            let file = folder.join(path);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, bytes).unwrap();
        }
    }
}

fn run(script: &str, folder: &Path, words: &[&str]) {
    let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("scripts/engines").join(script);
    let status = Command::new("bash").arg(script).arg(folder).args(words).stdout(Stdio::null()).status();
    assert!(status.unwrap().success(), "{words:?} failed");
}

fn is_there(programs: &[&str]) -> bool {
    let folders = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];
    let missing = |program: &&&str| !folders.iter().any(|folder| Path::new(folder).join(program).exists());
    match programs.iter().find(missing) {
        None => true,
        Some(program) => {
            println!(
                "skipped: there is no `{program}` on this machine; scripts/engines/setup.sh installs it"
            );
            false
        }
    }
}
