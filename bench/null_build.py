#!/usr/bin/env python3
"""Measures how long it takes to decide that nothing is to be done, and compares with ninja and GNU make.

Makes a graph of 10,000 nodes (100 chains, each 100 deep, from one base), builds it once, then times builds that
find everything up to date: the start of the process is included, the disk cache is warm. The programs take turns,
so that other work on the machine affects all of them. This measures speed and tests nothing: the exit code does
not depend on the figures. Needs nothing but Python; ninja is fetched from PyPI into `bench/.python`.

    python3 bench/null_build.py [--keep FOLDER] [--runs N]
"""

import argparse
import json
import os
import random
import shutil
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from results import BENCH, PIPELINE, REPOSITORY, machine, write_section

CHAINS, DEPTH = 100, 100
NINJA_VERSION = "1.13.2"

# The system's clock moves in steps, so what changed less than this long ago is not yet trusted by any careful tool.
SETTLE_SECONDS = 3


# --- The graph of models ---------------------------------------------------------------------------------------


def edges():
    """Yields (chain, step, name, the name it is made from) for every node that is made from another."""
    for chain in range(CHAINS):
        before = "base"
        for step in range(DEPTH):
            name = f"c{chain:02}-s{step:02}"
            yield chain, step, name, before
            before = name


def is_fused(step):
    """Quantizing alone soon comes to weights that stay as they are; an update in between keeps every node's weights
    its own, as they are in earnest."""
    return step % 2 == 1


def write_tensors(path, tensors):
    """Writes (name, shape) -> values as float16 safetensors."""
    header, data = {}, b""
    for name, (shape, values) in sorted(tensors.items()):
        packed = struct.pack(f"<{len(values)}e", *values)
        header[name] = {"dtype": "F16", "shape": shape, "data_offsets": [len(data), len(data) + len(packed)]}
        data += packed
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def write_base(folder):
    """Writes a model of two 64x64 matrices."""
    folder.mkdir()
    config = {"model_type": "llama", "hidden_size": 64, "torch_dtype": "float16"}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer.json").write_text(json.dumps({"version": "1.0", "model": {"type": "BPE"}}))
    rng = random.Random(1)
    names = [f"model.layers.0.mlp.{name}_proj.weight" for name in ("down", "up")]
    values = {name: ([64, 64], [rng.gauss(0, 0.02) for _ in range(64 * 64)]) for name in names}
    write_tensors(folder / "model.safetensors", values)


def write_adapter(folder):
    """Writes an adapter of rank 1 for one of them."""
    folder.mkdir()
    config = {"fine_tune_type": "lora", "num_layers": 1, "lora_parameters": {"rank": 1, "scale": 1.0, "dropout": 0.0}}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    rng = random.Random(2)
    shapes = {"lora_a": [64, 1], "lora_b": [1, 64]}
    values = {
        f"model.layers.0.mlp.up_proj.{name}": (shape, [rng.gauss(0, 0.1) for _ in range(64)])
        for name, shape in shapes.items()
    }
    write_tensors(folder / "adapters.safetensors", values)


def stage(chain, step, before):
    """Returns a node as YAML. The quantized nodes at the head of no two chains are the same."""
    if is_fused(step):
        return f"{{stage: fuse, model: {before}, adapter: adapter, dtype: float16}}"
    digit = (chain // 5 ** (step // 2) if step < 6 else chain + step // 2) % 5
    return f"{{stage: quantize, model: {before}, bits: {(8, 6, 5, 4, 3)[digit]}, group_size: 64}}"


def make_models(folder):
    """Makes and builds the graph of models."""
    write_base(folder / "base-model")
    write_adapter(folder / "adapter-model")
    lines = ["version: 1", "nodes:", "  base: {stage: base, source: base-model}"]
    lines.append("  adapter: {stage: adapter, source: adapter-model}")
    lines += [f"  {name}: {stage(chain, step, before)}" for chain, step, name, before in edges()]
    (folder / "pipeline.yaml").write_text("\n".join(lines) + "\n")
    build("pipeline", [PIPELINE, "-C", folder, "build"])
    kept = sum(path.is_file() for path in (folder / "cache" / "objects").rglob("*"))
    print(f"pipeline: {kept:,} different files are in its cache", file=sys.stderr)


def make_example(folder):
    """Copies the example of this repository and builds it."""
    shutil.copytree(REPOSITORY / "examples", folder / "examples")
    shutil.copy(REPOSITORY / "pipeline.yaml", folder)
    build("the example", [PIPELINE, "-C", folder, "build"])


# --- The same graph for ninja and make -------------------------------------------------------------------------


def inputs(step, before):
    """Returns what a file is made from, the file it is a copy of first."""
    return f"{before} adapter" if is_fused(step) else before


def make_ninja(folder):
    """Makes and builds the graph for ninja: every file is a copy of the one before it."""
    lines = ["rule copy", "  command = cp $in $out"]
    for _, step, name, before in edges():
        lines.append(f"build {name}: copy {inputs(step, before).replace(' ', ' | ')}")
    (folder / "build.ninja").write_text("\n".join(lines) + "\n")
    write_sources(folder)
    build("ninja", [*NINJA, "-C", folder, "--quiet"])


def make_make(folder):
    """Makes and builds the graph for GNU make."""
    lines = ["all: " + " ".join(name for _, _, name, _ in edges())]
    lines += [f"{name}: {inputs(step, before)}\n\t@cp $< $@" for _, step, name, before in edges()]
    (folder / "Makefile").write_text("\n".join(lines) + "\n.PHONY: all\n")
    write_sources(folder)
    build("make", ["make", "-C", folder, "-j", str(os.cpu_count()), "--silent"])


def write_sources(folder):
    """Writes what the first files are copied from."""
    for name in ("base", "adapter"):
        (folder / name).write_text(name + "\n")


NINJA = [BENCH / ".python" / "bin" / "ninja"]


def fetch_ninja():
    """Installs ninja beside this file unless it is there."""
    if not NINJA[0].exists():
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, "--target", BENCH / ".python", f"ninja=={NINJA_VERSION}"], check=True)


# --- Measuring -------------------------------------------------------------------------------------------------


def build(what, command):
    """Builds once, and says how long it took."""
    start = time.perf_counter()
    done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"{what} could not be built:\n{done.stderr[-2000:]}")
    print(f"{what}: built in {time.perf_counter() - start:.1f} s", file=sys.stderr)


class Contender:
    """A program and a graph that it finds up to date."""

    def __init__(self, label, nodes, make, command, says):
        self.label, self.nodes, self.make, self.command, self.says = label, nodes, make, command, says
        self.times = []

    def prepare(self, folder):
        """Builds the graph in `folder`, unless an earlier run did; returns whether the program can take part."""
        self.argv = [str(part).replace("FOLDER", str(folder)) for part in self.command]
        finished = folder / ".built"
        try:
            if not finished.exists():
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir(parents=True)
                self.make(folder)
                finished.touch()
            return True
        except (OSError, RuntimeError, subprocess.CalledProcessError) as error:
            print(f"{self.label}: left out: {error}", file=sys.stderr)
            return False

    def warm_up(self):
        """Checks that nothing is to be done, and lets the program write down what it noticed."""
        for _ in range(2):
            said = subprocess.run(self.argv, capture_output=True, text=True).stdout
        if self.says not in said:
            raise RuntimeError(f"{self.label} says {said[-300:]!r}, not {self.says!r}")

    def run(self):
        """Times one run, from the start of the process to its end."""
        silent = [(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)]
        start = time.perf_counter()
        process = os.posix_spawnp(self.argv[0], self.argv, os.environ, file_actions=silent)
        _, status = os.waitpid(process, 0)
        self.times.append(time.perf_counter() - start)
        if status != 0:
            raise RuntimeError(f"{self.label} failed")


def contenders():
    """Returns who is measured, in the order of the table."""
    pipeline = [PIPELINE, "-C", "FOLDER", "build"]
    nodes = CHAINS * DEPTH + 2
    return [
        Contender("pipeline, the example", 7, make_example, pipeline, "nothing to do"),
        Contender("pipeline", nodes, make_models, pipeline, "nothing to do"),
        Contender(f"ninja {NINJA_VERSION}", nodes, make_ninja, [*NINJA, "-C", "FOLDER"], "no work to do"),
        Contender(make_version(), nodes, make_make, ["make", "-C", "FOLDER"], "Nothing to be done"),
    ]


# --- The report ------------------------------------------------------------------------------------------------


def make_version():
    """Returns the name and version of the `make` of this machine."""
    if shutil.which("make") is None:
        return "make"
    return subprocess.run(["make", "--version"], capture_output=True, text=True).stdout.splitlines()[0]


def section(measured, runs, load):
    """Returns the section of the results as Markdown."""
    lines = [
        "## Null build",
        "",
        "What `make bench` measured: deciding that nothing is to be done, from the start of the process to its end,",
        f"disk cache warm, {runs} runs of each program taken in turns. The 10,002 nodes are 100 chains, each 100 deep,",
        "that quantize and fuse in turn. For `pipeline` a node is a folder of three files; it asks for the state of each",
        "folder and of each different file. For ninja and make a node is one file, of which they compare the time.",
        "The example is the `pipeline.yaml` of this repository.",
        "",
        f"{machine()}; load average {load:.1f}.",
        "",
        "| | nodes | median | min |",
        "|---|--:|--:|--:|",
    ]
    for one in measured:
        median, least = statistics.median(one.times) * 1000, min(one.times) * 1000
        lines.append(f"| {one.label} | {one.nodes:,} | {median:.1f} ms | {least:.1f} ms |")
    return "\n".join(lines) + "\n"


def measure(root, runs):
    """Prepares all, measures all, and returns who took part."""
    taking_part = [one for index, one in enumerate(contenders()) if one.prepare(root / str(index))]
    time.sleep(SETTLE_SECONDS)
    for one in taking_part:
        one.warm_up()
    for _ in range(runs):
        for one in taking_part:
            one.run()
    return taking_part


def main():
    parser = argparse.ArgumentParser(description="Times null builds of pipeline, ninja and make.")
    parser.add_argument("--keep", type=Path, help="build the graphs in this folder, and use them again next time")
    parser.add_argument("--runs", type=int, default=15, help="how often each program is run")
    arguments = parser.parse_args()
    fetch_ninja()
    with tempfile.TemporaryDirectory() as scratch:
        measured = measure((arguments.keep or Path(scratch)).resolve(), arguments.runs)
    text = section(measured, arguments.runs, os.getloadavg()[0])
    print(text)
    write_section("null build", text)


if __name__ == "__main__":
    main()
