//! The examples of docs/run.md, run as they stand there: with mlx-lm's trainer and quantizer, the hub's uploader and a
//! check of one's own, on the model of examples/tiny.
//! Knows nothing of what the page says around them.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::disallowed_methods, reason = "the tests play the user, who writes files as they like")]

#[path = "../sample/short_train.rs"]
mod short_train;

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

/// The programs of mlx-lm and of the hub, and the modules that they start.
const PROGRAMS: [(&str, &str); 5] = [
    ("python", ""),
    ("mlx_lm.lora", "-m mlx_lm lora"),
    ("mlx_lm.convert", "-m mlx_lm convert"),
    ("mlx_lm.gptq", "-m mlx_lm.quant.gptq"),
    ("hf", "-c 'from huggingface_hub.cli.hf import main; main()'"),
];

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A project with the files that the examples name, and the programs that they run.
struct Project {
    folder: TempDir,
    variables: Vec<(&'static str, String)>,
}

impl Project {
    /// Makes the project of the example whose first line is `# NAME`.
    fn of(name: &str) -> Self {
        let python = repository().join(".mlx-lm/bin/python");
        assert!(python.exists(), "mlx-lm is not set up: run make setup");
        let project = Self { folder: tempfile::tempdir().unwrap(), variables: Vec::new() };
        for (program, arguments) in PROGRAMS {
            let path = project.path(&format!("bin/{program}"));
            project.write(
                &format!("bin/{program}"),
                &format!("#!/bin/sh\nexec {} {arguments} \"$@\"\n", python.display()),
            );
            fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
        }
        let tiny = repository().join("examples/tiny");
        for folder in [("base-4bit", "model"), ("adapter", "adapter")] {
            fs::create_dir_all(project.path(folder.1)).unwrap();
            for file in fs::read_dir(tiny.join(folder.0)).unwrap() {
                let file = file.unwrap();
                fs::copy(file.path(), project.path(folder.1).join(file.file_name())).unwrap();
            }
        }
        fs::copy(tiny.join("discrimination.yaml"), project.path("suite.yaml")).unwrap();
        project.write("pipeline.yaml", &block(name));
        project
    }

    fn path(&self, path: &str) -> PathBuf {
        self.folder.path().join(path)
    }

    fn write(&self, path: &str, text: &str) {
        fs::create_dir_all(self.path(path).parent().unwrap()).unwrap();
        fs::write(self.path(path), text).unwrap();
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let path = format!("{}:{}", self.path("bin").display(), std::env::var("PATH").unwrap());
        let mut command = Command::new(env!("CARGO_BIN_EXE_pipeline"));
        command.args(arguments).current_dir(self.folder.path()).env("PATH", path);
        command.env("XDG_STATE_HOME", env!("CARGO_TARGET_TMPDIR"));
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        command.output().unwrap()
    }

    /// Builds all nodes.
    fn build(&self) {
        let output = self.run(&["build"]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    fn json(&self, path: &str) -> Value {
        serde_json::from_slice(&fs::read(self.path(path)).unwrap()).unwrap()
    }
}

/// Returns the block of docs/run.md whose first line is `# NAME`.
fn block(name: &str) -> String {
    let page = fs::read_to_string(repository().join("docs/run.md")).unwrap();
    let mut blocks = page.split("\n```").skip(1).step_by(2).filter_map(|block| block.split_once('\n'));
    let found = blocks.find(|(_, text)| text.lines().next() == Some(&format!("# {name}")));
    found.unwrap_or_else(|| panic!("docs/run.md has no example {name}")).1.to_owned() + "\n"
}

#[test]
fn every_example_is_run_here() {
    let page = fs::read_to_string(repository().join("docs/run.md")).unwrap();
    let names: Vec<_> = page.split("```yaml\n# ").skip(1).filter_map(|rest| rest.lines().next()).collect();
    assert_eq!(names, ["lora.yaml", "gptq.yaml", "ollama.yaml", "release.yaml"]);
}

#[test]
fn an_adapter_is_trained_by_mlx_lm() {
    let project = Project::of("lora.yaml");
    let line = |number: usize| {
        json!({"messages": [{"role": "user", "content": format!("What is {number} times 2?")},
                            {"role": "assistant", "content": (2 * number).to_string()}]})
        .to_string()
    };
    let lines: String = (0..8).map(|number| line(number) + "\n").collect();
    for file in ["train.jsonl", "valid.jsonl"] {
        project.write(&format!("data/{file}"), &lines);
    }
    project.build();
    let adapter = project.json("artifacts/adapter/adapter_config.json");
    // What the trainer writes about its arguments is the same on every machine.
    assert_eq!((&adapter["model"], &adapter["adapter_path"]), (&json!("inputs/base"), &json!("out")));
    assert!(project.path("artifacts/8bit/model.safetensors").exists());
    assert!(!project.path("artifacts/fused").exists(), "it is temporary");
    let again = project.run(&["build"]);
    assert!(String::from_utf8_lossy(&again.stdout).starts_with("nothing to do"));
    let verified = project.run(&["verify", "adapter"]);
    assert!(
        String::from_utf8_lossy(&verified.stdout)
            .contains("cannot be made again, because it is not deterministic")
    );
}

#[test]
fn gptq_is_compared_with_plain_rounding() {
    let project = Project::of("gptq.yaml");
    project.write("texts.txt", &"The weather in Paris is fine today. What is seven times eight? ".repeat(80));
    project.build();
    let results = project.json("artifacts/benchmark/results.json");
    let configs = results["configs"].as_object().unwrap();
    assert_eq!(configs.keys().collect::<Vec<_>>(), ["float16", "4bit", "gptq"]);
    assert!(configs["gptq"]["quantization"]["bits"].is_u64(), "{}", configs["gptq"]["quantization"]);
}

#[test]
fn a_modelfile_has_its_gguf_beside_it() {
    let mut project = Project::of("ollama.yaml");
    project.write("modelfile.py", &block("modelfile.py"));
    // A stand-in for the converter, which needs PyTorch.
    project.write(
        "llama.cpp/convert_hf_to_gguf.py",
        "import os, sys\nmodel, _, out = sys.argv[1:]\nassert os.path.exists(model + '/model.safetensors')\nopen(out, 'wb').write(b'GGUF' + bytes(60))\n",
    );
    project.variables.push(("LLAMA_CPP", project.path("llama.cpp").to_str().unwrap().to_owned()));
    project.build();
    assert!(
        fs::read_to_string(project.path("artifacts/ollama/Modelfile"))
            .unwrap()
            .starts_with("FROM ./model.gguf\n")
    );
    assert!(fs::read(project.path("artifacts/ollama/model.gguf")).unwrap().starts_with(b"GGUF"));
}

/// The example, with two steps of training in the place of sixty, so that it takes seconds.
#[test]
fn the_example_goes_from_raw_data_to_a_report() {
    let project = Project::of("lora.yaml");
    short_train::write(project.folder.path());
    let built = project.run(&["-C", "examples/train", "build"]);
    let said = String::from_utf8_lossy(&built.stderr);
    assert!(built.status.success(), "{said}");
    for node in ["fused-1", "fused-2", "float"] {
        assert!(said.contains(&format!("{node}: temporary, ")), "{node}: {said}");
    }
    let results = project.json("examples/train/artifacts/benchmark/results.json");
    assert_eq!(results["configs"].as_object().unwrap().len(), 7);
    let report = project.run(&["-C", "examples/train", "report", "benchmark"]);
    assert!(String::from_utf8_lossy(&report.stdout).contains("2-4bit-keep"), "{report:?}");
    let again = project.run(&["-C", "examples/train", "build"]);
    assert!(String::from_utf8_lossy(&again.stdout).starts_with("nothing to do"));
}

/// The server of `hub.py`, which takes uploads.
struct Hub {
    server: Child,
    address: String,
}

impl Hub {
    fn start(folder: &Path) -> Self {
        let python = repository().join(".mlx-lm/bin/python");
        let mut server = Command::new(python)
            .arg(repository().join("tests/commands/hub.py"))
            .arg(folder)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut address = String::new();
        BufReader::new(server.stdout.take().unwrap()).read_line(&mut address).unwrap();
        Self { server, address: address.trim().to_owned() }
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

#[test]
fn what_fails_the_check_is_not_uploaded() {
    let mut project = Project::of("release.yaml");
    project.write("check.py", &block("check.py"));
    let received = project.path("received");
    fs::create_dir(&received).unwrap();
    let hub = Hub::start(&received);
    project.variables.push(("HF_ENDPOINT", hub.address.clone()));
    project.variables.push(("HF_TOKEN", "hf_secret".to_owned()));
    project.variables.push(("HF_HUB_DISABLE_XET", "1".to_owned()));
    project.write("pipeline.yaml", &block("release.yaml").replace("\"0.9\"", "\"1.1\""));
    let failed = project.run(&["build"]);
    let said = String::from_utf8_lossy(&failed.stderr);
    assert!(!failed.status.success() && said.contains("  | less than 1.1 right: {'8bit': 1.0}"), "{said}");
    assert!(said.contains("upload: skipped, because check failed"), "{said}");
    assert_eq!(fs::read_dir(&received).unwrap().count(), 0);
    project.write("pipeline.yaml", &block("release.yaml"));
    project.build();
    let sent = fs::read(received.join("model.safetensors")).unwrap();
    assert_eq!(sent, fs::read(project.path("artifacts/8bit/model.safetensors")).unwrap());
    assert_eq!(project.json("artifacts/check/checked.json"), json!({"8bit": 1.0}));
    let secret = fs::read_dir(project.path("cache/logs")).unwrap();
    let logs = secret.map(|log| fs::read_to_string(log.unwrap().path()).unwrap());
    assert!(logs.into_iter().all(|log| !log.contains("hf_secret")));
}
