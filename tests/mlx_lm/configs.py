"""A small configuration of each model type of the installed mlx-lm, made from the fields of its `ModelArgs`.

A field that is a size gets a small one by its name. What a type needs beside that is in OWN. A type of a newer mlx-lm
that this file cannot make is reported by its name.
"""

import dataclasses
import importlib
import pkgutil
import sys
import types

sys.modules["hf_olmo"] = types.ModuleType("hf_olmo")  # mlx-lm's olmo.py only asks whether it is there

from mlx_lm import models, utils

SIZES = {
    "attention_bias": False,
    "attention_multiplier": 1.0,
    "conv_L_cache": 3,
    "conv_bias": False,
    "conv_kernel": 4,
    "d_model": 128,
    "decoder_sparse_step": 1,
    "embedding_multiplier": 1.0,
    "first_k_dense_replace": 1,
    "group_norm_size": 1,
    "head_dim": 32,
    "hidden_size": 128,
    "intermediate_size": 256,
    "kv_lora_rank": 64,
    "layer_group_size": 2,
    "layer_norm_epsilon": 1e-5,
    "layer_norm_eps": 1e-5,
    "logits_scaling": 1.0,
    "max_position_embeddings": 512,
    "mlp_bias": False,
    "mlp_only_layers": [],
    "moe_intermediate_size": 64,
    "moe_topk": 2,
    "n_embd": 128,
    "n_group": 1,
    "n_head": 4,
    "n_heads": 4,
    "n_layer": 4,
    "n_layers": 4,
    "n_positions": 512,
    "n_routed_experts": 4,
    "n_shared_experts": 1,
    "norm_eps": 1e-5,
    "norm_topk_prob": True,
    "num_attention_heads": 4,
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "num_heads": 4,
    "num_hidden_layers": 4,
    "num_key_value_heads": 2,
    "num_layers": 4,
    "num_local_experts": 4,
    "num_shared_experts": 1,
    "o_lora_rank": 64,
    "partial_rotary_factor": 0.5,
    "q_lora_rank": 64,
    "qk_nope_head_dim": 32,
    "qk_rope_head_dim": 32,
    "residual_multiplier": 1.0,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "routed_scaling_factor": 1.0,
    "scoring_func": "sigmoid",
    "sliding_window": 64,
    "tie_word_embeddings": False,
    "topk_group": 1,
    "topk_method": "noaux_tc",
    "use_bias": False,
    "use_conv_bias": True,
    "use_qk_norm": True,
    "v_head_dim": 32,
    "vocab_size": 256,
}

PLAIN_ROPE = {"rope_theta": 10000.0, "rope_type": "default"}
LONG_ROPE = PLAIN_ROPE | {"llama_4_scaling_beta": 0.1, "original_max_position_embeddings": 512}
BY_LAYER_ROPE = {"full_attention": PLAIN_ROPE, "sliding_attention": PLAIN_ROPE}
WINDOWS = ["sliding_attention", "full_attention"] * 2
LINEAR = {
    "linear_num_value_heads": 4,
    "linear_num_key_heads": 2,
    "linear_key_head_dim": 32,
    "linear_value_head_dim": 32,
    "linear_conv_kernel_dim": 4,
}
KDA = {"num_heads": 4, "head_dim": 32, "kda_layers": [1, 2, 3], "full_attn_layers": [4], "short_conv_kernel_size": 4}

# DeepSeek's models have experts only if they are asked for.
EXPERTS = {
    "first_k_dense_replace": 1,
    "moe_intermediate_size": 64,
    "moe_layer_freq": 1,
    "n_routed_experts": 4,
    "n_shared_experts": 1,
    "num_experts_per_tok": 2,
}

# What a type needs beside the sizes. `text_config` may be a type, whose small configuration it is then.
OWN = {
    "afm7": {"hidden_dim": 128, "num_kv_reuse_layers": 1, "num_kv_heads": 2, "hidden_dim_scale_factor": 2.0},
    "afmoe": {"layer_types": WINDOWS, "num_dense_layers": 1},
    "apertus": {"post_norm": True, "qk_norm": True},
    "baichuan_m1": {
        "sliding_window_layers": [0, 2],
        "conv_window": 2,
        "num_swa_attention_heads": 4,
        "num_swa_key_value_heads": 2,
    },
    "bailing_hybrid": {"num_key_value_heads": 4},
    "bailing_moe_v3": {"model_type": "bailing_hybrid", "architectures": ["BailingMoeV3ForCausalLM"]},
    "dbrx": {
        "ffn_config": {"ffn_hidden_size": 64, "moe_num_experts": 4, "moe_top_k": 2},
        "attn_config": {"kv_n_heads": 2, "clip_qkv": 8.0, "rope_theta": 10000.0},
    },
    "deepseek": EXPERTS,
    "deepseek_v2": EXPERTS | {
        "rope_scaling": {"type": "yarn", "factor": 4, "mscale_all_dim": 0.7, "original_max_position_embeddings": 128},
        "moe_layer_freq": 1,
    },
    "deepseek_v3": EXPERTS | {"num_key_value_heads": 4},
    "deepseek_v32": EXPERTS | {"num_key_value_heads": 4},
    "deepseek_v41": {
        "head_dim": 64,
        "o_groups": 2,
        "hc_mult": 2,
        "compress_ratios": [0] * 4,
        "kv_source_layer_ids": [0, 1, 2, 3],
        "index_source_layer_ids": [0, 1, 2, 3],
        "index_n_heads": 4,
        "index_head_dim": 32,
        "index_topk": 16,
    },
    "ernie4_5_moe": {"moe_num_experts": 4, "moe_k": 2, "moe_layer_start_index": 1},
    "exaone4": {"rope_scaling": None, "sliding_window_pattern": "LLG"},
    "exaone_moe": {"is_moe_layer": [False, True, True, True], "layer_types": WINDOWS},
    "falcon_h1": {
        "mamba_d_ssm": 128,
        "mamba_n_heads": 4,
        "mamba_d_head": 32,
        "mamba_d_state": 32,
        "mamba_chunk_size": 32,
    },
    "gear": {"layer_types": ["conv", "full_attention", "conv", "sliding_attention"]},
    "gemma3": {"vocab_size": 256, "text_config": "gemma3_text"},
    "gemma3_text": {"num_hidden_layers": 6, "sliding_window_pattern": 6},
    "gemma3n": {"text_config": {
        "model_type": "gemma3n_text",
        "hidden_size": 128,
        "num_hidden_layers": 4,
        "intermediate_size": 256,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 32,
        "rms_norm_eps": 1e-6,
        "vocab_size": 256,
        "vocab_size_per_layer_input": 256,
        "hidden_size_per_layer_input": 32,
        "num_kv_shared_layers": 2,
        "sliding_window": 64,
        "max_position_embeddings": 512,
        "rope_local_base_freq": 10000.0,
        "rope_theta": 10000.0,
        "final_logit_softcapping": 30.0,
        "layer_types": WINDOWS,
        "activation_sparsity_pattern": [0.95, 0.0, 0.0, 0.0],
        "altup_num_inputs": 2,
        "altup_coef_clip": 120.0,
        "altup_correct_scale": True,
        "altup_active_idx": 0,
        "laurel_rank": 32,
        "rope_scaling": None,
        "query_pre_attn_scalar": None,
    }},
    "gemma4": {"text_config": "gemma4_text", "vocab_size": 256},
    "gemma4_text": {
        "layer_types": WINDOWS,
        "num_kv_shared_layers": 2,
        "global_head_dim": 32,
        "vocab_size_per_layer_input": 256,
        "hidden_size_per_layer_input": 32,
        "sliding_window": 64,
        "enable_moe_block": True,
        "num_experts": 4,
        "top_k_experts": 2,
        "moe_intermediate_size": 64,
        "tie_word_embeddings": True,
    },
    "glm4_moe": {"rope_scaling": None, "num_key_value_heads": 4},
    "glm4_moe_lite": {"num_key_value_heads": 4},
    "glm_moe_dsa": {
        "index_head_dim": 32,
        "index_n_heads": 4,
        "index_topk": 16,
        "moe_layer_freq": 1,
        "num_key_value_heads": 4,
        "rope_parameters": PLAIN_ROPE,
    },
    "gpt2": {"n_ctx": 512},
    "gpt_bigcode": {"n_inner": 256, "attention_softmax_in_fp32": False, "scale_attention_softmax_in_fp32": False},
    "gpt_neox": {"rotary_emb_base": 10000, "rotary_pct": 0.5},
    "gptj": {"rotary_dim": 16},
    "granitemoehybrid": {
        "layer_types": ["mamba", "attention"] * 2,
        "shared_intermediate_size": 64,
        "mamba_n_heads": 8,
        "mamba_d_head": 32,
        "mamba_d_state": 32,
        "mamba_d_conv": 4,
        "mamba_n_groups": 1,
        "mamba_proj_bias": False,
        "mamba_conv_bias": True,
        "position_embedding_type": "nope",
        "num_local_experts": 4,
        "num_experts_per_tok": 2,
    },
    "hunyuan": {
        "use_mixed_mlp_moe": True,
        "use_cla": False,
        "cla_share_factor": 2,
        "moe_intermediate_size": [64] * 4,
        "moe_topk": [2] * 4,
        "num_shared_expert": [1] * 4,
        "rope_scaling": {"type": "dynamic", "factor": 1.0, "alpha": 1000.0},
    },
    "jamba": {
        "attn_layer_offset": 1,
        "attn_layer_period": 2,
        "expert_layer_offset": 1,
        "expert_layer_period": 2,
        "mamba_d_conv": 4,
        "mamba_d_state": 16,
        "mamba_expand": 2,
        "mamba_dt_rank": 32,
    },
    "kimi_k25": {"text_config": "deepseek_v3"},
    "kimi_k3": {"text_config": "kimi_k3.TextArgs"},
    "kimi_k3.TextArgs": {
        "model_type": "kimi_linear",
        "num_experts_per_token": 2,
        "attn_res_block_size": 2,
        "linear_attn_config": KDA,
        "activation_situ_beta": 1.0,
        "activation_situ_linear_beta": 1.0,
        "num_key_value_heads": 4,
        "kv_lora_rank": 64,
        "q_lora_rank": 64,
        "qk_nope_head_dim": 32,
        "qk_rope_head_dim": 32,
        "v_head_dim": 32,
        "num_experts": 4,
        "num_shared_experts": 1,
        "moe_intermediate_size": 64,
    },
    "kimi_linear": {
        "linear_attn_config": KDA,
        "model_max_length": 512,
        "num_experts_per_token": 2,
        "num_key_value_heads": 4,
        "moe_layer_freq": 1,
    },
    "kimi_vl": {"text_config": "kimi_vl.TextArgs"},
    "kimi_vl.TextArgs": EXPERTS | {"num_key_value_heads": 4},
    "lfm2": {
        "block_dim": 128,
        "block_ff_dim": 256,
        "block_multiple_of": 32,
        "block_ffn_dim_multiplier": 1.0,
        "block_auto_adjust_ff_dim": False,
        "full_attn_idxs": [1, 3],
    },
    "lfm2-vl": {"text_config": "lfm2"},
    "lfm2_moe": {"use_expert_bias": True, "num_dense_layers": 1, "full_attn_idxs": [1, 3]},
    "lille-130m": {"block_size": 512, "n_kv_heads": 2},
    "llama4": {"text_config": "llama4.TextArgs"},
    "llama4.TextArgs": {
        "model_type": "llama4_text",
        "attention_chunk_size": 64,
        "intermediate_size_mlp": 256,
        "interleave_moe_layer_step": 1,
        "num_experts_per_tok": 1,
        "rope_scaling": None,
    },
    "llama4_text": {"intermediate_size_mlp": 256, "no_rope_layers": [1, 1, 1, 0], "use_qk_norm": True},
    "longcat_flash": {
        "attention_method": "MLA",
        "zero_expert_type": "identity",
        "ffn_hidden_size": 128,
        "expert_ffn_hidden_size": 64,
        "zero_expert_num": 2,
        "mla_scale_q_lora": True,
        "mla_scale_kv_lora": True,
    },
    "longcat_flash_ngram": {
        "ffn_hidden_size": 128,
        "expert_ffn_hidden_size": 64,
        "zero_expert_num": 2,
        "mla_scale_q_lora": True,
        "mla_scale_kv_lora": True,
        "zero_expert_type": "identity",
        "attention_method": "MLA",
        "emb_neighbor_num": 2,
        "emb_split_num": 2,
        "ngram_vocab_size_ratio": 2,
    },
    "mamba": {"state_size": 16, "time_step_rank": 32, "use_bias": False},
    "mamba2": {"state_size": 32, "n_groups": 1, "expand": 2, "num_heads": 8, "head_dim": 32, "chunk_size": 32,
               "time_step_rank": 32, "time_step_limit": [0.0, 10.0]},
    "mellum": {"layer_types": WINDOWS, "rope_parameters": BY_LAYER_ROPE},
    "mimo_v2_flash": {
        "hybrid_layer_pattern": [0, 1, 0, 1],
        "moe_layer_freq": [0, 1, 1, 1],
        "add_swa_attention_sink_bias": True,
        "add_full_attention_sink_bias": False,
        "sliding_window_size": 64,
        "layernorm_epsilon": 1e-5,
        "swa_rope_theta": 10000.0,
        "swa_num_attention_heads": 4,
        "swa_num_key_value_heads": 2,
        "swa_head_dim": 32,
        "swa_v_head_dim": 32,
        "n_shared_experts": None,
    },
    "minicpm": {"dim_model_base": 64, "scale_depth": 1.4, "scale_emb": 12.0},
    "minicpm3": {
        "dim_model_base": 64,
        "scale_depth": 1.4,
        "scale_emb": 12.0,
        "num_key_value_heads": 4,
        "rope_scaling": {
            "type": "longrope",
            "long_factor": [1.0] * 16,
            "short_factor": [1.0] * 16,
            "original_max_position_embeddings": 512,
        },
    },
    "minimax": {"shared_intermediate_size": 0, "rotary_dim": 16},
    "minimax_m3_vl": {"text_config": "minimax_m3_vl.TextArgs"},
    "minimax_m3_vl.TextArgs": {
        "dense_intermediate_size": 256,
        "shared_intermediate_size": 64,
        "moe_layer_freq": [0, 1, 1, 1],
        "intermediate_size": 64,
    },
    "ministral3": {"rope_parameters": LONG_ROPE},
    "mistral3": {"text_config": "ministral3"},
    "mistral4": {"num_key_value_heads": 4, "rope_parameters": LONG_ROPE},
    "llava": {"text_config": "llama"},
    "muse_spark": {
        "audio_config": {"out_hidden_size": 128},
        "out_hidden_size": 128,
        "text_config": {
            "model_type": "muse_spark_text",
            "vocab_size": 256,
            "hidden_size": 128,
            "intermediate_size": 256,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "rms_norm_eps": 1e-5,
            "max_position_embeddings": 512,
            "head_dim": 32,
            "post_norm_eps": 1e-8,
            "rope_parameters": PLAIN_ROPE,
            "layer_rope_theta": [10000.0, 10000.0, 10000.0, 0],
            "layer_types": ["sliding_attention"] * 3 + ["full_attention"],
            "sliding_window": 64,
            "final_logit_softcapping": 20.0,
            "output_multiplier": 0.2,
            "num_local_experts": 4,
            "num_experts_per_tok": 2,
            "moe_hidden_size": 128,
            "moe_intermediate_size": 64,
        },
    },
    "nemotron": {"hidden_act": "relu2", "norm_eps": 1e-5, "partial_rotary_factor": 0.5},
    "nemotron-nas": {"block_configs": [
        {
            "attention": {"n_heads_in_group": 2, "no_op": False, "replace_with_linear": linear},
            "ffn": {"ffn_mult": 2.0, "no_op": False, "replace_with_linear": linear},
        }
        for linear in (False, False, True, False)
    ]},
    "nemotron_h": {
        "mamba_num_heads": 8,
        "mamba_head_dim": 32,
        "mamba_proj_bias": False,
        "ssm_state_size": 32,
        "n_groups": 1,
        "hybrid_override_pattern": ["M", "*", "-", "E"],
        "moe_shared_expert_intermediate_size": 64,
        "moe_intermediate_size": 64,
        "n_routed_experts": 4,
        "n_shared_experts": 1,
        "num_experts_per_tok": 2,
        "n_group": 1,
        "topk_group": 1,
        "norm_topk_prob": True,
        "routed_scaling_factor": 1.0,
        "time_step_limit": [0.001, 10.0],
    },
    "olmo": {"mlp_hidden_size": 256, "embedding_size": 256, "weight_tying": True},
    "olmo3": {"layer_types": WINDOWS},
    "olmo_hybrid": LINEAR | {"layer_types": ["linear_attention", "full_attention"] * 2, "linear_allow_neg_eigval": True},
    "openelm": {
        "num_transformer_layers": 4,
        "model_dim": 128,
        "ffn_dim_divisor": 32,
        "num_query_heads": [4] * 4,
        "num_kv_heads": [2] * 4,
        "ffn_multipliers": [2.0] * 4,
        "ffn_with_glu": True,
        "normalize_qk_projections": True,
        "share_input_output_layers": True,
    },
    "phi3small": {
        "dense_attention_every_n_layers": 2,
        "ff_intermediate_size": 256,
        "gegelu_limit": 20.0,
        "blocksparse_block_size": 64,
        "blocksparse_num_local_blocks": 4,
        "blocksparse_vert_stride": 8,
        "mup_attn_multiplier": 1.0,
        "mup_embedding_multiplier": 10.0,
        "mup_use_scaling": True,
        "mup_width_multiplier": 8.0,
        "rope_embedding_base": 10000.0,
    },
    "phixtral": {"num_vocab": 256, "model_dim": 128, "rotary_dim": 16, "num_layers": 4},
    "pixtral": {"text_config": "llama"},
    "plamo2": {
        "hidden_size_per_head": 32,
        "mamba_d_state": 16,
        "mamba_num_heads": 4,
        "mamba_step": 2,
        "attention_window_size": 64,
        "full_attention_idx": None,
    },
    "plamo3": {"window_size": 64, "sliding_window_pattern": 2},
    "qwen": {"kv_channels": 32, "intermediate_size": 512},
    "qwen2_moe": {"shared_expert_intermediate_size": 64},
    "qwen2_vl": {"text_config": "qwen2"},
    "qwen3": {"rope_theta": 10000.0},
    "qwen3_5": {"text_config": "qwen3_5.TextModelArgs"},
    "qwen3_5.TextModelArgs": LINEAR | {"model_type": "qwen3_5_text", "full_attention_interval": 2, "num_experts": 0},
    "qwen3_5_moe": {"text_config": LINEAR | {
        "model_type": "qwen3_5_moe_text",
        "hidden_size": 128,
        "intermediate_size": 256,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "rms_norm_eps": 1e-5,
        "vocab_size": 256,
        "head_dim": 32,
        "rope_theta": 10000.0,
        "partial_rotary_factor": 0.5,
        "max_position_embeddings": 512,
        "full_attention_interval": 2,
        "tie_word_embeddings": False,
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "decoder_sparse_step": 1,
        "shared_expert_intermediate_size": 64,
        "moe_intermediate_size": 64,
    }},
    "qwen3_next": LINEAR | {"full_attention_interval": 2, "shared_expert_intermediate_size": 64},
    "qwen3_vl": {"text_config": "qwen3"},
    "qwen3_vl_moe": {"text_config": "qwen3_moe"},
    "recurrent_gemma": {
        "conv1d_width": 4,
        "logits_soft_cap": 30.0,
        "block_types": ["recurrent", "attention"],
        "attention_window_size": 64,
        "attention_bias": False,
        "embeddings_scale_by_sqrt_dim": True,
    },
    "rwkv7": {
        "a_low_rank_dim": 64,
        "v_low_rank_dim": 64,
        "gate_low_rank_dim": 64,
        "decay_low_rank_dim": 64,
        "hidden_act": "sqrelu",
    },
    "spark2_5": {"layer_types": WINDOWS, "rope_parameters": BY_LAYER_ROPE},
    "stablelm": {"use_qkv_bias": True, "rope_theta": 10000.0},
    "step3p5": {
        "num_attention_groups": 2,
        "moe_num_experts": 4,
        "moe_top_k": 2,
        "share_expert_dim": 64,
        "layer_types": WINDOWS,
        "moe_layers_enum": "1,2,3",
    },
    "youtu_llm": {"num_key_value_heads": 4},
}


# Wrappers whose `ModelArgs` write this into the configuration that they are given.
UNTIES = ("lfm2-vl", "llava", "mistral3", "pixtral")

# Types of which there is no small model, and why.
LEFT_OUT = {"prism_hadamard_qwen35": "packed and rotated by its own trainer; `quantize` and `fuse` refuse it"}


# Models of a type that has two forms, by a name that is no type.
VARIANTS = {"granitemoehybrid+dense": {"num_local_experts": None, "num_experts_per_tok": None}}


def of(kind):
    """Returns the small configuration of a model type, an alias, `module.Class` for the arguments of a wrapper, or one of
    VARIANTS."""
    if kind in VARIANTS:
        return of(kind.partition("+")[0]) | VARIANTS[kind]
    module_name, _, class_name = utils.MODEL_REMAPPING.get(kind, kind).partition(".")
    module = importlib.import_module(f"mlx_lm.models.{module_name}")
    arguments = getattr(module, class_name or "ModelArgs")
    config = {"model_type": kind.partition(".")[0]}
    own = OWN.get(kind, OWN.get(module_name, {}) if not class_name else {})
    for field in dataclasses.fields(arguments):
        required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        is_number = isinstance(field.default, (int, float)) and not isinstance(field.default, bool)
        if field.name in SIZES and (required or is_number):
            config[field.name] = SIZES[field.name]
        elif required and field.name != "model_type" and field.name not in own:
            raise ValueError(f"tests/mlx_lm/configs.py has no value for `{field.name}`")
    for key, value in own.items():
        config[key] = of(value) if key == "text_config" and isinstance(value, str) else value
    if kind in UNTIES:
        config["text_config"]["tie_word_embeddings"] = False
    return config


def kinds():
    """Returns all model types of mlx-lm, with its aliases."""
    modules = [module.name for module in pkgutil.iter_modules(models.__path__)]
    own = [name for name in modules if hasattr(importlib.import_module(f"mlx_lm.models.{name}"), "ModelArgs")]
    return sorted((set(own) | set(utils.MODEL_REMAPPING) | set(VARIANTS)) - set(LEFT_OUT), key=str.lower)
