#!/usr/bin/env python3
"""Measures the time and memory of `pipeline` for a model of 1 GB, and compares with mlx-lm and with copying the bytes.

Both work on the same files in the same run, in turns, and what they make is compared tensor by tensor. The source
lies in the page cache; `pipeline` begins with an empty cache folder of its own, so it hashes the source every time.
Between two runs the disk finishes its writes, so that no run waits for those of another. This measures speed and
tests nothing: the exit code does not depend on the figures.

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
        self.runs = {"pipeline": [], "mlx-lm": [], "its start": [], "cp": [], "read and write": []}
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
            measured.runs["its start"].append(run([PYTHON, "-m", "mlx_lm", "convert", "--help"]))
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
    """Says how fast one core hashes a source, by program."""
    pin = ["taskset", "-c", "0"] if shutil.which("taskset") else []
    files = weights(source)
    project = scratch / "hashed"
    base = {"base": f"stage: base, source: {source}"}
    hashers = {"pipeline": lambda: run_pipeline(project, base, "base", pin)}
    if shutil.which("b3sum"):
        hashers["b3sum"] = lambda: run([*pin, "b3sum", *files])
    seconds = {name: [] for name in hashers}
    for _ in range(turns):
        for name, hasher in hashers.items():
            settle(files)
            seconds[name].append(hasher().seconds)
        remove(project)
    speeds = [f"{name} {size(files) / statistics.median(taken) / 1e9:.2f} GB/s" for name, taken in seconds.items()]
    return f"Hashing the source on {'one core' if pin else 'all cores'}: {', '.join(speeds)}."


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


def section(tasks, hashing, large, turns, surroundings):
    """Returns the section of the results as Markdown."""
    many, few = turns
    lines = [
        "## Weights",
        "",
        "What `make bench` measured on a float16 model with the shapes of Qwen2 0.5B: the time of a whole process, the",
        "source in the page cache. `pipeline` starts with an empty cache folder, so hashing the source is part of it; it",
        "and both copies wait until their bytes are on the disk, mlx-lm does not. *Its start* is the part of mlx-lm's time",
        "in which Python loads it. `cp` copies what is read; *read and write* reads that and writes as many bytes as the",
        f"output has. Medians of {many} turns, of mlx-lm {few}; all on the same files, one after the other, the disk left to",
        "finish between.",
        "",
        surroundings,
        "",
        *times(tasks),
        "",
        *ratios(tasks),
        "",
        *memory_and_tensors(tasks),
        "",
        hashing,
        "",
        *large,
    ]
    return "\n".join(lines) + "\n"


def times(tasks):
    yield "| | read | written | pipeline | mlx-lm | its start | `cp` | read and write |"
    yield "|---|--:|--:|--:|--:|--:|--:|--:|"
    for task in tasks:
        read, written = (f"{count / 1e9:.2f} GB" for count in (task.input_bytes, task.output_bytes))
        took = " | ".join(f"{task.seconds(name):.2f} s" for name in task.runs)
        yield f"| {task.label} | {read} | {written} | {took} |"


def ratios(tasks):
    yield "| | pipeline reads | pipeline / mlx-lm | pipeline / `cp` | pipeline / read and write |"
    yield "|---|--:|--:|--:|--:|"
    for task in tasks:
        speed = task.input_bytes / task.seconds("pipeline") / 1e9
        found = " | ".join(f"{task.ratio(other):.2f}" for other in ("mlx-lm", "cp", "read and write"))
        yield f"| {task.label} | {speed:.2f} GB/s | {found} |"


def memory_and_tensors(tasks):
    yield "| | peak memory of pipeline | of mlx-lm | equal tensors | different tensors |"
    yield "|---|--:|--:|--:|--:|"
    for task in tasks:
        ours, theirs = (f"{task.peak(name) / 1e6:,.0f} MB" for name in ("pipeline", "mlx-lm"))
        yield f"| {task.label} | {ours} | {theirs} | {task.equal} | {task.different} |"


def large_model(source, largest, peaks):
    bound = ALLOWED_BYTES + 2 * largest
    yield f"Peak memory of `pipeline` on a model of {size(weights(source)) / 1e9:.2f} GB whose largest tensor has"
    yield f"{largest / 1e6:,.0f} MB; 300 MB and twice that tensor are {bound / 1e6:,.0f} MB:"
    yield ""
    yield "| | peak memory | of that |"
    yield "|---|--:|--:|"
    for label, peak in peaks:
        yield f"| {label} | {peak / 1e6:,.0f} MB | {peak / bound:.0%} |"


def surroundings(folder, before):
    """Describes what was measured on and with."""
    versions = f"{pipeline_version()}, mlx-lm {version('mlx-lm')}, mlx {version('mlx')}"
    load = f"load average {before:.1f} before and {os.getloadavg()[0]:.1f} after"
    return f"{machine()}, {filesystem(folder)}; {versions}; {load}."


def filesystem(folder):
    """Returns the name of the file system that a folder is on."""
    if sys.platform != "linux":
        return "APFS"
    command = ["findmnt", "--noheadings", "--output", "FSTYPE", "--target", folder]
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
    before = os.getloadavg()[0]
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
    peaks = measure_peaks(source, adapter, scratch)
    large = large_model(source, model.largest_tensor(kind), peaks)
    return section(tasks, hashing, large, (turns, slow_turns), surroundings(scratch, before))


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
