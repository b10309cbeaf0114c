#!/usr/bin/env python3
"""Writes models for the benchmarks: Qwen2's shapes, sharded as the Hugging Face hub has them, with random weights.

The same arguments give the same bytes. Needs nothing but Python. Small is Qwen2 0.5B, 1 GB in 16 bits; medium has a quarter
of its layers and a fifth of its vocabulary; large has twice its width and is 4 times as big.

    python3 bench/model.py FOLDER [--size tiny|medium|small|large] [--dtype float16|bfloat16]
"""

import argparse
import json
import math
import random
import struct
from pathlib import Path

SIZES = {
    "tiny": {
        "hidden_size": 128,
        "intermediate_size": 512,
        "num_hidden_layers": 4,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "vocab_size": 8192,
    },
    "medium": {
        "hidden_size": 896,
        "intermediate_size": 4864,
        "num_hidden_layers": 6,
        "num_attention_heads": 14,
        "num_key_value_heads": 2,
        "vocab_size": 32768,
    },
    "small": {
        "hidden_size": 896,
        "intermediate_size": 4864,
        "num_hidden_layers": 24,
        "num_attention_heads": 14,
        "num_key_value_heads": 2,
        "vocab_size": 151936,
    },
    "large": {
        "hidden_size": 1792,
        "intermediate_size": 9728,
        "num_hidden_layers": 28,
        "num_attention_heads": 28,
        "num_key_value_heads": 4,
        "vocab_size": 151936,
    },
}

# Qwen3-30B-A3B with two of its 48 layers and a ninth of its vocabulary; the same with half the experts and six layers, of
# which 8 bits are 2 GB; and the same for a trial.
EXPERTS = {
    "experts": {
        "hidden_size": 2048,
        "moe_intermediate_size": 768,
        "num_experts": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 32,
        "num_key_value_heads": 4,
        "head_dim": 128,
        "vocab_size": 16384,
    },
    "experts to load": {
        "hidden_size": 2048,
        "moe_intermediate_size": 768,
        "num_experts": 64,
        "num_hidden_layers": 6,
        "num_attention_heads": 32,
        "num_key_value_heads": 4,
        "head_dim": 128,
        "vocab_size": 16384,
    },
    "tiny experts": {
        "hidden_size": 128,
        "moe_intermediate_size": 64,
        "num_experts": 8,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 64,
        "vocab_size": 1024,
    },
}

# How a checkpoint stores experts, with the type of model that has them so: one tensor each; all of a layer in two
# tensors; the same with each matrix transposed.
LAYOUTS = {"one by one": "qwen3_moe", "in one tensor": "qwen3_5_moe", "in one tensor, transposed": "qwen3_vl_moe"}

# By type: its name in safetensors, and which bits of a weight are random and which are set. Sign, fraction and two bits
# of the exponent are random: a weight lies between 2^-7 and 2^-3.
DTYPES = {"float16": ("F16", 0x8FFF, 0x2000), "bfloat16": ("BF16", 0x81FF, 0x3C00)}

RANK = 8
BLOCK_BYTES = 8 << 20
SHARD_BYTES = 600 << 20


def shapes(size):
    """Yields the name and the shape of every tensor, embeddings tied."""
    hidden, inner = size["hidden_size"], size["intermediate_size"]
    keys = hidden // size["num_attention_heads"] * size["num_key_value_heads"]
    yield "model.embed_tokens.weight", [size["vocab_size"], hidden]
    for layer in range(size["num_hidden_layers"]):
        prefix = f"model.layers.{layer}."
        for name, rows in ("q_proj", hidden), ("k_proj", keys), ("v_proj", keys):
            yield f"{prefix}self_attn.{name}.weight", [rows, hidden]
            yield f"{prefix}self_attn.{name}.bias", [rows]
        yield f"{prefix}self_attn.o_proj.weight", [hidden, hidden]
        yield f"{prefix}mlp.gate_proj.weight", [inner, hidden]
        yield f"{prefix}mlp.up_proj.weight", [inner, hidden]
        yield f"{prefix}mlp.down_proj.weight", [hidden, inner]
        yield f"{prefix}input_layernorm.weight", [hidden]
        yield f"{prefix}post_attention_layernorm.weight", [hidden]
    yield "model.norm.weight", [hidden]


def expert_shapes(size, layout):
    """Yields the name and the shape of every tensor of a mixture of experts."""
    hidden, inner, experts = size["hidden_size"], size["moe_intermediate_size"], size["num_experts"]
    queries, keys = (size["head_dim"] * size[f"num_{heads}_heads"] for heads in ("attention", "key_value"))
    root = "model." if layout == "one by one" else "model.language_model."
    yield f"{root}embed_tokens.weight", [size["vocab_size"], hidden]
    yield "lm_head.weight", [size["vocab_size"], hidden]
    for layer in range(size["num_hidden_layers"]):
        prefix = f"{root}layers.{layer}."
        for name, rows in ("q_proj", queries), ("k_proj", keys), ("v_proj", keys):
            yield f"{prefix}self_attn.{name}.weight", [rows, hidden]
        yield f"{prefix}self_attn.o_proj.weight", [hidden, queries]
        yield from ((f"{prefix}self_attn.{name}_norm.weight", [size["head_dim"]]) for name in "qk")
        yield f"{prefix}mlp.gate.weight", [experts, hidden]
        if layout == "one by one":
            for expert in range(experts):
                for name, shape in ("gate", [inner, hidden]), ("up", [inner, hidden]), ("down", [hidden, inner]):
                    yield f"{prefix}mlp.experts.{expert}.{name}_proj.weight", shape
        else:
            step = -1 if layout.endswith("transposed") else 1
            yield f"{prefix}mlp.experts.gate_up_proj", [experts, *[2 * inner, hidden][::step]]
            yield f"{prefix}mlp.experts.down_proj", [experts, *[hidden, inner][::step]]
        for name in "input_layernorm", "post_attention_layernorm":
            yield f"{prefix}{name}.weight", [hidden]
    yield f"{root}norm.weight", [hidden]


def count(shape):
    return math.prod(shape)


def largest_tensor(size):
    """Returns the bytes of the largest tensor in 16 bits."""
    return max(2 * count(shape) for _, shape in shapes(SIZES[size]))


def shards(tensors):
    """Yields lists of tensors that fill a shard."""
    shard, filled = [], 0
    for name, shape in tensors:
        if shard and filled + 2 * count(shape) > SHARD_BYTES:
            yield shard
            shard, filled = [], 0
        shard.append((name, shape))
        filled += 2 * count(shape)
    yield shard


def write_random(file, length, generator, dtype):
    """Writes `length` bytes of random weights."""
    _, free, fixed = DTYPES[dtype]
    while length > 0:
        block = min(length, BLOCK_BYTES)
        free_bits = int.from_bytes(struct.pack("<H", free) * (block // 2), "little")
        fixed_bits = int.from_bytes(struct.pack("<H", fixed) * (block // 2), "little")
        bits = generator.getrandbits(8 * block) & free_bits | fixed_bits
        file.write(bits.to_bytes(block, "little"))
        length -= block


def write_tensors(path, tensors, element, write, width):
    """Writes a safetensors file whose data `write(file, length)` makes; `width` are the bytes of a weight."""
    header, end = {}, 0
    for name, shape in tensors:
        start, end = end, end + width * count(shape)
        header[name] = {"dtype": element, "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name, shape in tensors:
            write(file, width * count(shape))


def write_json(path, value):
    path.write_text(json.dumps(value, indent=2) + "\n")


def write_model(folder, size="small", dtype="float16"):
    """Writes a model that mlx-lm loads: weights, their index, configuration, and a tokenizer of one word."""
    config = {"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "tie_word_embeddings": True}
    write_folder(folder, list(shapes(SIZES[size])), SIZES[size] | config, size, dtype)


def write_experts(folder, size="experts", layout="one by one", dtype="float16"):
    """Writes a mixture of experts as the Hugging Face hub has it."""
    size = EXPERTS[size]
    router = {"num_experts_per_tok": 8, "norm_topk_prob": True, "decoder_sparse_step": 1, "mlp_only_layers": []}
    text = size | router | {"tie_word_embeddings": False, "intermediate_size": size["moe_intermediate_size"]}
    kind = LAYOUTS[layout]
    own = text if layout == "one by one" else {"text_config": text | {"model_type": f"{kind}_text"}}
    write_folder(folder, list(expert_shapes(size, layout)), own | {"model_type": kind}, "experts", dtype)


def write_folder(folder, tensors, own, seed, dtype):
    folder.mkdir(parents=True)
    generator = random.Random(seed)
    parts = list(shards(tensors))
    weight_map = {}
    for number, part in enumerate(parts, 1):
        file = f"model-{number:05}-of-{len(parts):05}.safetensors"
        write_tensors(
            folder / file, part, DTYPES[dtype][0], lambda out, length: write_random(out, length, generator, dtype), 2
        )
        weight_map |= {name: file for name, _ in part}
    total = sum(2 * count(shape) for _, shape in tensors)
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    write_json(folder / "model.safetensors.index.json", index)
    config = {"max_position_embeddings": 512, "rms_norm_eps": 1e-6, "rope_theta": 10000.0, "torch_dtype": dtype}
    write_json(folder / "config.json", config | own)
    words = {"type": "WordLevel", "vocab": {"<unk>": 0}, "unk_token": "<unk>"}
    write_json(folder / "tokenizer.json", {"version": "1.0", "added_tokens": [], "model": words})
    write_json(folder / "tokenizer_config.json", {"tokenizer_class": "PreTrainedTokenizerFast"})


def write_adapter(folder, size="small", seed="adapter"):
    """Writes a LoRA adapter of rank 8 for two projections of every layer, as mlx-lm's training leaves it."""
    folder.mkdir(parents=True)
    layers = SIZES[size]["num_hidden_layers"]
    keys = ["self_attn.q_proj", "self_attn.v_proj"]
    parameters = {"rank": RANK, "scale": 20.0, "dropout": 0.0, "keys": keys}
    config = {"fine_tune_type": "lora", "num_layers": layers, "lora_parameters": parameters}
    write_json(folder / "adapter_config.json", config)
    tensors = []
    for name, shape in shapes(SIZES[size]):
        module = name.removesuffix(".weight")
        if module.endswith(tuple(keys)):
            tensors += [(f"{module}.lora_a", [shape[1], RANK]), (f"{module}.lora_b", [RANK, shape[0]])]
    generator = random.Random(seed)

    def write(file, length):
        numbers = [generator.uniform(-0.02, 0.02) for _ in range(length // 4)]
        file.write(struct.pack(f"<{len(numbers)}f", *numbers))

    write_tensors(folder / "adapters.safetensors", tensors, "F32", write, 4)


def main():
    parser = argparse.ArgumentParser(description="Writes a model for the benchmarks.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--size", choices=SIZES, default="small")
    parser.add_argument("--dtype", choices=DTYPES, default="float16")
    arguments = parser.parse_args()
    write_model(arguments.folder, arguments.size, arguments.dtype)


if __name__ == "__main__":
    main()
