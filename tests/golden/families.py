"""Make four small models of each of more families, as `models.py` makes its own.

They are `<family>-bfloat16`, `-8bit`, `-6bit` and `-4bit-lora`, and differ in their configs too:
together they turn the switches that mlx-lm reads, with numbers that are not its defaults and that
change the answers.

    pip install "mlx[cpu]==0.32.2" mlx-lm==0.32.2
    python tests/golden/families.py             # or with the names of some families
"""

import sys
import zlib

import mlx.core as mx
import models
from mlx.utils import tree_map
from mlx_lm.models.cache import make_prompt_cache
from models import LLAMA3_ROPE, ROOT, VOCAB, Tie, loaded, make, separated

VARIANTS = {"bfloat16": None, "8bit": 8, "6bit": 6, "4bit-lora": 4}

# A variant does not have the keys that it sets to this.
ABSENT = object()


def without(config, *keys):
    return {key: value for key, value in config.items() if key not in keys}


# The epsilon of the norms is so large that it is seen.
TINY = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "rms_norm_eps": 0.02,
    "vocab_size": VOCAB,
    "max_position_embeddings": 128,
}
# The heads together are wider than the model.
HEADS = {**TINY, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16}
# mlx-lm packs most routers in groups of 64, so that their models have that width.
WIDE = {
    "hidden_size": 64,
    "intermediate_size": 32,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
}
# Attention through small latent vectors.
MLA = {
    "kv_lora_rank": 32,
    "q_lora_rank": 32,
    "qk_nope_head_dim": 32,
    "qk_rope_head_dim": 8,
    "v_head_dim": 16,
}
MULTIPLIERS = {
    "attention_multiplier": 0.2,
    "embedding_multiplier": 0.7,
    "logits_scaling": 1.6,
    "residual_multiplier": 1.3,
}
SLIDING = ["sliding_attention", "full_attention"]

THETA = {"rope_theta": 500.0}
LINEAR = {"rope_type": "linear", "type": "linear", "factor": 3.0}
LLAMA3 = {**LLAMA3_ROPE, "low_freq_factor": 0.5, "high_freq_factor": 3.0}
# Some frequencies are kept, some are stretched, and some are between.
YARN = {
    "rope_type": "yarn",
    "factor": 4.0,
    "original_max_position_embeddings": 64,
    "beta_fast": 2.0,
    "beta_slow": 0.5,
}
DEEPSEEK_YARN = {
    **without(YARN, "rope_type"),
    "type": "yarn",
    "beta_slow": 0.1,
    "mscale": 0.8,
    "mscale_all_dim": 0.5,
}

# What is trained in most families.
ATTENTION = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj"]
DENSE = ["self_attn.q_proj", "self_attn.v_proj", "self_attn.o_proj", "mlp.up_proj", "mlp.down_proj"]
EXPERTS = [
    "self_attn.q_proj",
    "mlp.gate",
    "mlp.switch_mlp.gate_proj",
    "mlp.switch_mlp.up_proj",
    "mlp.switch_mlp.down_proj",
]
SPARSE_EXPERTS = [key.replace("mlp.", "block_sparse_moe.", 1) for key in EXPERTS]
LATENT = [
    "self_attn.q_a_proj",
    "self_attn.q_b_proj",
    "self_attn.kv_a_proj_with_mqa",
    "self_attn.o_proj",
    "mlp.up_proj",
    "mlp.switch_mlp.gate_proj",
    "mlp.shared_experts.down_proj",
]

# Weights by the ends of their names, made of normally distributed numbers. The embeddings are
# small, so that a model with a tied head does not only repeat a token.
SPECIAL = {
    "embed_tokens.weight": lambda n: 0.2 * n,
    "embeddings.weight": lambda n: 0.2 * n,
    ".bias": lambda n: 0.2 * n,
    # Kernels, and what else a mixer of Mamba has.
    ".conv.weight": lambda n: 0.5 * n,
    ".conv1d.weight": lambda n: 0.5 * n,
    ".D": lambda n: 1 + 0.5 * n,
    # They change which experts are chosen, and do not choose them alone.
    "correction_bias": lambda n: 0.2 * n,
    "expert_bias": lambda n: 0.2 * n,
    ".per_expert_scale": lambda n: 1 + 0.3 * n,
    ".router.scale": lambda n: 1 + 0.2 * n,
    ".layer_scalar": lambda n: 1 + 0.2 * n,
    ".act_fn.alpha_p": lambda n: 0.5 * n,
    ".act_fn.alpha_n": lambda n: 0.5 * n,
    ".act_fn.beta": lambda n: 0.6 + 0 * n,
    ".act_fn.eps": lambda n: -0.05 + 0 * n,
}
# Where there is no norm before the biases.
QUIET = {".bias": lambda n: 0.05 * n}
# Where the embedding is scaled up, a layer adds more to it. Norms are less one, or as they are.
POST_NORMS = ["post_attention_layernorm.weight", "post_feedforward_layernorm.weight"]
LOUD = {name: lambda n: 1 + 0.3 * n for name in POST_NORMS}
LOUDER = {name: lambda n: 2 + 0.3 * n for name in POST_NORMS}
LOUD_OUTPUTS = {
    "o_proj.weight": lambda n: 0.5 * n,
    "down_proj.weight": lambda n: 0.5 * n,
}
# Where gates are clamped.
CLAMPED = {
    "experts.gate_proj.weight": lambda n: 0.6 * n,
    "experts.up_proj.weight": lambda n: 0.6 * n,
    "experts.down_proj.weight": lambda n: 0.03 * n,
}


# How weights lie in the models of the hub, which mlx-lm stacks, splits, turns or leaves out.


def also(stored, *names):
    """Stores what `stored` does, and small tensors that mlx-lm leaves out."""
    extra = dict.fromkeys(names, mx.ones((4, 4), mx.bfloat16))
    return lambda weights: {**dict(stored(weights)), **extra}


def tower(*names):
    return also(dict, *names)


def turned(weights):
    """The kernels as torch keeps them, with time last."""
    for name, value in weights.items():
        yield name, value.moveaxis(1, 2) if "conv" in name and value.ndim == 3 else value


MIXTRAL = {"gate_proj": "w1", "down_proj": "w2", "up_proj": "w3"}


def mixtral(weights):
    """Every expert by itself, with short names."""
    for name, value in separated(weights):
        module = name.split(".")[-2]
        yield name.replace(module, MIXTRAL[module]) if ".experts." in name else name, value


def lfm2_moe(weights):
    """Every expert by itself, short names in the dense layers too, and turned kernels."""
    for name, value in separated(dict(turned(weights))):
        for old, new in MIXTRAL.items():
            name = name.replace(f"{old}.weight", f"{new}.weight")
        yield name, value


def qwen3_next(weights):
    """Every expert by itself, turned kernels, and most norms less one."""
    for name, value in separated(dict(turned(weights))):
        is_less = "norm" in name and "linear_attn" not in name
        yield name, value - 1 if is_less else value


def deepseek(weights):
    """Every expert by itself, and one matrix for what a latent vector becomes."""
    for name, value in separated(weights):
        if name.endswith("embed_q.weight"):
            values = weights[name.replace("embed_q", "unembed_out")]
            both = mx.concatenate([value.swapaxes(1, 2), values], axis=1)
            yield name.replace("embed_q", "kv_b_proj"), both.flatten(0, 1)
        elif not name.endswith("unembed_out.weight"):
            yield name, value


def nemotron_h(weights):
    """Every expert by itself, and turned kernels."""
    for name, value in separated(dict(turned(weights))):
        yield name.replace(".fc1.", ".up_proj.").replace(".fc2.", ".down_proj."), value


def granite(weights):
    """The gates and the rest of the experts' first matrices in one, and turned kernels."""
    weights = dict(turned(weights))
    for name, value in weights.items():
        if name.endswith("switch_mlp.gate_proj.weight"):
            up = weights[name.replace("gate_proj", "up_proj")]
            name = name.replace("switch_mlp.gate_proj", "input_linear")
            yield name, mx.concatenate([value, up], axis=1)
        elif name.endswith("switch_mlp.down_proj.weight"):
            yield name.replace("switch_mlp.down_proj", "output_linear"), value
        elif not name.endswith("switch_mlp.up_proj.weight"):
            yield name, value


def dots1(weights):
    """Every expert by itself. Their stack has no name of its own."""
    renamed = {
        name.replace(".experts.", ".switch_mlp."): value for name, value in weights.items()
    }
    return separated(renamed)


def bailing_moe(weights):
    """Every expert by itself, and a router that is the gate."""
    for name, value in separated(weights):
        yield name.replace(".gate.gate_proj.", ".gate."), value


# What the variants of a family share, and by what each differs. A family may also say
# - prompts: how many tokens, where it is not 12: longer than a window, or sorted by expert
# - lora, rank, trained_layers: what is trained, 3 and 2 by default
# - special: more weights like those of `SPECIAL`
# - stored: how the bfloat16 one lies in its file
# - untied: which have a head of their own because of their weights
FAMILIES = {
    # The queries grow with the text, every 16 tokens.
    "ministral3": {
        "config": {
            "model_type": "ministral3",
            **HEADS,
            "rope_parameters": {
                **YARN,
                "type": "yarn",
                **THETA,
                "original_max_position_embeddings": 16,
                "beta_fast": 0.5,
                "beta_slow": 0.125,
                "mscale": 0.8,
                "mscale_all_dim": 0.3,
                "llama_4_scaling_beta": 0.3,
            },
            "sliding_window": None,
            "tie_word_embeddings": True,
        },
        "bfloat16": {},
        "8bit": {"tie_word_embeddings": False, "sliding_window": 8, "layer_types": SLIDING},
        "6bit": {
            "head_dim": None,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "sliding_window": 16,
            "layer_types": SLIDING[::-1],
            "rope_parameters": {
                "rope_type": "default",
                **THETA,
                "llama_4_scaling_beta": 0.2,
                "original_max_position_embeddings": 8,
            },
        },
        "4bit-lora": {
            "rope_parameters": {
                **LINEAR,
                **THETA,
                "llama_4_scaling_beta": 0.5,
                "original_max_position_embeddings": 10,
            },
        },
        "prompts": {"bfloat16": 21, "8bit": 21},
        "lora": DENSE,
    },
    "phi3": {
        "config": {
            "model_type": "phi3",
            **TINY,
            **THETA,
            "original_max_position_embeddings": 32,
            "partial_rotary_factor": 0.75,
            "rope_scaling": {
                "type": "longrope",
                "short_factor": [1.0, 1.0, 1.0, 1.1, 1.2, 1.3],
                "long_factor": [1.0, 1.1, 1.3, 1.7, 2.5, 4.0],
            },
            "sliding_window": 262144,
            "tie_word_embeddings": True,
        },
        "bfloat16": {},
        "8bit": {
            "rope_scaling": None,
            "partial_rotary_factor": 0.5,
            "tie_word_embeddings": False,
        },
        # mlx-lm wants the list, which it does not use.
        "6bit": {
            "rope_scaling": {"type": "linear", "factor": 3.0, "long_factor": []},
            "rope_traditional": True,
            "partial_rotary_factor": ABSENT,
        },
        "4bit-lora": {
            "max_position_embeddings": 64,
            "original_max_position_embeddings": 16,
            "partial_rotary_factor": 0.5,
            "rope_scaling": {
                "type": "su",
                "short_factor": [1.0] * 4,
                "long_factor": [1.0, 1.3, 2.0, 3.5],
            },
            "tie_word_embeddings": False,
        },
        "lora": ["self_attn.qkv_proj", "self_attn.o_proj", "mlp.gate_up_proj", "mlp.down_proj"],
    },
    "olmo2": {
        "config": {
            "model_type": "olmo2",
            **HEADS,
            **THETA,
            "attention_bias": False,
            "rope_scaling": None,
            "tie_word_embeddings": False,
        },
        "bfloat16": {},
        "8bit": {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True},
        "6bit": {
            "head_dim": ABSENT,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "rope_scaling": LLAMA3,
        },
        "4bit-lora": {
            "rope_scaling": LINEAR,
            "rope_traditional": True,
            "tie_word_embeddings": ABSENT,
        },
        "special": QUIET,
        "lora": DENSE,
    },
    # Only the layers without a window are stretched.
    "olmo3": {
        "config": {
            "model_type": "olmo3",
            **HEADS,
            **THETA,
            "attention_bias": False,
            "layer_types": SLIDING,
            "rope_scaling": YARN,
            "sliding_window": 8,
            "tie_word_embeddings": False,
        },
        "bfloat16": {},
        "8bit": {
            "attention_bias": True,
            "sliding_window": 16,
            "layer_types": SLIDING[::-1],
            "tie_word_embeddings": True,
        },
        "6bit": {
            "head_dim": ABSENT,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "rope_scaling": LLAMA3,
        },
        # Every fourth layer has no window.
        "4bit-lora": {
            "num_hidden_layers": 4,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "layer_types": ABSENT,
            "rope_scaling": LINEAR,
            "tie_word_embeddings": ABSENT,
        },
        "prompts": {"bfloat16": 21, "6bit": 21, "4bit-lora": 21},
        "special": QUIET,
        "lora": DENSE,
    },
    "glm4": {
        "config": {
            "model_type": "glm4",
            **HEADS,
            **THETA,
            "attention_bias": True,
            "partial_rotary_factor": 0.5,
            "tie_word_embeddings": False,
        },
        "bfloat16": {},
        "8bit": {"attention_bias": False, "partial_rotary_factor": 0.25},
        "6bit": {"rope_traditional": False, "partial_rotary_factor": 1.0},
        "4bit-lora": {"attention_bias": False},
        "lora": [*ATTENTION, "mlp.gate_up_proj", "mlp.down_proj"],
    },
    # The layers without a window have no positions either.
    "cohere2": {
        "config": {
            "model_type": "cohere2",
            **without(TINY, "rms_norm_eps"),
            **THETA,
            "head_dim": 16,
            "layer_norm_eps": 0.02,
            "logit_scale": 1.5,
            "attention_bias": False,
            "sliding_window": 8,
            "sliding_window_pattern": 2,
        },
        "bfloat16": {"num_hidden_layers": 3, "sliding_window_pattern": 3},
        "8bit": {"attention_bias": True, "layer_norm_bias": True},
        "6bit": {"sliding_window": 16},
        # Every fourth layer has no window.
        "4bit-lora": {"num_hidden_layers": 4, "sliding_window_pattern": ABSENT},
        "prompts": {"bfloat16": 21, "8bit": 21, "4bit-lora": 21},
        "lora": DENSE,
    },
    # mlx-lm has no window here, and the published one is longer than any of our texts.
    "gemma2": {
        "config": {
            "model_type": "gemma2",
            **HEADS,
            **THETA,
            "attn_logit_softcapping": 2.0,
            "final_logit_softcapping": 5.0,
            "query_pre_attn_scalar": 24.0,
            "sliding_window": 4096,
        },
        "special": LOUD,
        "bfloat16": {},
        "8bit": {"num_attention_heads": 2},
        "6bit": {"rope_traditional": True, "query_pre_attn_scalar": 9.0},
        "4bit-lora": {"attn_logit_softcapping": 1.0, "final_logit_softcapping": 8.0},
        "lora": DENSE,
    },
    "gemma3": {
        "config": {
            "model_type": "gemma3",
            "text_config": {
                "model_type": "gemma3_text",
                **HEADS,
                **THETA,
                "rope_local_base_freq": 100.0,
                "query_pre_attn_scalar": 24.0,
                "sliding_window": 8,
                "sliding_window_pattern": 2,
            },
            "vision_config": {"model_type": "siglip_vision_model", "hidden_size": 4},
            "vocab_size": VOCAB,
        },
        "special": LOUD,
        "bfloat16": {
            "text_config": {
                "intermediate_size": 32,
                "num_hidden_layers": 3,
                "sliding_window_pattern": 3,
            },
        },
        "8bit": {"text_config": {"rope_scaling": {"rope_type": "linear", "factor": 8.0}}},
        "6bit": {"text_config": {"sliding_window": 16}},
        # Eight heads, and four for the keys.
        "4bit-lora": {
            "text_config": {"num_attention_heads": ABSENT, "num_key_value_heads": ABSENT},
        },
        "prompts": {"bfloat16": 21, "8bit": 21, "4bit-lora": 21},
        "untied": ["8bit"],
        "stored": tower("vision_tower.patch_embedding.weight", "multi_modal_projector.weight"),
        "lora": DENSE,
    },
    # In a text without pictures the three sections of positions are the same.
    "qwen3_vl": {
        "config": {
            "model_type": "qwen3_vl",
            "text_config": {
                "model_type": "qwen3_vl_text",
                **HEADS,
                **THETA,
                "attention_bias": False,
                "rope_scaling": {
                    "mrope_interleaved": True,
                    "mrope_section": [3, 3, 2],
                    "rope_type": "default",
                },
                "tie_word_embeddings": True,
            },
            "tie_word_embeddings": True,
            "vision_config": {"model_type": "qwen3_vl", "hidden_size": 4},
        },
        "bfloat16": {},
        "8bit": {
            "text_config": {
                "rope_scaling": {**YARN, "mrope_interleaved": True, "mrope_section": [3, 3, 2]},
                "tie_word_embeddings": False,
            },
            "tie_word_embeddings": False,
        },
        # Without a `text_config`.
        "6bit": {
            "text_config": ABSENT,
            **HEADS,
            **THETA,
            "rope_scaling": LINEAR,
        },
        "4bit-lora": {
            "text_config": {
                "rope_theta": ABSENT,
                "rope_scaling": ABSENT,
                "rope_parameters": {
                    "mrope_interleaved": True,
                    "mrope_section": [3, 3, 2],
                    "rope_type": "default",
                    **THETA,
                },
            },
        },
        "stored": tower("visual.patch_embed.proj.weight", "vision_tower.merger.weight"),
        "lora": DENSE,
    },
    "qwen3_vl_moe": {
        "config": {
            "model_type": "qwen3_vl_moe",
            "text_config": {
                "model_type": "qwen3_vl_moe_text",
                **TINY,
                **WIDE,
                **THETA,
                "head_dim": 16,
                "decoder_sparse_step": 1,
                "mlp_only_layers": [0],
                "moe_intermediate_size": 32,
                "norm_topk_prob": True,
                "num_experts": 3,
                "num_experts_per_tok": 2,
                "rope_scaling": {
                    "mrope_interleaved": True,
                    "mrope_section": [3, 3, 2],
                    "rope_type": "default",
                },
                "tie_word_embeddings": False,
            },
            "tie_word_embeddings": False,
            "vision_config": {"model_type": "qwen3_vl_moe", "hidden_size": 4},
        },
        "bfloat16": {
            "text_config": {
                "hidden_size": 32,
                "mlp_only_layers": [],
                "moe_intermediate_size": 16,
                "norm_topk_prob": False,
                "num_experts": 5,
            },
        },
        "8bit": {
            "text_config": {"num_hidden_layers": 1, "mlp_only_layers": [], "num_experts": 4},
        },
        "6bit": {
            "text_config": {
                "decoder_sparse_step": 2,
                "mlp_only_layers": [],
                "norm_topk_prob": False,
            },
        },
        "4bit-lora": {"text_config": {"mlp_only_layers": [1]}},
        "prompts": {"bfloat16": 40},
        "stored": tower("visual.patch_embed.proj.weight"),
        "lora": EXPERTS,
        "rank": 2,
    },
    "mistral3": {
        "config": {
            "model_type": "mistral3",
            "text_config": {
                "model_type": "ministral3",
                **HEADS,
                "rope_parameters": {
                    **YARN,
                    "type": "yarn",
                    **THETA,
                    "original_max_position_embeddings": 16,
                    "beta_fast": 0.5,
                    "beta_slow": 0.125,
                    "mscale": 1.0,
                    "mscale_all_dim": 1.0,
                    "llama_4_scaling_beta": 0.3,
                },
                "sliding_window": None,
            },
            "vision_config": {"model_type": "pixtral", "hidden_size": 4},
        },
        "bfloat16": {},
        "8bit": {"text_config": {"tie_word_embeddings": True}},
        "6bit": {
            "text_config": {"model_type": "mistral", "rope_parameters": ABSENT, **THETA},
        },
        "4bit-lora": {
            "text_config": {
                "model_type": "llama",
                "rope_parameters": ABSENT,
                **THETA,
                "rope_scaling": LLAMA3,
                "attention_bias": True,
                "tie_word_embeddings": True,
            },
        },
        "prompts": {"bfloat16": 21},
        "stored": tower("vision_tower.patch_conv.weight", "multi_modal_projector.linear_1.weight"),
        "lora": DENSE,
    },
    "lfm2-vl": {
        "config": {
            "model_type": "lfm2-vl",
            "text_config": {
                "model_type": "lfm2",
                **without(TINY, "rms_norm_eps", "intermediate_size"),
                **THETA,
                "block_auto_adjust_ff_dim": True,
                "block_dim": 32,
                "block_ff_dim": 60,
                "block_ffn_dim_multiplier": 0.7,
                "block_multiple_of": 32,
                "conv_L_cache": 3,
                "conv_bias": False,
                "layer_types": ["conv", "full_attention", "conv"],
                "norm_eps": 0.02,
                "num_hidden_layers": 3,
            },
            "vision_config": {"model_type": "siglip2_vision_model", "hidden_size": 4},
        },
        "bfloat16": {},
        "8bit": {"text_config": {"conv_bias": True, "conv_L_cache": 4}},
        "6bit": {
            "text_config": {
                "block_ff_dim": ABSENT,
                "intermediate_size": 60,
                "layer_types": ABSENT,
                "full_attn_idxs": [0, 2],
                "rope_theta": ABSENT,
                "rope_parameters": {"rope_theta": 300.0, "rope_type": "default"},
            },
        },
        "4bit-lora": {"text_config": {"block_auto_adjust_ff_dim": False, "block_ff_dim": 64}},
        "prompts": {"6bit": 21},
        "stored": tower("vision_tower.embeddings.weight", "multi_modal_projector.linear_1.weight"),
        "lora": [
            "self_attn.q_proj",
            "self_attn.out_proj",
            "conv.in_proj",
            "conv.out_proj",
            "feed_forward.w1",
            "feed_forward.w2",
        ],
        "trained_layers": 3,
    },
    "pixtral": {
        "config": {
            "model_type": "pixtral",
            "text_config": {"model_type": "mistral", **HEADS, **THETA, "sliding_window": None},
            "vision_config": {"model_type": "pixtral", "hidden_size": 4},
        },
        "bfloat16": {},
        "8bit": {"text_config": {"attention_bias": True, "mlp_bias": True}},
        # Of 32 heads.
        "6bit": {"text_config": {"num_hidden_layers": 1, "num_attention_heads": ABSENT}},
        "4bit-lora": {"text_config": {"rope_scaling": LLAMA3, "rope_traditional": True}},
        "stored": tower("vision_tower.patch_conv.weight", "multi_modal_projector.linear_1.weight"),
        "lora": DENSE,
    },
    "qwen2_vl": {
        "config": {
            "model_type": "qwen2_vl",
            "text_config": {
                "model_type": "qwen2_vl_text",
                **TINY,
                **THETA,
                "rope_scaling": {"type": "mrope", "mrope_section": [2, 3, 3]},
                "tie_word_embeddings": True,
            },
            "tie_word_embeddings": True,
            "vision_config": {"model_type": "qwen2_vl", "hidden_size": 4},
        },
        "bfloat16": {},
        # Without a `text_config`, as it was published first.
        "8bit": {
            "text_config": ABSENT,
            **TINY,
            **THETA,
            "rope_scaling": {"type": "mrope", "mrope_section": [2, 3, 3]},
            "tie_word_embeddings": False,
        },
        "6bit": {
            "text_config": {
                "rope_scaling": {
                    "mrope_section": [2, 3, 3],
                    "rope_type": "default",
                    "type": "default",
                },
                "tie_word_embeddings": False,
            },
            "tie_word_embeddings": False,
        },
        "4bit-lora": {"text_config": {"rope_scaling": LINEAR, "rope_traditional": True}},
        "stored": tower("visual.patch_embed.proj.weight", "vision_tower.merger.weight"),
        "lora": DENSE,
    },
    # mlx-lm neither scales the probabilities nor leaves out experts, whatever the config says.
    "qwen2_moe": {
        "config": {
            "model_type": "qwen2_moe",
            **TINY,
            **THETA,
            "decoder_sparse_step": 1,
            "moe_intermediate_size": 32,
            "norm_topk_prob": False,
            "num_experts": 5,
            "num_experts_per_tok": 2,
            "shared_expert_intermediate_size": 32,
            "tie_word_embeddings": False,
        },
        "bfloat16": {"moe_intermediate_size": 16},
        "8bit": {"num_experts": 3, "rope_traditional": True},
        "6bit": {"num_experts": 3},
        "4bit-lora": {"num_experts_per_tok": 3},
        "prompts": {"6bit": 40},
        "stored": separated,
        "lora": EXPERTS + ["mlp.shared_expert.up_proj", "mlp.shared_expert_gate"],
        "rank": 2,
        "trained_layers": 1,
    },
    "mixtral": {
        "config": {
            "model_type": "mixtral",
            **TINY,
            **THETA,
            "intermediate_size": 32,
            "num_local_experts": 5,
            "num_experts_per_tok": 2,
            "sliding_window": None,
            "tie_word_embeddings": False,
        },
        "bfloat16": {"intermediate_size": 16},
        "8bit": {"num_local_experts": 4, "num_experts_per_tok": 3, "tie_word_embeddings": True},
        "6bit": {"rope_traditional": True},
        "4bit-lora": {"tie_word_embeddings": ABSENT},
        "prompts": {"bfloat16": 40},
        "stored": mixtral,
        "lora": SPARSE_EXPERTS,
        "rank": 2,
    },
    "olmoe": {
        "config": {
            "model_type": "olmoe",
            **TINY,
            **THETA,
            "attention_bias": False,
            "intermediate_size": 32,
            "norm_topk_prob": False,
            "num_experts": 5,
            "num_experts_per_tok": 2,
            "rope_scaling": None,
            "tie_word_embeddings": False,
        },
        "bfloat16": {"intermediate_size": 16, "head_dim": 32, "norm_topk_prob": True},
        "8bit": {
            "attention_bias": True,
            "mlp_bias": True,
            "num_experts": 3,
            "tie_word_embeddings": ABSENT,
        },
        "6bit": {"num_experts_per_tok": 3, "rope_scaling": LINEAR, "rope_traditional": True},
        "4bit-lora": {"norm_topk_prob": True, "tie_word_embeddings": True},
        "prompts": {"8bit": 40},
        "stored": separated,
        "lora": EXPERTS,
        "rank": 2,
    },
    "glm4_moe": {
        "config": {
            "model_type": "glm4_moe",
            **TINY,
            **THETA,
            "attention_bias": True,
            "first_k_dense_replace": 1,
            "head_dim": 16,
            "moe_intermediate_size": 32,
            "n_group": 1,
            "n_routed_experts": 5,
            "n_shared_experts": 1,
            "norm_topk_prob": True,
            "num_experts_per_tok": 2,
            "num_nextn_predict_layers": 1,
            "partial_rotary_factor": 0.5,
            "rope_scaling": None,
            "routed_scaling_factor": 1.7,
            "scoring_func": "sigmoid",
            "tie_word_embeddings": False,
            "topk_group": 1,
            "topk_method": "noaux_tc",
            "use_qk_norm": False,
        },
        "bfloat16": {
            "moe_intermediate_size": 16,
            "norm_topk_prob": False,
            "use_qk_norm": True,
        },
        "8bit": {"n_group": 2, "n_routed_experts": 6, "partial_rotary_factor": 0.25},
        "6bit": {"attention_bias": False, "first_k_dense_replace": 0},
        "4bit-lora": {
            "head_dim": 32,
            "n_group": 3,
            "topk_group": 2,
            "n_routed_experts": 6,
            "n_shared_experts": 2,
            "use_qk_norm": True,
        },
        "prompts": {"bfloat16": 40},
        # The layer after the last one, which predicts a token more.
        "stored": also(separated, "model.layers.2.eh_proj.weight"),
        "lora": [key for key in EXPERTS if key != "mlp.gate"]
        + ["mlp.up_proj", "mlp.shared_experts.down_proj"],
        "rank": 2,
    },
    "minimax": {
        "config": {
            "model_type": "minimax",
            **TINY,
            **WIDE,
            **THETA,
            "head_dim": 16,
            "num_local_experts": 3,
            "num_experts_per_tok": 2,
            "rotary_dim": 8,
            "scoring_func": "sigmoid",
            "shared_intermediate_size": 0,
            "tie_word_embeddings": True,
            "use_qk_norm": True,
        },
        "bfloat16": {
            "hidden_size": 32,
            "intermediate_size": 16,
            "num_local_experts": 5,
            "tie_word_embeddings": ABSENT,
        },
        "8bit": {
            "num_hidden_layers": 1,
            "head_dim": ABSENT,
            "rotary_dim": 12,
            "num_local_experts": 4,
        },
        "6bit": {"use_qk_norm": False},
        "4bit-lora": {},
        "prompts": {"bfloat16": 40},
        "stored": mixtral,
        "lora": SPARSE_EXPERTS,
        "rank": 2,
        "trained_layers": 1,
    },
    "lfm2_moe": {
        "config": {
            "model_type": "lfm2_moe",
            **without(TINY, "rms_norm_eps"),
            **THETA,
            **WIDE,
            "num_attention_heads": 4,
            "conv_L_cache": 3,
            "conv_bias": False,
            "layer_types": ["conv", "full_attention"],
            "moe_intermediate_size": 32,
            "norm_eps": 0.02,
            "norm_topk_prob": True,
            "num_dense_layers": 1,
            "num_experts": 3,
            "num_experts_per_tok": 2,
            "routed_scaling_factor": 1.5,
            "use_expert_bias": True,
        },
        "bfloat16": {
            "hidden_size": 32,
            "num_attention_heads": 2,
            "num_hidden_layers": 3,
            "layer_types": ["conv", "full_attention", "conv"],
            "moe_intermediate_size": 16,
            "norm_topk_prob": False,
            "num_dense_layers": 2,
            "num_experts": 5,
        },
        "8bit": {
            "conv_L_cache": 4,
            "conv_bias": True,
            "norm_topk_prob": False,
            "num_experts": 2,
            "num_experts_per_tok": 1,
        },
        "6bit": {
            "layer_types": ABSENT,
            "full_attn_idxs": [0],
            "rope_theta": ABSENT,
            "rope_parameters": {"rope_theta": 300.0, "rope_type": "default"},
        },
        "4bit-lora": {"use_expert_bias": False},
        "prompts": {"bfloat16": 40},
        "stored": lfm2_moe,
        "lora": [
            "self_attn.out_proj",
            "conv.in_proj",
            "feed_forward.gate_proj",
            "feed_forward.gate",
            "feed_forward.switch_mlp.up_proj",
            "feed_forward.switch_mlp.down_proj",
        ],
        "rank": 2,
    },
    # A head may look at nothing.
    "gpt_oss": {
        "config": {
            "model_type": "gpt_oss",
            **TINY,
            **WIDE,
            **THETA,
            "head_dim": 16,
            "attention_bias": True,
            "layer_types": SLIDING,
            "num_experts_per_tok": 2,
            "num_local_experts": 3,
            "rope_scaling": {**YARN, "truncate": False},
            "sliding_window": 8,
            "swiglu_limit": 7.0,
            "tie_word_embeddings": False,
        },
        "bfloat16": {
            "hidden_size": 32,
            "intermediate_size": 16,
            "num_local_experts": 5,
        },
        "8bit": {"num_local_experts": 2, "num_experts_per_tok": 1},
        "6bit": {"rope_scaling": None, "sliding_window": 16, "layer_types": SLIDING[::-1]},
        "4bit-lora": {"layer_types": ABSENT},
        "prompts": {"bfloat16": 40, "8bit": 21, "4bit-lora": 21},
        "special": CLAMPED,
        "lora": [
            "self_attn.q_proj",
            "self_attn.o_proj",
            "mlp.router",
            "mlp.experts.gate_proj",
            "mlp.experts.down_proj",
        ],
        "rank": 2,
        "trained_layers": 1,
    },
    # Every second or third layer has attention, the others a state.
    "qwen3_5": {
        "config": {
            "model_type": "qwen3_5",
            "text_config": {
                "model_type": "qwen3_5_text",
                **HEADS,
                "attention_bias": False,
                "attn_output_gate": True,
                "full_attention_interval": 2,
                "layer_types": ["linear_attention", "full_attention"],
                "linear_conv_kernel_dim": 3,
                "linear_key_head_dim": 8,
                "linear_num_key_heads": 2,
                "linear_num_value_heads": 4,
                "linear_value_head_dim": 16,
                "rope_parameters": {
                    "mrope_interleaved": True,
                    "mrope_section": [2, 1, 1],
                    "partial_rotary_factor": 0.5,
                    "rope_type": "default",
                    **THETA,
                },
                "tie_word_embeddings": True,
            },
            "tie_word_embeddings": True,
            "vision_config": {"model_type": "qwen3_5", "hidden_size": 4},
        },
        "bfloat16": {},
        "8bit": {
            "text_config": {
                "attention_bias": True,
                "linear_conv_kernel_dim": 4,
                "tie_word_embeddings": False,
            },
            "tie_word_embeddings": False,
        },
        "6bit": {
            "text_config": {
                "full_attention_interval": 3,
                "layer_types": ["linear_attention", "linear_attention", "full_attention"],
                "linear_key_head_dim": 16,
                "linear_num_value_heads": 2,
                "num_hidden_layers": 3,
            },
        },
        # A quarter of a head has positions.
        "4bit-lora": {
            "text_config": {"rope_parameters": {"rope_type": "default", "rope_theta": 300.0}},
        },
        "prompts": {"8bit": 21},
        "stored": tower("vision_tower.x.weight", "model.visual.x.weight", "mtp.fc.weight"),
        "lora": [
            "self_attn.q_proj",
            "self_attn.o_proj",
            "linear_attn.in_proj_qkv",
            "linear_attn.in_proj_z",
            "linear_attn.in_proj_b",
            "linear_attn.out_proj",
            "mlp.down_proj",
        ],
    },
    "qwen3_5_moe": {
        "config": {
            "model_type": "qwen3_5_moe",
            "text_config": {
                "model_type": "qwen3_5_moe_text",
                **without(TINY, "intermediate_size"),
                **without(WIDE, "intermediate_size"),
                "head_dim": 16,
                "full_attention_interval": 2,
                "layer_types": ["linear_attention", "full_attention"],
                "linear_conv_kernel_dim": 3,
                "linear_key_head_dim": 16,
                "linear_num_key_heads": 1,
                "linear_num_value_heads": 2,
                "linear_value_head_dim": 16,
                "moe_intermediate_size": 32,
                "num_experts": 2,
                "num_experts_per_tok": 1,
                "rope_parameters": {
                    "mrope_interleaved": True,
                    "mrope_section": [2, 1, 1],
                    "partial_rotary_factor": 0.5,
                    "rope_type": "default",
                    **THETA,
                },
                "shared_expert_intermediate_size": 32,
                "tie_word_embeddings": True,
            },
            "tie_word_embeddings": True,
            "vision_config": {"model_type": "qwen3_5_moe", "hidden_size": 4},
        },
        "bfloat16": {
            "text_config": {
                "hidden_size": 32,
                "moe_intermediate_size": 16,
                "norm_topk_prob": False,
                "num_experts": 5,
                "num_experts_per_tok": 2,
                "shared_expert_intermediate_size": 16,
            },
        },
        "8bit": {"text_config": {"norm_topk_prob": False}},
        "6bit": {
            "text_config": {
                "linear_key_head_dim": 8,
                "linear_num_key_heads": 2,
                "linear_num_value_heads": 4,
                "linear_value_head_dim": 8,
                "num_experts": 3,
                "num_experts_per_tok": 2,
            },
        },
        "4bit-lora": {
            "text_config": {
                "num_experts": 3,
                "num_experts_per_tok": 2,
                "tie_word_embeddings": False,
            },
            "tie_word_embeddings": False,
        },
        "prompts": {"bfloat16": 40},
        "stored": tower("vision_tower.x.weight", "model.visual.x.weight", "mtp.fc.weight"),
        "lora": [
            "self_attn.q_proj",
            "linear_attn.in_proj_qkv",
            "mlp.gate",
            "mlp.switch_mlp.down_proj",
            "mlp.shared_expert.up_proj",
        ],
        "rank": 2,
        "trained_layers": 1,
    },
    "qwen3_next": {
        "config": {
            "model_type": "qwen3_next",
            **TINY,
            **WIDE,
            **THETA,
            "attention_bias": False,
            "decoder_sparse_step": 1,
            "full_attention_interval": 2,
            "head_dim": 16,
            "linear_conv_kernel_dim": 4,
            "linear_key_head_dim": 8,
            "linear_num_key_heads": 2,
            "linear_num_value_heads": 4,
            "linear_value_head_dim": 8,
            "mlp_only_layers": [0],
            "moe_intermediate_size": 32,
            "norm_topk_prob": True,
            "num_experts": 3,
            "num_experts_per_tok": 2,
            "partial_rotary_factor": 0.5,
            "rope_scaling": None,
            "shared_expert_intermediate_size": 32,
            "tie_word_embeddings": True,
        },
        "bfloat16": {
            "hidden_size": 32,
            "linear_conv_kernel_dim": 3,
            "linear_value_head_dim": 16,
            "mlp_only_layers": [1],
            "moe_intermediate_size": 16,
            "norm_topk_prob": False,
            "num_experts": 5,
            "shared_expert_intermediate_size": 16,
        },
        "8bit": {"attention_bias": True, "num_experts": 2, "num_experts_per_tok": 1},
        "6bit": {
            "decoder_sparse_step": 2,
            "mlp_only_layers": [],
            "norm_topk_prob": ABSENT,
            "partial_rotary_factor": 1.0,
            "rope_scaling": YARN,
        },
        "4bit-lora": {
            "linear_key_head_dim": 16,
            "linear_num_value_heads": 2,
            "linear_value_head_dim": 16,
            "mlp_only_layers": [1],
            "partial_rotary_factor": 0.25,
        },
        "prompts": {"bfloat16": 40},
        "stored": qwen3_next,
        "lora": [
            "self_attn.q_proj",
            "linear_attn.in_proj_qkvz",
            "linear_attn.out_proj",
            "mlp.switch_mlp.down_proj",
            "mlp.shared_expert.up_proj",
        ],
        "rank": 2,
    },
    # Layers that share keys and values, and inputs of their own for each layer.
    "gemma4_text": {
        "config": {
            "model_type": "gemma4_text",
            **TINY,
            "head_dim": 16,
            "global_head_dim": 32,
            "num_global_key_value_heads": None,
            "attention_k_eq_v": False,
            "enable_moe_block": False,
            "final_logit_softcapping": 5.0,
            "hidden_size_per_layer_input": 8,
            "intermediate_size": 32,
            "layer_types": SLIDING * 2,
            "num_hidden_layers": 4,
            "num_kv_shared_layers": 2,
            "rope_parameters": {
                "full_attention": {
                    "partial_rotary_factor": 0.5,
                    "rope_theta": 500.0,
                    "rope_type": "proportional",
                },
                "sliding_attention": {"rope_theta": 100.0, "rope_type": "default"},
            },
            "sliding_window": 8,
            "tie_word_embeddings": True,
            "use_double_wide_mlp": True,
            "vocab_size_per_layer_input": VOCAB,
        },
        "bfloat16": {"global_head_dim": 24, "intermediate_size": 16},
        # Values are keys in the layers without a window.
        "8bit": {
            "attention_k_eq_v": True,
            "hidden_size_per_layer_input": 0,
            "layer_types": ABSENT,
            "num_attention_heads": 4,
            "num_global_key_value_heads": 1,
            "num_hidden_layers": 2,
            "num_key_value_heads": 2,
            "num_kv_shared_layers": 0,
            "rope_parameters": ABSENT,
            "sliding_window_pattern": 2,
            "tie_word_embeddings": False,
        },
        # Experts beside the dense layer.
        "6bit": {
            **WIDE,
            "attention_k_eq_v": True,
            "enable_moe_block": True,
            "final_logit_softcapping": None,
            "hidden_size_per_layer_input": 0,
            "layer_types": ["full_attention"],
            "moe_intermediate_size": 32,
            "num_experts": 3,
            "num_hidden_layers": 1,
            "num_kv_shared_layers": 0,
            "top_k_experts": 2,
        },
        "4bit-lora": {
            "hidden_size_per_layer_input": 32,
            "layer_types": [*SLIDING[::-1], "full_attention"],
            "num_hidden_layers": 3,
            "num_kv_shared_layers": 1,
            "rope_traditional": True,
            "sliding_window": 16,
            "use_double_wide_mlp": False,
        },
        "prompts": {"bfloat16": 21, "8bit": 21, "6bit": 40},
        "special": LOUDER,
        "lora": [
            "self_attn.q_proj",
            "self_attn.o_proj",
            "mlp.up_proj",
            "per_layer_input_gate",
            "per_layer_projection",
        ],
    },
    "gemma4": {
        "config": {
            "model_type": "gemma4",
            "text_config": {
                "model_type": "gemma4_text",
                **without(TINY, "vocab_size"),
                "head_dim": 16,
                "global_head_dim": 32,
                "num_global_key_value_heads": None,
                "attention_k_eq_v": False,
                "enable_moe_block": False,
                "final_logit_softcapping": 5.0,
                "hidden_size_per_layer_input": 0,
                "intermediate_size": 32,
                "layer_types": SLIDING,
                "num_kv_shared_layers": 0,
                "rope_parameters": {
                    "full_attention": {
                        "partial_rotary_factor": 0.25,
                        "rope_theta": 300.0,
                        "rope_type": "proportional",
                    },
                    "sliding_attention": {"rope_theta": 50.0, "rope_type": "default"},
                },
                "sliding_window": 8,
                "tie_word_embeddings": True,
            },
            "tie_word_embeddings": True,
            "vision_config": {"model_type": "gemma4_vision", "hidden_size": 4},
            "vocab_size": VOCAB,
        },
        "bfloat16": {
            "text_config": {
                "enable_moe_block": True,
                "intermediate_size": 16,
                "moe_intermediate_size": 16,
                "num_experts": 4,
                "top_k_experts": 2,
            },
        },
        "8bit": {
            "text_config": {
                "attention_k_eq_v": True,
                "num_attention_heads": 4,
                "num_key_value_heads": 2,
                "num_global_key_value_heads": 1,
                "sliding_window": 16,
                "tie_word_embeddings": False,
            },
            "tie_word_embeddings": False,
        },
        "6bit": {
            "text_config": {
                "hidden_size_per_layer_input": 32,
                "layer_types": [*SLIDING, "sliding_attention"],
                "num_hidden_layers": 3,
                "num_kv_shared_layers": 1,
                "vocab_size_per_layer_input": VOCAB,
            },
        },
        "4bit-lora": {
            "text_config": {
                **WIDE,
                "attention_k_eq_v": True,
                "enable_moe_block": True,
                "layer_types": ["sliding_attention"],
                "moe_intermediate_size": 32,
                "num_experts": 4,
                "num_hidden_layers": 1,
                "tie_word_embeddings": False,
                "top_k_experts": 3,
            },
            "tie_word_embeddings": False,
        },
        "prompts": {"bfloat16": 40, "6bit": 21, "4bit-lora": 21},
        "special": LOUDER,
        "stored": tower("vision_tower.x.weight", "embed_vision.x.weight", "audio_tower.x.weight"),
        "lora": [
            "self_attn.q_proj",
            "self_attn.k_proj",
            "mlp.up_proj",
            "router.proj",
            "experts.switch_glu.gate_proj",
            "experts.switch_glu.down_proj",
        ],
        "rank": 2,
        "trained_layers": 1,
    },
    "deepseek_v3": {
        "config": {
            "model_type": "deepseek_v3",
            **TINY,
            **THETA,
            **MLA,
            "num_key_value_heads": 2,
            "attention_bias": False,
            "first_k_dense_replace": 1,
            "moe_intermediate_size": 32,
            "moe_layer_freq": 1,
            "n_group": 2,
            "n_routed_experts": 6,
            "n_shared_experts": 1,
            "norm_topk_prob": True,
            "num_experts_per_tok": 2,
            "rope_scaling": DEEPSEEK_YARN,
            "routed_scaling_factor": 1.7,
            "scoring_func": "sigmoid",
            "tie_word_embeddings": False,
            "topk_group": 1,
            "topk_method": "noaux_tc",
        },
        "bfloat16": {
            "intermediate_size": 32,
            "kv_lora_rank": 16,
            "moe_intermediate_size": 16,
            "norm_topk_prob": False,
            "q_lora_rank": None,
            "qk_nope_head_dim": 16,
        },
        # The first layer has experts, the second has none.
        "8bit": {
            "attention_bias": True,
            "first_k_dense_replace": 0,
            "intermediate_size": 32,
            "moe_layer_freq": 2,
            "n_routed_experts": 3,
            "n_group": 1,
            "rope_scaling": None,
        },
        "6bit": {"n_shared_experts": None},
        "4bit-lora": {"n_group": 3, "topk_group": 2, "n_shared_experts": 2},
        "prompts": {"bfloat16": 40},
        "stored": also(deepseek, "model.layers.61.eh_proj.weight"),
        "lora": LATENT,
        "rank": 2,
    },
    "kimi_k2": {
        "config": {
            "model_type": "kimi_k2",
            **TINY,
            **THETA,
            **MLA,
            "num_key_value_heads": 2,
            "attention_bias": False,
            "first_k_dense_replace": 1,
            "moe_intermediate_size": 32,
            "moe_layer_freq": 1,
            "n_group": 1,
            "n_routed_experts": 5,
            "n_shared_experts": 1,
            "norm_topk_prob": True,
            "num_experts_per_tok": 3,
            "rope_scaling": {**DEEPSEEK_YARN, "mscale": 1.0, "mscale_all_dim": 1.0},
            "routed_scaling_factor": 2.827,
            "scoring_func": "sigmoid",
            "tie_word_embeddings": False,
            "topk_group": 1,
            "topk_method": "noaux_tc",
        },
        "bfloat16": {
            "intermediate_size": 32,
            "moe_intermediate_size": 16,
            "qk_nope_head_dim": 16,
        },
        "8bit": {
            "n_routed_experts": 4,
            "num_attention_heads": 1,
            "num_key_value_heads": 1,
            "v_head_dim": 32,
        },
        "6bit": {"n_routed_experts": 3, "num_experts_per_tok": 2, "qk_rope_head_dim": 16},
        "4bit-lora": {"num_hidden_layers": 1, "first_k_dense_replace": 0, "v_head_dim": 32},
        "prompts": {"4bit-lora": 40},
        "stored": deepseek,
        "lora": [key for key in LATENT if key != "mlp.up_proj"],
        "rank": 2,
    },
    "glm4_moe_lite": {
        "config": {
            "model_type": "glm4_moe_lite",
            **TINY,
            **THETA,
            **MLA,
            "num_key_value_heads": 2,
            "attention_bias": False,
            "first_k_dense_replace": 1,
            "moe_intermediate_size": 32,
            "n_group": 1,
            "n_routed_experts": 5,
            "n_shared_experts": 1,
            "norm_topk_prob": True,
            "num_experts_per_tok": 2,
            "num_nextn_predict_layers": 1,
            "partial_rotary_factor": 1.0,
            "rope_scaling": None,
            "routed_scaling_factor": 1.4,
            "tie_word_embeddings": False,
            "topk_group": 1,
            "topk_method": "noaux_tc",
        },
        "bfloat16": {
            "intermediate_size": 32,
            "kv_lora_rank": 16,
            "moe_intermediate_size": 16,
            "norm_topk_prob": False,
            "qk_nope_head_dim": 16,
        },
        "8bit": {"n_group": 2, "n_routed_experts": 4, "n_shared_experts": None},
        "6bit": {
            "attention_bias": True,
            "first_k_dense_replace": 0,
            "moe_layer_freq": 2,
            "q_lora_rank": None,
            "rope_scaling": DEEPSEEK_YARN,
        },
        "4bit-lora": {
            "first_k_dense_replace": ABSENT,
            "n_shared_experts": 2,
            "num_experts_per_tok": 3,
        },
        "prompts": {"bfloat16": 40},
        "stored": also(deepseek, "model.layers.2.eh_proj.weight"),
        "lora": LATENT,
        "rank": 2,
    },
    "lfm2": {
        "config": {
            "model_type": "lfm2",
            **without(TINY, "rms_norm_eps", "intermediate_size"),
            **THETA,
            "block_auto_adjust_ff_dim": True,
            "block_dim": 32,
            "block_ff_dim": 60,
            "block_ffn_dim_multiplier": 0.7,
            "block_multiple_of": 32,
            "conv_L_cache": 3,
            "conv_bias": False,
            "layer_types": ["full_attention", "conv"],
            "norm_eps": 0.02,
        },
        "bfloat16": {"num_hidden_layers": 3, "layer_types": ["conv", "conv", "full_attention"]},
        "8bit": {"conv_bias": True, "block_multiple_of": 64},
        "6bit": {
            "block_auto_adjust_ff_dim": False,
            "block_ff_dim": ABSENT,
            "conv_L_cache": 5,
            "full_attn_idxs": [1],
            "intermediate_size": 64,
            "layer_types": ABSENT,
        },
        "4bit-lora": {
            "hidden_size": 64,
            "block_dim": 64,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "rope_theta": ABSENT,
            "rope_parameters": {"rope_theta": 300.0, "rope_type": "default"},
        },
        "prompts": {"bfloat16": 21},
        "stored": turned,
        "lora": [
            "self_attn.k_proj",
            "self_attn.v_proj",
            "conv.in_proj",
            "conv.out_proj",
            "feed_forward.w3",
            "feed_forward.w2",
        ],
    },
    # A layer is either a mixer of Mamba, attention, an MLP, or experts.
    "nemotron_h": {
        "config": {
            "model_type": "nemotron_h",
            **without(TINY, "rms_norm_eps", "num_hidden_layers"),
            "attention_bias": False,
            "conv_kernel": 3,
            "head_dim": 16,
            "hybrid_override_pattern": "M-*E",
            "layer_norm_epsilon": 0.02,
            "mamba_head_dim": 8,
            "mamba_num_heads": 4,
            "mamba_proj_bias": False,
            "mlp_bias": False,
            "moe_intermediate_size": 32,
            "moe_shared_expert_intermediate_size": 64,
            "n_group": 1,
            "n_groups": 2,
            "n_routed_experts": 5,
            "n_shared_experts": 1,
            "norm_topk_prob": True,
            "num_experts_per_tok": 2,
            "num_hidden_layers": 4,
            "routed_scaling_factor": 1.5,
            "ssm_state_size": 16,
            "tie_word_embeddings": False,
            "topk_group": 1,
            "use_bias": False,
            "use_conv_bias": True,
        },
        "bfloat16": {"moe_intermediate_size": 16, "norm_topk_prob": False},
        "8bit": {
            "hybrid_override_pattern": ABSENT,
            "layers_block_type": ["attention", "mamba", "moe"],
            "n_group": 2,
            "n_routed_experts": 6,
            "num_hidden_layers": 3,
            "time_step_limit": [0.5, {"__float__": "Infinity"}],
        },
        "6bit": {
            "attention_bias": True,
            "conv_kernel": 4,
            "head_dim": ABSENT,
            "hybrid_override_pattern": "MM*-",
            "mamba_proj_bias": True,
            "mlp_bias": True,
            "n_groups": 1,
            "time_step_limit": [0.4, 0.8],
            "use_conv_bias": False,
        },
        # The experts see something narrower or, here, wider than the model.
        "4bit-lora": {
            "hybrid_override_pattern": "*ME",
            "moe_latent_size": 64,
            "n_routed_experts": 3,
            "n_shared_experts": None,
            "num_hidden_layers": 3,
        },
        "prompts": {"bfloat16": 40},
        "stored": also(nemotron_h, "mtp.layers.0.eh_proj.weight"),
        "lora": [
            "mixer.q_proj",
            "mixer.in_proj",
            "mixer.out_proj",
            "mixer.fc1_latent_proj",
            "mixer.switch_mlp.fc1",
            "mixer.switch_mlp.fc2",
        ],
        "rank": 2,
        "trained_layers": 3,
    },
    "granitemoehybrid": {
        "config": {
            "model_type": "granitemoehybrid",
            **TINY,
            **THETA,
            **MULTIPLIERS,
            "attention_bias": False,
            "intermediate_size": 32,
            "layer_types": ["mamba", "attention"],
            "mamba_conv_bias": True,
            "mamba_d_conv": 4,
            "mamba_d_head": 8,
            "mamba_d_state": 16,
            "mamba_n_groups": 1,
            "mamba_n_heads": 4,
            "mamba_proj_bias": False,
            "num_experts_per_tok": 2,
            "num_local_experts": 4,
            "position_embedding_type": "nope",
            "shared_intermediate_size": 32,
            "tie_word_embeddings": True,
        },
        "bfloat16": {
            "intermediate_size": 16,
            "mamba_n_groups": 2,
            "num_local_experts": 5,
            "position_embedding_type": "rope",
            "shared_intermediate_size": 16,
        },
        # Without experts.
        "8bit": {
            "attention_bias": True,
            "intermediate_size": 64,
            "mamba_conv_bias": False,
            "mamba_d_conv": 3,
            "mamba_proj_bias": True,
            "mlp_bias": True,
            "num_experts_per_tok": 0,
            "num_local_experts": 0,
            "rope_theta": ABSENT,
            "rope_parameters": {"rope_theta": 300.0, "rope_type": "default"},
            "position_embedding_type": ABSENT,
            "tie_word_embeddings": False,
        },
        "6bit": {
            "hidden_size": 64,
            "layer_types": ["mamba"],
            "num_hidden_layers": 1,
            "time_step_limit": [0.4, 0.9],
        },
        "4bit-lora": {
            "hidden_size": 64,
            "layer_types": ["attention"],
            "num_experts_per_tok": 3,
            "num_hidden_layers": 1,
            "shared_intermediate_size": 64,
        },
        "prompts": {"bfloat16": 40},
        "stored": granite,
        "lora": [
            "self_attn.q_proj",
            "self_attn.o_proj",
            "block_sparse_moe.router.layer",
            "block_sparse_moe.switch_mlp.up_proj",
            "block_sparse_moe.switch_mlp.down_proj",
            "shared_mlp.input_linear",
        ],
        "rank": 2,
    },
    # mlx-lm packs what leaves a block in groups of 64 too, so that one layer has to do.
    "granitemoe": {
        "config": {
            "model_type": "granitemoe",
            **TINY,
            **THETA,
            **MULTIPLIERS,
            "attention_bias": False,
            "hidden_size": 64,
            "num_hidden_layers": 1,
            "num_experts_per_tok": 2,
            "num_local_experts": 3,
            "rope_scaling": None,
            "tie_word_embeddings": True,
        },
        "bfloat16": {
            "hidden_size": 32,
            "intermediate_size": 16,
            "num_hidden_layers": 2,
            "num_local_experts": 5,
            "tie_word_embeddings": False,
        },
        "8bit": {"num_experts_per_tok": 1, "num_local_experts": 2, "rope_scaling": LINEAR},
        "6bit": {"attention_bias": True, "rope_scaling": LLAMA3},
        "4bit-lora": {"tie_word_embeddings": False},
        "prompts": {"bfloat16": 40},
        "stored": granite,
        "lora": [
            "self_attn.q_proj",
            "block_sparse_moe.router.layer",
            "block_sparse_moe.switch_mlp.down_proj",
        ],
        "rank": 2,
    },
    "cohere": {
        "config": {
            "model_type": "cohere",
            **without(TINY, "rms_norm_eps"),
            **THETA,
            "attention_bias": False,
            "layer_norm_eps": 0.02,
            "logit_scale": 1.5,
            "use_qk_norm": False,
        },
        "bfloat16": {"use_qk_norm": True},
        "8bit": {"attention_bias": True, "layer_norm_bias": True},
        "6bit": {
            "hidden_size": 64,
            "intermediate_size": 32,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "use_qk_norm": True,
        },
        "4bit-lora": {"num_key_value_heads": 2, "use_qk_norm": ABSENT},
        "lora": DENSE,
    },
    "starcoder2": {
        "config": {
            "model_type": "starcoder2",
            **without(TINY, "rms_norm_eps"),
            **THETA,
            "norm_epsilon": 0.02,
            "sliding_window": 4096,
            "tie_word_embeddings": True,
            "use_bias": True,
        },
        "bfloat16": {},
        "8bit": {"tie_word_embeddings": False},
        "6bit": {
            "hidden_size": 64,
            "intermediate_size": 32,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "tie_word_embeddings": ABSENT,
        },
        "4bit-lora": {"num_key_value_heads": 2, "tie_word_embeddings": False},
        "lora": [*ATTENTION, "mlp.c_fc", "mlp.c_proj"],
    },
    "glm": {
        "config": {
            "model_type": "glm",
            **HEADS,
            **THETA,
            "attention_bias": True,
            "tie_word_embeddings": False,
        },
        "bfloat16": {},
        "8bit": {"tie_word_embeddings": True},
        "6bit": {"attention_bias": False, "head_dim": 32, "num_attention_heads": 2},
        "4bit-lora": {"attention_bias": ABSENT, "tie_word_embeddings": ABSENT},
        "lora": [*ATTENTION, "mlp.gate_up_proj", "mlp.down_proj"],
    },
    # The base grows once the text is longer than 16 tokens.
    "internlm3": {
        "config": {
            "model_type": "internlm3",
            **TINY,
            **THETA,
            "bias": False,
            "max_position_embeddings": 16,
            "qkv_bias": False,
            "rope_scaling": {"factor": 6.0, "rope_type": "dynamic"},
            "tie_word_embeddings": False,
        },
        "bfloat16": {},
        "8bit": {"bias": True, "rope_scaling": {"factor": 3.0, "rope_type": "linear"}},
        "6bit": {"qkv_bias": True, "rope_scaling": None, "rope_traditional": True},
        "4bit-lora": {"rope_traditional": True, "tie_word_embeddings": True},
        "lora": DENSE,
    },
    "ernie4_5": {
        "config": {
            "model_type": "ernie4_5",
            **HEADS,
            **THETA,
            "tie_word_embeddings": True,
            "use_bias": False,
        },
        "bfloat16": {},
        "8bit": {"tie_word_embeddings": False, "use_bias": True},
        "6bit": {"head_dim": None, "num_attention_heads": 2, "num_key_value_heads": 1},
        "4bit-lora": {"tie_word_embeddings": False, "num_key_value_heads": 4},
        "lora": DENSE,
    },
    # mlx-lm does without the correction bias that is published.
    "ernie4_5_moe": {
        "config": {
            "model_type": "ernie4_5_moe",
            **TINY,
            **THETA,
            "moe_capacity": [64, 64, 64],
            "moe_gate_act": "softmax",
            "moe_intermediate_size": 32,
            "moe_k": 2,
            "moe_layer_interval": 1,
            "moe_layer_start_index": 1,
            "moe_num_experts": 5,
            "moe_num_shared_experts": 1,
            "moe_use_aux_free": True,
            "tie_word_embeddings": True,
            "use_bias": False,
        },
        "bfloat16": {
            "intermediate_size": 32,
            "moe_intermediate_size": 16,
            "moe_layer_start_index": 0,
        },
        "8bit": {
            "head_dim": 32,
            "moe_gate_act": "sigmoid",
            "moe_k": 3,
            "moe_layer_end_index": 0,
            "moe_layer_start_index": ABSENT,
            "moe_num_experts": 4,
            "use_bias": True,
        },
        "6bit": {
            "moe_layer_end_index": [1, 1],
            "moe_layer_start_index": [1, 1],
            "moe_num_shared_experts": 0,
            "tie_word_embeddings": False,
        },
        "4bit-lora": {
            "intermediate_size": 32,
            "moe_intermediate_size": ABSENT,
            "moe_layer_interval": 2,
            "moe_layer_start_index": ABSENT,
            "moe_num_shared_experts": 2,
        },
        "prompts": {"bfloat16": 40},
        "stored": also(
            separated,
            "model.layers.1.mlp.moe_statics.e_score_correction_bias",
            "model.mtp_block.0.mlp.up_proj.weight",
        ),
        "lora": EXPERTS,
        "rank": 2,
    },
    "dots1": {
        "config": {
            "model_type": "dots1",
            **TINY,
            **THETA,
            "attention_bias": False,
            "first_k_dense_replace": 1,
            "moe_intermediate_size": 32,
            "n_group": 1,
            "n_routed_experts": 5,
            "n_shared_experts": 1,
            "norm_topk_prob": True,
            "num_experts_per_tok": 2,
            "rope_scaling": None,
            "routed_scaling_factor": 1.7,
            "scoring_func": "noaux_tc",
            "tie_word_embeddings": False,
            "topk_group": 1,
        },
        "bfloat16": {"moe_intermediate_size": 16, "n_shared_experts": 2, "norm_topk_prob": False},
        "8bit": {"mlp_bias": True, "n_group": 2, "n_routed_experts": 6, "rope_scaling": YARN},
        "6bit": {"first_k_dense_replace": 0, "tie_word_embeddings": True},
        "4bit-lora": {"head_dim": 32, "n_group": 3, "n_routed_experts": 6, "topk_group": 2},
        "prompts": {"bfloat16": 40},
        "stored": dots1,
        "lora": [
            "self_attn.q_proj",
            "mlp.gate_proj",
            "mlp.experts.up_proj",
            "mlp.experts.down_proj",
            "mlp.shared_experts.down_proj",
        ],
        "rank": 2,
    },
    "kimi_vl": {
        "config": {
            "model_type": "kimi_vl",
            "text_config": {
                "model_type": "deepseek_v3",
                **TINY,
                **THETA,
                **MLA,
                "num_key_value_heads": 2,
                "attention_bias": False,
                "first_k_dense_replace": 1,
                "moe_intermediate_size": 32,
                "moe_layer_freq": 1,
                "n_group": 1,
                "n_routed_experts": 5,
                "n_shared_experts": 2,
                "norm_topk_prob": True,
                "num_experts_per_tok": 2,
                "q_lora_rank": None,
                "rope_scaling": None,
                "routed_scaling_factor": 2.4,
                "scoring_func": "sigmoid",
                "tie_word_embeddings": False,
                "topk_group": 1,
                "topk_method": "noaux_tc",
            },
            "vision_config": {"model_type": "moonvit", "hidden_size": 4},
            "vocab_size": VOCAB,
        },
        "bfloat16": {
            "text_config": {
                "intermediate_size": 32,
                "kv_lora_rank": 16,
                "moe_intermediate_size": 16,
                "n_shared_experts": 1,
                "norm_topk_prob": False,
                "qk_nope_head_dim": 16,
            },
        },
        "8bit": {
            "text_config": {
                "attention_bias": True,
                "intermediate_size": 32,
                "n_routed_experts": 3,
            },
        },
        "6bit": {"text_config": {"q_lora_rank": 32, "rope_scaling": DEEPSEEK_YARN}},
        "4bit-lora": {
            "text_config": {
                "n_group": 2,
                "n_routed_experts": 6,
                "n_shared_experts": None,
                "num_experts_per_tok": 3,
            },
        },
        "prompts": {"bfloat16": 40},
        "stored": also(separated, "vision_tower.x.weight", "multi_modal_projector.x.weight"),
        "lora": ["self_attn.q_proj", *LATENT[2:-1]],
        "rank": 2,
    },
    "nemotron": {
        "config": {
            "model_type": "nemotron",
            **without(HEADS, "rms_norm_eps"),
            **THETA,
            "attention_bias": False,
            "hidden_act": "relu2",
            "mlp_bias": False,
            "norm_eps": 0.02,
            "partial_rotary_factor": 0.25,
            "tie_word_embeddings": False,
        },
        "bfloat16": {},
        "8bit": {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True},
        "6bit": {
            "head_dim": ABSENT,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "partial_rotary_factor": 0.75,
        },
        "4bit-lora": {
            "partial_rotary_factor": ABSENT,
            "rope_scaling": {"type": "linear", "factor": 3.0},
        },
        "lora": DENSE,
    },
    "gemma": {
        "config": {"model_type": "gemma", **HEADS, **THETA},
        "bfloat16": {},
        "8bit": {"num_attention_heads": 2},
        "6bit": {"rope_traditional": True},
        "4bit-lora": {"head_dim": 32, "num_attention_heads": 3, "num_key_value_heads": 1},
        "special": LOUD_OUTPUTS,
        "lora": DENSE,
    },
    "bailing_moe": {
        "config": {
            "model_type": "bailing_moe",
            **TINY,
            **WIDE,
            **THETA,
            "num_attention_heads": 4,
            "first_k_dense_replace": 1,
            "moe_intermediate_size": 32,
            "norm_head": False,
            "norm_softmax": False,
            "norm_topk_prob": True,
            "num_experts": 3,
            "num_experts_per_tok": 2,
            "num_shared_experts": 1,
            "rope_scaling": None,
            "tie_word_embeddings": True,
            "use_bias": False,
            "use_qkv_bias": False,
        },
        # The head is of unit columns, once it is read.
        "bfloat16": {
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_attention_heads": 2,
            "moe_intermediate_size": 16,
            "norm_topk_prob": False,
            "num_experts": 5,
            "num_shared_experts": 2,
            "tie_word_embeddings": False,
            "use_qkv_bias": True,
        },
        "8bit": {
            "moe_router_enable_shared_expert": False,
            "partial_rotary_factor": 0.5,
            "routed_scaling_factor": 1.7,
            "use_qk_norm": True,
        },
        "6bit": {
            "moe_router_enable_expert_bias": True,
            "n_group": 2,
            "num_experts": 4,
            "num_shared_experts": 0,
            "rotary_dim": 8,
            "score_function": "sigmoid",
            "topk_group": 1,
            "use_bias": True,
        },
        "4bit-lora": {
            "moe_router_enable_expert_bias": True,
            "moe_shared_expert_intermediate_size": 64,
            "rope_scaling": LINEAR,
        },
        "prompts": {"bfloat16": 40},
        "stored": bailing_moe,
        "lora": [
            "attention.query_key_value",
            "attention.dense",
            "mlp.gate.gate_proj",
            "mlp.switch_mlp.down_proj",
            "mlp.shared_experts.up_proj",
        ],
        "rank": 2,
        "trained_layers": 1,
    },
    "granite": {
        "config": {
            "model_type": "granite",
            **TINY,
            **WIDE,
            **THETA,
            **MULTIPLIERS,
            "intermediate_size": 64,
            "num_hidden_layers": 1,
            "attention_bias": False,
            "mlp_bias": False,
            "rope_scaling": None,
            "tie_word_embeddings": True,
        },
        "bfloat16": {"rope_scaling": LLAMA3},
        "8bit": {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": False},
        "6bit": {"rope_scaling": LINEAR},
        "4bit-lora": {"tie_word_embeddings": ABSENT},
        "lora": DENSE,
    },
    # mlx-lm cannot run a quantized embedding as a head here.
    "seed_oss": {
        "config": {
            "model_type": "seed_oss",
            **HEADS,
            **THETA,
            "attention_bias": True,
            "attention_out_bias": False,
            "mlp_bias": False,
            "tie_word_embeddings": False,
        },
        "bfloat16": {"rope_scaling": LLAMA3, "tie_word_embeddings": ABSENT},
        "8bit": {"attention_out_bias": True, "mlp_bias": True},
        "6bit": {"attention_bias": False, "rope_scaling": LINEAR, "rope_traditional": True},
        "4bit-lora": {"head_dim": 8},
        "lora": DENSE,
    },
    # Some layers have no positions.
    "smollm3": {
        "config": {
            "model_type": "smollm3",
            **TINY,
            **THETA,
            "no_rope_layer_interval": 2,
            "tie_word_embeddings": True,
        },
        "bfloat16": {"num_hidden_layers": 4, "no_rope_layer_interval": ABSENT},
        "8bit": {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": False},
        "6bit": {"no_rope_layers": [0, 1], "rope_scaling": LLAMA3},
        "4bit-lora": {"no_rope_layers": [1, 0], "rope_traditional": True},
        "lora": DENSE,
    },
    # Where there is a pattern, the layers without a window have no positions.
    "exaone4": {
        "config": {
            "model_type": "exaone4",
            **HEADS,
            **THETA,
            "rope_scaling": None,
            "sliding_window": 8,
            "sliding_window_pattern": "LG",
            "tie_word_embeddings": False,
        },
        # The base grows once the text is longer than 16 tokens, which it gets while decoding.
        "bfloat16": {
            "max_position_embeddings": 16,
            "rope_scaling": {"rope_type": "dynamic", "factor": 2.0},
        },
        "8bit": {
            "rope_scaling": LLAMA3,
            "sliding_window": None,
            "sliding_window_pattern": None,
            "tie_word_embeddings": True,
        },
        "6bit": {
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "rope_scaling": LINEAR,
            "sliding_window": 16,
            "sliding_window_pattern": "GL",
        },
        # The pattern comes round again. The last two keys are not read.
        "4bit-lora": {
            "num_hidden_layers": 4,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "sliding_window_pattern": "LLG",
            "rope_traditional": True,
            "partial_rotary_factor": 0.5,
        },
        "prompts": {"6bit": 21, "4bit-lora": 21},
        "lora": DENSE,
    },
}


def merged(config, changes):
    """A config with the changes, and with those inside of its `text_config`."""
    new = {**config, **changes}
    if isinstance(text := changes.get("text_config"), dict):
        new["text_config"] = merged(config["text_config"], text)
    return {key: value for key, value in new.items() if value is not ABSENT}


def case_of(family, variant):
    """What `models.py` is to make."""
    case = {
        "config": merged(family["config"], family[variant]),
        "dtype": mx.bfloat16,
        "bits": VARIANTS[variant],
        "special": {**SPECIAL, **family.get("special", {})},
        "prompt": family.get("prompts", {}).get(variant, 12),
        "untied": variant in family.get("untied", []),
    }
    if variant == "bfloat16" and "stored" in family:
        case["stored"] = family["stored"]
    if variant == "4bit-lora":
        case["adapter"] = {
            "fine_tune_type": "lora",
            "num_layers": family.get("trained_layers", 2),
            "lora_parameters": {
                "rank": family.get("rank", 3),
                "scale": 2.0,
                "dropout": 0.0,
                "keys": family["lora"],
            },
        }
    return case


def nudged(weight):
    if not mx.issubdtype(weight.dtype, mx.floating):
        return weight
    return weight * (1 + 1e-5 * mx.random.normal(weight.shape))


def check(folder, with_adapter):
    """A cache changes no logits, and rounding no expert. The text is not one token repeated."""
    model = loaded(folder, with_adapter)
    answers = mx.load(str(folder / "expected.safetensors"))
    prompt, logits, tokens = answers["prompt"], answers["logits"], answers["tokens"]
    limit = 2e-5 * max(1.0, mx.abs(logits).max().item())
    for step in (len(prompt), 1):
        cache = make_prompt_cache(model)
        parts = [
            model(prompt[None, start : start + step], cache=cache)[0]
            for start in range(0, len(prompt), step)
        ]
        distance = mx.abs(mx.concatenate(parts) - logits).max().item()
        if distance > limit:
            raise ValueError(f"{folder.name}: steps of {step} change the logits by {distance}")
    if len(set(tokens.tolist())) < 3:
        raise Tie
    text = mx.concatenate([prompt, tokens])[None]
    before = model(text)
    mx.random.seed(0)
    model.update(tree_map(nudged, model.parameters()))
    if mx.abs(model(text) - before).max().item() > 1e-2:
        raise Tie


def is_made(folder, case, seed):
    try:
        make(folder, case, seed)
        check(folder, "adapter" in case)
    except Tie:
        return False
    return True


def main():
    mx.set_default_device(mx.cpu)
    mx.gather_qmm = models.gather_qmm
    for name in sys.argv[1:] or FAMILIES:
        for variant in VARIANTS:
            folder = ROOT / f"{name}-{variant}"
            case = case_of(FAMILIES[name], variant)
            seed = zlib.crc32(folder.name.encode())
            if not any(is_made(folder, case, seed + retry) for retry in range(100)):
                raise SystemExit(f"{folder.name}: a hundred seeds have ties")


if __name__ == "__main__":
    main()
