"""Trains a LoRA adapter on the dequantized 4-bit base: answer directly what needs no tool.

Writes an adapter folder in mlx-lm's format.
"""

import argparse
import json
import random
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from safetensors.numpy import load_file, save_file
from tokenizers import Tokenizer

from data import Split, split
from model import LAYERS, LORA_SCALE, Params, batch, loss, score

KEYS = [
    "self_attn.q_proj",
    "self_attn.v_proj",
    "self_attn.o_proj",
    "mlp.gate_proj",
    "mlp.up_proj",
    "mlp.down_proj",
]


def unpack(words: np.ndarray, bits: int) -> np.ndarray:
    """Unpacks MLX's rows: each one a little-endian stream of `bits`-wide values in uint32 words."""
    rows = len(words)
    stream = np.unpackbits(words.view(np.uint8).reshape(rows, -1), axis=1, bitorder="little")
    values = stream.reshape(rows, stream.shape[1] // bits, bits) * (1 << np.arange(bits))
    return values.sum(-1).astype(np.float32)


def load_dequantized(folder: Path) -> Params:
    """Loads a quantized model folder as float16 values in float32 arrays.

    Rounds once, where MLX rounds the product and then the sum: some weights differ in the last bit.
    """
    tensors = load_file(folder / "model.safetensors")
    quantization = json.loads((folder / "config.json").read_text())["quantization"]
    params = {}
    for name, tensor in tensors.items():
        if name.endswith((".scales", ".biases")):
            continue
        module = name.removesuffix(".weight")
        if module + ".scales" in tensors:
            scales = tensors[module + ".scales"].astype(np.float32)[..., None]
            biases = tensors[module + ".biases"].astype(np.float32)[..., None]
            values = unpack(tensor, quantization["bits"])
            groups = values.reshape(len(values), -1, quantization["group_size"])
            tensor = (groups * scales + biases).reshape(values.shape).astype(np.float16)
        params[name] = tensor
    return {name: jnp.array(value, jnp.float32) for name, value in params.items()}


def init(rng: np.random.Generator, params: Params, rank: int) -> Params:
    """Draws the matrices as mlx-lm does: `lora_a` uniform, `lora_b` zero."""
    lora = {}
    for layer in range(LAYERS):
        for key in KEYS:
            name = f"model.layers.{layer}.{key}"
            outputs, inputs = params[name + ".weight"].shape
            uniform = rng.uniform(-1, 1, (inputs, rank)) / np.sqrt(inputs)
            lora[name + ".lora_a"] = jnp.array(uniform, jnp.float32)
            lora[name + ".lora_b"] = jnp.zeros((rank, outputs), jnp.float32)
    return lora


def train(
    params: Params, lora: Params, tokenizer: Tokenizer, parts: Split, args: argparse.Namespace
) -> Params:
    """Runs Adam for `args.steps` steps on batches of about ten direct and six tool questions.

    `args.penalty` weighs the size of the update. The adapter was trained with 0, and the term stays
    in the sum all the same: without it XLA rounds otherwise, and the weights are not the same bits.
    """
    schedule = optax.warmup_cosine_decay_schedule(0, args.learning_rate, 20, args.steps)
    optimizer = optax.adam(schedule)
    state = optimizer.init(lora)

    def objective(lora, ids, is_answer):
        value = loss(params, lora, ids, is_answer)
        size = sum(
            jnp.sum((LORA_SCALE * lora[name] @ lora[name[:-1] + "b"]) ** 2)
            for name in lora
            if name.endswith("lora_a")
        )
        return value + args.penalty * size, value

    @jax.jit
    def step(lora, state, ids, is_answer):
        gradient = jax.value_and_grad(objective, has_aux=True)
        (_, value), gradients = gradient(lora, ids, is_answer)
        updates, state = optimizer.update(gradients, state)
        return optax.apply_updates(lora, updates), state, value

    start = time.time()
    for number in range(args.steps):
        pool = random.choices(parts.train_direct, k=10) + random.choices(parts.train_tool, k=6)
        ids, is_answer = batch(tokenizer, pool, 16)
        lora, state, value = step(lora, state, ids, is_answer)
        if number % 50 == 0 or number == args.steps - 1:
            elapsed = time.time() - start
            print(f"step {number}: loss {float(value):.9g}, {elapsed:.0f} s", flush=True)
    return lora


def save(folder: Path, lora: Params, rank: int) -> None:
    """Writes the adapter folder."""
    folder.mkdir(parents=True, exist_ok=True)
    arrays = {name: np.array(value) for name, value in lora.items()}
    save_file(arrays, folder / "adapters.safetensors", metadata={"format": "mlx"})
    config = {
        "fine_tune_type": "lora",
        "num_layers": LAYERS,
        "lora_parameters": {"rank": rank, "scale": LORA_SCALE, "dropout": 0.0, "keys": KEYS},
    }
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=2))


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--base", type=Path, default=Path("base-4bit"), help="the quantized base")
    parser.add_argument("--out", type=Path, default=Path("adapter"), help="the folder to write")
    parser.add_argument("--steps", type=int, default=150, help="more than the 20 of the warm-up")
    parser.add_argument("--learning-rate", type=float, default=2.5e-5, help="at its peak")
    parser.add_argument("--penalty", type=float, default=0.0, help="on the size of the update")
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--seed", type=int, default=2)
    parser.add_argument("--no-score", action="store_true", help="do not ask held-out questions")
    return parser.parse_args()


def main() -> None:
    args = parse_arguments()
    random.seed(args.seed)
    rng = np.random.default_rng(args.seed)
    parts = split()
    tokenizer = Tokenizer.from_file(str(args.base / "tokenizer.json"))
    params = load_dequantized(args.base)
    lora = train(params, init(rng, params, args.rank), tokenizer, parts, args)
    save(args.out, lora, args.rank)
    if not args.no_score:
        for name, matrices in [("base", None), ("adapter", lora)]:
            for kind, questions in [("tool", parts.test_tool[:16]), ("direct", parts.test_direct)]:
                decided, exact = score(params, matrices, tokenizer, questions)
                print(f"{name}, held-out {kind}: {decided:.0%} decided rightly, {exact:.0%} exact")


if __name__ == "__main__":
    main()
