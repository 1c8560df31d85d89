r"""Numeric equality of two expressions: exact for rationals, else at two precisions.

Both precisions exceed the digits of the numbers involved: a difference that shrinks with the precision is rounding.
Variables take fixed pseudo-random values: two expressions that agree at several points count as equal, two that differ
at one are different. A point where either has no value, or leaves the reals without naming `i`, is skipped:
`\frac{x^2}{x}` is x.
"""

import dataclasses
import functools
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

from lema_jax.tasks import latex
from lema_jax.tasks.evaluator import POINTS, Evaluator, TooLarge, Undefined, Value, context
from lema_jax.tasks.latex import Node

_FEWEST_POINTS = 2  # where both are defined, for a verdict on real numbers
_BITS = 170  # of precision at first
_MOST_BITS = 20_000
_ROUNDED_TO_ZERO = 1e-12  # in floating point, `\\sin\\pi` is this close to zero
_ZERO: Node = ("number", Fraction(0))


@functools.lru_cache(maxsize=4_096)
def same(one: Node, other: Node) -> bool | None:
    """Whether two expressions have the same value wherever both have one; None if undecidable.

    Raises:
      TooLarge: a number is too large to compute.
      Exhausted: the verdict exceeds its work budget.
    """
    if one == other:
        return True
    if any(infinite := [_infinite(node) for node in (one, other)]):
        return infinite[0] == infinite[1]
    constant = not latex.variables(one) and not latex.variables(other)
    points = 1 if constant else POINTS
    of_reals = not constant and not any(latex.holds(node, ("constant", "i")) for node in (one, other))
    verdicts = list(_verdicts(one, other, points, of_reals))
    if of_reals and len(verdicts) < _FEWEST_POINTS and False not in verdicts:
        verdicts = list(_verdicts(one, other, points, of_reals=False))
    return False if False in verdicts else True if len(verdicts) >= min(points, _FEWEST_POINTS) else None


def is_zero(node: Node) -> bool | None:
    """Whether an expression is zero wherever it has a value. As `same`."""
    return same(node, _ZERO)


def proportional(one: Node, other: Node) -> bool | None:
    """Whether two expressions, neither of them zero, are constant multiples of each other. As `same`."""
    if is_zero(one) is not False or is_zero(other) is not False:
        return False
    return same(("*", one, ("at", other)), ("*", ("at", one), other))


def same_sign(one: Node, other: Node) -> bool:
    """Whether two expressions have the same sign at the first point where both have values."""
    for point in range(POINTS):
        a, b = (_rough(node, point, ()) for node in (one, other))
        if a and b and a.value and b.value and not a.left_reals and not b.left_reals:
            return (a.value > 0) == (b.value > 0)
    return False


def number(node: Node, given: dict[str, Fraction] | None = None) -> Any | None:
    """The value of an expression as an mpmath number, its variables as given; None if it has none."""
    try:
        return Evaluator(_BITS, given=given).inexact(node)
    except (Undefined, TooLarge):
        return None


def exact(node: Node) -> Fraction | None:
    """The value of a constant if it is rational."""
    try:
        found = None if latex.variables(node) else Evaluator(_BITS).value(node)
    except (Undefined, TooLarge):
        return None
    return found if isinstance(found, Fraction) else None


def real(node: Node) -> Any | None:
    """The value of a constant as an mpf if it is a real number or infinite."""
    if sign := _infinite(node):
        return sign * context().inf
    found = None if latex.variables(node) else number(node)
    return None if hasattr(found, "_mpc_") else found


def _infinite(node: Node) -> int:
    """The sign of an infinity; 0 for anything else."""
    if node == ("constant", "infinity"):
        return 1
    return -_infinite(node[1]) if node[0] == "negative" else 0


def _verdicts(one: Node, other: Node, points: int, of_reals: bool) -> Iterator[bool]:
    """Whether they are equal, at each point where both have values, up to the first where they differ."""
    bounds = latex.bounds(one) | latex.bounds(other)  # the bounds of a sum are natural numbers
    agreed = False
    for point in range(points):
        given = tuple((name, Fraction(2 + (point + len(name) + ord(name[-1])) % 7)) for name in sorted(bounds))
        a, b = _rough(one, point, given), _rough(other, point, given)
        if a is None or b is None or (of_reals and (a.left_reals or b.left_reals)):
            continue
        equal = _agree(a, b)
        if equal and not agreed and not (isinstance(a.value, Fraction) and isinstance(b.value, Fraction)):
            equal = _agree_finely(one, other, point, given, max(a.largest, b.largest))
        agreed = True  # the finer comparison at one point is enough
        yield equal
        if not equal:
            return


@dataclasses.dataclass(frozen=True)
class _At:
    """A value at a point, with the `Evaluator`'s record of its evaluation."""

    value: Value
    left_reals: bool
    largest: int
    scale: int
    near: complex | None  # in floating point, unless an intermediate number is large


@functools.lru_cache(maxsize=1_024)
def _rough(node: Node, point: int, given: tuple[tuple[str, Fraction], ...]) -> _At | None:
    evaluator = Evaluator(_BITS, point, dict(given))
    try:
        value = evaluator.value(node)
    except Undefined:
        return None
    near = complex(value) if evaluator.scale < 40 and evaluator.largest < 40 else None
    return _At(value, evaluator.left_reals, evaluator.largest, evaluator.scale, near)


def _agree(a: _At, b: _At) -> bool:
    if isinstance(a.value, Fraction) and isinstance(b.value, Fraction):
        return a.value == b.value
    if a.near is not None and b.near is not None and abs(a.near - b.near) > 1e-6 * abs(a.near) + _ROUNDED_TO_ZERO:
        return False
    evaluator = Evaluator(_BITS)
    difference = evaluator.rounded(a.value) - evaluator.rounded(b.value)
    return context().mag(difference) <= max(a.scale, b.scale, evaluator.scale) - _BITS // 2


def _agree_finely(one: Node, other: Node, point: int, given: tuple[tuple[str, Fraction], ...], largest: int) -> bool:
    """Whether the difference is rounding: as small as the precision allows, and smaller at a higher one."""
    if (bits := 2 * (_BITS + largest)) > _MOST_BITS:
        raise TooLarge
    mag, difference = context().mag, ("-", one, other)
    low = Evaluator(_BITS, point, dict(given)).inexact(difference)
    evaluator = Evaluator(bits, point, dict(given))
    high = evaluator.inexact(difference)
    return bool(mag(high) < evaluator.scale + 60 - bits and (low == 0 or mag(high) < mag(low) - 50))
