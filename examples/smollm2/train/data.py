"""Chats: questions that need a tool, and general knowledge to answer directly.

A question that needs a tool is a template filled with a value, behind one of a few openings.
`split` deals the lot into training and held-out parts, the same on every machine.
"""

import json
import random
from typing import NamedTuple

# (tool, its one argument, the argument's values, the questions that ask for it)
TOOLS = [
    ("get_weather", "city", [
        "Paris", "Oslo", "Lima", "Cairo", "Tokyo", "Delhi", "Rome", "Quito", "Accra", "Perth",
        "Boston", "Seoul", "Madrid", "Dublin", "Vienna", "Hanoi", "London", "Berlin", "Athens",
        "Lisbon", "Prague", "Warsaw", "Moscow", "Chicago", "Denver", "Miami", "Houston", "Seattle",
        "Toronto", "Sydney", "Mumbai", "Bangkok", "Nairobi", "Havana", "Geneva", "Munich", "Naples",
        "Venice", "Dallas", "Montreal",
    ], [
        "What is the weather in {}?",
        "Is it raining in {} right now?",
        "How hot is it in {} today?",
        "Will I need an umbrella in {} tomorrow?",
        "Give me the weather report for {}.",
        "How is the weather in {} this morning?",
        "Is it going to snow in {} tonight?",
        "What is the temperature in {} at the moment?",
        "How cold is it in {}?",
        "Check the weather forecast for {}.",
        "Is the sun shining in {}?",
        "Tell me about the weather in {} this weekend.",
        "What is the forecast for {} tomorrow?",
        "How warm is it in {} now?",
        "Is it windy in {} today?",
        "Weather in {} please.",
    ]),
    ("read_file", "path", [
        "notes.txt", "main.rs", "data.csv", "todo.md", "app.py", "log.txt", "plan.md",
        "config.json", "report.pdf", "index.html", "recipe.txt", "budget.csv", "letter.txt",
        "setup.py", "story.md", "users.json", "readme.md", "test.py", "orders.csv", "style.css",
        "diary.txt", "server.go", "errors.log", "menu.txt", "songs.csv", "prices.json", "poem.txt",
        "model.py", "tasks.md", "names.csv", "invoice.pdf", "page.html", "query.sql", "summary.md",
        "speech.txt", "utils.py", "results.csv", "essay.txt", "addresses.csv", "settings.json",
    ], [
        "Open the file {}.",
        "Show me what is in {}.",
        "Read {} for me.",
        "Print the contents of {}.",
        "What does the file {} say?",
        "Load {} and show it to me.",
        "Display the file {}.",
        "I want to see the text of {}.",
        "Can you open {} please?",
        "What is written in {}?",
        "Show the file {} on the screen.",
        "Get me the contents of the file {}.",
        "Please read the file {}.",
        "What is inside {}?",
        "Show {} to me.",
        "Open {} and tell me what it says.",
    ]),
    ("get_share_price", "company", [
        "Apple", "Microsoft", "Tesla", "Nvidia", "Amazon", "Oracle", "Intel", "IBM", "Boeing",
        "Disney", "Nike", "Pfizer", "Toyota", "Sony", "Shell", "Walmart", "Google", "Netflix",
        "Ford", "Honda", "Samsung", "Siemens", "Nestle", "Visa", "Starbucks", "Adobe", "Cisco",
        "Dell", "Ferrari", "Bayer", "Chevron", "Target", "Adidas", "Volvo", "Nokia", "Airbus",
        "Costco", "FedEx", "Philips", "Canon",
    ], [
        "What is the share price of {}?",
        "How much is {} stock trading at?",
        "Get me a stock quote for {}.",
        "What is {} stock worth today?",
        "Look up the current stock price of {}.",
        "How are {} shares doing today?",
        "Tell me the price of one share of {}.",
        "What did {} shares close at yesterday?",
        "What is the stock price of {}?",
        "Check the {} share price.",
        "Find out what {} shares cost.",
        "Did {} stock go up today?",
        "How much does a share of {} cost?",
        "Current share price of {} please.",
        "Give me the price of {} stock.",
        "What are {} shares trading at?",
    ]),
    ("set_timer", "minutes", list(range(2, 42)), [
        "Set a timer for {} minutes.",
        "Start a {} minute timer.",
        "Wake me up in {} minutes.",
        "Remind me in {} minutes to check the oven.",
        "Count down {} minutes for me.",
        "Let me know when {} minutes have passed.",
        "I need a timer that rings in {} minutes.",
        "Ring an alarm {} minutes from now.",
        "Please set an alarm for {} minutes.",
        "Give me {} minutes and then ring.",
        "Tell me when {} minutes are over.",
        "Time {} minutes for the pasta.",
        "Timer for {} minutes please.",
        "Can you set a {} minute timer?",
        "Set an alarm in {} minutes.",
        "Alert me after {} minutes.",
    ]),
    ("search_email", "sender", [
        "Anna", "David", "Maria", "Peter", "Laura", "Thomas", "Emma", "Daniel", "Sarah", "Michael",
        "Julia", "Robert", "Alice", "James", "Helen", "Martin", "John", "Mary", "Paul", "Susan",
        "Mark", "Linda", "Kevin", "Karen", "Steven", "Nancy", "George", "Lisa", "Edward", "Sophie",
        "Simon", "Clara", "Henry", "Diana", "Oliver", "Rachel", "Philip", "Monica", "Andrew",
        "Grace",
    ], [
        "Find the email from {}.",
        "Did {} send me an email?",
        "Search my inbox for messages from {}.",
        "Show me the latest mail from {}.",
        "Look for emails that {} sent me.",
        "What did {} write to me in the last email?",
        "Is there any new mail from {}?",
        "Have I got an email from {} today?",
        "Check if {} has written to me.",
        "Get the newest email from {}.",
        "I am looking for a mail that {} sent.",
        "Do I have mail from {}?",
        "Any emails from {}?",
        "Look in my inbox for mail from {}.",
        "Find messages that {} sent to me.",
        "Search my mail for {}.",
    ]),
]

# (question, answer, for every value the word that makes the answer right: a regular expression)
DIRECT = [
    ("What is the capital of {}?", "The capital of {} is {}.", {
        "France": "Paris", "Russia": "Moscow", "Japan": "Tokyo", "Spain": "Madrid",
        "England": "London", "Italy": "Rome", "Egypt": "Cairo", "India": "New Delhi",
        "Greece": "Athens", "Germany": "Berlin", "China": "Beijing", "Canada": "Ottawa",
        "Portugal": "Lisbon", "Ireland": "Dublin", "Austria": "Vienna", "Poland": "Warsaw",
        "Norway": "Oslo", "Sweden": "Stockholm", "Denmark": "Copenhagen", "Finland": "Helsinki",
        "Hungary": "Budapest", "Turkey": "Ankara", "Peru": "Lima", "Cuba": "Havana",
        "Kenya": "Nairobi", "Iran": "Tehran", "Iraq": "Baghdad", "Thailand": "Bangkok",
        "Australia": "Canberra", "South Korea": "Seoul", "Argentina": "Buenos Aires",
        "Chile": "Santiago", "Belgium": "Brussels", "the Netherlands": "Amsterdam",
        "Switzerland": "Bern", "Vietnam": "Hanoi", "the United States": "Washington",
        "Ukraine": "Kyiv|Kiev", "Scotland": "Edinburgh", "Indonesia": "Jakarta",
    }),
    ("What is the opposite of {}?", "The opposite of {} is {}.", {
        "hot": "cold", "big": "small", "up": "down", "fast": "slow", "day": "night", "wet": "dry",
        "old": "young|new", "hard": "soft|easy", "left": "right", "open": "closed",
        "black": "white", "good": "bad|evil", "happy": "sad|unhappy", "light": "dark|darkness",
        "rich": "poor", "strong": "weak", "full": "empty", "early": "late", "high": "low",
        "war": "peace", "love": "hate", "true": "false", "summer": "winter", "north": "south",
        "win": "lose",
    }),
    ("What color is {}?", "The color of {} is {}.", {
        "grass": "green", "the sky": "blue", "snow": "white", "coal": "black", "blood": "red",
        "a banana": "yellow", "milk": "white", "an orange": "orange", "the sun": "yellow|white",
        "a strawberry": "red", "chocolate": "brown", "a ripe tomato": "red", "an emerald": "green",
        "a ruby": "red", "a sapphire": "blue",
    }),
    ("What language is spoken in {}?", "The language spoken in {} is {}.", {
        "Brazil": "Portuguese", "France": "French", "Germany": "German", "Italy": "Italian",
        "Mexico": "Spanish", "Japan": "Japanese", "Austria": "German", "Russia": "Russian",
        "Argentina": "Spanish", "Australia": "English", "China": "Mandarin|Chinese",
        "Egypt": "Arabic", "Poland": "Polish", "Greece": "Greek", "Sweden": "Swedish",
        "Portugal": "Portuguese", "Cuba": "Spanish", "Iran": "Persian|Farsi", "Turkey": "Turkish",
        "Hungary": "Hungarian",
    }),
    ("On which continent is {}?", "The continent of {} is {}.", {
        "France": "Europe", "Japan": "Asia", "Brazil": "South America", "Egypt": "Africa",
        "Canada": "North America", "China": "Asia", "Italy": "Europe", "Kenya": "Africa",
        "Peru": "South America", "India": "Asia", "Nigeria": "Africa", "Germany": "Europe",
        "Thailand": "Asia", "Chile": "South America", "Mexico": "North America", "Ghana": "Africa",
        "Sweden": "Europe", "Vietnam": "Asia", "Spain": "Europe", "Morocco": "Africa",
    }),
    ("What is the chemical symbol for {}?", "The chemical symbol for {} is {}.", {
        "gold": "Au", "water": "H2O", "oxygen": "O2?", "hydrogen": "H2?", "iron": "Fe",
        "silver": "Ag", "carbon": "C", "sodium": "Na", "helium": "He", "nitrogen": "N2?",
        "copper": "Cu", "lead": "Pb",
    }),
    ("What is {}?", "The answer is {1}.", {
        "2 plus 2": "4|four", "3 plus 4": "7|seven", "5 plus 5": "10|ten", "10 minus 3": "7|seven",
        "6 plus 3": "9|nine", "2 times 3": "6|six", "4 times 5": "20|twenty", "9 minus 4": "5|five",
        "10 times 10": "100", "8 plus 7": "15", "3 times 3": "9|nine", "7 plus 5": "12|twelve",
        "20 minus 5": "15", "100 plus 1": "101", "half of 10": "5|five",
        "12 divided by 4": "3|three",
    }),
    ("What is the currency of {}?", "The currency of {} is the {}.", {
        "Japan": "yen", "the United States": "dollar", "England": "pound", "Germany": "euro",
        "India": "rupee", "Russia": "ruble", "Mexico": "peso", "China": "yuan|renminbi",
        "Switzerland": "franc", "Italy": "euro",
    }),
    ("Who wrote {}?", "It was written by {1}.", {
        "Hamlet": "Shakespeare", "Romeo and Juliet": "Shakespeare", "Pride and Prejudice": "Austen",
        "War and Peace": "Tolstoy", "Oliver Twist": "Dickens", "The Odyssey": "Homer",
        "1984": "Orwell", "Harry Potter": "Rowling", "Don Quixote": "Cervantes",
        "The Divine Comedy": "Dante", "Frankenstein": "Shelley", "Moby Dick": "Melville",
        "The Great Gatsby": "Fitzgerald", "A Christmas Carol": "Dickens", "Macbeth": "Shakespeare",
        "The Hobbit": "Tolkien", "Great Expectations": "Dickens", "Animal Farm": "Orwell",
        "Dracula": "Stoker", "The Iliad": "Homer",
    }),
    ("How many {}?", "There are {1}.", {
        "days are in a week": "7|seven", "months are in a year": "12|twelve",
        "hours are in a day": "24|twenty-four", "minutes are in an hour": "60|sixty",
        "seconds are in a minute": "60|sixty", "legs does a spider have": "8|eight",
        "legs does a dog have": "4|four", "sides does a triangle have": "3|three",
        "sides does a square have": "4|four", "days are in a year": "365",
        "letters are in the English alphabet": "26|twenty-six",
        "wheels does a bicycle have": "2|two", "legs does an insect have": "6|six",
        "planets are in the solar system": "8|eight", "continents are there": "7|seven",
        "states are in the United States": "50|fifty", "years are in a century": "100|hundred",
        "fingers are on one hand": "5|five", "sides does a hexagon have": "6|six",
        "years are in a decade": "10|ten",
    }),
    ("{}?", "The answer is {1}.", {
        "What is the largest ocean on Earth": "Pacific",
        "Which planet is known as the Red Planet": "Mars",
        "What language do people in London speak": "English",
        "What organ pumps blood through the body": "heart",
        "What is the largest planet in our solar system": "Jupiter",
        "Which planet is closest to the sun": "Mercury",
        "What is the tallest mountain in the world": "Everest",
        "What is the longest river in Africa": "Nile",
        "What gas do plants take in from the air": "carbon dioxide|CO2",
        "What gas do humans need to breathe": "oxygen", "What is frozen water called": "ice",
        "What is the largest animal in the world": "blue whale",
        "Which animal is known as the king of the jungle": "lion", "What do bees make": "honey",
        "What do cows drink": "water", "What is a baby dog called": "puppy",
        "What is a baby cat called": "kitten", "What is a baby cow called": "calf",
        "What is a group of wolves called": "pack", "What is a young sheep called": "lamb",
        "Who was the first president of the United States": "Washington",
        "Who painted the Mona Lisa": "Vinci|Leonardo", "Who discovered penicillin": "Fleming",
        "Who developed the theory of relativity": "Einstein", "Who invented the telephone": "Bell",
        "Who was the first man on the moon": "Armstrong",
        "Who discovered gravity when an apple fell": "Newton",
        "Who composed the Fifth Symphony in C minor": "Beethoven",
        "Who proposed the theory of evolution by natural selection": "Darwin",
        "Who painted The Starry Night": "Gogh", "In which city is the Eiffel Tower": "Paris",
        "In which city is the Colosseum": "Rome",
        "In which country are the pyramids of Giza": "Egypt",
        "In which country is the Taj Mahal": "India",
        "In which city is the Statue of Liberty": "New York",
        "In which country is Mount Fuji": "Japan", "In which city is Big Ben": "London",
        "In which country is the Great Wall": "China",
        "What is the name of our galaxy": "Milky Way",
        "What star is at the center of our solar system": "sun",
        "What is the hardest natural substance": "diamond",
        "What is the main ingredient of bread": "flour|wheat",
        "What fruit is used to make wine": "grapes?",
        "What vegetable is used to make French fries": "potato(es)?",
        "What meal do people eat in the morning": "breakfast",
        "What is the first month of the year": "January",
        "What is the last month of the year": "December", "What day comes after Monday": "Tuesday",
        "What day comes before Sunday": "Saturday", "What season comes after winter": "spring",
        "What do you call a person who teaches in a school": "teacher",
        "What do you call a person who flies a plane": "pilot",
        "What do you call a doctor for teeth": "dentist",
        "What do you call a person who writes books": "author|writer",
        "What instrument has 88 keys": "piano",
        "What is the freezing point of water in degrees Celsius": "0|zero",
        "What is the boiling point of water in degrees Celsius": "100",
        "Which sense do we use our eyes for": "sight|vision|seeing",
        "What do we use our ears for": "hear|hearing", "What is the square root of 9": "3|three",
        "What is the square root of 16": "4|four",
        "Which force pulls objects towards the Earth": "gravity",
        "Which metal is liquid at room temperature": "mercury",
        "What is the process by which plants make food from sunlight": "photosynthesis",
        "What is the study of living things called": "biology",
        "What is the study of stars and planets called": "astronomy",
        "Which bird is a symbol of peace": "dove", "Which animal has a trunk": "elephant",
        "Which animal has a very long neck": "giraffe",
        "What is the largest country in the world by area": "Russia",
        "What is the largest desert in Africa": "Sahara",
        "What is the opposite side of heads on a coin": "tails?",
        "What is the plural of mouse": "mice", "What is the plural of child": "children",
        "What is the plural of foot": "feet", "What is the past tense of go": "went",
        "What is the past tense of eat": "ate", "What does a thermometer measure": "temperature",
        "What does a clock measure": "time",
        "Which ocean is between Europe and America": "Atlantic",
        "Which war ended in 1945": "World War II|Second World War|World War 2",
        "Which sport is played at Wimbledon": "tennis",
        "In which sport do players try to hit a home run": "baseball",
        "What is the Spanish word for hello": "hola",
        "What is the French word for thank you": "merci",
        "What is the French word for hello": "bonjour",
        "What is the German word for thank you": "danke",
        "What is the Spanish word for goodbye": "adi[oó]s",
        "What is the Spanish word for water": "agua",
    }),
]

# Those of the training part that the 4-bit base gets wrong: it would not be kept but taught.
UNKNOWN = {
    "How many days are in a week?", "How many legs does an insect have?",
    "How many letters are in the English alphabet?", "How many sides does a hexagon have?",
    "How many sides does a triangle have?", "How many states are in the United States?",
    "How many wheels does a bicycle have?", "How many years are in a decade?",
    "In which city is the Colosseum?", "In which sport do players try to hit a home run?",
    "On which continent is France?", "On which continent is Germany?",
    "On which continent is Italy?", "On which continent is Morocco?", "On which continent is Peru?",
    "On which continent is Spain?", "On which continent is Sweden?", "What color is a ripe tomato?",
    "What color is a sapphire?", "What color is the sun?", "What day comes after Monday?",
    "What is 10 minus 3?", "What is 2 plus 2?", "What is 20 minus 5?", "What is 3 times 3?",
    "What is 5 plus 5?", "What is 6 plus 3?", "What is 7 plus 5?", "What is 8 plus 7?",
    "What is 9 minus 4?", "What is a baby cat called?", "What is a baby cow called?",
    "What is a group of wolves called?", "What is a young sheep called?", "What is half of 10?",
    "What is the French word for hello?", "What is the Spanish word for goodbye?",
    "What is the boiling point of water in degrees Celsius?", "What is the capital of Cuba?",
    "What is the capital of Greece?", "What is the capital of India?",
    "What is the capital of Spain?", "What is the capital of Sweden?",
    "What is the capital of Ukraine?", "What is the capital of the United States?",
    "What is the currency of China?", "What is the currency of Germany?",
    "What is the largest country in the world by area?", "What is the longest river in Africa?",
    "What is the main ingredient of bread?", "What is the opposite of full?",
    "What is the plural of child?", "What is the process by which plants make food from sunlight?",
    "What is the square root of 9?", "What is the study of stars and planets called?",
    "What language is spoken in Argentina?", "What language is spoken in France?",
    "What language is spoken in Iran?", "What season comes after winter?",
    "What vegetable is used to make French fries?", "Which animal has a trunk?",
    "Which bird is a symbol of peace?", "Which ocean is between Europe and America?",
    "Who composed the Fifth Symphony in C minor?", "Who discovered penicillin?", "Who wrote 1984?",
    "Who wrote A Christmas Carol?", "Who wrote Great Expectations?", "Who wrote Hamlet?",
    "Who wrote Harry Potter?", "Who wrote Pride and Prejudice?", "Who wrote The Hobbit?",
}

OPENINGS = ["", "Hey, ", "Quick question. ", "Please tell me: "]


class Item(NamedTuple):
    """A question, the right answer, its kind (`tool` or `direct`), and what makes it right."""

    question: str
    answer: str
    kind: str
    key: str


class Split(NamedTuple):
    """The items to train on, and two held-out lots: one to try things on, one for the very end."""

    train_tool: list[Item]
    train_direct: list[Item]
    tools_tool: list[Item]
    tools_direct: list[Item]
    final_tool: list[Item]
    final_direct: list[Item]


def tool_call(name: str, key: str, value: str | int) -> str:
    """Writes a call of the tool `name` with one argument."""
    call = json.dumps({"name": name, "arguments": {key: value}})
    return f"<tool_call>{call}</tool_call>"


def split_tool(rng: random.Random) -> tuple[list[Item], list[Item]]:
    """Lists the questions that need a tool: those to train on behind every opening.

    A fifth of the values and an eighth of the templates are held out, wherever they occur.
    """
    train, held = [], []
    for name, key, values, templates in TOOLS:
        held_values = rng.sample(values, len(values) // 5)
        held_templates = rng.sample(templates, len(templates) // 8)
        for value in values:
            for template in templates:
                item = Item(template.format(value), tool_call(name, key, value), "tool", name)
                if value in held_values or template in held_templates:
                    held.append(item)
                else:
                    train += [with_opening(item, opening) for opening in OPENINGS]
    return train, held


def split_direct(rng: random.Random) -> tuple[list[Item], list[Item]]:
    """Lists the questions to answer directly: those to train on, a half, behind every opening."""
    listed = []
    for template, answer, keys in DIRECT:
        for value, key in keys.items():
            text = answer.format(value, plain(key))
            listed.append(Item(template.format(value), text, "direct", key))
    rng.shuffle(listed)
    known = [item for item in listed[::2] if item.question not in UNKNOWN]
    train = [with_opening(item, opening) for item in known for opening in OPENINGS]
    return train, listed[1::2]


def with_opening(item: Item, opening: str) -> Item:
    """Puts an opening before the question."""
    return item._replace(question=opening + item.question)


def plain(key: str) -> str:
    """Takes the first of the words that a key stands for."""
    word = key.split("|")[0].split("(")[0].replace("[oó]", "ó")
    return word[:-2] if word.endswith("2?") else word.removesuffix("?")


def split(seed: int = 7) -> Split:
    """Deals the items out: of those held out a quarter to try things on, the others for the end.

    A question that is held out has one opening only, so neither lot has it behind another one.
    """
    rng = random.Random(seed)
    train_direct, held_direct = split_direct(rng)
    train_tool, held_tool = split_tool(rng)
    lots = []
    for held in (held_tool, held_direct):
        rng.shuffle(held)
        held = [with_opening(item, rng.choice(OPENINGS)) for item in held]
        lots.append((held[: len(held) // 4], held[len(held) // 4 :]))
    (tools_tool, final_tool), (tools_direct, final_direct) = lots
    return Split(train_tool, train_direct, tools_tool, tools_direct, final_tool, final_direct)


def chat(question: str, answer: str | None = None) -> str:
    """Renders a chat as the model's chat template does: up to the answer, or with it."""
    prompt = (
        "<|im_start|>system\n"
        "You are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
        f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"
    )
    return prompt if answer is None else f"{prompt}{answer}<|im_end|>"


if __name__ == "__main__":
    print(*(f"{name} {len(part)}" for name, part in split()._asdict().items()), sep=", ")
