#!/usr/bin/env python3
"""Measures how many tokens a second `pipeline` reads and writes, beside llama.cpp and mlx-lm on the same weights.

All answer in turns, each in a process of its own, on the CPU with all cores. `pipeline` is run as a user runs it: it builds
a benchmark node, and its `timings.json` is read. llama.cpp reads the same weights in its own formats, from which it is
driven as its own llama-bench does. mlx-lm is "helped", with float32 activations, and with the BLAS that the MLX of
`pipeline` uses if it is set up: without that help it is slower still. This measures speed and tests nothing: the exit
code does not depend on the figures.

    python3 bench/decode.py [--quick] [--scratch FOLDER]

Needs mlx-lm in `.mlx-lm/` and llama.cpp in `.llama-cpp/` (make bench), and some 2 GB of disk.
"""

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import model
import smollm
from results import BENCH, PIPELINE, REPOSITORY, machine, write_section
from weights import PYTHON, pipeline_version, version

WORDS = 1000
TINY = REPOSITORY / "examples" / "tiny" / "base-4bit"
TINY_PROMPT = "I wonder. Is it raining in Paris now?"
CHAT_TEMPLATE = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
SPEEDS = ("prefill", "decode")
MLX_LM = "mlx-lm"
LLAMA_CPP = REPOSITORY / ".llama-cpp"
LLAMA_PYTHON = LLAMA_CPP / "python" / "bin" / "python"
READ_MEMORY = REPOSITORY / "target" / "release" / "examples" / "read_memory"


def words(count):
    """Returns a prompt of so many tokens."""
    generator = random.Random(count)
    return " ".join(f"w{generator.randrange(WORDS)}" for _ in range(count))


def write_words(folder):
    """Gives a model a tokenizer of many words, each a token, and a chat template that adds nothing."""
    vocabulary = {"<unk>": 0} | {f"w{number}": number + 1 for number in range(WORDS)}
    words = {"type": "WordLevel", "vocab": vocabulary, "unk_token": "<unk>"}
    split = {"type": "WhitespaceSplit"}
    tokenizer = {"version": "1.0", "added_tokens": [], "pre_tokenizer": split, "model": words}
    model.write_json(folder / "tokenizer.json", tokenizer)
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "chat_template": CHAT_TEMPLATE}
    model.write_json(folder / "tokenizer_config.json", config)


class Case:
    """A node of the project, what its model is asked, and the formats of llama.cpp that it is compared with."""

    def __init__(self, node, label, sizes, formats=()):
        self.node, self.label, self.formats = node, label, formats
        self.prompt, self.max_tokens = sizes
        self.runs = {contender: [] for contender in ("pipeline", MLX_LM, *formats)}

    def figure(self, contender, kind):
        """Returns the median, or nothing where this contender was not run."""
        runs = self.runs[contender]
        return statistics.median(run[kind] for run in runs) if runs else None


class Project:
    """A pipeline file with the models, and a benchmark of each."""

    def __init__(self, folder, source):
        self.folder = folder
        self.nodes = {
            "tiny": f"stage: base, source: {TINY}",
            "float16": f"stage: base, source: {source}",
            "8bit": "stage: quantize, model: float16, bits: 8, group_size: 32",
            "6bit": "stage: quantize, model: float16, bits: 6, group_size: 64",
            "4bit": "stage: quantize, model: float16, bits: 4, group_size: 32",
        }
        folder.mkdir()
        self.write()
        for node in self.nodes:
            self.build(node)

    def write(self):
        lines = ["version: 1", "nodes:"] + [f"  {name}: {{{node}}}" for name, node in self.nodes.items()]
        for name in self.nodes:
            suite = f"stage: benchmark, suite: {name}.yaml, configs: {{model: {name}}}, device: cpu"
            lines.append(f"  bench-{name}: {{{suite}}}")
            (self.folder / f"{name}.yaml").touch()
        (self.folder / "pipeline.yaml").write_text("\n".join(lines) + "\n")

    def build(self, node, *options):
        subprocess.run([PIPELINE, "-C", self.folder, "build", *options, node], check=True, capture_output=True)

    def measure(self, case):
        """Runs the benchmark of a case, whatever was measured before, and returns its figures."""
        suite = {
            "name": "speed",
            "max_tokens": case.max_tokens,
            "queries": [{"prompt": case.prompt, "expect": "direct"}],
        }
        (self.folder / f"{case.node}.yaml").write_text(json.dumps(suite))
        self.build(f"bench-{case.node}", "--force")
        report = self.folder / "artifacts" / f"bench-{case.node}"
        timings = json.loads((report / "timings.json").read_text())["configs"]["model"]
        results = json.loads((report / "results.json").read_text())["configs"]["model"]
        speeds = {kind: timings[f"{kind}_tokens_per_second"] for kind in SPEEDS}
        return speeds | {"memory": timings["peak_memory_bytes"], "disk": results["disk_bytes"]}

    def measure_mlx_lm(self, case, max_tokens):
        """Runs mlx-lm on the same files and returns what it printed."""
        environment = dict(os.environ)
        if blas := our_blas():
            environment["LD_PRELOAD"] = str(blas)
        artifact = (self.folder / "artifacts" / case.node).resolve()
        command = [PYTHON, BENCH / "mlx_lm_decode.py", artifact, case.prompt, str(max_tokens), "float32"]
        run = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
        return json.loads(run.stdout)


def measure_llama_cpp(gguf, prompt_tokens, max_tokens):
    """Runs llama.cpp on a file in its own format and returns what it printed."""
    command = [LLAMA_PYTHON, BENCH / "llama_cpp.py", gguf, prompt_tokens, max_tokens, os.cpu_count()]
    run = subprocess.run([str(word) for word in command], check=True, capture_output=True, text=True)
    return json.loads(run.stdout)


def read_seconds(length):
    """Returns how long all cores take to read so many bytes from memory."""
    return float(subprocess.check_output([READ_MEMORY, str(length)]))


def our_blas():
    """Returns the BLAS that the MLX of our build is linked to, if it is not the one that mlx-lm has too."""
    linked = (REPOSITORY / ".mlx" / "python" / "mlx_cpu.libs").glob("libblas-*")
    return next((path.resolve() for path in linked if path.is_symlink()), None)


def cases(quick):
    sizes = (words(128), 9 if quick else 65)
    yield Case("float16", "float16", sizes, ("F16",))
    yield Case("8bit", "8 bits, groups of 32", sizes, ("Q8_0",))
    yield Case("6bit", "6 bits, groups of 64", sizes)
    yield Case("4bit", "4 bits, groups of 32", sizes, ("Q4_0", "Q4_1"))
    yield Case("tiny", "`examples/tiny`", (TINY_PROMPT, 48))


def measure(scratch, quick):
    source, turns = scratch / "source", 1 if quick else 5
    smollm.write_model(source)
    write_words(source)
    project = Project(scratch / "project", source)
    measured = list(cases(quick))
    has_llama = (LLAMA_CPP / "stamp").exists()
    if has_llama:
        command = [LLAMA_PYTHON, BENCH / "gguf_model.py", source, scratch]
        subprocess.run([str(word) for word in command], check=True, capture_output=True)
    for turn in range(turns):
        for case in measured:
            case.runs["pipeline"].append(project.measure(case))
            for form in case.formats if has_llama else ():
                gguf = scratch / f"{form.lower()}.gguf"
                case.runs[form].append(measure_llama_cpp(gguf, 128, case.max_tokens))
            # Its products with packed weights take a fifth of a second a token on a CPU.
            if turn < 3:
                case.runs[MLX_LM].append(project.measure_mlx_lm(case, min(case.max_tokens, 17)))
        print(f"turn {turn + 1} of {turns}", file=sys.stderr)
    lengths = {case.node: project.folder / "artifacts" / case.node for case in measured}
    read = {
        node: read_seconds(sum(file.stat().st_size for file in folder.glob("*.safetensors")))
        for node, folder in lengths.items()
    }
    return measured, turns, read


def ratio(ours, theirs):
    return "" if theirs is None else f"{ours / theirs:.2f}"


def number(value):
    return "" if value is None else f"{value:,.1f}"


def against_llama(measured):
    yield "| | | pipeline | llama.cpp | | pipeline / llama.cpp |"
    yield "|---|---|--:|---|--:|--:|"
    for case in measured:
        for form in case.formats:
            for kind in SPEEDS:
                ours, theirs = case.figure("pipeline", kind), case.figure(form, kind)
                yield f"| {case.label} | {kind} | {number(ours)} | {form} | {number(theirs)} | {ratio(ours, theirs)} |"


def against_mlx_lm(measured):
    yield "| | | pipeline | mlx-lm, helped | pipeline / mlx-lm |"
    yield "|---|---|--:|--:|--:|"
    for case in measured:
        for kind in SPEEDS:
            ours, theirs = case.figure("pipeline", kind), case.figure(MLX_LM, kind)
            yield f"| {case.label} | {kind} | {number(ours)} | {number(theirs)} | {ratio(ours, theirs)} |"


def limits(measured, read):
    yield "| | a token | reading the weights | share | memory | file | memory less file |"
    yield "|---|--:|--:|--:|--:|--:|--:|"
    for case in measured[:-1]:
        token, whole = 1e3 / case.figure("pipeline", "decode"), 1e3 * read[case.node]
        memory, disk = (case.figure("pipeline", kind) / 1e6 for kind in ("memory", "disk"))
        row = f"{token:.2f} ms | {whole:.2f} ms | {whole / token:.2f} | {memory:.0f} MB | {disk:.0f} MB"
        yield f"| {case.label} | {row} | {memory - disk:.0f} MB |"


def section(measured, turns, read, before):
    written = measured[0].max_tokens
    peers = [run for case in measured for form in case.formats for run in case.runs[form]]
    release = f"llama.cpp {peers[0]['release']}, " if peers else ""
    versions = f"{pipeline_version()}, {release}mlx-lm {version('mlx-lm')}, mlx {version('mlx')}"
    load = f"load average {before:.1f} before and {os.getloadavg()[0]:.1f} after"
    return f"""## Running models

What `make bench` measured on a model with the shapes of SmolLM2-135M and random weights, on the device `cpu`: tokens a second, of
a prompt of 128 tokens (*prefill*) and of the {written - 1} that follow the first (*decode*). All run on the CPU with all cores, each in a
process of its own, in turns. llama.cpp reads the same weights in its own formats: Q4_1 has 5.0 bits a weight, as 4 bits in groups
of 32 have here; Q4_0 has 4.5 bits and no biases; Q8_0 has 8.5. It rounds activations to 8 bits, `pipeline` does not. mlx-lm runs on the
same files, *helped* with float32 activations and the BLAS that pipeline's MLX uses. Medians of {turns} turns, of mlx-lm 3.

{machine()}; {versions}; {load}.

{chr(10).join(against_llama(measured))}

{chr(10).join(against_mlx_lm(measured))}

A token needs each weight once. *Reading the weights* is what all cores take to read as many bytes from memory, from end to end. *Memory*
is the peak of the process.

{chr(10).join(limits(measured, read))}
"""


def main():
    parser = argparse.ArgumentParser(description="Measures the speed of inference beside llama.cpp and mlx-lm.")
    parser.add_argument("--quick", action="store_true", help="one turn, few tokens, nothing written to RESULTS.md")
    parser.add_argument("--scratch", type=Path, help="where to work, instead of the system's temporary folder")
    arguments = parser.parse_args()
    before = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(dir=arguments.scratch) as scratch:
        text = section(*measure(Path(scratch).resolve(), arguments.quick), before)
    print(text)
    if not arguments.quick:
        write_section("decode", text)


if __name__ == "__main__":
    main()
