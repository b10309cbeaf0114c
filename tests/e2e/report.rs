//! What `pipeline report` prints of a benchmark that was built, in each of its formats.

use std::path::PathBuf;

use crate::space::{STATE_HOME, Space};
use artifact::{Artifact, Digest, FileEntry};
use engine::store::{LocalState, MachineSecret};
use report::{
    AllTimings, Answer, Bound, ConfigResults, Criterion, Divergence, Gate, Judgement, Machine, Perplexity,
    Quantity, Report, Results, Timings, Verdict, judge, wilson,
};

#[path = "../sample/mod.rs"]
mod sample;

use sample::Sample;

/// A project with these benchmarks, with results as a build leaves them.
fn built(benchmarks: &[(&str, Sample)]) -> Space {
    let space = Space::pico();
    space.write("suite.yaml", "name: discrimination\nqueries:\n  - {prompt: Is it raining?, expect: tool}\n");
    for (name, Sample { results, timings, judgement }) in benchmarks {
        space.edit(
            "nodes:\n",
            &format!("nodes:\n  {name}: {{stage: benchmark, suite: suite.yaml, configs: {{base: base}}}}\n"),
        );
        let files = [
            ("results.json", serde_json::to_vec(results).unwrap()),
            ("readings.json", serde_json::to_vec(&results.text_evals()).unwrap()),
            ("timings.json", serde_json::to_vec(timings).unwrap()),
            ("verdicts.json", serde_json::to_vec(judgement).unwrap()),
        ];
        put(&space, name, &files);
    }
    space
}

/// Puts files into `artifacts/` and into the local state, as a build of the node does.
fn put(space: &Space, node: &str, files: &[(&str, Vec<u8>)]) {
    let entry = |(path, bytes): &(&str, Vec<u8>)| FileEntry {
        digest: Digest::of(bytes),
        path: (*path).to_owned(),
        size: bytes.len() as u64,
        volatile: *path != "results.json",
    };
    let artifact = Artifact::new(files.iter().map(entry).collect());
    let folder = format!("{node}-{}", artifact.digest().short());
    for (name, bytes) in files {
        space.write(&format!("artifacts/{folder}/{name}"), bytes);
    }
    std::os::unix::fs::symlink(folder, space.path(&format!("artifacts/{node}"))).unwrap();
    for folder in ["objects", "actions"] {
        std::fs::create_dir_all(space.path("cache").join(folder)).unwrap();
    }
    let secret = MachineSecret::at(PathBuf::from(STATE_HOME).join("pipeline/machine-secret"));
    let mut state = LocalState::load(&space.path("cache/memo"), &secret);
    state.nodes.set(node, Digest::of(node.as_bytes()), &artifact, None);
    space.write("cache/memo", state.changed(&secret).unwrap());
}

#[test]
fn what_lies_in_the_artifacts_is_not_taken_for_a_result() {
    let space = built(&[("bench", sample::plain())]);
    drop(space.run(&["report"]).exits(0));
    let results = format!("artifacts/{}/results.json", space.link("artifacts/bench"));
    let text = space.read(&results);
    for forged in [text.replace("\"correct\":3", "\"correct\":5"), "\"TOPSECRET\"".to_owned()] {
        space.write(&results, forged);
        let run = space.run(&["report"]).exits(1);
        assert!(!run.stderr.contains("TOPSECRET") && run.stdout.is_empty(), "{}", run.transcript());
    }
    space.write(&results, text);
    drop(space.run(&["report"]).exits(0));
    // Nor is what came with a checkout.
    space.remove("cache/memo");
    assert!(space.run(&["report"]).exits(1).stderr.contains("there is no result of `bench` yet"));
}

#[test]
fn a_table_where_nothing_was_asked() {
    let space = built(&[("bench", sample::plain())]);
    insta::assert_snapshot!(space.run(&["report"]).exits(0).transcript(), @r"
    exit 0
    stdout:
    config    correct    accuracy exact   disk bits/weight   load  memory  decode
    base          3/5   60% 23-88   3/5 1.9 MB        4.52 [TIME] s 27.4 MB 154 t/s
    adapter       5/5 100% 57-100   5/5 2.5 MB        5.91 [TIME] s 27.4 MB 119 t/s
    fused-f16     5/5 100% 57-100   5/5 6.6 MB       16.00 [TIME] s 27.4 MB 336 t/s
    8bit          5/5 100% 57-100   5/5 3.5 MB        8.51 [TIME] s 27.4 MB 145 t/s
    6bit          5/5 100% 57-100   5/5 2.7 MB        6.51 [TIME] s 27.4 MB 153 t/s
    4bit          3/5   60% 23-88   3/5 1.9 MB        4.52 [TIME] s 27.4 MB 133 t/s
    ");
}

#[test]
fn a_table_and_what_was_decided() {
    let space = built(&[("bench", sample::rich())]);
    let report = space.run(&["report", "bench"]).exits(0);
    assert!(report.stdout.lines().all(|line| line.chars().count() <= 80));
    insta::assert_snapshot!(report.transcript(), @r"
    exit 0
    stdout:
    config    correct    accuracy  perplexity     KL survival   disk  memory  decode
    base          3/5   60% 23-88 14.21 ±0.30 0.9131        - 1.9 MB 27.4 MB 154 t/s
    adapter       5/5 100% 57-100  9.87 ±0.21 0.0310        - 2.5 MB 27.4 MB 119 t/s
    fused-f16     5/5 100% 57-100  9.87 ±0.21 0.0000        - 6.6 MB 27.4 MB 336 t/s
    8bit          5/5 100% 57-100  9.87 ±0.21 0.0021     0.97 3.5 MB 27.4 MB 145 t/s
    6bit          5/5 100% 57-100  9.91 ±0.21 0.0108        - 2.7 MB 27.4 MB 153 t/s
    4bit          3/5   60% 23-88 13.40 ±0.28 0.6100     0.12 1.9 MB 27.4 MB 133 t/s

    The gate on `4bit` failed. Ship `6bit`.
    `6bit` meets all that was asked: accuracy 100.0% (5/5, 95%: 57 to 100%), disk
    0.41x (2.7 MB). Factors are against `fused-f16`.

    gate on `4bit`: failed
      accuracy >= 90.0%, but it is 60.0% (3/5, 95%: 23 to 88%)
      survival >= 0.50, but it is 0.12
      try: the base's grid: `rounding: keep` keeps the training in the same 1.9 MB
      try: more bits for what was trained: `bits: auto` with `target_bits: 5.0`
        takes 2.1 MB at most
      try: more bits: with `bits: 5` the steps are 2.1 times as fine
      try: smaller groups: `group_size: 32` follows the weights more closely
      try: a mixed recipe: `recipe: mixed_4_6` gives the layers that need it 6 bits
    gate on `8bit`: holds
    verdict on `8bit`: good enough
      disk <= 0.45x, but it is 0.53x (3.5 MB)
    verdict on `6bit`: meets all
    verdict on `4bit`: not good enough: ship the adapter beside the base, unfused
      accuracy >= 100.0%, but it is 60.0% (3/5, 95%: 23 to 88%)

    survival of `4bit` is 0.12: the update is 0.19 of a quantization step and the
      grid is the base's own: rounding takes it back
    ");
}

#[test]
fn texts_have_a_table_without_answers() {
    let space = built(&[("bench", sample::texts())]);
    insta::assert_snapshot!(space.run(&["report"]).exits(0).stdout, @r"
    config     perplexity     KL survival   disk bits/weight
    base      14.21 ±0.30 0.9131        - 1.9 MB        4.52
    adapter    9.87 ±0.21 0.0310        - 2.5 MB        5.91
    fused-f16  9.87 ±0.21 0.0000        - 6.6 MB       16.00
    8bit       9.87 ±0.21 0.0021     0.97 3.5 MB        8.51
    6bit       9.91 ±0.21 0.0108        - 2.7 MB        6.51
    4bit      13.40 ±0.28 0.6100     0.12 1.9 MB        4.52

    survival of `4bit` is 0.12: the update is 0.19 of a quantization step and the
      grid is the base's own: rounding takes it back
    ");
}

#[test]
fn a_sweep_with_long_names_stays_within_the_terminal() {
    let space = built(&[("bench", sample::sweep())]);
    let report = space.run(&["report"]).exits(0);
    assert_eq!(report.stdout, sample::sweep().report().table());
    assert!(report.stdout.lines().all(|line| line.chars().count() <= 80), "{}", report.stdout);
}

#[test]
fn each_format_for_its_reader() {
    let space = built(&[("second", sample::rich()), ("first", sample::plain())]);
    let print = |format: &str| space.run(&["report", "--format", format]).exits(0).stdout;
    let first = |text: &str, count: usize| text.lines().take(count).collect::<Vec<_>>().join("\n");

    let csv = print("csv");
    assert_eq!(csv.lines().count(), 1 + 6 + 6, "one header for all");
    insta::assert_snapshot!(first(&csv, 3), @r"
    benchmark,config,correct,total,accuracy,accuracy_low,accuracy_high,exact,exact_total,disk_bytes,bits_per_weight,bits,group_size,mode,perplexity,perplexity_standard_error,perplexity_tokens,kl,kl_standard_error,top1_agreement,survival,cosine,rounding,noise_to_signal,reverted,delta_per_step,load_seconds,peak_memory_bytes,prefill_tokens_per_second,decode_tokens_per_second,generation_seconds_mean,spread,repeats,activation_dtype,device
    first,base,3,5,0.6,0.23072428127601285,0.8823792257673521,3,5,1863108,4.52,4,64,affine,,,,,,,,,,,,,0.012,27400000,1278.2,154,0.11,0.021,3,float32,cpu
    first,adapter,5,5,1,0.5655175352168252,1,5,5,2461004,5.91,4,64,affine,,,,,,,,,,,,,0.012,27400000,987.7,119,0.11,0.021,3,float32,cpu
    ");

    let json: Vec<serde_json::Value> =
        print("json").lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!([&json[0]["node"], &json[1]["node"]], ["first", "second"]);
    assert_eq!(json[1]["verdicts"]["verdicts"][1]["conclusion"], "optimal");
    assert_eq!(space.run(&["report", "--json"]).exits(0).stdout, print("json"));

    let markdown = print("md");
    assert_eq!(markdown.lines().filter(|line| line.starts_with("# ")).count(), 2);
    insta::assert_snapshot!(first(&markdown, 12), @r"
    # discrimination

    **`adapter` is the smallest of those with the most right answers: 100% (5/5, 95%: 57 to 100%), 2.5 MB.**

    | config | correct | accuracy | exact | disk | bits/weight | load | memory | prefill | decode |
    |---|---:|---:|---:|---:|---:|---:|---:|---:|---:|
    | base | 3/5 | 60% (23–88) | 3/5 | 1.9 MB | 4.52 | [TIME] s | 27.4 MB | 1278 t/s | 154 t/s |
    | adapter | 5/5 | 100% (57–100) | 5/5 | 2.5 MB | 5.91 | [TIME] s | 27.4 MB | 988 t/s | 119 t/s |
    | fused-f16 | 5/5 | 100% (57–100) | 5/5 | 6.6 MB | 16.00 | [TIME] s | 27.4 MB | 2789 t/s | 336 t/s |
    | 8bit | 5/5 | 100% (57–100) | 5/5 | 3.5 MB | 8.51 | [TIME] s | 27.4 MB | 1204 t/s | 145 t/s |
    | 6bit | 5/5 | 100% (57–100) | 5/5 | 2.7 MB | 6.51 | [TIME] s | 27.4 MB | 1270 t/s | 153 t/s |
    | 4bit | 3/5 | 60% (23–88) | 3/5 | 1.9 MB | 4.52 | [TIME] s | 27.4 MB | 1104 t/s | 133 t/s |
    ");

    let table = print("table");
    assert_eq!(table, space.run(&["report"]).exits(0).stdout);
    assert!(table.starts_with("first (discrimination)\nconfig"), "{table}");
}

#[test]
fn what_cannot_be_reported() {
    let space = built(&[("bench", sample::plain())]);
    drop(space.run(&["report", "--json", "--format", "csv"]).exits(2));
    space.remove("artifacts");
    insta::assert_snapshot!(space.run(&["report"]).exits(1).transcript(), @r"
    exit 1
    stderr:
    error: there is no result of `bench` yet; `pipeline build bench` makes it
    ");
}
