#!/usr/bin/env python3
"""Measures how fast artifacts go to a remote and come back, beside rclone, and how much of a second fine-tuning travels.

A model of 1 GB, two adapters of one shape on its attention projections, and of each the fused float16 weights and 8 bits:
`pipeline push` and `pull` against a real S3 server on this machine, rclone with the same files on the same server in the
same run, in turns. Rates are of what is stored, in 10^6 bytes a second. This measures speed and tests nothing: the exit
code does not depend on the figures.

    python3 bench/remote.py [--quick] [--scratch FOLDER]

Needs SeaweedFS in `.seaweedfs/` (make setup), rclone for the comparison, and some 15 GB of disk.
"""

import argparse
import contextlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import model
from results import PIPELINE, REPOSITORY, machine, write_section

KEYS = {"AWS_ACCESS_KEY_ID": "bench", "AWS_SECRET_ACCESS_KEY": "bench-secret", "AWS_REGION": "us-east-1"}
FINE_TUNINGS = ("a", "b")


@contextlib.contextmanager
def server():
    """Serves S3 while the block runs; gives the address."""
    command = [REPOSITORY / "scripts" / "seaweedfs" / "serve.py"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    process = subprocess.Popen(command, env=os.environ | KEYS, text=True, **pipes)
    try:
        ports = process.stdout.readline().split()
        if not ports:
            sys.exit("the S3 server did not come up")
        yield f"http://127.0.0.1:{ports[0]}"
    finally:
        process.stdin.close()
        process.wait()


def run(command, environment):
    """Runs a command to its end; returns how long it took and what it printed."""
    start = time.perf_counter()
    done = subprocess.run([str(part) for part in command], env=environment, capture_output=True, text=True)
    seconds = time.perf_counter() - start
    if done.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))} failed:\n{done.stdout[-2000:]}{done.stderr[-3000:]}")
    return seconds, done.stdout


def settle():
    """Lets the disk finish, so that nobody pays for what another wrote."""
    os.sync()
    time.sleep(1)


def flush(folder):
    """Waits until the files in a folder are on the disk, as `pull` does and rclone does not."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())


def write_project(folder, scratch):
    folder.mkdir()
    lines = ["version: 1", "nodes:", f"  base: {{stage: base, source: {scratch}/model}}"]
    for name in FINE_TUNINGS:
        lines += [
            f"  {name}: {{stage: adapter, source: {scratch}/{name}}}",
            f"  fused-{name}: {{stage: fuse, model: base, adapter: {name}, dtype: float16}}",
            f"  8bit-{name}: {{stage: quantize, model: fused-{name}, bits: 8}}",
        ]
    (folder / "pipeline.yaml").write_text("\n".join(lines) + "\n")


class Remote:
    """One place on the server, with nothing in it yet, used by both programs."""

    def __init__(self, endpoint, name, scratch):
        self.url, self.copy = f"s3://team/{name}", f"s3:team/{name}-copy"
        own = {"AWS_ENDPOINT_URL": endpoint, "XDG_CONFIG_HOME": str(scratch / "config"), "PIPELINE_REMOTE": self.url}
        kind = {"TYPE": "s3", "PROVIDER": "Other", "ENDPOINT": endpoint, "REGION": KEYS["AWS_REGION"]}
        kind |= {"ACCESS_KEY_ID": KEYS["AWS_ACCESS_KEY_ID"], "SECRET_ACCESS_KEY": KEYS["AWS_SECRET_ACCESS_KEY"]}
        kind |= {"FORCE_PATH_STYLE": "true"}
        theirs = {f"RCLONE_CONFIG_S3_{name}": value for name, value in kind.items()}
        # What a user has set for other servers does not count.
        plain = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
        self.environment = plain | KEYS | own | theirs | {"RCLONE_CONFIG": "/dev/null"}

    def transfer(self, verb, project, node):
        """Runs `push` or `pull` of a node with what it is made from; returns the seconds and the bytes of each kind."""
        nodes = [f"fused-{node}", f"8bit-{node}"]
        seconds, said = run([PIPELINE, "-C", project, verb, "--json", *nodes], self.environment)
        return seconds, json.loads(said.splitlines()[-1])["traffic"]

    def rclone(self, source, target, environment=None):
        return run(["rclone", "copy", "--copy-links", source, target], environment or self.environment)[0]


def stored(project, node):
    """Returns how many bytes the artifacts of a fine-tuning have."""
    folders = [project / "artifacts" / f"{kind}-{node}" for kind in ("fused", "8bit")]
    return sum(path.stat().st_size for folder in folders for path in folder.rglob("*") if path.is_file())


def measure(endpoint, scratch, turns):
    """Returns seconds by what was done, the bytes of the second fine-tuning, and the size of each."""
    first, seconds, traffic = scratch / "first", {}, {}
    files = scratch / "files"
    for kind in ("fused", "8bit"):
        (files / kind).parent.mkdir(exist_ok=True)
        (files / kind).symlink_to(first / "artifacts" / f"{kind}-a")
    for turn in range(turns):
        remote = Remote(endpoint, f"turn-{turn}", scratch)
        second, copy = scratch / "second", scratch / "copy"
        write_project(second, scratch)

        def note(what, value):
            settle()
            seconds.setdefault(what, []).append(value)

        # What was sent before is known by its chunks; each turn cuts anew, as the first push of a user does.
        shutil.rmtree(first / "cache" / "chunks", ignore_errors=True)
        took, _ = remote.transfer("push", first, "a")
        note("push", took)
        if shutil.which("rclone"):
            note("rclone up", remote.rclone(files, remote.copy))
        took, _ = remote.transfer("pull", second, "a")
        note("pull", took)
        if shutil.which("rclone"):
            took = remote.rclone(remote.copy, copy)
            begin = time.perf_counter()
            flush(copy)
            note("rclone down, on the disk", took + time.perf_counter() - begin)
            seconds.setdefault("rclone down", []).append(took)
        took, traffic["push"] = remote.transfer("push", first, "b")
        note("push b", took)
        took, traffic["pull"] = remote.transfer("pull", second, "b")
        note("pull b", took)
        for folder in second, copy:
            shutil.rmtree(folder, ignore_errors=True)
        for place in remote.copy, f"s3:team/turn-{turn}":
            if shutil.which("rclone"):
                run(["rclone", "purge", place], remote.environment)
    return seconds, traffic, (stored(first, "a"), stored(first, "b"))


def table(seconds, traffic, sizes):
    """Returns the results as markdown."""
    whole, second = sizes
    megabytes = lambda count: f"{count / 1e6:,.1f} MB"
    lines = ["| | pipeline | rclone | ratio |", "|---|--:|--:|--:|"]
    rows = [("upload", "push", "rclone up"), ("download", "pull", "rclone down")]
    rows.append(("download until it is on the disk", "pull", "rclone down, on the disk"))
    for label, own, other in rows:
        rate = whole / 1e6 / statistics.median(seconds[own])
        if other not in seconds:
            lines.append(f"| {label} | {rate:,.0f} MB/s | not installed | |")
            continue
        theirs = whole / 1e6 / statistics.median(seconds[other])
        lines.append(f"| {label} | {rate:,.0f} MB/s | {theirs:,.0f} MB/s | {rate / theirs:.2f} |")
    sent, got = traffic["push"], traffic["pull"]
    lines += [
        "",
        f"{megabytes(whole)} of the first fine-tuning; medians of {len(seconds['push'])}. Of the second, {megabytes(second)}:",
        "",
        "| | travels | is there already | against whole files | seconds |",
        "|---|--:|--:|--:|--:|",
        f"| push | {megabytes(sent['sent'])} | {megabytes(sent['already_there'])} | {sent['sent'] / second:.1%} | "
        f"{statistics.median(seconds['push b']):.2f} |",
        f"| pull | {megabytes(got['fetched'])} | {megabytes(got['already_here'])} | {got['fetched'] / second:.1%} | "
        f"{statistics.median(seconds['pull b']):.2f} |",
    ]
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a small model, one turn, nothing written to RESULTS.md")
    parser.add_argument("--scratch", type=Path, help="where to work; a temporary folder if left out")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.scratch) as scratch, server() as endpoint:
        scratch, size = Path(scratch), "medium" if args.quick else "small"
        model.write_model(scratch / "model", size)
        for name in FINE_TUNINGS:
            model.write_adapter(scratch / name, size, seed=name)
        write_project(scratch / "first", scratch)
        environment = os.environ | {"XDG_CONFIG_HOME": str(scratch / "config")}
        run([PIPELINE, "keys", "init"], environment)
        run([PIPELINE, "-C", scratch / "first", "build", "--no-remote"], environment)
        text = table(*measure(endpoint, scratch, 1 if args.quick else 3))
    print(text)
    if not args.quick:
        version = "not installed"
        if shutil.which("rclone"):
            version = run(["rclone", "version"], os.environ)[1].split()[1]
        heading = f"## To a remote and back\n\n{machine()}. SeaweedFS on this machine, rclone {version}.\n\n"
        write_section("remote", heading + text)


if __name__ == "__main__":
    main()
