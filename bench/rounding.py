#!/usr/bin/env python3
"""Prints the tables of docs/rounding.md: what each way to quantize leaves of a fine-tuning.

    python3 bench/rounding.py [tiny] [smollm2] [adapter=FOLDER] [size] [--scratch FOLDER]

`tiny` measures examples/tiny on the held-out suite, `smollm2` examples/smollm2 on the final one, `adapter=FOLDER` another adapter
for SmolLM2 on that suite, and `size` how large the update may be. Each configuration is built and asked by `pipeline`. The
models of other seeds are made with the reference in tests/golden/keep.py. Nothing here is tuned.

Needs `cargo build --release`, numpy, safetensors and PyYAML (`.mlx-lm/bin/python` has them), and examples/smollm2/setup.sh.
"""

import argparse
import importlib.util
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import yaml
from safetensors.numpy import load_file, save_file

from results import PIPELINE, REPOSITORY

sys.path.insert(0, str(REPOSITORY / "tests" / "golden"))
from keep import dequantized, dither, keep, packed, seed_of  # noqa: E402

TINY, SMOLLM2 = REPOSITORY / "examples" / "tiny", REPOSITORY / "examples" / "smollm2"
GROUP, BITS = 64, 4
SEEDS = 4
UPDATES = (0.25, 0.5, 1, 2, 4, 8)

QUANTIZED = {
    **{f"{bits} bits": f"bits: {bits}" for bits in (8, 6, 5, 4)},
    "mixed_4_6": "recipe: mixed_4_6",
    **{f"{bits} bits, keep": f"bits: {bits}, rounding: keep" for bits in (4, 5, 6, 8)},
    "4 bits, keep, probe of random tokens": "bits: 4, rounding: keep, probe: probe",
    "4 bits, keep, probe of a text": "bits: 4, rounding: keep, probe: read",
    "auto 4.6": "bits: auto, target_bits: 4.6",
    "auto 5.0": "bits: auto, target_bits: 5.0",
    "auto 5.5": "bits: auto, target_bits: 5.5",
}


# --- Building with pipeline ------------------------------------------------------------------------------------


class Project:
    """A folder with a pipeline file: a base on a 4-bit grid, an adapter, the fused model, and models made of it."""

    def __init__(self, folder, base, adapter, text):
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.nodes = {"adapter": f"stage: adapter, source: {json.dumps(str(adapter))}"}
        source = f"stage: base, source: {json.dumps(str(base))}"
        if is_quantized(base):
            self.nodes["base"] = source
        else:
            self.nodes |= {"float": source, "base": f"stage: quantize, model: float, bits: {BITS}"}
        self.nodes["fused"] = "stage: fuse, model: base, adapter: adapter, dtype: float16"
        self.nodes["probe"] = "stage: probe, model: base, tokens: random"
        if text.exists():
            self.nodes["read"] = f"stage: probe, model: base, texts: {json.dumps(str(text))}"
        self.configs = {"base": "base", "fused": "fused"}

    def quantize(self, label, fields):
        name = f"q{len(self.configs)}"
        self.nodes[name] = f"stage: quantize, model: fused, {fields}"
        self.configs[label] = name

    def add(self, label, folder):
        """Adds a model that was made elsewhere."""
        name = f"m{len(self.configs)}"
        self.nodes[name] = f"stage: base, source: {json.dumps(str(folder))}"
        self.configs[label] = name

    def measure(self, name, suite, configs):
        """Asks these configurations a suite, and returns the results and the readings of each by its label."""
        own = {self.configs[label]: label for label in {"fused": 0} | dict.fromkeys(configs)}
        (self.folder / f"{name}.yaml").write_text(yaml.safe_dump(suite, allow_unicode=True, width=10**6, sort_keys=False))
        reference = ", reference: fused" if suite.get("texts") else ""
        self.nodes[name] = (
            f"stage: benchmark, suite: {name}.yaml, device: cpu, configs: {{{', '.join(f'{n}: {n}' for n in own)}}}{reference}"
        )
        lines = ["version: 1", "nodes:"] + [f"  {name}: {{{fields}}}" for name, fields in self.nodes.items()]
        (self.folder / "pipeline.yaml").write_text("\n".join(lines) + "\n")
        run = subprocess.run([PIPELINE, "-C", self.folder, "build", name], capture_output=True, text=True)
        if run.returncode != 0:
            sys.exit(run.stderr[-3000:])
        artifact = self.folder / "artifacts" / name
        results = json.loads((artifact / "results.json").read_text())["configs"]
        readings = json.loads((artifact / "readings.json").read_text())
        return {label: (results[node], readings.get(node)) for node, label in own.items()}

    def survival(self, label):
        path = self.folder / "artifacts" / self.configs[label] / "survival.json"
        return json.loads(path.read_text())["overall"] if path.exists() else None


def is_quantized(folder):
    return "quantization" in json.loads((folder / "config.json").read_text())


# --- Models of other seeds -------------------------------------------------------------------------------------


def make_kept(project, seed, target):
    """Makes the 4-bit model with other random numbers: the base's folder, with the codes that the training moves."""
    base, fused = (resolve(project, node) for node in ("base", "fused"))
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(base, target)
    (target / "model.safetensors").chmod(0o644)
    model, updated = load_file(base / "model.safetensors"), load_file(fused / "model.safetensors")
    for name in [name for name in model if name.endswith(".scales")]:
        module = name.removesuffix(".scales")
        weight = updated[f"{module}.weight"].astype(np.float32)
        scales, biases = (model[f"{module}.{side}"].astype(np.float32) for side in ("scales", "biases"))
        codes = unpacked(model[f"{module}.weight"], weight.shape)
        if (dequantized(codes, scales, biases, GROUP, "float16") == weight).all():
            continue
        numbers = dither(seed_of(f"{module}.weight") + seed, *weight.shape)
        made, _ = keep(codes, scales, biases, weight, "float16", GROUP, BITS, BITS, numbers)
        model[f"{module}.weight"] = packed(made, BITS).view(np.uint32)
    (target / "model.safetensors").unlink()
    save_file(model, target / "model.safetensors", metadata={"format": "mlx"})
    return target


def unpacked(words, shape):
    return (words[..., None] >> (np.arange(8, dtype=np.uint32) * 4) & 15).reshape(shape)


def resolve(project, node):
    """Returns the folder of a node; that of a source is where it lies."""
    folder = project.folder / "artifacts" / node
    return folder.resolve() if folder.exists() else Path(json.loads(project.nodes[node].partition("source: ")[2]))


# --- Tables ----------------------------------------------------------------------------------------------------


def chats(example, answers):
    """Renders queries with the answers of the fused model, as the example's training does."""
    spec = importlib.util.spec_from_file_location("data", example / "train" / "data.py")
    data = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(data)
    return [data.chat(answer["prompt"], answer["text"]) for answer in answers]


def compare(title, example, base, adapter, suite_name, scratch):
    """Prints the table of one adapter."""
    suite = yaml.safe_load((example / f"{suite_name}.yaml").read_text())
    is_tool = [query["expect"] == "tool" for query in suite["queries"]]
    project = Project(scratch / title.replace(" ", "-"), base, adapter, example / "chat.txt")
    for label, fields in QUANTIZED.items():
        if "probe: read" not in fields or (example / "chat.txt").exists():
            project.quantize(label, fields)
    labels = list(project.configs)
    asked = project.measure("asked", suite, labels)
    for seed in range(1, SEEDS):
        project.add(f"seed {seed}", make_kept(project, seed, project.folder / f"seed-{seed}"))
    seeds = [f"seed {seed}" for seed in range(1, SEEDS)]
    asked |= {label: found for label, found in project.measure("seeds", suite, seeds).items() if label != "fused"}
    answers = asked["fused"][0]["answers"]
    read = {}
    for kind, wanted in (("tool", True), ("direct", False)):
        texts = [chat for chat, tool in zip(chats(example, answers), is_tool) if tool == wanted]
        read[kind] = project.measure(kind, {"name": kind, "texts": texts}, labels + seeds)

    def cells(label):
        results, reading = asked[label]
        right = [sum(a["pass"] for a, tool in zip(results["answers"], is_tool) if tool == want) for want in (True, False)]
        kls = [read[kind][label][1]["divergence"]["mean_kl"] for kind in ("tool", "direct")]
        text = reading["divergence"]["mean_kl"] if reading and reading.get("divergence") else None
        return right, kls, text

    print(f"\n### {title}\n")
    print(f"{sum(is_tool)} questions need a tool, {len(is_tool) - sum(is_tool)} do not.\n")
    print("| | bits/weight | tool | direct | KL tool | KL direct | KL text | survival | cosine | noise |")
    print("|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|")
    for label in labels:
        right, kls, text = cells(label)
        survival = project.survival(label)
        sizes = [f"{survival[key]:.2f}" for key in ("survival", "cosine", "noise_to_signal")] if survival else ["", "", ""]
        row = [f"{asked[label][0]['bits_per_weight']:.2f}", *map(str, right), *map(figure, [*kls, text]), *sizes]
        print(f"| {label} | {' | '.join(row)} |")
    spread = [cells(label) for label in ["4 bits, keep", *seeds]]
    ranges = [[kls[0] for _, kls, _ in spread], [kls[1] for _, kls, _ in spread], [text for *_, text in spread]]
    shown = "; ".join(f"KL {kind} {mean_and_range(values)}" for kind, values in zip(("tool", "direct", "text"), ranges))
    rights = "; ".join(f"{kind} {min(found)} to {max(found)}" for kind, found in zip(("tool", "direct"), zip(*(r for r, *_ in spread))))
    print(f"\n4 bits, keep, over {SEEDS} seeds: {shown}; right: {rights}.")


def figure(value):
    return "" if value is None else f"{value:.4f}"


def mean_and_range(values):
    if None in values:
        return "not measured"
    return f"{statistics.mean(values):.4f} ({min(values):.4f} to {max(values):.4f})"


def update_sizes(scratch):
    """Prints how 4 bits and `keep` compare for larger and smaller updates."""
    print("\n### How large may the update be?\n")
    print("| update, in steps | 4 bits: KL tool | KL direct | kept, mean of seeds: KL tool | KL direct |")
    print("|--:|--:|--:|--:|--:|")
    suite = yaml.safe_load((SMOLLM2 / "tools.yaml").read_text())
    for factor in UPDATES:
        adapter = scratch / f"adapter-{factor}"
        if not adapter.exists():
            shutil.copytree(SMOLLM2 / "adapter", adapter)
            config = json.loads((adapter / "adapter_config.json").read_text())
            config["lora_parameters"]["scale"] *= factor
            (adapter / "adapter_config.json").write_text(json.dumps(config))
        base = SMOLLM2 / "SmolLM2-135M-Instruct"
        project = Project(scratch / f"size-{factor}", base, adapter, SMOLLM2 / "chat.txt")
        project.quantize("4 bits", "bits: 4")
        answers = project.measure("asked", suite, ["4 bits"])["fused"][0]["answers"]
        seeds = [f"seed {seed}" for seed in range(2)]
        for seed, label in enumerate(seeds):
            project.add(label, make_kept(project, seed, project.folder / f"seed-{seed}"))
        row = {"4 bits": [], "kept": []}
        for kind, want in (("tool", "tool"), ("direct", "direct")):
            wanted = [query["expect"] == want for query in suite["queries"]]
            texts = [chat for chat, is_it in zip(chats(SMOLLM2, answers), wanted) if is_it]
            read = project.measure(kind, {"name": kind, "texts": texts}, ["4 bits", *seeds])
            kl = lambda label: read[label][1]["divergence"]["mean_kl"]  # noqa: B023, E731
            row["4 bits"].append(kl("4 bits"))
            row["kept"].append(statistics.mean(kl(label) for label in seeds))
        cells = [f"{value:.3f}" for value in [project.survival("4 bits")["delta_per_step"], *row["4 bits"], *row["kept"]]]
        print(f"| {' | '.join(cells)} |", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tables", nargs="*", default=["tiny", "smollm2", "size"])
    parser.add_argument("--scratch", type=Path)
    args = parser.parse_args()
    scratch = args.scratch or Path(tempfile.mkdtemp(prefix="rounding-"))
    for table in args.tables:
        if table == "tiny":
            compare("examples tiny", TINY, TINY / "base-4bit", TINY / "adapter", "heldout", scratch)
        elif table == "smollm2":
            compare("SmolLM2", SMOLLM2, SMOLLM2 / "SmolLM2-135M-Instruct", SMOLLM2 / "adapter", "final", scratch)
        elif table.startswith("adapter="):
            adapter = Path(table.partition("=")[2]).resolve()
            compare("SmolLM2 " + adapter.name, SMOLLM2, SMOLLM2 / "SmolLM2-135M-Instruct", adapter, "final", scratch)
        else:
            update_sizes(scratch)
        sys.stdout.flush()


if __name__ == "__main__":
    main()
