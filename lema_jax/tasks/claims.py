"""The arithmetic that a step of a reasoning path claims: `5 boxes x $3 = $15` claims that 5 * 3 is 15.

Only sides that are read to their end make claims (`sides`). Where the text is ambiguous (half, dozen, two units of
time), the equation is a claim only if it holds: a coincidence is rarer than another meaning.
"""

import dataclasses
import itertools
import re
from collections.abc import Iterable
from fractions import Fraction

from lema_jax.tasks import expressions, sides
from lema_jax.tasks.notation import arithmetic
from lema_jax.tasks.sides import Side


@dataclasses.dataclass(frozen=True)
class Claim:
    """`expression = stated`, as read from a step."""

    expression: str  # such as `5 * 3`
    operands: tuple[Fraction, ...]
    value: Fraction  # of the expression
    stated: Fraction
    holds: bool  # equal up to the rounding of the digits written


def claims(step: str) -> list[Claim]:
    """The claims of a step, in its order.

    Units and other words between numbers and signs are passed over; equations with variables are no claims. A run-on
    `2 * 5 = 10 * 3 = 30` claims that 2 * 5 is 10 and that 10 * 3 is 30. A step longer than 10,000 characters, as of a
    model that never ends, claims nothing.
    """
    if len(step) > _LONGEST:
        return []
    text = arithmetic(step)
    hundredfold = bool(_HUNDREDTHS.search(text))
    ambiguous = bool(_ANOTHER_ARITHMETIC.search(text))
    return [
        claim
        for chain in sides.chains(text)
        for left, right in itertools.pairwise(chain)
        if (claim := _claim(left, right, hundredfold, ambiguous))
    ]


def of_steps(steps: Iterable[str]) -> list[Claim]:
    """The claims of all steps, in their order."""
    return [claim for step in steps for claim in claims(step)]


def numbers(step: str) -> list[Fraction]:
    """The numbers written in digits, in their order; none in a step that is too long to make claims."""
    return sides.numbers(arithmetic(step)) if len(step) <= _LONGEST else []


_LONGEST = 10_000


_HUNDREDTHS = re.compile(r"%|¢|\b(?:percent|cents?)\b", re.IGNORECASE)
_ANOTHER_ARITHMETIC = re.compile(
    r"\b(?:base|modulo|mod|binary|hexadecimal|octal|digits?|a\.?m|p\.?m|noon|midnight|o'clock|thousands?|millions?|billions?)\b"
    r"|\d[ap]m\b",
    re.IGNORECASE,
)


def _claim(left: Side, right: Side, hundredfold: bool, ambiguous: bool) -> Claim | None:
    if not (left.complete and right.complete) or len(left.numbers) < 2:
        return None
    value, stated = expressions.exact(left.text), expressions.exact(right.text)
    if value is None or stated is None:
        return None
    first = right.numbers[0]
    if len(right.numbers) > 1 and (first == value or ("/" not in right.text and _near(value, first, right))):
        stated = first  # a run-on
    holds = (
        _near(value, stated, right)
        or (hundredfold and (_near(value * 100, stated, right) or _near(value / 100, stated, right)))
        or _near(_unrounded(left.text), stated, right)
    )
    if not holds and (ambiguous or _is_ambiguous(left, right, value, stated)):
        return None
    return Claim(" ".join(left.text.split()), tuple(left.numbers), value, stated, holds)


def _near(value: Fraction | None, stated: Fraction, right: Side) -> bool:
    """Equal up to the rounding of the digits written; after ≈, up to that of the last non-zero digit.

    A fraction such as `2/3` is not rounded.
    """
    if value is None or value == stated or (stated.denominator > 1 and not right.decimals):
        return value == stated
    step = Fraction(1, 10**right.decimals)
    if right.about and stated and stated.denominator == 1:
        step = Fraction(10 ** (len(str(stated)) - len(str(stated).rstrip("0"))))
    return (value.denominator > 1 or right.about) and abs(value - stated) < step


def _is_ambiguous(left: Side, right: Side, value: Fraction, stated: Fraction) -> bool:
    """Whether an equation that does not hold may mean something else than it says."""
    units = left.units | right.units
    return (
        left.ambiguous
        or right.ambiguous
        or len({kind for kind, _ in units}) < len(units)  # 2 hours + 30 minutes
        or (not left.signs and value < 1 < stated and not right.percents)  # `1/4 = 20 students`
        or (0 < left.percents < len(left.numbers) and ("+" in left.text or "-" in left.text))  # 200 + 10%
        or stated == -value  # 5 - 15 = 10 less
        or ("/" in left.text and stated == left.numbers[0])  # 17 / 5 = 5 * 3 + 2
        or (right.about and abs(value - stated) < abs(value) / 10)
    )


_ROUNDED = re.compile(r"\d*\.\d\d+")
_SHORT_PERIODS = (3, 6, 7, 9, 11, 12)


def _unrounded(expression: str) -> Fraction | None:
    """The value with thirds for `.33`, sixths for `.83` and so on: what a rounded result goes on as."""
    exact = _ROUNDED.sub(_repeating, expression)
    return expressions.exact(exact) if exact != expression else None


def _repeating(found: re.Match[str]) -> str:
    number = Fraction(found.group())
    step = Fraction(1, 10 ** len(found.group().partition(".")[2]))
    for period in _SHORT_PERIODS:
        near = Fraction(round(number * period), period)
        if near.denominator == period and abs(near - number) < step:
            return f"({near.numerator} / {near.denominator})"
    return found.group()
