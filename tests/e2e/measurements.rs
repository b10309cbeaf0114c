//! What a benchmark has measured is never measured again: after an interruption, with another config, with another query,
//! or on a teammate's machine.

use std::collections::BTreeMap;
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::bucket::Bucket;
use crate::kills::{Dice, seed};
use crate::pico::{PICO, complete_model};
use crate::remote::Team;
use crate::soak::is_soak;
use crate::space::{Run, Space};

const BENCHMARK: &str =
    "  b: {stage: benchmark, device: cpu, suite: suite.yaml, configs: {q8: q8, q4: q4}, reference: q8}\n";

/// A suite of this many queries and two texts.
fn suite(queries: usize) -> String {
    let queries = (0..queries).map(|number| format!("- {{prompt: w{number} w2 w3, contains: w4}}\n"));
    let queries: String = queries.collect();
    format!("name: s\nmax_tokens: 6\nqueries:\n{queries}texts:\n- w1 w2 w3 w4 w5 w6 w7 w8\n- w9 w8 w7 w6\n")
}

/// A project with a benchmark of six queries, not built.
fn project() -> Space {
    let space = Space::pico();
    complete_model(&space.path("model"), PICO);
    space.write("suite.yaml", suite(6));
    let text = space.read("pipeline.yaml");
    space.write("pipeline.yaml", text + BENCHMARK);
    space
}

/// Returns how many queries and texts were measured and remembered: `[queries, remembered, texts, remembered]`.
fn counted(run: &Run<'_>) -> [u64; 4] {
    let counted = run.events("finished")[0]["counted"].clone();
    ["measured_queries", "remembered_queries", "measured_texts", "remembered_texts"]
        .map(|name| counted[name].as_u64().unwrap())
}

/// Returns every line of the records of measurements in the cache.
fn recorded(space: &Space) -> Vec<Value> {
    let actions = space.files("cache/actions").into_values();
    let actions = actions.map(|bytes| serde_json::from_slice::<Value>(&bytes).unwrap());
    let mut lines = Vec::new();
    for action in actions {
        for file in action["artifact"].as_array().unwrap() {
            if file["path"] == "measurements.jsonl" {
                let digest = file["digest"].as_str().unwrap();
                let text = space.read(&format!("cache/objects/{}/{}", &digest[..2], &digest[2..]));
                lines.extend(text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()));
            }
        }
    }
    lines
}

/// Returns how often each question was answered, and how often each text was read.
fn times(space: &Space) -> Vec<usize> {
    let mut times: BTreeMap<String, usize> = BTreeMap::new();
    // The same question to two configs is two lines with one digest, but of two records.
    for line in recorded(space) {
        let key = line["answer"]["question"].as_str().or(line["reading"]["text"].as_str());
        if let Some(key) = key {
            *times.entry(key.to_owned()).or_default() += 1;
        }
    }
    times.into_values().collect()
}

#[test]
fn only_what_is_new_is_measured() {
    let space = project();
    assert_eq!(counted(&space.build().exits(0)), [12, 0, 4, 0]);
    let results = space.bytes("artifacts/b/results.json");
    // Another config.
    space.edit("q4: q4}", "q4: q4, fused: fused}");
    assert_eq!(counted(&space.build().exits(0)), [6, 12, 2, 4]);
    // Another query, and one that is gone.
    space.write("suite.yaml", suite(5).replace("w3 w2 w3", "w7 w7 w7"));
    assert_eq!(counted(&space.build().exits(0)), [3, 12, 0, 6]);
    // More repeats: the answers are known once.
    space.edit_file("suite.yaml", "max_tokens: 6", "max_tokens: 6\nrepeats: 2");
    assert_eq!(counted(&space.build().exits(0)), [15, 0, 0, 6]);
    assert!(times(&space).iter().all(|times| *times <= 3 * 2), "{:?}", times(&space));
    // Back to the beginning: everything is known.
    space.write("suite.yaml", suite(6)).edit(", fused: fused}", "}").remove("cache/memo");
    let run = space.run(&["build", "--json", "b"]).exits(0);
    assert_eq!(run.events("finished")[0]["ran"], json!([]), "{}", run.transcript());
    assert_eq!(space.bytes("artifacts/b/results.json"), results);
    assert_eq!(counted(&space.build_with(&["--force", "b"]).exits(0)), [12, 0, 4, 0]);
}

#[test]
fn the_log_probabilities_of_the_reference_are_measured_once() {
    let space = project();
    space.build().exits(0).space();
    let loads = || recorded(&space).iter().filter(|line| line.get("load").is_some()).count();
    let readings = space.read("artifacts/b/readings.json");
    assert_eq!(loads(), 2);
    // The reference need not run for another config.
    space.edit("q4: q4}", "q4: q4, fused: fused}").build().exits(0).space();
    assert_eq!(loads(), 3);
    // If its file is gone, it is made again, and the figures are the same bits.
    let objects = space.files("cache/objects");
    let (path, _) =
        objects.iter().find(|(_, bytes)| bytes.starts_with(b"pipeline log-probabilities")).unwrap();
    space.remove(path).edit("q4: q4, fused: fused}", "q4: q4, fused: fused, base: base}");
    assert_eq!(counted(&space.build().exits(0)), [6, 18, 3, 5]);
    let again: Value = serde_json::from_str(&space.read("artifacts/b/readings.json")).unwrap();
    let before: Value = serde_json::from_str(&readings).unwrap();
    for config in ["q8", "q4"] {
        assert_eq!(again[config], before[config]);
    }
    let divergence = &before["q8"]["divergence"];
    for name in ["mean_kl", "median", "p99", "p99_9", "max", "delta_p", "flips"] {
        assert_eq!(divergence[name].as_f64(), Some(0.0), "{name}: {divergence}");
        assert!(before["q4"]["divergence"][name].is_number());
    }
}

#[test]
fn a_teammate_measures_only_what_is_new() {
    let team = Team::on(Bucket::folder());
    let first = team.join(project(), 0);
    first.build().exits(0).space();
    let second = team.second(&first);
    second.edit("q4: q4}", "q4: q4, fused: fused}");
    // The reference reads its texts again: its log probabilities are large, and stay where they were made.
    assert_eq!(counted(&second.build().exits(0)), [6, 12, 4, 2]);
    // What the second measured, the first need not measure.
    first.edit("q4: q4}", "q4: q4, fused: fused}").write("suite.yaml", suite(7));
    assert_eq!(counted(&first.build().exits(0)), [3, 18, 0, 6]);
    // Nobody who is not trusted is believed.
    let stranger = Team::on(Bucket::folder());
    let mut third = stranger.join(project(), 0);
    third.set_variable("PIPELINE_REMOTE", &team.bucket.url());
    assert_eq!(counted(&third.build().exits(0)), [12, 0, 4, 0]);
}

#[test]
#[allow(clippy::print_stderr, reason = "the figures are what this is for")]
fn a_benchmark_that_was_killed_goes_on_where_it_was() {
    let count = if is_soak() { 50 } else { 4 };
    let mut dice = Dice(seed() ^ 16);
    let space = project();
    space.write("suite.yaml", suite(24));
    space.build().exits(0).space();
    let (results, readings) =
        (space.bytes("artifacts/b/results.json"), space.bytes("artifacts/b/readings.json"));
    let total = 2 * (24 + 2) + 2;
    for round in 0..count {
        space.remove("cache/actions").remove("cache/objects").remove("artifacts").remove("cache/memo");
        let _ = std::fs::remove_dir_all(space.path("cache/measuring"));
        drop(space.run(&["build", "q8", "q4"]).exits(0));
        let mut kills = 0;
        for _ in 0..3 {
            let stop = 1 + usize::try_from(dice.roll() % total).unwrap();
            kills += usize::from(kill_after(&space, stop));
        }
        drop(space.build().exits(0));
        let case = format!("round {round}, {kills} kills");
        assert!(times(&space).iter().all(|times| *times <= 2), "{case}: {:?}", times(&space));
        assert_eq!(times(&space).iter().sum::<usize>(), 2 * (24 + 2), "{case}");
        assert_eq!(space.bytes("artifacts/b/results.json"), results, "{case}");
        assert_eq!(space.bytes("artifacts/b/readings.json"), readings, "{case}");
        assert_eq!(space.names("cache/measuring"), Vec::<String>::new(), "{case}");
    }
    eprintln!("{count} benchmarks, each killed up to three times: no query was measured twice");
}

/// Starts a build, and kills it as soon as the journals have this many lines. Returns whether it was still running.
fn kill_after(space: &Space, lines: usize) -> bool {
    let mut child = space.command().arg("build").stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let begin = Instant::now();
    let written = || {
        let journals = space.files("cache/measuring").into_values();
        journals.map(|bytes| bytes.iter().filter(|byte| **byte == b'\n').count()).sum::<usize>()
    };
    while child.try_wait().unwrap().is_none() {
        assert!(begin.elapsed() < Duration::from_secs(60), "the build hangs");
        if written() >= lines {
            child.kill().unwrap();
            child.wait().unwrap();
            return true;
        }
        thread::sleep(Duration::from_micros(200));
    }
    false
}

#[test]
fn a_query_may_be_sampled_and_a_text_may_lie_in_a_file() {
    let space = project();
    space.write("wiki.txt", "w1 w2 w3 w4 w5 w6 w7 w8");
    let queries = "- {prompt: w1 w2, contains: w4, category: git, weight: 3, samples: 3, temperature: 2}\n\
                   - {prompt: w9, contains: [w4, w5]}\n";
    space.write(
        "suite.yaml",
        format!("name: s\nmax_tokens: 6\nqueries:\n{queries}texts: {{file: wiki.txt, tokens: 5}}\n"),
    );
    space.edit("reference: q8", "reference: q8, gates: {q8: {'accuracy[git]': '>= 0', kl_p99: '<= 1'}}");
    assert_eq!(counted(&space.build().exits(0)), [4, 0, 2, 0]);
    let results: Value = serde_json::from_str(&space.read("artifacts/b/results.json")).unwrap();
    let q8 = &results["configs"]["q8"];
    let samples = q8["answers"][0]["samples"].as_array().unwrap();
    assert_eq!(
        (samples.len(), &q8["pass_at_k"]["k"], &q8["categories"]["git"]["total"]),
        (3, &json!(3), &json!(1))
    );
    // Hot samples of a random model differ, and come out the same again.
    assert!(samples[0] != samples[1] || samples[0] != samples[2], "{samples:?}");
    let before = space.bytes("artifacts/b/results.json");
    drop(space.build_with(&["--force", "b"]).exits(0));
    assert_eq!(space.bytes("artifacts/b/results.json"), before);
    let readings: Value = serde_json::from_str(&space.read("artifacts/b/readings.json")).unwrap();
    assert_eq!(readings["q4"]["perplexity"]["tokens"], 4);

    // The text is part of the key.
    space.write("wiki.txt", "w8 w7 w6 w5 w4");
    assert_eq!(counted(&space.build().exits(0)), [0, 4, 2, 0]);
    space.build().ran([]);
    // A gate on what the suite does not have is refused before anything runs.
    space.edit("accuracy[git]", "accuracy[math]");
    let run = space.build().exits(2);
    assert!(run.transcript().contains("`accuracy[math]` is asked for, but"), "{}", run.transcript());
}

#[test]
fn a_prompt_is_shown_with_the_date_and_the_arguments() {
    let space = project();
    let template = "{{ strftime_now('%F') }} {{ thinking | default('on') }}: {{ messages[0].content }}";
    space.write("model/chat_template.jinja", template);
    space.write("suite.yaml", "name: s\ndate: 2025-03-04\nqueries:\n- {prompt: w1, contains: w4}\n");
    space.edit(
        "configs: {q8: q8, q4: q4}, reference: q8",
        "configs: {q8: q8, q4: {model: q4, chat_template_args: {thinking: 'off'}}}",
    );
    let run = space.run(&["report", "--show-prompt", "b"]).exits(1);
    assert!(
        run.stderr.contains("its input `q8` is not built; `pipeline build q8` makes it"),
        "{}",
        run.stderr
    );
    drop(space.run(&["build", "q8", "q4"]).exits(0));
    let run = space.run(&["report", "--show-prompt", "b"]).exits(0);
    assert_eq!(run.stdout, "# query 1: q8\n2025-03-04 on: w1\n\n# query 1: q4\n2025-03-04 off: w1\n");
    let run = space.run(&["report", "--show-prompt", "q8"]).exits(2);
    assert!(run.stderr.contains("`q8` is no benchmark"), "{}", run.stderr);
}

#[test]
fn a_record_that_this_machine_did_not_make_is_not_read() {
    let space = project();
    space.build().exits(0).space();
    // Somebody else put the records there: they lack the mark.
    for path in space.files("cache/actions").into_keys() {
        let mut action: Value = serde_json::from_str(&space.read(&path)).unwrap();
        let is_measured =
            action["artifact"].as_array().unwrap().iter().any(|file| file["path"] == "measurements.jsonl");
        if is_measured {
            action.as_object_mut().unwrap().remove("mark");
            space.write(&path, action.to_string());
        }
    }
    space.write("suite.yaml", suite(7));
    assert_eq!(counted(&space.build().exits(0)), [14, 0, 4, 0]);
}

#[test]
fn two_names_of_one_model_are_measured_once() {
    let space = project();
    space.edit("q8: q8, q4: q4", "q8: q8, again: q8, '4': {model: q4, chat_template_args: {a: 1}}, q4: q4");
    // The same text is read once of each model; another argument makes another question.
    assert_eq!(counted(&space.build().exits(0)), [18, 6, 4, 4]);
}

#[test]
fn a_suite_names_no_file_outside_its_folder() {
    let space = project();
    space.write("suites/suite.yaml", "name: s\ntexts: [{file: ../secret}]\n").write("secret", "w1 w2 w3");
    space.edit("suite: suite.yaml", "suite: suites/suite.yaml");
    let refused = |problem: &str| {
        let run = space.build().exits(2);
        assert!(run.transcript().contains(problem), "{}", run.transcript());
    };
    refused("must lie in the suite's folder or below");
    std::os::unix::fs::symlink("../secret", space.path("suites/link")).unwrap();
    space.write("suites/suite.yaml", "name: s\ntexts: [{file: link}]\n");
    refused("is a link that leads out of the suite's folder");
    // A pipe that nobody writes into is not waited for.
    assert!(std::process::Command::new("mkfifo").arg(space.path("suites/pipe")).status().unwrap().success());
    space.write("suites/suite.yaml", "name: s\ntexts: [{file: pipe}]\n");
    refused("`pipe` is not a file");
    space.run(&["status"]).exits(0).space();
}
