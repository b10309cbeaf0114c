#!/usr/bin/env python3
"""How long `pipeline` takes for a model of 1 GB, and how much memory, beside mlx-lm and beside copying the bytes.

Both work on the same files in the same run, in turns, and what they make is compared tensor by tensor. The source lies
in the page cache; `pipeline` begins with an empty cache folder of its own, so it hashes the source every time. Between two
runs the disk is left to finish, so that nobody pays for what another wrote. Speed is measured here, not tested: the exit
code is 0 whatever comes out.

    python3 bench/weights.py [--quick] [--scratch FOLDER]

Needs mlx-lm in `.mlx-lm/` (make setup) and some 20 GB of disk.
"""

import argparse
import importlib.metadata
import json
import os
import shutil
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import model
from results import PIPELINE, REPOSITORY, machine, write_section

PYTHON = REPOSITORY / ".mlx-lm" / "bin" / "python"
GROUP_SIZE = 64
BITS = (8, 6, 4)
BLOCK_BYTES = 8 << 20
ALLOWED_BYTES = 300e6  # of memory, beside twice the largest tensor


# --- One run ---------------------------------------------------------------------------------------------------


class Run:
    """What a run took: seconds, and the peak memory of the process and of those it waited for, in bytes."""

    def __init__(self, seconds, peak=0):
        self.seconds, self.peak = seconds, peak


def run(command):
    """Runs a command to its end. Its output is shown only if it fails.

    Linux counts the memory of this process, from which the new one is split off, as the least of its peak: some 30 MB.
    """
    argv = [str(part) for part in command]
    with tempfile.TemporaryFile() as said:
        actions = [(os.POSIX_SPAWN_DUP2, said.fileno(), 1), (os.POSIX_SPAWN_DUP2, said.fileno(), 2)]
        start = time.perf_counter()
        process = os.posix_spawnp(argv[0], argv, os.environ, file_actions=actions)
        _, status, usage = os.wait4(process, 0)
        seconds = time.perf_counter() - start
        if status != 0:
            said.seek(0)
            sys.exit(f"{' '.join(argv)} failed:\n{said.read()[-3000:].decode(errors='replace')}")
    unit = 1 if sys.platform == "darwin" else 1024
    return Run(seconds, usage.ru_maxrss * unit)


def settle(inputs):
    """Lets the disk finish, and puts the inputs into the page cache."""
    os.sync()
    for path in inputs:
        with path.open("rb", buffering=0) as file:
            while file.read(BLOCK_BYTES):
                pass


def weights(folder):
    """Returns the files of weights in a folder."""
    return sorted(folder.glob("*.safetensors"))


def size(files):
    return sum(path.stat().st_size for path in files)


def run_pipeline(output, nodes, target, prefix=()):
    """Builds `target` in a new project at `output` with a cache folder of its own."""
    output.mkdir()
    lines = ["version: 1", "nodes:"] + [f"  {name}: {{{node}}}" for name, node in nodes.items()]
    (output / "pipeline.yaml").write_text("\n".join(lines) + "\n")
    return run([*prefix, PIPELINE, "-C", output, "build", target])


def run_mlx_lm(verb, **options):
    """Runs a verb of mlx-lm; an option that is True is a flag."""
    command = [PYTHON, "-m", "mlx_lm", verb]
    for name, value in options.items():
        command.append(f"--{name.replace('_', '-')}")
        if value is not True:
            command.append(value)
    return run(command)


# --- Tasks: what both programs do ------------------------------------------------------------------------------


class Quantize:
    """Quantizes a model: `mlx_lm.convert -q`."""

    def __init__(self, source, bits):
        self.source, self.bits = source, bits
        self.label = f"quantize to {bits} bits"
        self.inputs = weights(source)

    def pipeline(self, output):
        nodes = {
            "base": f"stage: base, source: {self.source}",
            "made": f"stage: quantize, model: base, bits: {self.bits}, group_size: {GROUP_SIZE}",
        }
        return run_pipeline(output, nodes, "made")

    def mlx_lm(self, output):
        options = {"q_bits": self.bits, "q_group_size": GROUP_SIZE}
        return run_mlx_lm("convert", hf_path=self.source, mlx_path=output, quantize=True, **options)


class Fuse:
    """Dequantizes a model and merges an adapter into it: `mlx_lm.fuse --dequantize`."""

    def __init__(self, source, adapter):
        self.source, self.adapter = source, adapter
        self.label = "fuse onto 4 bits"
        self.inputs = weights(source) + weights(adapter)

    def pipeline(self, output):
        nodes = {
            "base": f"stage: base, source: {self.source}",
            "adapter": f"stage: adapter, source: {self.adapter}",
            "made": "stage: fuse, model: base, adapter: adapter",
        }
        return run_pipeline(output, nodes, "made")

    def mlx_lm(self, output):
        return run_mlx_lm("fuse", model=self.source, adapter_path=self.adapter, save_path=output, dequantize=True)


def copy(inputs, output):
    """Copies the inputs with `cp` until they are on the disk."""
    output.mkdir()
    start = time.perf_counter()
    clone = ["--reflink=never"] if sys.platform == "linux" else []
    subprocess.run(["cp", *clone, *inputs, output], check=True)
    for path in output.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())
    return Run(time.perf_counter() - start)


def read_and_write(inputs, length, output):
    """Reads the inputs, and writes `length` bytes until they are on the disk: the least that any program does."""
    start = time.perf_counter()
    block = b""
    for path in inputs:
        file = os.open(path, os.O_RDONLY)
        while data := os.read(file, BLOCK_BYTES):
            block = data if len(data) > len(block) else block
        os.close(file)
    file = os.open(output, os.O_WRONLY | os.O_CREAT)
    while length > 0:
        length -= os.write(file, block[:length])
    os.fsync(file)
    os.close(file)
    return Run(time.perf_counter() - start)


def remove(path):
    """Removes what a run made; its artifacts are read-only."""
    if path.is_file():
        path.unlink()
    else:
        shutil.rmtree(path)


# --- Comparing what they made ----------------------------------------------------------------------------------


class Tensors:
    """Where the tensors of a model lie."""

    def __init__(self, folder):
        self.places = {}
        for path in weights(folder):
            with path.open("rb") as file:
                (length,) = struct.unpack("<Q", file.read(8))
                header = json.loads(file.read(length))
            header.pop("__metadata__", None)
            for name, entry in header.items():
                begin, end = entry["data_offsets"]
                self.places[name] = (entry["dtype"], entry["shape"]), path, 8 + length + begin, end - begin

    def blocks(self, name):
        """Yields the bytes of a tensor in blocks."""
        _, path, offset, length = self.places[name]
        with path.open("rb") as file:
            file.seek(offset)
            while length > 0:
                block = file.read(min(length, BLOCK_BYTES))
                length -= len(block)
                yield block

    def equals(self, other, name):
        if name not in other.places or self.places[name][0] != other.places[name][0]:
            return False
        return all(ours == theirs for ours, theirs in zip(self.blocks(name), other.blocks(name)))


def compare(ours, theirs):
    """Returns how many tensors of two folders are equal in name, type, shape and bytes, and how many are not."""
    ours, theirs = Tensors(ours), Tensors(theirs)
    names = ours.places.keys() | theirs.places.keys()
    equal = sum(name in ours.places and ours.equals(theirs, name) for name in names)
    return equal, len(names) - equal


# --- Measuring -------------------------------------------------------------------------------------------------


class Measured:
    """The runs of one task by contender, and what the comparison said."""

    def __init__(self, task):
        self.label = task.label
        self.input_bytes = size(task.inputs)
        self.output_bytes = 0
        self.runs = {"pipeline": [], "mlx-lm": [], "cp": [], "read and write": []}
        self.equal = self.different = 0

    def seconds(self, contender):
        return statistics.median(run.seconds for run in self.runs[contender])

    def peak(self, contender):
        return max(run.peak for run in self.runs[contender])

    def ratio(self, other):
        return self.seconds("pipeline") / self.seconds(other)


def measure(task, scratch, turns, slow_turns):
    """Runs the contenders in turns; mlx-lm, which is slow, in the first ones only."""
    measured = Measured(task)
    ours, theirs, copied = scratch / "ours", scratch / "theirs", scratch / "copied"
    made = ours / "artifacts" / "made"
    for turn in range(turns):
        settle(task.inputs)
        measured.runs["pipeline"].append(task.pipeline(ours))
        measured.output_bytes = size(weights(made))
        if turn < slow_turns:
            settle(task.inputs)
            measured.runs["mlx-lm"].append(task.mlx_lm(theirs))
        if turn == 0:
            measured.equal, measured.different = compare(made, theirs)
        settle(task.inputs)
        measured.runs["cp"].append(copy(task.inputs, copied))
        remove(copied)
        settle(task.inputs)
        measured.runs["read and write"].append(read_and_write(task.inputs, measured.output_bytes, copied))
        for path in [ours, copied] + [theirs] * (turn < slow_turns):
            remove(path)
        say(f"{task.label}: turn {turn + 1} of {turns}")
    return measured


def measure_hashing(source, scratch, turns):
    """Returns the seconds that one core takes to hash a source, by program."""
    pin = ["taskset", "-c", "0"] if shutil.which("taskset") else []
    files = weights(source)
    seconds = {"pipeline": [], "b3sum": []} if shutil.which("b3sum") else {"pipeline": []}
    for _ in range(turns):
        settle(files)
        project = scratch / "hashed"
        taken = run_pipeline(project, {"base": f"stage: base, source: {source}"}, "base", pin)
        seconds["pipeline"].append(taken.seconds)
        remove(project)
        if "b3sum" in seconds:
            settle(files)
            seconds["b3sum"].append(run([*pin, "b3sum", *files]).seconds)
    return {name: statistics.median(runs) for name, runs in seconds.items()}, bool(pin)


def measure_start():
    """Returns the seconds that mlx-lm takes to start, which it does in each of its times."""
    return statistics.median(run([PYTHON, "-m", "mlx_lm", "convert", "--help"]).seconds for _ in range(3))


def measure_peaks(source, adapter, scratch):
    """Returns the label and the peak memory of each task on a large model."""
    quantized = scratch / "large-4bit"
    Quantize(source, 4).pipeline(quantized)
    peaks = []
    for task in Quantize(source, 8), Fuse(quantized / "artifacts" / "made", adapter):
        os.sync()
        peaks.append((task.label, task.pipeline(scratch / "ours").peak))
        remove(scratch / "ours")
        say(f"large: {task.label}")
    remove(quantized)
    return peaks


def say(text):
    print(text, file=sys.stderr)


# --- The report ------------------------------------------------------------------------------------------------


def section(tasks, hashing, start, peaks, large, turns, load):
    """Returns the section of the results as Markdown."""
    (seconds, pinned), hashed = hashing, tasks[0].input_bytes
    many, few = turns
    lines = [
        "## Weights",
        "",
        f"What `make bench` measured on a float16 model with the shapes of Qwen2 0.5B, {hashed / 1e9:.2f} GB: the time of a whole process,",
        "start to end, the source in the page cache. `pipeline` starts with an empty cache folder, so hashing the source is",
        f"part of it. mlx-lm's time has {start:.1f} s in it in which Python starts. `pipeline` and both copies wait until their bytes",
        "are on the disk, mlx-lm does not.",
        f"Medians of {many} turns, of mlx-lm {few}; all on the same files, one after the other, the disk left to finish between.",
        "",
        f"{machine()}, {filesystem()}; {pipeline_version()}, mlx-lm {version('mlx-lm')}, mlx {version('mlx')}; load average {load:.1f}.",
        "",
        "| | read | written | pipeline | mlx-lm | pipeline / mlx-lm | `cp` | pipeline / `cp` | read and write | pipeline / that |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for task in tasks:
        took = {name: f"{task.seconds(name):.2f} s" for name in task.runs}
        lines.append(
            f"| {task.label} | {task.input_bytes / 1e9:.2f} GB | {task.output_bytes / 1e9:.2f} GB "
            f"| {took['pipeline']} | {took['mlx-lm']} | {task.ratio('mlx-lm'):.2f} "
            f"| {took['cp']} | {task.ratio('cp'):.2f} | {took['read and write']} | {task.ratio('read and write'):.2f} |"
        )
    lines += [
        "",
        "`cp` copies what is read; *read and write* reads it and writes as many bytes as the output has.",
        "",
        "| | read by pipeline | peak memory, pipeline | peak memory, mlx-lm | tensors equal | tensors different |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    for task in tasks:
        speed = task.input_bytes / task.seconds("pipeline") / 1e9
        ours, theirs = task.peak("pipeline") / 1e6, task.peak("mlx-lm") / 1e6
        lines.append(
            f"| {task.label} | {speed:.2f} GB/s | {ours:,.0f} MB | {theirs:,.0f} MB | {task.equal} | {task.different} |"
        )
    where = "one core" if pinned else "all cores"
    speeds = ", ".join(f"{name} {hashed / taken / 1e9:.2f} GB/s" for name, taken in seconds.items())
    lines += ["", f"Hashing the source on {where}: {speeds}."]
    bound = ALLOWED_BYTES + 2 * large["largest"]
    lines += [
        "",
        f"Peak memory of `pipeline` on a model of {large['bytes'] / 1e9:.2f} GB whose largest tensor has",
        f"{large['largest'] / 1e6:,.0f} MB; 300 MB and twice that tensor are {bound / 1e6:,.0f} MB:",
        "",
        "| | peak memory | of that |",
        "|---|--:|--:|",
    ]
    lines += [f"| {label} | {peak / 1e6:,.0f} MB | {peak / bound:.0%} |" for label, peak in peaks]
    return "\n".join(lines) + "\n"


def filesystem():
    """Returns the name of the file system that was written to."""
    if sys.platform != "linux":
        return "APFS"
    command = ["findmnt", "--noheadings", "--output", "FSTYPE", "--target", tempfile.gettempdir()]
    return subprocess.run(command, capture_output=True, text=True).stdout.strip() or "an unknown file system"


def pipeline_version():
    return subprocess.run([PIPELINE, "--version"], capture_output=True, text=True, check=True).stdout.strip()


def version(package):
    """Returns the version of a package beside mlx-lm."""
    site = next((REPOSITORY / ".mlx-lm" / "lib").glob("python*/site-packages"))
    found = importlib.metadata.distributions(name=package, path=[str(site)])
    return next(iter(found)).version


def benchmark(scratch, quick):
    """Measures everything in a scratch folder and returns the section."""
    kind, turns, slow_turns = ("tiny", 1, 1) if quick else ("small", 5, 3)
    load = os.getloadavg()[0]
    source, adapter = scratch / "source", scratch / "adapter"
    model.write_model(source, kind)
    model.write_adapter(adapter, kind)
    say("the model is written")
    tasks = [measure(Quantize(source, bits), scratch, turns, slow_turns) for bits in BITS]
    quantized = scratch / "quantized"
    Quantize(source, 4).mlx_lm(quantized)
    tasks.append(measure(Fuse(quantized, adapter), scratch, turns, slow_turns))
    hashing = measure_hashing(source, scratch, turns)
    for path in source, adapter, quantized:
        remove(path)
    kind = "tiny" if quick else "large"
    model.write_model(source, kind)
    model.write_adapter(adapter, kind)
    large = {"bytes": size(weights(source)), "largest": model.largest_tensor(kind)}
    peaks = measure_peaks(source, adapter, scratch)
    return section(tasks, hashing, measure_start(), peaks, large, (turns, slow_turns), load)


def main():
    parser = argparse.ArgumentParser(description="Times pipeline beside mlx-lm and beside copying.")
    parser.add_argument("--quick", action="store_true", help="a tiny model, once; prints and writes no results")
    parser.add_argument("--scratch", type=Path, help="where the models are written; a temporary folder unless given")
    arguments = parser.parse_args()
    if not PYTHON.exists():
        sys.exit("mlx-lm is not set up: run make setup")
    with tempfile.TemporaryDirectory(dir=arguments.scratch) as scratch:
        text = benchmark(Path(scratch).resolve(), arguments.quick)
    print(text)
    if not arguments.quick:
        write_section("weights", text)


if __name__ == "__main__":
    main()
