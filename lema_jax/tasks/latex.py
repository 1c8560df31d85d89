r"""The expression tree of a LaTeX formula, which `values` evaluates.

A node is a tuple: its operation, then its operands, which are nodes, numbers or names:
`("number", Fraction)`, `("variable", name)`, `("constant", "pi")`, `("+", a, b)`, `("^", base, exponent)`, …
What is not supported (words, relations, unknown functions) has no tree.
"""

import functools
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from typing import Any, TypeAlias

from lema_jax.tasks import tokens

Node: TypeAlias = tuple[Any, ...]

_MOST_DIGITS = 5_000  # of the exponent of ten in `6.5e3`
_CONSTANTS = {"e": "e", "i": "i", "\\pi": "pi", "\\infty": "infinity"}
_ENDS = frozenset((")", "}", "]", "\\}", ",", "\\rfloor", "\\rceil", "=", "+", "-", "\\choose"))
_ROUNDED = {"\\lfloor": "floor", "\\lceil": "ceiling"}
_NAMED = {"\\abs": "absolute", "\\floor": "floor", "\\ceil": "ceiling"}
_INVERSE = {f"\\{name}": f"\\arc{name}" for name in ("sin", "cos", "tan", "sinh", "cosh", "tanh")}
_OF_SEVERAL = frozenset(("\\gcd", "\\lcm", "\\max", "\\min"))
_UNKNOWN_FUNCTIONS = frozenset("fghFGH")


@functools.lru_cache(maxsize=4_096)
def read(expression: tuple[str, ...]) -> Node | None:
    """The expression tree of the tokens; None if they are no expression."""
    try:
        return _Reader(expression).whole()
    except (_Unread, ArithmeticError, ValueError, RecursionError):
        return None


@functools.lru_cache(maxsize=4_096)
def variables(node: Node) -> frozenset[str]:
    """The names of a tree's free variables (a sum or a product binds its index)."""
    if node[0] == "variable":
        return frozenset((node[1],))
    if node[0] in ("sum", "product"):
        return variables(node[2]) | variables(node[3]) | (variables(node[4]) - {node[1]})
    return frozenset().union(*(variables(part) for part in node[1:] if isinstance(part, tuple)))


@functools.lru_cache(maxsize=4_096)
def bounds(node: Node) -> frozenset[str]:
    """The names of the variables in the bounds of sums and products."""
    of_parts = frozenset().union(*(bounds(part) for part in node[1:] if isinstance(part, tuple)))
    return of_parts | (variables(node[2]) | variables(node[3]) if node[0] in ("sum", "product") else frozenset())


def holds(node: Node, wanted: Node) -> bool:
    """Whether the tree contains `wanted`; or, if that is an operation alone, any node of that operation."""
    return (
        node == wanted
        or (len(wanted) == 1 and node[0] == wanted[0])
        or any(holds(part, wanted) for part in node[1:] if isinstance(part, tuple))
    )


class _Unread(Exception):
    """The tokens are no expression, or not supported."""


class _Reader:
    """Recursive descent. `bars` counts the open absolute values."""

    def __init__(self, expression: Sequence[str]):
        self.tokens = list(expression)
        self.at = 0
        self.bars = 0

    def whole(self) -> Node:
        node = self.chosen()
        if self.at < len(self.tokens):
            raise _Unread(self.peek())
        return node

    def peek(self, ahead: int = 0) -> str:
        return self.tokens[self.at + ahead] if self.at + ahead < len(self.tokens) else ""

    def take(self, *wanted: str) -> str:
        token = self.peek()
        if not token or (wanted and token not in wanted):
            raise _Unread(token)
        self.at += 1
        return token

    def chosen(self) -> Node:
        r"""A sum, or `n \choose k`."""
        node = self.sum()
        return ("binomial", node, self.sum()) if self.peek() == "\\choose" and self.take() else node

    def sum(self) -> Node:
        node = self.product()
        while self.peek() in ("+", "-"):
            node = (self.take(), node, self.product())
        return node

    def product(self) -> Node:
        node = self.factor()
        while (token := self.peek()) and token not in _ENDS:
            if token in ("*", "/"):
                node = (self.take(), node, self.factor())
            elif token == "\\mod":
                self.take()
                node = ("mod", node, self.factor())
            elif token == "|" and self.bars:
                break
            elif _is_number(token) and _is_number(self.tokens[self.at - 1]) and self.tokens[self.at - 2] != "^":
                raise _Unread("two numbers side by side")
            else:
                node = ("*", node, self.power())
        return node

    def factor(self) -> Node:
        if self.peek() in ("+", "-"):
            return self.factor() if self.take() == "+" else ("negative", self.factor())
        return self.power()

    def power(self) -> Node:
        node = self.atom()
        while (token := self.peek()) in ("^", "!", "!!", "\\degree", "%"):
            self.take()
            node = ("^", node, self.exponent()) if token == "^" else (token, node)
        return node

    def exponent(self) -> Node:
        node = self.argument()
        return ("^", node, self.exponent()) if self.peek() == "^" and self.take() else node

    def argument(self) -> Node:
        """The argument of `^` or of a command: a group, or one token with its sign."""
        if self.peek() == "{":
            return self.group("{")
        return ("negative", self.argument()) if self.peek() == "-" and self.take() else self.atom()

    def digit_or_group(self) -> Node:
        r"""An argument as in TeX: of a bare number the first digit only, so that `\frac12` is a half."""
        token = self.peek()
        if token.isdigit() and len(token) > 1:
            self.tokens[self.at : self.at + 1] = [token[0], token[1:]]
        return self.argument()

    def group(self, opening: str) -> Node:
        bars, self.bars = self.bars, 0
        self.take(opening)
        node = self.chosen()
        self.take(tokens.OPENING[opening])
        self.bars = bars
        return node

    def list(self) -> Iterator[Node]:
        """Expressions in brackets, separated by commas."""
        closing = tokens.OPENING[self.take("(", "{", "\\{")]
        yield self.sum()
        while self.peek() == ",":
            self.take()
            yield self.sum()
        self.take(closing)

    def atom(self) -> Node:
        token = self.peek()
        if token in ("(", "{", "[", "\\{"):
            return self.group(token)
        self.take()
        if _is_number(token):
            return self.number(token)
        if token in _CONSTANTS:
            return ("constant", _CONSTANTS[token])
        if token in tokens.FUNCTIONS:
            return self.several(token) if token in _OF_SEVERAL else self.function(token)
        if token in ("C", "P") and self.peek() == "(":
            return ("binomial" if token == "C" else "permutations", *self.pair())
        if (token in _UNKNOWN_FUNCTIONS or token.endswith("'")) and self.peek() == "(":
            return ("unknown", token, *self.list())
        if tokens.is_letter(token):
            return ("variable", token)
        if token in _ROUNDED:
            node = (_ROUNDED[token], self.sum())
            self.take(tokens.OPENING[token])
            return node
        if token in _NAMED:
            return (_NAMED[token], self.argument())
        reader: Callable[[], Node] | None = {
            "\\frac": self.fraction,
            "\\binom": lambda: ("binomial", self.digit_or_group(), self.digit_or_group()),
            "\\permutations": lambda: ("permutations", self.group("{"), self.group("{")),
            "\\sqrt": self.root,
            "|": self.absolute,
            "\\sum": lambda: self.series("sum"),
            "\\prod": lambda: self.series("product"),
        }.get(token)
        if reader is None:
            raise _Unread(token)
        return reader()

    def number(self, token: str) -> Node:
        whole = _number(token)
        part = self.proper_fraction() if token.isdigit() else None
        return ("number", whole if part is None else whole + part)

    def proper_fraction(self) -> Fraction | None:
        r"""The fraction of a mixed number, `\frac{1}{2}` or `1/2`, if one is next; `2\frac{3}{2}` is a product."""
        start = self.at
        if self.peek() == "\\frac":
            top, bottom = self.atom()[1:]
        elif self.peek().isdigit() and self.peek(1) == "/" and self.peek(2).isdigit():
            top, bottom = self.atom(), (self.take("/"), self.atom())[1]
        else:
            return None
        if top[0] == bottom[0] == "number" and 0 < top[1] < bottom[1] and (top[1] * bottom[1]).denominator == 1:
            return top[1] / bottom[1]
        self.at = start
        return None

    def fraction(self) -> Node:
        node = ("/", self.digit_or_group(), self.digit_or_group())
        if node[1] == ("variable", "d") and node[2][:2] == ("*", ("variable", "d")):
            raise _Unread("a derivative")
        return node

    def root(self) -> Node:
        degree = self.group("[") if self.peek() == "[" else ("number", Fraction(2))
        return ("root", self.argument(), degree)

    def absolute(self) -> Node:
        self.bars += 1
        node = self.sum()
        self.take("|")
        self.bars -= 1
        return ("absolute", node)

    def pair(self) -> tuple[Node, Node]:
        nodes = tuple(self.list())
        if len(nodes) != 2:
            raise _Unread("no pair")
        return nodes

    def several(self, name: str) -> Node:
        return (name, *self.list())

    def series(self, kind: str) -> Node:
        """A sum or a product with its bounds, in either order."""
        stop = self.argument() if self.peek() == "^" and self.take() else None
        self.take("_")
        self.take("{")
        index = self.take()
        if not tokens.is_letter(index) and index != "i":
            raise _Unread("no index")
        self.take("=")
        start = self.sum()
        self.take("}")
        if stop is None:
            self.take("^")
            stop = self.argument()
        # An index i is not the imaginary unit.
        body = _Reader(["j_" if token == index == "i" else token for token in self.tokens[self.at :]])
        node = body.product()
        self.at += body.at
        return (kind, "j_" if index == "i" else index, start, stop, node)

    def function(self, name: str) -> Node:
        base: Node | None = None
        exponent: Node | None = None
        while self.peek() in ("^", "_"):
            if self.take() == "^":
                exponent = self.argument()
            else:
                base = self.base()
        if self.peek() in ("(", "{", "["):
            value = self.power() if self.brackets_are_raised() else self.argument()
        else:  # `\sin 2x` extends to the next sign
            value = self.factor() if self.peek() == "-" else self.power()
            while (token := self.peek()) and (
                _is_number(token) or tokens.is_letter(token) or token in ("\\pi", "\\frac", "e", "i")
            ):
                value = ("*", value, self.power())
        if exponent == ("negative", ("number", 1)):
            if name not in _INVERSE:
                raise _Unread("an inverse")
            name, exponent = _INVERSE[name], None
        node: Node = (name, value) if base is None else (name, value, base)
        return node if exponent is None else ("^", node, exponent)

    def base(self) -> Node:
        r"""The base of a logarithm: of `\log_28` it is 2, of `\log_12 144` it is 12."""
        return self.digit_or_group() if self.at + 1 == len(self.tokens) else self.argument()

    def brackets_are_raised(self) -> bool:
        r"""Whether a power applies to the brackets: `\sin (x)^\circ` is the sine of degrees; `\sin(x)^2` a square."""
        end = tokens.end_of_group(self.tokens, self.at)
        return self.tokens[end : end + 1] == ["\\degree"]


def _is_number(token: str) -> bool:
    return token[0].isdigit() or (token[0] == "." and len(token) > 1)


def _number(token: str) -> Fraction:
    if token.endswith(")"):
        start, _, period = token[:-1].partition("(")
        places = len(start.partition(".")[2])
        return Fraction(start + "0") + Fraction(int(period), (10 ** len(period) - 1) * 10**places)
    _, _, exponent = token.lower().partition("e")
    if exponent and abs(int(exponent)) > _MOST_DIGITS:
        raise _Unread("a number beyond bounds")
    return Fraction(token)
