//! What an adapter may be beside one LoRA in mlx-lm's or PEFT's form: several at once, a head that was trained apart
//! from its embedding, mlx-vlm's form, and files that a trainer damaged.

use serde_json::{Value, json};

use crate::pico::{Floats, numbers, write_adapter, write_adapter_of};
use crate::space::Space;

const FUSED: &str = "artifacts/fused/model.safetensors";

/// A project whose `fused` node is this.
fn space(fused: &str) -> Space {
    let space = Space::pico();
    space.write(
        "pipeline.yaml",
        format!(
            "version: 1\nnodes:\n  base: {{stage: base, source: model}}\n  a: {{stage: adapter, source: lora}}\n  \
             b: {{stage: adapter, source: other}}\n  fused: {{stage: fuse, model: base, {fused}}}\n"
        ),
    );
    write_adapter(&space.path("other"), 64, 1);
    space
}

fn fused(fields: &str) -> Vec<u8> {
    let space = space(fields);
    let _ = space.build_with(&["fused"]).exits(0);
    space.bytes(FUSED)
}

/// Returns the bytes of a tensor of a safetensors file.
fn tensor(file: &[u8], name: &str) -> Option<Vec<u8>> {
    let tensors = safetensors::SafeTensors::deserialize(file).unwrap();
    tensors.tensor(name).ok().map(|tensor| tensor.data().to_vec())
}

#[test]
fn several_adapters_are_summed() {
    let one = fused("adapter: a");
    assert_eq!(fused("adapters: [a]"), one);
    assert_eq!(fused("adapters: [a, {adapter: b, scale: 0}]"), one);
    assert_ne!(fused("adapters: [a, b]"), one);
    assert_eq!(fused("adapters: [{adapter: a, scale: 0.5}, {adapter: b, scale: 0.5}]"), one);
    // What is added and taken away again leaves the base.
    let none = fused("adapters: [a, {adapter: b, scale: -1}]");
    let base = Space::pico().bytes("model/model.safetensors");
    let name = "model.layers.0.self_attn.q_proj.weight";
    assert_eq!(tensor(&none, name), tensor(&base, name));
    assert_ne!(tensor(&one, name), tensor(&base, name));
}

#[test]
fn a_list_of_adapters_is_checked() {
    let said = |fields: &str| space(fields).run(&["build", "-n"]).exits(2).stderr;
    assert!(said("adapters: []").contains("`adapters` is empty"));
    assert!(said("adapter: a, adapters: [b]").contains("has `adapter` or `adapters`, not both"));
    assert!(said("adapters: [{adapter: a, scale: much}]").contains("`scale` must be a finite number"));
    assert!(said("adapters: [a, base]").contains("`base` is a model"), "{}", said("adapters: [a, base]"));
    assert!(said("adapters: [a, b], tokenizer: adapter").contains("is for a node with one adapter"));
}

/// Writes an adapter of PEFT that has `modules_to_save: [embed_tokens, lm_head]`, with these numbers.
fn write_both_copies(space: &Space, embedding: Vec<f32>, head: Vec<f32>) {
    let config = json!({"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["q_proj"],
        "modules_to_save": ["embed_tokens", "lm_head"]});
    let q = "base_model.model.model.layers.0.self_attn.q_proj";
    let tensors: Floats = [
        (format!("{q}.lora_A.weight"), (vec![2, 64], numbers(1, 128))),
        (format!("{q}.lora_B.weight"), (vec![64, 2], numbers(2, 128))),
        ("base_model.model.model.embed_tokens.weight".to_owned(), (vec![32, 64], embedding)),
        ("base_model.model.lm_head.weight".to_owned(), (vec![32, 64], head)),
    ]
    .into();
    write_adapter_of(&space.path("lora"), "adapter_model.safetensors", &config, &tensors);
}

#[test]
fn both_copies_of_a_tied_head() {
    let space = space("adapter: a");
    write_both_copies(&space, numbers(3, 2048), numbers(3, 2048));
    let run = space.build_with(&["fused"]).exits(0);
    assert!(run.events("warning").is_empty(), "{}", run.transcript());
    assert_eq!(tensor(&space.bytes(FUSED), "lm_head.weight"), None);
    write_both_copies(&space, numbers(3, 2048), numbers(4, 2048));
    let run = space.build_with(&["fused"]).exits(0);
    let message = "the adapter trains the output head apart from the embedding, so the fused model has a `lm_head.weight` \
                   of its own, and config.json says `tie_word_embeddings: false`";
    assert!(run.events("warning").iter().any(|event| event["message"] == message), "{}", run.transcript());
    let halves = |values: Vec<f32>| -> Vec<u8> {
        values.iter().flat_map(|value| half::f16::from_f32(*value).to_le_bytes()).collect()
    };
    let made = space.bytes(FUSED);
    assert_eq!(tensor(&made, "lm_head.weight"), Some(halves(numbers(4, 2048))));
    assert_eq!(tensor(&made, "model.embed_tokens.weight"), Some(halves(numbers(3, 2048))));
    let config: Value = serde_json::from_str(&space.read("artifacts/fused/config.json")).unwrap();
    assert_eq!(config["tie_word_embeddings"], false);
}

/// The head of a quantized model is a copy of its embedding, packed in the same way.
#[test]
fn a_head_of_its_own_is_quantized_as_the_embedding_was() {
    let space = space("adapter: a");
    write_both_copies(&space, numbers(3, 2048), numbers(4, 2048));
    let nodes = "  q: {stage: quantize, model: base, bits: 8, overrides: [{pattern: \"*embed_tokens\", bits: 4}]}\n  \
                 again: {stage: fuse, model: q, adapter: a, requantize: true}\n";
    let yaml = space.read("pipeline.yaml") + nodes;
    space.write("pipeline.yaml", yaml);
    let _ = space.build_with(&["again"]).exits(0);
    let config: Value = serde_json::from_str(&space.read("artifacts/again/config.json")).unwrap();
    for module in ["model.embed_tokens", "lm_head"] {
        assert_eq!(config["quantization"][module]["bits"], 4, "{module}: {}", config["quantization"]);
    }
    assert_eq!(config["quantization"]["bits"], 8);
}

#[test]
fn adapters_that_disagree_about_the_head_are_not_summed() {
    let space = space("adapters: [a, b]");
    write_both_copies(&space, numbers(3, 2048), numbers(4, 2048));
    let config = json!({"fine_tune_type": "full"});
    let embedding: Floats =
        [("model.embed_tokens.weight".to_owned(), (vec![32, 64], numbers(5, 2048)))].into();
    write_adapter_of(&space.path("other"), "adapters.safetensors", &config, &embedding);
    let run = space.run(&["build", "fused"]).exits(1);
    assert!(run.stderr.contains("they cannot be summed"), "{}", run.transcript());
    space.edit("adapters: [a, b]", "adapters: [{adapter: b, scale: 0.5}]");
    let run = space.run(&["build", "fused"]).exits(1);
    assert!(
        run.stderr.contains("replaces a whole tensor, so the adapter has no `scale` but 1"),
        "{}",
        run.transcript()
    );
}

#[test]
fn a_head_has_no_place_where_mlx_lm_has_none() {
    let space = space("adapter: a");
    space.edit_file("model/config.json", "qwen2\"", "gemma\"");
    write_both_copies(&space, numbers(3, 2048), numbers(4, 2048));
    let run = space.run(&["build", "fused"]).exits(1);
    assert!(
        run.stderr.contains("a `gemma` has no output head but its embedding in mlx-lm"),
        "{}",
        run.transcript()
    );
}

/// A falcon_h1 of mlx-lm has the multipliers of its configuration in its weights, and a LoRA of PEFT was trained without.
#[test]
fn an_update_of_other_numbers_is_refused() {
    let space = space("adapter: a");
    space.edit_file("model/config.json", "qwen2\"", "falcon_h1\"");
    let q = "base_model.model.model.layers.0.self_attn.q_proj";
    let config = json!({"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["q_proj"]});
    let tensors: Floats = [
        (format!("{q}.lora_A.weight"), (vec![2, 64], numbers(1, 128))),
        (format!("{q}.lora_B.weight"), (vec![64, 2], numbers(2, 128))),
    ]
    .into();
    write_adapter_of(&space.path("lora"), "adapter_model.safetensors", &config, &tensors);
    let run = space.run(&["build", "fused"]).exits(1);
    assert!(run.stderr.contains("which mlx-lm's `falcon_h1` has with other numbers"), "{}", run.transcript());
}

#[test]
fn an_adapter_of_mlx_vlm() {
    let space = space("adapter: a");
    let q = "model.layers.0.self_attn.q_proj";
    let factors = |[a, b]: [&str; 2]| -> Floats {
        [
            (format!("{q}.{a}"), (vec![64, 2], numbers(1, 128))),
            (format!("{q}.{b}"), (vec![2, 64], numbers(2, 128))),
        ]
        .into()
    };
    let old = json!({"rank": 2, "alpha": 4, "dropout": 0.0});
    write_adapter_of(&space.path("lora"), "adapters.safetensors", &old, &factors(["A", "B"]));
    let run = space.build_with(&["fused"]).exits(0);
    let said = run.events("warning");
    assert!(said[0]["message"].as_str().unwrap().contains("`alpha / rank` times, 2,"), "{said:?}");
    let made = space.bytes(FUSED);
    // The form of today names whole paths, and its file may have another name.
    let new = json!({"fine_tune_type": "lora", "num_layers": -1,
        "lora_parameters": {"rank": 2, "scale": 2.0, "dropout": 0.0, "keys": [q]}});
    write_adapter_of(&space.path("lora"), "weights.safetensors", &new, &factors(["lora_a", "lora_b"]));
    let run = space.build_with(&["fused"]).exits(0);
    assert!(run.events("warning").is_empty(), "{}", run.transcript());
    assert_eq!(space.bytes(FUSED), made);
}

#[test]
fn tensors_that_zero_3_left_empty() {
    let space = space("adapter: a");
    let config = json!({"num_layers": 1, "lora_parameters": {"rank": 2, "scale": 1.0}});
    let q = "model.layers.0.self_attn.q_proj";
    let tensors: Floats =
        [(format!("{q}.lora_a"), (vec![0], vec![])), (format!("{q}.lora_b"), (vec![2, 64], numbers(2, 128)))]
            .into();
    write_adapter_of(&space.path("lora"), "adapters.safetensors", &config, &tensors);
    let run = space.run(&["build", "fused"]).exits(1);
    assert!(run.stderr.contains("lora_a` and 0 more of 2 tensors have no numbers"), "{}", run.transcript());
    assert!(run.stderr.contains("ZeRO-3"), "{}", run.transcript());
}
