"""Writes training data in mlx-lm's format, train.jsonl and valid.jsonl, from the folder raw/.

A question is a template with a value in it, behind one of a few openings. Questions that a suite
asks are left out. The same input gives the same files.
"""

import argparse
import json
import random
from pathlib import Path
from typing import NamedTuple

import yaml


class Chat(NamedTuple):
    """A question and the right answer."""

    question: str
    answer: str


def read_lines(path: Path) -> list[dict]:
    """Reads a file with one JSON object on each line."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def tool_chats(raw: Path, openings: list[str]) -> list[Chat]:
    """Lists the questions that need a tool. The answer is its call."""
    chats = []
    for entry in read_lines(raw / "tools.jsonl"):
        for value in entry["values"]:
            call = {"name": entry["tool"], "arguments": {entry["argument"]: value}}
            answer = f"<tool_call>{json.dumps(call)}</tool_call>"
            for question in entry["questions"]:
                chats += [Chat(opening + question.format(value), answer) for opening in openings]
    return chats


def direct_chats(raw: Path, openings: list[str]) -> list[Chat]:
    """Lists the questions to answer directly."""
    chats = []
    for entry in read_lines(raw / "direct.jsonl"):
        for value, answer in entry["answers"].items():
            question = entry["question"].format(value)
            chats += [Chat(opening + question, answer) for opening in openings]
    return chats


def questions_of(suite: Path) -> set[str]:
    """Returns the questions that a suite asks."""
    return {query["prompt"] for query in yaml.safe_load(suite.read_text())["queries"]}


def write(path: Path, chats: list[Chat]) -> None:
    """Writes chats, one on each line."""
    with path.open("w") as file:
        for question, answer in chats:
            messages = [
                {"role": "user", "content": question},
                {"role": "assistant", "content": answer},
            ]
            file.write(json.dumps({"messages": messages}) + "\n")
    print(f"{path.name}: {len(chats)} chats")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--raw", type=Path, required=True, help="the folder with the raw data")
    parser.add_argument("--leave-out", type=Path, nargs="*", default=[], help="suites")
    parser.add_argument("--out", type=Path, required=True, help="the folder to write to")
    parser.add_argument("--train", type=int, default=120, help="chats of each kind to train on")
    parser.add_argument("--valid", type=int, default=8, help="chats of each kind to validate with")
    parser.add_argument("--seed", type=int, default=1)
    return parser.parse_args()


def main() -> None:
    args = parse_arguments()
    random.seed(args.seed)
    openings = json.loads((args.raw / "openings.json").read_text())
    asked = set().union(*map(questions_of, args.leave_out))
    train, valid = [], []
    for chats in [direct_chats(args.raw, openings), tool_chats(args.raw, openings)]:
        free = [chat for chat in chats if chat.question not in asked]
        print(f"{len(chats)} questions, {len(chats) - len(free)} of them left out")
        drawn = random.sample(free, args.train + args.valid)
        train.append(drawn[: args.train])
        valid += drawn[args.train :]
    # Turn by turn, because mlx-lm makes its batches of lines that follow each other.
    write(args.out / "train.jsonl", [chat for pair in zip(*train, strict=True) for chat in pair])
    write(args.out / "valid.jsonl", valid)


if __name__ == "__main__":
    main()
