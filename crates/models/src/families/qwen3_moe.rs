//! The `qwen3_moe` architecture, as in mlx-lm's `qwen3_moe.py`: Qwen3 with experts in most layers.
//! Knows neither files nor the text of tokens.

use anyhow::{Result, ensure};
use serde::Deserialize;

use crate::attention::{AttentionArgs, usual_scale};
use crate::config::{Config, ModelArgs};
use crate::decoder::{Decoder, DecoderArgs, Layer, TransformerBlock};
use crate::linear::Linear;
use crate::mlp::{FeedForward, Mlp, MlpArgs};
use crate::norm::NormArgs;
use crate::rope_scaling::RopeConfig;
use crate::runtime::{Activation, Runtime};
use crate::switch::SwitchGlu;
use crate::tensors::Tensors;

/// There is no `rope_scaling`, because mlx-lm does not read it for this architecture.
#[derive(Deserialize)]
struct Args {
    hidden_size: i32,
    num_hidden_layers: usize,
    intermediate_size: i32,
    num_attention_heads: i32,
    num_experts: i32,
    num_experts_per_tok: i32,
    decoder_sparse_step: usize,
    mlp_only_layers: Vec<usize>,
    moe_intermediate_size: i32,
    rms_norm_eps: f32,
    vocab_size: i32,
    num_key_value_heads: i32,
    head_dim: i32,
    rope_theta: f32,
    norm_topk_prob: bool,
}

impl ModelArgs for Args {
    fn check(&self) -> Result<()> {
        self.decoder(false).check()?;
        self.attention().check()?;
        self.mlp().check()?;
        ensure!(self.decoder_sparse_step > 0, "decoder_sparse_step is 0");
        let (experts, chosen) = (self.num_experts, self.num_experts_per_tok);
        ensure!(experts <= 0 || (1..=experts).contains(&chosen), "{chosen} experts are chosen of {experts}");
        let size = self.moe_intermediate_size;
        ensure!(experts <= 0 || size > 0, "moe_intermediate_size is {size}");
        Ok(())
    }
}

impl Args {
    fn attention(&self) -> AttentionArgs {
        AttentionArgs {
            hidden_size: self.hidden_size,
            n_heads: self.num_attention_heads,
            n_kv_heads: self.num_key_value_heads,
            head_dim: self.head_dim,
            scale: usual_scale(self.head_dim),
            qkv_bias: false,
            o_bias: false,
            head_norm: Some(self.norm()),
        }
    }

    /// Returns the feed-forward arguments of the layers without experts.
    fn mlp(&self) -> MlpArgs {
        let (hidden_size, intermediate_size) = (self.hidden_size, self.intermediate_size);
        MlpArgs { hidden_size, intermediate_size, bias: false, activation: Activation::Swiglu }
    }

    fn rope(&self) -> RopeConfig<'_> {
        RopeConfig {
            dims: self.head_dim,
            base: self.rope_theta,
            traditional: false,
            scaling: None,
            max_position_embeddings: None,
        }
    }

    fn norm(&self) -> NormArgs {
        NormArgs { eps: self.rms_norm_eps, weight_offset: false }
    }

    fn has_experts(&self, layer: usize) -> bool {
        let sparse = (layer + 1).is_multiple_of(self.decoder_sparse_step);
        self.num_experts > 0 && sparse && !self.mlp_only_layers.contains(&layer)
    }

    fn decoder(&self, tied: bool) -> DecoderArgs {
        DecoderArgs {
            vocab_size: self.vocab_size,
            hidden_size: self.hidden_size,
            num_hidden_layers: self.num_hidden_layers,
            norm: self.norm(),
            embedding_scale: None,
            logit_scale: None,
            window: None,
            tied,
        }
    }
}

struct SparseMoeBlock<R: Runtime> {
    gate: Linear<R>,
    switch_mlp: SwitchGlu<R>,
    chosen: i32,
    norm_topk_prob: bool,
}

impl<R: Runtime> SparseMoeBlock<R> {
    fn load(weights: &mut Tensors<'_, R>, path: &str, args: &Args) -> Result<Self> {
        let experts = args.num_experts;
        let shape = [experts, args.moe_intermediate_size, args.hidden_size];
        Ok(Self {
            gate: Linear::load(weights, &format!("{path}.gate"), args.hidden_size, experts, false)?,
            switch_mlp: SwitchGlu::load(weights, &format!("{path}.switch_mlp"), shape, Activation::Swiglu)?,
            chosen: args.num_experts_per_tok,
            norm_topk_prob: args.norm_topk_prob,
        })
    }
}

impl<R: Runtime> FeedForward<R> for SparseMoeBlock<R> {
    fn forward(&self, runtime: &R, x: &R::Tensor) -> Result<R::Tensor> {
        let gates = runtime.softmax(&self.gate.forward(runtime, x)?)?;
        let (choice, chosen) = runtime.largest(&gates, self.chosen)?;
        let scores = if self.norm_topk_prob { runtime.normalized(&chosen)? } else { chosen };
        self.switch_mlp.forward(runtime, x, (&choice, &scores))
    }
}

pub(super) fn load<R: Runtime>(config: &Config, weights: &mut Tensors<'_, R>) -> Result<Decoder<R>> {
    let args: Args = config.args()?;
    let (attention, decoder) = (args.attention(), args.decoder(config.is_tied()));
    let rope = config.rope(weights.runtime(), &args.rope())?;
    Decoder::load(weights, &decoder, |weights, index, path| {
        let mlp: Box<dyn FeedForward<R>> = if args.has_experts(index) {
            Box::new(SparseMoeBlock::load(weights, &format!("{path}.mlp"), &args)?)
        } else {
            Box::new(Mlp::load(weights, &format!("{path}.mlp"), &args.mlp())?)
        };
        let block = TransformerBlock::load(weights, path, (&attention, &rope), decoder.norm, mlp)?;
        Ok(Layer { block: Box::new(block), is_sliding: false })
    })
}
