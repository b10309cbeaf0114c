"""Writes small models and adapters, and what mlx-lm itself makes of them: what `tests/mlx_lm/main.rs` compares with.

    .mlx-lm/bin/python tests/mlx_lm/reference.py FOLDER < CASES

CASES is a JSON list of {"name", "model", "adapter", "node"}: a model and perhaps an adapter of this file by name, and
a node as pipeline.yaml has it, without `model` and `adapter`. Into FOLDER go

    models/MODEL      a model folder, as the Hugging Face hub has it or as mlx-lm converts it
    adapters/ADAPTER  an adapter folder, as mlx-lm's training leaves it
    expected/NAME     mlx-lm's own output: `mlx_lm.convert` for a quantize node, `mlx_lm.fuse` for a fuse node

Everything is random, and the same on every run.
"""

import argparse
import contextlib
import io
import json
import sys
import types
import zlib
from pathlib import Path
from unittest import mock

import mlx.core as mx
import yaml
from mlx.utils import tree_flatten
from mlx_lm import fuse
from mlx_lm.convert import convert
from mlx_lm.models import llama, mixtral, qwen2, qwen3_moe
from mlx_lm.utils import load_model

ARCHITECTURES = {"llama": llama, "qwen2": qwen2, "qwen3_moe": qwen3_moe, "mixtral": mixtral}
VOCABULARY = 256

LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": VOCABULARY,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "tie_word_embeddings": False,
}
QWEN2 = LLAMA | {"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "tie_word_embeddings": True}
QWEN3_MOE = LLAMA | {
    "architectures": ["Qwen3MoeForCausalLM"],
    "model_type": "qwen3_moe",
    "num_hidden_layers": 3,
    "head_dim": 32,
    "max_position_embeddings": 512,
    "moe_intermediate_size": 64,
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "decoder_sparse_step": 1,
    "mlp_only_layers": [1],
    "norm_topk_prob": True,
}
MIXTRAL = LLAMA | {
    "architectures": ["MixtralForCausalLM"],
    "model_type": "mixtral",
    "num_local_experts": 4,
    "num_experts_per_tok": 2,
}

# Not quantized. `type` is of the tensors, `torch_dtype` of the config: mlx-lm casts to the latter. `extra` are tensors
# that mlx-lm drops while it loads.
PLAIN = {
    "llama-float16": {
        "config": LLAMA | {"torch_dtype": "float16", "attention_bias": True, "_name_or_path": "somewhere"}
    },
    "llama-leftovers": {
        "config": LLAMA | {"torch_dtype": "float16"},
        "extra": {"model.layers.0.self_attn.rotary_emb.inv_freq": (16,)},
    },
    "llama-float32": {"config": LLAMA | {"torch_dtype": "float32"}},
    "llama-cast": {"config": LLAMA | {"torch_dtype": "bfloat16"}, "type": "float32"},
    # Rows of 192 weights, which 128 does not divide.
    "llama-192": {"config": LLAMA | {"torch_dtype": "float16", "hidden_size": 192, "num_attention_heads": 6}},
    "llama-16-layers": {
        "config": LLAMA | {"torch_dtype": "float16", "num_hidden_layers": 16, "intermediate_size": 128}
    },
    "llama-bfloat16": {"config": LLAMA | {"torch_dtype": "bfloat16"}},
    "qwen2-shards": {
        "config": QWEN2 | {"torch_dtype": "bfloat16"},
        "shards": 3,
        "extra": {"lm_head.weight": (VOCABULARY, 128)},
    },
    "qwen2-float16": {"config": QWEN2 | {"torch_dtype": "float16"}},
    "qwen3-moe": {"config": QWEN3_MOE | {"torch_dtype": "bfloat16"}, "shards": 2},
    "mixtral": {"config": MIXTRAL | {"torch_dtype": "float16"}},
}


def overrides(path, _):
    """Packs some modules in another way than the rest."""
    special = {
        "model.embed_tokens": {"group_size": 32, "bits": 8, "mode": "affine"},
        "model.layers.0.mlp.up_proj": {"group_size": 128, "bits": 3, "mode": "affine"},
        "model.layers.1.mlp.down_proj": False,
    }
    return special.get(path, True)


# Made by mlx-lm from a plain one.
CONVERTED = {
    "qwen2-4bit": ("qwen2-float16", {"quantize": True, "q_bits": 4, "q_group_size": 64}),
    "qwen2-overrides": (
        "qwen2-float16",
        {"quantize": True, "q_bits": 4, "q_group_size": 64, "quant_predicate": overrides},
    ),
    "llama-mxfp4": ("llama-bfloat16", {"quantize": True, "q_mode": "mxfp4"}),
    "llama-mxfp8": ("llama-bfloat16", {"quantize": True, "q_mode": "mxfp8"}),
    "llama-nvfp4": ("llama-bfloat16", {"quantize": True, "q_mode": "nvfp4"}),
    "qwen3-moe-stacked": ("qwen3-moe", {}),
    "qwen3-moe-4bit": ("qwen3-moe", {"quantize": True, "q_bits": 4, "q_group_size": 64}),
}

ATTENTION = ["self_attn.q_proj", "self_attn.v_proj"]
LINEAR = [*ATTENTION, "self_attn.k_proj", "self_attn.o_proj", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"]
EXPERTS = [f"mlp.switch_mlp.{name}" for name in ("gate_proj", "up_proj", "down_proj")]

# With the model whose modules they update.
ADAPTERS = {
    "llama-lora": ("llama-bfloat16", {"num_layers": 2, "keys": LINEAR}),
    # The last layer only, and fewer modules: the others are dequantized and no more.
    "llama-lora-one-layer": ("llama-bfloat16", {"num_layers": 1, "keys": ATTENTION}),
    "qwen2-lora": ("qwen2-float16", {"num_layers": 2, "keys": LINEAR}),
    "qwen2-lora-float16": ("qwen2-float16", {"num_layers": 2, "keys": ATTENTION, "type": "float16"}),
    "moe-lora": ("qwen3-moe-stacked", {"num_layers": 3, "keys": [*ATTENTION, *EXPERTS, "mlp.gate"]}),
    "llama-dora": ("llama-float32", {"num_layers": 2, "keys": ATTENTION, "fine_tune_type": "dora"}),
    "llama-full": ("llama-float16", {"num_layers": 1, "fine_tune_type": "full"}),
}


# --- Models and adapters ---------------------------------------------------------------------------------------


class Random:
    """Tensors that depend on nothing but the names of what they are for."""

    def __init__(self, seed):
        self.key = mx.random.key(zlib.crc32(seed.encode()))

    def next(self):
        self.key, key = mx.random.split(self.key)
        return key

    def normal(self, shape, scale=0.05):
        return scale * mx.random.normal(shape, key=self.next())

    def factor(self, shape, step):
        """Whole multiples of a power of two, so small that a sum of products is exact in any order."""
        return mx.random.randint(-63, 64, shape, key=self.next()).astype(mx.float32) * step


def write_json(path, value):
    path.write_text(json.dumps(value, indent=2) + "\n")


def write_plain(folder, name):
    """Writes a model with the names that the Hugging Face hub has."""
    spec = PLAIN[name]
    config = spec["config"]
    module = ARCHITECTURES[config["model_type"]]
    model = module.Model(module.ModelArgs.from_dict(config))
    random = Random(name)
    shapes = {path: value.shape for path, value in tree_flatten(model.parameters())}
    tensors = {}
    for path, shape in sorted((shapes | spec.get("extra", {})).items()):
        values = random.normal(shape)
        if "norm" in path:
            values = values + 1
        for part, array in per_expert(path, values):
            tensors[part] = array.astype(getattr(mx, spec.get("type", config["torch_dtype"])))
    folder.mkdir(parents=True)
    write_json(folder / "config.json", config)
    write_tokenizer(folder)
    write_weights(folder, tensors, spec.get("shards", 1))


def write_tokenizer(folder):
    """Writes a tokenizer without a word: no model does without."""
    write_json(Path(folder) / "tokenizer.json", {"model": {"type": "BPE", "vocab": {}, "merges": []}})


def per_expert(path, values):
    """Yields a stack of experts as the hub has it, one tensor for each."""
    if ".switch_mlp." not in path:
        yield path, values
        return
    before, after = path.split(".switch_mlp.")
    if before.endswith(".block_sparse_moe"):
        for name, short in {"gate_proj": "w1", "down_proj": "w2", "up_proj": "w3"}.items():
            after = after.replace(name, short)
    for expert in range(len(values)):
        yield f"{before}.experts.{expert}.{after}", values[expert]


def write_weights(folder, tensors, shards):
    if shards == 1:
        mx.save_safetensors(str(folder / "model.safetensors"), tensors, {"format": "pt"})
        return
    weight_map = {}
    for shard in range(shards):
        file = f"model-{shard + 1:05}-of-{shards:05}.safetensors"
        part = {name: tensors[name] for name in sorted(tensors)[shard::shards]}
        mx.save_safetensors(str(folder / file), part, {"format": "pt"})
        weight_map |= dict.fromkeys(part, file)
    total = sum(value.nbytes for value in tensors.values())
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
    write_json(folder / "model.safetensors.index.json", index)


def write_adapter(folder, name, model_folder):
    """Writes an adapter as mlx-lm's training does, whose update is exact in float32."""
    spec = ADAPTERS[name][1]
    kind = spec.get("fine_tune_type", "lora")
    config = {"fine_tune_type": kind, "num_layers": spec["num_layers"]}
    model, _ = load_model(model_folder, lazy=True)
    random = Random(name)
    tensors = {}
    if kind == "full":
        trained = f"model.layers.{len(model.layers) - 1}."
        for path, value in tree_flatten(model.parameters()):
            if path.startswith(trained):
                tensors[path] = value + random.normal(value.shape, 0.01).astype(value.dtype)
    else:
        rank, scale = 4, 10.0
        parameters = {"rank": rank, "scale": scale, "dropout": 0.0, "keys": spec["keys"]}
        config["lora_parameters"] = parameters
        for layer in range(len(model.layers) - spec["num_layers"], len(model.layers)):
            for path, module in model.layers[layer].named_modules():
                if path in spec["keys"]:
                    factors = update(random, module.weight, rank, kind)
                    tensors |= {f"model.layers.{layer}.{path}.{part}": f for part, f in factors.items()}
        dtype = getattr(mx, spec.get("type", "float32"))
        tensors = {path: value.astype(dtype) for path, value in tensors.items()}
    folder.mkdir(parents=True)
    write_json(folder / "adapter_config.json", config)
    mx.save_safetensors(str(folder / "adapters.safetensors"), tensors)


def update(random, weight, rank, kind):
    """Returns the factors of an update of `weight`, [out, in] or [expert, out, in]."""
    *experts, rows, columns = weight.shape
    a, b = 2.0**-10, 2.0**-10
    if experts:
        return {
            "lora_a": random.factor((*experts, rank, columns), a),
            "lora_b": random.factor((*experts, rows, rank), b),
        }
    factors = {"lora_a": random.factor((columns, rank), a), "lora_b": random.factor((rank, rows), b)}
    if kind == "dora":
        norm = mx.linalg.norm(weight.astype(mx.float32), axis=1)
        factors["m"] = norm * (1 + random.normal(norm.shape))
    return factors


# --- What mlx-lm makes of them ---------------------------------------------------------------------------------


def arguments_of(node):
    """Returns what `mlx_lm.convert` is given for a quantize node."""
    return {
        "quantize": True,
        "q_bits": node.get("bits"),
        "q_group_size": node.get("group_size"),
        "q_mode": node.get("mode", "affine"),
        "quant_predicate": node.get("recipe"),
    }


def fuse_with_mlx_lm(model, adapter, output, requantize):
    command = ["fuse", "--model", model, "--adapter-path", adapter, "--save-path", output]
    if not requantize:
        command.append("--dequantize")
    with mock.patch.object(sys, "argv", [str(part) for part in command]):
        fuse.main()


def write_expected(output, case, model, adapter):
    node = yaml.safe_load("{" + case["node"] + "}")
    match node["stage"]:
        case "quantize":
            convert(str(model), str(output), **arguments_of(node))
        case "fuse":
            fuse_with_mlx_lm(model, adapter, output, node.get("requantize", False))


@contextlib.contextmanager
def without_side_files():
    """Spares mlx-lm loading a tokenizer without a word, and writing a model card."""
    tokenizer = types.SimpleNamespace(save_pretrained=write_tokenizer)
    with (
        mock.patch("mlx_lm.utils.load_tokenizer", lambda *_, **__: tokenizer),
        mock.patch("mlx_lm.utils.create_model_card", lambda *_: None),
    ):
        yield


class Folder:
    """The output, where each model and adapter is written when first asked for."""

    def __init__(self, root):
        self.root = root

    def model(self, name):
        folder = self.root / "models" / name
        if not folder.exists():
            if name in PLAIN:
                write_plain(folder, name)
            else:
                plain, arguments = CONVERTED[name]
                source = self.model(plain)
                folder.parent.mkdir(parents=True, exist_ok=True)
                convert(str(source), str(folder), **arguments)
        return folder

    def adapter(self, name):
        folder = self.root / "adapters" / name
        if not folder.exists():
            write_adapter(folder, name, self.model(ADAPTERS[name][0]))
        return folder

    def expected(self, case):
        output = self.root / "expected" / case["name"]
        adapter = self.adapter(case["adapter"]) if case["adapter"] else None
        output.parent.mkdir(parents=True, exist_ok=True)
        write_expected(output, case, self.model(case["model"]), adapter)


def main():
    parser = argparse.ArgumentParser(description="Writes models and adapters, and what mlx-lm makes of them.")
    parser.add_argument("folder", type=Path)
    folder = Folder(parser.parse_args().folder)
    mx.set_default_device(mx.cpu)
    with without_side_files(), contextlib.redirect_stdout(io.StringIO()):
        for case in json.load(sys.stdin):
            folder.expected(case)


if __name__ == "__main__":
    main()
