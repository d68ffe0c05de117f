"""The quickstart's instruction set and suite: 12 use cases, 30 training rows and 12 questions each, all of our own making.

    python studies/quickstart/make.py            # writes train.jsonl and suite.jsonl beside this file, the same bytes every time
    python studies/quickstart/make.py DIR

Rows are short, so that a small model learns from a few hundred of them in a minute or two. Each use case has a house
convention that the prompt does not spell out (`Answer: 12`; three bullets; JSON with `name` and `city`), which is what
tuning teaches, and content, which is partly known and partly learned. Training and evaluation are disjoint by construction:
each use case draws its content (facts, names, things, numbers) from two pools that share nothing. The translation alone
shares its words, since a word cannot be known unseen: there the pairs of words are disjoint. `assert_disjoint` proves it.
"""

from __future__ import annotations

import json
import random
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

NUM_TRAINING, NUM_EVALUATION = 30, 12
SEED = 2024


@dataclass(frozen=True)
class Task:
    """A prompt with its right answer, how an answer is checked, and the content that no task of the other split may have."""

    prompt: str
    answer: str
    checks: tuple[dict[str, Any], ...]
    content: frozenset[str]


def task(prompt: str, answer: str, checks: Sequence[dict[str, Any]], *content: object) -> Task:
    """A task; `content` is told in whatever values are at hand."""
    return Task(prompt, answer, tuple(checks), frozenset(map(str, content)))


@dataclass(frozen=True)
class Split:
    """What one split of one use case draws from: its own pools, how many tasks it makes, and a generator of its own."""

    num_tasks: int
    evaluation: bool
    random: random.Random

    def of(self, training: str | Sequence[Any], evaluation: str | Sequence[Any]) -> list[Any]:
        """This split's pool, shuffled. Words are given as one string, phrases with `;` between them."""
        pool = evaluation if self.evaluation else training
        items = [part.strip() for part in (pool.split(";") if ";" in pool else pool.split())] if isinstance(pool, str) else list(pool)
        self.random.shuffle(items)
        return items

    def pairs(self, pool: Sequence[Any]) -> list[tuple[Any, Any]]:
        """As many pairs of different members as there are tasks, each member about as often as any other, no pair twice."""
        found: list[tuple[Any, Any]] = []
        for step in range(1, len(pool)):
            found += [(pool[n], pool[(n + step) % len(pool)]) for n in range(len(pool))]
        return found[: self.num_tasks]


def exact(value: str) -> dict[str, Any]:
    """The check that the answer is the text and nothing else."""
    return {"kind": "exact", "value": value}


def says(*words: str, **fields: Any) -> dict[str, Any]:
    """The check that the answer has all these words."""
    return {"kind": "contains", "all_of": list(words), **fields}


def short(words: int) -> dict[str, Any]:
    """The check that the answer has at most so many words."""
    return {"kind": "length", "unit": "words", "at_most": words}


def names(split: Split) -> list[str]:
    """People's names."""
    return split.of(
        "Anna Paul Lena Mark Rosa Hugo Vera Karl Nina Otto Clara Felix Greta Oscar Irma Bruno Ella Jonas Ruth Simon",
        "Mia Ben Zoe Leo Ida Sam Eva Tim Kate Noah",
    )


def things(split: Split) -> list[str]:
    """Things one can hold."""
    return split.of(
        "lamp hat spoon rope brush ring drum kite map coin bell mirror candle basket bottle hammer pillow ladder ticket broom",
        "ball cup key box shoe pen bag clock flag book",
    )


def generation(split: Split) -> list[Task]:
    """One short sentence with two given things."""
    frames = (
        "The {} is next to the {}.", "The {} and the {} are old.", "I put the {} under the {}.",
        "The {} is bigger than the {}.", "We saw a {} and a {}.",
    )  # fmt: skip
    found: list[Task] = []
    for n, (one, other) in enumerate(split.pairs(things(split))):
        sentence = frames[n % len(frames)].format(one, other)
        checks = [says(one, other, gate=True), short(9), {"kind": "format", "ends_with": "."}]
        found.append(task(f"Write a sentence with {one} and {other}.", sentence, checks, one, other))
    return found


FACTS = """capital of France?Paris;capital of Italy?Rome;capital of Spain?Madrid;capital of Egypt?Cairo;capital of Russia?Moscow;
capital of Greece?Athens;capital of Cuba?Havana;capital of Poland?Warsaw;capital of Ireland?Dublin;capital of Austria?Vienna;
opposite of hot?Cold;opposite of up?Down;opposite of big?Small;opposite of fast?Slow;opposite of wet?Dry;opposite of young?Old;
opposite of light?Dark;opposite of hard?Soft;color of the sky?Blue;color of grass?Green;color of snow?White;color of coal?Black;
color of an orange?Orange;name of a baby dog?Puppy;name of a baby cat?Kitten;name of a baby cow?Calf;name of frozen water?Ice;
largest ocean?Pacific;largest continent?Asia;first month of the year?January"""
ASKED_FACTS = """capital of Japan?Tokyo;capital of Germany?Berlin;capital of England?London;capital of China?Beijing;
opposite of left?Right;opposite of happy?Sad;opposite of open?Closed;color of a banana?Yellow;color of blood?Red;
name of a baby sheep?Lamb;largest planet?Jupiter;last month of the year?December"""


def open_qa(split: Split) -> list[Task]:
    """A fact in one word."""
    found: list[Task] = []
    for line in split.of(FACTS, ASKED_FACTS):
        question, answer = line.split("?")
        found.append(task(f"What is the {question}?", answer, [exact(answer), says(answer)], question, answer))
    return found


def closed_qa(split: Split) -> list[Task]:
    """Who has it, in one name: both are in the passage."""
    found: list[Task] = []
    people, objects = split.pairs(names(split)), split.pairs(things(split))
    for n, ((one, other), (first, second)) in enumerate(zip(people, objects, strict=True)):
        holder, asked = ((one, first), (other, second))[n % 2]
        checks = [exact(holder), says(holder, none_of=[other if holder == one else one])]
        found.append(task(f"{one} has a {first}. {other} has a {second}. Who has the {asked}?", holder, checks, one, other, first, second))
    return found


REVIEWS = """sport:The goalkeeper saved the penalty;sport:She ran the race in ten seconds;sport:Their team lost by two goals;
sport:He hit the tennis ball hard;sport:The swimmer won a medal;sport:The coach picked new players;sport:They scored in the last minute;
sport:The boxer trained all day;food:The soup needs more salt;food:She baked a cake with cherries;food:He fried two eggs;
food:Fresh bread smells good;food:The cheese is very soft;food:We ate rice and beans;food:The sauce is too spicy;
food:Mix the flour and the butter;weather:It will rain tomorrow;weather:Thick fog covers the valley;
weather:The sun is out again;weather:A cold wind blows from the north;weather:Snow fell all night;weather:Dark clouds are coming;
weather:It is hot and dry today;music:The singer has a deep voice;music:She plays the violin;music:The choir sang two songs;
music:He tuned his old guitar;music:The band gave a concert;music:That melody is sweet;music:The drummer keeps the beat"""
ASKED_REVIEWS = """sport:The striker kicked a corner;sport:Our club bought a skater;sport:He lifts weights in the gym;
food:The pasta is ready to serve;food:I like my steak with pepper;food:She peeled three potatoes;weather:A storm is near the coast;
weather:The ice will melt by noon;weather:Hail broke the window;music:The pianist practised a waltz;
music:An orchestra plays tonight;music:He wrote the tune of the hit"""


def classification(split: Split) -> list[Task]:
    """One of four topics, in one lower-case word."""
    found: list[Task] = []
    for line in split.of(REVIEWS, ASKED_REVIEWS):
        label, text = line.split(":")
        checks = [exact(label), {**exact(label), "case_sensitive": True}]
        found.append(task(f"Sport, food, weather or music? {text}.", label, checks, text))
    return found


def extraction(split: Split) -> list[Task]:
    """Who and where, as JSON."""
    cities = split.of(
        "Rome Paris Madrid Oslo Cairo Lima Boston Dallas Denver Athens Moscow Vienna Lyon Delhi Seoul",
        "London Berlin Tokyo Chicago Prague Milan Dublin Geneva",
    )
    frames = ("{} lives in {}.", "{} moved to {} last year.", "My friend {} works in {}.", "In May {} will fly to {}.")
    people = names(split)
    found: list[Task] = []
    for n in range(split.num_tasks):
        name, city = people[n % len(people)], cities[(n + n // len(people)) % len(cities)]
        values = {"name": name, "city": city}
        checks = [{"kind": "json", "values": values, "only_listed": True}]
        found.append(task(f"Give JSON: {frames[n % len(frames)].format(name, city)}", json.dumps(values), checks, name, city))
    return found


COMMANDS = """open the window;close the door;bring some tea;turn off the light;wait outside;call me later;pass the salt;clean the room;
read the letter;move your car;speak slowly;send the bill;feed the dog;lift this stone;sign the form"""
ASKED_COMMANDS = "wash the plates;hold my coat;stop the noise;check the list;help my brother;fix the roof"
PAST = """walk home:walked;play chess:played;cook fish:cooked;paint walls:painted;jump high:jumped;visit farms:visited;
plant trees:planted;count sheep:counted;push carts:pushed;climb hills:climbed;fold paper:folded;go north:went;eat nuts:ate;
write poems:wrote;sing well:sang"""
ASKED_PAST = "kick stones:kicked;roll dough:rolled;collect shells:collected;drink milk:drank;take photos:took;follow rivers:followed"


def rewriting(split: Split) -> list[Task]:
    """A command made polite, and the present put into the past."""
    found: list[Task] = []
    for command in split.of(COMMANDS, ASKED_COMMANDS):
        polite = f"Could you {command}, please?"
        checks = [exact(polite), says(command), {"kind": "format", "ends_with": ", please?"}]
        found.append(task(f"Make it polite: {command.capitalize()}.", polite, checks, command))
    for line in split.of(PAST, ASKED_PAST):
        present, past = line.split(":")
        now, then = f"They {present}.", f"They {past} {present.split()[1]}."
        found.append(task(f"Put it in the past: {now}", then, [exact(then), says(past)], *present.split()))
    return found


def summarisation(split: Split) -> list[Task]:
    """A headline of three words: who does what to whom."""
    events = split.of(
        "storm breaks bridge broke;fire burns bakery burned;thief steals painting stole;king opens museum opened;"
        "flood covers fields covered;truck hits fence hit;pilot lands plane landed;farmer finds gold found;nurse saves child saved;"
        "wolf scares tourists scared;mayor plants oak planted;sailor builds raft built;monkey bites keeper bit;poet buys tower bought;"
        "bank closes office closed",
        "train kills cow killed;boy wins prize won;bear enters school entered;judge frees prisoner freed;doctor leaves hospital left;"
        "tiger attacks hunter attacked;girl climbs mountain climbed;spy copies letter copied;clown rides elephant rode;"
        "hen chases fox chased;queen sells crown sold;cook drops plate dropped",
    )
    frames = ("On Monday a {} {} the {} near the river, police said.", "Yesterday, to the surprise of all, the {} {} the {}.")
    found: list[Task] = []
    for n in range(split.num_tasks):
        subject, verb, thing, past = events[n % len(events)].split()
        story = frames[(n % len(events) + n // len(events)) % 2].format(subject, past, thing)
        checks = [says(subject, thing), says(verb), short(3)]
        found.append(task(f"Headline: {story}", f"{subject.capitalize()} {verb} {thing}", checks, subject, thing))
    return found


SPANISH_NOUNS = "cat:el gato;dog:el perro;book:el libro;house:la casa;table:la mesa;door:la puerta;moon:la luna"
SPANISH_ADJECTIVES = "red:rojo;white:blanco;black:negro;small:pequeño;new:nuevo;old:viejo"


def translation(split: Split) -> list[Task]:
    """A noun with its adjective in Spanish: the gender agrees, the order turns. The splits share the words and no pair of them."""
    nouns, adjectives = ([pair.split(":") for pair in words.split(";")] for words in (SPANISH_NOUNS, SPANISH_ADJECTIVES))
    asked = [(n % 7, (n + n // 7) % 6) for n in range(NUM_EVALUATION)]
    rest = [(noun, adjective) for noun in range(7) for adjective in range(6) if (noun, adjective) not in asked]
    found: list[Task] = []
    for noun, adjective in split.of(rest, asked):
        (thing, cosa), (kind, tipo) = nouns[noun], adjectives[adjective]
        spanish = f"{cosa} {tipo[:-1] + 'a' if cosa.startswith('la ') else tipo}"
        checks = [exact(spanish), {"kind": "chrf", "references": [spanish]}]
        found.append(task(f"In Spanish: the {kind} {thing}", spanish, checks, f"{kind} {thing}"))
    return found


LISTS = """fruits:apple pear plum;pets:cat dog hamster;tools:hammer saw drill;metals:iron gold copper;drinks:water tea juice;
trees:oak pine birch;sports:tennis hockey golf;planets:Mars Venus Saturn;rooms:kitchen bedroom bathroom;flowers:rose tulip lily;
insects:ant bee fly;jobs:nurse cook pilot;hats:cap beret helmet;fabrics:cotton wool silk;months:May June July;
spices:salt pepper ginger;dances:waltz tango polka;buildings:church castle tower;toys:doll ball puzzle;languages:French Greek Dutch;
ships:ferry yacht canoe;desserts:cake pudding pie;gems:ruby opal diamond;reptiles:snake lizard turtle;cereals:wheat oats rye;
shapes:circle square triangle;continents:Asia Africa Europe;nuts:almond walnut hazelnut;clouds:cirrus stratus cumulus;
games:chess poker bingo"""
ASKED_LISTS = """vegetables:carrot carrots tomato tomatoes potato potatoes onion onions broccoli spinach lettuce cucumber peas cabbage;
farm animals:cow cows pig pigs sheep chicken chickens horse horses goat goats duck ducks;
birds:eagle owl crow robin sparrow hawk duck hen swan parrot penguin;
colors:red blue green yellow black white purple orange brown pink;
body parts:arm hand leg foot head nose eye eyes ear mouth knee heart hair arms legs hands feet;
furniture:chair table sofa bed desk shelf couch bench lamp chairs tables;
clothes:shirt shoes pants dress coat socks jacket skirt sweater jeans shirts;
instruments:piano guitar violin flute trumpet drums drum cello;
vehicles:car bus truck train bike bicycle plane motorcycle boat cars;
seasons:spring summer autumn winter fall;family members:mother father sister brother son daughter aunt uncle mom dad;
school subjects:history maths English math science art biology physics music geography chemistry"""


def brainstorming(split: Split) -> list[Task]:
    """Three bullets of one word."""
    found: list[Task] = []
    for line in split.of(LISTS, ASKED_LISTS):
        topic, members = line.split(":")
        answer = "\n".join(f"- {member}" for member in members.split()[:3])
        checks = [{"kind": "format", "bullets": 3, "only_items": True}, {"kind": "contains", "any_of": members.split()}, short(6)]
        found.append(task(f"Name three {topic}.", answer, checks, topic))
    return found


SUMS = {
    False: [(a, b) for a in range(2, 20) for b in range(2, 10) if (a + b) % 3],
    True: [(a, b) for a in range(2, 20) for b in range(2, 10) if not (a + b) % 3],
}
"""Which numbers meet: in evaluation those with a sum that divides by three (and with it no pair of training, either way round)."""


def maths(split: Split) -> list[Task]:
    """A sum, a difference or a small product."""
    pairs = split.of(SUMS[False], SUMS[True])
    found: dict[str, Task] = {}
    for a, b in pairs:
        kind = len(found) % 3
        if kind == 2 and a > 9:
            continue
        sign, result = (("+", a + b), ("-", abs(a - b)), ("*", a * b))[kind]
        left, right = (max(a, b), min(a, b)) if kind == 1 else (a, b)
        checks = [{"kind": "number", "value": result}, {"kind": "regex", "pattern": r"^Answer: -?\d+\.?$"}]
        pair = f"{min(a, b)} {max(a, b)}"
        found.setdefault(pair, task(f"What is {left} {sign} {right}?", f"Answer: {result}", checks, pair))
        if len(found) == split.num_tasks:
            break
    return list(found.values())


OPERATIONS = (
    ("add {n} to {v}", "{v} + {n}"),
    ("subtract {n} from {v}", "{v} - {n}"),
    ("multiply {v} by {n}", "{v} * {n}"),
    ("divide {v} by {n}", "{v} / {n}"),
    ("is {v} above {n}", "{v} > {n}"),
    ("is {v} below {n}", "{v} < {n}"),
)


def code(split: Split) -> list[Task]:
    """A Python lambda. Compared as text, with sides of + and * in either order; never run."""
    variables, constants = split.of("x a n p b", "y k t"), split.of("2 3 4 6 8 9 10 20 30 50", "5 7 12 15 40 100")
    found: list[Task] = []
    for n in range(split.num_tasks):
        words, body = OPERATIONS[n % len(OPERATIONS)]
        variable, constant = variables[n % len(variables)], constants[(n + n // len(OPERATIONS)) % len(constants)]
        v, c = re.escape(variable), re.escape(constant)
        sign = re.escape(body.split()[1])
        either = rf"{v} *{sign} *{c}|{c} *{sign} *{v}" if body.split()[1] in "+*" else rf"{v} *{sign} *{c}"
        checks = [
            {"kind": "regex", "pattern": rf"^lambda {v}: ?"},
            {"kind": "regex", "pattern": rf"(?<![\w.])({either})(?![\w.])"},
            {"kind": "length", "unit": "lines", "exactly": 1, "gate": True},
        ]
        asked = f"Write a lambda: {words.format(v=variable, n=constant)}."
        found.append(task(asked, f"lambda {variable}: {body.format(v=variable, n=constant)}", checks, variable, constant))
    return found


def chain_of_thought(split: Split) -> list[Task]:
    """Two steps, and then the answer."""
    people, objects = names(split), split.of("apples stamps coins shells cards eggs", "pens books nuts cups")
    triples = [(a, b, c) for a in range(2, 10) for b in range(2, 7) for c in range(1, 5) if b != c and a > c]
    own = split.of([t for t in triples if sum(t) % 4], [t for t in triples if sum(t) % 4 == 0])
    found: list[Task] = []
    for n, (a, b, c) in enumerate(own[: split.num_tasks]):
        name, thing = people[n % len(people)], objects[n % len(objects)]
        gain, loss = (a + b, a + b - c), (a - c, a - c + b)
        (middle, end), asked, first, second = (
            (gain, f"gets {b} more and loses {c}", f"{a}+{b}={gain[0]}", f"{gain[0]}-{c}={gain[1]}"),
            (loss, f"loses {c} and gets {b} more", f"{a}-{c}={loss[0]}", f"{loss[0]}+{b}={loss[1]}"),
        )[n % 2]
        steps = r"\s*[,.;\n]?\s*".join(r"\s*".join(map(re.escape, re.findall(r"\d+|\S", step))) for step in (first, second))
        checks = [
            {"kind": "number", "value": end},
            {"kind": "regex", "pattern": rf"(?<!\d){steps}(?!\d)"},
            {"kind": "regex", "pattern": r"[Ss]o the answer is \d+\.?$"},
        ]
        answer = f"{first}, {second}. So the answer is {end}."
        found.append(task(f"{name} has {a} {thing}, {asked}. How many now?", answer, checks, name, thing, f"{a} {b} {c} {middle}"))
    return found


USE_CASES: tuple[Callable[[Split], list[Task]], ...] = (
    generation, open_qa, closed_qa, classification, extraction, rewriting,
    summarisation, translation, brainstorming, maths, code, chain_of_thought,
)  # fmt: skip


def make() -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The training rows (alpaca) and the items of the suite (campana)."""
    training: list[dict[str, Any]] = []
    suite: list[dict[str, Any]] = []
    for use_case in USE_CASES:
        name = use_case.__name__
        rows = use_case(Split(NUM_TRAINING, False, random.Random(f"{SEED} {name} training")))
        items = use_case(Split(NUM_EVALUATION, True, random.Random(f"{SEED} {name} evaluation")))
        assert (len(rows), len(items)) == (NUM_TRAINING, NUM_EVALUATION), f"{name}: {len(rows)} rows, {len(items)} items"
        assert_disjoint(name, rows, items)
        training += [{"category": name, "instruction": row.prompt, "output": row.answer} for row in rows]
        for n, item in enumerate(items, 1):
            place = {"id": f"{name}-{n:02}", "category": name, "language": "en"}
            suite.append({**place, "prompt": item.prompt, "reference": item.answer, "checks": list(item.checks)})
    return training, suite


def assert_disjoint(name: str, rows: Sequence[Task], items: Sequence[Task]) -> None:
    """No prompt twice, none in both splits, and no content in both."""
    prompts = [row.prompt for row in (*rows, *items)]
    assert len(set(prompts)) == len(prompts), f"{name}: a prompt comes twice"
    shared = frozenset[str]().union(*(row.content for row in rows)) & frozenset[str]().union(*(item.content for item in items))
    assert not shared, f"{name}: in training and in evaluation: {sorted(shared)}"


def write(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """JSON lines."""
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


if __name__ == "__main__":
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent
    made_training, made_suite = make()
    write(folder / "train.jsonl", made_training)
    write(folder / "suite.jsonl", made_suite)
