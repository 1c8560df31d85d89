r"""Quantities: the number before a unit, and the conversion of units of one dimension.

Any words after a quantity are its unit, with their powers (`12 \text{ cm}^2`, `5 \text{ m/s}^2`, `90 square units`).
Units are ignored unless both answers name units of one dimension and different size: 2 hours are 120 minutes.
"""

import dataclasses
from collections.abc import Sequence
from fractions import Fraction

from lema_jax.tasks import tokens

_TABLE = {
    "length": {
        "mm millimeter millimetre": "1/1000", "cm centimeter centimetre": "1/100", "dm decimeter decimetre": "1/10",
        "m meter metre": "1", "km kilometer kilometre": "1000", "in inch": "254/10000", "ft foot feet": "3048/10000",
        "yd yard": "9144/10000", "mi mile": "1609344/1000",
    },
    "time": {
        "s sec second": "1", "min minute": "60", "h hr hour": "3600", "day": "86400", "week": "604800",
    },
    "months": {"month": "1", "year yr": "12"},
    "money": {"cent": "1/100", "dollar": "1"},
    "weight": {"oz ounce": "1", "lb pound": "16"},
    "mass": {"mg milligram": "1/1000", "g gm gram": "1", "kg kilogram": "1000"},
    "gallons": {"cup": "1", "pint": "2", "quart": "4", "gallon": "16"},
    "volume": {"ml mL milliliter millilitre": "1", "l L liter litre": "1000"},
}  # fmt: skip
_UNITS = {
    name: (dimension, Fraction(size))
    for dimension, units in _TABLE.items()
    for names, size in units.items()
    for one in names.split()
    for name in (one, f"{one}s", f"{one}es")
}
_UNITS["inches"] = _UNITS["inch"]
_POWERS = {"square": 2, "sq": 2, "cubic": 3, "cu": 3}
_SCALES = {"hundred": 2, "thousand": 3, "million": 6, "billion": 9, "trillion": 12}
_PERCENT = frozenset(("percent", "pct", "percentage"))
_NO_UNIT = tokens.names(
    "and or not is are remainder times plus minus to divided over base less more fewer greater than if when where"
)
BEFORE = tokens.names("about approximately exactly roughly around only just is are")
# A letter after a number may be a unit or a variable; the other answer decides.
_LETTERS = frozenset(("\\Omega", *"msghLNJVWKCFA"))


@dataclasses.dataclass(frozen=True)
class Unit:
    """A unit of known size."""

    dimension: str
    size: Fraction


def known(word: str) -> Unit | None:
    """The unit that a word names if its size is known: `hours`, `ft`."""
    return _of_known_size([word])


def read(expression: Sequence[str]) -> tuple[Sequence[str], Unit | None] | None:
    """The quantity without its unit, and the unit if its size is known; None if no unit follows a quantity."""
    start = 0
    while (
        start < len(expression) - 1
        and expression[start].lstrip(tokens.WORD).lower() in BEFORE
        and tokens.is_word(expression[start])
    ):
        start += 1
    expression = expression[start:]
    end = _start_of_words(expression)
    if end is None:
        return (expression, None) if start else None
    quantity, unit = expression[:end], [token.lstrip(tokens.WORD) for token in expression[end:]]
    if (scale := _SCALES.get(unit[0].lower())) is not None:
        quantity, unit = (*quantity, "*", str(10**scale)), unit[1:]
    elif unit[0].lower() == "dozen":
        quantity, unit = (*quantity, "*", "12"), unit[1:]
    elif unit[0].lower() in _PERCENT:
        return (*quantity, "%"), None
    elif unit[0].lower() in ("degree", "degrees") and len(unit) == 1:
        return (*quantity, "\\degree"), None
    return quantity, _of_known_size(unit)


def compound(expression: Sequence[str]) -> tuple[tuple[str, ...], Unit] | None:
    """`2 hours and 30 minutes` as one quantity in the first unit; None unless it is several of one dimension."""
    parts: list[tuple[Sequence[str], Unit]] = []
    at = 0
    while at < len(expression):
        if parts and expression[at] in (",", '"and'):
            at += 1
            continue
        start = at
        while at < len(expression) and not tokens.is_word(expression[at]):
            at += 1
        unit = _of_known_size([expression[at].lstrip(tokens.WORD)]) if at < len(expression) else None
        if unit is None or start == at or "," in expression[start:at] or "=" in expression[start:at]:
            return None
        parts.append((expression[start:at], unit))
        at += 1
        if expression[at : at + 1] == (".",):
            at += 1
    if len(parts) < 2 or len({unit.dimension for _, unit in parts}) > 1:
        return None
    first = parts[0][1]
    total: list[str] = [*parts[0][0]]
    for quantity, unit in parts[1:]:
        share = unit.size / first.size
        if share >= 1:
            return None
        total += ["+", "(", *quantity, ")", "*", str(share.numerator), "/", str(share.denominator)]
    return tuple(total), first


def scaled(expression: Sequence[str]) -> tuple[str, ...] | None:
    """`1 million 500 thousand` as a sum; None unless the names of numbers decrease."""
    numbers, names = expression[::2], [token.lstrip(tokens.WORD).lower() for token in expression[1::2]]
    powers = [_SCALES.get(name, 0) for name in names]
    if (
        len(expression) < 3
        or not all(map(str.isdigit, numbers))
        or not all(a > b for a, b in zip(powers, (*powers[1:], 0)))
    ):
        return None
    shares = zip(numbers, [*powers, 0])  # the last number may have no name
    return tuple(token for number, power in shares for token in ("+", number, "*", str(10**power)))[1:]


def without_letter(expression: Sequence[str]) -> Sequence[str] | None:
    """`5 m`, `25 m^2` or `9.8 m/s^2` without the letters that may be a unit; None if there are none."""
    end = len(expression)
    while end > 0 and (
        expression[end - 1] in _LETTERS
        or expression[end - 1] in ("/", "^", "{", "}", "*", "-")
        or (expression[end - 1] in ("1", "2", "3") and expression[end - 2 : end - 1] in (("^",), ("{",), ("-",)))
    ):
        end -= 1
    while end < len(expression) and expression[end] not in _LETTERS:
        end += 1
    return expression[:end] if 0 < end < len(expression) else None


def _start_of_words(expression: Sequence[str]) -> int | None:
    """Where the words at the end of the expression start if they are a unit that follows a quantity, else None."""
    depth = 0
    for at, token in enumerate(expression):
        if tokens.is_word(token):
            if depth or at == 0 or not _may_end_a_quantity(expression[at - 1]):
                return None
            if at == 1 and expression[0] in ("a", "A", "I"):  # an article, a pronoun
                return None
            return at if _is_unit(expression[at:]) else None
        depth += (token in tokens.OPENING) - (token in tokens.OPENING.values())
    return None


def _may_end_a_quantity(token: str) -> bool:
    named = token[-1].isalnum() and (token[0] != "\\" or token in _SIGNS)
    return named or token in (")", "]", "}", "|", "!", "%", "\\}")


_SIGNS = frozenset(("\\pi", "\\degree", "\\infty", "\\theta", "\\alpha", "\\beta", "\\lambda"))


def _is_unit(expression: Sequence[str]) -> bool:
    """Whether these are words with their powers, none of which has another meaning (_NO_UNIT)."""
    for before, token in zip(("", *expression), expression):
        if tokens.is_word(token):
            fits = token.lstrip(tokens.WORD).lower() not in _NO_UNIT
        elif token.isdigit():
            fits = before in ("^", "{", "-")
        else:
            fits = token in "^{}-/*.()'" or token == "\\degree" or before in ("*", "/", "(")
        if not fits:
            return False
    return True


def _of_known_size(unit: Sequence[str]) -> Unit | None:
    words = [token for token in unit if token not in ("{", "}", ".")]
    power = 1
    if len(words) == 3 and words[1] == "^" and words[2] in ("1", "2", "3"):
        words, power = words[:1], int(words[2])
    elif len(words) == 2 and words[0].lower() in _POWERS:
        words, power = words[1:], _POWERS[words[0].lower()]
    known = _UNITS.get(words[0]) or _UNITS.get(words[0].lower()) if len(words) == 1 else None
    return None if known is None else Unit(f"{known[0]}^{power}", known[1] ** power)
