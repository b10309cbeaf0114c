#!/usr/bin/env python3
"""Measures how fast `pipeline` quantizes a mixture of experts, by the layout of its checkpoint, beside a dense model.

The models are read from the page cache, each with an empty cache folder, in turns. This measures speed and tests nothing.

    python3 bench/experts.py [--quick] [--scratch FOLDER]

Needs some 12 GB of disk.
"""

import argparse
import os
import statistics
import tempfile
from pathlib import Path

import model
from results import write_section
from weights import Quantize, remove, say, settle, size, surroundings, weights

BITS = 4


def measure(sources, scratch, turns):
    """Returns the seconds and the peak memory of each turn, by source."""
    runs = {name: [] for name in sources}
    for turn in range(turns):
        for name, source in sources.items():
            task = Quantize(source, BITS)
            settle(task.inputs)
            runs[name].append(task.pipeline(scratch / "made"))
            remove(scratch / "made")
        say(f"experts: turn {turn + 1} of {turns}")
    return runs


def section(sources, runs, around, turns):
    rates = {}
    lines = [
        "## Experts",
        "",
        "What `make bench` measured on stand-ins for Qwen3-30B-A3B: its shapes and its 128 experts, with two of its layers, as the",
        "hub stores experts, quantized to 4 bits in groups of 64. *Dense* is the model of the section on weights. *Rate* is what is",
        f"read by the time of a whole process; *of dense* compares that with the dense model's. Medians of {turns} turns, in turns.",
        "",
        around,
        "",
        "| | read | tensors | time | rate | of dense | peak memory |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    for name, source in sources.items():
        read = size(weights(source))
        seconds = statistics.median(run.seconds for run in runs[name])
        rates[name] = read / seconds / 1e9
        peak = max(run.peak for run in runs[name]) / 1e6
        tensors = (source / "model.safetensors.index.json").read_text().count(".safetensors\"")
        lines.append(
            f"| {name} | {read / 1e9:.2f} GB | {tensors:,} | {seconds:.2f} s | {rates[name]:.2f} GB/s "
            f"| {rates[name] / rates['dense']:.2f} | {peak:,.0f} MB |"
        )
    return "\n".join(lines) + "\n"


def benchmark(scratch, quick):
    """Measures in a scratch folder and returns the section."""
    before = os.getloadavg()[0]
    dense, experts, turns = ("tiny", "tiny experts", 1) if quick else ("small", "experts", 5)
    sources = {"dense": scratch / "dense"}
    model.write_model(sources["dense"], dense)
    for number, layout in enumerate(model.LAYOUTS):
        name = f"experts {layout}"
        sources[name] = scratch / f"experts-{number}"
        model.write_experts(sources[name], experts, layout)
    say("the models are written")
    runs = measure(sources, scratch, turns)
    return section(sources, runs, surroundings(scratch, before), turns)


def main():
    parser = argparse.ArgumentParser(description="Times pipeline on mixtures of experts.")
    parser.add_argument("--quick", action="store_true", help="tiny models, once; prints and writes no results")
    parser.add_argument("--scratch", type=Path, help="where the models are written; a temporary folder unless given")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.scratch) as scratch:
        text = benchmark(Path(scratch).resolve(), arguments.quick)
    print(text)
    if not arguments.quick:
        write_section("experts", text)


if __name__ == "__main__":
    main()
