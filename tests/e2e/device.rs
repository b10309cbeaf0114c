//! Benchmarks on the CPU runtime are results: reproduced, verified, locked and shared like weights.

use serde_json::Value;

use crate::bucket::Bucket;
use crate::pico::{PICO, Size, complete_model};
use crate::remote::Team;
use crate::space::Space;

const BENCHMARK: &str =
    "  b: {stage: benchmark, suite: suite.yaml, configs: {q8: q8, q4: q4}, reference: q8}\n";

const SUITE: &str = "name: s\nmax_tokens: 6\nqueries:\n- {prompt: w1 w2 w3, contains: w4}\n- {prompt: w9 w8, contains: w4}\n\
                     texts:\n- w1 w2 w3 w4 w5 w6 w7 w8 w9\n";

/// A project with a model of this size that runs, and with a benchmark.
fn with_benchmark(size: Size, benchmark: &str) -> Space {
    let space = Space::of(size);
    complete_model(&space.path("model"), size);
    space.write("suite.yaml", SUITE);
    let text = space.read("pipeline.yaml");
    space.write("pipeline.yaml", text + benchmark);
    space
}

fn benchmarked() -> Space {
    let space = with_benchmark(PICO, BENCHMARK);
    space.build_with(&["--device", "cpu"]).exits(0).space();
    space
}

/// Returns a digest of a node in `pipeline.lock`.
fn locked(lock: &str, node: &str, what: &str) -> String {
    let line = lock.lines().find(|line| line.starts_with(&format!("\"{node}\":"))).unwrap();
    line.split_once(&format!("{what}: ")).unwrap().1[..64].to_owned()
}

#[test]
fn a_benchmark_is_reproduced_verified_and_locked() {
    let space = benchmarked();
    let results = space.bytes("artifacts/b/results.json");
    let readings = space.bytes("artifacts/b/readings.json");
    let timings: Value = serde_json::from_str(&space.read("artifacts/b/timings.json")).unwrap();
    assert_eq!(timings["machine"]["backend"], "cpu runtime 1");
    space.build_with(&["--device", "cpu"]).ran([]);
    space.run(&["verify", "--device", "cpu", "b"]).exits(0).space();

    // A fresh clone, as in CI: nothing is built, and the lock must be met.
    let clone = space.cloned();
    clone.build_with(&["--device", "cpu", "--locked"]).exits(0).space();
    assert_eq!(clone.bytes("artifacts/b/results.json"), results);
    assert_eq!(clone.bytes("artifacts/b/readings.json"), readings);

    // A reading that was locked with another value.
    let lock = space.read("pipeline.lock");
    let other = space.cloned();
    let digest = locked(&lock, "b", "artifact");
    other.write("pipeline.lock", lock.replace(&digest, &"0".repeat(digest.len())));
    let run = other.build_with(&["--device", "cpu", "--locked"]).exits(1);
    let failed = run.events("failed")[0].clone();
    assert!(failed["error"].as_str().unwrap().starts_with("its artifact is "), "{failed}");
}

#[test]
fn the_file_and_the_command_line_choose_the_device() {
    let space = benchmarked();
    // On another device it is another measurement.
    let planned = space.build_with(&["-n", "--device", "mlx"]).exits(0).json();
    let change = planned.iter().find_map(|line| line["changes"].get(0)).unwrap();
    assert_eq!((&change["change"], &change["old"]), (&"backend".into(), &"cpu runtime 1".into()));
    assert!(change["new"].as_str().unwrap().starts_with("mlx "), "{change}");
    // What the file says counts more.
    space.edit("reference: q8", "reference: q8, device: cpu");
    space.build_with(&["-n", "--device", "mlx", "--exit-code"]).exits(0).space();
    space.edit("device: cpu", "device: gpu");
    let run = space.build().exits(2);
    assert!(run.stderr.contains("`device`") && run.stderr.contains("auto"), "{}", run.transcript());
}

#[test]
fn a_model_that_does_not_run_is_refused_before_anything_runs() {
    let space = with_benchmark(PICO, BENCHMARK);
    let config: Value = serde_json::from_str(&space.read("model/config.json")).unwrap();
    let refused = |key: &str, value: Value, why: &str| {
        let mut config = config.clone();
        config[key] = value;
        space.write("model/config.json", config.to_string());
        for arguments in [&["--device", "cpu"][..], &["-n", "--device", "cpu"]] {
            let run = space.build_with(arguments).exits(2);
            assert!(run.stderr.contains("node `b`: ") && run.stderr.contains(why), "{}", run.transcript());
            assert!(!run.stderr.contains('…'), "the list is whole: {}", run.transcript());
        }
        assert!(!space.path("artifacts").exists());
        // Without the benchmark it is built as any other.
        space.run(&["build", "-n", "q8"]).exits(0).space();
    };
    refused("model_type", "mamba".into(), "model_type \"mamba\" is not supported (supported: ");
    refused("num_attention_heads", 0.into(), "no attention heads");
}

#[cfg(not(any(feature = "mlx", target_os = "macos")))]
#[test]
fn a_program_without_mlx_says_how_to_get_one_with_it() {
    let space = benchmarked();
    let run = space.build_with(&["--device", "mlx"]).exits(1);
    let failed = run.events("failed")[0].clone();
    assert!(failed["error"].as_str().unwrap().contains("build it with `--features mlx`"), "{failed}");
}

#[test]
fn what_no_time_decides_is_shared_between_all_machines() {
    let timed =
        "  t: {stage: benchmark, suite: suite.yaml, configs: {q8: q8}, gates: {q8: {load: \"< 100 s\"}}}\n";
    let team = Team::on(Bucket::folder());
    let first = team.join(with_benchmark(PICO, &format!("{BENCHMARK}{timed}")), 0);
    first.build_with(&["--device", "cpu"]).exits(0).space();
    let has_record = |node: &str| {
        let name = format!("actions/{}.json", locked(&first.read("pipeline.lock"), node, "key"));
        team.bucket.names().contains(&name)
    };
    // A record under its key alone is found by every machine. That of a machine's class has another name.
    assert!(has_record("b") && !has_record("t"));
    let second = team.second(&first);
    let run = second.build_with(&["--device", "cpu"]).exits(0);
    assert!(run.nodes("fetched").contains(&"b".to_owned()), "{}", run.transcript());
    assert_eq!(second.bytes("artifacts/b/readings.json"), first.bytes("artifacts/b/readings.json"));
}

/// Weights stay packed: a config takes its file and little more.
#[test]
fn a_config_takes_the_memory_of_its_file() {
    let space = with_benchmark(Size { hidden: 1024, layers: 6 }, BENCHMARK);
    space.build_with(&["--device", "cpu"]).exits(0).space();
    let timings: Value = serde_json::from_str(&space.read("artifacts/b/timings.json")).unwrap();
    let results: Value = serde_json::from_str(&space.read("artifacts/b/results.json")).unwrap();
    let memory = |config: &str| timings["configs"][config]["peak_memory_bytes"].as_u64().unwrap();
    let disk = |config: &str| results["configs"][config]["disk_bytes"].as_u64().unwrap();
    for config in ["q8", "q4"] {
        assert!(
            memory(config) < disk(config) + 60_000_000,
            "{config}: {} of {}",
            memory(config),
            disk(config)
        );
    }
    // 64 million weights take 30 MB less at 4 bits.
    assert!(memory("q4") + 20_000_000 < memory("q8"), "{} and {}", memory("q4"), memory("q8"));
}
