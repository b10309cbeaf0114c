//! What happens to weights: formats, recipes, overrides, experts, what is refused, and the files beside them.

use safetensors::tensor::TensorView;
use serde_json::{Value, json};

use crate::pico::{Tensor, numbers, write_tensors_of};
use crate::space::Space;
use weights::tensor::{Element, TensorFiles};

/// A project with a model of these tensors in `model`, and one node `q` that is made from it.
fn space(config: Value, tensors: &[Tensor<'_>], node: &str) -> Space {
    let space = Space::empty();
    write_tensors_of(&space.path("model"), config, tensors);
    space.write(
        "pipeline.yaml",
        format!("version: 1\nnodes:\n  m: {{stage: base, source: model}}\n  q: {node}\n"),
    );
    space
}

fn matrix<'a>(name: &'a str, shape: &'a [usize]) -> Tensor<'a> {
    (name, shape, numbers(name.len() as u64, shape.iter().product()))
}

fn config(space: &Space) -> Value {
    serde_json::from_str(&space.read("artifacts/q/config.json")).unwrap()
}

fn tensors_of(space: &Space) -> TensorFiles {
    TensorFiles::open_model(&space.path("artifacts/q")).unwrap()
}

fn shape(files: &TensorFiles, name: &str) -> Option<(Vec<usize>, Element)> {
    files.get(name).map(|tensor| (tensor.shape.clone(), tensor.element))
}

const LAYER: &str = "model.layers.3.mlp.down_proj.weight";

#[test]
fn overrides_are_recorded_by_layer() {
    let model = [
        matrix("lm_head.weight", &[8, 64]),
        matrix(LAYER, &[4, 64]),
        matrix("model.embed_tokens.weight", &[8, 64]),
    ];
    let node = "\n    stage: quantize\n    model: m\n    bits: 4\n    overrides:\n      - {pattern: lm_head, keep: true}\n      \
                - {pattern: \"*.down_proj\", bits: 8, group_size: 32}";
    let space = space(json!({"tie_word_embeddings": false}), &model, node);
    space.build().ran(["m", "q"]);
    let expected = json!({"bits": 4, "group_size": 64, "mode": "affine",
        "model.layers.3.mlp.down_proj": {"bits": 8, "group_size": 32, "mode": "affine"}});
    assert_eq!(config(&space)["quantization"], expected);
    let files = tensors_of(&space);
    assert_eq!(shape(&files, LAYER), Some((vec![4, 16], Element::U32)));
    assert_eq!(shape(&files, "model.layers.3.mlp.down_proj.scales"), Some((vec![4, 2], Element::F16)));
    assert_eq!(shape(&files, "lm_head.weight"), Some((vec![8, 64], Element::F16)));
    assert_eq!(shape(&files, "lm_head.scales"), None);
    assert_eq!(shape(&files, "model.embed_tokens.weight"), Some((vec![8, 8], Element::U32)));
}

#[test]
fn an_override_that_matches_nothing_is_a_mistake() {
    let node =
        "{stage: quantize, model: m, bits: 4, overrides: [{pattern: model.layers.3.mlp.down_prj, bits: 8}]}";
    let space = space(json!({}), &[matrix(LAYER, &[4, 64])], node);
    let run = space.run(&["build"]).exits(2);
    insta::assert_snapshot!(run.transcript(), @r#"
    exit 2
    stderr:
    error: pipeline.yaml:4:3: node `q`: the override `model.layers.3.mlp.down_prj` matches no layer of the model (`*` stands for any text); did you mean `model.layers.3.mlp.down_proj`?
      4 |   q: {stage: quantize, model: m, bits: 4, overrides: [{pattern: model.layers.3.mlp.down_prj, bits: 8}]}
        |   ^
    "#);
}

#[test]
fn small_floats_have_a_byte_for_a_scale_and_no_bias() {
    for (mode, group_size, words) in [("mxfp4", 32, 8), ("mxfp8", 32, 16), ("nvfp4", 16, 8)] {
        let node = format!("{{stage: quantize, model: m, mode: {mode}}}");
        let space = space(json!({}), &[matrix(LAYER, &[4, 64])], &node);
        space.build().ran(["m", "q"]);
        assert_eq!(config(&space)["quantization"]["mode"], mode);
        let files = tensors_of(&space);
        assert_eq!(shape(&files, LAYER), Some((vec![4, words], Element::U32)));
        let scales = shape(&files, "model.layers.3.mlp.down_proj.scales");
        assert_eq!(scales, Some((vec![4, 64 / group_size], Element::U8)));
        assert_eq!(files.tensors().len(), 2);
    }
}

/// Experts that are stored one by one become the stack that mlx-lm loads, the tenth after the ninth. The
/// router of this model keeps its eight bits.
#[test]
fn experts_are_stacked() {
    let names: Vec<_> = (0..11).map(|n| format!("model.layers.0.mlp.experts.{n}.up_proj.weight")).collect();
    let mut model: Vec<Tensor<'_>> = names
        .iter()
        .enumerate()
        .map(|(n, name)| (name.as_str(), &[2, 64][..], vec![n as f32; 128]))
        .collect();
    model.push(matrix("model.layers.0.mlp.gate.weight", &[11, 64]));
    let space = space(json!({"model_type": "qwen3_moe"}), &model, "{stage: quantize, model: m, bits: 4}");
    space.build().ran(["m", "q"]);
    let files = tensors_of(&space);
    assert_eq!(
        shape(&files, "model.layers.0.mlp.switch_mlp.up_proj.weight"),
        Some((vec![11, 2, 8], Element::U32))
    );
    let biases = files.read("model.layers.0.mlp.switch_mlp.up_proj.biases").unwrap();
    let firsts: Vec<_> =
        biases.chunks(4).map(|two| half::f16::from_le_bytes([two[0], two[1]]).to_f32()).collect();
    assert_eq!(firsts, (0..11).map(|n| n as f32).collect::<Vec<_>>());
    assert_eq!(shape(&files, "model.layers.0.mlp.gate.weight"), Some((vec![11, 16], Element::U32)));
    assert_eq!(
        config(&space)["quantization"]["model.layers.0.mlp.gate"],
        json!({"bits": 8, "group_size": 64})
    );
}

/// mlx-lm drops the head when it loads the model, and could not load a quantized one.
#[test]
fn a_tied_model_has_no_head_of_its_own() {
    let model = [matrix("lm_head.weight", &[8, 64]), matrix("model.embed_tokens.weight", &[8, 64])];
    let space = space(json!({"tie_word_embeddings": true}), &model, "{stage: quantize, model: m, bits: 4}");
    space.build().ran(["m", "q"]);
    assert_eq!(shape(&tensors_of(&space), "lm_head.weight"), None);
    // If `config.json` does not say it, mlx-lm treats a llama as tied. The result is the same, but with a
    // warning.
    write_tensors_of(&space.path("model"), json!({}), &model);
    let run = space.build();
    assert!(run.events("warning")[0]["message"].as_str().unwrap().starts_with("`lm_head` is left out"));
    run.ran(["m", "q"]);
    assert_eq!(shape(&tensors_of(&space), "lm_head.weight"), None);
}

#[test]
fn what_is_not_a_number_is_refused_by_name() {
    let mut weight = matrix(LAYER, &[4, 64]);
    weight.2[70] = f32::NAN;
    let space = space(json!({}), &[weight], "{stage: quantize, model: m, bits: 4}");
    let run = space.run(&["build", "q"]).exits(1);
    assert!(
        run.stderr.contains("q: failed: `model.layers.3.mlp.down_proj.weight` is NaN in row 1, column 6"),
        "{}",
        run.stderr
    );
    space.is_tidy();
}

/// Integers, booleans and tensors without elements are copied as they are; floats are cast to the declared
/// type.
#[test]
fn what_is_no_float_travels() {
    let space = space(
        json!({"torch_dtype": "bfloat16"}),
        &[matrix(LAYER, &[4, 64])],
        "{stage: quantize, model: m, bits: 4}",
    );
    let (ids, mask, weight, empty) = ([7u8; 24], [1u8; 5], [0u8; 512], [0u8; 0]);
    let tensors = [
        ("model.position_ids", Element::I64, vec![3], &ids[..]),
        ("model.mask", Element::BOOL, vec![5], &mask[..]),
        ("model.none.weight", Element::F16, vec![0, 64], &empty[..]),
        (LAYER, Element::F16, vec![4, 64], &weight[..]),
    ];
    write_raw(&space, &tensors);
    space.build().ran(["m", "q"]);
    let files = tensors_of(&space);
    assert_eq!(files.read("model.position_ids").unwrap(), ids);
    assert_eq!(shape(&files, "model.mask"), Some((vec![5], Element::BOOL)));
    assert_eq!(shape(&files, "model.none.weight"), Some((vec![0, 8], Element::U32)));
    assert_eq!(shape(&files, "model.layers.3.mlp.down_proj.scales"), Some((vec![4, 1], Element::BF16)));
}

fn write_raw(space: &Space, tensors: &[(&str, Element, Vec<usize>, &[u8])]) {
    let views = tensors.iter().map(|(name, element, shape, bytes)| {
        (name, TensorView::new(*element, shape.clone(), bytes).unwrap())
    });
    space.write("model/model.safetensors", safetensors::serialize(views, None).unwrap());
}

fn raw(header: &str) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes(), header.as_bytes()].concat()
}

/// A header of some sixty bytes must not take all memory, nor make two tensors of one name.
#[test]
fn hostile_shapes_and_names_are_refused() {
    let space = space(json!({}), &[matrix(LAYER, &[4, 64])], "{stage: quantize, model: m, bits: 4}");
    let many = r#"{"x.weight":{"dtype":"F16","shape":[4611686018427387904,0],"data_offsets":[0,0]}}"#;
    space.write("model/model.safetensors", raw(many));
    let run = space.run(&["build"]).exits(1);
    assert!(
        run.stderr.contains("`x.weight` is [4611686018427387904, 0]: no machine has so many weights"),
        "{}",
        run.stderr
    );
    let zeros = [0u8; 512];
    let float = |name| (name, Element::F16, vec![4, 64], &zeros[..]);
    write_raw(&space, &[float("x.weight"), float("x.biases")]);
    let run = space.run(&["build", "q"]).exits(1);
    assert!(run.stderr.contains("two tensors would be called `x.biases`"), "{}", run.stderr);
    space.is_tidy();
}

/// GPTQ's tensors have names of their own. They would not be recognised, and would be copied beside quantized
/// weights.
#[test]
fn a_model_that_others_quantized_is_refused() {
    let config = json!({"quantization_config": {"quant_method": "gptq", "bits": 4}});
    let space = space(
        config,
        &[matrix("model.layers.0.q_proj.qzeros", &[4, 64])],
        "{stage: quantize, model: m, bits: 4}",
    );
    let run = space.run(&["build"]).exits(1);
    assert!(run.stderr.contains("the model was quantized by gptq, not by MLX"), "{}", run.stderr);
}

/// A model that was merged in 16 bits may still say how its base was quantized.
#[test]
fn a_left_over_of_another_quantization_is_dropped_with_a_warning() {
    let space = space(
        json!({"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": true}}),
        &[matrix("model.layers.0.q_proj.weight", &[4, 64])],
        "{stage: quantize, model: m, bits: 4}",
    );
    let run = space.build_with(&["q"]).exits(0);
    let message = "config.json says that bitsandbytes quantized the model, but its weights are floats; the section \
                   `quantization_config` is left out";
    assert!(run.events("warning").iter().any(|event| event["message"] == message), "{}", run.transcript());
    let config: Value = serde_json::from_str(&space.read("artifacts/q/config.json")).unwrap();
    assert_eq!(config["quantization_config"], config["quantization"]);
}

/// The base's weights in another format must not be copied to a model that is made from them.
#[test]
fn copies_of_the_weights_are_left_out_with_a_warning() {
    let space = Space::pico();
    space.write("model/consolidated.safetensors", "old").write("model/original/pytorch_model.bin", "old");
    let run = space.build_with(&["q8"]);
    let messages: Vec<_> =
        run.events("warning").into_iter().map(|event| event["message"].to_string()).collect();
    assert!(messages[0].contains("consolidated.safetensors, original/pytorch_model.bin"), "{messages:?}");
    run.ran(["base", "adapter", "fused", "q8"]);
    assert!(!space.names("artifacts/fused").contains(&"consolidated.safetensors".to_owned()));
}

#[test]
fn a_fused_weight_that_overflows_is_refused() {
    let space = Space::pico();
    let config = space.read("lora/adapter_config.json");
    space.write("lora/adapter_config.json", config.replace("20.0", "3e8"));
    let run = space.run(&["build", "fused"]).exits(1);
    assert!(run.stderr.contains("self_attn.q_proj.weight` is "), "{}", run.stderr);
    assert!(run.stderr.contains("float16 ends at 65504"), "{}", run.stderr);
}

/// Weights are quantized again as they were, which is mlx-lm's default. The update is far smaller than a step
/// of four bits.
#[test]
fn requantizing_says_what_it_lost() {
    let space = Space::pico();
    let config = space.read("lora/adapter_config.json");
    space.write("lora/adapter_config.json", config.replace("20.0", "0.5"));
    space.write(
        "pipeline.yaml",
        "version: 1\nnodes:\n  base: {stage: base, source: model}\n  adapter: {stage: adapter, source: lora}\n  \
         q4: {stage: quantize, model: base, bits: 4}\n  q: {stage: fuse, model: q4, adapter: adapter, requantize: true}\n",
    );
    let run = space.build();
    let warning = run.events("warning").pop().expect("a warning")["message"].as_str().unwrap().to_owned();
    assert!(warning.starts_with("of the fine-tuning, "), "{warning}");
    run.ran(["base", "adapter", "q4", "q"]);
    let (before, after) = (TensorFiles::open_model(&space.path("artifacts/q4")).unwrap(), tensors_of(&space));
    assert_eq!(before.tensors().keys().collect::<Vec<_>>(), after.tensors().keys().collect::<Vec<_>>());
    // What the adapter does not touch stays the same, to the bit.
    let same = |name: &str| before.read(name).unwrap() == after.read(name).unwrap();
    assert!(same("model.layers.0.mlp.down_proj.weight") && same("model.layers.0.self_attn.k_proj.scales"));
    assert!(!same("model.layers.0.self_attn.q_proj.weight"));
    assert_eq!(config_of(&space, "q4"), config_of(&space, "q"));
}

fn config_of(space: &Space, node: &str) -> String {
    space.read(&format!("artifacts/{node}/config.json"))
}

/// Compares source and output, file by file: all files but weights, index and configuration are copied
/// unchanged, from subfolders too, and the head of the model card is completed.
#[test]
fn files_beside_the_weights_travel() {
    let space = Space::pico();
    space
        .write("model/chat_template.jinja", "{{ messages }}")
        .write("model/original/params.json", "{}")
        .write("model/README.md", "---\nlicense: apache-2.0\n---\n# A model\n");
    space.build().ran(["base", "adapter", "fused", "q8", "q4"]);
    let source = space.files("model");
    for node in ["fused", "q4"] {
        for (path, bytes) in &source {
            let path = path.strip_prefix("model/").unwrap();
            let made = space.bytes(&format!("artifacts/{node}/{path}"));
            match path {
                "README.md" => assert_eq!(
                    String::from_utf8(made).unwrap(),
                    "---\nlicense: apache-2.0\nlibrary_name: mlx\npipeline_tag: text-generation\ntags:\n- mlx\n---\n# A model\n"
                ),
                "config.json" | "model.safetensors" => assert_ne!(&made, bytes),
                _ => assert_eq!(&made, bytes, "{path}"),
            }
        }
        let names = space.names(&format!("artifacts/{node}"));
        let extra = names.iter().filter(|name| !source.contains_key(&format!("model/{name}")));
        let own = extra.filter(|name| *name != "survival.json");
        assert_eq!(own.collect::<Vec<_>>(), ["model.safetensors.index.json", "original"]);
    }
}

/// The number of threads is not part of a key, so the bytes must not depend on it.
#[test]
fn one_thread_makes_what_eight_make() {
    let lock = |threads: &str| {
        let space = Space::of(crate::pico::SLOW);
        let output = space.command().args(["build"]).env("RAYON_NUM_THREADS", threads).output().unwrap();
        let _ = space.finish(output).exits(0);
        space.read("pipeline.lock")
    };
    assert_eq!(lock("1"), lock("8"));
}

/// `--backend mlx` uses the worker, and on the CPU makes the same bytes.
#[cfg(all(feature = "mlx", not(target_os = "macos")))]
#[test]
fn mlx_makes_the_same_files() {
    let model = [matrix(LAYER, &[40, 64]), matrix("model.embed_tokens.weight", &[8, 64])];
    for node in ["bits: 3", "mode: mxfp4", "mode: mxfp8", "mode: nvfp4", "recipe: mixed_2_6"] {
        let space = space(json!({}), &model, &format!("{{stage: quantize, model: m, {node}}}"));
        space.build().ran(["m", "q"]);
        let ours = space.files("artifacts/q/");
        let weights = space.bytes("artifacts/q/model.safetensors");
        space.build_with(&["--backend", "mlx"]).ran(["q"]);
        assert_eq!(space.files("artifacts/q/"), ours);
        assert_eq!(space.bytes("artifacts/q/model.safetensors"), weights, "{node}");
    }
}

/// Converted models are known to have a wrong default beside correct tensors. mlx-lm reads the shapes, and so
/// does every stage: a model made from such a base has the same bytes as one made from a correct base.
#[test]
fn a_wrong_default_in_the_configuration_is_overruled_by_the_shapes() {
    let model = [
        matrix("lm_head.weight", &[8, 64]),
        matrix(LAYER, &[4, 64]),
        matrix("model.embed_tokens.weight", &[8, 64]),
    ];
    let space =
        space(json!({"hidden_size": 64}), &model, "{stage: quantize, model: m, bits: 4, group_size: 32}");
    space.build().ran(["m", "q"]);
    for (folder, bits, group_size) in [("right", 4, 32), ("bits", 8, 32), ("group", 4, 64), ("none", 7, 32)] {
        for name in space.names("artifacts/q") {
            space.write(&format!("{folder}/{name}"), space.bytes(&format!("artifacts/q/{name}")));
        }
        let path = format!("{folder}/config.json");
        let mut config: Value = serde_json::from_str(&space.read(&path)).unwrap();
        for key in ["quantization", "quantization_config"] {
            config[key]["bits"] = bits.into();
            config[key]["group_size"] = group_size.into();
        }
        space.write(&path, config.to_string());
        let nodes = format!(
            "version: 1\nnodes:\n  m: {{stage: base, source: {folder}}}\n  {folder}-8: {{stage: quantize, model: m, bits: 8}}\n"
        );
        let _ = space.write("pipeline.yaml", nodes).build().exits(0);
        let weights = |folder: &str| space.bytes(&format!("artifacts/{folder}-8/model.safetensors"));
        assert!(weights(folder) == weights("right"), "{folder}");
    }
}

/// Python writes `Infinity` into a configuration and reads it; JSON does not have it.
#[test]
fn a_configuration_with_an_infinite_number() {
    let space = Space::pico();
    space.edit_file("model/config.json", "\"rope_theta\": 10000.0", "\"time_step_limit\": [0.0, Infinity]");
    space.build().ran(["base", "adapter", "fused", "q8", "q4"]);
    let config = space.read("artifacts/q8/config.json");
    assert!(config.contains("    \"time_step_limit\": [\n        0.0,\n        Infinity\n    ]"), "{config}");
}

/// An index that is a left-over, and shards without an index, give the bytes of the tidy folder.
#[test]
fn weights_are_found_in_an_untidy_folder() {
    let space = Space::pico();
    space.build().ran(["base", "adapter", "fused", "q8", "q4"]);
    let tidy = space.bytes("artifacts/fused/model.safetensors");
    let index = r#"{"weight_map": {"a": "model-00001-of-00002.safetensors"}}"#;
    space.write("model/model.safetensors.index.json", index);
    let run = space.build_with(&["fused"]).exits(0);
    let message = "model.safetensors.index.json names model-00001-of-00002.safetensors, which is not there; the weights are \
                   read from model.safetensors";
    assert!(run.events("warning").iter().any(|event| event["message"] == message), "{}", run.transcript());
    assert!(space.bytes("artifacts/fused/model.safetensors") == tidy);
    space.remove("model/model.safetensors.index.json");
    std::fs::rename(
        space.path("model/model.safetensors"),
        space.path("model/model-00001-of-00001.safetensors"),
    )
    .unwrap();
    let run = space.build_with(&["fused"]).exits(0);
    let message =
        "there is no model.safetensors.index.json; the weights are read from all shards that are there: 1";
    assert!(run.events("warning").iter().any(|event| event["message"] == message), "{}", run.transcript());
    assert!(space.bytes("artifacts/fused/model.safetensors") == tidy);
}
