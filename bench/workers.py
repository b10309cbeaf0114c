#!/usr/bin/env python3
"""Measures the scheduler with simulated workers: thousands of nodes, hundreds of workers, some jobs slow and some lost.

The program `crates/engine/examples/scale.rs` is the whole build: the real scheduler, the real driver of a worker, requests and
records signed and written to a folder as remote. Only the machines are simulated. This measures speed and tests nothing: the
exit code does not depend on the figures.

    python3 bench/workers.py [--quick]

Needs `pipeline` and the example, built with --release (make bench builds both).
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from results import PIPELINE, REPOSITORY, machine, write_section

# Nodes, workers, and how long a job takes in the middle, in seconds. The last case has no work: only the decisions take time.
CASES = [(5000, 500, 4.0), (5000, 50, 0.4), (5000, 500, 0.0)]


def measure(nodes, workers, seconds):
    """Builds one simulated graph; returns the figures."""
    program = PIPELINE.parent / "examples" / "scale"
    # The engine looks for the program that signs beside itself.
    shutil.copy(PIPELINE, program.parent / "pipeline")
    with tempfile.TemporaryDirectory() as scratch:
        config = Path(scratch) / "config"
        environment = os.environ | {"XDG_CONFIG_HOME": str(config), "XDG_STATE_HOME": scratch}
        subprocess.run([PIPELINE, "keys", "init"], env=environment, check=True, capture_output=True)
        folder = Path(scratch) / "project"
        folder.mkdir()
        command = [program, folder, str(nodes), str(workers), str(seconds)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{program} failed:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout)


def section(runs, before):
    """The section of RESULTS.md."""
    lines = [
        "## Workers",
        "",
        "What `make bench` measured of the scheduler with simulated workers: chains of five nodes, and one node that reads the end",
        "of each. Jobs take half to one and a half of *job*, one in 20 four times that, and one in 50 is lost half-way and begins",
        "again. *Greedy* is a schedule of the same jobs in which nothing else takes time. Requests, records and outcomes are signed",
        "and go through a folder as remote; coordinator and simulated workers share the two cores. In the last line jobs take no",
        "time, so it shows how many nodes the coordinator decides on, asks for and takes in each second. *Processor* and *memory* are",
        "those of the whole process, the simulated workers included.",
        "",
        f"{machine()}; load average {before:.1f} before and {os.getloadavg()[0]:.1f} after.",
        "",
        "| nodes | workers | job | attempts | time | greedy | of greedy | nodes/s | processor | peak memory |",
        "|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for (nodes, workers, seconds), run in runs:
        timed = seconds > 0
        lines.append(
            f"| {nodes} | {workers} | {f'{seconds} s' if timed else 'none'} | {run['attempts']} | {run['seconds']:.1f} s "
            f"| {run['greedy_seconds']:.1f} s | {f'''{run['ratio']:.2f}''' if timed else ''} | {run['nodes_per_second']:.0f} "
            f"| {run['processor_seconds']:.1f} s | {run['peak_memory_bytes'] / 1e6:.0f} MB |"
        )
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a tenth of the nodes, and no results written")
    arguments = parser.parse_args()
    before = os.getloadavg()[0]
    scale = 10 if arguments.quick else 1
    cases = [(nodes // scale, workers // scale, seconds) for nodes, workers, seconds in CASES]
    runs = [(case, measure(*case)) for case in cases]
    text = section(runs, before)
    print(text)
    if not arguments.quick:
        write_section("workers", text)


if __name__ == "__main__":
    main()
