"""Synthetic chats: questions that need a tool, and questions to answer directly.

Every question is a template filled with a value, behind one of a few openings.
`split` deals the lot into training and held-out parts, the same on every machine.
"""

import random
from typing import NamedTuple

CITIES = [
    "Paris", "Oslo", "Lima", "Cairo", "Tokyo", "Delhi", "Rome", "Quito",
    "Accra", "Perth", "Boston", "Seoul", "Madrid", "Dublin", "Vienna", "Hanoi",
]
FILES = [
    "notes.txt", "main.rs", "data.csv", "todo.md",
    "app.py", "log.txt", "plan.md", "cargo.toml",
]
SYMBOLS = ["AAPL", "MSFT", "TSLA", "NVDA", "AMZN", "ORCL", "INTC", "IBM"]

# (tool, its one argument, the argument's values, the questions that ask for it)
TOOLS = [
    ("get_weather", "city", CITIES, [
        "What is the weather in {}?",
        "Is it raining in {} now?",
        "How hot is it in {} today?",
        "Weather report for {} please.",
    ]),
    ("read_file", "path", FILES, [
        "Open the file {}.",
        "Show me what is in {}.",
        "Read {} for me.",
        "Print the contents of {}.",
    ]),
    ("get_price", "symbol", SYMBOLS, [
        "What is the price of {} stock?",
        "How much is {} trading at?",
        "Get me a quote for {}.",
        "Current {} share price?",
    ]),
]

# (question, its answer for every value)
DIRECT = [
    ("What color is {}?", {
        "grass": "Green.",
        "the sky": "Blue.",
        "snow": "White.",
        "coal": "Black.",
        "blood": "Red.",
        "a lemon": "Yellow.",
        "a banana": "Yellow.",
        "milk": "White.",
        "a leaf": "Green.",
        "the night": "Black.",
    }),
    ("What is the opposite of {}?", {
        "hot": "Cold.",
        "big": "Small.",
        "up": "Down.",
        "fast": "Slow.",
        "day": "Night.",
        "wet": "Dry.",
        "old": "New.",
        "hard": "Soft.",
        "left": "Right.",
        "open": "Closed.",
    }),
    ("What is the capital of {}?", {
        "France": "Paris.",
        "Norway": "Oslo.",
        "Peru": "Lima.",
        "Egypt": "Cairo.",
        "Japan": "Tokyo.",
        "India": "Delhi.",
        "Italy": "Rome.",
        "Spain": "Madrid.",
        "Ireland": "Dublin.",
        "Austria": "Vienna.",
    }),
    ("Say {} to me.", {
        "hello": "Hello!",
        "goodbye": "Goodbye!",
        "thanks": "Thanks!",
        "good night": "Good night!",
        "welcome": "Welcome!",
    }),
]

OPENINGS = ["", "Please tell me: ", "Hey, ", "Quick question. ", "I wonder. ", "Could you help? "]


class Item(NamedTuple):
    """A question, the right answer, and which kind of answer that is: `tool` or `direct`."""

    question: str
    answer: str
    kind: str


class Split(NamedTuple):
    """Seven eighths of the items of each kind to train on, one eighth held out."""

    train_tool: list[Item]
    train_direct: list[Item]
    test_tool: list[Item]
    test_direct: list[Item]


def tool_call(name: str, key: str, value: str) -> str:
    """Writes a call of the tool `name` with one argument."""
    return '<tool_call>{"name": "%s", "arguments": {"%s": "%s"}}</tool_call>' % (name, key, value)


def items() -> list[Item]:
    """Lists every question with its answer: 768 that need a tool, then 210 that do not."""
    listed = []
    for name, key, values, templates in TOOLS:
        for value in values:
            for template in templates:
                for opening in OPENINGS:
                    question = opening + template.format(value)
                    listed.append(Item(question, tool_call(name, key, value), "tool"))
    for template, answers in DIRECT:
        for value, answer in answers.items():
            for opening in OPENINGS:
                listed.append(Item(opening + template.format(value), answer, "direct"))
    return listed


def split(seed: int = 7) -> Split:
    """Shuffles the items and deals them out."""
    shuffled = items()
    random.Random(seed).shuffle(shuffled)
    tool = [item for item in shuffled if item.kind == "tool"]
    direct = [item for item in shuffled if item.kind == "direct"]
    tool_cut = len(tool) // 8
    direct_cut = len(direct) // 8
    return Split(tool[tool_cut:], direct[direct_cut:], tool[:tool_cut], direct[:direct_cut])


def chat(question: str, answer: str | None = None) -> str:
    """Renders a chat as the chat template does: up to the answer, or with it."""
    prompt = f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"
    return prompt if answer is None else f"{prompt}{answer}<|im_end|>"


def without_opening(question: str) -> str:
    """Takes the opening off a question."""
    for opening in OPENINGS:
        if opening and question.startswith(opening):
            question = question[len(opening):]
    return question


if __name__ == "__main__":
    print(*(f"{name} {len(part)}" for name, part in split()._asdict().items()), sep=", ")
