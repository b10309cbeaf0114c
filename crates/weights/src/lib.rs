//! Reads, fuses, quantizes and writes checkpoints and adapters of language models, as MLX and mlx-lm do.
//! Knows nothing of build graphs, caches, networks or terminals.
//!
//! ```text
//!  rewrite                   makes models from models: fuse, quantize, and what survives of a fine-tuning
//!  checkpoint    adapter     a model folder as weights · what an adapter does to each weight
//!  arch  survival  probe     facts about each model type · `survival.json` · `probe.safetensors`
//!  kernels       tensor      the arithmetic on blocks of rows · files of named tensors
//! ```
//!
//! Quantize a tensor, and a model folder:
//!
//! ```
//! use weights::Output;
//! use weights::kernels::{Backend, Cpu, Float, Mode, PackedRows, QuantSpec, Rows};
//! use weights::rewrite::{Job, Quantize};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = tempfile::tempdir()?;
//! # let (model, made) = (folder.path().join("model"), folder.path().join("model-4bit"));
//! # std::fs::create_dir_all(&model)?;
//! # std::fs::write(model.join("config.json"), r#"{"model_type": "llama", "num_hidden_layers": 1}"#)?;
//! # std::fs::write(model.join("tokenizer.json"), "{}")?;
//! # let bytes: Vec<u8> = (0..128).flat_map(|value: u8| f32::from(value).to_le_bytes()).collect();
//! # let view = safetensors::tensor::TensorView::new(safetensors::Dtype::F32, vec![2, 64], &bytes)?;
//! # safetensors::serialize_to_file([("model.embed_tokens.weight", view)], None, &model.join("model.safetensors"))?;
//! let cpu = Cpu::default();
//! let spec = QuantSpec { mode: Mode::Affine, bits: 8, group_size: 64 };
//!
//! let mut rows = Rows { float: Float::F16, columns: 64, values: vec![0.25; 128] };
//! let packed = PackedRows::quantize(&rows, spec, &cpu)?;
//! assert_eq!(packed.weight.len(), 128);
//! cpu.dequantize(packed.as_packed(), &mut rows)?;
//! assert_eq!(rows.values, [0.25; 128]);
//!
//! std::fs::create_dir(&made)?;
//! let output = Output::new(made.clone());
//! Job::quantize(&model, Quantize::from(spec)).run(&output, &cpu, &|_, _| Ok(()))?;
//! assert!(output.finish().artifact.file("model.safetensors").is_some());
//! # Ok(())
//! # }
//! ```

#![cfg_attr(test, expect(clippy::disallowed_methods, reason = "tests write scratch files"))]

pub mod adapter;
pub mod arch;
pub mod checkpoint;
mod error;
pub mod kernels;
pub mod probe;
pub mod rewrite;
pub mod survival;
pub mod tensor;

pub use artifact::{Artifact, ErrorKind, Interrupted, IoError, Made, Output, Tick};
pub use error::{Error, Result};
