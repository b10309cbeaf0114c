"""Measures with mlx-lm what becomes of the adapter: fused, and at every number of bits.

Makes each model with mlx-lm's own commands, asks it the questions of both suites, and prints a
table of right decisions (tool or direct), exact answers, and how much of the update survived.
"""

import argparse
import subprocess
import sys
from pathlib import Path

import mlx.core as mx
import mlx_lm
import yaml
from mlx.utils import tree_map
from mlx_lm.generate import generate_step

EXAMPLE = Path(__file__).parent.parent
BASE = EXAMPLE / "base-4bit"
ADAPTER = EXAMPLE / "adapter"
SUITES = ["discrimination", "heldout"]


def mlx_lm_command(*arguments: object) -> None:
    """Runs one of mlx-lm's commands."""
    command = [sys.executable, "-m", "mlx_lm", *map(str, arguments)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def make_models(folder: Path) -> dict[str, Path]:
    """Fuses, and quantizes what was fused to each number of bits, unless the folder has them."""
    fused = {"fused to 4 bits": folder / "fused-4bit", "fused, float16": folder / "fused-f16"}
    for name, options in [("fused to 4 bits", []), ("fused, float16", ["--dequantize"])]:
        if not fused[name].exists():
            paths = ["--model", BASE, "--adapter-path", ADAPTER, "--save-path", fused[name]]
            mlx_lm_command("fuse", *paths, *options)
    quantized = {}
    for bits in (8, 6, 5, 4, 3, 2):
        path = quantized[f"then {bits} bits"] = folder / f"{bits}bit"
        if not path.exists():
            paths = ["--hf-path", fused["fused, float16"], "--mlx-path", path]
            mlx_lm_command("convert", *paths, "-q", "--q-bits", bits, "--q-group-size", 64)
    return fused | quantized


def load(path: Path, adapter: Path | None = None):
    """Loads a model with its activations, scales and biases in float32."""
    model, tokenizer = mlx_lm.load(str(path), adapter_path=adapter and str(adapter))

    def widen(value: mx.array) -> mx.array:
        return value.astype(mx.float32) if value.dtype in (mx.float16, mx.bfloat16) else value

    model.update(tree_map(widen, model.parameters()))
    return model, tokenizer


def answer(model, tokenizer, prompt: str, max_tokens: int) -> str:
    """Answers greedily."""
    messages = [{"role": "user", "content": prompt}]
    ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True)
    tokens = []
    for token, _ in generate_step(mx.array(ids), model, max_tokens=max_tokens):
        if token in tokenizer.eos_token_ids:
            break
        tokens.append(token)
    return tokenizer.decode(tokens)


def score(model, tokenizer, suite: dict) -> str:
    """Counts the right decisions, and the exact answers in brackets."""
    decided = exact = 0
    for query in suite["queries"]:
        text = answer(model, tokenizer, query["prompt"], suite["max_tokens"])
        decided += ("<tool_call>" in text) == (query["expect"] == "tool")
        exact += text == query["answer"]
    return f"{decided}/{len(suite['queries'])} ({exact})"


def weights(path: Path) -> dict[str, mx.array]:
    """Returns the weights of the adapted layers in float32, dequantized in their own dtype."""
    model, _ = mlx_lm.load(str(path))
    adapted = {name.rsplit(".", 1)[0] for name in mx.load(str(ADAPTER / "adapters.safetensors"))}
    found = {}
    for name, module in model.named_modules():
        if name in adapted:
            weight = module.weight
            if "scales" in module:
                weight = mx.dequantize(
                    weight, module.scales, module.biases, module.group_size, module.bits
                )
            found[name] = weight.astype(mx.float32)
    return found


def survival(before: dict, intended: dict, actual: dict) -> float:
    """Projects the change that arrived on the change that was meant: 1 is all of it, 0 is none."""
    arrived = meant = 0.0
    for name, start in before.items():
        update = intended[name] - start
        arrived += ((actual[name] - start) * update).sum().item()
        meant += (update * update).sum().item()
    return arrived / meant


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=Path("measured"), help="for the models")
    args = parser.parse_args()
    mx.set_default_device(mx.cpu)
    args.folder.mkdir(parents=True, exist_ok=True)
    made = make_models(args.folder)
    suites = [yaml.safe_load((EXAMPLE / f"{name}.yaml").read_text()) for name in SUITES]
    before, intended = weights(BASE), weights(made["fused, float16"])

    print(f"| configuration | {' | '.join(SUITES)} | update that survives |")
    print("|---|" + "---|" * (len(SUITES) + 1))
    runs = [("base-4bit", BASE, None), ("base-4bit + adapter, unfused", BASE, ADAPTER)]
    runs += [(name, path, None) for name, path in made.items()]
    for name, path, adapter in runs:
        model, tokenizer = load(path, adapter)
        scores = [score(model, tokenizer, suite) for suite in suites]
        kept = "" if path == BASE else f"{survival(before, intended, weights(path)):.2f}"
        print(f"| {name} | {' | '.join(scores)} | {kept} |", flush=True)


if __name__ == "__main__":
    main()
