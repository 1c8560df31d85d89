r"""Equations and inequalities: the names on their sides, and whether two have the same solutions."""

from collections.abc import Sequence
from fractions import Fraction

from lema_jax.tasks import latex, reals, tokens, values
from lema_jax.tasks.latex import Node

_FLIPPED = {"<": ">", "\\le": "\\ge"}


def is_name(side: Sequence[str]) -> bool:
    """Whether a side of an equation is a variable, or a function of variables: `x`, `x_1`, `f(x)`, `(x, y)`."""
    if len(side) == 1:
        return tokens.is_letter(side[0])
    letters = [token for token in side if token not in ("(", ")", ",")]
    return (
        len(side) > 2
        and side[-1] == ")"
        and ((tokens.is_letter(side[0]) and side[1] == "(" and len(side) > 3) or side[0] == "(")
        and all(map(tokens.is_letter, letters))
    )


def is_label(left: Sequence[str], right: Sequence[str]) -> bool:
    r"""Whether a left side only labels the right side: a name, arithmetic (`\frac{28}{4} = 7`), a function's value
    (`f(2)`, `\sin x`, `P(A)`), points and figures (`AB`, `\angle ABC`), words; not `x + y`, nor `2x`."""
    node, value = latex.read(tuple(left)), latex.read(tuple(right))
    if node is None or kind_of_label(left):
        return True
    return not latex.variables(node) and not (value and latex.variables(value))


def kind_of_label(left: Sequence[str]) -> str:
    """ "letter", "points" (their names) or "function", if a left side is one; else empty."""
    node = latex.read(tuple(left))
    if node is None:
        return ""
    names = latex.variables(node)
    if (is_name(left) and len(left) > 1) or node[0] == "unknown" or node[0] in tokens.FUNCTIONS:
        return "function"
    if tokens.is_letter(left[0]) and left[-1] == ")" and left[1] in ("(", "^", "'"):
        return "function"
    if names and all(name[0].isupper() or len(name.partition("_")[2]) > 1 for name in names):
        return "points"
    return "letter" if is_name(left) else ""


def same_equations(these: Sequence[Sequence[str]], those: Sequence[Sequence[str]]) -> bool | None:
    """Whether two equations, given by their sides, have the same solutions; None if a side is not an expression.

    They do if their differences are constant multiples of each other, or if one solves for a variable and satisfies the
    other, which is linear in that variable.
    """
    sides = [latex.read(tuple(side)) for side in (*these, *those)]
    if any(side is None for side in sides):
        return None
    left, right = ("-", sides[0], sides[1]), ("-", sides[2], sides[3])
    if latex.variables(left) != latex.variables(right) or not latex.variables(left):
        return False
    if (verdict := values.proportional(left, right)) is not False:
        return verdict
    return any(
        _satisfied(name, value, equation)
        for name, value, equation in (
            (sides[0], sides[1], right), (sides[1], sides[0], right),
            (sides[2], sides[3], left), (sides[3], sides[2], left),
        )
        if name and name[0] == "variable" and value and name[1] not in latex.variables(value)
    )  # fmt: skip


def _satisfied(name: Node, value: Node, equation: Node) -> bool:
    """Whether the variable's value satisfies the equation, which is linear in it."""
    at = [_with(equation, name, ("number", Fraction(number))) for number in range(3)]
    bend = ("+", ("-", at[2], ("*", ("number", Fraction(2)), at[1])), at[0])
    return bool(
        values.is_zero(_with(equation, name, value))
        and values.is_zero(bend)
        and values.is_zero(("-", at[1], at[0])) is False
    )


def _with(node: Node, name: Node, value: Node) -> Node:
    """The tree with `value` substituted for a variable."""
    if node == name:
        return value
    return tuple(_with(part, name, value) if isinstance(part, tuple) else part for part in node)


def same_inequalities(one: Sequence[str], other: Sequence[str]) -> bool | None:
    """Whether two inequalities are positive multiples of each other; None if that is undecidable."""
    these, those = reals.relations(one), reals.relations(other)
    if these is None or those is None:
        return None
    if len(these) != len(those):
        return False
    return any(all(_same_pair(a, b) for a, b in zip(these, order)) for order in (those, those[::-1]))


def _same_pair(one: tuple[Node, str, Node], other: tuple[Node, str, Node]) -> bool:
    (left, sign), (right, other_sign) = (
        (("-", pair[2], pair[0]), _FLIPPED[pair[1]]) if pair[1] in _FLIPPED else (("-", pair[0], pair[2]), pair[1])
        for pair in (one, other)
    )
    if sign != other_sign or not values.proportional(left, right):
        return False
    return sign == "\\ne" or values.same_sign(left, right)
