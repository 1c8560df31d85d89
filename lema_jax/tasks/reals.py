r"""Sets of real numbers in answers: intervals, unions, inequalities, set builder, words.

`(-\infty, 2] \cup [3, \infty)`, `x \le 2 \text{ or } x \ge 3`, `\mathbb{R} \setminus (2, 3)` and
`\{x \mid x \le 2 \text{ or } 3 \le x\}` are one set. An inequality is solved if it is linear in its variable, or in
that variable's absolute value.
"""

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction
from typing import Any, TypeAlias

import mpmath

from lema_jax.tasks import evaluator, latex, tokens, values

OPERATORS = frozenset(("<", ">", "\\le", "\\ge", "\\ne"))
SIGNS = OPERATORS | {"\\cup", "\\cap", "\\setminus", "\\in", "\\mathbb{R}", "\\emptyset"}
_FLIPPED = {"<": ">", ">": "<", "\\le": "\\ge", "\\ge": "\\le", "\\ne": "\\ne", "=": "="}
_MOST_INTEGERS = 200
_MOST_PARTS = 50
_SEPARATORS = frozenset((",", ";", '"and', '"or', "\\cup", "\\cap", "\\setminus"))
_EVERYTHING = {
    "all real numbers", "all reals", "all real", "all real values", "any real number", "the real numbers",
    "real numbers", "the set of all real numbers", "the set of real numbers", "all numbers", "every real number",
    "all real values of x", "all real numbers x", "x is any real number", "x is a real number", "all real x",
}  # fmt: skip
_NOTHING = {
    "no solution", "no solutions", "no real solution", "no real solutions", "no real roots", "none", "empty set",
    "the empty set", "there is no solution", "there are no solutions", "no real number", "no real numbers", "no values",
    "no such x", "no solution exists", "no solutions exist", "no value", "no x",
}  # fmt: skip
_EXCEPT = ("except", "except for", "other than", "but", "excluding", "without")


@dataclasses.dataclass(frozen=True)
class Interval:
    """An interval; a point is one with two closed, equal ends."""

    low: Any
    low_closed: bool
    high: Any
    high_closed: bool

    def is_empty(self) -> bool:
        return _less(self.high, self.low) or (
            _equal(self.low, self.high) and not (self.low_closed and self.high_closed)
        )


Reals: TypeAlias = tuple[Interval, ...]  # disjoint, in ascending order


def read(expression: Sequence[str]) -> Reals | None:
    """The set of real numbers that the tokens describe; None if they describe none that is supported."""
    if sum(token in _SEPARATORS for token in expression) > _MOST_PARTS:
        return None
    letters = {token for token in expression if tokens.is_letter(token)} - {"e"}
    if len(letters) > (2 if "(" in expression and not letters.isdisjoint("fgh") else 1):
        return None
    try:
        return _read(expression, 0)
    except (RecursionError, evaluator.TooLarge):
        return None


def same(one: Reals, other: Reals) -> bool:
    """Whether two sets have the same elements."""
    return len(one) == len(other) and all(
        (a.low_closed, a.high_closed) == (b.low_closed, b.high_closed)
        and _equal(a.low, b.low)
        and _equal(a.high, b.high)
        for a, b in zip(one, other)
    )


# --- algebra of sets --------------------------------------------------------------------------------------------------


def _all() -> Reals:
    return (Interval(-mpmath.inf, False, mpmath.inf, False),)


def _point(value: Any) -> Interval:
    return Interval(value, True, value, True)


def _union(*sets: Reals) -> Reals:
    intervals: list[Interval] = []
    for part in sorted((part for one in sets for part in one), key=lambda part: (part.low, not part.low_closed)):
        last = intervals[-1] if intervals else None
        if last and (
            _less(part.low, last.high) or (_equal(part.low, last.high) and (part.low_closed or last.high_closed))
        ):
            if _equal(part.high, last.high):
                high, closed = last.high, last.high_closed or part.high_closed
            else:
                high, closed = max((last.high, last.high_closed), (part.high, part.high_closed))
            intervals[-1] = Interval(last.low, last.low_closed, high, closed)
        else:
            intervals.append(part)
    return tuple(intervals)


def _intersection(one: Reals, other: Reals) -> Reals:
    found = []
    for a in one:
        for b in other:
            low, high = (b if _less(a.low, b.low) else a), (b if _less(b.high, a.high) else a)
            low_closed = low.low_closed and (not _equal(a.low, b.low) or (a.low_closed and b.low_closed))
            high_closed = high.high_closed and (not _equal(a.high, b.high) or (a.high_closed and b.high_closed))
            interval = Interval(low.low, low_closed, high.high, high_closed)
            if not interval.is_empty():
                found.append(interval)
    return _union(tuple(found))


def _complement(one: Reals) -> Reals:
    gaps, low, closed = [], -mpmath.inf, False
    for interval in one:
        gaps.append(Interval(low, closed, interval.low, not interval.low_closed))
        low, closed = interval.high, not interval.high_closed
    gaps.append(Interval(low, closed, mpmath.inf, False))
    return tuple(
        gap for gap in gaps if (not gap.is_empty() and gap.low != gap.high) or (gap.low_closed and gap.high_closed)
    )


def _equal(one: Any, other: Any) -> bool:
    if mpmath.isinf(one) or mpmath.isinf(other):
        return bool(one == other)
    return bool(abs(one - other) <= abs(other) * 2.0**-120 + 2.0**-140)


def _less(one: Any, other: Any) -> bool:
    return bool(one < other) and not _equal(one, other)


# --- from tokens ------------------------------------------------------------------------------------------------------


def _read(expression: Sequence[str], depth: int) -> Reals | None:
    expression = _trimmed(expression)
    if len(expression) > 2 and (expression[0], expression[-1]) in (("]", "["), ("]", "]"), ("[", "[")):  # `]1, 2[`
        expression = ("(" if expression[0] == "]" else "[", *expression[1:-1], ")" if expression[-1] == "[" else "]")
    if not expression or depth > 20:
        return None

    def read_all(parts: Iterable[Sequence[str]]) -> list[Reals] | None:
        found = [_read(part, depth + 1) for part in parts]
        return None if None in found else [one for one in found if one is not None]

    if (phrase := _phrase(expression)) is not None:
        return phrase
    for separators, combine in (
        (('"or',), _union),
        ((",", ";", '"and'), _conditions),
        (("\\cup",), _union),
        (("\\cap",), lambda *sets: _reduce(_intersection, sets)),
        (("\\setminus",), lambda *sets: _reduce(_difference, sets)),
    ):
        parts = [part for part in tokens.split(expression, *separators) if part]
        if len(parts) > 1:
            if "\\ne" in parts[0] and _is_name(parts[0][: (at := list(parts[0]).index("\\ne"))]):  # `x \ne 1, 2`
                parts = [(*parts[0][: at + 1], *part) if SIGNS.isdisjoint(part) else part for part in parts]
            if not separators[0].startswith("\\") and not _are_sets(parts):
                return None
            sets = read_all(parts)
            return None if sets is None else combine(*sets)
    if expression[0] == "\\mathbb{R}":
        rest = list(expression[1:])
        if rest[:1] == ["-"]:
            taken = _read(rest[1:], depth + 1)
            return None if taken is None else _complement(taken)
        sign = {"^+": ">", "_+": ">", "^-": "<", "_-": "<", "": "="}.get(
            "".join(rest).replace("{", "").replace("}", "")
        )
        return None if sign is None else _all() if sign == "=" else (_half(sign, mpmath.mpf(0)),)
    if expression[0] == "\\emptyset" or list(expression) in (["\\{", "\\}"], ["{", "}"]):
        return () if len(expression) <= 2 else None
    if tokens.within(expression, "\\{", "\\}"):
        return _braces(expression[1:-1], depth)
    if "\\in" in expression:
        name, belongs = tokens.split(expression, "\\in")[0], list(expression).index("\\in")
        return _read(expression[belongs + 1 :], depth + 1) if _is_name(name) else None
    if tokens.within(expression, "( [", ") ]"):
        return _interval(expression) or (
            _read(expression[1:-1], depth + 1) if expression[0] == "(" and expression[-1] == ")" else None
        )
    return _relations(expression)


def _trimmed(expression: Sequence[str]) -> Sequence[str]:
    start, end = 0, len(expression)
    for at, token in enumerate(expression[:8]):
        if token.lower() in ('"that', '"satisfying', '"with', '"which'):  # `all real numbers x such that …`
            start = at + 1
    if expression[:1] in (('"all',), ('"All',)) and len(expression) > 2 and expression[2] in OPERATORS:
        start = 1
    while start < end and (
        expression[start] in ".,;:" or expression[start].lower() in ('"for', '"when', '"where', '"if')
    ):
        start += 1
    while start < end and expression[end - 1] in ".,;:":
        end -= 1
    return expression[start:end]


def _are_sets(parts: Sequence[Sequence[str]]) -> bool:
    """Whether parts between commas or words are conditions or intervals, rather than points of the plane."""
    signs = [not SIGNS.isdisjoint(part) or any(map(tokens.is_word, part)) for part in parts]
    brackets = [tokens.within(part, "( [", ") ]") for part in parts]
    return all(signs) or (
        all(brackets) and any("\\infinity" in part or "\\infty" in part or "[" in part or "]" in part for part in parts)
    )


def _phrase(expression: Sequence[str]) -> Reals | None:
    """A set in words, such as `all real numbers except 1`."""
    if not tokens.is_word(expression[0]) and not (len(expression) > 1 and tokens.is_word(expression[1])):
        return None
    words = [token.lstrip(tokens.WORD).lower() for token in expression]
    text = " ".join(words).replace(" - ", " ")
    if text in _EVERYTHING:
        return _all()
    if text in _NOTHING:
        return ()
    for word in _EXCEPT:
        before, found, _ = text.partition(f" {word} ")
        if found and before in _EVERYTHING:
            points = [
                constant(_right(part))
                for part in tokens.split(expression[len((before + found).split()) :], ",", '"and')
            ]
            return _without(points)
    return None


def _right(part: Sequence[str]) -> Sequence[str]:
    return tokens.split(part, "=")[-1]


def _without(points: Sequence[Any | None]) -> Reals | None:
    return None if None in points else _complement(_union(*((_point(point),) for point in points)))


def constant(expression: Sequence[str]) -> Any | None:
    """The value of an expression if it is a real number or infinite."""
    node = latex.read(tuple(expression))
    return None if node is None else values.real(node)


def _conditions(*sets: Reals) -> Reals:
    """The intersection; if that is empty (`x < 1, x > 2`), the union: the list means alternatives."""
    return _reduce(_intersection, sets) or _union(*sets)


def _difference(one: Reals, other: Reals) -> Reals:
    return _intersection(one, _complement(other))


def _reduce(combine: Callable[[Reals, Reals], Reals], sets: Sequence[Reals]) -> Reals:
    found = sets[0]
    for one in sets[1:]:
        found = combine(found, one)
    return found


def _interval(expression: Sequence[str]) -> Reals | None:
    ends = tokens.split(expression[1:-1], ",")
    if len(ends) != 2:
        ends = tokens.split(expression[1:-1], ";")
    low, high = (constant(end) for end in ends) if len(ends) == 2 else (None, None)
    if low is None or high is None:
        return None
    interval = Interval(low, expression[0] == "[", high, expression[-1] == "]")
    return None if interval.is_empty() else (interval,)


def _braces(inner: Sequence[str], depth: int) -> Reals | None:
    """A set builder, or a set of points."""
    for sign in ("|", ":"):
        parts = tokens.split(inner, sign)
        if len(parts) > 1 and (name := tokens.split(parts[0], "\\in"))[0] and _is_name(name[0]):
            conditions = inner[len(parts[0]) + 1 :]
            domain = _all() if len(name) == 1 else None if name[1] == ("\\mathbb{Z}",) else _read(name[1], depth + 1)
            found = _read(conditions, depth + 1)
            if found is not None and len(name) > 1 and list(name[1]) == ["\\mathbb{Z}"]:
                return _integers(found)
            return None if found is None or domain is None else _intersection(found, domain)
    return union(tokens.split(inner, ","))


def union(expressions: Iterable[Sequence[str]]) -> Reals | None:
    """The union of sets and numbers; None if a part is neither."""
    sets: list[Reals] = []
    for expression in expressions:
        number = constant(expression)
        part = read(expression) if number is None or mpmath.isinf(number) else (_point(number),)
        if part is None:
            return None
        sets.append(part)
    return _union(*sets)


def _integers(one: Reals) -> Reals | None:
    if not one:
        return ()
    low, high = one[0].low, one[-1].high
    if mpmath.isinf(low) or mpmath.isinf(high) or high - low > _MOST_INTEGERS:
        return None
    points = tuple(_point(mpmath.mpf(number)) for number in range(int(mpmath.floor(low)), int(mpmath.ceil(high)) + 1))
    return _intersection(one, points)


def _is_name(expression: Sequence[str]) -> bool:
    return len(expression) == 1 and tokens.is_letter(expression[0])


# --- inequalities -----------------------------------------------------------------------------------------------------


def relations(expression: Sequence[str]) -> list[tuple[latex.Node, str, latex.Node]] | None:
    """`1 < x \\le 3` as pairs of sides with the sign between them; None if a side is not an expression."""
    signs = [token for token in expression if token in _FLIPPED]
    sides = [latex.read(tuple(side)) for side in tokens.split(expression, *_FLIPPED)]
    if not signs or len(sides) != len(signs) + 1 or None in sides:
        return None
    named = [("variable", node[1]) if node and node[0] == "unknown" else node for node in sides]
    return [(one, sign, other) for one, sign, other in zip(named, signs, named[1:]) if one and other]


def _relations(expression: Sequence[str]) -> Reals | None:
    if "\\pm" in expression and OPERATORS & set(expression) == {"\\ne"}:
        signs = [_relations([sign if token == "\\pm" else token for token in expression]) for sign in "+-"]
        return _every(signs)
    if (pairs := relations(expression)) is None or all(sign == "=" for _, sign, _ in pairs):
        return None
    names = frozenset().union(*(latex.variables(node) for one, _, other in pairs for node in (one, other)))
    if len(names) != 1:
        return None
    found = [_solved(one, sign, other, *names) for one, sign, other in pairs]
    return _every(found)


def _every(sets: Sequence[Reals | None]) -> Reals | None:
    """The intersection; None if one of the sets is None."""
    read = [one for one in sets if one is not None]
    return _reduce(_intersection, read) if len(read) == len(sets) else None


def _solved(one: latex.Node, sign: str, other: latex.Node, name: str) -> Reals | None:
    if other[0] == "absolute":
        one, sign, other = other, _FLIPPED[sign], one
    bound = values.real(other)
    if one[0] == "absolute" and bound is not None and not mpmath.isinf(bound):
        positive, negative = _solved(one[1], sign, other, name), _solved(("negative", one[1]), sign, other, name)
        if positive is None or negative is None:
            return None
        return _intersection(positive, negative) if sign in ("<", "\\le", "\\ne") else _union(positive, negative)
    found = [values.number(("-", one, other), {name: Fraction(number)}) for number in range(4)]
    at = [value for value in found if value is not None and not hasattr(value, "_mpc_")]
    if len(at) < len(found):
        return _solved_infinite(one, sign, other)
    slope = at[1] - at[0]
    if _equal(slope, mpmath.mpf(0)) or not (_equal(at[2] - at[1], slope) and _equal(at[3] - at[2], slope)):
        return None
    root = -at[0] / slope
    if sign == "=":
        return (_point(root),)
    if sign == "\\ne":
        return _complement((_point(root),))
    return (_half(sign if slope > 0 else _FLIPPED[sign], root),)


def _solved_infinite(one: latex.Node, sign: str, other: latex.Node) -> Reals | None:
    r"""`x < \infty` and `-\infty < x` hold for every number."""
    if other[0] == "variable":
        one, sign, other = other, _FLIPPED[sign], one
    bound = values.real(other)
    always = (
        one[0] == "variable" and bound is not None and mpmath.isinf(bound) and (bound > 0) == (sign in ("<", "\\le"))
    )
    return _all() if always else None


def _half(sign: str, root: Any) -> Interval:
    closed = sign in ("\\le", "\\ge")
    if sign in ("<", "\\le"):
        return Interval(-mpmath.inf, False, root, closed)
    return Interval(root, closed, mpmath.inf, False)
