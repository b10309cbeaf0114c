//! Adapters of both formats in tiny folders: what they change, where they land, and what is refused.

mod fit;
mod read;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::*;

/// A tensor of a test: its name, its shape, its values.
type Tensor<'a> = (&'a str, &'a [usize], &'a [f32]);

fn write(file: &Path, tensors: &[Tensor<'_>]) {
    let (mut header, mut data) = (serde_json::Map::new(), Vec::new());
    for (name, shape, values) in tensors {
        let begin = data.len();
        data.extend(values.iter().flat_map(|value| value.to_le_bytes()));
        let entry = json!({"dtype": "F32", "shape": shape, "data_offsets": [begin, data.len()]});
        header.insert((*name).to_owned(), entry);
    }
    let header = Value::Object(header).to_string();
    let bytes = [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &data].concat();
    fs::write(file, bytes).unwrap();
}

fn folder(file: &str, config: &Value, tensors: &[Tensor<'_>]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join(CONFIG_FILE), config.to_string()).unwrap();
    write(&folder.path().join(file), tensors);
    folder
}

fn mlx(extra: Value, tensors: &[Tensor<'_>]) -> crate::Result<Adapter> {
    let mut config = json!({"lora_parameters": {"scale": 2.0}});
    config.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    Adapter::open(folder(MLX_FILE, &config, tensors).path())
}

fn peft(extra: Value, tensors: &[Tensor<'_>]) -> crate::Result<Adapter> {
    let mut config = json!({"peft_type": "LORA", "r": 2, "lora_alpha": 4});
    config.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    Adapter::open(folder(PEFT_FILE, &config, tensors).path())
}

fn refusal<T>(result: crate::Result<T>) -> String {
    let text = artifact::in_one_line(&result.err().expect("this must be refused"));
    text.split_once(": ")
        .filter(|(head, _)| head.starts_with("in /"))
        .map_or(text.clone(), |(_, rest)| rest.into())
}

fn base(weights: &[(&str, &[usize])]) -> Base {
    let weights = weights.iter().map(|(name, shape)| ((*name).to_owned(), shape.to_vec()));
    Base::new(weights, &serde_json::Map::new())
}

/// Two layers with two projections of `[3, 2]` each, and an embedding.
fn two_layers() -> Base {
    base(&[
        ("model.embed_tokens.weight", &[4, 2]),
        ("model.layers.0.k_proj.weight", &[3, 2]),
        ("model.layers.0.q_proj.weight", &[3, 2]),
        ("model.layers.1.k_proj.weight", &[3, 2]),
        ("model.layers.1.q_proj.weight", &[3, 2]),
    ])
}

fn low_rank(adapter: &Adapter, name: &str) -> Vec<Option<Lora>> {
    match adapter.update(name).unwrap() {
        Some(Update::LowRank(loras)) => loras,
        other => panic!("{other:?}"),
    }
}
