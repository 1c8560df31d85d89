"""Reading the final answer of a reasoning path, and numbers as people and models write them.

Exact: a number is a `Fraction`. Nothing here raises or runs long, whatever the text; what cannot be read is None.
"""

import re
import unicodedata
from collections.abc import Iterator
from fractions import Fraction

from lema_jax.tasks import expressions

# Bounds that no honest answer meets: characters of a number, characters of any answer, cues that are looked at.
_LONGEST = 400
_LONGEST_STATED = 2_000
_MOST_CUES = 50
_MOST_DIGITS = 300

# It begins where white space begins, and takes it whole: a model may write nothing but line breaks.
_NEXT_QUESTION = re.compile(r"(?<!\s)(?=[^\S\n]*+\n[^\S\n]*+\n)\s*+(?:Q|Question|#+\s*+Instruction)\s*+:")
_CUE = re.compile(
    r"(?P<box>\\f?boxed\b|\\fbox\b)|(?i:\banswer\s*(?:is|was|equals|[:=])\s*:?)|^[^\S\n]*+(?:A:|\#{4})", re.MULTILINE
)


def stated(text: str) -> Iterator[tuple[str, bool]]:
    """What follows each cue of a final answer, the last cue first, and whether it is the content of a box.

    Cues: `the answer is`, `answer:`, `#### `, a line `A: `, and a box, whose content alone is given. What stands after
    the beginning of another question (`Q:`, `Question:` or `### Instruction:` in a paragraph of its own) is not looked
    at, nor what is further than 2,000 characters from its cue.
    """
    if next_question := _NEXT_QUESTION.search(text):
        text = text[: next_question.start()]
    for cue in reversed(list(_CUE.finditer(text))[-_MOST_CUES:]):
        what = text[cue.end() : cue.end() + _LONGEST_STATED]
        yield (braced(what), True) if cue["box"] else (what, False)


def braced(text: str) -> str:
    """The content of the braces that `text` opens with, white space before them allowed.

    Without an opening brace the first word; without a closing one, the rest of the text.
    """
    text = text.lstrip()
    if not text.startswith("{"):
        return re.split(r"[\s$]", text, maxsplit=1)[0]
    depth = 0
    for match in re.finditer(r"\\.|[{}]", text, re.DOTALL):
        depth += {"{": 1, "}": -1}.get(match.group(), 0)
        if depth == 0:
            return text[1 : match.start()]
    return text[1:]


def final_number(text: str) -> str | None:
    """The one number that a reasoning path states as its answer, as `number` reads it, in canonical form.

    A cue that no number follows gives way to the one before; a cue that several numbers follow (`5 or 6`) states no
    answer. Without any cue the answer is a last line that is a number and nothing else.
    """
    for after, _ in stated(text):
        line = _first_line(after)
        if _mentions_number(line):
            return canonical(line)
    last = text.rstrip().rpartition("\n")[2]
    return canonical(last) if len(last) < _LONGEST and _BARE.fullmatch(_plain(last)) else None


def last_number(text: str) -> str | None:
    """The only number in the last sentence of a text, in canonical form; None where that has none or several."""
    sentence = re.split(r"(?<=[.!?])\s+|\n", text.rstrip())[-1]
    if len(sentence) > _LONGEST:
        return None
    plain = _plain(sentence)
    several = len(_QUANTITY.findall(plain)) > 1 or len(re.findall(r"\d+(?:[.,]\d+)*", plain)) > 1
    return None if several else canonical(sentence)


def canonical(text: str) -> str | None:
    """The one number that `text` states: `17`, `-2.5`, `1/3`, `40%`; a time `4:30` or a ratio `3:2` as it stands."""
    plain = _sentence(_plain(text[:_LONGEST]))
    if pair := _PAIR.search(plain):
        return f"{int(pair[1])}:{pair[2]}" + (f" {pair[3].lower()}m" if pair[3] else "")
    value = _number(plain)
    return None if value is None else written(value) + "%" * ("%" in plain)


def number(text: str) -> Fraction | None:
    """The value of the one number that `text` states, or None when it states none or several.

    Reads signs, thousands separators, decimals, fractions and mixed numbers (`2 1/2`, `\\frac{5}{2}`, `½`), scientific
    notation, `million`, numbers in words, arithmetic (`3 * 4`; what follows `=`), with currency, units, percent signs,
    Markdown and LaTeX around them. A percentage is its number: `40%` is 40.
    """
    return _number(_sentence(_plain(text[:_LONGEST])))


def same_number(answer: str, gold: str) -> bool:
    """Whether both state the same number, exactly; `50%` also equals 0.5. Two times or ratios are compared as pairs."""
    pairs = _PAIR.search(_plain(answer[:_LONGEST])), _PAIR.search(_plain(gold[:_LONGEST]))
    if pairs[0] and pairs[1]:
        return _same_pair(pairs[0], pairs[1])
    if pairs[0] or pairs[1]:
        return False
    left, right = number(answer), number(gold)
    if left is None or right is None:
        return False
    percents = "%" in answer, "%" in gold
    return left == right or (percents == (True, False) and left == right * 100)


# --- text to plain text -----------------------------------------------------------------------------------------------

_VULGAR = "½⅓⅔¼¾⅕⅖⅗⅘⅙⅚⅛⅜⅝⅞"
_CHARACTERS = str.maketrans(
    {char: " " + unicodedata.normalize("NFKC", char).replace("⁄", "/") for char in _VULGAR}
    | dict.fromkeys("−–‐‑﹣－", "-")
    | dict.fromkeys("  \u2009", " ")
    | {"×": "*", "·": "*", "÷": "/", "⁄": "/", "≈": "=", "％": "%", "，": ",", "\u202f": ""}
    | dict.fromkeys("$€£¥₹¢`", "")
)
_REWRITES = [
    (re.compile(pattern), new)
    for pattern, new in (
        (r"<<[^<>]*>>", ""),
        (r"\\(?:text|mbox|mathrm|mathbf|textbf)\s*\{([^{}]*)\}", r" \1 "),
        (r"\\(?:[dt]?frac|cfrac)\s*\{([^{}]*)\}\s*\{([^{}]*)\}", r" (\1)/(\2)"),
        (r"\\[dt]?frac\s*(\d)\s*(\d)", r" \1/\2"),
        (r"\(\s*(\d+)\s*\)/\(\s*(\d+)\s*\)", r"\1/\2"),
        (r"\{,\}|\\[,;:! ]", ""),
        (r"\\(?:times|cdot)\b", "*"),
        (r"\\(?:left|right|displaystyle)\b|\^\s*\{?\\circ\}?|\\[()\[\]]", ""),
        (r"\\(.)", r"\1"),
        (r"(?<![\d)*])\*++(?=\S)|\*++(?!\s*[\d(.-])", ""),  # emphasis, not a product
        (r"(?<=\d)\s*[xX]\s*(?=\d)", " * "),
        (r"(?i)\bper\s?cent\b", "%"),
        (r"\^\s*\{([^{}]*)\}", r"^(\1)"),
    )
]


def _plain(text: str) -> str:
    text = text.translate(_CHARACTERS)
    for pattern, new in _REWRITES:
        text = pattern.sub(new, text)
    return text


def _first_line(text: str) -> str:
    return text.lstrip()[:_LONGEST].partition("\n")[0]


def _sentence(plain: str) -> str:
    """The first sentence that mentions a number, without its reasons, and there what follows the last `=`."""
    start = found.start() if (found := re.search(r"\d", plain)) else 0
    end = _END.search(plain, start)
    sentence = plain[: end.start()] if end else plain
    before, equals, after = sentence.rpartition("=")
    if not equals:
        return sentence
    if _TWO_EQUATIONS.search(before):
        return ""
    return after if _mentions_number(after) else before


_END = re.compile(r"[.!?;](?=\s|$)|(?<=\S)\s(?:\(|(?:because|since|as)\b)", re.IGNORECASE)
_TWO_EQUATIONS = re.compile(r"=.*(?:\b(?:and|or)\b|[,;]\s)")


# --- plain text to numbers --------------------------------------------------------------------------------------------

_DECIMAL = r"(?:(?:\d{1,3}(?:[, ]\d{3})+(?![\d,])|\d+)(?:\.\d+)?|\.\d+)(?!\d|\.\d|[xyz]\b)"
_QUANTITY = re.compile(
    rf"""(?<![\w.])(?:(?<![\w)%]\s)(?P<sign>[-+])\s?)?
    (?:(?P<whole>\d+)\s+(?:and\s+)?(?P<part>\d+)\s?/\s?(?P<of>\d+)(?![\d.])
      |(?P<top>{_DECIMAL})\s?/\s?(?P<bottom>{_DECIMAL})
      |(?P<value>{_DECIMAL})(?:[eE](?P<e>[-+]?\d+)\b|\s?\*\s?10\s?\^\s?\(?\s?(?P<ten>[-+]?\d+)\s?\)?)?
    )
    (?:\s?(?P<scale>hundred|thousand|million|billion|trillion)\b)?""",
    re.VERBOSE,
)
_SCALES = {"hundred": 100, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
_ONES = (
    "zero|one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|thirteen|fourteen|fifteen|sixteen|seventeen"
    "|eighteen|nineteen"
)
_TENS = "twenty|thirty|forty|fifty|sixty|seventy|eighty|ninety"
SMALL = {word: value for value, word in enumerate(_ONES.split("|"))}
SMALL |= {word: 10 * value for value, word in enumerate(_TENS.split("|"), start=2)}
_WORD = "|".join([*SMALL, *_SCALES])
_WORDS = re.compile(
    rf"\W*(?:(?:the|a|an|about|only|exactly|approximately|minus)\W+)*"
    rf"(?P<words>(?:{_WORD})(?:[\s-]+(?:and\s+)?(?:{_WORD}))*)\b",
    re.IGNORECASE,
)
_SEVERAL = re.compile(r"(?:\b(?:or|and|to|through|versus|vs)|[,;/&+*^-]|^)[\s({]*$", re.IGNORECASE)
_CENTS = re.compile(r"(\d+)\s*(?:dollars?)?\s+and\s+(\d{1,2})\s+cents?\b")
_PAIR = re.compile(r"(?<![\d:.])(\d{1,6})\s?:\s?(\d{1,6})(?![\d:.]\d)(?:\s*([ap])\.?\s?m\b)?", re.IGNORECASE)
_BARE = re.compile(rf"\s*[-+]?\s?(?:{_DECIMAL})\s*[.%]?\s*")


def _mentions_number(text: str) -> bool:
    return bool(re.search(rf"\d|[{_VULGAR}]", text)) or bool(_WORDS.match(_plain(text)))


def _number(plain: str) -> Fraction | None:
    if cents := _CENTS.search(plain):
        return int(cents[1]) + Fraction(int(cents[2]), 100)
    first = _QUANTITY.search(plain)
    if first is None:
        return _in_words(plain)
    second = _QUANTITY.search(plain, first.end())
    if second and _SEVERAL.search(plain[first.end() : second.start()]):
        return _arithmetic(plain[first.start() :])
    return _quantity(first)


def _quantity(match: re.Match[str]) -> Fraction | None:
    if len(match.group()) > _MOST_DIGITS:
        return None
    parts = {name: re.sub("[, ]", "", text) for name, text in match.groupdict().items() if text}
    if "whole" in parts:
        top, bottom = Fraction(parts["part"]), Fraction(parts["of"])
        value = int(parts["whole"]) + top / bottom if bottom else None
    elif "top" in parts:
        bottom = Fraction(parts["bottom"])
        value = Fraction(parts["top"]) / bottom if bottom else None
    else:
        exponent = int(parts.get("e") or parts.get("ten") or 0)
        value = Fraction(parts["value"]) * Fraction(10) ** exponent if abs(exponent) <= _MOST_DIGITS else None
    if value is None:
        return None
    value *= _SCALES[parts["scale"]] if "scale" in parts else 1
    return -value if parts.get("sign") == "-" else value


def _arithmetic(plain: str) -> Fraction | None:
    """The value of the sum that `plain` begins with; `5-6` is a range, `5 - 6` a sum."""
    sum_ = re.match(r"[-+]?[\d.,\s()+*/^-]*[\d)]", plain)
    if sum_ is None or not re.search(r"[+*/^]|\s-\s", sum_.group()):
        return None
    return expressions.exact(re.sub(r"(?<=\d),(?=\d{3})", "", sum_.group()).replace("^", "**"))


def _in_words(plain: str) -> Fraction | None:
    match = _WORDS.match(plain)
    if match is None:
        return None
    whole = group = 0
    for word in re.split(r"[\s-]+(?:and\s+)?", match["words"].lower()):
        if word in SMALL:
            group += SMALL[word]
        elif word == "hundred":
            group = (group or 1) * 100
        else:
            whole, group = whole + (group or 1) * _SCALES[word], 0
    return Fraction(-(whole + group) if re.match(r"\W*minus\b", plain, re.IGNORECASE) else whole + group)


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


def _same_pair(one: re.Match[str], other: re.Match[str]) -> bool:
    """Times agree in both parts (and in a.m. or p.m. where both say it), ratios also when they reduce to the same."""
    a, b, c, d = int(one[1]), int(one[2]), int(other[1]), int(other[2])
    halves = {half.lower() for half in (one[3], other[3]) if half}
    if halves or (len(one[2]) == len(other[2]) == 2 and max(b, d) < 60):
        return (a, b) == (c, d) and len(halves) < 2
    return a * d == b * c and (a, b) != (0, 0) != (c, d)
