//! `rounding: keep` and `bits: auto`: what they write, what they refuse, and what they fall back to.

use serde_json::{Value, json};
use weights::tensor::TensorFiles;

use crate::pico::{
    Floats, PICO, Size, Tensor, complete_model, write_adapter_of, write_model, write_tensors_of,
};
use crate::space::Space;

/// The pico project with a base of four bits and a small update of two projections.
fn project(nodes: &str) -> Space {
    project_of(PICO, nodes)
}

fn project_of(size: Size, nodes: &str) -> Space {
    let space = Space::of(size);
    space.edit_file("lora/adapter_config.json", "20.0", "2.0");
    let head = "version: 1\nnodes:\n  base: {stage: base, source: model}\n  adapter: {stage: adapter, source: lora}\n  \
                b4: {stage: quantize, model: base, bits: 4}\n  fused: {stage: fuse, model: b4, adapter: adapter}\n";
    space.write("pipeline.yaml", format!("{head}{nodes}"));
    space
}

fn parsed(space: &Space, path: &str) -> Value {
    serde_json::from_str(&space.read(path)).unwrap()
}

fn survival(space: &Space, node: &str) -> Value {
    parsed(space, &format!("artifacts/{node}/survival.json"))
}

/// Returns the bits of each module that `config.json` names.
fn bits(space: &Space, node: &str) -> Vec<(String, u64)> {
    let config = parsed(space, &format!("artifacts/{node}/config.json"));
    let section = config["quantization"].as_object().unwrap();
    let entry = |(module, entry): (&String, &Value)| Some((module.clone(), entry.get("bits")?.as_u64()?));
    section.iter().filter_map(entry).collect()
}

#[test]
fn a_small_update_is_kept_and_said_so() {
    let space = project(
        "  near: {stage: quantize, model: fused, bits: 4}\n  kept: {stage: quantize, model: fused, bits: 4, rounding: keep}\n",
    );
    let _ = space.build_with(&["kept", "near"]).exits(0);
    let figures = |node: &str| survival(&space, node)["overall"].clone();
    let (near, kept) = (figures("near"), figures("kept"));
    assert!(kept["survival"].as_f64().unwrap() > 0.9, "{kept}");
    assert!(near["survival"].as_f64().unwrap() < 0.5, "{near}");
    assert_eq!((&kept["rounding"], &kept["bits"]), (&"keep".into(), &4.into()));
    assert_eq!(near["rounding"], "nearest");
    let said = space.run(&["inspect", "kept"]).exits(0);
    assert!(said.stdout.contains("rounding: keep"), "{}", said.transcript());
    assert!(space.run(&["why", "kept"]).exits(0).stdout.contains("up to date"));
}

#[test]
fn what_cannot_be_kept_is_rounded_to_the_nearest_point_with_a_line() {
    let nodes = "  g32: {stage: quantize, model: fused, bits: 4, group_size: 32, rounding: keep}\n  \
                 b3: {stage: quantize, model: fused, bits: 3, rounding: keep}\n  \
                 b8: {stage: quantize, model: fused, bits: 8, rounding: keep}\n  \
                 plain: {stage: quantize, model: fused, bits: 8}\n";
    let space = project(nodes);
    let run = space.build_with(&["g32", "b3", "b8", "plain"]).exits(0);
    let warnings = |node: &str| {
        let all = run.events("warning");
        let own = all.iter().filter(|event| event["node"] == node);
        own.map(|event| event["message"].as_str().unwrap().to_owned()).collect::<Vec<_>>().join("\n")
    };
    let other = "2 of 2 changed weights are rounded to the nearest point, not kept on the base's grid: the base is not \
                 quantized in the affine mode to as many bits or fewer, in groups of this size: \
                 `model.layers.0.self_attn.q_proj.weight`, `model.layers.0.self_attn.v_proj.weight`";
    assert!(warnings("g32").contains(other), "{}", warnings("g32"));
    assert!(warnings("b3").contains(other), "{}", warnings("b3"));
    // In steps of 8 bits the update is large.
    let large = "their update is so large in steps of the outcome that plain rounding loses less";
    assert!(warnings("b8").contains(large), "{}", warnings("b8"));
    assert_eq!(survival(&space, "b8")["overall"]["rounding"], "nearest");
    let figures = |node: &str| survival(&space, node)["overall"]["survival"].clone();
    assert_eq!(figures("b8"), figures("plain"));
}

#[test]
fn fields_that_do_not_belong_together_are_refused() {
    for (fields, message) in [
        ("mode: mxfp4, rounding: keep", "`rounding: keep` is for `mode: affine`"),
        ("bits: auto", "node `q` needs `target_bits`"),
        ("bits: auto, target_bits: 5.0, recipe: mixed_4_6", "leave out a recipe"),
        ("bits: auto, target_bits: 5.0, mode: mxfp8", "leave out another mode"),
        ("bits: auto, target_bits: 5.0, rounding: keep", "chooses the rounding too: leave out `rounding`"),
        ("bits: auto, target_bits: -1", "`target_bits` must be a number above 0, such as 5.0"),
        (
            "bits: auto, target_bits: 5, candidates: [4, 7]",
            "a candidate must be one of [2, 3, 4, 5, 6, 8], not 7",
        ),
        ("bits: 4, target_bits: 5.0", "`target_bits` is for `bits: auto`"),
    ] {
        let space = project(&format!("  q: {{stage: quantize, model: fused, {fields}}}\n"));
        let run = space.run(&["build", "-n"]).exits(2);
        assert!(run.stderr.contains(message), "{fields}: {}", run.transcript());
    }
    let space = project("  q: {stage: quantize, model: base, bits: 4, rounding: keep}\n");
    let run = space.run(&["build", "-n"]).exits(2);
    assert!(
        run.stderr.contains("pipeline.yaml:7:31: `rounding: keep` keeps what a `fuse` node"),
        "{}",
        run.transcript()
    );
}

#[test]
fn bits_go_where_the_training_is() {
    let auto = |target: f64| format!("{{stage: quantize, model: fused, bits: auto, target_bits: {target}}}");
    let space = project(&format!("  a: {}\n", auto(6.6)));
    let _ = space.build_with(&["a"]).exits(0);
    let own = bits(&space, "a");
    let trained = ["q_proj", "v_proj"].map(|name| format!("model.layers.0.self_attn.{name}"));
    for (module, bits) in &own {
        let expected = if trained.contains(module) { 8 } else { 4 };
        assert_eq!(*bits, expected, "{own:?}");
    }
    // The budget holds for what `inspect` calls bits each: scales, biases and norms count.
    let model = json_of(&space, &["inspect", "a", "--json"]);
    let each = model["model"]["bits_per_weight"].as_f64().unwrap();
    assert!(each <= 6.6, "{each}");
    let first = space.bytes("artifacts/a/model.safetensors");
    let mut command = space.command();
    command.args(["build", "--force", "a"]).env("RAYON_NUM_THREADS", "1");
    assert!(command.status().unwrap().success());
    assert!(space.bytes("artifacts/a/model.safetensors") == first, "one thread makes another model");
}

/// The shapes of the base tell it. So nothing runs first.
#[test]
fn a_budget_that_cannot_be_reached_is_refused_with_the_least() {
    let auto = "stage: quantize, model: fused, bits: auto, candidates: [5, 8]";
    let space =
        project(&format!("  low: {{{auto}, target_bits: 5.55}}\n  least: {{{auto}, target_bits: 5.57}}\n"));
    let run = space.run(&["build", "low"]).exits(2);
    let message = "`target_bits: 5.55` cannot be reached: with the fewest bits that `candidates` allow, the model has 5.57 \
                   bits per weight, scales and unquantized tensors included";
    assert!(run.stderr.contains(message), "{}", run.transcript());
    assert!(run.stderr.contains("pipeline.yaml:7:"), "{}", run.transcript());
    assert!(!space.path("artifacts/b4").exists(), "something ran");
    let _ = space.run(&["build", "least"]).exits(0);
}

fn json_of(space: &Space, args: &[&str]) -> Value {
    serde_json::from_str(&space.run(args).exits(0).stdout).unwrap()
}

/// A model that was not fine-tuned has no grid to keep. Its bits go where rounding loses most.
#[test]
fn a_model_without_a_fine_tuning_has_a_budget_too() {
    let space = Space::empty();
    write_model(&space.path("model"), PICO);
    space.write(
        "pipeline.yaml",
        "version: 1\nnodes:\n  base: {stage: base, source: model}\n  \
         \"a{target_bits}\": {stage: quantize, model: base, bits: auto, matrix: {target_bits: [5.5, 7.0]}, \
         overrides: [{pattern: '*.v_proj', bits: 8}]}\n",
    );
    let _ = space.build_with(&[]).exits(0);
    let [low, high] = ["a5.5", "a7.0"].map(|node| bits(&space, node));
    let sum = |bits: &[(String, u64)]| bits.iter().map(|(_, bits)| bits).sum::<u64>();
    assert!(sum(&low) < sum(&high), "{low:?} {high:?}");
    assert!(low.iter().all(|(module, bits)| !module.ends_with("v_proj") || *bits == 8), "{low:?}");
}

/// A probe runs the base once. What it finds changes which codes move, and nothing else; it is the same every
/// time, and no random number or clock is in it.
#[test]
fn a_probe_moves_codes_of_what_was_trained() {
    let nodes = "  probe: {stage: probe, model: b4, tokens: random, directions: 2}\n  \
                 read: {stage: probe, model: b4, texts: text.txt, directions: 2}\n  \
                 plain: {stage: quantize, model: fused, bits: 4, rounding: keep}\n  \
                 probed: {stage: quantize, model: fused, bits: 4, rounding: keep, probe: probe}\n  \
                 auto: {stage: quantize, model: fused, bits: auto, target_bits: 6, probe: read}\n";
    let space = project(nodes);
    complete_model(&space.path("model"), PICO);
    space.write("text.txt", "The quick brown fox jumps over the lazy dog.");
    space.build().ran(["base", "adapter", "b4", "fused", "probe", "read", "plain", "probed", "auto"]);
    let [plain, probed] =
        ["plain", "probed"].map(|node| space.bytes(&format!("artifacts/{node}/model.safetensors")));
    assert!(plain.len() == probed.len() && plain != probed);
    let probe = space.bytes("artifacts/probe/probe.safetensors");
    assert!(probe != space.bytes("artifacts/read/probe.safetensors"));
    space.build_with(&["--force", "probe"]).ran(["probe"]);
    assert!(space.bytes("artifacts/probe/probe.safetensors") == probe, "a second run finds something else");
    // Another text is another probe, and only what uses it is made again.
    space.write("text.txt", "Something else is read.");
    space.build().ran(["read", "auto"]);
    space.remove("text.txt");
    let run = space.run(&["build", "--force", "read"]).exits(2);
    assert!(run.stderr.contains("text.txt"), "{}", run.transcript());
}

/// Layers that the probe does not have are rounded without it, with a warning. A model that computes NaN cannot be
/// probed.
#[test]
fn a_probe_that_lacks_layers_or_numbers() {
    let space = project_of(
        Size { hidden: 64, layers: 2 },
        "  small: {stage: base, source: small}\n  probe: {stage: probe, model: small, tokens: random}\n  \
         probed: {stage: quantize, model: fused, bits: 4, rounding: keep, probe: probe}\n",
    );
    write_model(&space.path("small"), PICO);
    complete_model(&space.path("small"), PICO);
    let run = space.build_with(&["probed"]).exits(0);
    let message = "the probe does not have `model.layers.1.self_attn.q_proj.weight`, `model.layers.1.self_attn.v_proj.weight`; \
                   they are rounded without it";
    assert!(run.events("warning").iter().any(|event| event["message"] == message), "{}", run.transcript());
    let file = space.path("small/model.safetensors");
    let mut bytes = std::fs::read(&file).unwrap();
    let end = bytes.len();
    // A float16 that is no number.
    bytes[end - 2..].copy_from_slice(&[0xff, 0x7e]);
    std::fs::write(&file, bytes).unwrap();
    let run = space.run(&["build", "probe"]).exits(1);
    assert!(run.stderr.contains("the model computes NaN or infinity before it"), "{}", run.transcript());
}

#[test]
fn a_probe_that_cannot_be_is_refused() {
    for (node, message) in [
        ("{stage: probe, model: b4}", "a probe has either `tokens: random` or `texts: FILE`"),
        (
            "{stage: probe, model: b4, tokens: random, texts: t}",
            "a probe has either `tokens: random` or `texts: FILE`",
        ),
        (
            "{stage: probe, model: b4, tokens: random, directions: 65}",
            "`directions` must be at most 64, not 65",
        ),
        (
            "{stage: quantize, model: fused, bits: 4, probe: b4}",
            "`probe` is for `rounding: keep` or `bits: auto`",
        ),
        (
            "{stage: quantize, model: fused, bits: 4, rounding: keep, probe: b4}",
            "`probe` must be a probe, but node `b4` is a model",
        ),
    ] {
        let run = project(&format!("  q: {node}\n"));
        let run = run.run(&["build", "-n"]).exits(2);
        assert!(run.stderr.contains(message), "{node}: {}", run.transcript());
    }
    let space = project("  q: {stage: probe, model: b4, texts: model/model.safetensors}\n");
    let run = space.run(&["build"]).exits(2);
    assert!(run.stderr.contains("model.safetensors is not UTF-8 text"), "{}", run.transcript());
    space.write("empty.txt", " \n");
    space.edit("model/model.safetensors", "empty.txt");
    let run = space.run(&["build"]).exits(2);
    assert!(run.stderr.contains("empty.txt has no words; a probe reads a text"), "{}", run.transcript());
}

/// A layer whose bits an override says is kept like those that `auto` chooses for.
#[test]
fn auto_keeps_what_an_override_pins() {
    let space = project(
        "  a: {stage: quantize, model: fused, bits: auto, target_bits: 5, overrides: [{pattern: '*.q_proj', bits: 4}]}\n",
    );
    let run = space.build_with(&["a"]).exits(0);
    let pinned = &survival(&space, "a")["tensors"]["model.layers.0.self_attn.q_proj.weight"];
    assert_eq!((&pinned["rounding"], &pinned["bits"]), (&json!("keep"), &json!(4)));
    assert!(pinned["survival"].as_f64().unwrap() > 0.9, "{pinned}");
    assert!(run.events("warning").is_empty(), "{}", run.transcript());
    let nothing = "  a: {stage: quantize, model: fused, bits: 4, overrides: [{pattern: '*', keep: true}]}\n";
    let space = project(nothing);
    let run = space.run(&["build", "a"]).exits(2);
    assert!(
        run.stderr.contains("the overrides leave no layer of the model to be quantized"),
        "{}",
        run.transcript()
    );
}

/// What the figures of a layer are does not depend on what was made before it.
#[test]
fn layers_in_float32_are_measured_alike_in_any_order() {
    let space = Space::pico();
    let overrides = "overrides: [{pattern: '*.q_proj', keep: true}]";
    space.write(
        "pipeline.yaml",
        format!(
            "version: 1\nnodes:\n  base: {{stage: base, source: model}}\n  adapter: {{stage: adapter, source: lora}}\n  \
             wide: {{stage: fuse, model: base, adapter: adapter, dtype: float32}}\n  \
             part: {{stage: quantize, model: wide, bits: 8, {overrides}}}\n  \
             again: {{stage: fuse, model: part, adapter: adapter, requantize: true}}\n"
        ),
    );
    let _ = space.run(&["build", "-j1"]).exits(0);
    let first = space.bytes("artifacts/again/survival.json");
    let mut command = space.command();
    command.args(["build", "--force", "again"]).env("RAYON_NUM_THREADS", "1");
    assert!(command.status().unwrap().success());
    assert!(space.bytes("artifacts/again/survival.json") == first);
}

/// Advice that helps: `rounding: keep` is named only where it can keep something.
#[test]
fn keep_is_advised_where_it_helps() {
    let space = project(
        "  near: {stage: quantize, model: fused, bits: 4}\n  g32: {stage: quantize, model: fused, bits: 4, group_size: 32}\n  \
         mx: {stage: quantize, model: fused, mode: mxfp4}\n",
    );
    let run = space.build_with(&["near", "g32", "mx"]).exits(0);
    let warnings = run.events("warning");
    let advised = |node: &str| {
        let own = warnings.iter().filter(|event| event["node"] == node);
        own.filter(|event| event["message"].as_str().unwrap().contains("`rounding: keep`")).count()
    };
    assert_eq!([advised("near"), advised("g32"), advised("mx")], [1, 0, 0], "{}", run.transcript());
    assert_eq!(survival(&space, "near")["can_keep"], true);
}

/// A value for each weight, of those that 4 bits hold exactly: the rows have all of them, so that a base of 4 bits
/// is the model itself.
fn on_grid(seed: usize, rows: usize, columns: usize) -> Vec<f32> {
    let level = |index: usize| (index * 7 + index / columns * 3 + seed) % 16;
    (0..rows * columns).map(|index| level(index) as f32 / 8.0 - 1.0).collect()
}

/// Builds the base in 4 bits, fuses this adapter, and keeps it. Returns the space and the figures by tensor.
fn kept_tensors(tensors: &[Tensor<'_>], config: &Value, adapter: &Floats) -> (Space, Value) {
    let space = Space::empty();
    write_tensors_of(
        &space.path("model"),
        json!({"model_type": "qwen3_moe", "num_hidden_layers": 1}),
        tensors,
    );
    write_adapter_of(&space.path("lora"), "adapters.safetensors", config, adapter);
    space.write(
        "pipeline.yaml",
        "version: 1\nnodes:\n  base: {stage: base, source: model}\n  adapter: {stage: adapter, source: lora}\n  \
         b4: {stage: quantize, model: base, bits: 4}\n  fused: {stage: fuse, model: b4, adapter: adapter, dtype: float32}\n  \
         kept: {stage: quantize, model: fused, bits: 4, rounding: keep}\n",
    );
    let _ = space.build().exits(0);
    let found = survival(&space, "kept")["tensors"].clone();
    (space, found)
}

fn is_kept(found: &Value) -> bool {
    found["rounding"] == "keep" && (found["survival"].as_f64().unwrap() - 1.0).abs() < 0.3
}

/// Experts, embeddings and full fine-tunes are differences between two models like any other. The rows of a stack
/// are counted over its experts, so that two experts with the same update do not get the same errors.
#[test]
fn experts_and_embeddings_are_kept() {
    let (stack, words) = ("model.layers.0.mlp.switch_mlp.up_proj.weight", "model.embed_tokens.weight");
    let names: Vec<_> = (0..2).map(|n| format!("model.layers.0.mlp.experts.{n}.up_proj.weight")).collect();
    let expert = |n: usize| (names[n].as_str(), &[40, 64][..], on_grid(0, 40, 64));
    let model = [expert(0), expert(1), (words, &[32, 64][..], on_grid(1, 32, 64))];
    let trained = |values: Vec<f32>| values.into_iter().map(|value| value + 0.01).collect::<Vec<_>>();
    let adapter: Floats = [
        (stack.to_owned(), (vec![2, 40, 64], trained([on_grid(0, 40, 64), on_grid(0, 40, 64)].concat()))),
        (words.to_owned(), (vec![32, 64], trained(on_grid(1, 32, 64)))),
    ]
    .into();
    let config = json!({"fine_tune_type": "full", "num_layers": 1, "lora_parameters": null});
    let (space, found) = kept_tensors(&model, &config, &adapter);
    assert!(is_kept(&found[stack]) && is_kept(&found[words]), "{found}");
    let kept = TensorFiles::open_model(&space.path("artifacts/kept")).unwrap();
    let codes = kept.read(stack).unwrap();
    let (first, second) = codes.split_at(codes.len() / 2);
    assert!(first != second, "both experts have the same errors");
}

#[test]
fn a_dora_is_kept() {
    let module = "model.layers.0.self_attn.q_proj";
    let weight = format!("{module}.weight");
    let values = on_grid(2, 64, 64);
    let lengths =
        values.chunks(64).map(|row| row.iter().map(|value| value * value).sum::<f32>().sqrt() * 1.01);
    let adapter: Floats = [
        (format!("{module}.m"), (vec![64], lengths.collect())),
        (format!("{module}.lora_a"), (vec![64, 1], vec![0.1; 64])),
        (format!("{module}.lora_b"), (vec![1, 64], vec![0.1; 64])),
    ]
    .into();
    let parameters = json!({"rank": 1, "scale": 1.0, "dropout": 0.0});
    let config = json!({"fine_tune_type": "dora", "num_layers": 1, "lora_parameters": parameters});
    let (_, found) = kept_tensors(&[(&weight, &[64, 64], values)], &config, &adapter);
    assert!(is_kept(&found[&weight]), "{found}");
}
