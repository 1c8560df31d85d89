"""What the word problems of the task `arithmetic` are made of: numbers that know their working, drawn words, a story.

A number is a `Quantity`: it remembers the sum that it came from, so `f"{left}"` reads `17` and `f"{left:=}"` reads
`22 - 5 = <<22-5=17>>17`, GSM8K's published form. A draw that leaves the whole numbers 2..100 is a `Misfit` and is drawn
anew. Numbers are told in digits after a space, since the small tokenizer keeps ` 17` as one token.
"""

import dataclasses
import random
from typing import Self, TypeVar

LEAST, LARGEST = 2, 100  # of two or more of a thing, so that the plurals are right
STATED = 20  # how large a number that a question states is, mostly: sums of small numbers are learnt in minutes
T = TypeVar("T")


class Misfit(Exception):
    """A draw whose numbers are not whole, too small or too large."""


class Quantity(int):
    """A whole number in 2..100 with the sum that gave it (empty for a number that the question states)."""

    working: str

    def __new__(cls, value: int, working: str = "") -> Self:
        if not LEAST <= value <= LARGEST:
            raise Misfit
        self = super().__new__(cls, value)
        self.working = working
        return self

    def __add__(self, other: int) -> "Quantity":
        return Quantity(int(self) + int(other), f"{int(self)} + {int(other)}")

    def __sub__(self, other: int) -> "Quantity":
        return Quantity(int(self) - int(other), f"{int(self)} - {int(other)}")

    def __mul__(self, other: int) -> "Quantity":
        return Quantity(int(self) * int(other), f"{int(self)} * {int(other)}")

    def __floordiv__(self, other: int) -> "Quantity":
        if int(self) % int(other):
            raise Misfit
        return Quantity(int(self) // int(other), f"{int(self)} / {int(other)}")

    def __format__(self, spec: str) -> str:
        if spec == "=":
            return f"{self.working} = <<{self.working.replace(' ', '')}={int(self)}>>{int(self)}"
        return format(int(self), spec)


def total(*parts: Quantity) -> Quantity:
    """The sum of several parts as one step."""
    return Quantity(sum(int(part) for part in parts), " + ".join(str(int(part)) for part in parts))


@dataclasses.dataclass(frozen=True)
class Story:
    """A question, its working (one line with one `<<…>>` mark a step) and its answer."""

    question: str
    steps: tuple[str, ...]
    answer: Quantity


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


class Draw:
    """Draws words and numbers by `Random.random` alone, the one method whose sequence Python keeps for all time."""

    NAMES = _words(
        "Ana Ben Cara Dan Emma Finn Gina Hugo Ivy Jack Kim Leo Mia Nico Olga Paul Rosa Sam Tina Umar Vera Will Yara Zoe"
    )
    THINGS = _words(
        "apples beads books buttons candles cards coins cookies eggs kites marbles muffins pencils pens plums ribbons"
        " roses shells stamps stickers toys tulips"
    )
    CONTAINERS = _words("bags baskets boxes crates jars packs")
    PLACES = _words("park market school museum beach farm")

    def __init__(self, rng: random.Random):
        self._rng = rng

    def one(self, *options: T) -> T:
        return options[int(self._rng.random() * len(options))]

    def two(self, options: tuple[str, ...]) -> tuple[str, str]:
        """Two different ones."""
        first = int(self._rng.random() * len(options))
        second = int(self._rng.random() * (len(options) - 1))
        return options[first], options[second + (second >= first)]

    def names(self) -> tuple[str, str]:
        return self.two(self.NAMES)

    def name(self) -> str:
        return self.one(*self.NAMES)

    def things(self) -> str:
        return self.one(*self.THINGS)

    def number(self, least: int, most: int) -> Quantity:
        """A whole number from `least` to `most`, the upper end brought down to STATED where that leaves a choice."""
        most = min(most, max(least + 6, STATED))
        return Quantity(least + int(self._rng.random() * (most - least + 1)))

    def aside(self, name: str) -> str:
        """In three of ten questions a sentence that has nothing to do with the answer."""
        if self._rng.random() >= 0.3:
            return ""
        number = self.number(3, 60)
        return " " + self.one(
            f"{name} is {number} years old.",
            f"{name} lives {number} miles from the {self.one(*self.PLACES)}.",
            f"It is {number} degrees outside.",
            f"The shop has been open for {number} years.",
            f"{name} has read {number} pages today.",
            f"There are {number} people in the {self.one(*self.PLACES)}.",
        )
