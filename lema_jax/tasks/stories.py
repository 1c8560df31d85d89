"""Word problems from templates, for the task `arithmetic`.

A template is a block of lines in `arithmetic_templates/*.txt`: its name and what it draws, the question, then one line
for each step of the solution.

    savings: name in NAMES; weekly in 3..20; weeks in 2..9; spent in 5..20
    {name} saves {weekly} dollars a week for {weeks} weeks and spends {spent} dollars.{aside} How much is left?
    {name} saves {saved = weekly * weeks} dollars.
    There are {left = saved - spent} dollars left.

`first, second in LIST` draws two different words of a list, `in a | b` one of the options written out; `name = text`
draws nothing. A step shows its sum, evaluated from the left, in GSM8K's published form: `22 - 5 = <<22-5=17>>17`. Every
number follows a space, because the small tokenizer keeps ` 17` as one token.
"""

import dataclasses
import operator
import random
import re
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import TypeVar

LEAST, LARGEST = 2, 100  # of two or more of a thing, so that the plurals are right
T = TypeVar("T")

_LISTS = {
    "NAMES": "Ana Ben Cara Dan Emma Finn Gina Hugo Ivy Jack Kim Leo Mia Nico Olga Paul Rosa Sam Tina Umar Vera Will"
    " Yara Zoe",
    "THINGS": "apples beads books buttons candles cards coins cookies eggs kites marbles muffins pencils pens plums"
    " ribbons roses shells stamps stickers toys tulips",
    "CONTAINERS": "bags baskets boxes crates jars packs",
    "PLACES": "park market school museum beach farm",
}
_WORDS = {name: tuple(text.split()) for name, text in _LISTS.items()}
_SUM = re.compile(r"\{(\w+) = ([^{}]+)\}")
_OPERATIONS = {"+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.floordiv}


class Misfit(Exception):
    """A draw with a result that is not whole, or outside LEAST..LARGEST."""


@dataclasses.dataclass(frozen=True)
class Story:
    """A question, its solution (one line with one `<<…>>` mark a step) and its answer."""

    question: str
    steps: tuple[str, ...]
    answer: int


@dataclasses.dataclass(frozen=True)
class Template:
    """A template, parsed."""

    name: str
    given: Mapping[str, str]  # variables that are not drawn
    draws: tuple[tuple[tuple[str, ...], Sequence[str | int]], ...]  # variables and what they are drawn from
    question: str
    steps: tuple[tuple[str, str, tuple[str, ...]], ...]  # text with `{variable}`, the variable, its sum's terms

    def story(self, rng: random.Random) -> Story:
        """Draws one story.

        Raises:
          Misfit: the numbers drawn do not come out whole and small; draw again.
        """
        values: dict[str, str | int] = dict(self.given)
        for variables, options in self.draws:
            values[variables[0]] = first = _choice(rng, options)
            if len(variables) > 1:
                values[variables[1]] = _choice(rng, [one for one in options if one != first])
        for _, variable, terms in self.steps:
            values[variable] = _summed(values, terms)
        aside = _aside(rng, str(values["name"])) if "{aside}" in self.question else ""
        steps = tuple(
            text.format_map(values | {variable: _shown(values, terms, values[variable])})
            for text, variable, terms in self.steps
        )
        return Story(self.question.format_map(values | {"aside": aside}), steps, int(values[variable]))


def templates(file: str) -> tuple[Template, ...]:
    """The templates of a file of `arithmetic_templates`, in its order."""
    folder = resources.files("lema_jax.tasks") / "arithmetic_templates"
    return tuple(map(_template, (folder / file).read_text(encoding="utf-8").strip().split("\n\n")))


def _template(block: str) -> Template:
    head, question, *lines = block.split("\n")
    name, _, variables = head.partition(": ")
    given = dict(one.split(" = ") for one in variables.split("; ") if " = " in one)
    sources = (one.split(" in ") for one in variables.split("; ") if " in " in one)
    draws = tuple((tuple(names.split(", ")), _options(source)) for names, source in sources)
    steps = tuple(
        (_SUM.sub(r"{\1}", line), variable, tuple(terms.split()))
        for line in lines
        for variable, terms in _SUM.findall(line)
    )
    return Template(name, given, draws, question, steps)


def _options(source: str) -> Sequence[str | int]:
    low, dots, high = source.partition("..")
    return range(int(low), int(high) + 1) if dots else _WORDS.get(source) or source.split(" | ")


def _choice(rng: random.Random, options: Sequence[T]) -> T:
    """One of the options, by `Random.random`, the one method whose sequence Python keeps across versions."""
    return options[int(rng.random() * len(options))]


def _summed(values: Mapping[str, str | int], terms: Sequence[str]) -> int:
    total = int(values.get(terms[0], terms[0]))
    for sign, term in zip(terms[1::2], terms[2::2]):
        number = int(values.get(term, term))
        if sign == "/" and total % number:
            raise Misfit
        total = _OPERATIONS[sign](total, number)
    if not LEAST <= total <= LARGEST:
        raise Misfit
    return total


def _shown(values: Mapping[str, str | int], terms: Sequence[str], total: str | int) -> str:
    shown = " ".join(str(values.get(term, term)) for term in terms)
    return f"{shown} = <<{shown.replace(' ', '')}={total}>>{total}"


def _aside(rng: random.Random, name: str) -> str:
    """In three of ten questions a sentence that has nothing to do with the answer."""
    if rng.random() >= 0.3:
        return ""
    number = _choice(rng, range(3, 21))
    home, place = _choice(rng, _WORDS["PLACES"]), _choice(rng, _WORDS["PLACES"])
    return " " + _choice(
        rng,
        (
            f"{name} is {number} years old.",
            f"{name} lives {number} miles from the {home}.",
            f"It is {number} degrees outside.",
            f"The shop has been open for {number} years.",
            f"{name} has read {number} pages today.",
            f"There are {number} people in the {place}.",
        ),
    )
