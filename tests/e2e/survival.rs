//! What a quantized model says of its fine-tuning: when that is measured, when it is measured again, and what
//! `inspect` shows.

use serde_json::{Value, json};

use crate::pico::{Floats, numbers, write_adapter_of, write_tensors_of};
use crate::space::{ALL, Space};

const FILE: &str = "survival.json";

fn survival(space: &Space, node: &str) -> Value {
    serde_json::from_str(&space.read(&format!("artifacts/{node}/{FILE}"))).unwrap()
}

fn has_survival(space: &Space, node: &str) -> bool {
    space.names(&format!("artifacts/{node}")).contains(&FILE.to_owned())
}

/// The pico project with a base of four bits and a small update.
fn lossy() -> Space {
    let space = Space::pico();
    space.edit_file("lora/adapter_config.json", "20.0", "2.0");
    space.write(
        "pipeline.yaml",
        "version: 1\nnodes:\n  base: {stage: base, source: model}\n  adapter: {stage: adapter, source: lora}\n  \
         b4: {stage: quantize, model: base, bits: 4}\n  fused: {stage: fuse, model: b4, adapter: adapter}\n  \
         q8: {stage: quantize, model: fused, bits: 8}\n  q4: {stage: quantize, model: fused, bits: 4}\n  \
         q48: {stage: quantize, model: q8, bits: 4}\n",
    );
    space
}

#[test]
fn it_is_measured_below_a_fuse_node_and_nowhere_else() {
    let space = lossy();
    space.build().ran(["base", "adapter", "b4", "fused", "q8", "q4", "q48"]).build().ran([]);
    let with: Vec<_> = ["b4", "fused", "q8", "q4", "q48"].map(|node| has_survival(&space, node)).into();
    assert_eq!(with, [false, false, true, true, true]);
    let left = |node| survival(&space, node)["overall"]["survival"].as_f64().unwrap();
    assert!(left("q8") > 0.9 && left("q4") < 0.5, "{} {}", left("q8"), left("q4"));
    // Two nodes below, the fused model counts, not the model in between: four bits lose the update either
    // way.
    assert!(left("q48") < 0.5, "{}", left("q48"));
    let names: Vec<_> = survival(&space, "q4")["tensors"].as_object().unwrap().keys().cloned().collect();
    let touched = ["q_proj", "v_proj"].map(|name| format!("model.layers.0.self_attn.{name}.weight"));
    assert_eq!(names, touched);
}

#[test]
fn the_base_and_the_adapter_count_as_content() {
    let space = Space::built();
    space.scribble("lora/adapters.safetensors");
    let plan = space.run(&["build", "-n"]).exits(0);
    assert!(plan.stdout.contains("q8       waits for fused\n"), "{}", plan.transcript());
    space.build().ran(["adapter", "fused", "q8", "q4"]);
    // The base has another model card but the same weights, so the fused model is the same but for the head
    // of its card.
    space.write(
        "model/README.md",
        "---\nlibrary_name: mlx\npipeline_tag: text-generation\ntags: [mlx]\n---\n",
    );
    space.build().ran(["base", "fused", "q8", "q4"]);
    let before = survival(&space, "q8");
    space.remove("cache").build().ran(ALL);
    assert_eq!(survival(&space, "q8"), before);
}

/// The `survival.json` of a published model is not copied to what is made from it.
#[test]
fn it_does_not_travel() {
    let space = Space::pico();
    space.write(&format!("model/{FILE}"), "{}");
    space.write(
        "pipeline.yaml",
        "version: 1\nnodes:\n  base: {stage: base, source: model}\n  adapter: {stage: adapter, source: lora}\n  \
         fused: {stage: fuse, model: base, adapter: adapter}\n  q4: {stage: quantize, model: base, bits: 4}\n",
    );
    space.build().ran(["base", "adapter", "fused", "q4"]);
    assert!(!has_survival(&space, "fused") && !has_survival(&space, "q4"));
    let run = space.run(&["inspect", "base"]).exits(1);
    insta::assert_snapshot!(run.transcript(), @r"
    exit 1
    stderr:
    error: in `base`
    caused by: cannot read artifacts/base/survival.json
    caused by: missing field `can_keep` at line 1 column 2
    ");
}

#[test]
fn inspect_shows_the_worst_layers() {
    let space = lossy();
    let run = space.run(&["inspect", "q4"]).exits(1);
    insta::assert_snapshot!(run.transcript(), @r"
    exit 1
    stderr:
    error: `q4` is not there yet; `pipeline build q4` makes it
    ");
    drop(space.build());
    insta::assert_snapshot!(space.run(&["inspect", "q4"]).exits(0).stdout, @r"
    q4: Qwen2ForCausalLM, 43.3 thousand weights, 4.57 bits each, 24.7 kB
    tensors: 8 of 4 bits in groups of 64, 4 of F16
    survival: 0.01 of the fine-tuning is left: the base lies on the same grid, 4
    bits in groups of 64, each weight in the middle of what rounds to it; the update
    is 0.057 of a step (root mean square), less than the half that takes a weight to
    the next; rounding returned 99 % of the weights to where they came from

    layer                           bits survival cosine  noise reverted   step
    model.layers.0.self_attn.v_proj    4    -0.01  -0.02   1.15    14.8%  0.056
    model.layers.0.self_attn.q_proj    4     0.04   0.04   1.41     9.7%  0.057
    all of them                        4     0.01   0.02   1.29    12.2%  0.057

    cosine: the direction of what arrived against that of the update; noise: the
    rounding error against the update; step: the update against a step
    ");
    insta::assert_snapshot!(space.run(&["inspect", "b4"]).exits(0).stdout, @r"
    b4: Qwen2ForCausalLM, 43.3 thousand weights, 4.57 bits each, 24.7 kB
    tensors: 8 of 4 bits in groups of 64, 4 of F16
    survival: none, because it is no quantized descendant of a fuse node
    ");
    let json = &space.run(&["inspect", "--json", "q4"]).exits(0).json()[0];
    assert_eq!((&json["survival"], &json["node"]), (&survival(&space, "q4"), &json!("q4")));
    let run = space.run(&["inspect", "adapter"]).exits(2);
    insta::assert_snapshot!(run.transcript(), @r"
    exit 2
    stderr:
    error: `adapter` is an adapter; inspect shows models, and what commands made
    ");
}

/// A full fine-tune also changes norms, which are not quantized, and experts of which only some were trained.
#[test]
fn what_is_not_quantized_is_intact() {
    let space = Space::empty();
    let (norm, stack) = ("model.norm.weight", "model.layers.0.mlp.switch_mlp.up_proj.weight");
    let names: Vec<_> = (0..3).map(|n| format!("model.layers.0.mlp.experts.{n}.up_proj.weight")).collect();
    let expert = |n: usize| (names[n].as_str(), &[40, 64][..], numbers(n as u64, 40 * 64));
    let model = [expert(0), expert(1), expert(2), (norm, &[64][..], vec![1.0; 64])];
    write_tensors_of(
        &space.path("model"),
        json!({"model_type": "qwen3_moe", "num_hidden_layers": 1}),
        &model,
    );
    let config = json!({"fine_tune_type": "full", "num_layers": 1, "lora_parameters": null});
    let mut experts: Vec<f32> = model.iter().take(3).flat_map(|(_, _, values)| values.clone()).collect();
    // Only the second expert was trained.
    experts[40 * 64..2 * 40 * 64].iter_mut().for_each(|value| *value += 0.25);
    let tensors: Floats =
        [(stack.to_owned(), (vec![3, 40, 64], experts)), (norm.to_owned(), (vec![64], vec![1.5; 64]))].into();
    write_adapter_of(&space.path("lora"), "adapters.safetensors", &config, &tensors);
    space.write(
        "pipeline.yaml",
        "version: 1\nnodes:\n  base: {stage: base, source: model}\n  adapter: {stage: adapter, source: lora}\n  \
         fused: {stage: fuse, model: base, adapter: adapter}\n  q: {stage: quantize, model: fused, bits: 8}\n",
    );
    space.build().ran(["base", "adapter", "fused", "q"]);
    let tensors = &survival(&space, "q")["tensors"];
    let intact = json!({
        "bits": null, "cosine": 1.0, "delta_per_step": null, "noise_to_signal": 0.0, "reverted": 0.0, "rounding": null,
        "survival": 1.0, "weights": 64,
    });
    assert_eq!(tensors[norm], intact);
    // All experts are counted, though most of them have no update.
    assert_eq!(tensors[stack]["weights"], 3 * 40 * 64);
    assert!((tensors[stack]["survival"].as_f64().unwrap() - 1.0).abs() < 0.01, "{tensors}");
}
