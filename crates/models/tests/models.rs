//! The models compared with mlx-lm, on both runtimes: the golden models give its logits and tokens, and what does
//! not fit is refused by name. `golden/models.py` and `golden/chat.py` make the goldens.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, and writes scratch files"
)]

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use mlx_rs::Array;
use serde_json::Value;

use cpu::Cpu;
use mlx::Mlx;
use models::LanguageModel;
use models::chat::ChatTemplate;
use models::generate::{Decoding, Generation, generate};
use models::runtime::Runtime;
use protocol::Conversation;

const TOLERANCE: f32 = 1e-4;

/// MLX is not thread-safe, and `cargo test` runs tests on several threads. So every test that uses MLX holds
/// this.
fn mlx() -> MutexGuard<'static, ()> {
    static MLX: Mutex<()> = Mutex::new(());
    MLX.lock().unwrap_or_else(PoisonError::into_inner)
}

fn golden(folder: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden").join(folder)
}

fn cases(folder: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(golden(folder)).unwrap().map(|entry| entry.unwrap().path());
    let mut cases: Vec<PathBuf> = entries.filter(|path| path.is_dir()).collect();
    cases.sort();
    assert!(!cases.is_empty());
    cases
}

/// What mlx-lm computes for a golden model.
struct Expected {
    prompt: Vec<u32>,
    logits: Vec<f32>,
    tokens: Vec<u32>,
}

impl Expected {
    fn read(folder: &Path) -> Self {
        let tensors: HashMap<String, Array> =
            Array::load_safetensors(folder.join("expected.safetensors")).unwrap();
        Self {
            prompt: tensors["prompt"].to_vec_exact().unwrap(),
            logits: tensors["logits"].to_vec_exact().unwrap(),
            tokens: tensors["tokens"].to_vec_exact().unwrap(),
        }
    }
}

/// A model on either runtime.
trait Model {
    fn logits(&self, prompt: &[u32], step: usize) -> anyhow::Result<Vec<f32>>;
    fn generate(&self, prompt: &[u32], max_tokens: usize, eos: &BTreeSet<u32>) -> anyhow::Result<Generation>;
    fn activation_dtype(&self) -> String;
}

impl<R: Runtime> Model for LanguageModel<'_, R> {
    fn logits(&self, prompt: &[u32], step: usize) -> anyhow::Result<Vec<f32>> {
        self.logits(prompt, step)
    }

    fn generate(&self, prompt: &[u32], max_tokens: usize, eos: &BTreeSet<u32>) -> anyhow::Result<Generation> {
        let decoding = Decoding { max_tokens, eos_token_ids: eos, sampling: None };
        generate(self, prompt, decoding, &mut |_| {})
    }

    fn activation_dtype(&self) -> String {
        self.activation_dtype()
    }
}

fn load_on<R: Runtime>(runtime: R, folder: &Path) -> anyhow::Result<Box<dyn Model>> {
    let adapter = folder.join("adapter");
    let runtime: &'static R = Box::leak(Box::new(runtime));
    Ok(Box::new(LanguageModel::load(runtime, folder, adapter.exists().then_some(adapter.as_path()))?))
}

/// Loads the model on MLX and on the CPU runtime.
fn load(folder: &Path) -> anyhow::Result<[Box<dyn Model>; 2]> {
    Ok([load_on(Mlx, folder)?, load_on(Cpu::default(), folder)?])
}

/// Returns the message with which both runtimes refuse the model.
fn load_error(folder: &Path) -> String {
    let refused =
        |model: anyhow::Result<Box<dyn Model>>| format!("{:#}", model.err().expect("loading must fail"));
    let message = refused(load_on(Mlx, folder));
    assert_eq!(message, refused(load_on(Cpu::default(), folder)));
    message
}

/// Fails unless the model in `folder` has these logits on both runtimes.
fn assert_logits(folder: &Path, prompt: &[u32], expected: &[f32]) {
    for model in load(folder).unwrap() {
        let difference = largest_difference(&model.logits(prompt, 512).unwrap(), expected);
        assert!(difference <= TOLERANCE, "{difference}");
    }
}

fn largest_difference(logits: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(logits.len(), expected.len());
    let differences = logits.iter().zip(expected).map(|(a, b)| (a - b).abs());
    // A difference that is no number is the largest.
    differences.fold(0.0, |largest, difference| if difference <= largest { largest } else { difference })
}

/// Returns what a golden model gives other than mlx-lm.
fn differences(folder: &Path) -> anyhow::Result<Vec<String>> {
    let expected = Expected::read(folder);
    let mut wrong = Vec::new();
    for (model, runtime) in load(folder)?.into_iter().zip(["mlx", "cpu"]) {
        assert_eq!(model.activation_dtype(), "float32");
        // All tokens at once, in pieces that do not divide the prompt, and token by token.
        for step in [expected.prompt.len(), 5, 1] {
            let difference = largest_difference(&model.logits(&expected.prompt, step)?, &expected.logits);
            if difference.is_nan() || difference > TOLERANCE {
                wrong.push(format!("logits on {runtime} in steps of {step}: {difference}"));
            }
        }
        let generated = model.generate(&expected.prompt, expected.tokens.len(), &BTreeSet::new())?;
        assert_eq!(generated.prompt_tokens, expected.prompt.len());
        if generated.tokens != expected.tokens {
            wrong.push(format!("tokens on {runtime}: {:?}, not {:?}", generated.tokens, expected.tokens));
        }
    }
    Ok(wrong)
}

#[test]
fn golden_models_give_the_logits_and_tokens_of_mlx_lm() {
    let _mlx = mlx();
    let mut wrong = Vec::new();
    for folder in cases("models") {
        let found = differences(&folder).unwrap_or_else(|error| vec![format!("{error:#}")]);
        let name = folder.file_name().unwrap().to_string_lossy().into_owned();
        wrong.extend(found.into_iter().map(|difference| format!("{name}: {difference}")));
    }
    assert!(wrong.is_empty(), "{} differences:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn generation_ends_with_an_eos_token() {
    let _mlx = mlx();
    let folder = golden("models/llama-float16");
    let expected = Expected::read(&folder);
    let eos = expected.tokens[5];
    let end = expected.tokens.iter().position(|token| *token == eos).unwrap();
    for model in load(&folder).unwrap() {
        let generated = model.generate(&expected.prompt, 32, &BTreeSet::from([eos])).unwrap();
        assert_eq!(generated.tokens, expected.tokens[..=end]);
    }
}

#[test]
fn a_token_outside_the_vocabulary_is_refused() {
    let _mlx = mlx();
    for model in load(&golden("models/qwen2-4bit")).unwrap() {
        let error = model.logits(&[3, 96], 2).unwrap_err();
        assert_eq!(error.to_string(), "token 96 is outside the model's vocabulary of 96");
        assert!(model.generate(&[], 1, &BTreeSet::new()).is_err());
    }
}

/// Copies a golden model, so that the test can alter it.
fn copy(name: &str) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    copy_folder(&golden("models").join(name), copy.path());
    copy
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap().path();
        let target = to.join(entry.file_name().unwrap());
        if entry.is_dir() {
            copy_folder(&entry, &target);
        } else {
            fs::copy(&entry, &target).unwrap();
        }
    }
}

fn edit_config(folder: &Path, key: &str, value: Value) {
    let path = folder.join("config.json");
    let mut config: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    config[key] = value;
    fs::write(path, config.to_string()).unwrap();
}

fn edit_tensors(file: &Path, edit: impl FnOnce(&mut HashMap<String, Array>)) {
    let mut tensors = Array::load_safetensors(file).unwrap();
    // The file is replaced below, so its data must be read first.
    mlx_rs::transforms::eval(tensors.values()).unwrap();
    edit(&mut tensors);
    Array::save_safetensors(&tensors, None, file).unwrap();
}

#[test]
fn an_unknown_architecture_is_named_with_the_known_ones() {
    let _mlx = mlx();
    let model = copy("qwen2-4bit");
    edit_config(model.path(), "model_type", "mamba".into());
    let error = load_error(model.path());
    let (_, supported) = error.split_once("\"mamba\" is not supported (supported: ").unwrap();
    let supported: Vec<_> = supported.trim_end_matches(')').split(", ").collect();
    assert!(models::model_types().iter().all(|model_type| supported.contains(model_type)), "{error}");
    assert!(supported.contains(&"mistral") && supported.contains(&"kimi_k2"), "aliases run too: {error}");
}

#[test]
fn each_model_type_has_golden_models_in_float_and_in_three_widths_and_one_with_an_adapter() {
    let names: Vec<_> =
        cases("models").iter().map(|path| path.file_name().unwrap().to_string_lossy().into_owned()).collect();
    let has = |model_type: &str, kinds: &[&str]| {
        kinds.iter().any(|kind| names.contains(&format!("{model_type}-{kind}")))
    };
    let kinds: [&[&str]; 4] =
        [&["float32", "float16", "bfloat16"], &["8bit", "8bit-dora"], &["6bit"], &["4bit-lora"]];
    let lacking = models::model_types().into_iter().flat_map(|model_type| {
        kinds
            .iter()
            .filter(move |kinds| !has(model_type, kinds))
            .map(move |kinds| format!("{model_type}-{}", kinds[0]))
    });
    assert_eq!(lacking.collect::<Vec<_>>(), [""; 0]);
}

#[test]
fn the_readme_names_every_model_type_that_runs() {
    let readme = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../README.md")).unwrap();
    let (_, after) = readme.split_once("## What runs in the benchmark").unwrap();
    let table = after.split("\n## ").next().unwrap();
    let types = models::model_types();
    let missing: Vec<_> =
        types.iter().filter(|model_type| !table.contains(&format!("`{model_type}`"))).collect();
    assert!(missing.is_empty(), "{missing:?}");
    let count = format!("{} model types", types.len());
    assert!(readme.matches(&count).count() == 2, "README should say \"{count}\" twice");
}

#[test]
fn numbers_that_no_model_has_are_refused() {
    let _mlx = mlx();
    let refused = |name: &str, key: &str, value: Value, expected: &str| {
        let model = copy(name);
        edit_config(model.path(), key, value);
        let error = load_error(model.path());
        assert!(error.contains(expected) && error.contains("config.json"), "{key}: {error}");
    };
    refused("llama-8bit", "num_attention_heads", 0.into(), "no attention heads");
    refused("llama-8bit", "num_key_value_heads", 3.into(), "4 heads do not share 3 key/value heads");
    refused("llama-8bit", "head_dim", (-2).into(), "head_dim is -2");
    refused("llama-8bit", "head_dim", (1 << 30).into(), "1073741824 dimensions of a head are turned");
    refused("llama-8bit", "hidden_size", (-64).into(), "hidden_size is -64");
    refused("llama-8bit", "intermediate_size", 0.into(), "intermediate_size is 0");
    refused("llama-8bit", "vocab_size", (-1).into(), "vocab_size is -1");
    refused("llama-8bit", "rope_scaling", serde_json::json!({"type": "linear"}), "no factor");
    refused("mistral-4bit", "sliding_window", 0.into(), "sliding_window is 0");
    refused("mistral-4bit", "sliding_window", Value::Null, "sliding_attention without sliding_window");
    refused("mistral-4bit", "layer_types", vec!["full_attention"].into(), "1 layer_types for 2 layers");
    refused("mistral-4bit", "layer_types", vec!["mamba"; 2].into(), "mamba");
    refused("qwen3-6bit", "rope_theta", Value::Null, "no rope_theta");
    refused("granite-6bit", "logits_scaling", 0.into(), "logits_scaling is 0");
    refused("gemma3_text-6bit", "sliding_window_pattern", 0.into(), "sliding_window_pattern is 0");
    refused("gemma3_text-6bit", "sliding_window", (-8).into(), "sliding_window is -8");
    refused("gemma3_text-6bit", "query_pre_attn_scalar", 0.into(), "attention has scale inf");
    refused("gemma3_text-6bit", "layer_types", vec!["full_attention"].into(), "layer 0 is full_attention");
    refused("exaone4-6bit", "head_dim", Value::Null, "no head_dim");
    refused("exaone4-6bit", "sliding_window", Value::Null, "sliding_window_pattern without sliding_window");
    refused("exaone4-6bit", "sliding_window_pattern", "LL".into(), "lacks L or G");
    refused("qwen3_moe-6bit", "num_experts_per_tok", 9.into(), "9 experts are chosen of 5");
    refused("qwen3_moe-6bit", "num_experts_per_tok", 0.into(), "0 experts are chosen of 5");
    refused("qwen3_moe-6bit", "decoder_sparse_step", 0.into(), "decoder_sparse_step is 0");
    refused("qwen3_moe-6bit", "moe_intermediate_size", (-1).into(), "moe_intermediate_size is -1");
}

/// Returns a configuration in which some values are others, that no model has.
fn hostile(config: &Value, dice: &mut impl FnMut(usize) -> usize) -> Value {
    let values = [
        serde_json::json!(0),
        (-1).into(),
        1.into(),
        3.into(),
        7.into(),
        (1 << 16).into(),
        (1 << 30).into(),
        i32::MAX.into(),
        (1_i64 << 40).into(),
        Value::Null,
        "x".into(),
        serde_json::json!([]),
        serde_json::json!({}),
        serde_json::json!([0]),
        serde_json::json!([1 << 30]),
        1e308.into(),
        (-1e-30).into(),
        true.into(),
        vec!["full_attention"; 3].into(),
    ];
    let mut hostile = config.clone();
    for _ in 0..=dice(2) {
        let mut at = &mut hostile;
        // Into `text_config` or `rope_scaling`, most of the time.
        while let Some(inner) = at.as_object_mut() {
            let keys: Vec<String> = inner
                .keys()
                .filter(|key| *key != "model_type" && !key.starts_with("quantization"))
                .cloned()
                .collect();
            let Some(key) = keys.get(dice(keys.len().max(1))) else { break };
            at = inner.get_mut(key).unwrap();
            if !at.is_object() || dice(5) == 0 {
                *at = values[dice(values.len())].clone();
                break;
            }
        }
    }
    hostile
}

/// Every configuration is either refused or runs: no number of it makes a program panic or take all memory.
#[test]
fn no_configuration_is_more_than_refused() {
    let folders = cases("models");
    let mut state = 17_u64;
    let mut dice = |sides: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(state >> 33).unwrap() % sides
    };
    let (cpu, mut ran, count) = (Cpu::default(), 0, 600);
    for _ in 0..count {
        let folder = &folders[dice(folders.len())];
        let model = copy(&folder.file_name().unwrap().to_string_lossy());
        let path = model.path().join("config.json");
        let config: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        fs::write(&path, hostile(&config, &mut dice).to_string()).unwrap();
        let refused = models::check(model.path()).is_err();
        let adapter = Some(model.path().join("adapter")).filter(|adapter| adapter.exists());
        if let Ok(loaded) = LanguageModel::load(&cpu, model.path(), adapter.as_deref()) {
            assert!(!refused, "{} was refused, and yet it loads", path.display());
            ran += usize::from(loaded.logits(&[1, 2, 3, 4, 5, 6, 7, 8, 9], 4).is_ok());
        }
    }
    assert!(ran > count / 20 && ran < count, "{ran} of {count} ran");
}

#[test]
fn a_key_that_may_be_null_may_still_not_be_absent() {
    let _mlx = mlx();
    let model = copy("exaone4-8bit");
    assert!(load(model.path()).is_ok(), "sliding_window_pattern is null");
    let path = model.path().join("config.json");
    let mut config: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    config.as_object_mut().unwrap().remove("sliding_window_pattern");
    fs::write(path, config.to_string()).unwrap();
    let error = load_error(model.path());
    assert!(error.contains("missing field `sliding_window_pattern`"), "{error}");
}

#[test]
fn more_experts_than_the_file_holds_are_refused() {
    let _mlx = mlx();
    let model = copy("qwen3_moe-bfloat16");
    edit_config(model.path(), "num_experts", i32::MAX.into());
    let stack = "model.layers.0.mlp.gate.weight has shape [4, 64], config.json wants [2147483647, 64]";
    assert!(load_error(model.path()).contains(stack), "{}", load_error(model.path()));
    let model = copy("qwen3_moe-6bit");
    edit_config(model.path(), "num_experts", i32::MAX.into());
    assert!(load_error(model.path()).contains("config.json wants [2147483647, 64]"));
}

#[test]
fn a_packing_other_than_mlxs_is_refused() {
    let _mlx = mlx();
    let model = copy("llama-8bit");
    edit_config(model.path(), "quantization", serde_json::json!({"mode": "nf4"}));
    assert!(load_error(model.path()).contains("is quantized in the mode nf4, which MLX does not have"));
    edit_config(model.path(), "quantization", Value::Null);
    edit_config(model.path(), "quantization_config", serde_json::json!({"quant_method": "awq"}));
    assert!(load_error(model.path()).contains("the model was quantized by awq, not by MLX"));
}

#[test]
fn missing_unknown_and_misshapen_tensors_are_named() {
    let _mlx = mlx();
    let norm = "model.layers.1.input_layernorm.weight";
    let model = copy("qwen2-float32");
    let file = model.path().join("model.safetensors");

    edit_tensors(&file, |tensors| {
        tensors.insert("lm_head.weight".into(), Array::from_f32(0.0));
    });
    assert!(load(model.path()).is_ok(), "a tied model may carry the head that it does not use");

    edit_tensors(&file, |tensors| {
        tensors.insert("model.extra".into(), Array::from_f32(0.0));
    });
    assert!(load_error(model.path()).contains("1 unknown tensors, the first is model.extra"));

    edit_tensors(&file, |tensors| {
        tensors.insert(norm.into(), Array::from_f32(1.0));
    });
    let error = load_error(model.path());
    assert!(error.contains(&format!("{norm} has shape [], config.json wants [64]")), "{error}");

    edit_tensors(&file, |tensors| {
        tensors.remove(norm);
    });
    assert!(load_error(model.path()).contains(&format!("no tensor {norm}")));
}

#[test]
fn an_index_may_not_reach_outside_its_folder() {
    let _mlx = mlx();
    let model = copy("qwen2-float32");
    let index = r#"{"weight_map": {"model.norm.weight": "../model.safetensors"}}"#;
    fs::write(model.path().join("model.safetensors.index.json"), index).unwrap();
    assert!(load_error(model.path()).contains("`../model.safetensors` is not the name of a file beside it"));
}

#[test]
fn an_adapter_that_does_not_fit_is_refused() {
    let _mlx = mlx();
    let model = copy("qwen2-4bit-lora");
    let adapter = model.path().join("adapter");
    let file = adapter.join("adapters.safetensors");
    let q_proj = "model.layers.0.self_attn.q_proj.lora_a";

    edit_tensors(&file, |tensors| {
        let zeros = Array::zeros::<f32>(&[64, 4]).unwrap();
        tensors.insert("model.embed_tokens.lora_a".into(), zeros);
    });
    assert!(load_error(model.path()).contains("`model.embed_tokens.lora_a` has no `lora_b` beside it"));

    edit_tensors(&file, |tensors| {
        tensors.remove("model.embed_tokens.lora_a");
        for (name, shape) in [("lora_a", [64, 4]), ("lora_b", [4, 64])] {
            tensors
                .insert(format!("model.layers.7.mlp.up_proj.{name}"), Array::zeros::<f32>(&shape).unwrap());
        }
    });
    let error = load_error(model.path());
    assert!(error.contains("`model.layers.7.mlp.up_proj.weight`, which the model does not have"), "{error}");

    edit_tensors(&file, |tensors| {
        tensors.insert(q_proj.into(), Array::zeros::<f32>(&[32, 4]).unwrap());
    });
    let error = load_error(model.path());
    assert!(
        error.contains("q_proj` updates [64, 32], but `model.layers.0.self_attn.q_proj.weight` is [64, 64]"),
        "{error}"
    );

    edit_tensors(&file, |tensors| {
        tensors.remove(q_proj);
    });
    assert!(load_error(model.path()).contains("has no `lora_a` beside it"));
}

#[test]
fn a_peft_adapter_runs_as_that_of_mlx_lm() {
    let _mlx = mlx();
    let model = copy("qwen2-4bit-lora");
    let expected = Expected::read(model.path());
    let adapter = model.path().join("adapter");
    let tensors = Array::load_safetensors(adapter.join("adapters.safetensors")).unwrap();
    let renamed = tensors.iter().map(|(name, tensor)| {
        let name = name.replace(".lora_a", ".lora_A.weight").replace(".lora_b", ".lora_B.weight");
        (format!("base_model.model.{name}"), tensor.transpose().unwrap().contiguous().unwrap())
    });
    let renamed: HashMap<String, Array> = renamed.collect();
    Array::save_safetensors(&renamed, None, adapter.join("adapter_model.safetensors")).unwrap();
    fs::remove_file(adapter.join("adapters.safetensors")).unwrap();
    let config = serde_json::json!({"peft_type": "LORA", "r": 4, "lora_alpha": 8});
    fs::write(adapter.join("adapter_config.json"), config.to_string()).unwrap();
    assert_logits(model.path(), &expected.prompt, &expected.logits);
}

/// Returns an adapter in PEFT's format, which stores the factors of each expert separately, transposed, and
/// may leave experts out.
fn peft_of_experts(stacks: &HashMap<String, Array>, kept: &[i32]) -> HashMap<String, Array> {
    let mut tensors = HashMap::new();
    for (name, stack) in stacks {
        let renamed = name.replace(".lora_a", ".lora_A.weight").replace(".lora_b", ".lora_B.weight");
        let renamed = format!("base_model.model.{renamed}");
        if !name.contains(".switch_mlp.") {
            tensors.insert(renamed, stack.transpose().unwrap().contiguous().unwrap());
            continue;
        }
        for expert in kept {
            let own = stack.take_axis(Array::from_int(*expert), 0).unwrap();
            tensors.insert(renamed.replace(".switch_mlp.", &format!(".experts.{expert}.")), own);
        }
    }
    tensors
}

#[test]
fn updates_of_experts_by_themselves_run_as_those_of_a_stack() {
    let _mlx = mlx();
    let model = copy("qwen3_moe-float16-lora");
    let prompt = Expected::read(model.path()).prompt;
    let adapter = model.path().join("adapter");
    let file = adapter.join("adapters.safetensors");
    // The third expert has no update in the PEFT adapter, so here it gets an update that does nothing.
    edit_tensors(&file, |tensors| {
        for (name, tensor) in
            tensors.iter_mut().filter(|(name, _)| name.ends_with("switch_mlp.up_proj.lora_b"))
        {
            assert!(name.starts_with("model."));
            let kept = Array::from_slice(&[1.0_f32, 1.0, 0.0, 1.0], &[4, 1, 1]);
            *tensor = tensor.multiply(kept).unwrap();
        }
        tensors.retain(|name, _| !name.contains("switch_mlp") || name.contains("up_proj"));
    });
    let config_file = adapter.join("adapter_config.json");
    let mut config: Value = serde_json::from_str(&fs::read_to_string(&config_file).unwrap()).unwrap();
    let keys = config["lora_parameters"]["keys"].as_array_mut().unwrap();
    let is_there = |key: &str| !key.contains("switch_mlp") || key.contains("up_proj");
    keys.retain(|key| key.as_str().is_some_and(is_there));
    fs::write(config_file, config.to_string()).unwrap();
    let expected = load_on(Mlx, model.path()).unwrap().logits(&prompt, 512).unwrap();

    let tensors = peft_of_experts(&Array::load_safetensors(&file).unwrap(), &[0, 1, 3]);
    Array::save_safetensors(&tensors, None, adapter.join("adapter_model.safetensors")).unwrap();
    fs::remove_file(file).unwrap();
    let config = serde_json::json!({"peft_type": "LORA", "r": 2, "lora_alpha": 4});
    fs::write(adapter.join("adapter_config.json"), config.to_string()).unwrap();
    assert_logits(model.path(), &prompt, &expected);
}

#[test]
fn a_whole_tensor_takes_the_place_of_a_quantized_weight() {
    let _mlx = mlx();
    let model = copy("qwen2-4bit");
    let expected = Expected::read(model.path());
    let tensors = Array::load_safetensors(model.path().join("model.safetensors")).unwrap();
    let module = "model.layers.1.self_attn.q_proj";
    let [weight, scales, biases] =
        ["weight", "scales", "biases"].map(|part| &tensors[&format!("{module}.{part}")]);
    // In float32, as the model computes it; float16 would round it.
    let [scales, biases] = [scales, biases].map(|side| side.as_dtype(mlx_rs::Dtype::Float32).unwrap());
    let dense = mlx_rs::ops::dequantize(weight, scales, &biases, 32, 4).unwrap();
    let adapter = model.path().join("adapter");
    fs::create_dir_all(&adapter).unwrap();
    fs::write(adapter.join("adapter_config.json"), r#"{"fine_tune_type": "full"}"#).unwrap();
    let write = |name: String, tensor: Array| {
        let file = adapter.join("adapters.safetensors");
        Array::save_safetensors(&HashMap::from([(name, tensor)]), None, file).unwrap();
    };
    write(format!("{module}.weight"), dense);
    assert_logits(model.path(), &expected.prompt, &expected.logits);
    write("model.norm.bias".to_owned(), Array::zeros::<f32>(&[64]).unwrap());
    assert!(load_error(model.path()).contains("`model.norm.bias`"));
}

/// A conversation with these messages and tools.
fn asked(messages: &[Value], tools: Option<&Value>) -> Conversation {
    Conversation {
        messages: messages.to_vec(),
        tools: tools.cloned(),
        date: protocol::Date::default(),
        template_args: serde_json::Map::new(),
    }
}

#[test]
fn chat_templates_render_as_in_transformers() {
    for folder in cases("chat") {
        let request = fs::read_to_string(folder.join("request.json")).unwrap();
        let request: Value = serde_json::from_str(&request).unwrap();
        let template = ChatTemplate::load(folder.as_path()).unwrap();
        let rendered =
            template.render(&asked(request["messages"].as_array().unwrap(), request.get("tools"))).unwrap();
        let expected = fs::read_to_string(folder.join("expected.txt")).unwrap();
        assert_eq!(rendered, expected, "{}", folder.display());
    }
}

#[test]
fn a_missing_template_and_a_template_that_refuses_say_so() {
    let model = golden("models/qwen2-float32");
    let error = ChatTemplate::load(model.as_path()).err().unwrap();
    assert!(error.to_string().ends_with("qwen2-float32 has no chat template"));

    let template = ChatTemplate::load(golden("chat/mistral").as_path()).unwrap();
    let assistant = serde_json::json!({"role": "assistant", "content": "Hello"});
    let error = format!("{:#}", template.render(&asked(&[assistant], None)).unwrap_err());
    assert!(error.contains("conversation roles must alternate user/assistant"), "{error}");
}
