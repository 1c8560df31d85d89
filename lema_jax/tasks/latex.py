r"""The value of a mathematical expression in LaTeX: exact where it is rational, else a complex number.

A variable gets a number of its own, so two expressions that agree at several points are equal for all we can tell, and
two that differ at one are not. What is not read (text, relations, functions we do not know) has no value: None.
"""

import cmath
import math
import random
import re
from collections.abc import Callable
from fractions import Fraction
from typing import TypeAlias

Value: TypeAlias = Fraction | complex

POINTS = 3  # at which expressions with variables are compared
_LONGEST = 1_000  # characters
_MOST_BITS = 20_000  # of an exact power
_HOPELESS_BITS = 1_000_000  # computer algebra, which writes out every digit, would have to be killed from here on
_MOST_FACTORIAL = 3_000


def values(text: str) -> tuple[Value, ...] | None:
    """The values of an expression at `POINTS` points (once, when it has no variable), or None when it has none.

    Raises:
      TooLarge: a power or a factorial in it is a number that no machine holds.
    """
    if len(text) > _LONGEST:
        return None
    try:
        tokens = _tokens(text)
        points = range(POINTS if any(_VARIABLE.fullmatch(token) for token in tokens) else 1)
        found = tuple(_Reader(tokens, point).whole() for point in points)
    except (_Unread, ArithmeticError, ValueError, RecursionError):
        return None
    return found if all(isinstance(value, Fraction) or cmath.isfinite(value) for value in found) else None


def equal(one: Value, other: Value) -> bool:
    """Exactly, where both are exact; otherwise to nine digits."""
    if isinstance(one, Fraction) and isinstance(other, Fraction):
        return one == other
    try:
        return cmath.isclose(complex(one), complex(other), rel_tol=1e-9, abs_tol=1e-12)
    except OverflowError:  # a fraction beyond floating point, which no floating-point value equals
        return False


class TooLarge(Exception):
    """A number such as 9^{9^{9}}, which nothing is gained by trying to work out."""


class _Unread(Exception):
    """Something that is no expression, or none that is read here."""


_VARIABLE = re.compile(
    r"(?:(?![ei])[a-zA-Z]|\\(?:alpha|beta|gamma|delta|epsilon|theta|lambda|mu|phi|rho|sigma|tau|omega|infty))(?:_\w+)?"
)
_TOKEN = re.compile(
    r"\s*(?:(?P<repeating>\d*\.\d*\\overline\{\d+\})|(?P<number>\d+(?:\.\d+)?|\.\d+)|(?P<command>\\(?:[a-zA-Z]+|.))"
    r"|(?P<letter>[a-zA-Z])|(?P<sign>[-+*/^!()\[\]{}|,=_%]))\s*"
)
_ALIASES = {
    "\\cdot": "*",
    "\\times": "*",
    "\\div": "/",
    "\\%": "%",
    "\\lbrace": "(",
    "\\rbrace": ")",
    "\\lvert": "|",
    "\\rvert": "|",
    "\\vert": "|",
    "\\varphi": "\\phi",
    "\\arcsin": "\\asin",
    "\\arccos": "\\acos",
    "\\arctan": "\\atan",
}
_FUNCTIONS: dict[str, Callable[[complex], complex]] = {
    "\\sin": cmath.sin,
    "\\cos": cmath.cos,
    "\\tan": cmath.tan,
    "\\cot": lambda x: 1 / cmath.tan(x),
    "\\sec": lambda x: 1 / cmath.cos(x),
    "\\csc": lambda x: 1 / cmath.sin(x),
    "\\asin": cmath.asin,
    "\\acos": cmath.acos,
    "\\atan": cmath.atan,
    "\\ln": cmath.log,
    "\\log": cmath.log10,
    "\\exp": cmath.exp,
}
_ENDS = {")", "}", "]", ",", "\\rfloor", "\\rceil"}


def _tokens(text: str) -> list[str]:
    tokens: list[str] = []
    at = 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None or match.end() == at:
            raise _Unread(text[at:])
        token = match.group().strip()
        tokens.append(_ALIASES.get(token, token))
        at = match.end()
    return _join_subscripts(tokens)


def _join_subscripts(tokens: list[str]) -> list[str]:
    """`x`, `_`, `1` become one variable `x_1`; `\\log_2` keeps its base apart."""
    joined: list[str] = []
    at = 0
    while at < len(tokens):
        if tokens[at] == "_" and joined and _VARIABLE.fullmatch(joined[-1]) and at + 1 < len(tokens):
            braced = tokens[at + 1] == "{" and at + 3 < len(tokens) and tokens[at + 3] == "}"
            name = tokens[at + 2] if braced else tokens[at + 1]
            if not re.fullmatch(r"\w+", name):
                raise _Unread(name)
            joined[-1] += "_" + name
            at += 4 if braced else 2
        else:
            joined.append(tokens[at])
            at += 1
    return joined


class _Reader:
    """Recursive descent over tokens; every method returns the value of what it consumed."""

    def __init__(self, tokens: list[str], point: int):
        self.tokens = tokens
        self.point = point
        self.at = 0
        self.bars = 0  # absolute values that are open

    def whole(self) -> Value:
        value = self.sum()
        if self.peek():
            raise _Unread(self.peek())
        return value

    def peek(self) -> str:
        return self.tokens[self.at] if self.at < len(self.tokens) else ""

    def take(self, *wanted: str) -> str:
        token = self.peek()
        if not token or (wanted and token not in wanted):
            raise _Unread(token)
        self.at += 1
        return token

    def sum(self) -> Value:
        value = self.product()
        while self.peek() in ("+", "-"):
            sign = self.take()
            value = value + self.product() if sign == "+" else value - self.product()
        return value

    def product(self) -> Value:
        value = self.factor()
        while (token := self.peek()) and token not in ("+", "-", "="):
            if token == "*":
                self.take()
                value = value * self.factor()
            elif token == "/":
                self.take()
                value = value / self.factor()
            elif token in _ENDS or (token == "|" and self.bars):
                break
            elif token == "%":
                self.take()
            else:
                value = value * self.power()
        return value

    def factor(self) -> Value:
        if self.peek() in ("+", "-"):
            return self.factor() if self.take() == "+" else -self.factor()
        return self.power()

    def power(self) -> Value:
        value = self.atom()
        while self.peek() in ("^", "!"):
            value = _power(value, self.argument()) if self.take() == "^" else _factorial(value)
        return value

    def argument(self) -> Value:
        """What `^` or a command applies to: a group, or one token with its sign."""
        if self.peek() == "{":
            return self.group("{", "}")
        return -self.argument() if self.peek() == "-" and self.take() else self.atom()

    def digit_or_group(self) -> Value:
        """As TeX reads it: of a bare number the first digit alone, so that `\\frac12` is a half."""
        token = self.peek()
        if token[:1].isdigit() and len(token) > 1:
            self.tokens = [*self.tokens[: self.at], token[0], token[1:], *self.tokens[self.at + 1 :]]
        return self.argument()

    def group(self, opening: str, closing: str) -> Value:
        bars, self.bars = self.bars, 0
        self.take(opening)
        value = self.sum()
        self.take(closing)
        self.bars = bars
        return value

    def atom(self) -> Value:
        token = self.peek()
        if token in ("(", "{", "["):
            return self.group(token, {"(": ")", "{": "}", "[": "]"}[token])
        self.take()
        if token[0].isdigit() or token[0] == ".":
            return self.number(token)
        if _VARIABLE.fullmatch(token):
            return complex(random.Random(f"{token} {self.point}").uniform(-2, 2))
        match token:
            case "e":
                return complex(math.e)
            case "i":
                return 1j
            case "\\pi":
                return complex(math.pi)
            case "\\frac":
                return self.digit_or_group() / self.digit_or_group()
            case "\\binom":
                return _binomial(self.digit_or_group(), self.digit_or_group())
            case "\\sqrt":
                degree = self.group("[", "]") if self.peek() == "[" else Fraction(2)
                return _root(self.digit_or_group(), degree)
            case "\\lfloor":
                return Fraction(math.floor(self.rounded("\\rfloor")))
            case "\\lceil":
                return Fraction(math.ceil(self.rounded("\\rceil")))
            case "|":
                return self.absolute()
        if token in _FUNCTIONS:
            return self.function(token)
        raise _Unread(token)

    def number(self, token: str) -> Value:
        if "overline" in token:
            digits, repeating = token.removesuffix("}").split("\\overline{")
            decimals = len(digits.partition(".")[2])
            return Fraction(digits + "0") + Fraction(int(repeating), (10 ** len(repeating) - 1) * 10**decimals)
        if self.peek() == "\\frac" and "." not in token:  # a mixed number
            return Fraction(token) + self.atom()
        return Fraction(token)

    def rounded(self, closing: str) -> Fraction | float:
        value = self.sum()
        self.take(closing)
        if isinstance(value, Fraction):
            return value
        if abs(value.imag) > 1e-12:
            raise _Unread(closing)
        return value.real

    def absolute(self) -> Value:
        self.bars += 1
        value = self.sum()
        self.take("|")
        self.bars -= 1
        return abs(value) if isinstance(value, Fraction) else complex(abs(value))

    def function(self, name: str) -> Value:
        base: Value | None = None
        exponent: Value | None = None
        while self.peek() in ("^", "_"):
            if self.take() == "^":
                exponent = self.argument()
            else:
                base = self.argument()
        if self.peek() in ("(", "{"):
            value: Value = self.argument()
        else:  # `\sin 2x` reaches to the next sign
            value = self.power()
            while (token := self.peek()) and (
                token[0].isalnum() or token in ("\\pi", "\\frac") or _VARIABLE.fullmatch(token)
            ):
                value = value * self.power()
        if exponent is not None and equal(exponent, Fraction(-1)):
            name, exponent = {"\\sin": "\\asin", "\\cos": "\\acos", "\\tan": "\\atan"}.get(name, ""), None
            if not name:
                raise _Unread("an inverse")
        result = _FUNCTIONS[name](complex(value))
        if base is not None:
            result = cmath.log(complex(value)) / cmath.log(complex(base))
        return result if exponent is None else _power(result, exponent)


def _power(base: Value, exponent: Value) -> Value:
    if isinstance(base, Fraction) and isinstance(exponent, Fraction) and exponent.denominator == 1:
        bits = abs(exponent) * (max(base.numerator.bit_length(), base.denominator.bit_length()) - 1)
        if bits > _HOPELESS_BITS:
            raise TooLarge
        if bits > _MOST_BITS:
            raise _Unread("a power beyond bounds")
        return base ** int(exponent)
    if isinstance(exponent, Fraction) and exponent.numerator == 1:
        return _root(base, Fraction(exponent.denominator))
    return complex(base) ** complex(exponent)


def _root(value: Value, degree: Value) -> Value:
    """The principal root; the real one of a negative number for an odd degree."""
    if not isinstance(degree, Fraction) or degree.denominator != 1 or not 1 <= degree <= 100:
        return complex(value) ** (1 / complex(degree))
    if isinstance(value, Fraction):
        if value < 0 and degree % 2:
            return -_root(-value, degree)
        if value >= 0:
            parts = [_exact_root(part, int(degree)) for part in (value.numerator, value.denominator)]
            if parts[0] is not None and parts[1] is not None:
                return Fraction(parts[0], parts[1])
    return complex(value) ** (1 / int(degree)) if degree != 2 else cmath.sqrt(complex(value))


def _exact_root(value: int, degree: int) -> int | None:
    if value.bit_length() > 1_000:
        return None
    near = round(value ** (1 / degree))
    return next((root for root in (near - 1, near, near + 1) if root >= 0 and root**degree == value), None)


def _natural(value: Value) -> int:
    if not isinstance(value, Fraction) or value.denominator != 1 or not 0 <= value <= _MOST_FACTORIAL:
        raise _Unread("no small natural number")
    return int(value)


def _factorial(value: Value) -> Value:
    if isinstance(value, Fraction) and value > _HOPELESS_BITS:  # n! has more than n bits
        raise TooLarge
    return Fraction(math.factorial(_natural(value)))


def _binomial(n: Value, k: Value) -> Value:
    return Fraction(math.comb(_natural(n), _natural(k)))
