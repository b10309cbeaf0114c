"""Trains a LoRA adapter on the dequantized 4-bit base: call a tool where one is needed.

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
from model import LAYERS, LORA_SCALE, Params, encode, exact, loss

KEYS = {
    "qv": ["self_attn.q_proj", "self_attn.v_proj"],
    "all": [
        "self_attn.q_proj",
        "self_attn.k_proj",
        "self_attn.v_proj",
        "self_attn.o_proj",
        "mlp.gate_proj",
        "mlp.up_proj",
        "mlp.down_proj",
    ],
}


def unpack(words: np.ndarray, bits: int) -> np.ndarray:
    """Unpacks MLX's rows: each one a little-endian stream of `bits`-wide values in uint32 words."""
    rows = len(words)
    stream = np.unpackbits(words.view(np.uint8).reshape(rows, -1), axis=1, bitorder="little")
    values = stream.reshape(rows, stream.shape[1] // bits, bits) * (1 << np.arange(bits))
    return values.sum(-1).astype(np.float32)


def load_dequantized(folder: Path) -> tuple[Params, dict[str, float]]:
    """Loads a quantized model folder as float16 values in float32 arrays, and its steps.

    Rounds once, where MLX rounds the product and then the sum: some weights differ in the last bit.
    The steps are the mean square, for each module, of the distance between neighbouring values.
    """
    tensors = load_file(folder / "model.safetensors")
    quantization = json.loads((folder / "config.json").read_text())["quantization"]
    params, steps = {}, {}
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
            steps[module] = float((scales**2).mean())
        params[name] = tensor
    return {name: jnp.array(value, jnp.float32) for name, value in params.items()}, steps


def init(
    rng: np.random.Generator, params: Params, layers: int, keys: list[str], rank: int
) -> Params:
    """Draws the matrices of the last layers as mlx-lm does: `lora_a` uniform, `lora_b` zero."""
    lora = {}
    for layer in range(LAYERS - layers, LAYERS):
        for key in keys:
            name = f"model.layers.{layer}.{key}"
            outputs, inputs = params[name + ".weight"].shape
            uniform = rng.uniform(-1, 1, (inputs, rank)) / np.sqrt(inputs)
            lora[name + ".lora_a"] = jnp.array(uniform, jnp.float32)
            lora[name + ".lora_b"] = jnp.zeros((rank, outputs), jnp.float32)
    return lora


def update_squares(lora: Params) -> dict[str, jax.Array]:
    """Returns for each module the sum of the squares of its update.

    The update is a product of thin matrices, so this needs only theirs with themselves.
    """
    squares = {}
    for name in lora:
        if name.endswith(".lora_a"):
            a, b = lora[name], lora[name[:-1] + "b"]
            squares[name.removesuffix(".lora_a")] = LORA_SCALE**2 * ((a.T @ a) * (b @ b.T)).sum()
    return squares


def update_in_steps(params: Params, lora: Params, steps: dict[str, float]) -> float:
    """Returns the size of the update over all adapted weights, in steps (root mean square)."""
    squares = update_squares(lora)
    moved = sum(float(value) for value in squares.values())
    meant = sum(steps[module] * params[module + ".weight"].size for module in squares)
    return (moved / meant) ** 0.5


def train(
    params: Params, lora: Params, tokenizer: Tokenizer, parts: Split, args: argparse.Namespace
) -> Params:
    """Runs Adam for `args.steps` steps on batches of five tool and three direct questions.

    `args.penalty` weighs the size of the update.
    """
    schedule = optax.warmup_cosine_decay_schedule(0, args.learning_rate, 20, args.steps)
    optimizer = optax.adam(schedule)
    state = optimizer.init(lora)

    def objective(lora, params, tool, direct):
        value = (5 * loss(params, lora, tool) + 3 * loss(params, lora, direct)) / 8
        return value + args.penalty * sum(update_squares(lora).values()), value

    @jax.jit
    def step(lora, state, params, tool, direct):
        gradient = jax.value_and_grad(objective, has_aux=True)
        (_, value), gradients = gradient(lora, params, tool, direct)
        updates, state = optimizer.update(gradients, state)
        return optax.apply_updates(lora, updates), state, value

    start = time.time()
    losses = []
    for number in range(1, args.steps + 1):
        tool = encode(tokenizer, random.choices(parts.train_tool, k=5))
        direct = encode(tokenizer, random.choices(parts.train_direct, k=3))
        lora, state, value = step(lora, state, params, tool, direct)
        losses.append(float(value))
        if number % 25 == 0 or number == args.steps:
            elapsed = time.time() - start
            print(f"step {number}: loss {np.mean(losses):.4f}, {elapsed:.0f} s", flush=True)
            losses = []
    return lora


def save(folder: Path, lora: Params, args: argparse.Namespace) -> Params:
    """Writes the adapter folder in float16. Returns the matrices as they were rounded."""
    folder.mkdir(parents=True, exist_ok=True)
    arrays = {name: np.array(value, np.float16) for name, value in lora.items()}
    save_file(arrays, folder / "adapters.safetensors", metadata={"format": "mlx"})
    keys = KEYS[args.keys]
    config = {
        "fine_tune_type": "lora",
        "num_layers": args.layers,
        "lora_parameters": {"rank": args.rank, "scale": LORA_SCALE, "dropout": 0.0, "keys": keys},
    }
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=2) + "\n")
    return {name: jnp.array(value, jnp.float32) for name, value in arrays.items()}


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--base", type=Path, default=Path("base-4bit"), help="the quantized base")
    parser.add_argument("--out", type=Path, default=Path("adapter"), help="the folder to write")
    parser.add_argument("--keys", choices=KEYS, default="qv", help="which projections are adapted")
    parser.add_argument("--layers", type=int, default=16, help="how many, counted from the last")
    parser.add_argument("--steps", type=int, default=320, help="more than the 20 of the warm-up")
    parser.add_argument("--learning-rate", type=float, default=1.2e-4, help="at its peak")
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
    params, steps = load_dequantized(args.base)
    lora = init(rng, params, args.layers, KEYS[args.keys], args.rank)
    lora = save(args.out, train(params, lora, tokenizer, parts, args), args)
    print(f"update: {update_in_steps(params, lora, steps):.3f} steps (root mean square)")
    if not args.no_score:
        for name, matrices in [("base", None), ("adapter", lora)]:
            for kind, questions in [("tool", parts.tools_tool), ("direct", parts.tools_direct)]:
                share = exact(params, matrices, tokenizer, questions)
                print(f"{name}, held-out {kind}: {share:.0%} exact")


if __name__ == "__main__":
    main()
