"""The sides of equations in a step: `5 boxes x $3 = $15` has the sides `5 * 3` and `15`.

A step is read from left to right as chains of sides, `side = side = …`. A side is part of a claim only where it
is read to its end: next to it is a word, a unit, the end of a sentence or of a formula. A letter, a sign without an
operand, a second number, or any unknown character makes it invalid.
"""

import dataclasses
import re
from fractions import Fraction
from typing import Literal

# --- tokens: every character of a step belongs to one -----------------------------------------------------------------

_LONGEST_NUMBER = 300  # characters; a model may write digits without end, which are no number
_ZEROS = re.compile(r"^0+(?=\d)|[, ]")
_NUMBER = r"(?:\d{1,3}(?:,\d{3})+(?![\d,]\d)|\d{1,3}(?:\ \d{3})+(?![\d-])|\d+)(?:\.\d+)?|\.\d+"
_FRACTION = r"(?:(?P<whole>\d+)\ +(?:and\ )?(?=\d\d?/))?(?P<top>\d+)/(?P<bottom>[1-9]\d*)(?!,?\d|\.\d|/\s?\d)"
_MONEY = r"[\s$€£]*"
_OPERAND = rf"(?={_MONEY}-?{_MONEY}(?:\.?\d|\())"  # what a sign must stand before
_STOPS = (
    "and|so|or|then|which|if|because|since|but|thus|therefore|hence|where|when|while|gives|giving|is|are|was|were|for"
)
# Words that change the number beside them, and those that change the one before which they stand.
_OPEN = (
    "half|halves|thirds?|fourths?|fifths?|sixths?|eighths?|tenths?|twice|thrice|doubled?|tripled?|quadruple|squared|cubed"
    "|square\\s+(?:of|roots?)|cube\\s+(?:of|roots?)|roots?|factorial|negative|dozens?|pairs?|scores?|hundreds?"
    "|remainder|r|out|sin|cos|tan|log|ln|sqrt|max|min|gcd|lcm"
)
_OPEN_BEFORE = (
    "average|mean|sum|product|difference|quotient|ratio|cost|prices?|value|worth|area|length|weight|rest|reciprocal"
    "|inverse|opposite"
)
_TOKEN = re.compile(
    rf"""(?P<space>[ \t$€£]+)
    |(?P<number>{_FRACTION}|(?P<decimal>{_NUMBER}))(?P<percent>\s?%(?!\s*[\d(])|\spercent\b)?(?P<glued>[A-Za-z]+(?:\^-?\d)?)?
    |(?P<power>\*\*(?=\(?-?\d)|\^(?=\(?-?\d))
    |(?P<times>[*×]{_OPERAND}|[xX](?={_MONEY}\(?{_MONEY}\.?\d)|(?i:times|of|multiplied\ by)\b{_OPERAND})
    |(?P<over>[/÷]{_OPERAND}|(?i:divided\ by){_OPERAND})
    |(?P<plus>(?:\+|(?i:plus)\b){_OPERAND})
    |(?P<minus>(?:[-−]|(?i:minus)\b){_OPERAND})
    |(?P<open>[(\[])|(?P<close>[)\]])
    |(?P<equals>==?(?!>)|(?i:equals|is\ equal\ to)\b|(?P<about>≈))
    |(?P<bang>(?<=[\d)])!)
    |(?P<stop>[.!?;:,](?=\s|$)|(?<=[A-Za-z]):|["|{{}}<>→\n]|=>|—|\b(?i:{_STOPS})\b)
    |(?P<unit>/\s?[A-Za-z]{{2,}}|-[A-Za-z]{{2}}[A-Za-z-]*|[°'’])
    |(?P<open_word>\b(?i:{_OPEN})\b)|(?P<open_before>\b(?i:{_OPEN_BEFORE})\b)
    |(?P<name>\b[b-zB-HJ-Z]\b(?!['’])|(?<=\))[A-Za-z]\b|\b[aAI](?=\s*[=≈^+*/×)])|[A-Za-z]+[\d_(][A-Za-z0-9_(]*)
    |(?P<word>[A-Za-z][A-Za-z'’-]*(?:\s*\^-?[1-3]\b)?)
    |(?P<mark>\*+(?=\s|$|[.,;:!?A-Za-z]))
    |(?P<unread>.)""",
    re.VERBOSE | re.DOTALL,
)
_SIGNS = frozenset("+-−*×/÷^")
_SYMBOLS = {"times": " * ", "over": " / ", "plus": " + ", "minus": " - ", "power": " ** "}
_LINKS = frozenset(
    ["of", "the", "a", "an", "his", "her", "their", "its", "my", "our", "your", "these", "those", "that", "all"]
)
_GLUED_NAMES = (
    "mm cm dm km kg mg ml cl lb lbs oz ft yd yds mi hr hrs min mins sec secs mph kph kw kwh am pm sq cc "
    "gb mb kb tb hours hour minutes minute seconds second days day weeks week months month years year "
    "miles mile inches inch feet foot yards yard meters metres cents cent dollars dollar people"
)
_GLUED_UNITS = frozenset(_GLUED_NAMES.split())
_COMMENT = re.compile(r"\([^()=+*×^/§]{0,200}[A-Za-z]{2}[^()=+*×^/§]{0,200}\)")
_LABELS = frozenset(
    ["day", "days", "week", "weeks", "month", "year", "step", "number", "level", "grade", "row", "line", "part"]
)
_FACTOR = re.compile(r"(?<=[\d)])[(\[][\d+*×/. -]+[)\]]")  # `4(7)` is a product
# Units by the quantity they measure: 2 hours + 30 minutes = 150 minutes.
_UNITS = {
    unit: (kind, number)
    for kind, units in {
        "time": "seconds? secs?|minutes? mins?|hours? hrs?|days?|weeks?|months?|years? yrs?|decades?|century centuries",
        "length": "mm|cm|dm|m meters? metres?|km kilometers? kilometres?|inch inches|feet foot ft|yards?|miles?",
        "weight": "mg|g grams?|kg kilograms? kilos?|ounces? oz|pounds? lbs?|tons? tonnes?",
        "volume": "ml|l liters? litres?|cups?|pints?|quarts?|gallons?|tablespoons?|teaspoons?",
        "money": "cents? ¢|dollars?|dimes?|nickels?|pennies penny|quarters?",
    }.items()
    for number, names in enumerate(units.split("|"))
    for name in names.split()
    for unit in {name.replace("?", ""), name.removesuffix("s?")}
}


# --- sides ------------------------------------------------------------------------------------------------------------


@dataclasses.dataclass
class Side:
    """One side of an equation while it is read."""

    text: str = ""
    numbers: list[Fraction] = dataclasses.field(default_factory=list)
    decimals: int = 0
    percents: int = 0
    depth: int = 0
    signs: int = 0
    units: set[tuple[str, int]] = dataclasses.field(default_factory=set)
    apart: bool = False  # a word has passed since the last number
    invalid: bool = False
    ambiguous: bool = False
    about: bool = False  # whether the sign before it is ≈

    @property
    def complete(self) -> bool:
        """Whether it was read to its end without anything unknown."""
        return bool(self.text) and not self.invalid and self.depth == 0 and self.text[-1] in "0123456789)"

    def takes_operand(self) -> bool:
        return not self.text or self.text.endswith((" ", "(", "-"))

    def end(self) -> None:
        """Drops a bracket that opens before the equation and closes after it: `(5 + 3 = 8)`."""
        if self.depth == 1 and self.text.startswith("(") and _UNCLOSED.fullmatch(self.text[1:]):
            self.text, self.depth = self.text[1:], 0

    def add_number(self, token: re.Match[str]) -> None:
        """Adds a number, a fraction `1/4`, or a mixed number `2 1/4`; what follows a division sign in brackets."""
        numbers = [_ZEROS.sub("", token[name]) for name in ("whole", "top", "bottom", "decimal") if token[name]]
        plain = numbers[-1]
        if token["bottom"]:
            plain = f"{numbers[-2]} / {numbers[-1]}"
            plain = f"({numbers[0]} + {plain})" if token["whole"] else plain
            if self.text.endswith(("/ ", "** ")):
                plain, self.ambiguous = f"({plain})", True
            self.ambiguous |= bool(token["percent"])
        if token["percent"]:
            plain = f"({plain} / 100)"
        self.text += plain
        self.numbers += [Fraction(number) for number in numbers]
        self.decimals = len(numbers[-1].partition(".")[2])
        self.percents += bool(token["percent"])
        self.apart = False
        glued = (token["glued"] or "").lower()
        self.invalid |= bool(glued) and glued not in _GLUED_UNITS
        self.units |= {_UNITS[glued]} if glued in _UNITS else set()


class _Reader:
    """Reads the tokens of a text into chains of sides."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.done: list[list[Side]] = []
        self.sides: list[Side] = []
        self.side = Side()
        # What stands before the first number of a side: nothing or words, "open" to another meaning, "invalid", or a
        # sign without an operand, after which words may be one.
        self.before: Literal["", "open", "invalid", "sign"] = ""
        self.line_starts = True

    def read(self) -> list[list[Side]]:
        at = 0
        while token := _TOKEN.match(self.text, at):
            at = token.end()
            kind = token.lastgroup or ""
            if kind in ("percent", "glued"):
                kind = "number"
            if kind == "about":
                kind = "equals"
            if kind == "open" and (comment := self.comment(token)):
                at, self.side.apart = comment.end(), True
                continue
            if kind == "number" and token["glued"] in ("x", "X") and _AFTER_X.match(self.text, at):
                token = _TOKEN.match(self.text[: at - 1], token.start()) or token  # `5x3`, with the x a sign
                at = token.end()
            self.take(kind, token)
            if kind != "space":
                self.line_starts = token.group() == "\n"
        self.stop()
        return self.done

    def comment(self, opened: re.Match[str]) -> re.Match[str] | None:
        """Words in brackets behind a number or a unit: `15 (as before)`; `2(a + b)` is a product."""
        before = self.text[max(0, opened.start() - 2) : opened.start()]
        behind = before[-1:].isspace() and before[:1] != ")" and not self.side.takes_operand()
        return _COMMENT.match(self.text, opened.start()) if behind else None

    def stop(self, before: Literal["", "open", "invalid", "sign"] = "") -> None:
        """Ends the chain; `before` is what the end means for what follows."""
        self.side.end()
        if not (self.sides or self.side.text or self.before):
            return
        waits = self.side.text.endswith(" ") or self.before == "sign"  # for an operand that is not read
        self.done.append([*self.sides, self.side])
        self.sides, self.side = [], Side()
        self.before = "invalid" if waits else before

    def take(self, kind: str, token: re.Match[str]) -> None:
        side = self.side
        match kind:
            case "space":
                pass
            case "stop":
                thousands = (
                    token.group() == "," and not side.takes_operand() and _THOUSANDS.match(self.text, token.end())
                )
                self.stop("open" if thousands else "")
            case "bang" if _SIGN_AFTER.match(self.text, token.end()):  # a factorial
                self.invalidate()
            case "bang":
                side.ambiguous = True
                self.stop()
            case "equals":
                side.end()
                self.sides.append(side)
                self.side, self.before = Side(about=bool(token["about"])), ""
            case "number":
                self.number(token)
            case "open":
                self.open(token)
            case "close":
                if side.depth and not side.takes_operand():
                    side.text, side.depth = side.text + ")", side.depth - 1
                elif side.depth:
                    side.invalid = True
                else:
                    self.stop("invalid")
            case "word" | "unit":
                self.word(token.group().lower().strip("/- "), kind)
            case "open_word" | "open_before":
                side.ambiguous |= bool(side.text) and kind == "open_word"
                side.apart = True
                self.before = "open"
            case "mark":
                pass
            case _ if kind in _SYMBOLS:
                self.sign(kind, token)
            case _:  # a variable, or what is not known
                self.invalidate()
                if token.group() in _SIGNS:
                    self.before = "sign"

    def invalidate(self) -> None:
        self.side.invalid |= bool(self.side.text)
        if self.before != "sign":
            self.before = "invalid"

    def word(self, word: str, kind: str) -> None:
        side = self.side
        if side.text and side.takes_operand():
            side.invalid = True
        side.apart = True
        if word in _UNITS and kind == "word":
            side.units.add(_UNITS[word])
        if word in _LABELS:
            self.before = "open"
        elif word not in _LINKS and self.before != "sign":
            self.before = ""

    def number(self, token: re.Match[str]) -> None:
        side = self.side
        if len(token.group()) > _LONGEST_NUMBER:
            return self.invalidate()
        if side.takes_operand():
            self.start_side()
            side.add_number(token)
        elif side.apart and side.depth == 0:  # a number after words starts a new chain
            self.stop(self.before)
            self.start_side()
            self.side.add_number(token)
        else:  # two numbers in a row
            side.invalid = True
        return None

    def start_side(self) -> None:
        """Marks a new side by what stands before its first number."""
        if not self.side.text:
            self.side.invalid |= self.before in ("invalid", "sign")
            self.side.ambiguous |= self.before == "open"
        self.before = ""

    def open(self, token: re.Match[str]) -> None:
        side = self.side
        if side.takes_operand():
            self.start_side()
            side.text, side.depth = side.text + "(", side.depth + 1
        elif _FACTOR.match(self.text, token.start()):
            side.ambiguous |= "/" in side.text
            side.text, side.depth, side.signs = side.text + " * (", side.depth + 1, side.signs + 1
        elif side.apart and side.depth == 0 and self.text[token.start() - 1].isspace():
            self.stop(self.before)
            self.open(token)
        else:
            side.invalid = True
            side.depth += 1

    def sign(self, kind: str, token: re.Match[str]) -> None:
        """A sign stands after an operand, a minus also before one; `of` multiplies a share alone."""
        side = self.side
        if not side.takes_operand():
            if token.group().lower() == "of" and not (side.percents or "/" in side.text):
                return self.word("of", "word")
            side.ambiguous |= side.apart and self.is_glued(token) and kind in ("minus", "over")
            last = side.text[-_LONGEST_NUMBER:]
            side.ambiguous |= kind == "power" and bool(_POWER.search(last))  # 2^43^2 is 2^4 * 3^2 to some
            side.text += _SYMBOLS[kind]
            side.signs += 1
            side.apart = False
        elif kind == "minus" and not side.text.endswith(("- ", "-")):
            glued = not self.text[token.end() : token.end() + 1].isspace()
            if side.text:
                side.text += "-"
            elif self.line_starts and not glued:  # a bullet
                return None
            elif glued or self.sides:
                self.start_side()
                side.text, side.ambiguous = "-", not self.sides
            else:  # `the cost - 5`, or a dash
                self.before = "open"
        elif token.group() == "*" and self.line_starts:
            return None  # a bullet
        elif kind == "times" and token.group().lower() == "of":
            self.word("of", "word")
        else:
            self.invalidate()
            self.before = "sign"
        return None

    def is_glued(self, sign: re.Match[str]) -> bool:
        """Whether a sign stands at the next number and not at what is before it (`a day -5`), or ends a unit's name."""
        spaced = self.text[sign.start() - 1 : sign.start()].isspace()
        return (spaced or sign.group() == "/") and not self.text[sign.end() : sign.end() + 1].isspace()


_UNCLOSED = re.compile(r"(?:[^()]|\([^()]*\))*+")  # brackets that close as they open
_POWER = re.compile(r"\*\* \d+$")
_THOUSANDS = re.compile(r" \d{3}(?!\d)")
_SIGN_AFTER = re.compile(r"\s*[=≈+×*/^()\[-]")
_AFTER_X = re.compile(rf"{_MONEY}\(?{_MONEY}\.?\d")


def chains(text: str) -> list[list[Side]]:
    """The sides of each chain of equations in a text of plain signs (`notation.arithmetic`)."""
    return _Reader(text).read()


def numbers(text: str) -> list[Fraction]:
    """The numbers written in digits in such a text, in their order."""
    found = re.findall(rf"(?<![\w.])(?:{_NUMBER})", text)
    return [Fraction(_ZEROS.sub("", number)) for number in found if len(number) <= _LONGEST_NUMBER]
