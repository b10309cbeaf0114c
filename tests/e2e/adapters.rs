//! Adapters of every format, fused and refused: the same factors give the same bytes, and no part of an
//! adapter is ignored.

use serde_json::{Value, json};

use crate::pico::{Floats, write_adapter_of, write_peft_adapter};
use crate::space::Space;

const MLX: &str = "adapters.safetensors";
const PEFT: &str = "adapter_model.safetensors";
const FUSED: &str = "artifacts/fused/model.safetensors";

/// Returns tensors of ones, with these shapes.
fn ones(shapes: &[(&str, &[usize])]) -> Floats {
    let ones = |shape: &[usize]| (shape.to_vec(), vec![1.0; shape.iter().product()]);
    shapes.iter().map(|(name, shape)| ((*name).to_owned(), ones(shape))).collect()
}

fn merged(config: &Value, extra: &Value) -> Value {
    let mut config = config.clone();
    config.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    config
}

/// Returns what the build says of an adapter that it refuses.
fn refused(file: &str, config: &Value, tensors: &Floats) -> String {
    let space = Space::pico();
    write_adapter_of(&space.path("lora"), file, config, tensors);
    refused_in(&space)
}

fn refused_in(space: &Space) -> String {
    let run = space.run(&["build", "-j1"]).exits(1);
    space.is_tidy();
    assert!(!space.path("artifacts/fused").exists(), "something was fused");
    let (_, said) = run.stderr.split_once(": failed: ").unwrap_or_else(|| panic!("{}", run.transcript()));
    let lines = said.lines().take_while(|line| !line.contains(": skipped"));
    lines.collect::<Vec<_>>().join("\n")
}

/// The two factors of `q_proj` in layer 0, in mlx-lm's format.
const MLX_Q: [(&str, &[usize]); 2] = [
    ("model.layers.0.self_attn.q_proj.lora_a", &[64, 2]),
    ("model.layers.0.self_attn.q_proj.lora_b", &[2, 64]),
];

fn mlx(extra: &Value, tensors: &[(&str, &[usize])]) -> String {
    let config = json!({"num_layers": 1, "lora_parameters": {"rank": 2, "scale": 1.0}});
    refused(MLX, &merged(&config, extra), &ones(&[&MLX_Q, tensors].concat()))
}

/// The same in PEFT's format.
const PEFT_Q: [(&str, &[usize]); 2] = [
    ("base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight", &[2, 64]),
    ("base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight", &[64, 2]),
];

fn peft(extra: &Value, tensors: &[(&str, &[usize])]) -> String {
    let config = json!({"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["q_proj"]});
    refused(PEFT, &merged(&config, extra), &ones(&[&PEFT_Q, tensors].concat()))
}

#[test]
fn peft_and_mlx_lm_give_the_same_fused_bytes() {
    let space = Space::built();
    let fused = space.bytes(FUSED);
    space.remove("lora");
    write_peft_adapter(&space.path("lora"), 64, 1);
    // The adapter is another one, but the fused weights are the same, so nothing below the fused model is
    // made again.
    space.build().ran_and_linked(["adapter", "fused"], []);
    assert_eq!(space.bytes(FUSED), fused);
}

#[test]
fn a_full_fine_tune_replaces_the_weights() {
    let space = Space::pico();
    let config = json!({"fine_tune_type": "full", "num_layers": 1, "lora_parameters": null});
    let norm = "model.layers.0.input_layernorm.weight";
    write_adapter_of(&space.path("lora"), MLX, &config, &ones(&[(norm, &[64])]));
    space.build().ran(crate::space::ALL);
    let one = half::f16::ONE.to_le_bytes();
    let base = safetensors::SafeTensors::deserialize(&space.bytes("model/model.safetensors"))
        .map(|tensors| tensors.tensor("model.norm.weight").unwrap().data().to_vec());
    let bytes = space.bytes(FUSED);
    let fused = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(fused.tensor(norm).unwrap().data(), one.repeat(64));
    assert_eq!(fused.tensor("model.norm.weight").unwrap().data(), base.unwrap());
}

#[test]
fn files_that_are_no_adapter() {
    let space = Space::pico();
    space.write("lora/adapter_model.safetensors", "x");
    insta::assert_snapshot!(refused_in(&space), @"[DIR]/lora holds both adapters.safetensors (mlx-lm) and adapter_model.safetensors (PEFT): one of them must go");
    space.remove("lora/adapter_model.safetensors").remove("lora/adapters.safetensors");
    insta::assert_snapshot!(refused_in(&space), @"[DIR]/lora holds neither adapters.safetensors (mlx-lm) nor adapter_model.safetensors (PEFT)");
    space.write("lora/adapter_model.bin", "x");
    insta::assert_snapshot!(refused_in(&space), @"[DIR]/lora holds neither adapters.safetensors (mlx-lm) nor adapter_model.safetensors (PEFT); adapter_model.bin is a pickle, which may run code: save it again with PEFT as safetensors");
}

#[test]
fn alpha_in_the_place_of_scale() {
    insta::assert_snapshot!(mlx(&json!({"lora_parameters": {"rank": 2, "alpha": 16}}), &[]), @"in [DIR]/lora: adapter_config.json has no `lora_parameters.scale`; it has `alpha`, but in mlx-lm `scale` is the factor on the update as it is (PEFT's alpha / rank)");
}

#[test]
fn kinds_that_are_not_read() {
    insta::assert_snapshot!(mlx(&json!({"fine_tune_type": "prefix"}), &[]), @r#"in [DIR]/lora: adapter_config.json has `fine_tune_type` "prefix"; this version reads lora, dora and full"#);
    insta::assert_snapshot!(peft(&json!({"peft_type": "LOHA"}), &[]), @"in [DIR]/lora: adapter_config.json cannot be used: its `peft_type` is LOHA; this version reads LORA only");
    insta::assert_snapshot!(peft(&json!({"use_qalora": true}), &[]), @"in [DIR]/lora: adapter_config.json cannot be used: it has `use_qalora`, QA-LoRA, which pools the input: this version cannot merge that");
    insta::assert_snapshot!(peft(&json!({"lora_bias": true}), &[]), @"in [DIR]/lora: adapter_config.json cannot be used: it has `lora_bias`, a bias of the update: this version cannot merge that");
    insta::assert_snapshot!(peft(&json!({"init_lora_weights": "pissa"}), &[]), @"in [DIR]/lora: adapter_config.json cannot be used: its `init_lora_weights` is `pissa`, which changes the base that it was trained on; PEFT's `save_pretrained(path_initial_model_for_weight_conversion=…)` makes a plain LoRA of it");
}

#[test]
fn a_rank_other_than_the_configuration_says() {
    insta::assert_snapshot!(mlx(&json!({"lora_parameters": {"rank": 8, "scale": 1.0}}), &[]), @"in [DIR]/lora: `lora_parameters` in adapter_config.json says rank 8, but `model.layers.0.self_attn.q_proj.lora_a` has rank 2");
    insta::assert_snapshot!(peft(&json!({"rank_pattern": {"q_proj": 8}}), &[]), @"in [DIR]/lora: adapter_config.json says rank 8, but `base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight` has rank 2");
}

#[test]
fn factors_that_lie_the_other_way() {
    let up = "model.layers.0.mlp.up_proj";
    let (a, b) = (format!("{up}.lora_a"), format!("{up}.lora_b"));
    insta::assert_snapshot!(mlx(&json!({}), &[(&a, &[2, 64]), (&b, &[128, 2])]), @"in [DIR]/lora: `model.layers.0.mlp.up_proj.lora_a` [2, 64] and `model.layers.0.mlp.up_proj.lora_b` [128, 2] do not multiply: mlx-lm keeps lora_a as [in, rank] and lora_b as [rank, out]; they look transposed");
    insta::assert_snapshot!(mlx(&json!({}), &[(&a, &[128, 2]), (&b, &[2, 64])]), @r"
    the adapter does not fit this model: 1 of 2 updates have no place
      `model.layers.0.mlp.up_proj` updates [64, 128], but `model.layers.0.mlp.up_proj.weight` is [128, 64]; its factors look swapped
    ");
}

#[test]
fn tensors_without_a_place() {
    insta::assert_snapshot!(mlx(&json!({}), &[("model.norm.weight", &[64])]), @r"
    in [DIR]/lora: 1 of the 3 tensors of adapters.safetensors are no lora_a, lora_b or m; whole tensors need `fine_tune_type: full`
      `model.norm.weight`
    ");
    let names: Vec<_> = (1..8)
        .flat_map(|layer| {
            ["lora_a", "lora_b"].map(|part| format!("model.layers.{layer}.self_attn.q_proj.{part}"))
        })
        .collect();
    let shapes: [&[usize]; 2] = [&[64, 2], &[2, 64]];
    let deeper: Vec<_> =
        names.iter().zip(shapes.iter().cycle()).map(|(name, shape)| (name.as_str(), *shape)).collect();
    insta::assert_snapshot!(mlx(&json!({}), &deeper), @r"
    the adapter does not fit this model: 7 of 8 updates have no place; it goes up to layer 7, but `model.layers` of the model ends at 0
      `model.layers.1.self_attn.q_proj` updates `model.layers.1.self_attn.q_proj.weight`, which the model does not have; the nearest is `model.layers.0.self_attn.q_proj.weight`
      `model.layers.2.self_attn.q_proj` updates `model.layers.2.self_attn.q_proj.weight`, which the model does not have; the nearest is `model.layers.0.self_attn.q_proj.weight`
      `model.layers.3.self_attn.q_proj` updates `model.layers.3.self_attn.q_proj.weight`, which the model does not have; the nearest is `model.layers.0.self_attn.q_proj.weight`
      `model.layers.4.self_attn.q_proj` updates `model.layers.4.self_attn.q_proj.weight`, which the model does not have; the nearest is `model.layers.0.self_attn.q_proj.weight`
      `model.layers.5.self_attn.q_proj` updates `model.layers.5.self_attn.q_proj.weight`, which the model does not have; the nearest is `model.layers.0.self_attn.q_proj.weight`
      and 2 more
    ");
    let prefix = "base_model.model.language_model.model.layers.0.self_attn.k_proj";
    let (a, b) = (format!("{prefix}.lora_A.weight"), format!("{prefix}.lora_B.weight"));
    insta::assert_snapshot!(peft(&json!({}), &[(&a, &[2, 64]), (&b, &[64, 2])]), @r"
    the adapter does not fit this model: 1 of 2 updates have no place
      `language_model.model.layers.0.self_attn.k_proj` updates `language_model.model.layers.0.self_attn.k_proj.weight`, which the model does not have; the model has `model.layers.0.self_attn.k_proj.weight`, so it names its modules otherwise
    ");
    insta::assert_snapshot!(peft(&json!({}), &[("base_model.model.model.embed_tokens.weight", &[34, 64])]), @r"
    the adapter does not fit this model: 1 of 2 updates have no place
      `base_model.model.model.embed_tokens.weight` updates [34, 64], but `model.embed_tokens.weight` is [32, 64]; was the vocabulary resized while training?
    ");
}

#[test]
fn modules_that_are_named_and_missing() {
    let keys = |keys: &[&str]| json!({"lora_parameters": {"rank": 2, "scale": 1.0, "keys": keys}});
    insta::assert_snapshot!(mlx(&keys(&["self_attn.q_proj", "self_attn.v_proj"]), &[]), @r"
    the adapter lacks 1 of the modules that its adapter_config.json names
      `model.layers.0.self_attn.v_proj`
    ");
    insta::assert_snapshot!(mlx(&keys(&["self_attn.q_proj", "self_attn.vproj"]), &[]), @r"
    the adapter lacks 1 of the modules that its adapter_config.json names
      `self_attn.vproj`, which no layer of the model has; the nearest is `self_attn.v_proj`
    ");
    insta::assert_snapshot!(peft(&json!({"target_modules": ["q_proj", "v_proj"]}), &[]), @r"
    the adapter lacks 1 of the modules that its adapter_config.json names
      `model.layers.0.self_attn.v_proj`
    ");
    insta::assert_snapshot!(peft(&json!({"target_modules": ".*_proj"}), &[]), @r"
    the adapter lacks 6 of the modules that its adapter_config.json names
      `model.layers.0.mlp.down_proj`
      `model.layers.0.mlp.gate_proj`
      `model.layers.0.mlp.up_proj`
      `model.layers.0.self_attn.k_proj`
      `model.layers.0.self_attn.o_proj`
      and 1 more
    ");
    insta::assert_snapshot!(peft(&json!({"modules_to_save": ["norm"]}), &[]), @r"
    the adapter lacks 1 of the modules that its adapter_config.json names
      `norm` of `modules_to_save`
    ");
}

#[test]
fn numbers_that_are_not_finite() {
    let mut tensors = ones(&MLX_Q);
    tensors.get_mut(MLX_Q[1].0).unwrap().1[5] = f32::NAN;
    let config = json!({"num_layers": 1, "lora_parameters": {"rank": 2, "scale": 1.0}});
    insta::assert_snapshot!(refused(MLX, &config, &tensors), @"`model.layers.0.self_attn.q_proj.lora_b` holds NaN at element 5: an adapter must be finite");
}

#[test]
fn a_dora_without_its_magnitudes() {
    insta::assert_snapshot!(mlx(&json!({"fine_tune_type": "dora"}), &[]), @"in [DIR]/lora: adapter_config.json says dora, but `model.layers.0.self_attn.q_proj` has no magnitude `model.layers.0.self_attn.q_proj.m`");
    insta::assert_snapshot!(mlx(&json!({}), &[("model.layers.0.self_attn.q_proj.m", &[64])]), @"in [DIR]/lora: `model.layers.0.self_attn.q_proj.m` is a magnitude of DoRA, but adapter_config.json does not say dora");
    insta::assert_snapshot!(peft(&json!({"use_dora": true}), &[]), @"in [DIR]/lora: adapter_config.json has `use_dora`, but `model.layers.0.self_attn.q_proj` has no `lora_magnitude_vector`");
}

/// A trainer often saves its tokenizer and chat template beside the adapter.
#[test]
fn an_adapter_with_a_template_of_its_own() {
    let space = Space::pico();
    let without = "version: 1\nnodes:\n  base: {stage: base, source: model}\n  adapter: {stage: adapter, source: lora}\n  \
                   fused: {stage: fuse, model: base, adapter: adapter}\n";
    space.write("pipeline.yaml", without);
    space.write("model/chat_template.jinja", "of the model");
    space.write("model/vocab.json", "{}");
    space.write("lora/tokenizer_config.json", r#"{"chat_template": "of the adapter"}"#);
    let message = "the adapter has a chat template of its own, which the fused model does not get; `tokenizer: adapter` \
                   takes it";
    let run = space.build_with(&["fused"]).exits(0);
    assert!(run.events("warning").iter().any(|event| event["message"] == message), "{}", run.transcript());
    assert_eq!(space.read("artifacts/fused/chat_template.jinja"), "of the model");
    space.write("lora/generation_config.json", r#"{"eos_token_id": 7}"#);
    space.write("lora/tokenizer_config.json", r#"{"chat_template": "of the adapter", "eos_token": "<end>"}"#);
    let run = space.build_with(&["fused"]).exits(0);
    let said = run.events("warning");
    let listed = "the adapter has a chat template, an end token and a generation config of its own";
    assert!(said.iter().any(|event| event["message"].to_string().contains(listed)), "{}", run.transcript());
    space.edit("adapter: adapter}", "adapter: adapter, tokenizer: adapter}");
    let run = space.build_with(&["fused"]).exits(0);
    assert!(run.events("warning").is_empty(), "{}", run.transcript());
    // The model's template would come first, so it goes. Its vocabulary stays, because the adapter has none.
    assert!(!space.path("artifacts/fused/chat_template.jinja").exists());
    assert!(space.read("artifacts/fused/tokenizer_config.json").contains("of the adapter"));
    assert!(
        space.path("artifacts/fused/vocab.json").exists()
            && space.path("artifacts/fused/tokenizer.json").exists()
    );
    assert_eq!(space.read("artifacts/fused/generation_config.json"), r#"{"eos_token_id": 7}"#);
    // A whole tokenizer takes the place of all of the model's files.
    space.write("lora/tokenizer.json", r#"{"model": {"type": "BPE", "vocab": {"a": 0}, "merges": []}}"#);
    let _ = space.build_with(&["fused"]).exits(0);
    assert!(!space.path("artifacts/fused/vocab.json").exists());
    assert!(space.read("artifacts/fused/tokenizer.json").contains(r#"{"a": 0}"#));
    for file in ["tokenizer.json", "tokenizer_config.json"] {
        space.remove(&format!("lora/{file}"));
    }
    let run = space.run(&["build"]).exits(1);
    assert!(run.stderr.contains("has neither a tokenizer nor a chat template"), "{}", run.transcript());
}
