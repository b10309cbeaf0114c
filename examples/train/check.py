"""Checks one config of some benchmarks, writes check.md, and exits with 1 if it is not good enough.

It must answer a share of all questions right, and every question that the base answers right.
Reads results.json, which is the same on every run.
"""

import argparse
import json
import sys
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("benchmarks", type=Path, nargs="+", help="what the benchmarks made")
    parser.add_argument("--config", required=True, help="the config to check")
    parser.add_argument("--base", default="base", help="the config that must not be better")
    parser.add_argument("--least", type=float, required=True, help="the share of right answers")
    parser.add_argument("--out", type=Path, required=True, help="the folder to write to")
    args = parser.parse_args()

    right = total = 0
    broken = []
    lines = [f"# {args.config}", "", "| suite | base | now |", "|---|---|---|"]
    for folder in args.benchmarks:
        results = json.loads((folder / "results.json").read_text())
        for name in (args.base, args.config):
            if name not in results["configs"]:
                sys.exit(f"the benchmark of {results['suite']} has no config {name}")
        before, now = results["configs"][args.base], results["configs"][args.config]
        lines.append(
            f"| {results['suite']} | {before['correct']}/{before['total']} "
            f"| {now['correct']}/{now['total']} |"
        )
        right += now["correct"]
        total += now["total"]
        pairs = zip(before["answers"], now["answers"], strict=True)
        broken += [new["prompt"] for old, new in pairs if old["pass"] and not new["pass"]]

    good = right / total >= args.least and not broken
    lines += ["", f"{right} of {total} right, at least {args.least:.0%} wanted."]
    lines += [f"Right before, wrong now: {prompt}" for prompt in broken]
    lines += ["", "Good enough." if good else "Not good enough."]
    print(*lines, sep="\n")
    (args.out / "check.md").write_text("\n".join(lines) + "\n")
    sys.exit(not good)


if __name__ == "__main__":
    main()
