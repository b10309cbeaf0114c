#!/usr/bin/env python3
"""Writes a model with the shapes of SmolLM2-135M, in float16, with random weights: 270 MB.

The same bytes every time. Needs nothing but Python.

    python3 bench/smollm.py FOLDER
"""

import argparse
import random
import struct
from pathlib import Path

import model

SIZE = {
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "vocab_size": 49152,
}
CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "attention_bias": False,
    "hidden_act": "silu",
    "max_position_embeddings": 8192,
    "mlp_bias": False,
    "rms_norm_eps": 1e-5,
    "rope_theta": 100000.0,
    "tie_word_embeddings": True,
    "torch_dtype": "float16",
}


def write_model(folder):
    """Writes configuration and weights; a tokenizer is not among them."""
    folder.mkdir(parents=True)
    generator = random.Random("smollm")

    def write(file, length):
        # Only norms are that short. With random ones the activations fade.
        if length == 2 * SIZE["hidden_size"]:
            file.write(struct.pack("<e", 1.0) * SIZE["hidden_size"])
        else:
            model.write_random(file, length, generator, "float16")

    tensors = [(name, shape) for name, shape in model.shapes(SIZE) if not name.endswith(".bias")]
    model.write_tensors(folder / "model.safetensors", tensors, "F16", write, 2)
    model.write_json(folder / "config.json", CONFIG | SIZE)


def main():
    from decode import write_words  # here, so that decode.py can import this file

    parser = argparse.ArgumentParser(description="Writes a model with the shapes of SmolLM2-135M.")
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    write_model(folder)
    write_words(folder)


if __name__ == "__main__":
    main()
