//! Benchmarks as a user runs them on the example's model: gates that fail a build, verdicts, sweeps, and
//! texts that are evaluated as mlx-lm evaluates them. The golden figures of the texts come from mlx-lm:
//! `golden/reading.py`.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, and writes scratch files"
)]

use std::fs;
use std::path::Path;
use std::process::Command;

use serde::de::DeserializeOwned;
use serde_json::Value;

use report::{Conclusion, Judgement, Results};

const NODES: &str = "version: 1\nnodes:\n  base: {stage: base, source: tiny/base-4bit}\n  \
                     adapter: {stage: adapter, source: tiny/adapter}\n  \
                     fused-f16: {stage: fuse, model: base, adapter: adapter, dtype: float16}\n";

/// One question that needs a tool, and one that does not. The base gets the second one wrong.
const SUITE: &str = "{\"suite\": {\"max_tokens\": 40, \"repeats\": 2}}\n\
    {\"prompt\": \"I wonder. Is it raining in Paris now?\", \"tool_call\": {\"name\": \"get_weather\", \"arguments\": {\"city\": \"Paris\"}}}\n\
    {\"messages\": [{\"role\": \"user\", \"content\": \"Could you help? What is the capital of Spain?\"}], \"contains\": \"Madrid\", \"expect\": \"direct\"}\n";

struct Space(tempfile::TempDir);

struct Run {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Space {
    /// A project with the example's model and adapter, `nodes`, and the suite.
    fn new(nodes: &str) -> Self {
        let space = Self(tempfile::tempdir().unwrap());
        let tiny = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/tiny");
        std::os::unix::fs::symlink(tiny, space.0.path().join("tiny")).unwrap();
        space.write("suite.jsonl", SUITE);
        space.nodes(nodes);
        space
    }

    fn nodes(&self, nodes: &str) {
        self.write("pipeline.yaml", &(NODES.to_owned() + nodes));
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.0.path().join(name), text).unwrap();
    }

    fn run(&self, arguments: &[&str]) -> Run {
        let output = Command::new(env!("CARGO_BIN_EXE_pipeline"))
            .arg("-C")
            .arg(self.0.path())
            .args(arguments)
            .output()
            .unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Run { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
    }

    fn json<T: DeserializeOwned>(&self, path: &str) -> T {
        serde_json::from_slice(&fs::read(self.0.path().join("artifacts").join(path)).unwrap()).unwrap()
    }
}

fn benchmark(rest: &str) -> String {
    format!(
        "  benchmark: {{stage: benchmark, suite: suite.jsonl, configs: {{base: base, fused: fused-f16}}{rest}}}\n"
    )
}

#[test]
fn a_gate_fails_the_node_after_its_report_is_kept() {
    let space = Space::new(&benchmark(", gates: {base: {accuracy: '>= 1.0'}, fused: {accuracy: '>= 1.0'}}"));
    let failure =
        "the gate failed: `base` must have accuracy >= 100.0%, but it is 50.0% (1/2, 95%: 9 to 91%)";
    let run = space.run(&["build"]);
    assert_eq!(run.code, Some(1), "{}", run.stderr);
    assert!(run.stderr.contains(&format!("benchmark: failed: {failure}\n")), "{}", run.stderr);
    assert_eq!(run.stdout, "ran 4 nodes, 1 failed, measured 4 queries\n");
    let judgement: Judgement = space.json("benchmark/verdicts.json");
    assert_eq!(judgement.gates.iter().map(|gate| gate.pass).collect::<Vec<_>>(), [false, true]);
    assert!(judgement.gates[0].advice[0].contains("more bits"), "{:?}", judgement.gates[0].advice);
    // A benchmark that fails its gates is kept and shown, but not locked. It fails again without being
    // measured again.
    assert!(!fs::read_to_string(space.0.path().join("pipeline.lock")).unwrap().contains("benchmark"));
    let again = space.run(&["build"]);
    assert_eq!((again.code, again.stdout.as_str()), (Some(1), "ran 0 nodes, 3 up to date, 1 failed\n"));
    assert!(again.stderr.contains(failure), "{}", again.stderr);
    assert!(space.run(&["status"]).stdout.contains(&format!("benchmark  up to date, but {failure}")));

    // Other gates on the same measurements: nothing is measured again, unless the user asks for it.
    let timings: Value = space.json("benchmark/timings.json");
    space.nodes(&benchmark(", gates: {fused: {accuracy: '>= 1.0'}}"));
    let run = space.run(&["build"]);
    assert_eq!(
        (run.code, run.stdout.as_str()),
        (Some(0), "ran 1 node, 3 up to date, remembered 4 queries\n"),
        "{}",
        run.stderr
    );
    assert_eq!(space.run(&["build"]).stdout, "nothing to do: 4 nodes up to date\n");
    assert_eq!(space.json::<Value>("benchmark/timings.json"), timings);
    assert_eq!(
        space.run(&["build", "--force", "benchmark"]).stdout,
        "ran 1 node, 3 up to date, measured 4 queries\n"
    );
    assert_ne!(space.json::<Value>("benchmark/timings.json"), timings);
}

#[test]
fn a_sweep_is_measured_and_concluded_of() {
    let rest = "  \"{bits}bit\": {stage: quantize, model: fused-f16, matrix: {bits: [8, 2]}}\n  \
                benchmark:\n    stage: benchmark\n    suite: suite.jsonl\n    configs: {\"{bits}bit\": \"{bits}bit\"}\n    \
                verdicts:\n      2bit: {against: 8bit, optimal: {disk: '<= 0.1x'}, minimum: {accuracy: '>= 1.0', disk: '<= 0.2x'}, otherwise: stick with 8bit}\n      \
                8bit: {minimum: {accuracy: '>= 1.0'}}\n";
    let space = Space::new(rest);
    let run = space.run(&["build"]);
    assert_eq!(
        (run.code, run.stdout.as_str()),
        (Some(0), "ran 6 nodes, measured 4 queries\n"),
        "{}",
        run.stderr
    );
    let judgement: Judgement = space.json("benchmark/verdicts.json");
    let [two, eight] = &judgement.verdicts[..] else { panic!() };
    assert_eq!((two.conclusion, eight.conclusion), (Conclusion::Otherwise, Conclusion::Minimum));
    assert_eq!(two.otherwise.as_deref(), Some("stick with 8bit"));
    assert!(two.minimum[0].pass && !two.minimum[1].pass && !two.optimal[0].pass);
    assert_eq!(two.advice, ["larger groups: `group_size: 128`"]);
    let results: Results = space.json("benchmark/results.json");
    assert_eq!(results.configs["8bit"].accuracy_interval, report::wilson(2, 2));
    let scores = &results.configs["8bit"].answers[1].scores;
    assert_eq!(scores.keys().collect::<Vec<_>>(), ["expect", "contains"]);
    let timings: Value = space.json("benchmark/timings.json");
    assert_eq!(timings["configs"]["8bit"]["repeats"], 2);
}

#[test]
fn two_configs_and_two_locks_are_compared() {
    let space = Space::new(&benchmark(""));
    assert_eq!(space.run(&["build"]).code, Some(0));
    let run = space.run(&["diff", "base", "fused"]);
    let lines: Vec<_> = run.stdout.lines().collect();
    assert!(lines[1].starts_with("accuracy") && lines[1].ends_with("+50.0 points"), "{}", run.stdout);
    let answers = run.stdout.split("\n\n").nth(1).unwrap();
    assert!(
        answers.starts_with(
            "1 answer differs (McNemar's exact p = 1.00)\nright in base only: 0, in fused only: 1"
        )
    );
    assert!(
        answers.contains("- Could you help? What is the capital of Spain?\n  base   fail  "),
        "{answers}"
    );
    assert!(run.stdout.lines().all(|line| line.chars().count() <= 80), "{}", run.stdout);
    let run = space.run(&["diff", "base", "fuse"]);
    assert_eq!((run.code, run.stderr.contains("has the configs `base` and `fuse`")), (Some(2), true));

    assert!(space.run(&["diff"]).stdout.contains("benchmark  as in the lock\n"));
    let lock = fs::read_to_string(space.0.path().join("pipeline.lock")).unwrap();
    space.write("old.lock", &lock);
    space.write("suite.jsonl", &SUITE.replace("Madrid", "Lisbon"));
    assert!(space.run(&["diff"]).stdout.contains("benchmark  not built as it is now"));
    assert_eq!(space.run(&["build"]).code, Some(0));
    let run = space.run(&["diff", "--lock", "old.lock"]);
    assert_eq!(run.code, Some(1), "a lock is looked for where the command is given: {}", run.stdout);
    let old = space.0.path().join("old.lock");
    let run = space.run(&["diff", "--lock", old.to_str().unwrap()]);
    assert!(run.stdout.contains("in the lock\n"), "{}", run.stdout);
    assert!(
        run.stdout.contains("right in fused in the lock only: 1, in fused now only: 0"),
        "{}",
        run.stdout
    );
}

#[test]
fn what_the_suite_cannot_answer_is_refused_before_anything_runs() {
    let space = Space::new("");
    for (rest, message) in [
        (", gates: {base: {perplexity: '<= 9'}}", "`perplexity` is asked for, but the suite"),
        (", gates: {base: {exact: '>= 1'}}", "lacks an `answer`"),
        (", reference: base", "`reference` needs `texts` in the suite"),
        (", gates: {base: {kl: '<= 1'}}", "lacks `texts`"),
    ] {
        space.nodes(&benchmark(rest));
        let run = space.run(&["build"]);
        assert_eq!(run.code, Some(2), "{}", run.stderr);
        assert!(run.stderr.contains(message) && run.stderr.contains("pipeline.yaml:6:3"), "{}", run.stderr);
    }
    assert!(!space.0.path().join("artifacts/base").exists());
}

#[test]
fn texts_are_read_as_mlx_lm_reads_them() {
    let space = Space::new(
        "  \"{bits}bit\": {stage: quantize, model: fused-f16, matrix: {bits: [8, 6, 4]}}\n  \
         benchmark:\n    stage: benchmark\n    suite: texts.yaml\n    reference: fused-f16\n    \
         configs: {base: base, adapter: {model: base, adapter: adapter}, fused-f16: fused-f16, \"{bits}bit\": \"{bits}bit\"}\n",
    );
    let suite = fs::read_to_string(space.0.path().join("tiny/discrimination.yaml")).unwrap();
    let texts = suite.split("\ntexts:\n").nth(1).unwrap();
    space.write("texts.yaml", &format!("name: texts\ntexts:\n{texts}"));
    let run = space.run(&["build"]);
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    let results: Results = space.json("benchmark/results.json");
    let results = results.with_text_evals(&space.json("benchmark/readings.json"));
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/reading.json");
    let golden: Value = serde_json::from_slice(&fs::read(golden).unwrap()).unwrap();
    assert_eq!(results.configs.len(), 6);
    for (name, ours) in &results.configs {
        let (perplexity, divergence) = (ours.perplexity.unwrap(), ours.divergence.unwrap());
        let close = |ours: f64, key: &str, tolerance: f64| {
            let theirs = golden[name][key].as_f64().unwrap();
            assert!(
                (ours - theirs).abs() <= tolerance + theirs * 1e-3,
                "{name} {key}: {ours}, mlx-lm {theirs}"
            );
        };
        assert_eq!(perplexity.tokens, 334);
        close(perplexity.value, "perplexity", 0.0);
        close(perplexity.standard_error, "standard_error", 0.0);
        // Where mlx-lm has 0, rounding in float32 may give some 1e-7.
        close(divergence.mean_kl, "mean_kl", 1e-6);
        close(divergence.standard_error, "kl_standard_error", 1e-6);
        // One of the 334 tokens is a close call and may be decided differently.
        close(divergence.top1_agreement, "top1_agreement", 1.1 / 334.0);
    }
}

#[test]
fn what_runs_out_of_its_budget_is_not_scored() {
    let space = Space::new("");
    let root = space.0.path();
    let copied = Command::new("cp").args(["-r", "tiny/base-4bit/.", "endless"]).current_dir(root).status();
    assert!(copied.unwrap().success());
    // One of the prompts sends the template into a loop. One of the patterns backtracks without end.
    space.write(
        "endless/chat_template.jinja",
        "{% for message in messages %}{% if 'loop' in message.content %}{% for a in range(9999) %}{% for b in range(9999) %}\
         {% set c = b %}{% endfor %}{% endfor %}{% endif %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n\
         {% endfor %}<|im_start|>assistant\n",
    );
    space.write(
        "suite.jsonl",
        "{\"suite\": {\"max_tokens\": 8}}\n{\"prompt\": \"Please loop.\", \"contains\": \"x\"}\n\
         {\"prompt\": \"Hello.\", \"regex\": \"(?=([^q]+[^q]*)+\\\\1q)x\"}\n\
         {\"prompt\": \"Hello.\", \"contains\": \"surely not this\"}\n",
    );
    space.write(
        "pipeline.yaml",
        "version: 1\nnodes:\n  base: {stage: base, source: endless}\n  \
         benchmark: {stage: benchmark, suite: suite.jsonl, configs: {base: base}}\n",
    );
    let run = space.run(&["build"]);
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    let results: Results = space.json("benchmark/results.json");
    let base = &results.configs["base"];
    let reasons: Vec<_> = base.answers.iter().map(|answer| answer.not_scored.as_deref()).collect();
    assert!(reasons[0].unwrap().starts_with("its chat template ran out of its budget"), "{reasons:?}");
    assert!(reasons[1].unwrap().starts_with("its `regex` ran out of its budget"), "{reasons:?}");
    assert_eq!((reasons[2], base.correct, base.total, base.not_scored), (None, 0, 1, 2));
    let report = space.run(&["report", "--format", "md"]).stdout;
    assert_eq!(report.matches("not scored (its").count(), 2, "{report}");
}
