//! Checkpoints in the layout of the Hugging Face hub: the bytes are those of mlx-lm's own layout, also with an adapter,
//! and towers stay or go as the user says. `tests/mlx_lm/types.rs` compares every type with mlx-lm itself.

use safetensors::Dtype;
use safetensors::tensor::TensorView;
use serde_json::{Value, json};

use crate::pico::{Floats, Tensor, numbers, write_adapter_of, write_tensors_of};
use crate::space::Space;

const NODES: &str = "version: 1\nnodes:\n  m: {stage: base, source: model}\n  a: {stage: adapter, source: lora}\n  \
                     f: {stage: fuse, model: m, adapter: a}\n  q: {stage: quantize, model: f, bits: 4, group_size: 32}\n";

fn tensor<'a>(name: &'a str, shape: &'a [usize], values: &[f32]) -> Tensor<'a> {
    assert_eq!(values.len(), shape.iter().product::<usize>());
    (name, shape, values.to_vec())
}

/// Builds `q` of a model of these tensors with an adapter for `module`, and returns the made files.
fn built(model_type: &str, tensors: &[Tensor<'_>], module: &str, sides: [usize; 2]) -> [Vec<u8>; 2] {
    let space = Space::empty();
    write_tensors_of(&space.path("model"), json!({"model_type": model_type}), tensors);
    let config = json!({"num_layers": 1, "lora_parameters": {"rank": 2, "scale": 2.0}});
    let factors: Floats = [
        (format!("{module}.lora_a"), (vec![sides[0], 2], numbers(1, 2 * sides[0]))),
        (format!("{module}.lora_b"), (vec![2, sides[1]], numbers(2, 2 * sides[1]))),
    ]
    .into();
    write_adapter_of(&space.path("lora"), "adapters.safetensors", &config, &factors);
    space.write("pipeline.yaml", NODES);
    let _ = space.build_with(&["q"]).exits(0);
    ["f", "q"].map(|node| space.bytes(&format!("artifacts/{node}/model.safetensors")))
}

#[test]
fn a_turned_matrix_is_fused_and_quantized_as_if_it_lay_right() {
    let values = numbers(3, 64 * 192);
    let turned: Vec<f32> = (0..192).flat_map(|row| values.iter().skip(row).step_by(192).copied()).collect();
    let module = "model.h.0.attn.c_attn";
    let hub = built("gpt2", &[tensor("h.0.attn.c_attn.weight", &[64, 192], &values)], module, [64, 192]);
    let own =
        built("gpt2", &[tensor("model.h.0.attn.c_attn.weight", &[192, 64], &turned)], module, [64, 192]);
    assert!(hub == own, "the layouts give other bytes");
}

#[test]
fn experts_in_one_tensor_are_fused_and_quantized_one_by_one() {
    let (gate, up) = (numbers(4, 2 * 32 * 64), numbers(5, 2 * 32 * 64));
    let both: Vec<f32> =
        gate.chunks(32 * 64).zip(up.chunks(32 * 64)).flat_map(|(gate, up)| [gate, up].concat()).collect();
    let (q, norm) = (numbers(6, 64 * 64), numbers(7, 64));
    let layer = "model.layers.0";
    let (q_name, norm_name) =
        (format!("{layer}.self_attn.q_proj.weight"), format!("{layer}.input_layernorm.weight"));
    let fused = format!("{layer}.mlp.experts.gate_up_proj");
    let hub = [
        tensor(&q_name, &[64, 64], &q),
        tensor(&norm_name, &[64], &norm),
        tensor(&fused, &[2, 64, 64], &both),
    ];
    let below = |name: &str| format!("language_model.{name}");
    let (own_q, own_norm) = (below(&q_name), below(&norm_name));
    let own_gate = below(&format!("{layer}.mlp.switch_mlp.gate_proj.weight"));
    let own_up = below(&format!("{layer}.mlp.switch_mlp.up_proj.weight"));
    let own = [
        tensor(&own_q, &[64, 64], &q),
        tensor(&own_norm, &[64], &norm),
        tensor(&own_gate, &[2, 32, 64], &gate),
        tensor(&own_up, &[2, 32, 64], &up),
    ];
    let module = "language_model.model.layers.0.self_attn.q_proj";
    let (hub, own) =
        (built("qwen3_5_moe", &hub, module, [64, 64]), built("qwen3_5_moe", &own, module, [64, 64]));
    assert!(hub == own, "the layouts give other bytes");
}

/// A wrapper with a vision tower.
fn wrapper(fields: &str) -> Space {
    let space = Space::empty();
    let tensors = [
        tensor("model.language_model.layers.0.self_attn.q_proj.weight", &[64, 64], &numbers(1, 64 * 64)),
        tensor("model.visual.blocks.0.attn.qkv.weight", &[64, 64], &numbers(2, 64 * 64)),
        tensor("model.visual.patch_embed.proj.weight", &[16, 3, 2, 4, 4], &numbers(3, 16 * 96)),
    ];
    write_tensors_of(&space.path("model"), json!({"model_type": "qwen3_vl"}), &tensors);
    space.write(
        "pipeline.yaml",
        format!("version: 1\nnodes:\n  m: {{stage: base, source: model}}\n  q: {{stage: quantize, model: m, bits: 4{fields}}}\n"),
    );
    space
}

/// Returns the names of the tensors, with their types and shapes.
fn made(space: &Space) -> Vec<String> {
    let bytes = space.bytes("artifacts/q/model.safetensors");
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let mut made: Vec<_> = tensors
        .iter()
        .map(|(name, tensor)| format!("{name} {:?} {:?}", tensor.dtype(), tensor.shape()))
        .collect();
    made.sort();
    made
}

#[test]
fn towers_go_unless_they_are_asked_for() {
    let space = wrapper("");
    let run = space.build_with(&["q"]).exits(0);
    let said: Vec<_> = run.events("warning").iter().map(|event| event["message"].clone()).collect();
    let expected = "left out, as mlx-lm does: 2 tensors with 11.3 kB not of the language model (`model.visual`); \
                    `towers: include` keeps them";
    assert_eq!(said, [Value::from(expected)]);
    assert!(
        made(&space).iter().all(|tensor| tensor.starts_with("language_model.model.")),
        "{:?}",
        made(&space)
    );
    let inspected = space.run(&["inspect", "m"]).exits(0).stdout;
    assert!(inspected.contains("not of the language model: `model.visual` 11.3 kB"), "{inspected}");

    let space = wrapper(", towers: include");
    let run = space.build_with(&["q"]).exits(0);
    assert!(run.events("warning").is_empty(), "{}", run.transcript());
    let towers: Vec<_> =
        made(&space).into_iter().filter(|tensor| tensor.starts_with("vision_tower.")).collect();
    // In mlx-vlm's names, with the channels of the convolution last.
    assert_eq!(
        towers,
        [
            "vision_tower.blocks.0.attn.qkv.weight F16 [64, 64]",
            "vision_tower.patch_embed.proj.weight F16 [16, 2, 4, 4, 3]"
        ]
    );

    let space = wrapper(", towers: include, overrides: [{pattern: \"vision_tower.*qkv\", bits: 8}]");
    let _ = space.build_with(&["q"]).exits(0);
    let qkv = "vision_tower.blocks.0.attn.qkv.weight U32 [64, 16]";
    assert!(made(&space).iter().any(|tensor| tensor == qkv), "{:?}", made(&space));
}

/// What transformers 5 writes of the rope, mlx-lm's llama does not read.
#[test]
fn the_rope_is_said_as_mlx_lm_reads_it() {
    let rope = json!({"rope_type": "llama3", "factor": 8.0, "rope_theta": 500_000.0});
    let build = |model_type: &str| {
        let space = wrapper("");
        let tensors = [tensor("model.layers.0.self_attn.q_proj.weight", &[64, 64], &numbers(1, 64 * 64))];
        let config = json!({"model_type": model_type, "rope_parameters": rope});
        write_tensors_of(&space.path("model"), config, &tensors);
        let run = space.build_with(&["q"]).exits(0);
        let said = run.events("warning").iter().map(|event| event["message"].to_string()).collect::<String>();
        (serde_json::from_str::<Value>(&space.read("artifacts/q/config.json")).unwrap(), said)
    };
    let (config, said) = build("llama");
    assert_eq!(config["rope_theta"], 500_000.0);
    assert_eq!(config["rope_scaling"], json!({"rope_type": "llama3", "type": "llama3", "factor": 8.0}));
    assert!(said.contains("mlx-lm's `llama` does not read"), "{said}");
    let (config, said) = build("qwen3");
    assert_eq!((config.get("rope_theta"), said.as_str()), (None, ""));
}

#[test]
fn code_in_a_folder_travels_and_is_said() {
    let space = wrapper("");
    space.write("model/modeling_own.py", "print('never run')");
    space.edit_file("model/config.json", "{", "{\"auto_map\": {\"AutoModel\": \"modeling_own.Own\"}, ");
    let run = space.build_with(&["q"]).exits(0);
    let said: Vec<_> = run.events("warning").iter().map(|event| event["message"].to_string()).collect();
    assert!(said[0].contains("code of its own (auto_map, modeling_own.py)"), "{said:?}");
    assert_eq!(space.read("artifacts/q/modeling_own.py"), "print('never run')");
}

#[test]
fn a_byte_order_mark_is_no_part_of_a_configuration() {
    let space = wrapper("");
    let config = space.read("model/config.json");
    space.write("model/config.json", format!("\u{feff}{config}"));
    let _ = space.build_with(&["q"]).exits(0);
    assert!(space.read("artifacts/q/config.json").starts_with('{'));
}

/// OpenAI's checkpoints of gpt-oss have the codes of MLX's mode `mxfp4`, with other names and other shapes.
#[test]
fn codes_in_the_form_of_openai_are_those_of_mlx() {
    let made = |tensors: &[(&str, Dtype, Vec<usize>, Vec<u8>)], section: Value| {
        let space = Space::empty();
        write_tensors_of(&space.path("model"), merged(json!({"model_type": "gpt_oss"}), section), &[]);
        let views = tensors.iter().map(|(name, dtype, shape, bytes)| {
            (*name, TensorView::new(*dtype, shape.clone(), bytes).unwrap())
        });
        space.write("model/model.safetensors", safetensors::serialize(views, None).unwrap());
        space.write(
            "pipeline.yaml",
            "version: 1\nnodes:\n  m: {stage: base, source: model}\n  q: {stage: quantize, model: m, bits: 8, group_size: 32}\n",
        );
        let _ = space.build_with(&["q"]).exits(0);
        (space.bytes("artifacts/q/model.safetensors"), space.read("artifacts/q/config.json"))
    };
    // Two experts, four rows of 64 weights each: 32 bytes of codes and 2 scales.
    let codes: Vec<u8> = (0..2 * 4 * 32).map(|number| u8::try_from(number * 37 % 256).unwrap()).collect();
    let scales: Vec<u8> = (0..2 * 4 * 2).map(|number| 120 + number).collect();
    let rows = |bytes: &[u8], length: usize, first: usize| -> Vec<u8> {
        bytes.chunks(length).skip(first).step_by(2).flatten().copied().collect()
    };
    let hub = made(
        &[
            ("model.layers.0.mlp.experts.gate_up_proj_blocks", Dtype::U8, vec![2, 4, 2, 16], codes.clone()),
            ("model.layers.0.mlp.experts.gate_up_proj_scales", Dtype::U8, vec![2, 4, 2], scales.clone()),
        ],
        json!({"quantization_config": {"quant_method": "mxfp4", "modules_to_not_convert": ["lm_head"]}}),
    );
    let name = |module: &str, part: &str| format!("model.layers.0.mlp.experts.{module}_proj.{part}");
    let names = [name("gate", "weight"), name("gate", "scales"), name("up", "weight"), name("up", "scales")];
    let own = made(
        &[
            (&names[0], Dtype::U32, vec![2, 2, 8], rows(&codes, 32, 0)),
            (&names[1], Dtype::U8, vec![2, 2, 2], rows(&scales, 2, 0)),
            (&names[2], Dtype::U32, vec![2, 2, 8], rows(&codes, 32, 1)),
            (&names[3], Dtype::U8, vec![2, 2, 2], rows(&scales, 2, 1)),
        ],
        json!({"quantization": {"group_size": 32, "bits": 4, "mode": "mxfp4"}}),
    );
    assert!(hub == own, "{}\n{}", hub.1, own.1);
}

fn merged(mut config: Value, more: Value) -> Value {
    config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    config
}
