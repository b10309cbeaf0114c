//! The `granitemoehybrid` architecture (Granite 4), as in mlx-lm's `granitemoehybrid.py`: Mamba in most layers, attention in
//! the others, and experts beside a layer that all tokens go through.
//! Knows neither files nor the text of tokens.

use anyhow::{Context, Result};
use serde::Deserialize;

use super::common::{Common, Number};
use super::granite::Factors;
use crate::config::Family;
use crate::decoder::DecoderArgs;
use crate::layers::{AttentionArgs, BlockArgs, ExpertsArgs, MambaArgs, MlpArgs, MlpForm, ModuleArgs, PartArgs};
use crate::layers::{RouterArgs, Scores};

#[derive(Deserialize)]
pub(super) struct Args {
    #[serde(flatten)]
    common: Common,
    #[serde(flatten)]
    factors: Factors,
    num_local_experts: Option<i32>,
    num_experts_per_tok: Option<i32>,
    shared_intermediate_size: Option<i32>,
    mamba_n_heads: Option<i32>,
    mamba_d_head: Option<i32>,
    mamba_proj_bias: Option<bool>,
    mamba_d_state: Option<i32>,
    mamba_d_conv: Option<i32>,
    mamba_n_groups: Option<i32>,
    mamba_conv_bias: Option<bool>,
    position_embedding_type: String,
    time_step_limit: [Number; 2],
}

impl Args {
    fn mamba(&self) -> Result<MambaArgs> {
        Ok(MambaArgs {
            hidden_size: self.common.hidden_size,
            heads: self.mamba_n_heads.context("no mamba_n_heads")?,
            head_dim: self.mamba_d_head.context("no mamba_d_head")?,
            state_size: self.mamba_d_state.context("no mamba_d_state")?,
            kernel: self.mamba_d_conv.context("no mamba_d_conv")?,
            groups: self.mamba_n_groups.context("no mamba_n_groups")?,
            bias: [self.mamba_proj_bias, self.mamba_conv_bias].map(|bias| bias.unwrap_or(false)),
            steps: self.time_step_limit.map(|limit| limit.0),
            norm_groups: 1,
            eps: self.common.norm()?.eps,
        })
    }

    fn feed_forward(&self) -> Result<PartArgs> {
        let (common, norm) = (&self.common, "post_attention_layernorm");
        let Some(experts) = self.num_local_experts.filter(|experts| *experts != 0) else {
            let mlp = MlpArgs { bias: common.mlp_bias, ..common.mlp() };
            return Ok(PartArgs::new(norm, "mlp", ModuleArgs::Mlp(mlp)));
        };
        let router = RouterArgs {
            path: "router.layer",
            scores: Scores::SoftmaxOfChosen,
            ..RouterArgs::new(experts, self.num_experts_per_tok.context("no num_experts_per_tok")?)
        };
        let experts = ExpertsArgs::new(common.hidden_size, common.intermediate_size, router);
        let size = self.shared_intermediate_size.context("no shared_intermediate_size")?;
        let form = MlpForm::Fused { both: "input_linear", down: "output_linear" };
        let shared = MlpArgs { form, ..MlpArgs::new(common.hidden_size, size) };
        let part = PartArgs::new(norm, "block_sparse_moe", ModuleArgs::Experts(experts));
        Ok(part.and("shared_mlp", ModuleArgs::Mlp(shared)))
    }
}

impl Family for Args {
    const ROPE_PARAMETERS_WIN: bool = true;
    const DEFAULTS: &str = r#"{"position_embedding_type": "rope", "time_step_limit": [0.001, 100.0]}"#;

    fn decoder(&self, is_tied: bool) -> Result<DecoderArgs> {
        let (common, bias) = (&self.common, self.common.attention_bias);
        let (norm, dims) = (common.norm()?, common.hidden_size);
        let rope = common.plain_rope(10_000.0).args()?;
        let attention = AttentionArgs {
            scale: self.factors.attention_multiplier,
            rope: (self.position_embedding_type != "nope").then_some(rope),
            qkv_bias: bias,
            o_bias: bias,
            ..common.attention()
        };
        let decoder = common.decoder(is_tied, norm, |layer| {
            let kind = common.kind(layer, &["mamba", "attention"])?.context("no layer_types")?;
            let (path, mixer) = match kind {
                "mamba" => ("mamba", ModuleArgs::Mamba(self.mamba()?)),
                _ => ("self_attn", ModuleArgs::Attention(attention.clone())),
            };
            let parts = vec![PartArgs::new("input_layernorm", path, mixer), self.feed_forward()?];
            let residual_scale = Some(self.factors.residual_multiplier);
            Ok(BlockArgs { residual_scale, ..BlockArgs::of(dims, norm, parts) })
        })?;
        self.factors.of(decoder)
    }
}
