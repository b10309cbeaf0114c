//! The smallest model and adapter that the stages accept, generated, and the same on every run.
//! Knows nothing of the program under test: the files are written with the safetensors crate's own writer.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use half::f16;
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use serde_json::{Value, json};

/// The size of a model.
#[derive(Clone, Copy)]
pub(crate) struct Size {
    pub(crate) hidden: usize,
    pub(crate) layers: usize,
}

/// About 0.1 MB: a build takes no time.
pub(crate) const PICO: Size = Size { hidden: 64, layers: 1 };

/// About 20 MB: a build takes long enough to be disturbed.
pub(crate) const SLOW: Size = Size { hidden: 512, layers: 4 };

const VOCABULARY: usize = 32;
const RANK: usize = 2;

/// Writes a qwen2 model of float16 weights into `folder`, in the form in which the Hugging Face hub has it.
pub(crate) fn write_model(folder: &Path, size: Size) {
    let Size { hidden, layers } = size;
    fs::create_dir_all(folder).unwrap();
    let config = json!({
        "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "torch_dtype": "float16",
        "hidden_size": hidden, "intermediate_size": 2 * hidden, "num_hidden_layers": layers,
        "num_attention_heads": 2, "num_key_value_heads": 2, "vocab_size": VOCABULARY,
        "rms_norm_eps": 1e-6, "rope_theta": 10000.0, "tie_word_embeddings": true,
    });
    fs::write(folder.join("config.json"), serde_json::to_vec_pretty(&config).unwrap()).unwrap();
    fs::write(folder.join("tokenizer.json"), r#"{"model": {"type": "BPE", "vocab": {}, "merges": []}}"#)
        .unwrap();
    fs::write(folder.join("LICENSE"), "Do as you like.\n").unwrap();
    write_halves(folder, &shapes(size));
}

/// Completes the model in `folder`, of the same size: with all biases that a qwen2 has, with words and with a chat
/// template, so that it runs.
pub(crate) fn complete_model(folder: &Path, size: Size) {
    let mut shapes = shapes(size);
    for layer in 0..size.layers {
        for projection in ["k_proj", "v_proj"] {
            let bias = format!("model.layers.{layer}.self_attn.{projection}.bias");
            shapes.insert(bias, vec![size.hidden]);
        }
    }
    write_halves(folder, &shapes);
    let words: serde_json::Map<String, Value> =
        (0..VOCABULARY).map(|word| (format!("w{word}"), json!(word))).collect();
    let tokenizer = json!({
        "version": "1.0", "added_tokens": [], "pre_tokenizer": {"type": "WhitespaceSplit"},
        "model": {"type": "WordLevel", "vocab": words, "unk_token": "w0"},
    });
    let template = "{% for message in messages %}{{ message['content'] }}{% endfor %}";
    let config = json!({"tokenizer_class": "PreTrainedTokenizerFast", "chat_template": template});
    fs::write(folder.join("tokenizer.json"), tokenizer.to_string()).unwrap();
    fs::write(folder.join("tokenizer_config.json"), config.to_string()).unwrap();
}

fn write_halves(folder: &Path, shapes: &BTreeMap<String, Vec<usize>>) {
    let halves =
        |values: Vec<f32>| values.iter().flat_map(|value| f16::from_f32(*value).to_le_bytes()).collect();
    write_tensors(&folder.join("model.safetensors"), Dtype::F16, shapes, &halves);
}

fn shapes(Size { hidden, layers }: Size) -> BTreeMap<String, Vec<usize>> {
    let mut shapes = BTreeMap::new();
    shapes.insert("model.embed_tokens.weight".to_owned(), vec![VOCABULARY, hidden]);
    shapes.insert("model.norm.weight".to_owned(), vec![hidden]);
    for layer in 0..layers {
        let mut add =
            |name: &str, shape: Vec<usize>| shapes.insert(format!("model.layers.{layer}.{name}"), shape);
        for projection in ["q_proj", "k_proj", "v_proj", "o_proj"] {
            add(&format!("self_attn.{projection}.weight"), vec![hidden, hidden]);
        }
        add("self_attn.q_proj.bias", vec![hidden]);
        add("mlp.gate_proj.weight", vec![2 * hidden, hidden]);
        add("mlp.up_proj.weight", vec![2 * hidden, hidden]);
        add("mlp.down_proj.weight", vec![hidden, 2 * hidden]);
        add("input_layernorm.weight", vec![hidden]);
        add("post_attention_layernorm.weight", vec![hidden]);
    }
    shapes
}

/// Writes a LoRA adapter of rank 2, in mlx-lm's format, for two projections of each layer. It fits a model
/// whose hidden size is `columns`.
pub(crate) fn write_adapter(folder: &Path, columns: usize, layers: usize) {
    let parameters = json!({"rank": RANK, "scale": 20.0, "dropout": 0.0});
    let config = json!({"fine_tune_type": "lora", "num_layers": layers, "lora_parameters": parameters});
    let mut tensors = Floats::new();
    for (module, a, b) in factors(columns, layers) {
        tensors.insert(format!("{module}.lora_a"), (vec![columns, RANK], a));
        tensors.insert(format!("{module}.lora_b"), (vec![RANK, columns], b));
    }
    write_adapter_of(folder, "adapters.safetensors", &config, &tensors);
}

/// Writes the same adapter in PEFT's format.
pub(crate) fn write_peft_adapter(folder: &Path, columns: usize, layers: usize) {
    let config = json!({
        "peft_type": "LORA", "r": RANK, "lora_alpha": 20 * RANK, "target_modules": ["q_proj", "v_proj"],
        "bias": "none", "fan_in_fan_out": false, "rank_pattern": {}, "modules_to_save": null,
    });
    let mut tensors = Floats::new();
    for (module, a, b) in factors(columns, layers) {
        let prefix = format!("base_model.model.{module}");
        tensors.insert(format!("{prefix}.lora_A.weight"), (vec![RANK, columns], transposed(&a, RANK)));
        tensors.insert(format!("{prefix}.lora_B.weight"), (vec![columns, RANK], transposed(&b, columns)));
    }
    write_adapter_of(folder, "adapter_model.safetensors", &config, &tensors);
}

/// Float32 tensors by name, with their shapes.
pub(crate) type Floats = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

/// Writes an adapter folder, replacing the old one: its configuration, and one file of tensors.
pub(crate) fn write_adapter_of(folder: &Path, file: &str, config: &Value, tensors: &Floats) {
    let _ = fs::remove_dir_all(folder);
    fs::create_dir_all(folder).unwrap();
    fs::write(folder.join("adapter_config.json"), serde_json::to_vec_pretty(config).unwrap()).unwrap();
    let bytes = |(_, (_, values)): (&String, &(Vec<usize>, Vec<f32>))| -> Vec<u8> {
        values.iter().flat_map(|value| value.to_le_bytes()).collect()
    };
    let bytes: Vec<_> = tensors.iter().map(bytes).collect();
    let views = tensors.iter().zip(&bytes).map(|((name, (shape, _)), bytes)| {
        (name, TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap())
    });
    fs::write(folder.join(file), safetensors::serialize(views, None).unwrap()).unwrap();
}

/// Returns each module of the adapter, with its factors `[columns, rank]` and `[rank, columns]`.
fn factors(columns: usize, layers: usize) -> Vec<(String, Vec<f32>, Vec<f32>)> {
    let mut numbers = Numbers(1);
    let mut take = || numbers.take(columns * RANK).iter().map(|value| value / 8.0).collect();
    let modules = (0..layers).flat_map(|layer| {
        ["q_proj", "v_proj"].map(|projection| format!("model.layers.{layer}.self_attn.{projection}"))
    });
    modules.map(|module| (module, take(), take())).collect()
}

/// Transposes a matrix with rows of `columns` numbers.
fn transposed(values: &[f32], columns: usize) -> Vec<f32> {
    (0..columns).flat_map(|column| values.iter().skip(column).step_by(columns).copied()).collect()
}

/// A tensor of float32 to be written: its name, its shape and its elements.
pub(crate) type Tensor<'a> = (&'a str, &'a [usize], Vec<f32>);

/// Writes a model of these tensors as float16. `config` is added to the minimal configuration.
pub(crate) fn write_tensors_of(folder: &Path, config: serde_json::Value, tensors: &[Tensor<'_>]) {
    fs::create_dir_all(folder).unwrap();
    let mut all = json!({"model_type": "llama", "num_hidden_layers": 8});
    all.as_object_mut().unwrap().extend(config.as_object().unwrap().clone());
    fs::write(folder.join("config.json"), serde_json::to_vec(&all).unwrap()).unwrap();
    fs::write(folder.join("tokenizer.json"), r#"{"model": {}}"#).unwrap();
    let bytes = |values: &Vec<f32>| -> Vec<u8> {
        values.iter().flat_map(|value| f16::from_f32(*value).to_le_bytes()).collect()
    };
    let bytes: Vec<_> = tensors.iter().map(|(_, _, values)| bytes(values)).collect();
    let views = tensors.iter().zip(&bytes);
    let views = views
        .map(|((name, shape, _), bytes)| (name, TensorView::new(Dtype::F16, shape.to_vec(), bytes).unwrap()));
    fs::write(folder.join("model.safetensors"), safetensors::serialize(views, None).unwrap()).unwrap();
}

/// Returns `count` numbers between -0.5 and 0.5, the same for the same seed.
pub(crate) fn numbers(seed: u64, count: usize) -> Vec<f32> {
    Numbers(seed).take(count)
}

fn write_tensors(
    path: &Path,
    dtype: Dtype,
    shapes: &BTreeMap<String, Vec<usize>>,
    encode: &dyn Fn(Vec<f32>) -> Vec<u8>,
) {
    let mut numbers = Numbers(1);
    let bytes: Vec<_> = shapes.values().map(|shape| encode(numbers.take(shape.iter().product()))).collect();
    let views = shapes.iter().zip(&bytes);
    let views =
        views.map(|((name, shape), bytes)| (name, TensorView::new(dtype, shape.clone(), bytes).unwrap()));
    fs::write(path, safetensors::serialize(views, None).unwrap()).unwrap();
}

/// A linear congruential generator (Knuth's MMIX constants).
struct Numbers(u64);

impl Numbers {
    /// Returns `count` numbers between -0.5 and 0.5.
    fn take(&mut self, count: usize) -> Vec<f32> {
        let mut next = || {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let [high, low, ..] = self.0.to_be_bytes();
            f32::from(u16::from_be_bytes([high, low])) / 65536.0 - 0.5
        };
        (0..count).map(|_| next()).collect()
    }
}
