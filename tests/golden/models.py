"""Make the models of `tests/golden/models/`: small, random, and answered by mlx-lm.

Each folder is a model that mlx-lm loads, some with an adapter, and `expected.safetensors`: the
prompt's token ids, the float32 logits of every position, and 32 greedily decoded tokens, all
computed by mlx-lm on the CPU with float32 activations. The same seed gives the same weights.

    pip install "mlx[cpu]==0.32.2" mlx-lm==0.32.2
    python tests/golden/models.py
"""

import json
import shutil
from pathlib import Path

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_flatten, tree_unflatten
from mlx_lm.generate import generate_step
from mlx_lm.models import llama, qwen2
from mlx_lm.tuner.utils import load_adapters
from mlx_lm.utils import load_model
from safetensors.numpy import save_file

ROOT = Path(__file__).parent / "models"
GREEDY_TOKENS = 32
VOCAB = 96

SIZES = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-6,
    "vocab_size": VOCAB,
}
QWEN2 = {"model_type": "qwen2", "rope_theta": 10000.0, **SIZES}
LLAMA = {"model_type": "llama", "rope_theta": 500000.0, **SIZES}
LLAMA3_ROPE = {
    "type": "llama3",
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
LORA = {
    "fine_tune_type": "lora",
    "num_layers": 2,
    "lora_parameters": {
        "rank": 4,
        "scale": 2.0,
        "dropout": 0.0,
        "keys": ["self_attn.q_proj", "self_attn.o_proj", "mlp.down_proj"],
    },
}

DORA = {
    "fine_tune_type": "dora",
    "num_layers": 1,
    "lora_parameters": {
        "rank": 4,
        "scale": 2.0,
        "dropout": 0.0,
        "keys": ["self_attn.q_proj", "self_attn.o_proj", "mlp.down_proj", "model.embed_tokens"],
    },
}
EMBEDDING = {
    "fine_tune_type": "lora",
    "num_layers": 2,
    "lora_parameters": {
        "rank": 4,
        "scale": 2.0,
        "dropout": 0.0,
        "keys": ["self_attn.v_proj", "model.embed_tokens"],
    },
}

# The prompt of `qwen2-float32` is longer than one step (256 tokens) of the key/value cache.
CASES = {
    "qwen2-float32": {
        "config": {**QWEN2, "tie_word_embeddings": True},
        "prompt": 300,
    },
    "qwen2-4bit": {
        "config": {
            **QWEN2,
            "tie_word_embeddings": False,
            "quantization": {
                "group_size": 32,
                "bits": 4,
                "lm_head": {"group_size": 64, "bits": 8},
                "model.layers.0.mlp.down_proj": False,
            },
        },
        "dtype": mx.float16,
    },
    "qwen2-4bit-lora": {
        "config": {
            **QWEN2,
            "tie_word_embeddings": True,
            "quantization": {"group_size": 64, "bits": 4},
        },
        "dtype": mx.float16,
        "adapter": LORA,
    },
    "llama-float16": {
        "config": {
            **LLAMA,
            "tie_word_embeddings": False,
            "head_dim": 32,
            "attention_bias": True,
            "mlp_bias": True,
            "rope_scaling": LLAMA3_ROPE,
        },
        "dtype": mx.float16,
        "shards": 2,
    },
    "llama-8bit": {
        "config": {
            **LLAMA,
            "tie_word_embeddings": True,
            "rope_traditional": True,
            "rope_scaling": {"rope_type": "linear", "factor": 4.0},
            "quantization": {"group_size": 64, "bits": 8},
        },
        "dtype": mx.float16,
    },
    # DoRA of a float model, its tied embedding included: mlx-lm has no DoRA of a quantized embedding.
    "qwen2-float16-dora": {
        "config": {**QWEN2, "tie_word_embeddings": True},
        "dtype": mx.float16,
        "adapter": DORA,
    },
    "qwen2-4bit-lora-embedding": {
        "config": {
            **QWEN2,
            "tie_word_embeddings": True,
            "quantization": {"group_size": 64, "bits": 4},
        },
        "dtype": mx.float16,
        "adapter": EMBEDDING,
    },
}


def random_weight(rng, name, shape):
    """Norms near one, the rest scaled so that activations keep their size."""
    values = rng.standard_normal(shape)
    if "norm" in name:
        return 1 + 0.1 * values
    if len(shape) == 1 or "embed_tokens" in name:
        return 0.5 * values
    return values / np.sqrt(shape[-1])


def random_model(rng, config, dtype):
    module = {"qwen2": qwen2, "llama": llama}[config["model_type"]]
    model = module.Model(module.ModelArgs.from_dict(config))
    weights = [
        (name, mx.array(random_weight(rng, name, old.shape)).astype(dtype))
        for name, old in tree_flatten(model.parameters())
    ]
    model.update(tree_unflatten(weights))
    if quantization := config.get("quantization"):
        nn.quantize(
            model,
            group_size=quantization["group_size"],
            bits=quantization["bits"],
            class_predicate=lambda path, m: hasattr(m, "to_quantized")
            and quantization.get(path, True),
        )
    return model


def save_weights(folder, model, shards):
    weights = {name: np.array(value) for name, value in tree_flatten(model.parameters())}
    if shards == 1:
        save_file(weights, folder / "model.safetensors", {"format": "mlx"})
        return
    weight_map = {}
    for i in range(shards):
        file = f"model-{i + 1:05}-of-{shards:05}.safetensors"
        names = sorted(weights)[i::shards]
        save_file({name: weights[name] for name in names}, folder / file, {"format": "mlx"})
        weight_map.update(dict.fromkeys(names, file))
    save_json(folder / "model.safetensors.index.json", {"weight_map": weight_map})


def trained_keys(model, adapter):
    """The ends of the paths of the modules that mlx-lm would train."""
    first = len(model.layers) - adapter["num_layers"]
    for key in adapter["lora_parameters"]["keys"]:
        if key.startswith("model."):
            yield key
        else:
            yield from (f"layers.{i}.{key}" for i in range(first, len(model.layers)))


def dense(module):
    """The weight of a linear or an embedding."""
    if "scales" not in module:
        return module.weight
    return mx.dequantize(
        module.weight, module.scales, module.biases, module.group_size, module.bits
    )


def save_adapter(folder, rng, model, adapter):
    folder.mkdir()
    save_json(folder / "adapter_config.json", adapter)
    rank = adapter["lora_parameters"]["rank"]
    tensors = {}
    for path, module in model.named_modules():
        if any(path.endswith(key) for key in trained_keys(model, adapter)):
            weight = dense(module)
            output, input = weight.shape
            if isinstance(module, (nn.Embedding, nn.QuantizedEmbedding)):
                output, input = input, output
            shapes = {"lora_a": (input, rank), "lora_b": (rank, output)}
            for name, shape in shapes.items():
                values = rng.standard_normal(shape) / np.sqrt(shape[0])
                tensors[f"{path}.{name}"] = values.astype(np.float32)
            if adapter["fine_tune_type"] == "dora":
                norms = np.linalg.norm(np.array(weight.astype(mx.float32)), axis=1)
                drift = 1 + 0.2 * rng.standard_normal(norms.shape)
                tensors[f"{path}.m"] = (norms * drift).astype(np.float32)
    save_file(tensors, folder / "adapters.safetensors", {"format": "mlx"})


def save_json(path, value):
    path.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n")


def expected(folder, rng, prompt_tokens, with_adapter):
    """What mlx-lm computes from the files, with float32 activations."""
    model, _ = load_model(folder)
    if with_adapter:
        model = load_adapters(model, folder / "adapter")
    model.set_dtype(mx.float32)
    prompt = mx.array(rng.integers(0, VOCAB, prompt_tokens).astype(np.uint32))
    logits = model(prompt[None])[0]
    steps = list(generate_step(prompt, model, max_tokens=GREEDY_TOKENS))
    for _, logprobs in steps:
        second, first = np.sort(np.array(logprobs))[-2:]
        assert first - second > 2e-3, f"{folder.name}: a tie, choose another seed"
    tokens = np.array([int(token) for token, _ in steps], dtype=np.uint32)
    return {"prompt": np.array(prompt), "logits": np.array(logits), "tokens": tokens}


def main():
    mx.set_default_device(mx.cpu)
    for seed, (name, case) in enumerate(CASES.items()):
        rng = np.random.default_rng(seed)
        folder = ROOT / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        model = random_model(rng, case["config"], case.get("dtype", mx.float32))
        save_json(folder / "config.json", case["config"])
        save_weights(folder, model, case.get("shards", 1))
        if adapter := case.get("adapter"):
            save_adapter(folder / "adapter", rng, model, adapter)
        tensors = expected(folder, rng, case.get("prompt", 12), "adapter" in case)
        save_file(tensors, folder / "expected.safetensors")


if __name__ == "__main__":
    main()
