"""Parses the number that a reasoning path states as its answer, in the notations of people and models.

Exact: a number is a `Fraction`. Nothing here raises or runs long, whatever the text; what cannot be read is None.
"""

import functools
import re
from collections.abc import Iterator
from fractions import Fraction
from typing import NamedTuple

from lema_jax.tasks import cues, expressions, number_words, presentation, units, words

_LONGEST = 400  # characters that a number and the words around it may have
_MOST_DIGITS = 300


def final_number(text: str) -> str | None:
    """The number that a reasoning path states as its answer, as `number` parses it, in canonical form.

    The last statement that mentions a number counts (`cues.statements`); one of several numbers (`5 or 6`) states no
    answer. Without any cue the answer is a last line that is a number and nothing else.
    """
    for statement in cues.statements(text):
        if statement.remark:
            continue
        if len({canonical(content) for content in statement.boxes}) == 1:
            statement = cues.Statement(statement.boxes[0])
        plain = _arithmetic_text(_first_line(statement.text))
        if _DIGIT.search(plain) or number_words.value(_sentence(plain)) is not None:
            found = _read_plain(plain)
            return found and found.text
    text = cues.of_this_question(text)[-_LONGEST:]
    last = _arithmetic_text(presentation.document(text).rstrip().rpartition("\n")[2])
    return canonical(last) if len(last) < _LONGEST and _BARE.fullmatch(last) else None


def last_number(text: str) -> str | None:
    """The only number in the last sentence of a text, in canonical form; None if it has none or several."""
    text = cues.of_this_question(text)
    *before, sentence = re.split(r"(?<=[.!?])\s+|\n", presentation.document(text[-_LONGEST:]).rstrip())
    if not before and len(text) > _LONGEST:  # the sentence may begin earlier
        return None
    several = len(re.findall(r"\d+(?:[.,]\d+)*", sentence)) > 1
    return None if several else canonical(sentence)


def canonical(text: str) -> str | None:
    """The one number that `text` states: `17`, `-2.5`, `1/3`, `40%`; a time `4:30`, a ratio `3:2`, `2 hours 30 minutes`
    and `3 dozen` as they stand."""
    found = _read(text[:_LONGEST])
    return found and found.text


def number(text: str) -> Fraction | None:
    """The value of the one number that `text` states, or None when it states none or several.

    Reads signs, thousands separators, decimals, fractions and mixed numbers (`2 1/2`, `\\frac{5}{2}`, `½`), scientific
    notation, `million`, `k`, numbers in words, arithmetic (`3 * 4`; what follows `=`), two units of one quantity
    (`2 hours 30 minutes` is 2.5), with currency, units, percent signs, Markdown and LaTeX around them. A percentage is
    its number: `40%` is 40.
    """
    found = _read(text[:_LONGEST])
    return found.values[0] if found and found.values else None


def same_number(answer: str, gold: str) -> bool:
    """Whether both state the same number, exactly; `50%` also equals 0.5, and `2 hours 30 minutes` 2.5 and 150.

    Two times or ratios are compared as pairs.
    """
    one, other = _read(answer[:_LONGEST]), _read(gold[:_LONGEST])
    if one is None or other is None:
        return False
    if one.pair or other.pair:
        return bool(one.pair and other.pair and _same_pair(one, other))
    if any(value in other.values for value in one.values):
        return True
    share = one.percent and not other.percent  # of which `other` may be the value
    return share and any(value == 100 * wanted for value in one.values for wanted in other.values)


class _Reading(NamedTuple):
    """A number as it was read."""

    text: str  # canonical
    values: tuple[Fraction, ...] = ()  # several where a unit leaves open which is meant (hours or minutes)
    percent: bool = False
    pair: re.Match[str] | None = None


# --- a statement as arithmetic ----------------------------------------------------------------------------------------


def _patterns(*rewrites: tuple[str, str]) -> list[tuple[re.Pattern[str], str]]:
    return [(re.compile(pattern), new) for pattern, new in rewrites]


_LATEX = _patterns(
    (r"\\text\s*\{((?:[^{}]|\{[^{}]*\})*)\}", r" \1 "),
    (r"\\frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}", r" (\1)/(\2)"),
    (r"\\frac\s*(\d)\s*(\d)", r" \1/\2"),
    (r"\(\s*(\d+)\s*\)/\(\s*(\d+)\s*\)", r"\1/\2"),
    (r"\\(?:times|cdot|ast)(?![a-zA-Z])", "*"),
    (r"\\div(?![a-zA-Z])", "/"),
    (r"\\approx(?![a-zA-Z])", "="),
    (r"\^\\circ|\\[()\[\]]|\\sim(?![a-zA-Z])", " "),
    (r"\\%", "%"),
    (r"\A([^\w\\]*)\\[gl]e(?![a-zA-Z])", r"\1"),  # `\ge 5` is `at least 5`
)
_SIGNS = _patterns(
    (r"<<[^<>]*>>", ""),
    (r"(?<![\w.])~|\\?[$€£¥₹¢₽₩]", " "),
    (r"(?<=[A-Za-z])_(?:\{[^{}]*\}|\w)", ""),
    (r"(?<=\d)_(?=\d{3}(?!\d))", ","),
    (r"\*\*", "^"),
    (r"(?<=[A-Za-z])\s*\^\s*(?:\{[^{}]*\}|-?\w)", ""),  # of a unit
    (r"\^\s*\{([^{}]*)\}", r"^(\1)"),
)
_WORDS_OF_SIGNS = _patterns(
    (r"(?i:\bper\s?cent(?:age points?)?\b)", "%"),
    (r"(?i:(?<=\d)\s+squared\b)", "^2"),
    (r"(?i:\bminus\s+)", "- "),
    (r"(?i:\bnegative\s+)(?=[\d.(])", "-"),
    (r"(?<=\d)\s*(?i:\bplus\b)\s*(?=\d)", " + "),
    (r"(?<=\d)\s*[xX]\s*(?=\d)", " * "),
    (r"(?<=\d)\s+(?i:and\s+(?:a|one)[\s-]+half)\b", " 1/2"),
    (r"(?<=\d)\s+(?i:and\s+(?:a|one)[\s-]+quarter)\b", " 1/4"),
)
_SIGN = re.compile(r"[<~$€£¥₹¢₽₩_*^]")
_WORD_OF_SIGN = re.compile(r"per\s?cent|squared|minus|negative|plus|\d\s*x|\band\s", re.IGNORECASE)
_LABEL = re.compile(
    r"\W*(?:(?:step|part|question|problem|exercise|option|choice|case)\s*\d{1,3}\s*[:.)]|\(?[A-Ha-h][).:])\s+(?=.*\d)"
    # `on page 3 of the book: 12`
    r"|\W*(?:that|in|on|at|for|after|from|with|by|during|within)\b[^.:;=?!]{0,80}[a-zA-Z]:\s+(?=[^:]*$)(?=[-+$(]*\d)",
    re.IGNORECASE,
)


def _arithmetic_text(text: str) -> str:
    """Numbers, signs of arithmetic and words; a command of LaTeX that is left is nothing that is read here."""
    text = presentation.plain(text[:_LONGEST])
    wanted = ("\\" in text, _LATEX), (_SIGN.search(text), _SIGNS), (_WORD_OF_SIGN.search(text), _WORDS_OF_SIGNS)
    for pattern, new in (rewrite for found, rewrites in wanted if found for rewrite in rewrites):
        text = pattern.sub(new, text)
    return _LABEL.sub("", text, count=1) if _LABEL.match(text) else text


_BULLET = re.compile(r"\A[-*+•]\s+")


def _first_line(text: str) -> str:
    """The first line that has anything in it, with the next where it only announces that (`as follows:`)."""
    stripped = text.lstrip()[:_LONGEST]
    if "\n" in text[: len(text) - len(text.lstrip())]:
        stripped = _BULLET.sub("", stripped, count=1)
    line, _, rest = stripped.partition("\n")
    announces = line.rstrip().endswith(":") and not _DIGIT.search(line)
    return line + " " + rest.lstrip().partition("\n")[0] if announces else line


def _sentence(plain: str) -> str:
    """The first sentence that mentions a number, without its reasons, and there what follows the last `=`."""
    start = found.start() if (found := _DIGIT.search(plain)) else 0
    if (word := number_words.WORDS.match(plain, number_words.start(plain))) and word.start() < start:
        plain, start = plain[:start], word.start()  # `twelve (3 times 4)`
    end = _END.search(plain, start)
    sentence = plain[: end.start()] if end else plain
    before, equals, after = sentence.rpartition("=")
    if not equals:
        return sentence
    if _TWO_EQUATIONS.search(before):
        return ""
    return after if _DIGIT.search(after) or number_words.value(after) is not None else before


_DIGIT = re.compile(r"\d")
# A bracket ends the sentence, unless it is part of a sum: `48 (April) + 24 (May) = 72`, `12 * (3 + 4) = 84`.
_END = re.compile(
    r"[.!?](?=\s|$)|;(?=\s+\D|$)|(?<=\S)\s(?:because|since|as)\b"
    r"|(?<=[^\s*/+=])\s\((?![^()]*\)\s*(?:[*/+=]|-[^.;=]*=))",
    re.IGNORECASE,
)
_TWO_EQUATIONS = re.compile(r"=.*(?:\b(?:and|or)\b|[,;]\s)")


# --- arithmetic to numbers --------------------------------------------------------------------------------------------

_DECIMAL = r"(?:\d{1,3}(?:\ \d{3})+(?:[.,]\d+)?|\d+(?:[.,']\d+)*|\.\d+)(?!\d|[.,']\d|[abnxyz](?![A-Za-z])|\\)"
_QUANTITY = re.compile(
    rf"""(?<![A-Za-z0-9_.])(?:(?<![\w)%])(?<![\d)%]\s)(?P<sign>[-+])(?=[\d.])|(?<!\S)(?<![\w)%]\s)(?P<apart>[-+])\s)?
    (?:(?P<whole>\d+)\s+(?:and\s+)?(?P<part>\d+)\s?/\s?(?P<of>\d+)(?![\d.])
      |(?P<top>{_DECIMAL})\s?/\s?(?P<bottom>{_DECIMAL})
      |(?P<value>{_DECIMAL})(?:[eE](?P<e>[-+]?\d+)(?![\dA-Za-z])|\s?\*\s?10\s?\^\s?\(?\s?(?P<ten>[-+]?\d+)\s?\)?)?
    )
    (?:\s?(?P<scale>(?i:hundred|thousand|million|billion|trillion|dozen|mil|mn|bn))(?![A-Za-z])|(?P<letter>[kKMB]|tn)(?![A-Za-z]))?
    \s*(?P<percent>%)?""",
    re.VERBOSE,
)
_GROUPED = re.compile(r"\d{1,3}([, '])\d{3}(?:\1\d{3})*(?:\.\d+)?|\d{1,2}(?:,\d{2})+,\d{3}(?:\.\d+)?")
_COMMA = re.compile(r"(?:\d{1,3}(?:([. ])\d{3})(?:\1\d{3})*|\d+),\d+|\d{1,3}(?:\.\d{3}){2,}")
# `500 thousand` behind `1 million`; a number without a name follows at once.
_SCALED = re.compile(
    r"(?:,?\s*(?:and\s+)?(?=\d+\s+(?:hundred|thousand|million|billion)\b)|\s*)(\d{1,3})(?:\s+(hundred|thousand|million|billion)\b)?"
    r"(?![\d.,]*\d)",
    re.IGNORECASE,
)
_SCALES = number_words.NAMED | {
    "k": 10**3,
    **dict.fromkeys(("m", "mil", "mn"), 10**6),
    "b": 10**9,
    "bn": 10**9,
    "tn": 10**12,
}
_SEVERAL = re.compile(
    r"(?:\b(?:or|and|to|through|versus|vs|and/or)|[,;/&+*^-]|^)[\s({]*$"
    r"|\b(?:and|or|but|while|whereas|plus)\b|[,;&]"
    r"(?!\s*(?:which|that is|i\.e|so|not|where|with|for|in|after|when|if|giv|at|by)\b)",
    re.IGNORECASE,
)
# Before a first number that may not be the answer: `each of the 4 friends pays 20`, `in 3 days she has 20`.
_CIRCUMSTANCE = re.compile(
    r"\b(?:the|these|those|all|each|every|in|after|within|for|of|with|from|during|takes?)\s+$", re.IGNORECASE
)
_NOT = re.compile(r"\W*(?:and\s)?(?:not|rather than|instead of)\b", re.IGNORECASE)
_REMAINDER = re.compile(r"[^.\d]{0,30}\b(?:remainder|remaining|rem)\b|\s*[rR]\.?\s*\d")
_ANOTHER_LABEL = re.compile(r"(?<=\s)\(?[b-hB-H2-9]\)\s*[-+]?\d")
_PAIR = re.compile(
    r"(\d{1,6})\s?:\s?(\d{1,6})(?P<seconds>:[0-5]\d)?(?!\d|[:.]\d)(?:\s*(?P<half>[ap])\.?\s?m\b)?", re.IGNORECASE
)
_BARE = re.compile(rf"\s*[-+]?\s?(?:{_DECIMAL})\s*[.%]?\s*", re.VERBOSE)
_UNREAD = re.compile(r"\\[a-zA-Z]")


@functools.lru_cache(maxsize=4096)  # a gold answer is read once for all attempts at its question
def _read(text: str) -> _Reading | None:
    if _CANONICAL.fullmatch(text):
        value = _exact(text)
        return _Reading(expressions.written(value), (value,))
    return _read_plain(_arithmetic_text(text))


_CANONICAL = re.compile(r"-?\d{1,300}(?:\.\d{1,300})?", re.ASCII)


def _read_plain(plain: str) -> _Reading | None:
    plain = _sentence(plain)
    if _UNREAD.search(plain):
        return None
    found = next(_quantities(plain), None)
    if found is None:
        value = number_words.value(plain)
        return None if value is None else _Reading(expressions.written(value), (value,))
    if ":" in plain and (pair := _PAIR.match(plain, found.start())):
        half = f" {pair['half'].lower()}m" if pair["half"] else ""
        return _Reading(f"{int(pair[1])}:{pair[2]}{pair['seconds'] or ''}{half}", pair=pair)
    if _REMAINDER.match(plain, found.end()) or _ANOTHER_LABEL.search(plain, found.end()):
        return None
    values, end = _measured(plain, found)
    second = next(_quantities(plain, end), None)
    between = plain[end : second.start()] if second else ""
    if second and _SEVERAL.search(between) and not _NOT.match(between):
        value = _arithmetic(plain[found.start() :])
        return None if value is None else _Reading(expressions.written(value), (value,))
    if second and _CIRCUMSTANCE.search(plain, 0, found.start()) and not _NOT.match(between):
        return None
    if len(values) > 1:
        return _Reading(" ".join(plain[found.start() : end].split()), values)
    percent = "%" * bool(found["percent"])
    return _Reading(expressions.written(values[0]) + percent, values, bool(percent)) if values else None


def _measured(plain: str, found: re.Match[str]) -> tuple[tuple[Fraction, ...], int]:
    """The values that a quantity may have, and where it ends: of `3 dozen` 36 and 3, of `2 hours and 30 minutes` 2.5
    and 150, as of `2.5 hours or 150 minutes`."""
    value, end = _quantity(found), found.end()
    if value is None:
        return (), end
    if (found["scale"] or "").lower() == "dozen":
        return (value, value / 12), end
    size = _SCALES.get((found["scale"] or "").lower(), 1)
    while (
        size > 1
        and (part := _SCALED.match(plain, end))
        and (share := _SCALES[part[2].lower()] if part[2] else 1) < size
    ):
        rest = _decimal(part[1])
        if rest is None or rest * share >= size:
            break
        value, size, end = value + (rest * share if value > 0 else -rest * share), share, part.end()
    if next(_quantities(plain, end), None) is None:
        return (value,), end
    unit, unit_end = _unit(plain, end)
    small, contained = value, Fraction(1)  # the value in the smallest unit so far; how many of it the first contains
    for more in _quantities(plain, end):
        smaller, smaller_end = _unit(plain, more.end())
        joined, added = plain[unit_end : more.start()].strip(" ,"), _quantity(more)
        if added is None or smaller is None or joined not in ("", "and", "or"):
            break
        ratio = (unit or _DOLLAR).size / smaller.size
        if (
            (unit or _DOLLAR).dimension != smaller.dimension
            or (joined == "or" and small * ratio != added)
            or ratio <= 1
        ):
            break
        small, contained = small * ratio + (added if joined != "or" else 0), contained * ratio
        unit, unit_end, end = smaller, smaller_end, smaller_end
    return ((value,) if contained == 1 else (small / contained, small)), end


_DOLLAR = units.Unit("money^1", Fraction(1))  # of which the sign is no word
_UNIT = re.compile(r"\s*([A-Za-z]+)\b")


def _unit(plain: str, start: int) -> tuple[units.Unit | None, int]:
    """The unit of known size behind a number, and where it ends."""
    word = _UNIT.match(plain, start)
    unit = units.known(word[1]) if word else None
    return unit, word.end() if word and unit else start


def _quantities(plain: str, start: int = 0) -> Iterator[re.Match[str]]:
    return _QUANTITY.finditer(plain, start) if _DIGIT.search(plain, start) else iter(())


def _decimal(digits: str) -> Fraction | None:
    """The value of `1,234.5`, `1 234`, `1'234`, `1,00,000`, and of a decimal comma where it can be nothing else."""
    if digits.isdigit():
        return _exact(digits)
    if _GROUPED.fullmatch(digits):
        return _exact(digits.translate(_GROUP_MARKS))
    if _COMMA.fullmatch(digits):
        return _exact(digits.translate(_POINT_MARKS))
    return _exact(digits) if re.fullmatch(r"\d*\.?\d+", digits) else None


_GROUP_MARKS = str.maketrans("", "", ", '")
_POINT_MARKS = str.maketrans({".": None, " ": None, ",": "."})


def _exact(digits: str) -> Fraction:
    """The value of digits with a sign or a point; `Fraction` itself reads texts of whole numbers slowly."""
    return Fraction(digits) if "." in digits else Fraction(int(digits))


def _quantity(match: re.Match[str]) -> Fraction | None:
    if len(match.group()) > _MOST_DIGITS:
        return None
    if match.group().isdigit():
        return _exact(match.group())
    names = ("part", "of", "whole") if match["whole"] else ("top", "bottom") if match["top"] else ("value",)
    parts = [_decimal(match[name]) for name in names]
    if None in parts:
        return None
    value, *others = (part for part in parts if part is not None)
    if others and not others[0]:
        return None
    value = value / others[0] if others else value
    value = value + others[1] if len(others) > 1 else value
    exponent = int(match["e"] or match["ten"] or 0)
    if abs(exponent) > _MOST_DIGITS:
        return None
    if exponent:
        value *= Fraction(10) ** exponent
    if scale := match["scale"] or match["letter"]:
        value *= _SCALES[scale.lower()]
    return -value if "-" in (match["sign"], match["apart"]) else value


def _arithmetic(plain: str) -> Fraction | None:
    """The value of the sum that `plain` begins with; `5-6` is a range, `5 - 6` a sum."""
    sum_ = re.match(r"[-+]?[\d.,\s()+*/^-]*[\d)]", re.sub(r"\([^()\d]*\)", "", plain))
    if sum_ is None or not re.search(r"[+*/^]|\s-\s", sum_.group()):
        return None
    return expressions.exact(re.sub(r"(?<=\d),(?=\d{3})", "", sum_.group()).replace("^", "**"))


def _same_pair(one: _Reading, other: _Reading) -> bool:
    """Times agree in hours, minutes and seconds (20:34 is 8:34 pm), ratios also when they reduce to the same."""
    assert one.pair is not None
    assert other.pair is not None
    marked = any(pair["half"] or pair["seconds"] for pair in (one.pair, other.pair))
    if marked or all(len(pair[2]) == 2 and int(pair[2]) < 60 for pair in (one.pair, other.pair)):
        return words.same_time(one.text, other.text)
    a, b, c, d = int(one.pair[1]), int(one.pair[2]), int(other.pair[1]), int(other.pair[2])
    return a * d == b * c and (a, b) != (0, 0) != (c, d)
