#!/usr/bin/env python3
"""Measures how many tokens a second `pipeline` reads and writes, and compares with mlx-lm on the same weights and prompt.

Both answer in turns, each in a process of its own. `pipeline` is run as a user runs it: it builds a benchmark node, and
its `timings.json` is read. mlx-lm is run twice: as pip installs it, and "helped", with float32 activations, which
`pipeline` has on a CPU, and with the BLAS that the MLX of `pipeline` uses. This measures speed and tests nothing: the
exit code does not depend on the figures.

    python3 bench/decode.py [--quick] [--scratch FOLDER]

Needs mlx-lm in `.mlx-lm/` (make setup) and some 2 GB of disk.
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
from results import BENCH, PIPELINE, REPOSITORY, machine, write_section
from weights import PYTHON, pipeline_version, version

WORDS = 1000
TINY = REPOSITORY / "examples" / "tiny" / "base-4bit"
TINY_PROMPT = "I wonder. Is it raining in Paris now?"
CHAT_TEMPLATE = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
SPEEDS = ("prefill", "decode")
HELPED, AS_IT_COMES = "mlx-lm, helped", "mlx-lm as it comes"


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
    """A node of the project, and what its model is asked."""

    def __init__(self, node, label, prompt, max_tokens):
        self.node, self.label, self.prompt, self.max_tokens = node, label, prompt, max_tokens
        self.runs = {"pipeline": [], HELPED: [], AS_IT_COMES: []}

    def speed(self, contender, kind):
        """Returns the median, or nothing where this contender was not run."""
        runs = self.runs[contender]
        return statistics.median(run[kind] for run in runs) if runs else None


class Project:
    """A pipeline file with the models, and a benchmark of each."""

    def __init__(self, folder, source):
        self.folder, self.turn = folder, 0
        self.nodes = {
            "tiny": f"stage: base, source: {TINY}",
            "float16": f"stage: base, source: {source}",
            "8bit": "stage: quantize, model: float16, bits: 8, group_size: 64",
            "4bit": "stage: quantize, model: float16, bits: 4, group_size: 64",
        }
        folder.mkdir()
        self.write()
        for node in self.nodes:
            self.build(node)

    def write(self):
        lines = ["version: 1", "nodes:"] + [f"  {name}: {{{node}}}" for name, node in self.nodes.items()]
        for name in self.nodes:
            suite = f"stage: benchmark, suite: {name}.yaml, configs: {{model: {name}}}"
            lines.append(f"  bench-{name}: {{{suite}}}")
            (self.folder / f"{name}.yaml").touch()
        (self.folder / "pipeline.yaml").write_text("\n".join(lines) + "\n")

    def build(self, node):
        subprocess.run([PIPELINE, "-C", self.folder, "build", node], check=True, capture_output=True)

    def measure(self, case):
        """Runs the benchmark of a case and returns its speeds. The suite's name differs, so it does run."""
        self.turn += 1
        suite = {
            "name": f"turn {self.turn}",
            "max_tokens": case.max_tokens,
            "queries": [{"prompt": case.prompt, "expect": "direct"}],
        }
        (self.folder / f"{case.node}.yaml").write_text(json.dumps(suite))
        self.build(f"bench-{case.node}")
        timings = self.folder / "artifacts" / f"bench-{case.node}" / "timings.json"
        measured = json.loads(timings.read_text())["configs"]["model"]
        return {kind: measured[f"{kind}_tokens_per_second"] for kind in SPEEDS}

    def measure_mlx_lm(self, case, contender):
        """Runs mlx-lm on the same files and returns what it printed."""
        activations = "float32" if contender == HELPED else "as-it-comes"
        environment = dict(os.environ)
        if contender == HELPED and (blas := our_blas()):
            environment["LD_PRELOAD"] = str(blas)
        artifact = (self.folder / "artifacts" / case.node).resolve()
        command = [PYTHON, BENCH / "mlx_lm_decode.py", artifact, case.prompt, str(case.max_tokens), activations]
        run = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
        return json.loads(run.stdout)


def our_blas():
    """Returns the BLAS that the MLX of our build is linked to, if it is not the one that mlx-lm has too."""
    linked = (REPOSITORY / ".mlx" / "python" / "mlx_cpu.libs").glob("libblas-*")
    return next((path.resolve() for path in linked if path.is_symlink()), None)


def cases(quick):
    # MLX's product with packed weights is slow on a CPU: a longer prompt takes minutes.
    prompt, max_tokens = words(64), 8 if quick else 32
    yield Case("float16", "float16", prompt, max_tokens)
    yield Case("8bit", "8 bits", prompt, max_tokens)
    yield Case("4bit", "4 bits", prompt, max_tokens)
    yield Case("tiny", "`examples/tiny`", TINY_PROMPT, 48)


def measure(scratch, quick):
    source, turns = scratch / "source", 1 if quick else 3
    model.write_model(source, "tiny" if quick else "medium")
    write_words(source)
    project = Project(scratch / "project", source)
    measured = list(cases(quick))
    for turn in range(turns):
        for case in measured:
            case.runs["pipeline"].append(project.measure(case))
            case.runs[HELPED].append(project.measure_mlx_lm(case, HELPED))
            # In float16 it is some fifty times slower: minutes for all but the smallest.
            if turn == 0 and case.node == "tiny":
                case.runs[AS_IT_COMES].append(project.measure_mlx_lm(case, AS_IT_COMES))
        print(f"turn {turn + 1} of {turns}", file=sys.stderr)
    return measured, turns


def table(measured):
    yield "| | | pipeline | mlx-lm, helped | mlx-lm as it comes | pipeline / helped |"
    yield "|---|---|--:|--:|--:|--:|"
    for case in measured:
        for kind in SPEEDS:
            speeds = [case.speed(contender, kind) for contender in case.runs]
            row = " | ".join("" if speed is None else f"{speed:,.1f}" for speed in speeds)
            yield f"| {case.label} | {kind} | {row} | {speeds[0] / speeds[1]:.2f} |"


def section(measured, turns, before):
    read, written = measured[0].runs[HELPED][0]["prompt_tokens"], measured[0].max_tokens
    tiny = measured[-1].runs[HELPED][0]["prompt_tokens"]
    versions = f"{pipeline_version()}, mlx-lm {version('mlx-lm')}, mlx {version('mlx')}"
    load = f"load average {before:.1f} before and {os.getloadavg()[0]:.1f} after"
    return f"""## Decoding

What `make bench` measured on a model with the shapes of Qwen2 0.5B, a quarter of its layers and a fifth of its vocabulary:
tokens a second, of a prompt of {read} tokens (*prefill*) and of the {written - 1} that follow the first (*decode*); and of a
question of `examples/tiny`, {tiny} tokens. Both run on the CPU, on the same files, the same token ids. *Helped* is mlx-lm with
float32 activations and with the BLAS that pipeline's MLX uses; *as it comes* it computes in float16, with the
reference BLAS. Medians of {turns} turns, one process after the other; of mlx-lm as it comes 1.

{machine()}; {versions}; {load}.

{chr(10).join(table(measured))}
"""


def main():
    parser = argparse.ArgumentParser(description="Measures the speed of inference beside mlx-lm.")
    parser.add_argument("--quick", action="store_true", help="a tiny model, one turn, nothing written to RESULTS.md")
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
