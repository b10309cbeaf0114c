"""Writes `final.yaml`: questions for the very end, the direct ones asked nowhere before.

`final.py ask SUITE` writes a suite of all of `FRESH`, to be asked the fused float16 model alone.
`final.py write RESULTS` takes from that benchmark's results.json the first forty that the config
`f16` answered right, and puts them and the tool questions into `final.yaml`. Keeps the paragraphs
that are there.
"""

import json
import random
import re
import sys
from pathlib import Path

from data import DIRECT, OPENINGS, TOOLS, Item, split, with_opening

FINAL = Path(__file__).parent.parent / "final.yaml"
COUNT = 40
HEAD = """\
# Questions for the very end: 40 that need a tool, 40 to answer directly, and three paragraphs.
# None was trained on, none is in `tools.yaml`. Those that need a tool are held-out ones as
# `train/data.py` dealt them, of each tool eight. The direct ones were written for this suite once
# the adapter was trained: of the {asked} in `train/final.py` the fused float16 model answered
# {right} right, and these are the first 40 of those. No other model was asked any of the {asked}.
name: final
max_tokens: 48
queries:
"""
TEXTS = "# The openings of"  # what the paragraphs begin with

# (question, the word that makes the answer right: a regular expression)
FRESH = [
    ("What is the capital of Colombia", "Bogot[aá]"),
    ("What is the opposite of inside", "outside"),
    ("What color is a lemon", "yellow"),
    ("What language is spoken in Norway", "Norwegian"),
    ("What is the plural of tooth", "teeth"),
    ("How many wheels does a tricycle have", "3|three"),
    ("What is the chemical symbol for zinc", "Zn"),
    ("Who wrote Crime and Punishment", "Dosto[yi]?evsky"),
    ("What day comes after Friday", "Saturday"),
    ("What is a young duck called", "duckling"),
    ("In which country is Machu Picchu", "Peru"),
    ("What is the past tense of run", "ran"),
    ("On which continent is Argentina", "South America"),
    ("What do you call a person who bakes bread", "baker"),
    ("What is the currency of South Korea", "won"),
    ("What is the fastest land animal", "cheetah"),
    ("What is the capital of Malaysia", "Kuala Lumpur"),
    ("What is the opposite of long", "short"),
    ("What color is a carrot", "orange"),
    ("What language is spoken in Denmark", "Danish"),
    ("What is the plural of woman", "women"),
    ("How many sides does a pentagon have", "5|five"),
    ("What is the chemical symbol for neon", "Ne"),
    ("Who wrote Alice's Adventures in Wonderland", "Carroll"),
    ("What month comes after March", "April"),
    ("What is a young frog called", "tadpole"),
    ("In which city is the Louvre", "Paris"),
    ("What is the past tense of see", "saw"),
    ("On which continent is Ethiopia", "Africa"),
    ("What do you call a person who puts out fires", "firefighter|fireman"),
    ("What is the currency of Thailand", "baht"),
    ("What do caterpillars turn into", "butterfl(y|ies)|moths?"),
    ("What is the capital of the Philippines", "Manila"),
    ("What is the opposite of heavy", "light"),
    ("What color is a flamingo", "pink"),
    ("What language is spoken in Vietnam", "Vietnamese"),
    ("What is the plural of goose", "geese"),
    ("How many weeks are in a year", "52"),
    ("What is the chemical symbol for potassium", "K"),
    ("Who wrote Robinson Crusoe", "Defoe"),
    ("What day comes before Thursday", "Wednesday"),
    ("What is a young bear called", "cub"),
    ("In which country is the Acropolis", "Greece"),
    ("What is the past tense of take", "took"),
    ("On which continent is Pakistan", "Asia"),
    ("What do you call a person who designs buildings", "architect"),
    ("What is the currency of Brazil", "real"),
    ("What is the largest rainforest in the world", "Amazon"),
    ("What is the capital of Romania", "Bucharest"),
    ("What is the opposite of before", "after"),
    ("What color is a stop sign", "red"),
    ("What language is spoken in Finland", "Finnish"),
    ("What is the plural of knife", "knives"),
    ("How many inches are in a foot", "12|twelve"),
    ("What is the chemical symbol for calcium", "Ca"),
    ("Who wrote The Adventures of Tom Sawyer", "Twain"),
    ("What season comes after summer", "autumn|fall"),
    ("What is a young horse called", "foal|colt|filly"),
    ("In which city is the Kremlin", "Moscow"),
    ("What is the past tense of write", "wrote"),
    ("On which continent is Portugal", "Europe"),
    ("What is the study of plants called", "botany"),
    ("What is the currency of France", "euro"),
    ("Who invented the light bulb", "Edison"),
    ("What is the capital of Nepal", "Kathmandu"),
    ("What is the opposite of buy", "sell"),
    ("What color is a polar bear", "white"),
    ("What language is spoken in Saudi Arabia", "Arabic"),
    ("What is the plural of leaf", "leaves"),
    ("How many arms does an octopus have", "8|eight"),
    ("What is the chemical symbol for magnesium", "Mg"),
    ("Who wrote Gulliver's Travels", "Swift"),
    ("What month comes before August", "July"),
    ("What is a young kangaroo called", "joey"),
    ("In which country is the Leaning Tower of Pisa", "Italy"),
    ("What is the past tense of buy", "bought"),
    ("On which continent is Colombia", "South America"),
    ("What is the study of the mind called", "psychology"),
    ("What is the currency of Turkey", "lira"),
    ("Who painted the ceiling of the Sistine Chapel", "Michelangelo"),
    ("What is the capital of Pakistan", "Islamabad"),
    ("What is the opposite of clean", "dirty"),
    ("What color is a raven", "black"),
    ("What language is spoken in Thailand", "Thai"),
    ("What is the plural of ox", "oxen"),
    ("How many cents are in a dollar", "100|hundred"),
    ("What is the chemical symbol for uranium", "U"),
    ("Who wrote Treasure Island", "Stevenson"),
    ("Who composed The Magic Flute", "Mozart"),
    ("In which country is the Kilimanjaro", "Tanzania"),
    ("What is the past tense of sing", "sang"),
    ("On which continent is Mongolia", "Asia"),
    ("What is the Spanish word for house", "casa"),
    ("What is the largest bird in the world", "ostrich"),
    ("What is the capital of Croatia", "Zagreb"),
    ("What is the opposite of loud", "quiet|soft|silent"),
    ("What color is an eggplant", "purple"),
    ("What language is spoken in Chile", "Spanish"),
    ("How many strings does a violin have", "4|four"),
    ("What is the chemical symbol for aluminum", "Al"),
    ("Who wrote Les Misérables", "Hugo"),
    ("What is the French word for bread", "pain"),
    ("In which city is the Brandenburg Gate", "Berlin"),
    ("On which continent is Norway", "Europe"),
    ("Which planet is farthest from the sun", "Neptune"),
    ("What is the capital of Venezuela", "Caracas"),
    ("What is the opposite of front", "back|rear"),
    ("What color is a pumpkin", "orange"),
    ("What language is spoken in New Zealand", "English"),
    ("Who discovered radium", "Curie"),
    ("What is the German word for water", "Wasser"),
    ("What instrument is used to look at the stars", "telescope"),
    # One more round, as 39 of those above were answered right.
    ("What is the capital of Bulgaria", "Sofia"),
    ("What is the opposite of above", "below|beneath"),
    ("What color is spinach", "green"),
    ("What language is spoken in Romania", "Romanian"),
    ("What is the plural of wolf", "wolves"),
    ("How many legs does a horse have", "4|four"),
    ("What is the chemical symbol for nickel", "Ni"),
    ("Who wrote Jane Eyre", "Bront[eë]"),
    ("What month comes after September", "October"),
    ("What is a young pig called", "piglet"),
    ("In which city is the Golden Gate Bridge", "San Francisco"),
    ("What is the past tense of come", "came"),
    ("On which continent is Uganda", "Africa"),
    ("What do you call a person who cuts hair", "barber|hairdresser|hair ?stylist"),
    ("What is the currency of Canada", "dollar"),
    ("What is the largest continent", "Asia"),
]


def fresh() -> list[Item]:
    """Lists the fresh questions, each behind one of the openings."""
    known = {template.format(value).lower() for template, _, keys in DIRECT for value in keys}
    rng = random.Random(7)
    items = []
    for question, key in FRESH:
        item = Item(question + "?", "", "direct", key)
        if item.question.lower() in known or re.search(pattern(item), item.question):
            sys.exit(f"not fresh, or answers itself: {item.question}")
        items.append(with_opening(item, rng.choice(OPENINGS)))
    return items


def pattern(item: Item) -> str:
    """Writes what a direct answer must match: in any case, but for a chemical symbol."""
    word = f"({item.key})" if "|" in item.key else item.key
    flags = "" if "symbol for" in item.question else "(?i)"
    return rf"{flags}\b{word}\b"


def query(item: Item) -> str:
    """Writes a question as an entry of a suite."""
    text = f"  - prompt: {json.dumps(item.question, ensure_ascii=False)}\n    expect: {item.kind}\n"
    if item.kind == "direct":
        return f"{text}    regex: '{pattern(item)}'\n"
    call = json.loads(item.answer.removeprefix("<tool_call>").removesuffix("</tool_call>"))
    arguments = ", ".join(f"{key}: {value}" for key, value in call["arguments"].items())
    return f"{text}    tool_call: {{name: {call['name']}, arguments: {{{arguments}}}}}\n"


def tool_questions() -> list[Item]:
    """Takes one question of each tool in turn, as `split` dealt them."""
    lots = [[item for item in split().final_tool if item.key == tool[0]] for tool in TOOLS]
    return [item for turn in zip(*lots) for item in turn][:COUNT]


def ask(suite: Path) -> None:
    """Writes the suite of all fresh questions."""
    suite.write_text("name: fresh\nmax_tokens: 48\nqueries:\n" + "".join(map(query, fresh())))


def write(results: Path) -> None:
    """Rewrites `final.yaml` up to its paragraphs."""
    answers = json.loads(results.read_text())["configs"]["f16"]["answers"]
    passed = {answer["prompt"] for answer in answers if answer["pass"]}
    right = [item for item in fresh() if item.question in passed]
    if len(right) < COUNT:
        sys.exit(f"only {len(right)} of {len(FRESH)} right")
    head = HEAD.format(asked=len(FRESH), right=len(right))
    texts = TEXTS + FINAL.read_text().partition(TEXTS)[2]
    FINAL.write_text(head + "".join(map(query, tool_questions() + right[:COUNT])) + texts)


if __name__ == "__main__":
    {"ask": ask, "write": write}[sys.argv[1]](Path(sys.argv[2]))
