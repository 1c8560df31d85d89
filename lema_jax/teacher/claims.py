"""The arithmetic that a step of a reasoning path claims: `5 boxes x $3 = $15` claims that 5 * 3 is 15."""

import dataclasses
import itertools
import re
from collections.abc import Iterator
from fractions import Fraction

from lema_jax.tasks import expressions


@dataclasses.dataclass(frozen=True)
class Claim:
    """`expression = stated`, as read from a step."""

    expression: str  # such as `5 * 3`
    operands: tuple[Fraction, ...]
    value: Fraction  # of the expression
    stated: Fraction
    holds: bool  # equal, or as near as the decimals written can tell


def claims(step: str) -> list[Claim]:
    """The claims of a step, in its order.

    Units and other words between numbers and signs are passed over; equations with variables or powers are no claims.
    A run-on `2 * 5 = 10 * 3 = 30` claims that 2 * 5 is 10 and that 10 * 3 is 30.
    """
    hundredfold = bool(_HUNDREDTHS.search(step))
    return [
        claim
        for sides in _equations(_MARK.sub("", step))
        for left, right in itertools.pairwise(sides)
        if (claim := _claim(left, right, hundredfold))
    ]


def numbers(step: str) -> list[Fraction]:
    """The numbers written in digits, in their order."""
    found = re.findall(rf"(?<![\w.])(?:{_NUMBER})", _MARK.sub("", step))
    return [Fraction(_ZEROS.sub("", text)) for text in found if len(text) <= _LONGEST_NUMBER]


_HUNDREDTHS = re.compile(r"%|\b(?:percent|cents?)\b", re.IGNORECASE)
_LONGEST_NUMBER = 300  # characters; a model may write digits without end, which are no number
_MARK = re.compile(r"<<[^<>]*>>")
_NUMBER = r"(?:\d{1,3}(?:[,\ ]\d{3})+(?!\d)|\d+)(?:\.\d+)?|\.\d+"
_FRACTION = r"(?:(?P<whole>\d+)\ (?:and\ )?)?(?P<top>\d+)/(?P<bottom>[1-9]\d*)(?![\d.,])"
_OPERAND = r"(?=[\s$€£]*-?[\s$€£]*[\d.(])"  # what a sign must stand before: `$3/hour` is no division
_LETTER = r"(?:(?<![A-Za-z'’])[b-zB-HJ-Z](?![A-Za-z'’])|(?<=\d)[A-Za-z](?![A-Za-z]))"  # `x`, `3x`; not `a` or `Tom's`
_TOKEN = re.compile(
    rf"""(?P<number>{_FRACTION}|(?P<decimal>{_NUMBER}))(?P<percent>\s?%|\spercent\b)?
    |(?P<power>\*\*|\^)
    |(?P<times>[*×·]{_OPERAND}|(?<![A-Za-z])[xX](?=[\s$€£]*[\d(.])|\\times\b|\b(?:times|of|multiplied\sby){_OPERAND})
    |(?P<over>[/÷]{_OPERAND}|\bdivided\sby{_OPERAND})
    |(?P<plus>(?:\+|\bplus){_OPERAND})
    |(?P<minus>(?:[-−–]|\bminus){_OPERAND})
    |(?P<open>\()|(?P<close>\))
    |(?P<equals>=)
    |(?P<variable>{_LETTER})
    |(?P<stop>[.!?;:](?=\s|$)|,(?=\s)|\n|\b(?:and|so|or|then|which|if|because|since|but)\b)""",
    re.VERBOSE,
)
_SYMBOLS = {"times": " * ", "over": " / ", "plus": " + ", "minus": " - "}


@dataclasses.dataclass
class _Side:
    """One side of an equation while it is read."""

    text: str = ""
    numbers: list[Fraction] = dataclasses.field(default_factory=list)
    decimals: int = 0
    percent: bool = False
    depth: int = 0

    @property
    def whole(self) -> bool:
        """Whether the side could end here."""
        return bool(self.text) and self.depth == 0 and self.text[-1] in "0123456789)"

    def takes_operand(self) -> bool:
        return not self.text or self.text.endswith((" ", "("))

    def takes_sign(self, token: re.Match[str]) -> bool:
        """A sign stands after an operand, a minus also at the beginning; `of` multiplies a share alone."""
        if self.takes_operand():
            return not self.text and bool(token["minus"])
        return token.group() != "of" or self.percent or "/" in self.text

    def add_number(self, token: re.Match[str]) -> None:
        """Adds a number, a fraction `1/4`, or a mixed number `2 1/4`; what follows a division sign in brackets."""
        numbers = [_ZEROS.sub("", token[name]) for name in ("whole", "top", "bottom", "decimal") if token[name]]
        plain = numbers[-1]
        if token["bottom"]:
            plain = f"{numbers[-2]} / {numbers[-1]}"
            plain = f"({numbers[0]} + {plain})" if token["whole"] else plain
            plain = f"({plain})" if self.text.endswith("/ ") else plain
        if token["percent"]:
            plain = f"({plain} / 100)"
        self.text += plain
        self.numbers += [Fraction(number) for number in numbers]
        self.decimals = len(numbers[-1].partition(".")[2])
        self.percent |= bool(token["percent"])


_ZEROS = re.compile(r"^0+(?=\d)|[, ]")
_FACTOR = re.compile(r"(?<=\d)\([\d+*/ -]+\)")  # `4(7)` is a product, `15 (as before)` is not


def _equations(text: str) -> Iterator[list[_Side]]:
    """The sides of each chain of equations that holds numbers alone."""
    sides: list[_Side] = []
    side = _Side()
    spoilt = False  # by what is not read, up to the next stop
    for token in _TOKEN.finditer(text):
        kind = token.lastgroup if token.lastgroup != "percent" else "number"
        if kind == "stop":
            yield [*sides, side]
            sides, side, spoilt = [], _Side(), False
        elif spoilt:
            continue
        elif kind in ("variable", "power") or len(token.group()) > _LONGEST_NUMBER:
            sides, side, spoilt = [], _Side(), True
        elif kind == "number":
            if not side.takes_operand():  # a number after a number begins anew
                yield [*sides, side]
                sides, side = [], _Side()
            side.add_number(token)
        elif kind == "open" and (side.takes_operand() or _FACTOR.match(text, token.start())):
            side.text += "(" if side.takes_operand() else " * ("
            side.depth += 1
        elif kind == "close" and side.depth:
            side.text, side.depth = side.text + ")", side.depth - 1
        elif kind == "equals":
            sides, side = ([*sides, side] if side.whole else []), _Side()
        elif kind in _SYMBOLS and side.takes_sign(token):
            side.text += _SYMBOLS[kind]
    yield [*sides, side]


def _claim(left: _Side, right: _Side, hundredfold: bool) -> Claim | None:
    if not (left.whole and right.whole):
        return None
    value, stated = expressions.exact(left.text), expressions.exact(right.text)
    if len(left.numbers) < 2 or value is None or stated is None:
        return None
    holds = (
        value == stated
        or (len(right.numbers) > 1 and value == right.numbers[0])
        or (value.denominator > 1 and abs(value - stated) < Fraction(1, 10**right.decimals))
        or (hundredfold and stated in (value * 100, value / 100))
    )
    return Claim(" ".join(left.text.split()), tuple(left.numbers), value, stated, holds)
