//! Models that hold a text model beside others: those that see or hear. Only the text model runs here; the weights of the
//! others are not read.
//! Knows nothing of what the text models are made of.

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::{
    Read, deepseek_v3, gemma3_text, gemma4_text, lfm2, llama, ministral3, qwen2, qwen3, qwen3_5, qwen3_moe,
};
use crate::config::Config;
use crate::decoder::{DecoderArgs, Names};

/// The wrappers, and what reads the text model of each.
pub(super) const WRAPPERS: &[(&str, Read)] = &[
    ("gemma3", |config| {
        let text = config.text().or("num_attention_heads", json!(8)).or("num_key_value_heads", json!(4));
        below(text.with("vocab_size", vocabulary(config, 262_208)).decoder::<gemma3_text::Args>())
    }),
    ("gemma4", |config| {
        let text = config.text().with("vocab_size", vocabulary(config, 262_144));
        below(text.decoder::<gemma4_text::Args>())
    }),
    ("kimi_vl", |config| below(config.text().decoder::<deepseek_v3::Args>())),
    ("lfm2-vl", |config| below(config.text().decoder::<lfm2::Args>())),
    ("mistral3", mistral3),
    ("pixtral", |config| below(config.text().or("num_attention_heads", json!(32)).decoder::<llama::Args>())),
    ("qwen2_vl", |config| below(config.text().decoder::<qwen2::Args>())),
    ("qwen3_5", |config| below(config.text().decoder::<qwen3_5::Args>())),
    ("qwen3_5_moe", |config| below(config.text().decoder::<qwen3_5::Args>())),
    ("qwen3_vl", |config| below(config.text().decoder::<qwen3::Args>())),
    ("qwen3_vl_moe", |config| below(config.text().decoder::<qwen3_moe::Args>())),
];

/// Puts a decoder below `language_model`.
fn below(decoder: Result<DecoderArgs>) -> Result<DecoderArgs> {
    let decoder = decoder?;
    Ok(DecoderArgs { names: Names { prefix: "language_model.", ..decoder.names }, ..decoder })
}

/// Returns the size of the vocabulary beside `text_config`, which holds for the text model too.
fn vocabulary(config: &Config, default: i32) -> Value {
    config.get("vocab_size").cloned().unwrap_or(json!(default))
}

/// Reads a `mistral3`, whose text model says what it is.
fn mistral3(config: &Config) -> Result<DecoderArgs> {
    let text = config.text();
    let model_type = text.get("model_type").and_then(Value::as_str).unwrap_or("llama");
    below(match model_type {
        "ministral3" => text.decoder::<ministral3::Args>(),
        "mistral4" => bail!("{}: a mistral3 with a mistral4 in it is not supported", config.path().display()),
        _ => text.decoder::<llama::Args>(),
    })
    .context("in text_config")
}
