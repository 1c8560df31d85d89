"""Units of which a smaller one may follow in the same quantity: 2 hours 30 minutes, 5 feet 6 inches."""

import re
from typing import NamedTuple

_SMALLER = {
    ("year", "month"): 12,
    ("week", "day"): 7,
    ("day", "hour"): 24,
    ("hour", "minute"): 60,
    ("minute", "second"): 60,
    ("dollar", "cent"): 100,
    ("euro", "cent"): 100,
    ("pound", "penny"): 100,
    ("pound", "ounce"): 16,
    ("yard", "foot"): 3,
    ("foot", "inch"): 12,
    ("kilometer", "meter"): 1000,
    ("meter", "centimeter"): 100,
    ("centimeter", "millimeter"): 10,
    ("kilogram", "gram"): 1000,
    ("liter", "milliliter"): 1000,
    ("gallon", "quart"): 4,
}
_SPELT = {
    "year": "years? yrs?",
    "month": "months?",
    "week": "weeks?",
    "day": "days?",
    "hour": "hours? hrs? h",
    "minute": "minutes? mins?",
    "second": "seconds? secs?",
    "dollar": "dollars?",
    "cent": "cents?",
    "euro": "euros?",
    "penny": "pence penny pennies",
    "pound": "pounds? lbs?",
    "ounce": "ounces? oz",
    "yard": "yards? yds?",
    "foot": "feet foot ft",
    "inch": "inch(?:es)? in",
    "kilometer": "kilomet(?:er|re)s? km",
    "meter": "met(?:er|re)s? m",
    "centimeter": "centimet(?:er|re)s? cm",
    "millimeter": "millimet(?:er|re)s? mm",
    "kilogram": "kilograms? kgs?",
    "gram": "grams? g",
    "liter": "lit(?:er|re)s? l",
    "milliliter": "millilit(?:er|re)s? ml",
    "gallon": "gallons?",
    "quart": "quarts?",
}
_UNIT = re.compile(
    r"\s*(?:{})\b".format("|".join(f"(?P<{name}>{spelt.replace(' ', '|')})" for name, spelt in _SPELT.items())),
    re.IGNORECASE,
)


class Unit(NamedTuple):
    """A unit in a text."""

    name: str
    end: int


def named(text: str, start: int) -> Unit | None:
    """The unit that stands at `start`, white space before it allowed."""
    found = _UNIT.match(text, start)
    return Unit(found.lastgroup, found.end()) if found and found.lastgroup else None


def ratio(unit: str, smaller: str) -> int | None:
    """How many of the smaller unit make one of the other, where people name both in one quantity."""
    return _SMALLER.get((unit, smaller))
