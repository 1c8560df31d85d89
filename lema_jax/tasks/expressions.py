"""The value of arithmetic in text, such as `2 * (3 + 4.5)`: parsed, never executed, and bounded in size."""

import ast
import operator
from collections.abc import Callable
from fractions import Fraction
from typing import Any, TypeVar

_LONGEST = 300  # characters
_MOST_BITS = 4096  # of a power

N = TypeVar("N", Fraction, float)

_BINARY: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
}
_UNARY: dict[type[ast.unaryop], Callable[[Any], Any]] = {ast.UAdd: operator.pos, ast.USub: operator.neg}


def exact(text: str) -> Fraction | None:
    """The value in exact arithmetic; None if `text` is not bounded arithmetic on numbers."""
    return _value(text, lambda literal: Fraction(str(literal)))


def floating(text: str) -> float | None:
    """The value by Python's rules for ints and floats; None as for `exact`."""
    return _value(text, lambda literal: literal)


def _value(text: str, number: Callable[[int | float], Any]) -> Any:
    if len(text) > _LONGEST:
        return None
    try:
        return _walk(ast.parse(text.strip(), mode="eval").body, number)
    except (SyntaxError, ValueError, ArithmeticError, MemoryError, RecursionError):
        return None


def _walk(node: ast.expr, number: Callable[[int | float], Any]) -> Any:
    match node:
        case ast.Constant(value=int() | float() as literal) if not isinstance(literal, bool):
            return number(literal)
        case ast.UnaryOp(op=op, operand=operand) if type(op) in _UNARY:
            return _UNARY[type(op)](_walk(operand, number))
        case ast.BinOp(left=left, op=ast.Pow(), right=right):
            return _power(_walk(left, number), _walk(right, number))
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _BINARY:
            return _BINARY[type(op)](_walk(left, number), _walk(right, number))
    raise ValueError(f"{type(node).__name__} is no arithmetic")


def _power(base: Any, exponent: Any) -> Any:
    if exponent != int(exponent) or abs(exponent) * max(1, int(abs(base)).bit_length()) > _MOST_BITS:
        raise ValueError("a power beyond bounds")
    return base ** int(exponent)


def written(value: Fraction) -> str:
    """`17`, `-2.5`, or `1/3` where the decimals do not end."""
    if value.denominator == 1:
        return str(value.numerator)
    twos_and_fives = value.denominator
    places = 0
    for prime in (2, 5):
        count = 0
        while twos_and_fives % prime == 0:
            twos_and_fives //= prime
            count += 1
        places = max(places, count)
    if twos_and_fives > 1:
        return f"{value.numerator}/{value.denominator}"
    digits = str(abs(value.numerator) * 10**places // value.denominator).rjust(places + 1, "0")
    return f"{'-' * (value < 0)}{digits[:-places]}.{digits[-places:]}"
