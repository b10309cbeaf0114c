#!/usr/bin/env python3
"""Writes a Llama model in float16 as GGUF files for llama.cpp, each with all matrices in one type. The norms are float32.

The quantization is that of llama.cpp, as its package gguf has it in numpy. There is no tokenizer: llama.cpp is given
token ids.

    .llama-cpp/python/bin/python bench/gguf_model.py MODEL FOLDER [--types f16 q8_0 q4_0 q4_1]

MODEL is a folder in Hugging Face's format, with one file of weights. In FOLDER every type gets a file: `q8_0.gguf`. Needs
scripts/llama-cpp/setup.sh.
"""

import argparse
import json
from pathlib import Path

import gguf
import numpy

TYPES = {
    "f16": (gguf.GGMLQuantizationType.F16, gguf.LlamaFileType.MOSTLY_F16),
    "q8_0": (gguf.GGMLQuantizationType.Q8_0, gguf.LlamaFileType.MOSTLY_Q8_0),
    "q4_0": (gguf.GGMLQuantizationType.Q4_0, gguf.LlamaFileType.MOSTLY_Q4_0),
    "q4_1": (gguf.GGMLQuantizationType.Q4_1, gguf.LlamaFileType.MOSTLY_Q4_1),
}
F32 = gguf.GGMLQuantizationType.F32

NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def gguf_name(name):
    """model.layers.0.self_attn.q_proj.weight -> blk.0.attn_q.weight"""
    module, _, kind = name.rpartition(".")
    if module.startswith("model.layers."):
        _, _, layer, module = module.split(".", 3)
        return f"blk.{layer}.{NAMES[module]}.{kind}"
    return f"{NAMES[module]}.{kind}"


def tensors(folder):
    """Returns the weights by name. They lie in the file until they are used."""
    path = folder / "model.safetensors"
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
    header.pop("__metadata__", None)
    found = {}
    for name, entry in header.items():
        if entry["dtype"] != "F16":
            raise ValueError(f"{name} is not float16")
        begin, _ = entry["data_offsets"]
        shape = tuple(entry["shape"])
        found[name] = numpy.memmap(path, "<f2", mode="r", offset=8 + length + begin, shape=shape)
    return found


def permute(values, heads):
    """Reorders the rows of a head: llama.cpp rotates neighbours, Hugging Face one of each half."""
    rows, columns = values.shape
    return values.reshape(heads, 2, rows // heads // 2, columns).swapaxes(1, 2).reshape(rows, columns)


def weights(name, values, config):
    if name.endswith("q_proj.weight"):
        return permute(values, config["num_attention_heads"])
    if name.endswith("k_proj.weight"):
        return permute(values, config["num_key_value_heads"])
    return values


def add_about(writer, config, file_type):
    heads = config["num_attention_heads"]
    head_dim = config.get("head_dim") or config["hidden_size"] // heads
    writer.add_file_type(file_type)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_vocab_size(config["vocab_size"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_rope_dimension_count(head_dim)
    writer.add_rope_freq_base(config["rope_theta"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_tokenizer_model("no_vocab")


def stored(shape, kind):
    """Returns the type, shape and bytes that a tensor is stored with."""
    if len(shape) == 1:
        return F32, shape, 4 * shape[0]
    if kind == gguf.GGMLQuantizationType.F16:
        return kind, shape, 2 * shape[0] * shape[1]
    packed = gguf.quant_shape_to_byte_shape(shape, kind)
    return kind, packed, packed[0] * packed[1]


def write_gguf(folder, path, name):
    """Writes one file, tensor by tensor."""
    config = json.loads((folder / "config.json").read_text())
    if config["model_type"] != "llama" or config.get("rope_scaling"):
        raise ValueError("only plain Llama models can be written")
    kind, file_type = TYPES[name]
    found = tensors(folder)
    writer = gguf.GGUFWriter(path, "llama")
    add_about(writer, config, file_type)
    for tensor, values in found.items():
        stored_kind, shape, length = stored(values.shape, kind)
        element = {F32: numpy.float32, gguf.GGMLQuantizationType.F16: numpy.float16}.get(stored_kind, numpy.uint8)
        writer.add_tensor_info(gguf_name(tensor), shape, numpy.dtype(element), length, stored_kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for tensor, values in found.items():
        stored_kind, _, _ = stored(values.shape, kind)
        values = weights(tensor, values, config)
        if stored_kind != gguf.GGMLQuantizationType.F16:
            values = values.astype(numpy.float32)
        writer.write_tensor_data(gguf.quantize(numpy.ascontiguousarray(values), stored_kind))
    writer.close()


def main():
    parser = argparse.ArgumentParser(description="Writes a Llama model as GGUF files.")
    parser.add_argument("model", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--types", choices=TYPES, nargs="+", default=list(TYPES))
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    for name in arguments.types:
        write_gguf(arguments.model, arguments.folder / f"{name}.gguf", name)


if __name__ == "__main__":
    main()
