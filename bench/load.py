#!/usr/bin/env python3
"""Measures how long a mixture of experts takes to load, and how much memory it takes, beside mlx-lm.

The model has 64 experts in each of its six layers, as Qwen3-30B-A3B has 128: in 8 bits 2 GB, with the experts of a layer in a
stack; and in float16 4 GB, with each expert by itself, as the hub has it. `pipeline` is run as a user runs it: it builds a
benchmark node, whose `timings.json` is read. The limit of the machine is a program that reads the same files into memory and
does nothing else. All take turns, with the files in the page cache. This tests nothing.

    python3 bench/load.py [--quick] [--scratch FOLDER]

Needs mlx-lm in `.mlx-lm/` (make bench), some 10 GB of disk and 10 GB of memory.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import model
from decode import write_words
from results import PIPELINE, machine, write_section
from weights import PYTHON, pipeline_version, version

MODELS = {"float16, one by one": "base", "8 bits, in stacks": "8bit"}
DEVICES = {"pipeline": "cpu", "pipeline, MLX": "mlx"}
# What MLX computes on a CPU needs float32, so mlx-lm loads the numbers as they are, and less.
MLX_LM = """
import json, resource, sys, time
import mlx.core as mx
from pathlib import Path
from mlx_lm.utils import load_model
mx.set_default_device(mx.cpu)
start = time.perf_counter()
load_model(Path(sys.argv[1]))
seconds = time.perf_counter() - start
print(json.dumps({"load": seconds, "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}))
"""


class Project:
    """A pipeline file with the two models, and a benchmark of each on each device."""

    def __init__(self, folder, source):
        self.folder = folder
        lines = ["version: 1", "nodes:", f"  base: {{stage: base, source: {source}}}"]
        lines += ["  8bit: {stage: quantize, model: base, bits: 8, group_size: 64}"]
        for node in MODELS.values():
            for device in DEVICES.values():
                configs = f"configs: {{model: {node}}}, device: {device}"
                lines.append(f"  {node}-{device}: {{stage: benchmark, suite: suite.yaml, {configs}}}")
        folder.mkdir()
        suite = {"name": "load", "max_tokens": 1, "queries": [{"prompt": "w1", "expect": "direct"}]}
        (folder / "suite.yaml").write_text(json.dumps(suite))
        (folder / "pipeline.yaml").write_text("\n".join(lines) + "\n")
        for node in MODELS.values():
            self.build(node)

    def build(self, node, *options):
        subprocess.run([PIPELINE, "-C", self.folder, "build", *options, node], check=True, capture_output=True)

    def artifact(self, node):
        return (self.folder / "artifacts" / node).resolve()

    def measure(self, node, device):
        """Loads a model, whatever was measured before, and returns the seconds and the peak memory."""
        self.build(f"{node}-{device}", "--force")
        timings = self.folder / "artifacts" / f"{node}-{device}" / "timings.json"
        timed = json.loads(timings.read_text())["configs"]["model"]
        return {"load": timed["load_seconds"], "memory": timed["peak_memory_bytes"]}


def measure_mlx_lm(folder):
    output = subprocess.check_output([PYTHON, "-c", MLX_LM, folder], text=True)
    return json.loads(output.splitlines()[-1])


def files(folder):
    return sorted(folder.glob("*.safetensors"))


def read(folder):
    """Reads the files into memory once, and returns the seconds and their size."""
    length = sum(file.stat().st_size for file in files(folder))
    start, at = time.perf_counter(), 0
    memory = memoryview(bytearray(length))
    for path in files(folder):
        with path.open("rb", buffering=0) as file:
            while got := file.readinto(memory[at:]):
                at += got
    return {"load": time.perf_counter() - start, "memory": length}


def measure(scratch, quick):
    source = scratch / "source"
    model.write_experts(source, "tiny experts" if quick else "experts to load")
    write_words(source)
    project = Project(scratch / "project", source)
    turns = 1 if quick else 5
    runs = {(name, who): [] for name in MODELS for who in ("reading", *DEVICES, "mlx-lm")}
    for turn in range(turns):
        for name, node in MODELS.items():
            runs[name, "reading"].append(read(project.artifact(node)))
            for who, device in DEVICES.items():
                runs[name, who].append(project.measure(node, device))
            runs[name, "mlx-lm"].append(measure_mlx_lm(project.artifact(node)))
        print(f"load: turn {turn + 1} of {turns}", file=sys.stderr)
    return runs, turns


def table(runs):
    yield "| | | load | of reading | peak memory | of the file |"
    yield "|---|---|--:|--:|--:|--:|"
    for name in MODELS:
        seconds, length = (statistics.median(run[kind] for run in runs[name, "reading"]) for kind in ("load", "memory"))
        yield f"| {name} | reading the file | {seconds:.2f} s | | {length / 1e9:.2f} GB | |"
        for who in (*DEVICES, "mlx-lm"):
            load, memory = (statistics.median(run[kind] for run in runs[name, who]) for kind in ("load", "memory"))
            row = f"{load:.2f} s | {load / seconds:.2f} | {memory / 1e9:.2f} GB | {memory / length:.2f}"
            yield f"| {name} | {who} | {row} |"


def section(runs, turns, before):
    load = f"load average {before:.1f} before and {os.getloadavg()[0]:.1f} after"
    versions = f"{pipeline_version()}, mlx-lm {version('mlx-lm')}, mlx {version('mlx')}"
    return f"""## Loading experts

What `make bench` measured on a stand-in for Qwen3-30B-A3B with 64 experts in each of six layers and random weights: from the
start of loading to the moment when the first token could be read, and the peak memory of the process, in which one token is read
and one is written. *Reading the file* is a program that reads the same files into memory, on one core, and does nothing else. On a
CPU, MLX computes in float32, so what is in 16 bits takes twice its size there; mlx-lm is measured without that, and reads no token.
Medians of {turns} turns, in turns, the files in the page cache.

{machine()}; {versions}; {load}.

{chr(10).join(table(runs))}
"""


def main():
    parser = argparse.ArgumentParser(description="Times the loading of a mixture of experts.")
    parser.add_argument("--quick", action="store_true", help="a tiny model, once; prints and writes no results")
    parser.add_argument("--scratch", type=Path, help="where to work, instead of the system's temporary folder")
    arguments = parser.parse_args()
    before = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(dir=arguments.scratch) as scratch:
        text = section(*measure(Path(scratch).resolve(), arguments.quick), before)
    print(text)
    if not arguments.quick:
        write_section("load", text)


if __name__ == "__main__":
    main()
